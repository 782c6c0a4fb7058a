"""Makes the one Clock that is passed in everywhere: the system's, or a demo's shared one that runs labels at speed.

Labels (reading time, block time, slots) may run `speed` times faster than waits (timeouts, back-off, bus timing), which
are always real. The shared clock is a folder. Its keeper writes (label, monotonic, limit) into one mapped page; every
process extrapolates from that pair, never past the limit and never back. Participants write what is due next for them
into a page of their own, and the keeper sets the limit by the slowest of them: a machine that cannot hold the speed
slows the clock and drops nothing.
"""

from __future__ import annotations

import asyncio
import mmap
import struct
import time
from pathlib import Path
from typing import Protocol

from firmware.board.linux_clock import SYNCHRONISED, SystemClock

# Labels the clock may run on while somebody does what is due: less than half a minute, so that it has not become the
# next minute (when simulated meters change) before a poll that was due on the half minute is over.
LEAD_MS = 25_000

_PAGE = struct.Struct("<QqqqqQ")  # sequence, label_ms, monotonic_us, limit_ms, speed, sequence again
_DONE = struct.Struct("<qq")  # label_ms reached, written twice: two equal halves are one whole write


class Clock(Protocol):
    """Label time in Unix ms, wait time in ms from any start, and how many labels pass in one of the latter."""

    speed: int

    def now_ms(self) -> int: ...

    def monotonic_ms(self) -> int: ...

    def quality(self) -> int: ...

    def progress(self, label_ms: int) -> None: ...


class SharedClock:
    """A participant's view of the clock kept in `folder`; `name` is its page there (None: it only looks)."""

    def __init__(self, folder: Path | str, name: str | None = None) -> None:
        self._page = _map(Path(folder) / "now", _PAGE.size)
        self._done = _map(_done_path(folder, name), _DONE.size) if name else None
        self._last_ms = 0
        self.speed = int(_read_page(self._page)[3])

    def now_ms(self) -> int:
        label_ms, monotonic_us, limit_ms, speed = _read_page(self._page)
        passed_us = max(0, time.monotonic_ns() // 1000 - monotonic_us)
        self._last_ms = max(self._last_ms, min(limit_ms, label_ms + passed_us * speed // 1000))
        return self._last_ms

    def monotonic_ms(self) -> int:
        return time.monotonic_ns() // 1_000_000

    def quality(self) -> int:
        return SYNCHRONISED

    def progress(self, label_ms: int) -> None:
        if self._done is not None:
            self._done[:] = _DONE.pack(label_ms, label_ms)


class ClockKeeper:
    """The one writer of a shared clock: makes the folder's page and moves it on (`step`, every few milliseconds)."""

    def __init__(self, folder: Path | str, start_ms: int, speed: int, participants: list[str]) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.speed = speed
        self.held_ms = 0  # real time during which the slowest participant held the clock
        self._label_us = start_ms * 1000
        self._sequence = 0
        self._now = _map(self.folder / "now", _PAGE.size)
        self._pages = []
        for name in participants:
            page = _map(_done_path(folder, name), _DONE.size)
            page[:] = _DONE.pack(start_ms - LEAD_MS, start_ms - LEAD_MS)  # what is due at the start is not done yet
            self._pages.append(page)
        self._monotonic_us = time.monotonic_ns() // 1000
        self._stop_ms = start_ms  # stands still until somebody calls run_until
        self._write(start_ms)

    def run_until(self, stop_ms: int) -> None:
        """Lets labels run up to `stop_ms`, where they stand."""
        self._stop_ms = stop_ms

    def slowest_ms(self) -> int:
        """Returns the label before which nobody has anything left to do (the stop without participants)."""
        reached = [_read_done(page) for page in self._pages]
        return min(reached) if reached else self._stop_ms

    def step(self) -> int:
        """Moves the clock to now, as far as the slowest participant lets it; returns the label in ms."""
        monotonic_us = time.monotonic_ns() // 1000
        passed_us = monotonic_us - self._monotonic_us
        # never below the label: who opens the clock for the first time has seen no label yet, and must see this one
        limit_ms = max(self._label_us // 1000, min(self._stop_ms, self.slowest_ms() + LEAD_MS))
        wished_us = self._label_us + passed_us * self.speed
        if wished_us > limit_ms * 1000 and limit_ms < self._stop_ms:
            self.held_ms += passed_us // 1000
        self._label_us = max(self._label_us, min(wished_us, limit_ms * 1000))
        self._monotonic_us = monotonic_us
        self._write(limit_ms)
        return self._label_us // 1000

    async def run(self, stop: asyncio.Event, step_s: float = 0.005) -> None:
        """Steps until `stop` is set."""
        while not stop.is_set():
            self.step()
            await asyncio.sleep(step_s)

    def _write(self, limit_ms: int) -> None:
        self._sequence += 1
        self._now[:] = _PAGE.pack(self._sequence, self._label_us // 1000, self._monotonic_us, limit_ms, self.speed,
                                  self._sequence)


def open_clock(folder: str | None, name: str | None = None) -> Clock:
    """Returns the shared clock of `folder` (a `--clock` argument), or the system's without one."""
    return SharedClock(folder, name) if folder else SystemClock()


def _done_path(folder: Path | str, name: str | None) -> Path:
    return Path(folder) / f"done-{name}"


def _map(path: Path, size: int) -> mmap.mmap:
    with open(path, "a+b") as file:
        if file.seek(0, 2) < size:
            file.truncate(size)
        return mmap.mmap(file.fileno(), size)


def _read_page(page: mmap.mmap) -> tuple[int, int, int, int]:
    while True:
        first, label_ms, monotonic_us, limit_ms, speed, second = _PAGE.unpack(page[:])
        if first == second and first:
            return label_ms, monotonic_us, limit_ms, speed
        time.sleep(0.0001)  # caught the keeper in the middle of a write


def _read_done(page: mmap.mmap) -> int:
    while True:
        first, second = _DONE.unpack(page[:])
        if first == second:
            return int(first)
