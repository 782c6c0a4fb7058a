"""Deterministic CBOR: what is encoded decodes to the same, what is accepted re-encodes to the same bytes."""

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware.wire import cbor
from firmware.wire.errors import Refused

scalars = st.one_of(st.none(), st.booleans(), st.integers(-(2**64), 2**64 - 1), st.binary(max_size=40),
                    st.text(max_size=40))
values = st.recursive(scalars, lambda inner: st.one_of(
    st.lists(inner, max_size=5), st.dictionaries(st.integers(-24, 23), inner, max_size=5)), max_leaves=12)


def depth_of(value: object) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(depth_of, inner), default=0) if isinstance(value, list | dict) else 0


@given(values)
def test_decode_inverts_encode(value: object) -> None:
    if depth_of(value) > cbor.DEPTH:
        with pytest.raises(ValueError, match="deeper"):
            cbor.encode(value)
        return
    data = cbor.encode(value)
    assert cbor.decode(data) == value
    assert cbor2.loads(data) == value, "another's decoder reads the same"


@given(st.binary(max_size=60))
def test_accepted_bytes_encode_to_themselves(data: bytes) -> None:
    try:
        value = cbor.decode(data)
    except Refused as refused:
        assert refused.reason in ("malformed", "too_deep")
        return
    assert cbor.encode(value) == data


@given(values, st.data())
def test_a_changed_byte_is_refused_or_another_value(value: object, data: st.DataObject) -> None:
    if depth_of(value) > cbor.DEPTH:
        return
    good = bytearray(cbor.encode(value))
    at = data.draw(st.integers(0, len(good) - 1))
    good[at] ^= 1 << data.draw(st.integers(0, 7))
    try:
        assert cbor.encode(cbor.decode(bytes(good))) == bytes(good)
    except Refused as refused:
        assert refused.reason in ("malformed", "too_deep")


@pytest.mark.parametrize("text", [
    "1800", "190017", "1a0000ffff", "1b00000000ffffffff",  # not the shortest head
    "5f4101ff", "9f01ff", "bf0102ff", "7f6161ff",  # indefinite
    "c001", "d81c00", "d28443a10126", "c249010000000000000000",  # tags
    "f90000", "fa00000000", "fb0000000000000000", "f7", "f0", "f818", "ff",  # floats, undefined, simple values, break
    "a201000100", "a202000100", "a1616100", "a1181800", "a1381800",  # duplicate, falling, text and long keys
    "62c0af", "63eda080", "64f4908080", "61ff", "62c2",  # overlong, surrogate, beyond U+10FFFF, stray, cut
    "0000", "8301", "42ff", "", "9bffffffffffffffff", "5bffffffffffffffff", "bb7fffffffffffffff",  # trailing, huge
])
def test_refuses(text: str) -> None:
    with pytest.raises(Refused) as caught:
        cbor.decode(bytes.fromhex(text))
    assert caught.value.reason == "malformed"


def test_depth_is_bounded() -> None:
    assert cbor.decode(b"\x81" * 7 + b"\x80") == [[[[[[[[]]]]]]]]
    with pytest.raises(Refused) as caught:
        cbor.decode(b"\x81" * 8 + b"\x80")
    assert caught.value.reason == "too_deep"
    with pytest.raises(Refused):
        cbor.decode(b"\x81" * 60_000)


@pytest.mark.parametrize("value", [1.5, 2**64, -(2**64) - 1, {24: 0}, {-25: 0}, {"a": 0}, {True: 0}, object(),
                                   "\ud800"])
def test_does_not_encode(value: object) -> None:
    with pytest.raises((ValueError, UnicodeEncodeError)):
        cbor.encode(value)


def test_map_keys_sort_by_their_bytes() -> None:
    assert cbor.encode({-1: 2, 23: 1, 0: 3}).hex() == "a300031701" + "2002"
