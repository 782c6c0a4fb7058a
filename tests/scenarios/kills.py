"""Kills processes of an area at random moments of a day under load: `python -m tests.scenarios.kills SEED`.

Victims are agents, brokers, replicas and the primary; who they are and where they live is asked of
`gridseal gateway status --json` before each kill -9, as a person would. The supervisor starts again what died. At the
end every victim is back, nobody else has died, the replicas are equal and the ledger is what the meters showed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from deploy.demo import report as reports
from tests.scenarios.day import Day, is_whole, make_day, play

KINDS = ("agent", "broker", "replica", "primary")
FIRST, LAST = 0.02, 0.95  # of the day: kills lie between these
TRIES = 200
BACK_S = 0.1  # between two looks for a living victim


class Kill(NamedTuple):
    """A plan: what kind of process dies when (label time)."""

    label_ms: int
    kind: str


def make_plan(day: Day, chance: random.Random, count: int) -> list[Kill]:
    """Random moments; every kind as often as every other."""
    kinds = [KINDS[index % len(KINDS)] for index in range(count)]
    chance.shuffle(kinds)
    moments = sorted(chance.uniform(FIRST, LAST) for _ in range(count))
    return [Kill(day.label(moment), kind) for moment, kind in zip(moments, kinds, strict=True)]


def choose(status: dict[str, Any], kind: str, chance: random.Random) -> tuple[str, int] | None:
    """Name and process id of a living process of the kind; None while there is none."""
    rows = [row for row in status["processes"] if row["pid"] is not None]
    if kind == "primary":
        speaking = [one for one in status["replicas"] if "silent" not in one and one["active"]]
        if not speaking:
            return None
        primary = max(speaking, key=lambda one: one["view"])["primary"]
        rows = [row for row in rows if row["name"] == f"replica-{primary}"]
    else:
        rows = [row for row in rows if row["kind"] == kind]
    if not rows:
        return None
    victim = chance.choice(rows)
    return victim["name"], victim["pid"]


async def kill_all(day: Day, plan: list[Kill], chance: random.Random, killed: list[str], tell: Any) -> None:
    """Carries out the plan; the names of those killed go into `killed`."""
    for kill in plan:
        await day.wait_label(kill.label_ms)
        for _ in range(TRIES):
            found = choose(await day.status(), kill.kind, chance)
            if found is not None:
                break
            await asyncio.sleep(BACK_S)
        else:
            raise TimeoutError(f"no {kill.kind} lives any more")
        name, pid = found
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue  # it was being started again when we looked
        killed.append(name)
        minutes = (kill.label_ms - day.start_ms) // 60_000
        tell(f"{minutes // 60:02d}:{minutes % 60:02d} kill -9 {pid}: {name} ({kill.kind})")


def problems_of(report: dict[str, Any], killed: list[str]) -> list[str]:
    """What is wrong with the outcome; nothing when all rejoined and the ledger is the truth."""
    found = []
    if not report["settled"]:
        found.append("the replicas did not settle")
    if not report["good"]:
        found.append(f"truth {report['truth']}, replicas {report['replicas']}, proofs {report['proofs']}")
    for row in report["processes"]:
        if row["pid"] is None and row["exit_code"] != 0:
            found.append(f"{row['name']} is down ({row['exit_code']})")
        if row["starts"] != 1 + killed.count(row["name"]):
            found.append(f"{row['name']} was started {row['starts']} times and killed {killed.count(row['name'])}")
    for one in report["status"]:
        if "silent" in one or one["halted"] or one["alarms"]:
            found.append(f"{one['folder']}: {[one.get(name) for name in ('silent', 'halted', 'alarms')]}")
        elif one["refused"]:
            found.append(f"{one['folder']} has refused what honest agents sent: {one['refused']}")
    if not is_whole({"processes": report["processes"], "replicas": report["status"]}, report["replicas"]["count"]):
        found.append(f"not whole: {report['status']}")
    return found


def run(seed: int, folder: Path, kills: int, words: list[str], tell: Any) -> tuple[dict[str, Any], list[str]]:
    """Plays a day with kills; returns the report and what is wrong."""
    chance = random.Random(seed)
    day = make_day(folder, "--seed", str(seed), *words)
    killed: list[str] = []
    plan = make_plan(day, chance, kills)
    report = asyncio.run(play(day, lambda playing: kill_all(playing, plan, chance, killed, tell)))
    problems = problems_of(report, killed)
    if len(killed) < kills:
        tell(f"{kills - len(killed)} victims were dead already when the signal came")
    return {**report, "killed": killed}, problems


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.scenarios.kills", description=__doc__)
    parser.add_argument("seed", type=int)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--hours", type=int, default=6)
    parser.add_argument("--meters", type=int, default=12)
    parser.add_argument("--replicas", type=int, default=4)
    parser.add_argument("--brokers", type=int, default=1)
    parser.add_argument("--mechanism", choices=("none", "knn", "blind"), default="none",
                        help="with a market: the trader is a victim too (default none)")
    parser.add_argument("--folder", type=Path, help="default: a temporary one; it is kept when something is wrong")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    words = [word for name in ("hours", "meters", "replicas", "brokers")
             for word in (f"--{name}", str(getattr(args, name)))]
    words += ["--mechanism", args.mechanism, "--no-tamper"]  # a check that its replica's death delays is late rightly
    folder = args.folder or Path(tempfile.mkdtemp(prefix="gridseal-kills-"))
    report, problems = run(args.seed, folder, args.kills, words, lambda text: print(text, file=sys.stderr, flush=True))
    print(json.dumps(report) if args.json else reports.table(report))
    for problem in problems:
        print(f"seed {args.seed}: {problem}; data in {folder}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
