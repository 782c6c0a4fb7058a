"""Makes the order of a point's seals from verified seals as they come: which is next, known, too early, a fork; pure.

Theory. Heights run per (kid, point). A chain's tip is its newest seal that is committed or *pending*: placed here and
handed to consensus, not yet in a block. A seal is next when height = tip + 1 + lost and it names the tip's payload (or
nothing, at the beginning and after a declared loss). What comes too early is *held*, within a limit, and the hole is
wanted from its agent. A height that is known with the same payload is a repetition, and harmless; with another payload
it is a fork: the agent has signed two truths for one place. The first stands, the second is evidence.

Blocks have the last word. What they commit moves the tip; where they commit something else than what was pending, the
pending seals above it can never follow and are given up.
"""

from collections.abc import Callable
from enum import Enum
from typing import NamedTuple

from firmware.wire.errors import Refused
from firmware.wire.seal import FIRST_PREVIOUS
from firmware.wire.state import ChainRecord
from gateway.ingest.verify import VerifiedSeal

# A gap is filled within some acks: 64 heights are an hour of one-minute seals. 60 KiB each at worst.
HELD_SEALS = 64
HELD_BYTES = 16 << 20  # of all chains together, so that many points cannot do together what one may not
# An agent that was cut off for long sends its backlog: three days of one-minute seals, then it waits for blocks.
PENDING_SEALS = 4096


class Verdict(Enum):
    NEXT = "next"  # it, and perhaps seals that were held, go to consensus
    HELD = "held"  # durable here, waits for the heights before it
    PENDING = "pending"  # known, on its way
    COMMITTED = "committed"  # known, in a block: is acked again
    REFUSED = "refused"


_NEXT = Verdict.NEXT
_new = tuple.__new__  # a named tuple without the call between


class Placed(NamedTuple):
    """What became of one seal. ready: seals now in order; wanted: heights (both included) to be asked for; refusal:
    why not (for `fork`, `expected` is the payload hash that stands); turned_away: held seals that turned out wrong."""

    verdict: Verdict
    ready: tuple[VerifiedSeal, ...] = ()
    wanted: tuple[int, int] | None = None
    refusal: Refused | None = None
    turned_away: tuple[tuple[VerifiedSeal, Refused], ...] = ()


class Moved(NamedTuple):
    """What a block changed. ready: held seals that follow it; given_up: payload hashes that can never follow."""

    ready: tuple[VerifiedSeal, ...] = ()
    given_up: tuple[bytes, ...] = ()
    turned_away: tuple[tuple[VerifiedSeal, Refused], ...] = ()


class _Chain:
    __slots__ = ("height", "payload_hash", "pending", "held", "tip", "tip_hash")

    def __init__(self, record: ChainRecord | None):
        self.height: int = record.height if record else 0
        self.payload_hash: bytes = record.payload_hash if record else FIRST_PREVIOUS
        self.pending: dict[int, bytes] = {}  # payload hash by height, rising
        self.held: dict[int, VerifiedSeal] = {}
        self.find_tip()

    def find_tip(self) -> None:
        """After anything but appending."""
        self.tip, self.tip_hash = self.height, self.payload_hash
        if self.pending:
            self.tip = next(reversed(self.pending))
            self.tip_hash = self.pending[self.tip]


