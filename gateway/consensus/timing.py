"""Makes what time demands: batches that close, SUBMITs, suspicion of the primary, STATUS; and says when to look again.

Suspicion has three subjects, each with a watch of its own: the lowest sequence number that is not decided although
something was said about it, the item that has been overdue longest, and the heartbeat. A watch starts when its subject
becomes the foremost one and ends when that is decided; when it lasts longer than T, the replica stops in this view.
So a primary that serves all but one is found out, and one that is merely busy is not.
"""

from collections.abc import Iterable

from gateway.consensus.catchup import STATUS_SOON_MS, CatchUp
from gateway.consensus.messages import SUBMIT_BYTES, Submit
from gateway.consensus.stability import GRACE_MS

RETOLD = 64  # overdue items told to the primary again every T
BEHIND_T = 5  # an unanswered `Behind` is issued again after five times T


class Timing(CatchUp):
    """Every limit of time. All of it is looked at after each event; `wake` says when nothing but time will matter."""

    def _turn(self) -> None:
        """What is due now."""
        self._pool.advance(self._now, self.last_decided)
        if self._is_primary_faulty and self.active and not self.is_halted:
            self._stop(self.view + 1)
        self._accept_next()
        if self._ahead is not None:
            self._look_ahead()
        self._watch_primary()
        if not self.active:
            self._watch_view_change()
        self._propose()
        if self._pool.overdue:
            self._tell()
        if self._wanted:
            self._fetch()
        if self._behind is not None and self._now.wait_ms >= self._behind_again_ms():
            self._ask_for_blocks()
        if self.size > 1 and self._now.wait_ms >= self._status_ms + STATUS_SOON_MS:
            self._keep_status()
        if self._final is not None:
            self._look_for_end()

    def _behind_again_ms(self) -> int:
        return self._behind_ms + BEHIND_T * self._parameters["timeout_ms"]

    # --- suspicion ---

    def _timeout_ms(self) -> int:
        """T, or as much patience as the views before have asked for, until something new is decided."""
        base = self._parameters["timeout_ms"]
        return base if self._has_progressed else max(base, self._patience_ms)

    def _subjects(self) -> Iterable[tuple[str, object]]:
        """What the primary owes us, foremost of each kind."""
        n = self.last_decided + 1
        while (slot := self._log.get(n)) is not None and slot.decided is not None:
            n += 1
        # votes of f+1 members show as well that there is a proposal: one of them is honest
        if slot is not None and (slot.digest or len({*slot.prepares, *slot.commits}) > self.faults):
            yield "slot", n
        for key, entry in self._pool.overdue.items():
            if not 0 < entry.n <= self.last_decided:
                yield "item", key
                break
        if self._now.label_ms >= self._heartbeat_late_ms():
            yield "heartbeat", (self._newest_time_s(), self._final and self.last_decided)

    def _heartbeat_late_ms(self) -> int:
        return self._heartbeat_ms() + self._parameters["time_ahead_s"] * 1000

    def _watch_primary(self) -> None:
        """As backup: stops in this view when a subject has been owed for too long."""
        watches: dict[str, tuple[int, object, int]] = {}
        if self._is_watching():
            for kind, subject in self._subjects():
                since = self._watches.get(kind)
                watches[kind] = since if since and since[1] == subject and since[0] == self.view else (
                    self.view, subject, self._now.wait_ms)
        self._watches = watches
        if not watches:
            return
        deadline = self._watch_deadline_ms()
        if deadline is not None and self._now.wait_ms >= deadline:
            self._lose_patience()

    def _is_watching(self) -> bool:
        return (self.active and not self.is_primary and not self.is_halted and self._behind is None
                and not self.is_over)

    def _watch_deadline_ms(self) -> int | None:
        if not self._watches:
            return None
        return min(since for _, _, since in self._watches.values()) + self._timeout_ms()

    def _watch_view_change(self) -> None:
        """Stopped, q others as well, and no NEW-VIEW in time: the one after."""
        deadline = self._view_deadline_ms
        if not self.is_halted and deadline is not None and self._now.wait_ms >= deadline:
            self._lose_patience()

    def _lose_patience(self) -> None:
        if not self.active or not self._has_progressed:
            self._patience_ms = min(2 * self._patience_ms, self._parameters["view_change_max_ms"])
        self._watches = {}
        self._stop(self.view + 1)

    # --- SUBMIT ---

    def _tell(self) -> None:
        """As backup: overdue items go to all once, and to the primary again every T (it may be a new one). Who has
        stopped, perhaps alone, does not know which view the others are in, and tells one after the other."""
        if self.size == 1 or self.is_primary or self.is_halted or not self._pool.overdue or self.is_over:
            return
        now_ms = self._now.wait_ms
        fresh = self._pool.take_untold()
        if fresh:
            self._submit_to(fresh, None)
            self._tell_again_ms = max(self._tell_again_ms, now_ms + self._parameters["timeout_ms"])
        elif now_ms >= self._tell_again_ms:
            self._told += 1
            other = (self.index + 1 + self._told % (self.size - 1)) % self.size
            self._submit_to(self._pool.foremost_overdue(RETOLD), self.primary if self.active else other)
            self._tell_again_ms = now_ms + self._parameters["timeout_ms"]

    def _submit_to(self, requests: list[bytes], to: int | None) -> None:
        """As few messages as the limit of one allows."""
        at = 0
        while at < len(requests):
            end, size = at, 0
            while end < len(requests) and (end == at or size + len(requests[end]) <= SUBMIT_BYTES):
                size += len(requests[end])
                end += 1
            self._send(self._mail.sign(Submit(tuple(requests[at:end]), self.index)), to)
            at = end

    # --- when to look again ---

    def _wake_times(self) -> tuple[list[int], list[int]]:
        """Labels and waits at which something falls due. Asked for after every event, so nothing is looked up twice."""
        labels, waits = [], []
        seal_overdue, transaction_overdue = self._pool.overdue_at()
        if seal_overdue is not None:
            labels.append(seal_overdue)
        if transaction_overdue is not None:
            waits.append(transaction_overdue)
        if self._can_propose():
            label, wait = self._pool.due_at()
            if label is not None:
                labels.append(label)
            if wait is not None:
                waits.append(wait)
            labels.append(self._heartbeat_ms())
        elif "heartbeat" not in self._watches and self._is_watching():
            labels.append(self._heartbeat_late_ms())
        slot = self._log.get(self._accepted_high + 1)
        if self.active and slot is not None and slot.digest is not None and slot.is_checked and not slot.is_refused:
            body = self._log.body(slot.digest)
            if body is not None and self._is_early(body.batch):
                labels.append((body.batch.time_s - self._parameters["time_ahead_s"]) * 1000)
        watch = self._watch_deadline_ms()
        if watch is not None:
            waits.append(watch)
        if not self.active and self._view_deadline_ms is not None and not self.is_halted:
            waits.append(self._view_deadline_ms)
        if self._ahead is not None and self.last_decided < self._ahead.n:
            waits.append(self._ahead_ms + GRACE_MS)
        if self._behind is not None:
            waits.append(self._behind_again_ms())
        if self.size > 1:
            waits.append(self._status_due_ms())
            waits.extend(due_ms for _, due_ms in self._wanted.values())
            if self._pool.overdue and not self.is_primary and not self.is_halted and not self.is_over:
                waits.append(self._tell_again_ms)
        return labels, waits

    def _can_propose(self) -> bool:
        n = self._accepted_high + 1
        return (self.is_primary and not self.is_halted and self._behind is None and not self._unaccepted
                and n in self._log and n - self.last_executed <= self._settings.depth and not self._is_beyond(n))

