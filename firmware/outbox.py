"""Makes the order in which sealed envelopes go out, and go out again, until the ledger has acked them.

Theory. A seal waits, is in flight (handed to the broker, no PUBACK yet) or sent (PUBACK came, which means nothing to
the journal). Only an ack that the light node has proven takes it away. When sent seals stay without ack for longer than
`silence_ms`, the oldest of each point goes out once more; when the silence goes on, everything does, at the next
broker: a broker may be alive while nobody listens behind it. Memory is bounded: what does not fit the list stays in the
journal and is loaded when there is room (`unloaded_seq`).
"""

try:
    from micropython import const
except ImportError:
    def const(value):
        return value

WAITING, IN_FLIGHT, SENT = 0, 1, 2
_SILENCE_MAX_MS = const(300000)
_CHANGE_AFTER = const(2)  # silences in a row before another broker is tried


class Sealed:
    """One sealed, unacked envelope: where it is in the journal, and how far on its way. leaf: hash, once known."""

    def __init__(self, point, height, lost, seq, first_seq):
        self.point = point
        self.height = height
        self.lost = lost
        self.seq = seq
        self.first_seq = first_seq
        self.state = WAITING
        self.sent_ms = 0
        self.leaf = None


class Outbox:
    """Sealed envelopes in journal order. limit: how many are held; window: how many may be in flight; waits in ms."""

    def __init__(self, limit, window, silence_ms):
        self.items: list = []
        self.unloaded_seq = None  # seal records from here on are not in `items`
        self.unloaded_first_seq = None  # the oldest reading that they may need
        self.silences = 0
        self.resent = 0
        self._limit = limit
        self._window = window
        self._silence_ms = silence_ms
        self._in_flight = 0
        self._quiet_since_ms = None

    def add(self, sealed):
        """Takes a new seal; returns False when it stays in the journal for now."""
        if self.unloaded_seq is not None or len(self.items) >= self._limit:
            if self.unloaded_seq is None:
                self.unloaded_seq = sealed.seq
                self.unloaded_first_seq = sealed.first_seq
            return False
        self.items.append(sealed)
        return True

    def wants_load(self):
        return self.unloaded_seq is not None and 2 * len(self.items) <= self._limit

    def begin_load(self):
        """Returns the journal number to load seal records from; `add` takes them again."""
        seq = self.unloaded_seq
        self.unloaded_seq = self.unloaded_first_seq = None
        return seq

    def find(self, point, height):
        for sealed in self.items:
            if sealed.height == height and sealed.point == point:
                return sealed
        return None

    def lowest_seq(self):
        """Returns the oldest record any unacked seal needs, or None."""
        lowest = self.unloaded_first_seq
        for sealed in self.items:
            if lowest is None or sealed.first_seq < lowest:
                lowest = sealed.first_seq
        return lowest

    def next_out(self, wait_ms):
        """Returns the seals to publish now, marked as in flight."""
        out: list = []
        if self._in_flight >= self._window:
            return out
        for sealed in self.items:
            if sealed.state == WAITING:
                sealed.state = IN_FLIGHT
                sealed.sent_ms = wait_ms
                self._in_flight += 1
                out.append(sealed)
                if self._in_flight >= self._window:
                    break
        if out and self._quiet_since_ms is None:
            self._quiet_since_ms = wait_ms
        return out

    def published(self, point, height):
        """The broker has taken it."""
        sealed = self.find(point, height)
        if sealed is not None and sealed.state == IN_FLIGHT:
            sealed.state = SENT
            self._in_flight -= 1

    def acked(self, point, height, wait_ms):
        """Everything of `point` up to `height` is on the ledger."""
        self._remove(point, height)
        self.heard(wait_ms)

    def drop(self, sealed):
        """One seal is not to be had any more."""
        if sealed.state == IN_FLIGHT:
            self._in_flight -= 1
        self.items.remove(sealed)

    def forget_before(self, point, seq):
        """Drops a point's seals whose records begin before `seq`; returns the highest one's height, 0 for none."""
        gone = [sealed for sealed in self.items if sealed.point == point and sealed.first_seq < seq]
        if gone:
            self._in_flight -= sum([1 for sealed in gone if sealed.state == IN_FLIGHT])
            self.items = [sealed for sealed in self.items if sealed.point != point or sealed.first_seq >= seq]
        return max([sealed.height for sealed in gone]) if gone else 0

    def abandon(self, point):
        """Drops all seals of a point whose chain cannot go on with them."""
        self._remove(point, None)

    def heard(self, wait_ms):
        """A proven ack came: whoever is behind the broker works."""
        self.silences = 0
        self._quiet_since_ms = wait_ms if self.items else None

    def lost_link(self):
        """Nothing in flight will get its PUBACK."""
        for sealed in self.items:
            if sealed.state == IN_FLIGHT:
                sealed.state = WAITING
        self._in_flight = 0

    def send_again(self, point, first, last):
        """Makes the seals of a point's heights first..last wait once more; returns how many there were."""
        count = 0
        for sealed in self.items:
            if sealed.point == point and first <= sealed.height <= last:
                self._wait_again(sealed)
                count += 1
        return count

    def send_all_again(self):
        for sealed in self.items:
            if sealed.state == SENT:
                sealed.state = WAITING
                self.resent += 1

    def check_silence(self, wait_ms):
        """Returns 0 (nothing), 1 (the oldest of each point waits again) or 2 (change the broker)."""
        if self._quiet_since_ms is None or wait_ms < self._quiet_since_ms + self._patience_ms():
            return 0
        oldest = {}
        for sealed in self.items:
            if sealed.point not in oldest:
                oldest[sealed.point] = sealed
        stale = [oldest[point] for point in oldest
                 if oldest[point].state != WAITING and wait_ms >= oldest[point].sent_ms + self._silence_ms]
        if not stale:
            return 0
        self._quiet_since_ms = wait_ms
        self.silences += 1
        if self.silences % _CHANGE_AFTER == 0:
            return 2
        for sealed in stale:
            self._wait_again(sealed)
        return 1

    def _wait_again(self, sealed):
        """Also of one that the broker never said to have taken: a connection can stand and lose a message."""
        if sealed.state != WAITING:
            if sealed.state == IN_FLIGHT:
                self._in_flight -= 1
            sealed.state = WAITING
            self.resent += 1

    def _patience_ms(self):
        return min(self._silence_ms << min(self.silences // _CHANGE_AFTER, 10), _SILENCE_MAX_MS)

    def _remove(self, point, height):
        kept = []
        for sealed in self.items:
            if sealed.point == point and (height is None or sealed.height <= height):
                if sealed.state == IN_FLIGHT:
                    self._in_flight -= 1
            else:
                kept.append(sealed)
        self.items = kept
