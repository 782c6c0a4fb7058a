"""Makes decisions from proposals and votes: PBFT's normal case, pbft.md 3.3 and 3.4.

    primary   items -> PRE-PREPARE ------------------------------+
    backup    PRE-PREPARE, checked, timely, next -> accepted -> PREPARE
    all       accepted, q-1 PREPAREs of backups -> prepared -> COMMIT
    all       q COMMITs of one view -> decided, handed out in order of n

The last line needs no vote of one's own: q COMMITs of one view prove that q - f honest replicas hold the batch as
prepared, so a replica that stopped, or whose clock refused the proposal, still learns what was decided.
"""

from collections.abc import Iterator

from firmware.wire.errors import Refused, check
from gateway.consensus import durable, messages
from gateway.consensus.core import Core
from gateway.consensus.log import Certificate, Slot
from gateway.consensus.messages import NULL_DIGEST, STATUS_SLOTS, Prepared, Vote, decode_batch, digest_of, encode_batch
from gateway.consensus.types import Batch, Check, Decision

# Messages for a view that is not yet active here, of one sender: twice the slots that may be under way, in bytes eight
# full batches (the usual depth).
FUTURE_FRAMES = 128
FUTURE_BYTES = 2 * 1024 * 1024


class Ordering(Core):
    """The normal case."""

    # --- proposals ---

    def _propose(self) -> None:
        """As primary: closes every batch that is due, `depth` of them ahead of execution at most."""
        while self.is_primary and not self.is_halted and self._behind is None and not self._unaccepted:
            n = self._accepted_high + 1
            if self._log.get(n) is not None:
                self._pass_decided()
                n = self._accepted_high + 1
            if n not in self._log or n - self.last_executed > self._settings.depth or self._is_beyond(n):
                return
            is_due = self._pool.is_due(self._now, self._accepted_high == self.last_decided)
            if not is_due and self._now.label_ms < self._heartbeat_ms():
                return
            items = self._pool.take(n)  # what waits for company goes with a deadline's block: one decision less
            newest_s = max(self._newest_time_s(), self._now.label_ms // 1000)
            batch = Batch(self._settings.channel, self.view, newest_s, tuple(item.data for item in items))
            self._propose_batch(n, batch, tuple(item.key for item in items))

    def _propose_batch(self, n: int, batch: Batch, keys: tuple[bytes, ...]) -> None:
        data = encode_batch(batch)
        digest = digest_of(data)
        slot = self._log.slot(n)
        signed = self._mail.sign(Vote(messages.PRE_PREPARE, self.view, n, digest, self.index))
        slot.pre_prepare, slot.digest, slot.is_checked = signed, digest, True
        self._log.put(digest, data, batch).keys = keys
        self._accepted_high = n
        self._send(signed, batch=data)
        self._accept(slot)

    def _heartbeat_ms(self) -> int:
        """Label at which an empty block is due when nothing else makes one: a deadline of the state, or long silence.
        What is under way may pass the deadline, or move it: it counts only in the state after all that is accepted."""
        if self._final is not None:
            return 0  # an epoch that ends is filled up to its last checkpoint, with empty blocks if need be
        due_s = max(self._newest_time_s(), self._started_s) + self._parameters["heartbeat_s"]
        if self._deadline_s is not None and self.last_executed == self._accepted_high:
            due_s = min(due_s, self._deadline_s)
        return due_s * 1000

    def _is_beyond(self, n: int) -> bool:
        """Whether n is the next epoch's. What is decided there all the same, proposed before the end was known, is void
        for everybody: it is never handed out."""
        return self._final is not None and n > self._final

    def _on_pre_prepare(self, vote: Vote, signed: bytes, data: bytes | None) -> None:
        check(vote.sender == vote.view % self.size, "not_permitted", vote.view % self.size, vote.sender)
        if self._is_past(vote) or not self._is_present(vote, signed, data):
            return
        if vote.n > self._accepted_high + self._ahead_limit:
            self.dropped += 1
            return
        slot = self._log.slot(vote.n)
        if slot.digest == vote.digest and slot.pre_prepare is not None:
            self.dropped += 1
            if data is not None and vote.digest in self._wanted:
                self._take_batch(data)
            return
        if data is None or vote.digest != digest_of(data):
            raise Refused("wrong_digest", vote.digest, data)
        self._mail.open(signed)
        if slot.pre_prepare is not None:
            self._accuse(vote.sender, slot.pre_prepare, signed, "two proposals for view %d, n %d" % (vote.view, vote.n))
            self._is_primary_faulty = True
            raise Refused("conflicting_vote", slot.digest, vote.digest)
        if vote.n <= self._accepted_high:
            self.dropped += 1  # decided here without its proposal
            return
        batch = decode_batch(data)
        self._check_limits(batch)
        self._log.put(vote.digest, data, batch)
        slot.pre_prepare, slot.digest = signed, vote.digest
        if batch.time_s < self._now.label_ms // 1000 - self._parameters["time_behind_s"]:
            self._refuse(slot, Refused("wrong_time", self._now.label_ms // 1000, batch.time_s))
        else:
            self._checks.append(Check(vote.digest, batch))

    def _check_limits(self, batch: Batch) -> None:
        """Raises Refused for a first proposal that no replica takes."""
        limits = self._parameters
        size = sum(len(item) for item in batch.items)
        check(batch.view == self.view, "wrong_view", self.view, batch.view)
        check(batch.channel in self._heads, "wrong_channel", self._settings.channel, batch.channel)
        check(len(batch.items) <= limits["batch_items"], "oversize", limits["batch_items"], len(batch.items))
        check(len(batch.items) <= 1 or size <= limits["batch_bytes"], "oversize", limits["batch_bytes"], size)

    def _is_early(self, batch: Batch) -> bool:
        return batch.time_s > self._now.label_ms // 1000 + self._parameters["time_ahead_s"]

    def _refuse(self, slot: Slot, refused: Refused) -> None:
        """Will not vote for this proposal; if others do it is learned from their COMMITs, if not the timer runs out."""
        slot.is_refused = True
        self._count(refused)

    @property
    def _ahead_limit(self) -> int:
        """How many proposals may wait for their predecessors; an honest primary is never further ahead."""
        return max(STATUS_SLOTS, 2 * self._settings.depth)

    def _unjudged(self) -> Iterator[Slot]:
        """The slots beyond what is accepted, by rising n: whose proposals may wait for their check."""
        for n in range(self._accepted_high + 1, self._accepted_high + self._ahead_limit + 1):
            slot = self._log.get(n)
            if slot is not None:
                yield slot

    def _accept_next(self) -> None:
        """Accepts proposals in the order of n, as far as they are checked and timely."""
        if self._log.get(self._accepted_high + 1) is None:
            return
        while self.active and not self.is_halted and not self._unaccepted:
            self._pass_decided()
            slot = self._log.get(self._accepted_high + 1)
            if slot is None or slot.digest is None or not slot.is_checked or slot.is_refused:
                return
            if self._is_beyond(slot.n):
                return
            body = self._log.body(slot.digest)
            assert body is not None
            if self._is_early(body.batch):
                return  # our clock comes there, `wake` says when
            earliest_s = self._earliest_s(body.batch)
            if body.batch.time_s < earliest_s:
                if body.batch.time_s >= self._newest_time_s() and self.last_executed < slot.n - 1:
                    return  # the state before it may have a deadline: `executed` says
                self._refuse(slot, Refused("wrong_time", earliest_s, body.batch.time_s))
                return
            self._accepted_high = slot.n
            self._accept(slot)

    def _earliest_s(self, batch: Batch) -> int:
        """Block time never falls; an empty batch is a heartbeat, and those are due seldom (clocks differ a little) but
        for a deadline of the state."""
        newest_s = self._newest_time_s()
        if batch.items or not newest_s or self._final is not None:
            return newest_s
        if self._deadline_s is not None and self.last_executed == self._accepted_high:
            return max(newest_s, min(self._deadline_s, self._earliest_empty_s(newest_s)))
        return self._earliest_empty_s(newest_s)

    def _earliest_empty_s(self, newest_s: int) -> int:
        slack_s = self._parameters["time_ahead_s"] + self._parameters["time_behind_s"]
        return newest_s + max(0, self._parameters["heartbeat_s"] - slack_s)

    def _pass_decided(self) -> None:
        """What was decided without being accepted here leaves no hole."""
        while True:
            slot = self._log.get(self._accepted_high + 1)
            if slot is None or slot.decided is None or slot.is_accepted:
                return
            self._accepted_high = slot.n

    def _accept(self, slot: Slot) -> None:
        """Pre-prepared: the batch is at hand, the promise goes to disk, the PREPARE out (the primary sends none)."""
        assert slot.digest is not None and slot.pre_prepare is not None
        slot.is_accepted = True
        body = self._log.body(slot.digest)
        if self.primary != self.index:
            slot.own_prepare = self._mail.sign(Vote(messages.PREPARE, self.view, slot.n, slot.digest, self.index))
            slot.prepares[self.index] = (slot.digest, slot.own_prepare)
            self._send(slot.own_prepare)
        self._persist_accepted(slot.pre_prepare, slot.digest, body, slot.own_prepare)
        if body is not None and slot.n > self.last_executed:
            self._fly(slot.n, body)
        self._advance(slot)

    def _take_batch(self, data: bytes) -> None:
        """A batch that was missing: what waited for it goes on."""
        digest = digest_of(data)
        self._log.put(digest, data)
        self._wanted.pop(digest, None)
        for n in [n for n, wanted in self._unaccepted.items() if wanted == digest]:
            del self._unaccepted[n]
            if not self.is_halted:
                self._accept(self._log.slot(n))
        self._accept_next()
        self._deliver()

    # --- votes ---

    def _on_vote(self, vote: Vote, signed: bytes) -> None:
        """A PREPARE or COMMIT: its place is looked at before its signature."""
        if self._is_past(vote):
            return
        if vote.type == messages.COMMIT and not (self.active and vote.view == self.view):
            self._learn(vote, signed)
        if not self._is_present(vote, signed, None):
            return
        slot = self._log.slot(vote.n)
        is_prepare = vote.type == messages.PREPARE
        if is_prepare:
            check(vote.sender != self.primary, "not_permitted", "a backup", vote.sender)
        votes = slot.prepares if is_prepare else slot.commits
        known = votes.get(vote.sender)
        if known is not None and known[0] != vote.digest:
            self._mail.open(signed)
            self._accuse(vote.sender, known[1], signed, "two votes for view %d, n %d" % (vote.view, vote.n))
            raise Refused("conflicting_vote", known[0], vote.digest)
        if known is not None or (slot.is_prepared if is_prepare else slot.decided is not None):
            self.dropped += 1
            return
        self._mail.open(signed)
        votes[vote.sender] = (vote.digest, signed)
        self._advance(slot)

    def _is_past(self, vote: Vote) -> bool:
        """Tells whether nothing depends on a vote any more, or not yet: it costs no signature check."""
        if vote.n not in self._log or vote.sender == self.index:
            self.dropped += 1
            return True
        return False

    def _is_present(self, vote: Vote, signed: bytes, data: bytes | None) -> bool:
        """Tells whether a vote is for the present, active view; those of a view to come are kept for it."""
        if self.active and vote.view == self.view:
            return True
        if vote.view < self.view:
            self.dropped += 1
            return False
        held = self._future.setdefault(vote.sender, [])
        data_frame = messages.frame(signed, data)
        if len(held) < FUTURE_FRAMES and sum(len(old) for _, old in held) + len(data_frame) <= FUTURE_BYTES:
            self._mail.open(signed)
            held.append((vote.view, data_frame))
        else:
            self.dropped += 1
        return False

    def _advance(self, slot: Slot) -> None:
        """Takes a slot as far as its votes go."""
        if slot.is_accepted and not slot.is_prepared and not self.is_halted and slot.digest is not None:
            prepares = slot.prepares_for(slot.digest)
            if len(prepares) >= self.quorum - 1:
                self._become_prepared(slot, slot.digest, [vote for _, vote in prepares[: self.quorum - 1]])
        if slot.decided is None and len(slot.commits) >= self.quorum:
            for digest in sorted({said for said, _ in slot.commits.values()}):
                commits = slot.commits_for(digest)
                if len(commits) >= self.quorum:
                    self._decide(slot, digest, tuple(vote for _, vote in commits[: self.quorum]))
                    return

    def _become_prepared(self, slot: Slot, digest: bytes, prepares: list[bytes]) -> None:
        assert slot.pre_prepare is not None
        slot.is_prepared = True
        proof = Prepared(slot.pre_prepare, tuple(prepares))
        slot.certificate = Certificate(self.view, digest, proof)
        commit = self._mail.sign(Vote(messages.COMMIT, self.view, slot.n, digest, self.index))
        slot.own_commit = commit
        slot.commits[self.index] = (digest, commit)
        self._persist(durable.prepared(slot.n, proof, commit))
        self._send(commit)

    def _learn(self, vote: Vote, signed: bytes) -> None:
        """A COMMIT of another view: q of one view prove a decision, whatever view is active here."""
        if vote.n <= self.last_decided:
            return
        slot = self._log.slot(vote.n)
        known = slot.learned.get(vote.sender)
        if slot.decided is not None or (known is not None and known[0] >= vote.view):
            return
        self._mail.open(signed)
        slot.learned[vote.sender] = (vote.view, vote.digest, signed)
        equal = sorted((sender, commit) for sender, (view, digest, commit) in slot.learned.items()
                       if (view, digest) == (vote.view, vote.digest))
        if len(equal) >= self.quorum:
            self._decide(slot, vote.digest, tuple(commit for _, commit in equal[: self.quorum]))

    # --- decisions ---

    def _decide(self, slot: Slot, digest: bytes, proof: tuple[bytes, ...]) -> None:
        slot.decided = digest
        slot.proof = proof
        if not self._log.has(digest):
            self._want(digest)
        self._deliver()

    def _deliver(self) -> None:
        """Hands out decisions in order of n. After a checkpoint's n the next one waits for its execution: the
        CHECKPOINT is on disk before anything goes beyond the state that it names."""
        while self._behind is None and not self.is_halted:
            n = self.last_decided + 1
            slot = self._log.get(n)
            if slot is None or slot.decided is None or not self._log.has(slot.decided):
                return
            if self.last_decided % self.interval == 0 and self.last_executed < self.last_decided:
                return
            if self._is_beyond(n):
                return
            batch = None
            if slot.decided != NULL_DIGEST:
                body = self._log.body(slot.decided)
                assert body is not None
                batch = body.batch
                self._fly(n, body)
                self._pool.settle(body.keys)
                self._decided_time_s = max(self._decided_time_s, batch.time_s)
            else:
                self._free(n)  # what was accepted here before is not what was decided
            self.last_decided = n
            self._decisions.append(Decision(n, batch))
            self._has_progressed = True
            self._patience_ms = self._parameters["view_change_ms"]
            self._note_progress()
