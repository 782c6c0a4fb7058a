"""Makes the bytes of what the ledger keeps beside the leaves themselves: blocks, chains, positions; and reads them.

None of this is signed, hashed or sent, so cbor2 is the codec here; the store's checksum stands over every record.

A block's record does not repeat a leaf that stands in the envelope kept beside the chain: it names that envelope. So a
seal is on the disk once. A leaf without an envelope (a transaction, a refused or altered seal, a block fetched from a
peer) stands in the block's record itself.

Finding a seal needs no big index with random keys, which would write a page for every seal: the block's record says
where the chain's seal before it stands, every 32nd seal of a chain has a record of its own (a step), and the chain's
record names the newest. A search is a bisection over steps and at most 32 steps back.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import cbor2

from firmware.wire import cbor

STEP = 32  # seals between two steps of a chain
CHANNEL_SHIFT = 40  # a block's key is channel << 40 | height: heights of 32 bits, and order by channel

# Keys of the table `facts`.
FORMAT, GENESIS, POSITION, BASE, EPOCHS = 1, 2, 3, 4, 5
FORMAT_VERSION = 1


class Place(NamedTuple):
    """Where a leaf stands: the block's key and the leaf's index in it (0 is the meta, so no item has 0)."""

    block: int
    leaf: int


class Link(NamedTuple):
    """An accepted seal's place in its chain: which chain, its ordinal (from 1) and height there, the seal before it,
    all heights that the chain has lost so far, and `kept` = (last_ms, import, export) of the chain's record after it
    where they are not the seal's own. With the seal, that is all of the record: an earlier state can be told."""

    chain: int
    ordinal: int
    height: int
    before: Place
    lost_total: int
    kept: tuple[int, int | None, int | None] | None


class ItemRecord(NamedTuple):
    """One item of a block: its leaf, here (bytes) or in the envelope of that key; and its link if it is on a chain.

    envelope: key of the envelope that holds the readings, 0 when they are not here."""

    leaf: bytes | None
    envelope: int
    link: Link | None


class BlockRecord(NamedTuple):
    """A block as it is stored; serial counts the executed blocks of all channels from 1, in their order."""

    header: bytes
    meta: bytes
    results: list[int]
    hashes: bytes  # the first 8 bytes of each item's payload hash, one after another
    items: list[ItemRecord]
    serial: int


class Chain(NamedTuple):
    """One chain of seals: whose, how many seals it has, and its newest. is_ordered: times never fell along it."""

    kid: bytes
    point: int
    seals: int
    height: int
    tip: Place
    last_ms: int
    is_ordered: bool


class Step(NamedTuple):
    """A chain's seal number 32 k: where it stands, and what a search compares."""

    place: Place
    height: int
    last_ms: int
    serial: int


class Position(NamedTuple):
    """Where the ledger stands: the last executed sequence number and what it led to.

    heads: (channel, height, header hash) in the genesis' order of channels; low_envelope: no envelope below this key
    is pending; counts: see COUNTS; marks: number of seals by mark bit."""

    n: int
    serial: int
    state_root: bytes
    heads: tuple[tuple[str, int, bytes], ...]
    time_s: int
    low_envelope: int
    counts: tuple[int, ...]
    marks: tuple[int, ...]


class Base(NamedTuple):
    """Where a state that was fetched begins: what lies below was never executed here. n 0: the genesis.

    headers: (channel, 80 bytes) of the newest blocks in it; serial: of the last block in it."""

    n: int
    serial: int
    state_root: bytes
    headers: tuple[tuple[str, bytes], ...]


class Epoch(NamedTuple):
    """A set of validators and when it began: after sequence number `base`, whose blocks have these (channel, height).

    rows: the members; handover: the block that proves them (firmware/wire/epochs.py), empty while its certificate is
    not here; proof: the CHECKPOINTs of the set before that prove `base`."""

    number: int
    base: int
    heights: tuple[tuple[str, int], ...]
    rows: list
    handover: bytes
    proof: tuple[bytes, ...]


COUNTS = ("blocks", "seals", "readings", "transactions", "refused")
MARK_BITS = 8


