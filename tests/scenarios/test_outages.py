"""Brokers and replicas that go away for a while, or for good, in the middle of a day: no reading is lost or doubled."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from deploy.gateway import replica_status
from deploy.supervisor import Supervisor
from tests import needs
from tests.scenarios.day import Day, make_day, play

HOUR_MS, SEAL_MS = 3_600_000, 300_000


def check(report: dict[str, Any]) -> None:
    assert report["settled"] and report["good"], {name: report[name] for name in ("truth", "replicas", "proofs")}
    assert report["truth"]["equal"] and report["readings"]["refused"] == {}


async def newest_ms(day: Day) -> int:
    """Time of the newest reading in the ledger of the first replica."""
    facts = await asyncio.to_thread(replica_status, day.homes()[0])
    return max((point["time_ms"] for point in facts["points"]), default=0)


@pytest.mark.slow
def test_no_broker_for_an_hour(tmp_path: Path) -> None:
    """What was read meanwhile comes afterwards, with its own time and once: the join with the truth says so."""
    needs.program("mosquitto")
    seen: dict[str, int] = {}

    async def trouble(day: Day) -> None:
        await day.wait_label(day.label(0.25))
        await day.supervisor.end("broker-0")
        start_ms = day.keeper.slowest_ms()
        await day.wait_label(start_ms + HOUR_MS)
        seen["lag_ms"] = day.keeper.slowest_ms() - await newest_ms(day)
        await day.supervisor.start_again("broker-0")

    report = asyncio.run(play(make_day(tmp_path / "day", "--hours", "3", "--meters", "6"), trouble))
    assert seen["lag_ms"] > HOUR_MS - SEAL_MS, "the ledger stood while there was no broker"
    check(report)
    assert report["truth"]["rows"] == 6 * 181
    for row in report["processes"]:
        assert row["starts"] == (2 if row["name"] == "broker-0" else 1), f"{row['name']} did not live through it"


@pytest.mark.slow
@pytest.mark.parametrize("comes_back", [True, False])
def test_a_replica_and_its_broker(tmp_path: Path, comes_back: bool) -> None:
    """Two brokers: agents start at the first, and with it goes a replica that has it as its own. f = 1 of 4."""
    needs.program("mosquitto")

    async def trouble(day: Day) -> None:
        await day.wait_label(day.label(0.2))
        before = {bus.name: broker_of(day.supervisor, bus.name) for bus in day.buses}
        assert len(set(before.values())) == 1, before
        await asyncio.gather(day.supervisor.end("broker-0"), day.supervisor.end("replica-2"))
        await day.wait_label(day.label(0.8))
        after = {bus.name: broker_of(day.supervisor, bus.name) for bus in day.buses}
        assert len(set(after.values())) == 1 and set(after.values()) != set(before.values()), (before, after)
        assert day.keeper.slowest_ms() - await newest_ms(day) < HOUR_MS, "the ledger went on without them"
        if comes_back:
            await asyncio.gather(day.supervisor.start_again("broker-0"), day.supervisor.start_again("replica-2"))
        else:
            day.lost.add("replica-2")

    words = ("--hours", "3", "--meters", "6", "--brokers", "2")
    report = asyncio.run(play(make_day(tmp_path / "day", *words), trouble))
    check(report)
    assert report["replicas"]["count"] == (4 if comes_back else 3)


def broker_of(supervisor: Supervisor, name: str) -> str:
    """The broker that an agent's log names last as connected."""
    lines = supervisor.log_path(name).read_text().splitlines()
    return next(line for line in reversed(lines) if line.endswith(": connected")).rsplit("broker ", 1)[1]
