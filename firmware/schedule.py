"""Makes the decision when a point is read: polls on the label clock's grid, and budgets for a unit that is dead.

Billing polls are due at multiples of the interval, the other quantities half an interval after theirs, so that they
never stand in the way of a slot boundary. A poll that comes too late is made once, not as often as it was missed.
"""

try:
    from micropython import const
except ImportError:
    def const(value):
        return value

BILLING, OTHER = "billing", "other"  # groups of a meter's quantities, polled apart
_DEAD_AFTER = const(3)  # polls without any answer, after which a unit is only probed
ATTEMPTS = 2  # of one request to a living unit: a single lost frame costs no reading
_PROBE_MS = const(5000)  # wait before a dead unit is asked again, doubling
_PROBE_MAX_MS = const(60000)


class Schedule:
    """When one point is due. interval_ms, details_ms (0: never): label; last_ms: its newest reading's time or None."""

    def __init__(self, interval_ms, details_ms, last_ms, now_ms):
        self.interval_ms = interval_ms
        self.details_ms = details_ms
        floor_ms = now_ms - now_ms % interval_ms
        is_read = last_ms is not None and floor_ms <= last_ms <= now_ms
        self.billing_due_ms = floor_ms + interval_ms if is_read else floor_ms
        self.details_due_ms = self._next_details(now_ms)
        self.is_busy = False
        self.silent_polls = 0
        self.missed = 0
        self._probe_at_ms = 0
        self._probe_wait_ms = _PROBE_MS
        self.seen = None  # what plausible.judge remembers of the last billing reading

    def due(self):
        """Returns (label ms, group) of what is read next."""
        if self.details_ms and self.details_due_ms < self.billing_due_ms:
            return self.details_due_ms, OTHER
        return self.billing_due_ms, BILLING

    def done_ms(self):
        """Returns the label before which everything due has been read; a poll under way is not."""
        return self.due()[0]

    def is_dead(self):
        return self.silent_polls >= _DEAD_AFTER

    def attempts(self, wait_ms):
        """Returns how often each request may be tried now; 0: leave the unit alone."""
        if not self.is_dead():
            return ATTEMPTS
        return 1 if wait_ms >= self._probe_at_ms else 0

    def finish(self, group, now_ms):
        """The poll that was due has been made (or left out)."""
        self.is_busy = False
        if group == OTHER:
            self.details_due_ms = self._next_details(max(now_ms, self.details_due_ms))
            return
        floor_ms = now_ms - now_ms % self.interval_ms
        following_ms = self.billing_due_ms + self.interval_ms
        if floor_ms > following_ms:
            self.missed += (floor_ms - following_ms) // self.interval_ms
            following_ms = floor_ms
        self.billing_due_ms = following_ms

    def answered(self):
        """Returns whether the unit had been dead."""
        was_dead = self.is_dead()
        self.silent_polls = 0
        self._probe_wait_ms = _PROBE_MS
        return was_dead

    def silent(self, wait_ms):
        """A whole poll brought no answer; returns whether the unit has just been given up."""
        self.silent_polls += 1
        if self.silent_polls > _DEAD_AFTER:
            self._probe_wait_ms = min(2 * self._probe_wait_ms, _PROBE_MAX_MS)
        self._probe_at_ms = wait_ms + self._probe_wait_ms
        return self.silent_polls == _DEAD_AFTER

    def _next_details(self, now_ms):
        if not self.details_ms:
            return 0
        half_ms = self.interval_ms >> 1
        return (now_ms - half_ms) // self.details_ms * self.details_ms + self.details_ms + half_ms
