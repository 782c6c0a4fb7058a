"""Makes the label clock of a board, and what its quality is, from ticks and the answers of time servers.

Theory. A board without a battery knows no time when it gets power: until servers have said it, quality is U and what
is read is stored, sealed and marked, never settled. After a restart the chip's own clock goes on, and is I. All servers
are asked in a round, one per step; the median counts if half of all and most of those that answered lie within AGREE_S
of it, and nothing proven contradicts it: the built-in earliest time, the newest header that q replicas signed. That
is S, for HOLD_MS. Once synchronised, a round that wants to move the clock by more than STEP_S is not believed before it
was right STUBBORN times in a row, DOUBT_MS apart; the clock goes on by its crystal and is I meanwhile (security.md T8).
NTP itself is not authenticated: who holds the network can move a board's clock by less than STEP_S unseen, no more.
"""

import time

from firmware.board.micro import epoch_s
from firmware.wire.reading import CLOCK_INFORMATIVE, CLOCK_SYNCHRONISED, CLOCK_UNKNOWN

EARLIEST_S = 1767225600  # 2026-01-01: no board of this software has lived before
LATEST_S = 4102444800  # 2100-01-01
AGREE_S = 2  # ntptime counts whole seconds
STEP_S = 90
STUBBORN = 3
ROUND_MS, RETRY_MS, DOUBT_MS = 1800000, 16000, 1200000
HOLD_MS = 86400000  # 40 ppm of a crystal are 3.5 s a day
SLEW_MS = 2000  # answers are whole seconds, so below this our own is better


class BoardClock:
    """Label time in Unix ms that never falls while it is synchronised; waits by ticks, which wrap after 12 days."""

    speed = 1

    def __init__(self):
        self._ticks = time.ticks_ms()  # type: ignore[attr-defined]  # a board's
        self._passed_ms = 0
        self._last_ms = 0
        self._set_ms = None  # when servers had set it, in passed ms
        own_s = time.time() + epoch_s()
        self._is_kept = EARLIEST_S <= own_s < LATEST_S  # the chip's clock has lived through the restart
        self._base_ms = own_s * 1000
        self.is_doubted = False

    def monotonic_ms(self):
        ticks = time.ticks_ms()  # type: ignore[attr-defined]  # a board's
        self._passed_ms += time.ticks_diff(ticks, self._ticks)  # type: ignore[attr-defined]  # a board's
        self._ticks = ticks
        return self._passed_ms

    def now_ms(self):
        self._last_ms = max(self._last_ms, self._base_ms + self.monotonic_ms())
        return self._last_ms

    def quality(self):
        if self._set_ms is None:
            return CLOCK_INFORMATIVE if self._is_kept else CLOCK_UNKNOWN
        if self.is_doubted or self.monotonic_ms() - self._set_ms > HOLD_MS:
            return CLOCK_INFORMATIVE
        return CLOCK_SYNCHRONISED

    def is_set(self):
        return self._set_ms is not None

    def set(self, now_s):
        """Servers agree that it is this second: small differences are left, or waited for; the first time it jumps."""
        passed_ms = self.monotonic_ms()
        wanted_ms = now_s * 1000 + 500 - passed_ms
        if self._set_ms is None:
            self._last_ms = 0
            self._base_ms = wanted_ms
        elif abs(wanted_ms - self._base_ms) > SLEW_MS:
            self._base_ms = wanted_ms
        self._set_ms = passed_ms

    def progress(self, label_ms):
        """Real time waits for nobody."""


class TimeKeeper:
    """Asks `hosts` and sets `clock`. ask(host) -> Unix seconds or OSError, may wait a second; set_chip(Unix s): the
    chip's own clock, which TLS looks at. floor_s: no earlier time is believed."""

    def __init__(self, clock, hosts, ask, set_chip, log):
        self.clock = clock
        self.floor_s = EARLIEST_S
        self._hosts = hosts
        self._ask = ask
        self._set_chip = set_chip
        self._log = log
        self._next_ms = 0
        self._answers: list = []  # differences to `clock` in s
        self._asked = 0
        self._is_warned = False
        self._far: list = []  # what rounds wanted that were not believed

    def step(self, is_network_up):
        """Asks one server if one is due."""
        now_ms = self.clock.monotonic_ms()
        if not is_network_up or not self._hosts or now_ms < self._next_ms:
            return
        try:
            self._answers.append(self._ask(self._hosts[self._asked]) - self.clock.now_ms() // 1000)
        except (OSError, ValueError, IndexError):
            pass  # no answer, or no answer of a time server's
        self._asked += 1
        if self._asked == len(self._hosts):
            pause_ms = self._judge()
            self._asked = 0
            self._answers = []
            self._next_ms = self.clock.monotonic_ms() + pause_ms

    def _judge(self):
        """Sets the clock if a round's answers are good; returns the wait until the next."""
        difference_s = agreed(self._answers, len(self._hosts))
        if difference_s is None:
            return RETRY_MS
        wanted_s = self.clock.now_ms() // 1000 + difference_s
        if not self.floor_s - STEP_S <= wanted_s < LATEST_S:
            if not self._is_warned:
                self._log("time servers say %d: earlier than what is proven" % wanted_s)
            self._is_warned = True
            self.clock.is_doubted = self.clock.is_set()
            return RETRY_MS
        if self.clock.is_set() and abs(difference_s) > STEP_S:
            self._far = [one for one in self._far if abs(one - difference_s) <= AGREE_S] + [difference_s]
            self.clock.is_doubted = True
            if len(self._far) < STUBBORN:
                self._log("time servers differ by %d s: not believed yet" % difference_s)
                return DOUBT_MS
            self._log("the clock moves by %d s" % difference_s)
        was_set = self.clock.is_set()
        self._is_warned = False
        self._far = []
        self.clock.is_doubted = False
        self.clock.set(wanted_s)
        self._set_chip(wanted_s)
        if not was_set:
            self._log("the clock is synchronised")
        return ROUND_MS


def agreed(answers, asked):
    """The median of numbers if most of them, and half of the servers that were asked, lie near it; else None."""
    if not answers:
        return None
    middle = sorted(answers)[(len(answers) - 1) // 2]
    near = [one for one in answers if abs(one - middle) <= AGREE_S]
    return middle if 2 * len(near) > len(answers) and 2 * len(near) >= asked else None


def ask_ntp(host):
    """Unix seconds by MicroPython's own ntptime; OSError."""
    import ntptime
    ntptime.host = host
    return ntptime.time() + epoch_s()


def set_rtc(now_s):
    """Sets the chip's clock."""
    from machine import RTC
    moment = time.gmtime(now_s - epoch_s())
    RTC().datetime((moment[0], moment[1], moment[2], moment[6], moment[3], moment[4], moment[5], 0))
