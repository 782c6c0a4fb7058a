"""Makes answers about chains of seals and their readings from the ledger's tables, besides those of `Witnessed`.

`Reader.open(folder)` looks at a replica's folder from outside, running or stopped; `Ledger` is a Reader that executes.
Nothing is changed here.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple, Self

from firmware.wire import reading as reading_codec
from firmware.wire import seal
from firmware.wire.cose import parse
from firmware.wire.errors import Refused
from gateway.ledger import records
from gateway.ledger.damage import Damaged
from gateway.ledger.records import BlockRecord, Chain, Place, Step
from gateway.ledger.store import Store, holds_store, open_store
from gateway.ledger.witnesses import Witnessed


class StoredEnvelope(NamedTuple):
    """A seal with its readings, as it was verified; the same fields as ingest's VerifiedSeal."""

    leaf: bytes
    payload: bytes
    payload_hash: bytes
    seal: seal.Seal
    readings: list[bytes]
    envelope: bytes = b""


class SealAt(NamedTuple):
    """A committed seal: where it stands, its result code, its fields; readings None when they are not here."""

    channel: str
    height: int  # of the block
    leaf_index: int  # 1.., leaf 0 is the meta
    code: int
    leaf: bytes
    seal: seal.Seal
    readings: list[bytes] | None


