"""Makes the next view when the present one does not get on: pbft.md 3.6 (the plan itself is `viewchange`).

A replica is ACTIVE in a view, or has stopped in it and waits for the NEW-VIEW. It stops when its timer ends, when the
primary is proven false, or when f+1 others have stopped (one of them is honest, and alone it could not go on).
"""

from firmware.wire.errors import Refused, check
from gateway.consensus import durable, messages
from gateway.consensus.messages import NewView, ViewChange, Vote
from gateway.consensus.stability import Stability
from gateway.consensus.viewchange import Evidence, Plan, check_new_view, check_view_change, plan_of


class Viewing(Stability):
    """View changes."""

    def _stop(self, view: int) -> None:
        """Leaves for `view`: VIEW_CHANGE there, nothing is voted for in lower views any more."""
        assert view > self.view
        left, self.view, self.active = self.view, view, False
        self._new_view = None
        self._view_deadline_ms = None
        self._is_primary_faulty = False
        self._log.enter_view(left)
        self._unaccepted = {}
        self._free_undecided()
        prepared = tuple(slot.certificate.proof for slot in self._log if slot.certificate is not None)
        proof = self._stable.proof if self._stable is not None else ()
        message = ViewChange(view, self.low, proof, prepared, self.index)
        signed = self._mail.sign(message)
        self._persist(durable.stopped(signed))
        self._send(signed)
        self._view_changes[self.index] = (message, signed)
        self._note_progress()
        self._consider_views()

    def _on_view_change(self, message: ViewChange, signed: bytes) -> None:
        """Keeps the highest one of each member. What is in it is checked when a NEW-VIEW is made of it: until then it
        counts for no more than that its sender has stopped, and f liars alone move nobody."""
        check(len(signed) <= self._rules.view_change_bytes(), "oversize", self._rules.view_change_bytes(), len(signed))
        known = self._view_changes.get(message.sender)
        is_new = message.view > self.view or (message.view == self.view and not self.active)
        if message.sender == self.index or not is_new or (known is not None and known[0].view >= message.view):
            self.dropped += 1
            return
        self._mail.open(signed)
        self._view_changes[message.sender] = (message, signed)
        self._consider_views()

    def _consider_views(self) -> None:
        """Joins f+1 others, starts the clock at q, leads when it is our turn."""
        if self.is_halted:
            return
        higher = sorted(message.view for sender, (message, _) in self._view_changes.items()
                        if sender != self.index and message.view > self.view)
        if len(higher) > self.faults:
            self._stop(higher[0])
            return
        if self.active:
            return
        stopped = [message for message, _ in self._view_changes.values() if message.view >= self.view]
        if len(stopped) >= self.quorum and self._view_deadline_ms is None:
            self._view_deadline_ms = self._now.wait_ms + self._patience_ms
        if self.primary == self.index:
            self._lead()

    def _lead(self) -> None:
        """As primary of the view to come: NEW-VIEW from q valid VIEW-CHANGEs, the own one among them."""
        valid: dict[int, tuple[bytes, Evidence]] = {}
        for sender in sorted(self._view_changes):
            message, signed = self._view_changes[sender]
            if message.view != self.view:
                continue
            try:
                valid[sender] = (signed, check_view_change(message, self._rules, self._mail))
            except Refused as refused:
                self._count(refused)
                self._alarms.append("member %d sent a false VIEW-CHANGE: %s" % (sender, refused.reason))
                del self._view_changes[sender]
        if len(valid) < self.quorum:
            return
        others = [sender for sender in valid if sender != self.index][: self.quorum - 1]
        chosen = sorted([self.index, *others])
        plan = plan_of([valid[sender][1] for sender in chosen])
        order = tuple(self._mail.sign(Vote(messages.PRE_PREPARE, self.view, n, digest, self.index))
                      for n, digest in plan.order)
        signed = self._mail.sign(NewView(self.view, tuple(valid[sender][0] for sender in chosen), order, self.index))
        self._send(signed)
        self._enter(self.view, plan, signed, order)

    def _on_new_view(self, message: NewView, signed: bytes) -> None:
        if message.view < self.view or (message.view == self.view and self.active) or self.is_halted:
            self.dropped += 1
            return
        check(message.sender == message.view % self.size, "not_permitted", message.view % self.size, message.sender)
        check(message.sender != self.index, "not_permitted", "an own NEW-VIEW that is not in the log", message.view)
        self._mail.open(signed)
        plan = check_new_view(message, self._rules, self._mail)
        self._enter(message.view, plan, signed, message.pre_prepares)

    def _enter(self, view: int, plan: Plan, signed: bytes, order: tuple[bytes, ...]) -> None:
        """ACTIVE in `view`: what O orders is pre-prepared, in the order of n."""
        self._persist(durable.active(signed))
        left, self.view, self.active = self.view, view, True
        self._new_view = signed
        self._view_deadline_ms = None
        self._is_primary_faulty = False
        self._has_progressed = False
        self._note_progress()
        self._log.enter_view(left)
        self._unaccepted = {}
        self._free_undecided()
        self._view_changes = {
            sender: pair for sender, pair in self._view_changes.items() if pair[0].view > view}
        if plan.stable is not None and plan.low > self.low:
            self._jump(plan.stable)
        self._accepted_high = max(self.low, plan.low + len(order))
        for (n, digest), pre_prepare in zip(plan.order, order, strict=True):
            if n in self._log:
                self._place(n, digest, pre_prepare)
        self._log.drop_bodies()
        self._accept_next()
        self._replay_future()

    def _place(self, n: int, digest: bytes, pre_prepare: bytes) -> None:
        """One element of O; its batch is not judged again (it is prepared somewhere honest), only fetched."""
        slot = self._log.slot(n)
        slot.pre_prepare, slot.digest, slot.is_checked = pre_prepare, digest, True
        if slot.decided not in (None, digest):
            self._halt("n %d was decided, and view %d orders another batch there" % (n, self.view))
        if self.is_halted:
            return
        if self._log.has(digest):
            self._accept(slot)
        else:
            self._unaccepted[n] = digest
            self._want(digest)

    def _replay_future(self) -> None:
        """Overridden where frames are read."""
