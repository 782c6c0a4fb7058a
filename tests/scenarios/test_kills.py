"""kill -9 at random moments under load; the long form is `python -m tests.scenarios.kills SEED` with 20 of them."""

from __future__ import annotations

import copy
import random
from pathlib import Path

import pytest

from tests import needs
from tests.scenarios import kills


@pytest.mark.slow
def test_kills(tmp_path: Path) -> None:
    """Ten kills in three hours. The plan comes from the seed, the moments from the machine: a seed is a hint only."""
    needs.program("mosquitto")
    seed = random.SystemRandom().randrange(10_000)
    print(f"repeat with: python -m tests.scenarios.kills {seed} --kills 10 --hours 3")
    report, problems = kills.run(seed, tmp_path / "day", 10, ["--hours", "3"], print)
    assert not problems, f"seed {seed}: {problems}"
    assert len(report["killed"]) >= 8, "hardly anybody was hit"
    assert {name.rstrip("0123456789") for name in report["killed"]} == {"agent-", "broker-", "replica-"}
    check_judge(report)


def check_judge(report: dict[str, object]) -> None:
    """The judge of this outcome would have found what it looks for."""
    killed = list(report["killed"])  # type: ignore[call-overload]
    assert any("was started" in problem for problem in kills.problems_of(report, killed[1:])), "a death of its own"
    worse = copy.deepcopy(report)
    worse["processes"][0]["pid"] = None  # type: ignore[index]
    assert any("is down" in problem for problem in kills.problems_of(worse, killed))
    worse = copy.deepcopy(report)
    worse["status"][0]["replicas"][1]["state"] = "not connected"  # type: ignore[index]
    assert any("not whole" in problem for problem in kills.problems_of(worse, killed))
    worse = copy.deepcopy(report)
    worse["status"][0]["active"] = worse["status"][1]["active"] = False  # type: ignore[index]
    assert any("not whole" in problem for problem in kills.problems_of(worse, killed))
    assert kills.problems_of({**report, "settled": False, "good": False}, killed)


def test_plan_has_every_kind() -> None:
    day = kills.make_day(Path("/nowhere"), "--hours", "6")
    plan = kills.make_plan(day, random.Random(7), 20)
    assert sorted(kill.kind for kill in plan) == sorted(kills.KINDS * 5)
    assert plan == sorted(plan, key=lambda kill: kill.label_ms) and plan[-1].label_ms < day.end_ms


def test_primary_is_who_the_newest_view_says() -> None:
    rows = [{"name": f"replica-{index}", "kind": "replica", "pid": 100 + index} for index in range(4)]
    replicas = [{"view": 3, "primary": 3, "active": True}, {"view": 4, "primary": 0, "active": True},
                {"view": 5, "primary": 1, "active": False}, {"silent": "refused"}]
    status = {"processes": rows, "replicas": replicas}
    assert kills.choose(status, "primary", random.Random(1)) == ("replica-0", 100)
    rows[0]["pid"] = None
    assert kills.choose(status, "primary", random.Random(1)) is None
