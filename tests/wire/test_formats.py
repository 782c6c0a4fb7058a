"""Readings, seals, envelopes, acks, transactions, headers, topics: inverse codecs, strict decoders, published sizes."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware.crypto.openssl import verify_digest
from firmware.wire import (
    ack,
    cbor,
    cose,
    genesis,
    header,
    identity,
    merkle,
    reading,
    seal,
    state,
    topics,
    transaction,
)
from firmware.wire.errors import Refused
from firmware.wire.reasons import NUMBERS, REASONS
from tests.wire import build

names = st.text("abcdefghijklmnopqrstuvwxyzABC0123456789-:./_", min_size=1, max_size=20).filter(
    lambda name: reading.is_name(name) and not name.endswith(reading.MISSING))
entries = st.one_of(
    st.builds(lambda n, u, v: reading.Entry(n, u, v, None), names, st.sampled_from((None, *reading.UNITS)),
              st.integers(-(2**63), 2**63 - 1)),
    st.builds(lambda n, r: reading.Entry(n, None, None, r), names, st.text(max_size=20)))
readings = st.builds(reading.Reading, st.binary(min_size=8, max_size=8), st.integers(0, 2**32 - 1),
                     st.integers(0, 2**43), st.lists(entries, min_size=1, max_size=8).map(tuple), st.integers(0, 31),
                     st.binary(min_size=32, max_size=32))


def reason_of(work: object, *arguments: object) -> str:
    with pytest.raises(Refused) as caught:
        work(*arguments)  # type: ignore[operator]
    return caught.value.reason


@given(readings)
def test_reading_decodes_to_itself(made: reading.Reading) -> None:
    data = reading.encode(made)
    assert reading.decode(data) == made
    assert reading.encode(reading.decode(data)) == data


@given(readings, st.data())
def test_changed_reading_is_refused_or_encodes_to_itself(made: reading.Reading, data: st.DataObject) -> None:
    changed = bytearray(reading.encode(made))
    changed[data.draw(st.integers(0, len(changed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        assert reading.encode(reading.decode(bytes(changed))) == changed
    except Refused:
        pass


def test_billing_reading_is_small() -> None:
    entries = tuple(reading.Entry(name, unit, 2**31, None) for name, unit in (
        ("1.8.0", "Wh"), ("2.8.0", "Wh"), ("16.7.0", "W")))
    data = reading.encode(reading.Reading(b"\xff" * 8, 99_999, 1_790_000_000_123, entries, 2, bytes(32)))
    assert len(data) <= 180


@given(st.integers(1, 2**32), st.integers(1, 40), st.one_of(st.none(), st.integers(0, 2**40)))
def test_seal_decodes_to_itself(height: int, count: int, import_wh: int | None) -> None:
    kid = bytes(range(8))
    items = [reading.encode(build.make_reading(kid, 7, 1000 * at)) for at in range(count)]
    made = build.make_seal(kid, 7, height, bytes(32), items, import_wh)
    assert seal.decode(seal.encode(made)) == made
    assert len(seal.check_readings(made, items)) == count


def test_readings_must_be_the_seals_own() -> None:
    kid = bytes(8)
    items = build.three_readings(kid)
    made = build.make_seal(kid, 7, 1, bytes(32), items)
    assert reason_of(seal.check_readings, made, items[:2]) == "wrong_count"
    assert reason_of(seal.check_readings, made, [items[1], items[0], items[2]]) == "wrong_root"
    falling = [items[1], items[0], items[2]]
    assert reason_of(seal.check_readings, made._replace(root=merkle.root(falling)), falling) == "wrong_times"
    other = build.three_readings(kid, 8)
    assert reason_of(seal.check_readings, made._replace(root=merkle.root(other)), other) == "wrong_reading"
    assert reason_of(seal.check_readings, made._replace(last_ms=made.last_ms + 1), items) == "wrong_times"
    assert reason_of(seal.decode, seal.encode(made._replace(first_ms=made.last_ms + 1))) == "wrong_times"
    assert reason_of(seal.decode, seal.encode(made._replace(count=0))) == "wrong_count"
    assert reason_of(seal.decode, seal.encode(made._replace(version=2))) == "wrong_version"
    assert reason_of(seal.decode, seal.encode(made._replace(lost=1))) == "malformed"


def test_envelope_limit() -> None:
    assert seal.decode_envelope(seal.encode_envelope(b"s" * 300, [b"r"] * 9)) == (b"s" * 300, [b"r"] * 9)
    with pytest.raises(ValueError, match="envelope"):
        seal.encode_envelope(b"", [bytes(seal.ENVELOPE_BYTES)])
    assert reason_of(seal.decode_envelope, bytes(seal.ENVELOPE_BYTES + 1)) == "oversize"


@given(st.binary(max_size=300), st.sampled_from(cose.KINDS))
def test_cose_parses_what_it_signs(payload: bytes, kind: str) -> None:
    signer = build.test_key("agent")
    kid = identity.kid_of(signer.public_key())
    message = cose.sign1(payload, kid, kind, bytes(32), signer.sign_digest)
    signed = cose.parse(message)
    assert signed.payload == payload and signed.kid == kid
    cose.check(signed, kind, bytes(32), signer.public_key(), verify_digest)
    other = cose.KINDS[(cose.KINDS.index(kind) + 1) % len(cose.KINDS)]
    assert reason_of(cose.check, signed, other, bytes(32), signer.public_key(), verify_digest) == "bad_signature"
    assert reason_of(cose.check, signed, kind, b"\1" * 32, signer.public_key(), verify_digest) == "bad_signature"


def test_high_s_is_one_identity() -> None:
    signer = build.test_key("agent")
    message = cose.sign1(b"payload", bytes(8), "tx", bytes(32), signer.sign_digest)
    signature = cose.parse(message).signature
    high = signature[:32] + (cose.ORDER - int.from_bytes(signature[32:], "big")).to_bytes(32, "big")
    flipped = message[:-64] + high
    cose.check(cose.parse(flipped), "tx", bytes(32), signer.public_key(), verify_digest)
    assert cose.normalise(flipped) == message and cose.normalise(message) == message


def test_every_bit_of_a_message_counts() -> None:
    signer = build.test_key("agent")
    kid = identity.kid_of(signer.public_key())
    message = cose.sign1(b"payload", kid, "tx", bytes(32), signer.sign_digest)
    for bit in range(len(message) * 8):
        changed = bytearray(message)
        changed[bit >> 3] ^= 1 << (bit & 7)
        try:
            signed = cose.parse(bytes(changed))
            assert signed.kid != kid or not verify_digest(
                signer.public_key(), cose.digest(signed.payload, "tx", bytes(32)), signed.signature)
        except Refused as refused:
            assert refused.reason == "malformed"


def test_kid_is_the_thumbprints_beginning() -> None:
    public_key = build.test_key("agent").public_key()
    key = {1: 2, -1: 1, -2: public_key[1:33], -3: public_key[33:]}
    assert identity.thumbprint(public_key) == hashlib.sha256(cbor.encode(key)).digest()
    assert identity.decode_cose_key(identity.encode_cose_key(public_key)) == public_key
    assert reason_of(identity.decode_cose_key, cbor.encode({**key, -4: bytes(32)})) == "malformed"


@given(st.lists(st.binary(max_size=4), min_size=1, max_size=40), st.data())
def test_merkle_paths(leaves: list[bytes], data: st.DataObject) -> None:
    def naive(items: list[bytes]) -> bytes:
        if len(items) == 1:
            return merkle.leaf_hash(items[0])
        split = 1 << (len(items) - 1).bit_length() - 1
        return merkle.node_hash(naive(items[:split]), naive(items[split:]))

    top = naive(leaves)
    assert merkle.root(leaves) == top
    hashes = [merkle.leaf_hash(leaf) for leaf in leaves]
    index = data.draw(st.integers(0, len(leaves) - 1))
    path = merkle.path(hashes, index)
    others = data.draw(st.lists(st.integers(0, len(leaves) - 1), max_size=4))
    assert merkle.paths(hashes, [index, *others]) == [merkle.path(hashes, at) for at in [index, *others]]
    merkle.check_path(hashes[index], index, len(leaves), path, top)
    assert reason_of(merkle.check_path, hashes[index], index, len(leaves), [*path, bytes(32)], top) == "not_included"
    assert reason_of(merkle.check_path, bytes(32), index, len(leaves), path, top) == "not_included"
    assert reason_of(merkle.check_path, hashes[index], len(leaves), len(leaves), path, top) == "not_included"


def test_header_is_80_bytes() -> None:
    made = header.Header(1, b"p" * 32, b"r" * 32, 2**32 - 1, 3, 9)
    data = header.encode(made)
    assert len(data) == 80 and header.decode(data) == made
    assert data[4:36] == b"p" * 32 and data[36:68] == b"r" * 32 and data[76:] == (9).to_bytes(4, "big")
    with pytest.raises(ValueError, match="32 bits"):
        header.encode(made._replace(height=2**32))
    assert reason_of(header.decode, data + b"\0") == "malformed"
    assert reason_of(header.decode, b"\0\0\0\2" + data[4:]) == "wrong_version"


@given(st.integers(0, 2**32), st.booleans())
def test_ack_decodes_to_itself(point: int, is_advice: bool) -> None:
    proofs = [] if is_advice else [ack.SealProof(point, 3, None, 1, 2, [bytes(32)]),
                                   ack.SealProof(point, 4, bytes(64), 1, 1, [])]
    made = ack.Ack(b"" if is_advice else bytes(80), b"" if is_advice else b"c", proofs,
                   [ack.Refusal(point, 5, "fork")], [ack.Wanted(point, 6, 7)])
    assert ack.decode(ack.encode(made)) == made
    receipt = ack.Receipt(bytes(80), b"c", b"m", [bytes(32)], [0, 35], [ack.ItemProof(bytes(32), bytes(64), 1, 3, [])])
    assert ack.decode_receipt(ack.encode_receipt(receipt)) == receipt


def test_enrolment_is_signed_by_the_new_key_for_this_chain() -> None:
    signer = build.test_key("agent")
    kid = identity.kid_of(signer.public_key())
    asked = transaction.Enrolment(signer.public_key(), bytes(32), "agent", "home", "pi", "software")
    message = transaction.encode_enrolment(asked, kid, b"c" * 32, signer.sign_digest)
    assert transaction.decode_enrolment(message, b"c" * 32, verify_digest) == (kid, asked)
    assert reason_of(transaction.decode_enrolment, message, b"d" * 32, verify_digest) == "bad_signature"
    stolen = transaction.encode_enrolment(asked, kid, b"c" * 32, build.test_key("other").sign_digest)
    assert reason_of(transaction.decode_enrolment, stolen, b"c" * 32, verify_digest) == "bad_signature"
    entry = transaction.PointEntry(7, "home", "trade", 1, 1, bytes(32), "Eastron", "SDM120", "1", 0, None)
    body = transaction.enrol_body(message, kid, [entry], "note")
    made = transaction.Transaction(1, transaction.ENROL, kid, 1, 2, "trade", body)
    read = transaction.decode(transaction.encode(made))
    assert read == made and transaction.decode_enrol_body(read.body).points == [entry]
    assert transaction.is_transaction(cbor.decode(transaction.encode(made)))
    assert reason_of(transaction.decode_point, [*list(entry)[:3], 0, *list(entry)[4:]]) == "malformed"


def test_genesis_names_the_chain() -> None:
    chain, other = build.Chain(), build.Chain(name="two")
    read = genesis.decode(chain.genesis)
    assert read.members == chain.members and read.parameters == genesis.parameters()
    assert genesis.chain_id(chain.genesis) != genesis.chain_id(other.genesis)
    top = header.decode(genesis.header_zero(chain.genesis, "trade"))
    assert top.height == 0 and top.previous == bytes(32) and top.time_s == build.CREATED_S
    with pytest.raises(ValueError, match="no chain parameter"):
        genesis.parameters({"typo": 1})
    fields = cbor.decode(chain.genesis)
    fields[6].reverse()
    assert reason_of(genesis.decode, cbor.encode(fields)) == "wrong_set"


def test_state_buckets() -> None:
    key = state.agent_key(bytes(8))
    assert 0 <= state.bucket_of(key) < 4096
    assert state.bucket_of(key) == int(hashlib.sha256(key).hexdigest()[:3], 16)
    assert state.bucket_digest([(b"b", b"2"), (b"a", b"1")]) == state.bucket_digest([(b"a", b"1"), (b"b", b"2")])


@pytest.mark.parametrize("topic", [
    "", "gridseal", "gridseal/1/home/0123456789abcdef", "gridseal/1/home/0123456789ABCDEF/tx",
    "gridseal/1/home/0123456789abcdef/tx/more", "gridseal/2/home/0123456789abcdef/tx",
    "gridseal/1/ho+me/0123456789abcdef/tx", "gridseal/1/home/#/tx", "gridseal/1/home/0123456789abcdef/secret",
    "gridseal/1/" + "a" * 33 + "/0123456789abcdef/tx", "x" * 70_000])
def test_unknown_topics(topic: str) -> None:
    assert reason_of(topics.parse, topic) == "unknown_topic"


def test_topics_invert() -> None:
    for kind in topics.AGENT_WRITES + topics.AGENT_READS:
        assert topics.parse(topics.agent_topic("home", bytes(8), kind)) == ("home", bytes(8), kind)


def test_reasons_are_a_numbered_list() -> None:
    assert len(set(REASONS)) == len(REASONS) < 256 and NUMBERS["accepted"] == 0
    with pytest.raises(ValueError, match="unknown reason"):
        _ = Refused("no such reason").number
