"""Makes real time into the clock of a Linux machine's agent or gateway: labels and waits at speed 1."""

import time
from pathlib import Path

UNKNOWN, INFORMATIVE, SYNCHRONISED, RELATIVE = 0, 1, 2, 3


class SystemClock:
    """Real time, at speed 1."""

    speed = 1

    def __init__(self) -> None:
        self._last_ms = 0

    def now_ms(self) -> int:
        self._last_ms = max(self._last_ms, time.time_ns() // 1_000_000)
        return self._last_ms

    def monotonic_ms(self) -> int:
        return time.monotonic_ns() // 1_000_000

    def quality(self) -> int:
        """S when the kernel says that a time service holds the clock, else I."""
        return SYNCHRONISED if _is_kernel_synchronised() else INFORMATIVE

    def progress(self, label_ms: int) -> None:
        """Real time waits for nobody."""


def _is_kernel_synchronised() -> bool:
    try:
        return Path("/run/systemd/timesync/synchronized").exists() or Path("/run/chrony/chronyd.pid").exists()
    except OSError:
        return False
