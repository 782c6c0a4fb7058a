"""Makes up for what the network lost: STATUS tells the others what is held, they send again what is lacking.

Nothing is assumed of the links. A STATUS goes out when nothing moves although something should, and seldom otherwise;
each receiver answers with what it has itself: its votes, the proposal, decisions with their proof, the NEW-VIEW, the
proof of a stable checkpoint, header votes. What the logs no longer hold is fetched as blocks (`Behind`).
"""

from firmware.wire.errors import Refused, check
from gateway.consensus import messages
from gateway.consensus.log import Slot
from gateway.consensus.messages import Data, Fetch, SlotStatus, Status, Submit, Vote, digest_of
from gateway.consensus.viewing import Viewing

FETCH_MS = 100  # until another member is asked for a batch
STATUS_IDLE_MS = 4000  # the slowest pace, also where nothing is to be expected
STATUS_SOON_MS = 50  # after a sign that the others are ahead
ANSWER_BYTES = 1024 * 1024  # of one answer to a STATUS: four full batches
# Requests that cost an answer or work (STATUS, FETCH, SUBMIT), of one member: an honest one sends a handful a second.
REQUESTS_PER_S = 50
REQUESTS_BURST = 100
RELAYED = 4096  # hashes of requests that came by SUBMIT, until they come back as items


