"""The witness message and the gateways' header message: inverse, strict, and the same bytes for ever."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware.crypto.openssl import verify_digest
from firmware.wire import cbor, cose, header, identity, witness
from firmware.wire.errors import Refused
from tests.wire import build

CHAIN = hashlib.sha256(b"some chain").digest()
SIGNER = build.test_key("meter")
KID = identity.kid_of(SIGNER.public_key())
TOP = header.encode(header.Header(1, bytes(32), bytes(range(32)), 1_790_000_900, 3, 17))
headers = st.builds(lambda a, b, t, v, h: header.encode(header.Header(1, a, b, t, v, h)),
                    st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32),
                    st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))


def reason_of(work, *arguments) -> str:
    with pytest.raises(Refused) as caught:
        work(*arguments)
    return caught.value.reason


def test_golden_bytes() -> None:
    message = witness.sign(KID, "trade", TOP, CHAIN, SIGNER.sign_digest)
    assert message[:9].hex() == "d28443a10126a10448" and message[9:17] == KID
    assert witness.encode(KID, "trade", TOP).hex() == (
        "8448" + KID.hex() + "65" + b"trade".hex() + "11" + "5850" + TOP.hex())
    assert len(message) == 184 <= witness.MESSAGE_BYTES
    assert hashlib.sha256(message).hexdigest() == "0b5f41b679188f2cedf59e2ad0c9249e6d2b58af87f6f345e7250ee918237563"
    shown = witness.encode_header_message(TOP, b"certificate", 16, 3, 4)
    assert shown.hex() == "835850" + TOP.hex() + "4b" + b"certificate".hex() + "83100304"


@given(headers, st.binary(min_size=8, max_size=8), st.sampled_from(("trade", "dispatch", "credit")))
def test_a_payload_decodes_to_itself(top: bytes, kid: bytes, channel: str) -> None:
    data = witness.encode(kid, channel, top)
    assert witness.decode(data) == (kid, channel, header.decode(top).height, top)


@given(headers, st.data())
def test_a_changed_message_is_refused_or_not_signed(top: bytes, data: st.DataObject) -> None:
    message = witness.sign(KID, "trade", top, CHAIN, SIGNER.sign_digest)
    changed = bytearray(message)
    changed[data.draw(st.integers(0, len(changed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        signed, found = witness.read(bytes(changed))
    except Refused:
        return
    assert witness.decode(witness.encode(found.kid, found.channel, found.header)) == found
    assert reason_of(cose.check, signed, "witness", CHAIN, SIGNER.public_key(), verify_digest) == "bad_signature"


def test_each_wrong_thing_has_its_reason() -> None:
    message = witness.sign(KID, "trade", TOP, CHAIN, SIGNER.sign_digest)
    signed, found = witness.read(message)
    assert found == (KID, "trade", 17, TOP)
    cose.check(signed, "witness", CHAIN, SIGNER.public_key(), verify_digest)
    for kind, chain in (("header", CHAIN), ("witness", bytes(32))):
        assert reason_of(cose.check, signed, kind, chain, SIGNER.public_key(), verify_digest) == "bad_signature"
    other = cose.sign1(witness.encode(bytes(8), "trade", TOP), KID, "witness", CHAIN, SIGNER.sign_digest)
    assert reason_of(witness.read, other) == "wrong_key"
    assert reason_of(witness.decode, cbor.encode([KID, "trade", 18, TOP])) == "wrong_height"
    assert reason_of(witness.decode, cbor.encode([KID, "trade", 17, TOP[:79]])) == "malformed"
    assert reason_of(witness.read, message + bytes(100)) == "oversize"
    assert reason_of(witness.read, message[:-1]) == "malformed"
    with pytest.raises(ValueError):
        witness.encode(KID[:7], "trade", TOP)


@given(headers, st.binary(max_size=300), st.lists(st.integers(0, 2**40), min_size=3, max_size=3))
def test_a_header_message_decodes_to_itself(top: bytes, certificate: bytes, counts: list[int]) -> None:
    assert witness.decode_header_message(witness.encode_header_message(top, certificate, *counts)) == (
        top, certificate, *counts)


@given(st.binary(max_size=400))
def test_any_bytes_are_refused_or_encode_to_themselves(data: bytes) -> None:
    try:
        found = witness.decode_header_message(data)
    except Refused:
        return
    assert witness.encode_header_message(*found) == data


@pytest.mark.parametrize("fields", [[TOP, b"c", 0], [TOP, b"c", [1, 2]], [TOP, b"c", [1, 2, -1]],
                                    [TOP, b"c", [1, 2, True]], [TOP[:79], b"c", [0, 0, 0]], [TOP, b"c"]])
def test_a_header_message_of_another_shape_is_malformed(fields: list) -> None:
    assert reason_of(witness.decode_header_message, cbor.encode(fields)) == "malformed"
    assert reason_of(witness.decode_header_message, bytes(20_000)) == "oversize"
