"""A speed that the machine cannot hold: the clock slows down and says so, and nothing is lost."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from deploy.clock import LEAD_MS, SharedClock
from deploy.demo import report as reports
from tests import needs
from tests.scenarios.day import Day, make_day, play

PAUSE_S = 2.0


@pytest.mark.slow
def test_the_clock_waits_for_the_slowest(tmp_path: Path) -> None:
    """An hour a second, and an agent that stands still for two seconds: two hours that must not pass without it."""
    needs.program("mosquitto")
    labels: list[int] = []

    async def trouble(day: Day) -> None:
        clock = SharedClock(day.clock_folder)
        await day.wait_label(day.label(0.5))
        pid = next(row["pid"] for row in (await day.status())["processes"] if row["name"] == "agent-2")
        os.kill(pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(PAUSE_S / 2)
            labels.append(clock.now_ms())
            await asyncio.sleep(PAUSE_S / 2)
            labels.append(clock.now_ms())
        finally:
            os.kill(pid, signal.SIGCONT)

    day = make_day(tmp_path / "day", "--hours", "6", "--speed", "3600", "--meters", "6", "--replicas", "1")
    report = asyncio.run(play(day, trouble))
    assert labels[0] == labels[1] < day.end_ms, "it stands, and not further on than the lead"
    assert report["settled"] and report["good"] and report["truth"]["rows"] == 6 * 361, report["truth"]
    assert report["held_ms"] >= (PAUSE_S - 0.5) * 1000
    assert "too fast for this machine" in reports.table(report)
    assert LEAD_MS < 60_000 / 2, "a poll that is due on the half minute ends before the meters change"


def test_only_a_slow_clock_is_worth_a_word() -> None:
    quick = {"hours": 24, "speed": 600, "held_ms": 1000}
    assert reports.held_text(quick) == ""
    assert reports.held_text({**quick, "held_ms": 144_000}).endswith("it held 300")
