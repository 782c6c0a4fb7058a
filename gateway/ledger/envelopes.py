"""Makes verified envelopes durable before they are ordered, and knows which of them still wait for their block.

An envelope is written once, appended to its table, and stays there as the readings beside the chain. Whether it is
pending is not written anywhere: it is when its height is above its chain's. At open, the envelopes from the position's
`low_envelope` on are looked through again; one that waits for long (a gap that nobody fills) is moved to the end, so
that this stays short.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from heapq import heappop, heappush
from typing import NamedTuple, Protocol

from firmware.wire import cose, seal
from firmware.wire.errors import Refused
from gateway.ledger import records
from gateway.ledger.damage import Damaged
from gateway.ledger.reader import StoredEnvelope
from gateway.ledger.store import Store

PENDING = 65_536  # an hour of a thousand meters at one a minute; each takes some 300 bytes of memory
STRAGGLER = 10_000  # envelopes written after one that still waits, before it is moved: half a day of twenty points


_new = tuple.__new__  # a named tuple without the call between


class Verified(Protocol):
    """What ingest made of an envelope (VerifiedSeal)."""

    @property
    def leaf(self) -> bytes: ...

    @property
    def payload_hash(self) -> bytes: ...

    @property
    def seal(self) -> seal.Seal: ...

    @property
    def readings(self) -> Sequence[bytes]: ...

    @property
    def envelope(self) -> bytes: ...  # the encoding of leaf and readings, or b"" where it is to be made


class Pending(NamedTuple):
    """An envelope that waits for its block; the signature tells whether a leaf with its payload is the very same."""

    key: int
    payload_hash: bytes
    kid: bytes
    point: int
    height: int
    signature: bytes


class Envelopes:
    """The table of envelopes, and in memory those that wait."""

    def __init__(self, store: Store, low: int, is_waiting: Callable[[bytes, int, int], bool]):
        """Looks through the envelopes from key `low` on. is_waiting(kid, point, height): is above its chain's."""
        self._store = store
        self._pending: OrderedDict[bytes, Pending] = OrderedDict()
        # (height, payload hash) by chain, lowest first; entries of what waits no longer are passed over.
        self._of_chain: dict[tuple[bytes, int], list[tuple[int, bytes]]] = {}
        self._last_key = store.last_key("envelopes")
        for key, data in store.scan("envelopes", low):
            assert isinstance(key, int)
            leaf, _ = records.decode_envelope(data)
            item = _pending(key, leaf)
            if is_waiting(item.kid, item.point, item.height):
                self._note(item)

    def __len__(self) -> int:
        return len(self._pending)

    def find(self, payload_hash: bytes) -> Pending | None:
        return self._pending.get(payload_hash)

    def low(self) -> int:
        """The lowest key that is pending, or the next one to be given."""
        for item in self._pending.values():
            return item.key
        return self._last_key + 1

    def put(self, items: Sequence[Verified]) -> None:
        """Appends envelopes, each payload once and none of them pending yet, in the caller's transaction.

        Refused `busy` when too many wait already: the sender is not told that it is safe, and tries again."""
        if len(self._pending) + len(items) > PENDING:
            raise Refused("busy", PENDING, len(self._pending))
        first = self._last_key + 1
        self._store.append_all("envelopes", [
            (key, item.envelope or records.encode_envelope(item.leaf, item.readings))
            for key, item in enumerate(items, first)])
        self._last_key += len(items)
        for key, item in enumerate(items, first):
            facts = item.seal
            self._note(_new(Pending, (key, item.payload_hash, facts.kid, facts.point, facts.height,
                                      item.leaf[-cose.SIGNATURE_BYTES:])))

    def append(self, leaf: bytes, readings: Sequence[bytes]) -> int:
        """Writes one envelope behind the last and returns its key; it does not become pending."""
        self._last_key += 1
        self._store.put("envelopes", self._last_key, records.encode_envelope(leaf, readings))
        return self._last_key

    def settle(self, payload_hash: bytes) -> None:
        """The envelope's seal stands in a block: it stays where it is and waits no longer."""
        self._pending.pop(payload_hash, None)

    def drop(self, payload_hash: bytes) -> None:
        """The envelope's seal can never be committed: it is removed."""
        item = self._pending.pop(payload_hash, None)
        if item is not None:
            self._store.delete("envelopes", item.key)

    def drop_key(self, key: int) -> bool:
        """The same by the envelope's key; False where it does not wait."""
        for item in self._pending.values():
            if item.key == key:
                self.drop(item.payload_hash)
                return True
        return False

    def drop_overtaken(self, kid: bytes, point: int, height: int) -> None:
        """Removes what waits on a chain up to `height`, where the chain stands now: the losing side of a fork."""
        heap = self._of_chain.get((kid, point), [])
        while heap and heap[0][0] <= height:
            self.drop(heappop(heap)[1])
        if not heap:
            self._of_chain.pop((kid, point), None)

    def move_straggler(self) -> None:
        """Writes the oldest pending envelope anew at the end, when very many were written after it."""
        if self._pending and self._last_key - self.low() > STRAGGLER:
            item = next(iter(self._pending.values()))
            leaf, readings = self._read(item.key)
            key = self.append(leaf, readings)
            self._store.delete("envelopes", item.key)
            self._pending[item.payload_hash] = item._replace(key=key)
            self._pending.move_to_end(item.payload_hash)

    def pending(self) -> Iterator[StoredEnvelope]:
        """What waits, in (kid, point, height) order."""
        for item in sorted(self._pending.values(), key=lambda item: (item.kid, item.point, item.height, item.key)):
            leaf, readings = self._read(item.key)
            payload = cose.parse(leaf).payload
            yield StoredEnvelope(leaf, payload, item.payload_hash, seal.decode(payload), readings)

    def readings(self, item: Pending) -> tuple[bytes, list[bytes]]:
        """(leaf, readings) of a pending envelope."""
        return self._read(item.key)

    def _note(self, item: Pending) -> None:
        _, payload_hash, kid, point, height, _ = item
        self._pending[payload_hash] = item
        heap = self._of_chain.get((kid, point))
        if heap is None:
            self._of_chain[kid, point] = [(height, payload_hash)]
        else:
            heappush(heap, (height, payload_hash))

    def _read(self, key: int) -> tuple[bytes, list[bytes]]:
        data = self._store.get("envelopes", key)
        if data is None:
            raise Damaged(f"table envelopes, key {key}", "a record", None)
        return records.decode_envelope(data)


def _pending(key: int, leaf: bytes) -> Pending:
    try:
        signed = cose.parse(leaf)
        facts = seal.decode(signed.payload)
    except Refused as refusal:
        raise Damaged(f"table envelopes, key {key}", "a seal", str(refusal)) from refusal
    return Pending(key, seal.payload_hash(signed.payload), facts.kid, facts.point, facts.height, signed.signature)