def encode_block(record: BlockRecord) -> bytes:
    items = []
    for item in record.items:
        link = item.link
        flat = [] if link is None else [link.chain, link.ordinal, link.height, *link.before, link.lost_total, link.kept]
        items.append([item.leaf, item.envelope, *flat])
    return cbor2.dumps([record.header, record.meta, record.results, record.hashes, items, record.serial])


def decode_block(data: bytes) -> BlockRecord:
    header, meta, results, hashes, items, serial = cbor2.loads(data)
    return BlockRecord(header, meta, results, hashes, [_decode_item(row) for row in items], serial)


def _decode_item(row: list) -> ItemRecord:
    if len(row) == 2:
        return ItemRecord(row[0], row[1], None)
    kept = None if row[8] is None else tuple(row[8])
    return ItemRecord(row[0], row[1], Link(row[2], row[3], row[4], Place(row[5], row[6]), row[7], kept))


def encode_chain(chain: Chain) -> bytes:
    return cbor2.dumps([*chain[:4], *chain.tip, chain.last_ms, chain.is_ordered])


def decode_chain(data: bytes) -> Chain:
    kid, point, seals, height, block, leaf, last_ms, is_ordered = cbor2.loads(data)
    return Chain(kid, point, seals, height, Place(block, leaf), last_ms, is_ordered)


def encode_step(step: Step) -> bytes:
    return cbor2.dumps([*step.place, step.height, step.last_ms, step.serial])


def decode_step(data: bytes) -> Step:
    block, leaf, height, last_ms, serial = cbor2.loads(data)
    return Step(Place(block, leaf), height, last_ms, serial)


def encode_place(place: Place) -> bytes:
    return cbor2.dumps(list(place))


def decode_place(data: bytes) -> Place:
    return Place(*cbor2.loads(data))


def encode_position(position: Position) -> bytes:
    return cbor2.dumps(list(position))


def decode_position(data: bytes) -> Position:
    n, serial, state_root, heads, time_s, low_envelope, counts, marks = cbor2.loads(data)
    return Position(n, serial, state_root, tuple(tuple(head) for head in heads), time_s, low_envelope,
                    tuple(counts), tuple(marks))


def encode_base(base: Base) -> bytes:
    return cbor2.dumps(list(base))


def decode_base(data: bytes) -> Base:
    n, serial, state_root, headers = cbor2.loads(data)
    return Base(n, serial, state_root, tuple((channel, header) for channel, header in headers))


def encode_epochs(epochs: Sequence[Epoch]) -> bytes:
    return cbor2.dumps([list(epoch) for epoch in epochs])


def decode_epochs(data: bytes) -> list[Epoch]:
    return [Epoch(number, base, tuple((channel, height) for channel, height in heights), rows, handover, tuple(proof))
            for number, base, heights, rows, handover, proof in cbor2.loads(data)]


def encode_envelope(leaf: bytes, readings: Sequence[bytes]) -> bytes:
    """CBOR `[leaf, [reading, ...]]`; written out because each envelope of an area comes by here once."""
    parts = [b"\x82", _bytes_head(len(leaf)), leaf, cbor.head(4, len(readings)) if len(readings) != 1 else b"\x81"]
    for reading in readings:
        parts += (_bytes_head(len(reading)), reading)
    return b"".join(parts)


def decode_envelope(data: bytes) -> tuple[bytes, list[bytes]]:
    leaf, readings = cbor2.loads(data)
    return leaf, readings


def encode_changes(changes: Mapping[bytes, bytes | None]) -> bytes:
    """The values that a block's changes replaced (None: there was none), for a look at an earlier state."""
    return cbor2.dumps(sorted(changes.items()))


def decode_changes(data: bytes) -> dict[bytes, bytes | None]:
    return {key: value for key, value in cbor2.loads(data)}


def step_key(chain: int, number: int) -> int:
    """The key of a chain's step `number` (seal 32 x number)."""
    return chain << 32 | number


def step_of_key(key: int) -> tuple[int, int]:
    """(chain, number) of a step's key."""
    return key >> 32, key & 0xFFFFFFFF


def block_key(channel: int, height: int) -> int:
    """The key of a block: `channel` by its index in the genesis."""
    return channel << CHANNEL_SHIFT | height


@lru_cache(4096)  # leaves and readings have few lengths
def _bytes_head(size: int) -> bytes:
    return bytes(cbor.head(2, size))
