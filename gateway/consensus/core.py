"""Makes what all parts of a replica share: its numbers, its memory, its outbox.

The parts are one class in layers, each in its file and each using only what lies below it:
`core` < `ordering` (normal case) < `stability` (execution, checkpoints, header votes) < `viewing` (view changes)
< `catchup` (STATUS, missing messages) < `timing` (every limit of time) < `replica` (what a driver calls).
"""

from collections.abc import Callable

from firmware.wire.certificate import faults, quorum
from firmware.wire.errors import Refused
from gateway.consensus import durable
from gateway.consensus.checkpoints import Checkpoints, Stable
from gateway.consensus.guard import Guard
from gateway.consensus.log import Body, Log
from gateway.consensus.mail import Mail
from gateway.consensus.messages import ViewChange, frame
from gateway.consensus.pool import Pool
from gateway.consensus.types import (
    Behind,
    Certified,
    Check,
    Decision,
    Ended,
    Executed,
    Head,
    Keys,
    Now,
    Ready,
    Send,
    Settings,
)
from gateway.consensus.viewchange import Rules
from gateway.consensus.votes import HeaderVotes

STATUS_BUSY_MS = 500  # a quarter of T: a loss is made up for before anybody is suspected
EVIDENCE = 16  # pairs of messages that prove a liar: the first ones tell the story
_NOTHING = Ready()
_new = tuple.__new__  # a named tuple without the call between


