"""Makes trouble for a running cluster and tells whether it kept its word: `python -m tests.chaos [--minutes 30]`.

Never more than f replicas are in trouble at one time: killed, stopped, cut off, without disk, with a wrong clock, lying
with their own key. Meanwhile meters publish. At the end: no two headers of one height, everything that was acknowledged
in the ledger of every replica, no pause above 15 s. Then more than f are killed: the cluster must stall, lose nothing,
and go on within 30 s of their return. With --primary K it is the primary that is killed, K times, and the time to the
next block is told; with --slow the primary holds back its proposals nearly as long as it may. Root and iproute2 are
needed (network namespaces, small disks). Exit 0 good, 1 bad, 2 cannot run.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tests.chaos import wires
from tests.chaos.area import ChaosArea
from tests.chaos.faults import FAULTS
from tests.chaos.watch import Load, Watch
from tests.node.cluster import until

PAUSE_LIMIT_S, RESUME_LIMIT_S, STALL_S, PRIMARY_LIMIT_S = 15, 30, 10, 5
HOLD_S = (1, 25)  # how long a fault lasts
QUIET_S = (0.5, 4)
SETTLE_S = 120
RATE_S = 25
LEVEL = 3  # blocks behind the newest: level enough while they are being made


class Play:
    """One run: an area, what watches it, and the chance that decides."""

    def __init__(self, args: argparse.Namespace, area: ChaosArea) -> None:
        self.area, self.args, self.chance = area, args, random.Random(args.seed)
        self.limit = (args.n - 1) // 3
        self.load = Load(area, args.meters, 3, args.every)
        self.watch = Watch(area)
        self.done: Counter[str] = Counter()
        self.failovers: list[float] = []

    def tell(self, text: str) -> None:
        if not self.args.json:
            print(f"{time.strftime('%H:%M:%S')} height {self.watch.height:5}  {text}", flush=True)

    def trouble(self, seconds: float) -> None:
        """Faults for so long, each followed by everybody's return."""
        end = time.monotonic() + seconds
        self.watch.begin()
        while time.monotonic() < end:
            victims = self.chance.sample(range(self.args.n), self.chance.randint(1, self.limit))
            plan = [(victim, self.chance.choice(self.args.faults)) for victim in victims]
            for victim, name in plan:
                said = FAULTS[name].begin(self.area, victim, self.chance)
                self.done[name] += 1
                self.tell(f"{name} {victim} {said}")
            self._sleep(self.chance.uniform(*HOLD_S))
            for victim, name in plan:
                FAULTS[name].end(self.area, victim)
            self.settle()
            self._sleep(self.chance.uniform(*QUIET_S))
        self.watch.end()

    def settle(self) -> None:
        """All are back and level: until then another victim would be one too many."""
        def are_level() -> bool:
            for index in range(self.args.n):
                if self.area.processes[index].poll() is not None:  # as a supervisor would
                    self.tell(f"replica {index} had ended: {self.area.log(index).strip().splitlines()[-1][-120:]}")
                    self.area.start_replica(index)
            found = self.area.stands()
            return len(found) == self.args.n and min(
                stand.certified for stand in found.values()) >= self.watch.height - LEVEL
        until("all replicas level", are_level, SETTLE_S)

    def kill_primaries(self, count: int) -> None:
        """The primary dies again and again; from its death to the next certified block."""
        for number in range(count):
            self.settle()
            status = self.area.status(self.chance.randrange(self.args.n))
            primary = status["view"] % self.args.n
            self.area.kill(primary)
            killed_at = time.monotonic()
            # What it had proposed may still become a block, without it: one for all that the others show, one in flight
            before = max(stand.height for stand in self.area.stands().values()) + 1
            until("a block after the primary's death", lambda: self.watch.height > before, SETTLE_S)  # noqa: B023
            self.failovers.append(time.monotonic() - killed_at)
            self.tell(f"primary {primary} killed ({number + 1}): next block after {self.failovers[-1]:.2f} s")
            self.area.start_replica(primary)

    def slow_primary(self) -> dict[str, Any]:
        """The next primary holds back every proposal for nine tenths of the timeout: it is replaced, or costs less than
        half of the throughput."""
        self.settle()
        view = self.area.status(0)["view"]
        slow = (view + 1) % self.args.n
        self.area.kill(slow)
        self.area.start_replica(slow, lies="slow")
        self.settle()
        normal = self._rate()
        primary = view % self.args.n
        self.area.kill(primary)
        witness = (slow + 1) % self.args.n
        until("the slow one leads", lambda: self.area.status(witness)["view"] > view, SETTLE_S)
        self.area.start_replica(primary)
        self.settle()
        began_in = self.area.status(witness)["view"]
        rate = self._rate()
        ended_in = self.area.status(witness)["view"]
        self.tell(f"seals a second: {normal:.1f}, under a slow primary {rate:.1f}; view {began_in}, then {ended_in}")
        return {"slow": {"seals_a_second": round(normal, 2), "under_it": round(rate, 2), "views": [began_in, ended_in],
                         "was_primary": began_in % self.args.n == slow}}

    def _rate(self) -> float:
        """Seals a second that become blocks."""
        def seals() -> int:
            return max(int(self.area.status(index)["seals"]) for index in self.area.running())
        before, began = seals(), time.monotonic()
        time.sleep(RATE_S)
        return (seals() - before) / (time.monotonic() - began)

    def stall(self) -> dict[str, Any]:
        """More than f die: no block; then they are back."""
        victims = self.chance.sample(range(self.args.n), self.limit + 1)
        for victim in victims:
            self.area.kill(victim)
        time.sleep(2)  # what was decided already may still be certified
        before = self.watch.height
        self._sleep(STALL_S)
        stalled = self.watch.height == before
        self.tell(f"without {victims}: height {before}, {STALL_S} s later {self.watch.height}")
        for victim in victims:
            self.area.start_replica(victim)
        started = time.monotonic()
        until("the next block", lambda: self.watch.height > before, SETTLE_S)
        resumed_s = time.monotonic() - started
        self.tell(f"back: next block after {resumed_s:.1f} s")
        return {"stalled": stalled, "resumed_s": round(resumed_s, 1)}

    def finish(self) -> dict[str, Any]:
        """No more load; when all is in, everything is counted."""
        self.load.stop()
        self.settle()
        def is_in() -> bool:
            self.load.take_acks()
            return not self.load.lost()
        try:
            until("everything published is in every ledger", is_in, SETTLE_S)
        except AssertionError as error:
            self.tell(str(error))
        lost = self.load.lost()
        self.watch.stop()
        self.area.stop()
        self.area.check_ledgers()
        return {"faults": dict(self.done), "height": self.watch.height, "published": self.load.published,
                "acked": sum(self.load.acked.values()), "lost": lost, "forks": self.watch.forks,
                "longest_pause_s": round(self.watch.paused_s, 1)}

    def _sleep(self, seconds: float) -> None:
        time.sleep(seconds)


