"""Makes duties to publish (acks, receipts, headers, live readings) from what blocks certified and agents sent; pure.

Theory. Every replica sees every block, and each keeps this desk. What concerns block h is published by replica h mod n
at once; the others watch the brokers and publish only what they have not seen a second later, so that a replica that
is gone costs a second and not an ack. An agent gets at most one ack in `ack_interval` (waits are real time), which
covers the newest certified seal of each of its points in one block: all below it is acked with it. After an outage
(the agent is born again, or a broker is back) the interval is waived once, because the last ack may have been lost.
Refusals and wanted heights ride along; when nothing is to be acked they go alone.

Headers: the newest at most once a second. The first of each witness interval goes out as well, at once and for itself,
so that all light nodes see the same one to sign; and the newest once more when more of them have signed.

Nothing here is a promise: what a crash forgets is asked for again by its agent, and answered then.
"""

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from firmware.wire.ack import Ack, Receipt, Refusal, Wanted

OTHERS_WAIT_MS = 1000  # ledger.md, Who ingests
HEADER_MS = 1000  # wire.md, Topics: at most one a second
LIVE_MS = 1000  # of one point: a page cannot show more
WAIVED_MS = 1000  # even after outages an agent gets no more than this: births are cheap to fake
# 64 KiB is the broker's limit; a proof takes some 420 bytes (nine hashes), refusals and ranges some 40 each.
PROOFS = 100
REFUSALS, WANTED = 16, 32
RECEIPT_ITEMS = 64
CANDIDATES = 4  # to be shown to the light nodes; older ones are signed by nobody any more
HEADERS_SEEN = 64  # heights seen on brokers; a replica that is behind executes them later
UNCERTIFIED_BLOCKS = 256  # executed here, certificate still to come: two log windows
RECEIPTS = 4096  # senders that wait; each asks again when nothing comes


class SealEntry(NamedTuple):
    """A seal that a block has accepted."""

    kid: bytes
    point: int
    height: int
    leaf: int  # its place in the block, 1..


class TransactionEntry(NamedTuple):
    """A transaction that a block holds, accepted or refused."""

    sender: bytes
    payload_hash: bytes
    leaf: int


class AckDuty(NamedTuple):
    """block None: advice only. entries: what is proven, all of that block."""

    kid: bytes
    block: int | None
    entries: tuple[SealEntry, ...]
    refused: tuple[Refusal, ...]
    wanted: tuple[Wanted, ...]


class ReceiptDuty(NamedTuple):
    kid: bytes
    block: int
    entries: tuple[TransactionEntry, ...]


class HeaderDuty(NamedTuple):
    """is_newest: the retained message of the topic; else one for whoever listens, and no later one replaces it."""

    block: int
    is_newest: bool = True
    is_candidate: bool = False


class LiveDuty(NamedTuple):
    entry: SealEntry
    block: int


Duty = AckDuty | ReceiptDuty | HeaderDuty | LiveDuty


class _Due(NamedTuple):
    block: int
    entry: SealEntry
    since_ms: int
    turn: int  # the first block since the last ack: where blocks come fast, all replicas agree on it, not on the newest


class _Agent:
    __slots__ = ("due", "refused", "wanted", "advice_ms", "last_ms", "is_waived")

    def __init__(self) -> None:
        self.due: dict[int, _Due] = {}  # by point
        self.refused: deque[Refusal] = deque(maxlen=REFUSALS)
        self.wanted: dict[int, Wanted] = {}  # by point
        self.advice_ms = 0  # since when there is any
        self.last_ms: int | None = None
        self.is_waived = False