class Chains:
    """All chains of an area. committed(kid, point): the chain's record in the state; hash_at(kid, point, height): the
    payload hash of a committed seal, None where that height was declared lost."""

    def __init__(self, committed: Callable[[bytes, int], ChainRecord | None],
                 hash_at: Callable[[bytes, int, int], bytes | None]):
        self._committed, self._hash_at = committed, hash_at
        self._chains: dict[tuple[bytes, int], _Chain] = {}  # as many as points are enrolled
        self._held_bytes = 0
        self.pending_hashes: set[bytes] = set()  # read from other threads too: is this payload under way?

    def place(self, verified: VerifiedSeal) -> Placed:
        """Judges one seal and takes it in."""
        seal = verified.seal
        chain = self._chain(seal.kid, seal.point)
        if (seal.height == chain.tip + 1 and not seal.lost and seal.previous == chain.tip_hash and not chain.held
                and len(chain.pending) < PENDING_SEALS):
            self._append(chain, verified)  # what nearly every seal is
            return _new(Placed, (_NEXT, (verified,), None, None, ()))
        if seal.height <= chain.height:
            return self._place_old(chain, verified)
        known = chain.pending.get(seal.height)
        if known is not None:
            if known == verified.payload_hash:
                return Placed(Verdict.PENDING)
            return _refused("fork", known, verified.payload_hash)
        held = chain.held.get(seal.height)
        if held is not None and held.payload_hash != verified.payload_hash:
            return _refused("fork", held.payload_hash, verified.payload_hash)
        tip = chain.tip
        if seal.height - seal.lost <= tip:  # a height that is known cannot be declared lost, nor come after all
            return _refused("wrong_height", tip + 1, seal.height - seal.lost)
        if seal.height - seal.lost > tip + 1:
            return self._hold(chain, tip, verified)
        previous = _previous(chain, verified)
        if seal.previous != previous:
            return _refused("wrong_previous", previous, seal.previous)
        if len(chain.pending) >= PENDING_SEALS:
            return _refused("busy", PENDING_SEALS, len(chain.pending))
        self._unhold(chain, seal.height)
        self._append(chain, verified)
        ready, turned_away = self._release(chain)
        return Placed(Verdict.NEXT, (verified, *ready), self.wanted(seal.kid, seal.point), None, turned_away)

    def committed(self, kid: bytes, point: int, height: int, payload_hash: bytes) -> Moved:
        """A block has taken this seal; blocks come in order."""
        chain = self._chain(kid, point)
        if height < chain.height or (height == chain.height and payload_hash == chain.payload_hash):
            given_up = self._give_up(chain, {at for at in chain.pending if at <= height})
            return Moved(given_up=tuple(item for item in given_up if item != payload_hash))
        chain.height, chain.payload_hash = height, payload_hash
        is_ours = chain.pending.get(height) == payload_hash
        given_up = self._give_up(chain, {at for at in chain.pending if at <= height or not is_ours})
        for at in [at for at in chain.held if at <= height]:
            self._unhold(chain, at)
        ready, turned_away = self._release(chain)
        return Moved(ready, tuple(item for item in given_up if item != payload_hash), turned_away)

    def dropped(self, kid: bytes, point: int, height: int, payload_hash: bytes) -> Moved:
        """A block holds this seal with a refusal as its result: it and what was to follow it are given up."""
        chain = self._chain(kid, point)
        if chain.pending.get(height) != payload_hash:
            return Moved()
        return Moved(given_up=self._give_up(chain, {at for at in chain.pending if at >= height}))

    def is_committed(self, kid: bytes, point: int, height: int) -> bool:
        """Has a block taken this height, or one above it?"""
        return height <= self._chain(kid, point).height

    def forget(self, verified: VerifiedSeal) -> Moved:
        """This seal could not be kept: as if it had never come."""
        seal = verified.seal
        chain = self._chain(seal.kid, seal.point)
        if chain.held.get(seal.height) == verified:
            self._unhold(chain, seal.height)
        return self.dropped(seal.kid, seal.point, seal.height, verified.payload_hash)

    def wanted(self, kid: bytes, point: int) -> tuple[int, int] | None:
        """The first hole of a chain, as heights to be asked for (both included)."""
        chain = self._chain(kid, point)
        if not chain.held:
            return None
        first = min(chain.held)
        last = first - chain.held[first].seal.lost - 1
        return (chain.tip + 1, last) if last > chain.tip else None

    def counts(self) -> tuple[int, int]:
        """(pending, held) seals of all chains."""
        return len(self.pending_hashes), sum(len(chain.held) for chain in self._chains.values())

    def _chain(self, kid: bytes, point: int) -> _Chain:
        chain = self._chains.get((kid, point))
        if chain is None:
            chain = self._chains[kid, point] = _Chain(self._committed(kid, point))
        return chain

    def committed_hash(self, kid: bytes, point: int, height: int) -> bytes | None:
        """The payload hash that a block has taken at a height; None above the newest, or where it was lost."""
        chain = self._chain(kid, point)
        if height >= chain.height:
            return chain.payload_hash if height == chain.height else None
        return self._hash_at(kid, point, height)

    def _place_old(self, chain: _Chain, verified: VerifiedSeal) -> Placed:
        seal = verified.seal
        known = self.committed_hash(seal.kid, seal.point, seal.height)
        if known == verified.payload_hash:
            return Placed(Verdict.COMMITTED)
        if known is None:
            return _refused("wrong_height", chain.height + 1, seal.height)
        return _refused("fork", known, verified.payload_hash)

    def _hold(self, chain: _Chain, tip: int, verified: VerifiedSeal) -> Placed:
        seal = verified.seal
        if seal.height not in chain.held:
            size = _size(verified)
            # The lowest heights are of use first: one further up makes room.
            while len(chain.held) >= HELD_SEALS or self._held_bytes + size > HELD_BYTES:
                highest = max(chain.held, default=0)
                if highest <= seal.height:
                    refusal = Refused("gap", tip + 1, seal.height)
                    return Placed(Verdict.REFUSED, (), self.wanted(seal.kid, seal.point), refusal)
                self._unhold(chain, highest)
            chain.held[seal.height] = verified
            self._held_bytes += size
        return Placed(Verdict.HELD, (), self.wanted(seal.kid, seal.point))

    def _release(self, chain: _Chain) -> tuple[tuple[VerifiedSeal, ...], tuple[tuple[VerifiedSeal, Refused], ...]]:
        """Held seals that follow the tip now, and those that never can."""
        ready, turned_away = [], []
        while chain.held and len(chain.pending) < PENDING_SEALS:
            lowest = min(chain.held)
            seal = chain.held[lowest].seal
            tip = chain.tip
            if seal.height - seal.lost > tip + 1:
                break
            verified = chain.held[lowest]
            self._unhold(chain, lowest)
            previous = _previous(chain, verified)
            if seal.height - seal.lost <= tip:
                turned_away.append((verified, Refused("wrong_height", tip + 1, seal.height - seal.lost)))
            elif seal.previous != previous:
                turned_away.append((verified, Refused("wrong_previous", previous, seal.previous)))
            else:
                self._append(chain, verified)
                ready.append(verified)
        return tuple(ready), tuple(turned_away)

    def _append(self, chain: _Chain, verified: VerifiedSeal) -> None:
        height, payload_hash = verified.seal.height, verified.payload_hash
        chain.tip, chain.tip_hash = height, payload_hash
        chain.pending[height] = payload_hash
        self.pending_hashes.add(payload_hash)

    def _give_up(self, chain: _Chain, heights: set[int]) -> tuple[bytes, ...]:
        given_up = tuple(chain.pending.pop(height) for height in sorted(heights))
        self.pending_hashes.difference_update(given_up)
        chain.find_tip()
        return given_up

    def _unhold(self, chain: _Chain, height: int) -> None:
        verified = chain.held.pop(height, None)
        if verified is not None:
            self._held_bytes -= _size(verified)


def _previous(chain: _Chain, verified: VerifiedSeal) -> bytes:
    """What the seal after the tip has to name; an empty chain's tip hash is FIRST_PREVIOUS."""
    return FIRST_PREVIOUS if verified.seal.lost else chain.tip_hash


def _size(verified: VerifiedSeal) -> int:
    return len(verified.leaf) + len(verified.envelope) + sum(map(len, verified.readings))


def _refused(reason: str, expected: object, found: object) -> Placed:
    return Placed(Verdict.REFUSED, refusal=Refused(reason, expected, found))
