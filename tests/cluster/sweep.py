"""Makes many runs on all cores and one table: events a second, what was seen, what was broken."""

import multiprocessing
import time
from collections import Counter
from typing import NamedTuple

from tests.cluster.machine import SEAMS
from tests.cluster.world import Outcome, World

# A sweep in which one of these never happened has proven less than it seems: it fails.
DEMANDED = (
    "crashes", "torn writes", "view changes", "NEW-VIEWs that choose", "NULLs", "catch-ups", "checkpoints",
    "compactions", "repeats", "equivocations", "false VIEW-CHANGEs", "conflicting NEW-VIEWs", "twins parted",
    "poisoned blocks", "deadline blocks", "epochs", "spares seated", "transfers", "poisoned buckets", "liars banned",
    "crashes while recovering", *(f"crash at {seam}" for seam in SEAMS),
)
# And so often in 1,000 runs of 1,000 events (issue 5); in fewer or shorter ones in proportion.
DEMANDED_OFTEN = {"view changes": 2000, "equivocations": 300, "NULLs": 50, "transfers": 100, "torn writes": 300}
DEMANDED_FROM_RUNS = 1000  # fewer need not have seen everything
USUAL_EVENTS = 1000


class Sweep(NamedTuple):
    """The sum of many runs."""

    runs: int
    events: int
    seconds: float
    seen: Counter[str]
    broken: list[Outcome]
    wished: int  # events of one run before the healing
    size: int

    @property
    def lacking(self) -> list[str]:
        """What a sweep should have seen and has not; asked of long ones over four replicas, where one may lie."""
        if self.runs < DEMANDED_FROM_RUNS or self.size != 4:
            return []
        share = self.runs * min(self.wished, USUAL_EVENTS) / (1000 * USUAL_EVENTS)
        return [name for name in DEMANDED if not self.seen[name]] + [
            f"{name} {self.seen[name]} times, less than {count * share:.0f}"
            for name, count in DEMANDED_OFTEN.items() if self.seen[name] < count * share]


def run_one(seed: int, size: int = 4, events: int = 300, is_real: bool = False) -> Outcome:
    return World(seed, size, is_real).run(events)


def _run(job: tuple[int, int, int, bool]) -> Outcome:
    return run_one(*job)


def sweep(start: int, count: int, size: int = 4, events: int = 300, is_real: bool = False, processes: int = 0,
          stop_at: int = 0) -> Sweep:
    """Runs seeds from `start`. processes 0: one a core; stop_at: end after so many broken runs (0: never)."""
    began = time.monotonic()
    jobs = [(seed, size, events, is_real) for seed in range(start, start + count)]
    seen: Counter[str] = Counter()
    broken: list[Outcome] = []
    runs = total = 0
    processes = processes or multiprocessing.cpu_count()
    pool = multiprocessing.get_context("fork").Pool(processes) if processes > 1 else None
    try:
        outcomes = map(_run, jobs) if pool is None else pool.imap(_run, jobs, chunksize=4)
        for outcome in outcomes:
            runs += 1
            total += outcome.events
            seen.update(outcome.seen)
            if outcome.violation:
                broken.append(outcome)
                if stop_at and len(broken) >= stop_at:
                    break
    finally:
        if pool is not None:
            pool.terminate()
            pool.join()
    return Sweep(runs, total, time.monotonic() - began, seen, broken, events, size)


def show(result: Sweep) -> str:
    """The table of a sweep."""
    rate = result.events / result.seconds if result.seconds else 0
    lines = [f"{result.runs} runs, {result.events} events in {result.seconds:.1f} s, {rate:.0f} events/s"]
    lines += [f"  {name:32} {count}" for name, count in sorted(result.seen.items())]
    lines += [f"not seen (enough): {name}" for name in result.lacking]
    lines.append(f"{len(result.broken)} broken" + "".join(f" {outcome.seed}" for outcome in result.broken))
    return "\n".join(lines)
