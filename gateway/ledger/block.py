"""Makes a block file's bytes from header and leaves, and takes them apart strictly (ledger.md, Block).

    4 bytes   size of all that follows, big-endian
    80 bytes  header (firmware/wire/header.py)
    1-9 bytes number of leaves, CompactSize
    body      each leaf as CompactSize length and bytes; leaf 0 is the meta, leaves 1.. are seals and transactions

The three parts and their order are Table 1 of the distribution-network paper. CompactSize is Bitcoin's: below 253 the
number itself, else 253, 254 or 255 and 2, 4 or 8 bytes little-endian, always in the shortest form.
"""

from collections.abc import Sequence
from typing import NamedTuple

from firmware.wire import header as header_codec
from firmware.wire import merkle
from firmware.wire.errors import Refused, check

LEAVES = 4096  # 500 items close a batch; the rest is room for larger chain parameters
BLOCK_BYTES = 8 * 1024 * 1024  # a peer's frame limit: a block that could not be sent could not be caught up with
_SIZE_BYTES = 4
HEADER_BYTES = 80  # ledger.md, Block


class Block(NamedTuple):
    """A block file's parts: the header's 80 bytes, leaf 0, and the leaves that PBFT ordered."""

    header: bytes
    meta: bytes
    items: list[bytes]


def encode(header: bytes, meta: bytes, items: Sequence[bytes]) -> bytes:
    """Returns the block file; ValueError for a header of a wrong length."""
    if len(header) != HEADER_BYTES:
        raise ValueError(f"a header has {HEADER_BYTES} bytes")
    parts = [header, encode_compact(1 + len(items))]
    for leaf in (meta, *items):
        parts.append(encode_compact(len(leaf)))
        parts.append(leaf)
    body = b"".join(parts)
    return len(body).to_bytes(_SIZE_BYTES, "big") + body


def decode(data: bytes) -> Block:
    """Returns the Block whose header names exactly these leaves; Refused `oversize`, `malformed` or `wrong_root`."""
    check(len(data) <= BLOCK_BYTES, "oversize", BLOCK_BYTES, len(data))
    at = _SIZE_BYTES + HEADER_BYTES
    check(len(data) > at, "malformed", "a header", len(data))
    size = int.from_bytes(data[:_SIZE_BYTES], "big")
    check(size == len(data) - _SIZE_BYTES, "malformed", size, len(data) - _SIZE_BYTES)
    header = data[_SIZE_BYTES:at]
    count, at = decode_compact(data, at)
    check(0 < count <= LEAVES, "oversize", LEAVES, count)
    leaves = []
    for _ in range(count):
        length, at = decode_compact(data, at)
        check(length <= len(data) - at, "malformed", length, len(data) - at)
        leaves.append(data[at:at + length])
        at += length
    check(at == len(data), "malformed", at, len(data))
    block = Block(header, leaves[0], leaves[1:])
    check_root(block)
    return block


def check_root(block: Block) -> None:
    """Raises Refused `wrong_root` unless the header names the root of these leaves."""
    named = header_codec.decode(block.header).root
    found = merkle.root([block.meta, *block.items])
    check(named == found, "wrong_root", named, found)


def encode_compact(number: int) -> bytes:
    """Returns a CompactSize of 0..2^64-1."""
    if number < 0xFD:
        return bytes((number,))
    if number < 0x10000:
        return b"\xfd" + number.to_bytes(2, "little")
    if number < 0x100000000:
        return b"\xfe" + number.to_bytes(4, "little")
    return b"\xff" + number.to_bytes(8, "little")


def decode_compact(data: bytes, at: int) -> tuple[int, int]:
    """Returns (number, end) of the CompactSize at `at`; Refused `malformed` unless it is the shortest form."""
    if at >= len(data):
        raise Refused("malformed", "a number", "the end")
    first = data[at]
    if first < 0xFD:
        return first, at + 1
    width, least = ((2, 0xFD), (4, 0x10000), (8, 0x100000000))[first - 0xFD]
    end = at + 1 + width
    check(end <= len(data), "malformed", "a number", "the end")
    number = int.from_bytes(data[at + 1:end], "little")
    check(number >= least, "malformed", "the shortest number", number)
    return number, end
