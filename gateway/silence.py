"""Makes out, from the reports that blocks hold, which devices nobody reports on any more.

The replica that pulls a device may belong to the plant that is being checked, and could simply fall silent. Each report
promises the next one; when so many promises were broken and so much real time has passed (a demo's interval is a
second, and its clock may be held), every other replica sees it.
"""

from typing import Protocol

from gateway.dispatch.records import DeviceRecord

INTERVALS, WAIT_MS = 3, 60_000


class Clock(Protocol):
    """As `deploy.clock.Clock`."""

    def now_ms(self) -> int: ...

    def monotonic_ms(self) -> int: ...


class Silence:
    """Since the start of this process: what was missed while no replica ran is not held against anybody."""

    def __init__(self, clock: Clock):
        self._clock, self._started_ms = clock, clock.now_ms()
        self._heard_ms: dict[str, int] = {}  # real time of each device's newest report, or of the first question
        self._overdue: set[str] = set()

    def heard(self, name: str) -> bool:
        """A report was executed; tells whether the device was overdue."""
        self._heard_ms[name] = self._clock.monotonic_ms()
        was_overdue = name in self._overdue
        self._overdue.discard(name)
        return was_overdue

    def is_news(self, name: str, record: DeviceRecord) -> bool:
        """Tells, once, that a device is overdue; record: of its last report."""
        now_ms = self._clock.monotonic_ms()
        heard_ms = self._heard_ms.setdefault(name, now_ms)
        late_ms = self._clock.now_ms() - max(record.time_s * 1000, self._started_ms)
        if name in self._overdue or late_ms <= INTERVALS * record.interval_s * 1000 or now_ms - heard_ms <= WAIT_MS:
            return False
        self._overdue.add(name)
        return True
