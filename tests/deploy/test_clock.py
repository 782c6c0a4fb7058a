"""The shared clock: runs at speed, never back, never past its limit, and waits for the slowest participant."""

import threading
import time
from pathlib import Path

import pytest

from deploy.clock import LEAD_MS, ClockKeeper, SharedClock, SystemClock, open_clock

START_MS = 1_790_000_000_000


class Wire:
    """The keeper's monotonic clock, moved by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_ns = 10**12
        monkeypatch.setattr(time, "monotonic_ns", lambda: self.now_ns)

    def pass_ms(self, milliseconds: int) -> None:
        self.now_ns += milliseconds * 1_000_000


def test_stands_until_told_then_runs_at_speed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wire = Wire(monkeypatch)
    keeper = ClockKeeper(tmp_path, START_MS, 600, [])
    clock = SharedClock(tmp_path)
    wire.pass_ms(50)
    keeper.step()
    assert clock.now_ms() == START_MS and clock.speed == 600
    keeper.run_until(START_MS + 120_000)
    keeper.step()
    wire.pass_ms(100)
    assert clock.now_ms() == START_MS + 60_000, "extrapolated between two steps"
    wire.pass_ms(500)
    keeper.step()
    assert clock.now_ms() == START_MS + 120_000, "not past the stop"


def test_waits_for_the_slowest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wire = Wire(monkeypatch)
    keeper = ClockKeeper(tmp_path, START_MS, 600, ["quick", "slow"])
    quick, slow, looker = (SharedClock(tmp_path, name) for name in ("quick", "slow", None))
    keeper.run_until(START_MS + 3_600_000)
    quick.progress(START_MS + 3_600_000)
    wire.pass_ms(1000)
    keeper.step()
    assert looker.now_ms() == START_MS, "what is due at the start itself comes first"
    slow.progress(START_MS)
    keeper.step()
    wire.pass_ms(1000)
    keeper.step()
    assert looker.now_ms() == START_MS + LEAD_MS and keeper.held_ms >= 900
    slow.progress(START_MS + LEAD_MS)
    keeper.step()
    wire.pass_ms(50)
    assert START_MS + LEAD_MS < looker.now_ms() <= START_MS + 2 * LEAD_MS
    again = SharedClock(tmp_path, "slow")  # killed and started again: it is where it was
    keeper.step()
    assert again.now_ms() == looker.now_ms() and keeper.slowest_ms() == START_MS + LEAD_MS


def test_who_comes_when_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sees the label at which it stands, even when it was told to stop in the past."""
    wire = Wire(monkeypatch)
    keeper = ClockKeeper(tmp_path, START_MS, 600, [])
    keeper.run_until(START_MS + 3_600_000)
    keeper.step()
    wire.pass_ms(1000)
    keeper.step()
    keeper.run_until(0)
    wire.pass_ms(1000)
    assert keeper.step() == START_MS + 600_000
    assert SharedClock(tmp_path).now_ms() == START_MS + 600_000


def test_never_goes_back_under_a_busy_keeper(tmp_path: Path) -> None:
    keeper = ClockKeeper(tmp_path, START_MS, 600, [])
    keeper.run_until(START_MS + 10**9)
    done = threading.Event()

    def turn() -> None:
        while not done.is_set():
            keeper.step()

    thread = threading.Thread(target=turn)
    thread.start()
    try:
        clock, last_ms = SharedClock(tmp_path), 0
        for _ in range(20_000):
            now_ms = clock.now_ms()
            assert now_ms >= last_ms
            last_ms = now_ms
    finally:
        done.set()
        thread.join()


def test_system_clock() -> None:
    clock = open_clock(None)
    assert isinstance(clock, SystemClock) and clock.speed == 1
    assert abs(clock.now_ms() - time.time() * 1000) < 1000 and clock.quality() in (1, 2)
    clock.progress(0)