class Core:
    """State and outbox. Names without underscore may be read by anybody."""

    def __init__(self, settings: Settings, keys: Keys, identify: Callable[[bytes], bytes], executed: Executed,
                 now: Now):
        check_settings(settings)
        size = len(settings.members)
        parameters = settings.parameters
        self.index = settings.index
        self.size = size
        self.quorum = quorum(size)
        self.faults = faults(size)
        self.interval = parameters["checkpoint_interval"]
        self.evidence: list[tuple[bytes, bytes]] = []  # contradictory signed messages of one member
        self.refused: dict[str, int] = {}
        self.dropped = 0  # votes that came too late to matter: no fault of anybody
        self.is_halted = False  # own state differs from a proven one: no vote any more
        self._settings = settings
        self._parameters = parameters
        self._identify = identify
        self._now = now
        self._rules = Rules(size, self.quorum, parameters["log_window"], settings.base)
        self._guard = Guard()
        self._guard.low = settings.base
        self._mail = Mail(settings, keys, self._guard)
        self._log = Log(parameters["log_window"], settings.base)
        self._pool = Pool(parameters)
        self._checkpoints = Checkpoints(self.quorum)
        self._header_votes = HeaderVotes(
            settings.epoch, self.quorum, parameters["log_window"], [head.channel for head in executed.heads])
        for channel, height in settings.floors.items():
            self._header_votes.raise_floor(channel, height)
            self._guard.forget_headers(channel, height)
        self._begin_views()
        self._begin_order(executed)
        self._begin_duties()
        self._begin_progress()

    def _begin_views(self) -> None:
        self.view = 0
        self.active = True
        self._new_view: bytes | None = None  # the NEW-VIEW of the present view, signed
        self._view_changes: dict[int, tuple[ViewChange, bytes]] = {}  # sender: its highest one
        self._future: dict[int, list[tuple[int, bytes]]] = {}  # sender: (view, frame) of views to come

    def _begin_order(self, executed: Executed) -> None:
        self.last_executed = executed.n
        self.last_decided = executed.n  # handed out as Decision
        self._accepted_high = executed.n  # pre-prepared in this view, or decided
        self._unaccepted: dict[int, bytes] = {}  # n of O whose batch is not yet at hand: digest
        self._flights: dict[int, tuple[bytes, ...]] = {}  # n of accepted and not yet executed batches: keys
        self._flying: dict[bytes, int] = {}  # key: n
        self._heads = {head.channel: head for head in executed.heads}
        self._state_root = executed.state_root
        self._decided_time_s = executed.time_s
        self._deadline_s = executed.deadline_s  # of the state after last_executed
        self._newest_place: tuple[int, ...] = ()  # what the newest time was found for
        self._newest_s = 0
        self._started_s = self._now.label_ms // 1000
        self._final: int | None = None  # the epoch's last sequence number, once the state says that it ends
        self._has_ended = False
        self._note_ending(executed.n, executed.is_ending)
        self._stable: Stable | None = None
        self._ahead: Stable | None = None  # proven, not yet reached
        self._ahead_ms = 0  # wait label of its proof
        self._behind_ms = 0  # wait label of the last request for blocks
        self._behind: Stable | None = None  # proven, out of reach of the others' logs: the driver fetches blocks
        self._wanted: dict[bytes, tuple[int, int]] = {}  # digest of a missing batch: (attempts, wait label of the next)

    def _begin_progress(self) -> None:
        """What the timers go by, and what others asked for and said."""
        now_ms = self._now.wait_ms
        self._relayed: dict[bytes, None] = {}  # hashes of requests that came by SUBMIT, oldest first
        self._buckets: dict[int, tuple[int, int]] = {}  # member: (thousandths of tokens, wait label)
        self._status_ms = now_ms  # wait label of the last STATUS
        self._status_gap_ms = STATUS_BUSY_MS  # until the next, doubled by each that nothing came of
        self._is_lagging = False  # another one is ahead
        self._round = 0  # STATUSes sent
        self._tell_again_ms = now_ms
        self._told = 0  # times that overdue items were told again
        self._watches: dict[str, tuple[int, object, int]] = {}  # kind of subject: (view, subject, since)
        self._is_primary_faulty = False
        self._has_progressed = True  # decided something new in this view
        self._patience_ms = self._parameters["view_change_ms"]  # T_vc, doubles while nothing is decided
        self._view_deadline_ms: int | None = None  # q have stopped: until then the NEW-VIEW must be here
        self._progress_ms = now_ms

    def _begin_duties(self) -> None:
        self._records: list[bytes] = []
        self._is_compacting = False
        self._others: list[bytes] = []  # those of the records that promise no batch
        self._accepted: list[tuple[bytes, bytes, bytes | None, bytes | None]] = []  # and those that do, in their parts
        self._sends: list[Send] = []
        self._checks: list[Check] = []
        self._decisions: list[Decision] = []
        self._certified: list[Certified] = []
        self._submitted: list[bytes] = []
        self._behind_duty: Behind | None = None
        self._alarms: list[str] = []
        self._ended: Ended | None = None

    @property
    def primary(self) -> int:
        """The id of the present view's primary."""
        return self.view % self.size

    @property
    def is_primary(self) -> bool:
        return self.active and self.primary == self.index

    @property
    def low(self) -> int:
        """h: the last stable checkpoint."""
        return self._log.low

    @property
    def in_flight(self) -> int:
        """Sequence numbers accepted here and not yet decided."""
        return max(0, self._accepted_high - self.last_decided)

    @property
    def pending(self) -> int:
        """Items that are not yet executed."""
        return len(self._pool)

    @property
    def stable_proof(self) -> tuple[bytes, ...]:
        """The CHECKPOINTs that prove `low`; none at the epoch's base."""
        return () if self._stable is None else self._stable.proof

    @property
    def is_over(self) -> bool:
        """Whether all that the epoch decides is decided."""
        return self._final is not None and self.last_decided >= self._final

    def _note_ending(self, n: int, is_ending: bool) -> None:
        if is_ending and self._final is None:
            self._final = -(-n // self.interval) * self.interval

    # --- outbox ---

    def _persist(self, record: bytes) -> None:
        self._records.append(record)
        self._others.append(record)

    def _persist_accepted(self, pre_prepare: bytes, digest: bytes, body: Body | None, prepare: bytes | None) -> None:
        """A batch is written with the first promise that needs it."""
        data = None if body is None else body.data
        is_new = body is not None and not body.is_durable
        self._records.append(durable.accepted(pre_prepare, data if is_new else None, prepare))
        self._accepted.append((pre_prepare, digest, data, prepare))
        if body is not None:
            body.is_durable = True

    def _send(self, signed: bytes, to: int | None = None, batch: bytes | None = None) -> None:
        if self.size > 1:
            self._sends.append(_new(Send, (to, frame(signed, batch))))

    def _send_header_vote(self, vote: bytes, to: int | None = None) -> None:
        if self.size > 1:
            self._sends.append(Send(to, b"h" + vote))

    def _count(self, refused: Refused) -> None:
        self.refused[refused.reason] = self.refused.get(refused.reason, 0) + 1

    def _accuse(self, member: int, first: bytes, second: bytes, what: str) -> None:
        """Keeps two messages that no honest member would both sign."""
        if len(self.evidence) < EVIDENCE and (first, second) not in self.evidence:
            self.evidence.append((first, second))
            self._alarms.append("member %d contradicts itself: %s" % (member, what))

    def _halt(self, why: str) -> None:
        if not self.is_halted:
            self.is_halted = True
            self._alarms.append("stopped voting: " + why)

    def _note_progress(self) -> None:
        self._progress_ms = self._now.wait_ms
        self._status_gap_ms = STATUS_BUSY_MS

    def _take_ready(self) -> Ready:
        """Empties the outbox. A compact log holds the new records too: it alone is written, so that no crash leaves the
        old low mark beside promises that lie beyond its window."""
        if not (self._sends or self._records or self._decisions or self._checks or self._certified or self._submitted
                or self._alarms or self._is_compacting or self._behind_duty or self._ended):
            return _NOTHING
        compact = self._compact() if self._is_compacting else None
        ready = _new(Ready, (
            [] if self._is_compacting else self._records, compact, self._sends, self._checks, self._decisions,
            self._certified, self._submitted, self._behind_duty, self._alarms, self._ended))
        self._records, self._sends, self._checks, self._decisions = [], [], [], []
        self._certified, self._submitted, self._alarms = [], [], []
        self._behind_duty = self._ended = None
        self._is_compacting = False
        self._others, self._accepted = [], []
        return ready

    # --- memory ---

    def _newest_time_s(self) -> int:
        """Time of the newest batch accepted: the next one must not be older. Asked for at every event, so kept."""
        place = (self.view, self._accepted_high, self.last_decided, len(self._unaccepted))
        if place != self._newest_place:
            self._newest_place, self._newest_s = place, self._find_newest_time_s()
        return self._newest_s

    def _find_newest_time_s(self) -> int:
        newest = self._decided_time_s
        for n in range(self.last_decided + 1, self._accepted_high + 1):
            slot = self._log.get(n)
            body = self._log.body(slot.digest) if slot and slot.digest else None
            if body:
                newest = max(newest, body.batch.time_s)
        return newest

    def _want(self, digest: bytes) -> None:
        self._wanted.setdefault(digest, (0, self._now.wait_ms))

    def _keys_of(self, body: Body) -> tuple[bytes, ...]:
        """The keys of a batch's items; one that has none (a liar's batch) is nobody's."""
        if not body.keys and body.batch.items:
            keys = []
            for item in body.batch.items:
                try:
                    keys.append(self._identify(item))
                except Refused as refused:
                    self._count(refused)
            body.keys = tuple(keys)
        return body.keys

    def _fly(self, n: int, body: Body) -> None:
        """Notes that a batch is under way."""
        keys = self._keys_of(body)
        known = self._flights.get(n, keys)
        if known is not keys and known != keys:
            self._free(n)  # another batch was decided here than the one accepted
        self._flights[n] = keys
        for key in keys:
            self._flying[key] = n
        self._pool.fly(keys, n)

    def _land(self, n: int) -> tuple[bytes, ...]:
        """Notes that the batch at n is executed; its keys."""
        keys = self._flights.pop(n, ())
        for key in keys:
            if self._flying.get(key) == n:
                del self._flying[key]
        return keys

    def _free(self, n: int) -> None:
        """Notes that the batch accepted at n will not be executed there: its items wait again."""
        self._pool.free(self._land(n), n)

    def _free_undecided(self) -> None:
        """After a view change: what is not decided may come back, or not."""
        for n in [n for n in self._flights if n > self.last_decided]:
            self._land(n)
        self._pool.release(self.last_decided)

    def _compact(self) -> list[bytes]:
        """All that still counts, as a new votes log."""
        records = [durable.epoch(self._settings.epoch)] if self._settings.epoch else []
        records += [durable.floors(sorted(self._header_votes.floors.items()))]
        if self._stable is not None:
            records.append(durable.stable(self._stable.proof))
        own = self._view_changes.get(self.index)
        # what leaves with this file is in it, even when it is past already: one turn may see several views
        written: set[bytes] = set()
        for pre_prepare, digest, data, prepare in self._accepted:
            records.append(durable.accepted(pre_prepare, None if digest in written else data, prepare))
            written.add(digest)
        records.extend(self._others)
        if self.active and self._new_view is not None:
            records.append(durable.active(self._new_view))
        elif not self.active and own is not None:
            records.append(durable.stopped(own[1]))
        records.extend(durable.header_vote(vote) for vote in self._header_votes.own_votes())
        records.extend(durable.checkpoint(signed) for signed in self._checkpoints.of(self.index))

        def batch_once(digest: bytes) -> bytes | None:
            body = self._log.body(digest)
            if body is None or digest in written:
                return None
            written.add(digest)
            return body.data

        for slot in self._log:
            certificate = slot.certificate
            if certificate is not None and not (slot.is_prepared and slot.pre_prepare):
                records.append(durable.accepted(certificate.proof.pre_prepare, batch_once(certificate.digest), None))
                records.append(durable.prepared(slot.n, certificate.proof, slot.own_commit))
            if slot.is_accepted and slot.pre_prepare is not None and slot.digest is not None:
                records.append(durable.accepted(slot.pre_prepare, batch_once(slot.digest), slot.own_prepare))
                if slot.is_prepared and certificate is not None:
                    records.append(durable.prepared(slot.n, certificate.proof, slot.own_commit))
        self._log.note_durable(written)
        return records


def check_settings(settings: Settings) -> None:
    """Raises ValueError for numbers that no cluster can run with."""
    parameters = settings.parameters
    if not 0 <= settings.index < len(settings.members):
        raise ValueError("index %d of %d members" % (settings.index, len(settings.members)))
    if not 0 < parameters["checkpoint_interval"] <= parameters["log_window"]:
        raise ValueError("checkpoint_interval %d, log_window %d" % (
            parameters["checkpoint_interval"], parameters["log_window"]))
    if settings.base % parameters["checkpoint_interval"]:
        raise ValueError("an epoch begins at a checkpoint, not after %d" % settings.base)
    if settings.depth < 1 or parameters["batch_items"] < 1 or parameters["timeout_ms"] < 1:
        raise ValueError("depth %d, batch_items %d, timeout_ms %d" % (
            settings.depth, parameters["batch_items"], parameters["timeout_ms"]))


def heads_of(heads: dict[str, Head]) -> tuple[Head, ...]:
    """The heads by channel's name, as a CHECKPOINT carries them."""
    return tuple(heads[channel] for channel in sorted(heads))
