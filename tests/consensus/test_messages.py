"""Checks the codecs: inverse, one form each, strict, and that any bytes end in a message or a Refused."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware.wire import cbor, cose
from firmware.wire.certificate import Member
from firmware.wire.errors import Refused
from firmware.wire.reasons import REASONS
from gateway.consensus import keys, messages
from gateway.consensus.messages import (
    Checkpoint,
    Data,
    Fetch,
    NewView,
    Prepared,
    SlotStatus,
    Status,
    Submit,
    ViewChange,
    Vote,
)
from gateway.consensus.types import Batch, Head

SIZE = 7
numbers = st.integers(0, 2**64 - 1)
digests = st.binary(min_size=32, max_size=32)
senders = st.integers(0, SIZE - 1)
blobs = st.binary(max_size=40)
several = st.lists(blobs, max_size=3).map(tuple)
masks = st.integers(0, 2**SIZE - 1)
heads = st.lists(st.builds(Head, st.sampled_from(["credit", "dispatch", "trade"]), numbers, digests), max_size=3,
                 unique_by=lambda head: head.channel).map(lambda rows: tuple(sorted(rows)))
slots = st.lists(st.builds(SlotStatus, numbers, st.booleans(), st.booleans(), masks, masks), max_size=4).map(tuple)
wanted = st.lists(st.tuples(st.sampled_from(["trade", "credit"]), numbers), max_size=4).map(tuple)
certificates = st.lists(st.builds(Prepared, blobs, several), max_size=3).map(tuple)
any_message = st.one_of(
    st.builds(Vote, st.integers(1, 3), numbers, numbers, digests, senders),
    st.builds(Checkpoint, numbers, digests, heads, senders),
    st.builds(ViewChange, numbers, numbers, several, certificates, senders),
    st.builds(NewView, numbers, several, several, senders),
    st.builds(Fetch, digests, senders),
    st.builds(Data, st.none() | blobs, several, senders),
    st.builds(Status, numbers, st.booleans(), numbers, numbers, numbers, masks, slots, wanted, senders),
    st.builds(Submit, several, senders),
)


@given(any_message, st.integers(0, 5))
def test_message_round_trip(message: messages.Message, epoch: int) -> None:
    payload = messages.encode(message, epoch)
    assert messages.decode(payload, epoch, SIZE) == message
    with pytest.raises(Refused, match="wrong_epoch"):
        messages.decode(payload, epoch + 1, SIZE)


@given(any_message, st.integers(0, 2**40))
def test_a_payload_has_the_one_encoding(message: messages.Message, epoch: int) -> None:
    payload = messages.encode(message, epoch)
    assert cbor.encode(cbor.decode(payload)) == payload


@given(any_message, st.data())
def test_changed_payload_is_refused_or_means_what_it_says(message: messages.Message, data: st.DataObject) -> None:
    payload = bytearray(messages.encode(message, 0))
    at = data.draw(st.integers(0, len(payload) - 1))
    payload[at] ^= 1 << data.draw(st.integers(0, 7))
    try:
        found = messages.decode(bytes(payload), 0, SIZE)
    except Refused:
        return
    assert messages.encode(found, 0) == bytes(payload)


KID, KEY = bytes(8), bytes(64)


@given(st.binary(max_size=300) | any_message.map(lambda message: messages.encode(message, 0)), st.data())
def test_quick_reading_of_a_signed_message_is_the_plain_one(payload: bytes, data: st.DataObject) -> None:
    """Whole, cut, or with a byte changed: `keys.parse` takes what `cose.parse` takes, reads it alike, refuses alike."""
    message = bytearray(cose.assemble(KID, payload, KEY))
    at = data.draw(st.integers(0, len(message)))
    if data.draw(st.booleans()):
        del message[at:]
    elif at < len(message):
        message[at] = data.draw(st.integers(0, 255))
    told = []
    for parse in (cose.parse, keys.parse):
        try:
            told.append(parse(bytes(message)))
        except Refused as refused:
            told.append(refused.reason)
    assert told[0] == told[1]


@pytest.mark.parametrize("size", [0, 23, 24, 150, 255, 256, 70_000])
def test_signed_digest_is_that_of_cose(size: int) -> None:
    seen: list[bytes] = []

    class Signer:
        def public_key(self) -> bytes:
            return b"key"

        def sign_digest(self, digest: bytes) -> bytes:
            seen.append(digest)
            return KEY
    chain = hashlib.sha256(b"chain").digest()
    ring = keys.CoseKeys(Signer(), [Member(KID, b"key", bytes(32))], chain,
                         lambda key, digest, signature: digest == seen[-1])
    for kind in ("pbft", "header"):
        signed = ring.sign(kind, bytes(size))
        assert seen[-1] == cose.digest(bytes(size), kind, chain) and signed == cose.assemble(KID, bytes(size), KEY)
        assert ring.open(kind, signed) == (0, bytes(size))
    with pytest.raises(Refused, match="bad_signature"):
        ring.open("pbft", ring.sign("header", bytes(size)))


@given(st.binary(max_size=80))
def test_any_bytes(payload: bytes) -> None:
    """Whatever comes is refused with a reason from the list, or taken; nothing else is raised."""
    for action in (lambda: messages.decode(payload, 0, SIZE), lambda: messages.open_frame(payload),
                   lambda: messages.decode_batch(payload)):
        try:
            action()
        except Refused as refused:
            assert refused.reason in REASONS


any_value = st.recursive(numbers | blobs | st.none() | st.booleans() | st.text(max_size=3),
                         lambda inner: st.lists(inner, max_size=5), max_leaves=12)


@given(st.integers(0, 12), st.lists(any_value, max_size=10), senders)
def test_any_values(kind: int, fields: list, sender: int) -> None:
    payload = cbor.encode([kind, 0, *fields, sender])
    try:
        found = messages.decode(payload, 0, SIZE)
    except Refused:
        return
    assert messages.encode(found, 0) == payload


@given(st.text(max_size=8), numbers, st.integers(0, 2**32 - 1), st.lists(blobs, max_size=4))
def test_batch_round_trip(channel: str, view: int, time_s: int, items: list[bytes]) -> None:
    batch = Batch(channel, view, time_s, tuple(items))
    assert messages.decode_batch(messages.encode_batch(batch)) == batch


@given(blobs, st.none() | blobs)
def test_frame_round_trip(signed: bytes, batch: bytes | None) -> None:
    assert messages.open_frame(messages.frame(signed, batch)) == (signed, batch)


@pytest.mark.parametrize("payload, reason", [
    (cbor.encode([2, 0, 1, 1, bytes(32), 7]), "unknown_signer"),
    (cbor.encode([2, 0, 1, 1, bytes(31), 1]), "malformed"),
    (cbor.encode([2, 0, 1, True, bytes(32), 1]), "malformed"),
    (cbor.encode([2, 0, 1, -1, bytes(32), 1]), "malformed"),
    (cbor.encode([2, 0, 1, 1, bytes(32), 1, 1]), "malformed"),
    (cbor.encode([0, 0, 1, 1]), "unknown_type"),
    (cbor.encode([11, 0, 1, 1]), "unknown_type"),
    (cbor.encode([True, 0, 1, 1]), "malformed"),
    (cbor.encode([4, 0, 64, bytes(32), [["trade", 1, bytes(32)], ["trade", 1, bytes(32)]], 1]), "malformed"),
    (cbor.encode([9, 0, 0, True, 0, 0, 0, b"\x80", [], [], 1]), "malformed"),
    (cbor.encode([9, 0, 0, True, 0, 0, 0, b"\x01\x00", [], [], 1]), "malformed"),
    (cbor.encode([9, 0, 0, True, 0, 0, 0, b"", [[1, True, True, b"", b""]] * 17, [], 1]), "oversize"),
    (b"\x86\x02\x00", "malformed"),
    (bytes.fromhex("81" * 9), "too_deep"),
])
def test_refusals(payload: bytes, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        messages.decode(payload, 0, SIZE)


def test_bytes_on_the_wire() -> None:
    """One of them written down, by RFC 8949 alone: [2, 0, 3, 5, digest, 1]."""
    vote = Vote(messages.PREPARE, 3, 5, bytes(range(32)), 1)
    assert messages.encode(vote, 0).hex() == "8602000305" + "5820" + bytes(range(32)).hex() + "01"
    assert messages.NULL_DIGEST.hex().startswith("b0b2988b6bbe724b")