class CatchUp(Viewing):
    """STATUS, FETCH, DATA, SUBMIT."""

    # --- missing batches ---

    def _prune_wanted(self) -> None:
        needed = set(self._unaccepted.values())
        needed.update(slot.decided for slot in self._log if slot.decided and slot.n > self.last_decided)
        self._wanted = {digest: when for digest, when in self._wanted.items()
                        if digest in needed and not self._log.has(digest)}

    def _fetch(self) -> None:
        """Asks one member after the other for each batch that is missing."""
        self._prune_wanted()
        for digest, (attempts, due_ms) in self._wanted.items():
            if self._now.wait_ms >= due_ms and self.size > 1:
                to = (self.index + 1 + attempts % (self.size - 1)) % self.size
                self._wanted[digest] = (attempts + 1, self._now.wait_ms + FETCH_MS)
                self._send(self._mail.sign(Fetch(digest, self.index)), to)

    def _on_fetch(self, message: Fetch, signed: bytes) -> None:
        body = self._log.body(message.digest)
        if body is None or message.sender == self.index:
            self.dropped += 1
            return
        self._mail.open(signed)
        self._spend(message.sender)
        self._send(self._mail.sign(Data(body.data, (), self.index)), message.sender)

    def _on_data(self, message: Data, signed: bytes) -> None:
        """A batch is proven by its digest, a decision by q COMMITs of one view."""
        digest = None if message.batch is None else digest_of(message.batch)
        first = self._mail.peek(message.commits[0]) if message.commits else None
        slot = self._slot_to_decide(first)
        if digest not in self._wanted and slot is None:
            self.dropped += 1
            return
        self._mail.open(signed)
        if slot is not None and isinstance(first, Vote):
            last = -1
            for commit in message.commits:
                vote = self._mail.open(commit)
                check(isinstance(vote, Vote) and vote[:4] == (messages.COMMIT, *first[1:4]), "wrong_proof", first, vote)
                check(vote.sender > last, "duplicate_signer", last, vote.sender)
                last = vote.sender
            check(len(message.commits) >= self.quorum, "too_few_signers", self.quorum, len(message.commits))
            if message.batch is not None and digest == first.digest:
                self._log.put(digest, message.batch)
            self._decide(slot, first.digest, message.commits)
            self._accept_next()
        if message.batch is not None and digest in self._wanted:
            self._take_batch(message.batch)

    def _slot_to_decide(self, vote: object) -> Slot | None:
        """The undecided slot that a COMMIT of a proof speaks of."""
        if not isinstance(vote, Vote) or vote.n <= self.last_decided or vote.n not in self._log:
            return None
        slot = self._log.slot(vote.n)
        return slot if slot.decided is None else None

    # --- STATUS ---

    def _is_busy(self) -> bool:
        """Tells whether something should be moving."""
        return bool(not self.active or self._final is not None or self._wanted or self._unaccepted or self._is_lagging
                    or self._pool.overdue or self._header_votes.is_open or self._ahead or self._behind
                    or self._accepted_high > self.last_decided or self._log.get(self.last_decided + 1))

    def _status_due_ms(self) -> int:
        slowest = self._status_ms + STATUS_IDLE_MS
        if self._is_lagging and self._progress_ms >= self._status_ms:
            return min(slowest, self._status_ms + STATUS_SOON_MS)
        if self._is_busy():
            return min(slowest, max(self._status_ms, self._progress_ms) + self._status_gap_ms)
        return slowest

    def _say_status(self, to: int | None = None) -> None:
        mask = 0
        if not self.active:
            for sender, (message, _) in self._view_changes.items():
                mask |= (message.view == self.view) << sender
        decided = max(self.last_decided, self.low)
        slots = []
        for n in range(decided + 1, min(decided + messages.STATUS_SLOTS, self._log.high) + 1):
            slot = self._log.get(n)
            if slot is not None:
                digest = slot.decided or slot.digest
                slots.append(SlotStatus(n, digest is not None and self._log.has(digest), slot.pre_prepare is not None,
                                        _mask(slot.prepares), _mask(slot.commits)))
        status = Status(self.view, self.active, self.low, decided, self._round, mask, tuple(slots),
                        self._header_votes.wanted(self._round), self.index)
        self._round += 1
        self._send(self._mail.sign(status), to)

    def _keep_status(self) -> None:
        """Sends a STATUS when one is due: each without progress since the last one comes later than the one before."""
        if self._now.wait_ms < self._status_due_ms():
            return
        self._status_gap_ms = min(2 * self._status_gap_ms, STATUS_IDLE_MS)
        self._status_ms = self._now.wait_ms
        self._is_lagging = False
        self._say_status()

    def _on_status(self, message: Status, signed: bytes) -> None:
        if message.sender == self.index:
            self.dropped += 1
            return
        self._mail.open(signed)
        self._spend(message.sender)
        to = message.sender
        self._answer_view(message, to)
        if message.low < self.low and self._stable is not None:
            for checkpoint in self._stable.proof:
                self._send(checkpoint, to)
        for checkpoint in self._checkpoints.of(self.index):
            self._send(checkpoint, to)
        self._answer_slots(message, to)
        for channel, height in message.wanted:
            vote = self._header_votes.own_vote(channel, height)
            if vote is not None:
                self._send_header_vote(vote, to)
        is_elsewhere = message.is_active and (message.view > self.view or not self.active)
        if self._behind is None and (is_elsewhere or max(message.decided, message.low) > self.last_decided):
            self._is_lagging = True

    def _answer_view(self, message: Status, to: int) -> None:
        is_stopped = message.view == self.view and not message.is_active
        if self.active:
            if self._new_view is not None and (message.view < self.view or is_stopped):
                self._send(self._new_view, to)
        elif message.view <= self.view and not (is_stopped and message.view_changes >> self.index & 1):
            own = self._view_changes.get(self.index)
            if own is not None:
                self._send(own[1], to)

    def _answer_slots(self, message: Status, to: int) -> None:
        """Decisions with their proof, else what was said here in the view that both are in."""
        states = {state.n: state for state in message.slots}
        base = max(message.decided, message.low)
        size = 0
        for n in range(base + 1, base + messages.STATUS_SLOTS + 1):
            slot = self._log.get(n)
            if slot is None or size > ANSWER_BYTES:
                continue
            state = states.get(n, SlotStatus(n, False, False, 0, 0))
            if slot.proof and slot.decided is not None:
                body = None if state.has_batch else self._log.body(slot.decided)
                size += len(body.data) if body else 0
                self._send(self._mail.sign(Data(body.data if body else None, slot.proof, self.index)), to)
            elif self.active and message.is_active and message.view == self.view:
                size += self._answer_slot(slot, state, message.round, to)
            elif slot.own_commit is not None:
                self._send(slot.own_commit, to)

    def _answer_slot(self, slot: Slot, state: SlotStatus, turn: int, to: int) -> int:
        """The proposal (the primary's, or in turns another's who holds it) and the own votes; bytes of the batch."""
        size = 0
        is_helper = self.index in (self.primary, turn % self.size)
        if is_helper and slot.pre_prepare is not None and slot.digest is not None and not (
                state.has_pre_prepare and state.has_batch):
            body = self._log.body(slot.digest)
            if body is not None:
                size = len(body.data)
                self._send(slot.pre_prepare, to, body.data)
        if slot.own_prepare is not None and not state.prepares >> self.index & 1:
            self._send(slot.own_prepare, to)
        if self.index in slot.commits and slot.own_commit is not None and not state.commits >> self.index & 1:
            self._send(slot.own_commit, to)
        return size

    # --- SUBMIT ---

    def _on_submit(self, message: Submit, signed: bytes) -> None:
        check(sum(len(request) for request in message.requests) <= messages.SUBMIT_BYTES, "oversize",
              messages.SUBMIT_BYTES, len(message.requests))
        if message.sender == self.index:
            self.dropped += 1
            return
        self._mail.open(signed)
        self._spend(message.sender)
        for request in message.requests:
            digest = digest_of(request)
            self._relayed.pop(digest, None)
            self._relayed[digest] = None
            while len(self._relayed) > RELAYED:
                del self._relayed[next(iter(self._relayed))]
            self._submitted.append(request)

    def _spend(self, member: int) -> None:
        """A token of a member's bucket, its signature being checked; raises Refused `busy`."""
        tokens, since_ms = self._buckets.get(member, (REQUESTS_BURST * 1000, self._now.wait_ms))
        tokens = min(REQUESTS_BURST * 1000, tokens + (self._now.wait_ms - since_ms) * REQUESTS_PER_S)
        if tokens < 1000:
            self._buckets[member] = (tokens, self._now.wait_ms)
            raise Refused("busy", REQUESTS_PER_S, member)
        self._buckets[member] = (tokens - 1000, self._now.wait_ms)


def _mask(votes: dict) -> int:
    mask = 0
    for sender in votes:
        mask |= 1 << sender
    return mask