class Desk:
    """index and count: this replica and how many there are. All times are waits."""

    def __init__(self, index: int, count: int, ack_interval_ms: int = 10_000):
        self._index, self._count, self._interval_ms = index, count, ack_interval_ms
        self._agents: dict[bytes, _Agent] = {}  # as many as are enrolled
        self._busy: dict[bytes, None] = {}  # those with something due
        self._blocks: dict[int, tuple[tuple[SealEntry, ...], tuple[TransactionEntry, ...], bool]] = {}
        self._receipts: dict[tuple[bytes, int], tuple[dict[bytes, TransactionEntry], int]] = {}
        self._live: dict[int, _Due] = {}  # by point, still to be shown
        self._live_ms: dict[int, int] = {}  # by point, last seen
        self._header = self._header_seen = self._header_turn = 0
        self._header_due_ms = self._header_ms = -HEADER_MS
        self._is_recounted = False  # more light nodes have signed than the newest message says
        self._candidates: dict[int, int] = {}  # block: since when
        self._headers_seen: deque[int] = deque(maxlen=HEADERS_SEEN)

    # What happens.

    def executed(self, block: int, seals: Iterable[SealEntry], transactions: Iterable[TransactionEntry],
                 is_candidate: bool = False) -> None:
        """A block was executed here; its certificate is to come. is_candidate: the first of its witness interval."""
        self._blocks[block] = (tuple(seals), tuple(transactions), is_candidate)
        while len(self._blocks) > UNCERTIFIED_BLOCKS:
            del self._blocks[next(iter(self._blocks))]

    def certified(self, block: int, now_ms: int) -> None:
        """The certificate of a block is stored here."""
        if block > self._header:
            if self._header <= self._header_seen:
                self._header_turn, self._header_due_ms = block, now_ms
            self._header = block
        seals, transactions, is_candidate = self._blocks.pop(block, ((), (), False))
        if is_candidate and block not in self._headers_seen:
            self._candidates[block] = now_ms
            while len(self._candidates) > CANDIDATES:
                del self._candidates[next(iter(self._candidates))]
        for entry in seals:
            self._set_due(block, entry, now_ms)
            shown = self._live.get(entry.point)
            if shown is None or shown.block <= block:
                since_ms, turn = (shown.since_ms, shown.turn) if shown else (now_ms, block)
                self._live[entry.point] = _Due(block, entry, since_ms, turn)
        for found in transactions:
            self.receipt_again(block, found, now_ms)

    def is_due(self, kid: bytes, point: int) -> bool:
        """Will this point be acked anyway?"""
        agent = self._agents.get(kid)
        return agent is not None and point in agent.due

    def is_wanted(self, kid: bytes, point: int) -> bool:
        """Are heights of this point about to be asked for?"""
        agent = self._agents.get(kid)
        return agent is not None and point in agent.wanted

    def again(self, block: int, entry: SealEntry, now_ms: int) -> None:
        """An agent has sent a seal that is committed: the newest one of its chain (`entry`) is acked again."""
        if not self.is_due(entry.kid, entry.point):
            self._set_due(block, entry, now_ms)

    def receipt_again(self, block: int, entry: TransactionEntry, now_ms: int) -> None:
        """A sender waits for what a block says of its transaction."""
        items, _ = self._receipts.setdefault((entry.sender, block), ({}, now_ms))
        if len(items) < RECEIPT_ITEMS:
            items[entry.payload_hash] = entry
        while len(self._receipts) > RECEIPTS:
            del self._receipts[next(iter(self._receipts))]

    def refuse(self, kid: bytes, point: int, height: int, reason: str, now_ms: int) -> None:
        """Tells an enrolled agent that something of its own was refused."""
        agent = self._agent(kid)
        advice = Refusal(point, height, reason)
        if advice not in agent.refused:
            self._advise(kid, agent, now_ms)
            agent.refused.append(advice)

    def want(self, kid: bytes, point: int, heights: tuple[int, int] | None, now_ms: int) -> None:
        """Asks an agent for heights of a point (both included), or for none any more."""
        agent = self._agent(kid)
        if heights is None:
            agent.wanted.pop(point, None)
            self._tidy(kid, agent)
        elif point in agent.wanted or len(agent.wanted) < WANTED:
            self._advise(kid, agent, now_ms)
            agent.wanted[point] = Wanted(point, *heights)

    def reborn(self, kid: bytes) -> None:
        """The agent has connected anew."""
        self._agent(kid).is_waived = True

    def outage_over(self) -> None:
        """A broker is back."""
        for agent in self._agents.values():
            agent.is_waived = True

    def seen_ack(self, kid: bytes, ack: Ack, now_ms: int) -> None:
        """An ack for an agent was on a broker, ours or another's."""
        agent = self._agents.get(kid)
        if agent is None:
            return
        block = int.from_bytes(ack.header[76:80], "big")  # where a header has its height
        for proof in ack.proofs:
            due = agent.due.get(proof.point)
            if due is not None and due.entry.height <= proof.height:
                del agent.due[proof.point]
            elif due is not None:  # newer blocks came while that ack was on its way
                agent.due[proof.point] = due._replace(since_ms=now_ms, turn=block + 1)
        for refusal in ack.refused:
            if refusal in agent.refused:
                agent.refused.remove(refusal)
        for wanted in ack.wanted:
            if agent.wanted.get(wanted.point) == wanted:
                del agent.wanted[wanted.point]
        agent.last_ms = now_ms
        self._tidy(kid, agent)

    def seen_receipt(self, kid: bytes, block: int, receipt: Receipt) -> None:
        """A receipt was on a broker."""
        found = self._receipts.get((kid, block))
        if found is not None:
            for item in receipt.items:
                found[0].pop(item.payload_hash, None)
            if not found[0]:
                del self._receipts[kid, block]

    def seen_header(self, block: int, now_ms: int) -> None:
        """The header of a block was on a broker."""
        self._headers_seen.append(block)
        self._candidates.pop(block, None)
        self._header_seen = max(self._header_seen, block)
        self._header_ms = now_ms
        if self._header > self._header_seen:
            self._header_turn, self._header_due_ms = self._header_seen + 1, now_ms

    def recounted(self) -> None:
        """More light nodes have signed a header."""
        self._is_recounted = True

    def seen_live(self, point: int, block: int, now_ms: int) -> None:
        """A live reading of a point, committed in `block`, was on a broker."""
        self._live_ms[point] = now_ms
        shown = self._live.get(point)
        if shown is not None and shown.block <= block:
            del self._live[point]
        elif shown is not None:
            self._live[point] = shown._replace(since_ms=now_ms, turn=block + 1)

    # What is to be done.

    def tick(self, now_ms: int) -> list[Duty]:
        """What is due now; a duty that is returned counts as done."""
        duties: list[Duty] = []
        for kid in list(self._busy):
            duty = self._ack(kid, self._agents[kid], now_ms)
            if duty is not None:
                duties.append(duty)
        for (kid, block), (items, since_ms) in list(self._receipts.items()):
            if now_ms >= since_ms + self._patience(block):
                duties.append(ReceiptDuty(kid, block, tuple(items.values())))
                del self._receipts[kid, block]
        duties += self._headers(now_ms)
        for point, shown in list(self._live.items()):
            allowed_ms = max(self._live_ms.get(point, -LIVE_MS) + LIVE_MS, shown.since_ms)
            if now_ms >= allowed_ms + self._patience(shown.turn):
                duties.append(LiveDuty(shown.entry, shown.block))
                del self._live[point]
                self._live_ms[point] = now_ms
        return duties

    def _headers(self, now_ms: int) -> list[Duty]:
        found: list[Duty] = []
        for block, since_ms in list(self._candidates.items()):
            if now_ms >= since_ms + self._patience(block):
                found.append(HeaderDuty(block, block >= max(self._header, self._header_seen), True))
                self.seen_header(block, now_ms)
        if now_ms < self._header_ms + HEADER_MS:
            return found
        is_new = self._header > self._header_seen
        if is_new and (self._patience(self._header_turn) == 0
                       or now_ms >= self._header_due_ms + HEADER_MS + OTHERS_WAIT_MS):
            found.append(HeaderDuty(self._header))
            self.seen_header(self._header, now_ms)
        elif self._is_recounted and self._header and not is_new and self._patience(self._header) == 0:
            found.append(HeaderDuty(self._header))
            self.seen_header(self._header, now_ms)
        else:
            return found
        self._is_recounted = False
        return found

    def waiting(self) -> int:
        """How many agents and senders wait for an answer."""
        return len(self._busy) + len(self._receipts)

    def _ack(self, kid: bytes, agent: _Agent, now_ms: int) -> AckDuty | None:
        gap_ms = WAIVED_MS if agent.is_waived else self._interval_ms
        allowed_ms = 0 if agent.last_ms is None else agent.last_ms + gap_ms
        if now_ms < allowed_ms:
            return None
        block, entries = None, []
        if agent.due:
            # One ack proves seals of one block: that of the point which has waited longest.
            oldest = min(agent.due.values(), key=lambda due: (due.since_ms, -due.block))
            block = oldest.block
            if now_ms < max(allowed_ms, oldest.since_ms) + self._patience(oldest.turn):
                return None
            entries = [due.entry for due in agent.due.values() if due.block == block][:PROOFS]
        elif now_ms < max(allowed_ms, agent.advice_ms) + self._patience(kid[-1]):
            return None
        for entry in entries:
            del agent.due[entry.point]
        duty = AckDuty(kid, block, tuple(entries), tuple(agent.refused), tuple(agent.wanted.values()))
        agent.refused.clear()
        agent.wanted.clear()
        agent.last_ms, agent.is_waived = now_ms, False
        self._tidy(kid, agent)
        return duty

    def _patience(self, turn: int) -> int:
        return 0 if turn % self._count == self._index else OTHERS_WAIT_MS

    def _agent(self, kid: bytes) -> _Agent:
        agent = self._agents.get(kid)
        if agent is None:
            agent = self._agents[kid] = _Agent()
        return agent

    def _set_due(self, block: int, entry: SealEntry, now_ms: int) -> None:
        agent = self._agent(entry.kid)
        known = agent.due.get(entry.point)
        if known is None or known.entry.height < entry.height:
            since_ms, turn = (known.since_ms, known.turn) if known else (now_ms, block)
            agent.due[entry.point] = _Due(block, entry, since_ms, turn)
            self._busy[entry.kid] = None

    def _advise(self, kid: bytes, agent: _Agent, now_ms: int) -> None:
        if not agent.refused and not agent.wanted:
            agent.advice_ms = now_ms
        self._busy[kid] = None

    def _tidy(self, kid: bytes, agent: _Agent) -> None:
        if not agent.due and not agent.refused and not agent.wanted:
            self._busy.pop(kid, None)
