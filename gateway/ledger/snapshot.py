"""Makes a checkpoint's state ready for peers that fetch it, and a ledger's tables from a state that was fetched.

Theory (pbft.md 3.8). q CHECKPOINTs prove a state root and the heads of all channels. The 4,096 leaf hashes prove
themselves against that root, and each bucket against its leaf, so the state may come from anybody, bucket by bucket.
What a state does not say is how it came about: the ledger that takes it over begins there (`records.Base`). It has no
blocks below, can prove nothing of them, and serves none; chains of seals go on from what the state says of them.
"""

import struct
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from firmware.wire import header as header_codec
from firmware.wire import state
from firmware.wire.errors import check
from gateway.ledger import records
from gateway.ledger.records import Base, Chain, Place, Position
from gateway.ledger.store import Store
from gateway.ledger.tree import Frozen, StateTree

KEPT = 2  # checkpoints: while one is fetched the next becomes stable
CHAIN_PREFIX = b"chain/"


class Snapshot(NamedTuple):
    """A checkpoint's state as it was executed here; headers: (channel, 80 bytes) of its heads."""

    n: int
    state: Frozen
    headers: tuple[tuple[str, bytes], ...]


def check_headers(headers: Sequence[tuple[str, bytes]], heads: Sequence[Sequence]) -> None:
    """Raises Refused `wrong_header` unless the headers are those of the proven heads."""
    found = [(channel, header_codec.decode(data).height, header_codec.hash_of(data)) for channel, data in headers]
    check(sorted(found) == sorted(tuple(head) for head in heads), "wrong_header", heads, found)


def base_of(n: int, state_root: bytes, headers: Sequence[tuple[str, bytes]], channels: Sequence[str]) -> Base:
    """Where the ledger begins: each block counts once in the serial, so it is the sum of all heights."""
    by_channel = dict(headers)
    serial = sum(header_codec.decode(data).height for data in by_channel.values())
    return Base(n, serial, state_root, tuple((channel, by_channel[channel]) for channel in channels))


def heights_of(headers: Sequence[tuple[str, bytes]]) -> tuple[tuple[str, int], ...]:
    """(channel, height) of each header."""
    return tuple((channel, header_codec.decode(data).height) for channel, data in headers)


def stand_of(base: Base, before: Position) -> Position:
    """The position at a base; what was counted before stays counted."""
    heads = [(channel, header_codec.decode(data).height, header_codec.hash_of(data)) for channel, data in base.headers]
    time_s = max(header_codec.decode(data).time_s for _, data in base.headers)
    return before._replace(n=base.n, serial=base.serial, state_root=base.state_root, heads=tuple(heads), time_s=time_s)


def write(store: Store, base: Base, tree: StateTree, chains: Mapping[int, Chain],
          numbers: Mapping[tuple[bytes, int], int]) -> None:
    """Puts a fetched state in the place of the one before, inside of one transaction of the store."""
    fresh = dict(tree.items())
    for key, value in list(store.scan("state")):
        assert isinstance(key, bytes)
        if key not in fresh:
            store.delete("state", key)
        elif fresh[key] == value:
            del fresh[key]
    store.put_all("state", fresh.items())
    count = len(chains)
    rows: list[tuple[int, bytes]] = []
    moved: list[tuple[int, bytes]] = []
    for key, value in tree.with_prefix(CHAIN_PREFIX):
        kid, point = key[len(CHAIN_PREFIX):-4], struct.unpack(">I", key[-4:])[0]
        record = state.decode_chain(value)
        number = numbers.get((kid, point))
        if number is None:
            number = count = count + 1
            chain = Chain(kid, point, 0, 0, Place(0, 0), 0, True)
        else:
            chain = chains[number]
        rows.append((number, value))
        if chain.height != record.height:
            is_ordered = chain.is_ordered and record.last_ms >= chain.last_ms
            moved.append((number, records.encode_chain(chain._replace(
                height=record.height, last_ms=record.last_ms, is_ordered=is_ordered))))
    store.put_all("bases", rows)
    store.put_all("chains", moved)
    store.put("facts", records.BASE, records.encode_base(base))
