"""Makes a replica's memory again from the records of its votes log: everything that it has promised (pbft.md 3.11)."""

from collections.abc import Sequence

from firmware.wire.errors import Refused
from gateway.consensus import durable, messages
from gateway.consensus.checkpoints import Stable, check_proof
from gateway.consensus.log import Certificate
from gateway.consensus.messages import Checkpoint, NewView, Prepared, ViewChange, Vote, digest_of
from gateway.consensus.timing import Timing


class Accepted:
    """A PRE-PREPARE of the log with what belongs to it."""

    def __init__(self, signed: bytes, vote: Vote, own_prepare: bytes | None):
        self.signed = signed
        self.vote = vote
        self.own_prepare = own_prepare


class Restoring(Timing):
    """Reads the log back. Its own disk is trusted as far as its checksums go; what cannot be read is a ValueError."""

    def _restore(self, records: Sequence[bytes]) -> None:
        read = durable.read(records)
        if records and durable.epoch_of(records) != self._settings.epoch:
            raise ValueError("the votes log is of epoch %d, not %d" % (
                durable.epoch_of(records), self._settings.epoch))
        try:
            self._restore_stable(read)
            self._restore_view(read)
            self._guard.stopped = self.view
            self._guard.become_stable(self.low, self.view if self.active else self.view - 1)
            self._restore_slots(read)
            self._restore_votes(read)
        except Refused as refused:
            raise ValueError("the votes log: %s" % refused) from refused
        if self.active:
            self._restore_place()

    def _restore_stable(self, read: list[durable.Record]) -> None:
        for record in read:
            if record.kind == durable.FLOORS:
                for channel, height in record.fields[0]:
                    self._header_votes.raise_floor(channel, height)
                    self._guard.forget_headers(channel, height)
            elif record.kind == durable.STABLE:
                proof = tuple(record.fields[0])
                first = self._mail.peek(proof[0])
                assert isinstance(first, Checkpoint)
                stable = check_proof(proof, first.n, self.quorum, self._mail, self._settings.base)
                assert isinstance(stable, Stable)
                self._stable = stable
                self._log.become_stable(stable.n)

    def _restore_view(self, read: list[durable.Record]) -> None:
        """The newest view, and whether it had become active."""
        for record in read:
            if record.kind not in (durable.STOPPED, durable.ACTIVE):
                continue
            signed = record.fields[0]
            message = self._mail.peek(signed)
            assert isinstance(message, ViewChange | NewView)
            if message.sender == self.index:
                self._mail.recall(signed)
            if message.view < self.view:
                continue
            self.view, self.active = message.view, record.kind == durable.ACTIVE
            self._has_progressed = False
            self._new_view = signed if self.active else None
            self._view_changes.pop(self.index, None)
            if isinstance(message, ViewChange):
                self._view_changes[self.index] = (message, signed)

    def _restore_slots(self, read: list[durable.Record]) -> None:
        """Batches, proposals, prepared certificates and own votes above the low mark."""
        places: dict[tuple[int, int], Accepted] = {}
        for record in read:
            if record.kind == durable.ACCEPTED:
                signed, data, own_prepare = record.fields
                vote = self._vote(signed)
                if data is not None:
                    self._log.put(digest_of(data), data).is_durable = True
                for own in (signed, own_prepare):
                    if own is not None and self._vote(own).sender == self.index:
                        self._mail.recall(own)
                places[vote.n, vote.view] = Accepted(signed, vote, own_prepare)
        for record in read:
            if record.kind == durable.PREPARED:
                self._restore_prepared(record, places)
        for (n, view), accepted in places.items():
            if self.active and view == self.view and n in self._log:
                self._restore_accepted(accepted)
        self._log.drop_bodies()

    def _restore_prepared(self, record: durable.Record, places: dict[tuple[int, int], Accepted]) -> None:
        n, prepares, commit = record.fields
        if commit is not None:
            self._mail.recall(commit)
        if n not in self._log:
            return
        view = self._vote(prepares[0] if prepares else commit).view
        accepted = places.get((n, view))
        if accepted is None:
            return  # a compact log leaves out the proposal of a certificate that one of a later view replaces
        slot = self._log.slot(n)
        if slot.certificate is None or view >= slot.certificate.view:
            slot.certificate = Certificate(view, accepted.vote.digest, Prepared(accepted.signed, tuple(prepares)))
            slot.own_commit = commit

    def _restore_accepted(self, accepted: Accepted) -> None:
        """A proposal of the present view, with the own votes for it."""
        vote = accepted.vote
        slot = self._log.slot(vote.n)
        slot.digest, slot.pre_prepare, slot.own_prepare = vote.digest, accepted.signed, accepted.own_prepare
        slot.is_checked = slot.is_accepted = True
        if slot.own_prepare is not None:
            slot.prepares[self.index] = (vote.digest, slot.own_prepare)
        certificate = slot.certificate
        if certificate is not None and certificate.view == self.view:
            slot.is_prepared = True
            for prepare in certificate.proof.prepares:
                slot.prepares[self._vote(prepare).sender] = (vote.digest, prepare)
            if slot.own_commit is not None:
                slot.commits[self.index] = (vote.digest, slot.own_commit)
        body = self._log.body(vote.digest)
        if body is not None and vote.n > self.last_executed:
            self._fly(vote.n, body)

    def _restore_votes(self, read: list[durable.Record]) -> None:
        for record in read:
            if record.kind == durable.HEADER_VOTE:
                head = self._mail.peek_header(record.fields[0])[0]
                if head.height > self._header_votes.floors.get(head.channel, -1):
                    self._guard.admit_header(head)
                    self._keep_header_vote(head, record.fields[0])
            elif record.kind == durable.CHECKPOINT:
                message = self._mail.recall(record.fields[0])
                assert isinstance(message, Checkpoint)
                if message.n > self.low:
                    self._hold_checkpoint(message, record.fields[0])

    def _restore_place(self) -> None:
        """How far this view had got: what O orders, and what was accepted after it without a hole."""
        high = self.low
        if self._new_view is not None:
            new_view = self._mail.peek(self._new_view)
            assert isinstance(new_view, NewView)
            for signed in new_view.pre_prepares:
                vote = self._vote(signed)
                high = max(high, vote.n)
                if vote.n in self._log and not self._log.slot(vote.n).is_accepted:
                    slot = self._log.slot(vote.n)
                    slot.pre_prepare, slot.digest, slot.is_checked = signed, vote.digest, True
                    self._unaccepted[vote.n] = vote.digest
        for slot in self._log:
            if slot.is_accepted:
                high = max(high, slot.n)
        self._accepted_high = max(high, self.last_executed)

    def _vote(self, signed: bytes) -> Vote:
        vote = self._mail.peek(signed)
        assert isinstance(vote, Vote) and vote.type in (messages.PRE_PREPARE, messages.PREPARE, messages.COMMIT)
        return vote
