"""Block files: what is encoded is decoded alike, anything else is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware.wire import header, merkle
from firmware.wire.errors import Refused
from gateway.ledger import block


def _file(leaves: list[bytes]) -> bytes:
    top = header.encode(header.Header(1, bytes(32), merkle.root(leaves), 7, 0, 1))
    return block.encode(top, leaves[0], leaves[1:])


@pytest.mark.parametrize(("number", "data"), [
    (0, "00"), (252, "fc"), (253, "fdfd00"), (65535, "fdffff"), (65536, "fe00000100"), (2**32 - 1, "feffffffff"),
    (2**32, "ff0000000001000000")])
def test_compact_size(number: int, data: str) -> None:
    """Bitcoin's CompactSize, with values from its developer reference."""
    assert block.encode_compact(number).hex() == data
    assert block.decode_compact(bytes.fromhex(data), 0) == (number, len(data) // 2)


@pytest.mark.parametrize("data", ["fdfc00", "feffff0000", "ffffffffff00000000", "fd", "fdff", ""])
def test_compact_size_in_a_longer_form_is_refused(data: str) -> None:
    with pytest.raises(Refused, match="malformed"):
        block.decode_compact(bytes.fromhex(data), 0)


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=20))
def test_there_and_back(leaves: list[bytes]) -> None:
    data = _file(leaves)
    found = block.decode(data)
    assert [found.meta, *found.items] == leaves
    assert block.encode(*found) == data
    assert int.from_bytes(data[:4], "big") == len(data) - 4 and data[84] == len(leaves)


@given(st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=5), st.integers(0), st.integers(0, 7))
def test_any_flipped_bit_is_refused_or_in_the_header(leaves: list[bytes], at: int, bit: int) -> None:
    """Time, view, height and parent are vouched for by the header's hash, not by the file."""
    data = bytearray(_file(leaves))
    at %= len(data)
    data[at] ^= 1 << bit
    if 8 <= at < 40 or 72 <= at < 84:
        assert block.decode(bytes(data)).items == leaves[1:]
    else:
        with pytest.raises(Refused):
            block.decode(bytes(data))


def test_limits() -> None:
    with pytest.raises(Refused, match="oversize"):
        block.decode(bytes(block.BLOCK_BYTES + 1))
    with pytest.raises(Refused, match="oversize"):
        block.decode(_file([b""] * (block.LEAVES + 1)))
    with pytest.raises(Refused, match="malformed"):
        block.decode(_file([b"a"]) + b"\0")
    with pytest.raises(ValueError, match="80"):
        block.encode(bytes(79), b"", [])