class Reader(Witnessed):
    """Questions to one ledger; one thread at a time uses an instance."""

    def __init__(self, store: Store):
        super().__init__(store)
        self._numbers_of_point: dict[int, list[int]] = {}
        self._chains_known = 0

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Opens the ledger in a replica's data folder for questions only; FileNotFoundError where there is none."""
        if not holds_store(folder):
            raise FileNotFoundError(f"{folder} holds no ledger")
        return cls(open_store(folder, is_reader=True))

    # Seals and readings.

    def seal_place(self, kid: bytes, point: int, height: int) -> tuple[int, int] | None:
        """(block height, leaf index) of a committed seal in the channel of its point, or None."""
        place = self.place_of_seal(kid, point, height)
        return None if place is None else (self._height_of(place), place.leaf)

    def place_of_seal(self, kid: bytes, point: int, height: int) -> Place | None:
        """The same as a place of the tables."""
        number, chain = self._chain_of(kid, point)
        if chain is None or not 0 < height <= chain.height:
            return None
        place = self.bisect(number, chain, "height", height)
        while place.leaf:
            link = self.link(place)
            if link.height <= height:
                return place if link.height == height else None
            place = link.before
        return None

    def seal_at(self, channel: str, height: int, index: int) -> SealAt | None:
        """The committed seal at a place, or None where there is no accepted seal."""
        return self.seal(Place(records.block_key(self._channel(channel), height), index))

    def seals(self, kid: bytes, point: int, is_from: int | None = None) -> Iterator[SealAt]:
        """A chain's committed seals from the newest (or from height `is_from`) back to the first."""
        number, chain = self._chain_of(kid, point)
        if chain is None:
            return
        place = chain.tip if is_from is None else self.bisect(number, chain, "height", is_from)
        while place.leaf:
            link = self.link(place)
            if is_from is None or link.height <= is_from:
                found = self.seal(place)
                assert found is not None, "a chain's link stands at an accepted seal"
                yield found
            place = link.before

    def find_reading(self, point: int, time_ms: int) -> tuple[SealAt, int] | None:
        """The committed seal that holds a point's reading of that time, and the reading's index in it; or None.

        Where a seal covers that time and its readings are not here, that seal with index 0.
        Chains of all agents that have served the point are searched, the present one's first. When two hold such a
        reading (a replaced agent), the first found is the answer."""
        for number, chain in self._chains_of_point(point):
            place = self.bisect(number, chain, "last_ms", time_ms) if chain.is_ordered else chain.tip
            while place.leaf:
                found = self.seal(place)
                assert found is not None, "a chain's link stands at an accepted seal"
                if found.seal.first_ms <= time_ms <= found.seal.last_ms:
                    if found.readings is None:
                        return found, 0
                    for index, data in enumerate(found.readings):
                        if reading_codec.decode(data).time_ms == time_ms:
                            return found, index
                if found.seal.last_ms < time_ms and chain.is_ordered:
                    break
                place = self.link(place).before
        return None

    def readings_between(self, point: int, first_ms: int, last_ms: int, limit: int = 10_000) -> list[bytes]:
        """Up to `limit` committed readings of a point from the newest back, both ends included, in rising order."""
        found: list[tuple[int, bytes]] = []
        for number, chain in self._chains_of_point(point):
            place = self.bisect(number, chain, "last_ms", last_ms) if chain.is_ordered else chain.tip
            while place.leaf and len(found) < limit:
                item = self.seal(place)
                assert item is not None, "a chain's link stands at an accepted seal"
                for data in item.readings or ():
                    time_ms = reading_codec.decode(data).time_ms
                    if first_ms <= time_ms <= last_ms:
                        found.append((time_ms, data))
                if item.seal.last_ms < first_ms and chain.is_ordered:
                    break
                place = self.link(place).before
        found.sort()
        return [data for _, data in found[-limit:]]

    def first_reading(self, point: int, from_ms: int) -> bytes | None:
        """The first committed reading of a point at or after a time, or None."""
        first: tuple[int, bytes] | None = None
        for number, chain in self._chains_of_point(point):
            place = self.bisect(number, chain, "last_ms", from_ms) if chain.is_ordered else chain.tip
            while place.leaf:
                item = self.seal(place)
                assert item is not None, "a chain's link stands at an accepted seal"
                for data in item.readings or ():
                    time_ms = reading_codec.decode(data).time_ms
                    if from_ms <= time_ms and (first is None or time_ms < first[0]):
                        first = time_ms, data
                if item.seal.last_ms < from_ms and chain.is_ordered:
                    break
                place = self.link(place).before
        return None if first is None else first[1]

    def newest_readings(self) -> dict[int, bytes]:
        """The newest committed reading of every point that has one, by point."""
        newest: dict[int, tuple[int, bytes]] = {}
        for _, data in self.store.scan("chains"):
            chain = records.decode_chain(data)
            found = self.seal(chain.tip)
            if found is not None and found.readings and found.seal.last_ms >= newest.get(chain.point, (0,))[0]:
                newest[chain.point] = found.seal.last_ms, found.readings[-1]
        return {point: newest[point][1] for point in sorted(newest)}

    def envelopes_in(self, channel: str, height: int) -> list[bytes | None]:
        """For each item of a block the envelope bytes, None where it is no seal or its readings are not here."""
        record = self.block_record(channel, height)
        if record is None:
            return []
        found: list[bytes | None] = []
        for index in range(1, len(record.items) + 1):
            item = self.seal(Place(records.block_key(self._channel(channel), height), index), record)
            is_here = item is not None and item.readings is not None
            found.append(seal.encode_envelope(item.leaf, item.readings) if item and is_here else None)
        return found

    def place_of(self, payload_hash: bytes) -> tuple[str, int, int] | None:
        """(channel, block height, leaf index) of an accepted seal by its payload's hash, or None.

        There is no index by hash: all blocks are looked through from the newest back, a second for some million."""
        mark = payload_hash[:8]
        for key, data in self.store.scan("blocks", is_backwards=True):
            if mark not in data:
                continue
            assert isinstance(key, int)
            hashes = records.decode_block(data).hashes
            for index in range(1, len(hashes) // 8 + 1):
                if hashes[8 * index - 8:8 * index] == mark:
                    found = self.seal(Place(key, index))
                    if found is not None and seal.payload_hash(parse(found.leaf).payload) == payload_hash:
                        return found.channel, found.height, index
        return None

    def readings_of(self, payload_hash: bytes) -> list[bytes] | None:
        """The readings under a seal by its payload's hash, or None when they are not here."""
        place = self.place_of(payload_hash)
        found = None if place is None else self.seal_at(*place)
        return None if found is None else found.readings

    def envelope_of(self, payload_hash: bytes) -> bytes | None:
        """The envelope of a seal by its payload's hash, or None when its readings are not here."""
        place = self.place_of(payload_hash)
        found = None if place is None else self.seal_at(*place)
        return None if found is None or found.readings is None else seal.encode_envelope(found.leaf, found.readings)

    def transaction_place(self, payload_hash: bytes) -> tuple[str, int, int] | None:
        """(channel, block height, leaf index) of an executed transaction, accepted or refused; or None."""
        data = self.store.get("transactions", payload_hash)
        if data is None:
            return None
        place = records.decode_place(data)
        return self.channels[place.block >> records.CHANNEL_SHIFT], self._height_of(place), place.leaf

    def reading(self) -> AbstractContextManager[None]:
        """A view that stands still: many questions inside cost little more than one (`Store.reading`)."""
        return self.store.reading()

    # Ways through the tables.

    def _height_of(self, place: Place) -> int:
        return place.block & ((1 << records.CHANNEL_SHIFT) - 1)

    def serial_of(self, place: Place) -> int:
        """The serial of the block of a place."""
        record = self._block_record(place.block)
        if record is None:
            raise Damaged(f"table blocks, height {self._height_of(place)}", "a record", None)
        return record.serial

    def seal(self, place: Place, record: BlockRecord | None = None) -> SealAt | None:
        record = record or self._block_record(place.block)
        if record is None or not 0 < place.leaf <= len(record.items):
            return None
        item = record.items[place.leaf - 1]
        if item.link is None:
            return None
        readings = None
        leaf = item.leaf
        if item.envelope:
            kept, readings = self._envelope(item.envelope)
            leaf = kept if leaf is None else leaf
        assert leaf is not None, "a seal stands in its block or in its envelope"
        try:
            fields = seal.decode(parse(leaf).payload)
        except Refused as refusal:
            raise Damaged(f"table blocks, height {self._height_of(place)}", "a seal", str(refusal)) from refusal
        return SealAt(self.channels[place.block >> records.CHANNEL_SHIFT], self._height_of(place), place.leaf,
                      record.results[place.leaf - 1], leaf, fields, readings)

    def link(self, place: Place) -> records.Link:
        record = self._block_record(place.block)
        if record is None or not 0 < place.leaf <= len(record.items):
            raise Damaged(f"table blocks, height {self._height_of(place)}", "a seal", None)
        link = record.items[place.leaf - 1].link
        if link is None:
            raise Damaged(f"table blocks, height {self._height_of(place)}", "a link", None)
        return link

    def chain_number(self, kid: bytes, point: int) -> int:
        """The number of a chain of seals, 0 where there is none."""
        return self._chain_of(kid, point)[0]

    def _chain_of(self, kid: bytes, point: int) -> tuple[int, Chain | None]:
        for number, chain in self._chains_of_point(point):
            if chain.kid == kid:
                return number, chain
        return 0, None

    def _chains_of_point(self, point: int) -> list[tuple[int, Chain]]:
        """The chains of a point with their numbers, the newest chain first. Numbers are given once, so those known
        are kept; what a chain's record says is read anew."""
        for number, data in self.store.scan("chains", self._chains_known + 1):
            assert isinstance(number, int)
            self._numbers_of_point.setdefault(records.decode_chain(data).point, []).append(number)
            self._chains_known = number
        found = []
        for number in reversed(self._numbers_of_point.get(point, ())):
            record = self.store.get("chains", number)
            if record is None:
                raise Damaged(f"table chains, key {number}", "a record", None)
            found.append((number, records.decode_chain(record)))
        return found

    def bisect(self, number: int, chain: Chain, field: str, wanted: int) -> Place:
        """The place of the first step whose `field` is at least `wanted`, or the tip: never before the seal sought."""
        low, high = 1, chain.seals // records.STEP + 1
        place = chain.tip
        while low < high:
            middle = (low + high) // 2
            step = self._step(number, middle)
            if getattr(step, field) >= wanted:
                high, place = middle, step.place
            else:
                low = middle + 1
        return place

    def _step(self, number: int, index: int) -> Step:
        key = records.step_key(number, index)
        data = self.store.get("steps", key)
        if data is None:
            raise Damaged(f"table steps, key {key}", "a record", None)
        return records.decode_step(data)