def play(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """One whole run; the report."""
    net = wires.Wires(args.n)
    area = ChaosArea(folder, args.n, net)
    try:
        area.start()
        one = Play(args, area)
        stalled: dict[str, Any] = {}
        if args.primary:
            one.kill_primaries(args.primary)
        elif args.slow:
            stalled = one.slow_primary()
        else:
            one.trouble(args.minutes * 60)
            if args.n > 1 and not args.no_stall:
                stalled = one.stall()
        report = {"seed": args.seed, "n": args.n, "minutes": args.minutes, **one.finish(), **stalled}
        if one.failovers:
            ranked = sorted(one.failovers)
            report["failover_s"] = {"p50": round(ranked[len(ranked) // 2], 2), "max": round(ranked[-1], 2),
                                    "p99": round(ranked[min(len(ranked) - 1, len(ranked) * 99 // 100)], 2)}
        return report
    finally:
        area.stop()
        area.unmount()
        net.close()


def problems_of(report: dict[str, Any]) -> list[str]:
    found = [*report["forks"], *report["lost"]]
    if report["longest_pause_s"] > PAUSE_LIMIT_S:
        found.append(f"no block for {report['longest_pause_s']} s")
    if not report.get("stalled", True):
        found.append("blocks without a quorum")
    if report.get("resumed_s", 0) > RESUME_LIMIT_S:
        found.append(f"it took {report['resumed_s']} s to go on")
    slow = report.get("slow")
    if slow and slow["views"][0] == slow["views"][1] and slow["under_it"] < slow["seals_a_second"] / 2:
        found.append("a slow primary halves the throughput and stays")
    if report.get("failover_s", {"p99": 0})["p99"] > PRIMARY_LIMIT_S:
        found.append(f"p99 of the next block after a primary's death {report['failover_s']['p99']} s")
    return found


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tests.chaos", description=__doc__)
    parser.add_argument("--n", type=int, default=4)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--faults", type=lambda text: text.split(","), default=list(FAULTS))
    parser.add_argument("--primary", type=int, default=0, metavar="K", help="kill the primary K times instead")
    parser.add_argument("--slow", action="store_true", help="a primary that is nearly too slow instead")
    parser.add_argument("--no-stall", action="store_true", help="leave out the end, where more than f die")
    parser.add_argument("--meters", type=int, default=2)
    parser.add_argument("--every", type=float, default=0.5, help="seconds between two seals of a point")
    parser.add_argument("--json", action="store_true")
    return parser


def main() -> int:
    parser = make_parser()
    args = parser.parse_args()
    if not set(args.faults) <= set(FAULTS):
        parser.error(f"faults are {', '.join(FAULTS)}")
    if not wires.may():
        print("this needs root and iproute2: network namespaces, small disks", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="gridseal-chaos-") as folder:
        report = play(args, Path(folder))
    problems = problems_of(report)
    report["good"] = not problems
    print(json.dumps(report) if args.json else "\n".join(
        f"{key:16} {value}" for key, value in report.items()))
    for problem in problems:
        print("PROBLEM:", problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
