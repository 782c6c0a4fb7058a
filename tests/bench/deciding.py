"""Makes row 7: how long four replica processes take to decide, votes durable before they are sent, beside the disk."""

import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cbor2

from tests.bench.area import Area, make_area, replica_home
from tests.bench.material import AGENTS, make_transactions
from tests.bench.measure import (
    Floor,
    Outcome,
    Spent,
    cores,
    folder,
    one_core,
    quantile,
    ratio_row,
    reference,
    sync_times_ms,
)
from tests.bench.opaque import GROUP
from tests.ingest.parts import Agent

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
REPLICAS = 4
RATE, SECONDS = 100, 3.0  # groups of 100 a second
FLOOR_SYNCS, FLOOR_MS, FLOOR_P99_MS = 4, 4, 15  # p50 and p99: so many of the disk's own, and so many ms more
AIM_SYNCS, AIM_MS, AIM_P99_MS = 3, 2, 6
COMMITTED = Floor(0.14, 0.20)  # of V, four replicas on one core
COMMIT_RATE, OPAQUE_RATE = 10, 60  # what one core holds of signed and of opaque groups
RATES = (10, 20, 30, 40, 60, 80, 100)
HELD_S = 0.3  # a load is held when its last group is decided so soon after the last is given


class Process:
    """A replica process that is talked to in lines."""

    def __init__(self, module: str, home: Path, *words: str):
        self._log = open(home / "bench.log", "ab")  # noqa: SIM115  closed in `stop`
        self._process = subprocess.Popen([sys.executable, "-P", "-m", module, str(home), *words], env=ENVIRONMENT,
                                         stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log)
        self._home = home

    @property
    def pid(self) -> int:
        return self._process.pid

    def say(self, line: str) -> None:
        """A line, to be answered in one."""
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a replica ended: {(self._home / 'bench.log').read_text()[-2000:]}")
        found: dict[str, Any] = json.loads(line)
        return found

    def ask(self, line: str) -> dict[str, Any]:
        """The answer to a line; RuntimeError with the last words of a process that is gone."""
        with contextlib.suppress(BrokenPipeError):
            self.say(line)
        return self.hear()

    def end(self) -> dict[str, Any]:
        """Ends it in order; its last line."""
        return self.ask("stop")

    def stop(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self.say("stop")
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()


@contextlib.contextmanager
def replicas(area: Area, module: str, *words: str) -> Iterator[list[Process]]:
    """All replicas of an area, connected to each other."""
    found = [Process(module, replica_home(area, index), *words) for index in range(REPLICAS)]
    try:
        for one in found:
            one.say("ready")
        for one in found:
            one.hear()
        yield found
    finally:
        for one in found:
            one.stop()


def decide(rounds: int) -> list[Outcome]:
    """Row 7 with opaque items: consensus, votes file and peers alone."""
    with folder() as where:
        area = make_area(where / "area", REPLICAS, [])
        with replicas(area, "tests.bench.opaque") as processes:
            load = OpaqueLoad(where, processes)
            load.run(RATES[0])  # to warm up
            free = [load.run(RATE) for _ in range(rounds)]
            with bound(processes):
                found = [load.run(RATE) for _ in range(rounds)]
            held = climb(load) if not all(one["is_held"] for one in found) else []
    what = f"opaque items, {RATE} groups of 100 a second: submitted to decided at the primary, replicas bound to cores"
    outcome = times_row("7", what, [one["syncs"] for one in found], found)
    placed = times_row("7", "", [one["syncs"] for one in free], free)
    outcome.lines.extend([f"       {_busy(found)}",
                          f"       where the system places them: p50 {placed.numbers['p50_ms']:.1f} ms, "
                          f"p99 {placed.numbers['p99_ms']:.1f} ms; {_busy(free)}"])
    outcome.numbers["free"] = placed.numbers
    outcome.lines.extend(_climbed(held))
    outcome.numbers["held"] = [_short(one) for one in held]
    return [outcome]


def decide_signed(rounds: int) -> list[Outcome]:
    """Row 7 with whole replicas and transactions that each of them verifies: the highest rate that they hold, and what
    becomes of RATE. Verifying alone would take REPLICAS * RATE * GROUP / V cores at RATE."""
    agents = [Agent(number + 1, (number + 1,)) for number in range(AGENTS)]
    with folder() as where:
        area = make_area(where / "area", REPLICAS, agents, created_s=int(time.time()) - 3600)
        with replicas(area, "tests.bench.replica") as processes:
            load = SignedLoad(where, processes, agents)
            load.run(RATES[0])  # to warm up
            held = climb(load)
            most_held = max((one["rate"] for one in held if one["is_held"]), default=0)
            best = most_held or RATES[0]
            found = [load.run(best) for _ in range(rounds)]
            speed = reference()
            most = load.run(RATE)
    what = (f"signed transactions, {best} groups of 100 a second ({'the most that is' if most_held else 'NOT'} held): "
            "from ingest's door to decided at the primary")
    outcome = times_row("7 signed", what, [one["syncs"] for one in found], found)
    inner = statistics.median(quantile(one["consensus_ms"], 0.5) for one in found)
    cost = statistics.median(len(one["took_ms"]) * GROUP / one["all_cpu_s"] for one in found) / speed
    outcome.lines.extend([
        f"       of it in consensus p50 {inner:.1f} ms; {_busy(found)}; all four replicas on one core would do "
        f"{cost:.2f} V (row 5: floor 0.14, aim 0.20)", *_climbed(held),
        f"       at {RATE} groups a second, where verifying alone takes {REPLICAS * RATE * GROUP / speed:.1f} cores: "
        f"{len(most['took_ms'])} of {most['groups']} decided in {most['wall_s']:.1f} s"])
    outcome.numbers.update(most_held=most_held, rate=best, consensus_p50_ms=inner, row_5_ratio=cost,
                           held=[_short(one) for one in held],
                           wanted=_short(most))
    return [outcome]


@contextlib.contextmanager
def bound(processes: list[Process]) -> Iterator[None]:
    """Each replica has a core for itself, or its share of one. In the field each has a machine; left to itself, the
    system wakes all whom a message reaches on the sender's core, one after the other, while the next core idles."""
    usable = cores()
    for index, one in enumerate(processes):
        _bind(one.pid, [usable[index % len(usable)]] if usable else [])
    try:
        yield
    finally:
        for one in processes:
            _bind(one.pid, usable)


def _bind(pid: int, usable: list[int]) -> None:
    if usable:
        for task in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(task.name), usable)


def commit(rounds: int) -> list[Outcome]:
    """Row 5: all four replicas on one core, by CPU time."""
    agents = [Agent(number + 1, (number + 1,)) for number in range(AGENTS)]
    with folder() as where, one_core():
        area = make_area(where / "area", REPLICAS, agents, created_s=int(time.time()) - 3600)
        with replicas(area, "tests.bench.replica") as processes:
            signed = _one_core_row("5", "individually signed transactions, verified and committed by each of four "
                                   "replicas", SignedLoad(where, processes, agents), rounds, COMMIT_RATE)
        area = make_area(where / "opaque", REPLICAS, [])
        with replicas(area, "tests.bench.opaque") as processes:
            opaque = _one_core_row("5 opaque", "opaque items in batches of 100, no ledger",
                                   OpaqueLoad(where, processes), rounds, OPAQUE_RATE)
    return [signed, opaque._replace(is_good=True)]


def _one_core_row(name: str, what: str, load: "OpaqueLoad | SignedLoad", rounds: int, rate: int) -> Outcome:
    load.run(RATES[0])  # to warm up
    lost = 0

    def work() -> Spent:
        nonlocal lost
        found = load.run(rate)
        lost += found["groups"] - len(found["took_ms"])
        return Spent(len(found["took_ms"]) * GROUP, found["all_cpu_s"], found["wall_s"])

    outcome = ratio_row(name, what, COMMITTED, rounds, work)
    return outcome._replace(is_good=outcome.is_good and not lost)


class OpaqueLoad:
    """Opaque items, made and submitted in the primary."""

    def __init__(self, where: Path, processes: list[Process]):
        self._where, self._processes = where, processes

    def run(self, rate: int) -> dict[str, Any]:
        """What the primary says of so many groups a second."""
        syncs = sync_times_ms(self._where)
        view = self._processes[0].ask("cpu")["view"]
        before = [one.ask("cpu")["cpu_s"] for one in self._processes]
        found = self._processes[view % REPLICAS].ask(f"load {rate} {SECONDS}")
        found["all_cpu_s"] = sum(one.ask("cpu")["cpu_s"] for one in self._processes) - sum(before) - found["making_s"]
        return _judged(found, rate, syncs)


class SignedLoad:
    """Signed transactions, given to every replica at the same moments, as a broker would."""

    def __init__(self, where: Path, processes: list[Process], agents: list[Agent]):
        self._where, self._processes, self._agents, self._sequence = where, processes, agents, 0

    def run(self, rate: int) -> dict[str, Any]:
        """What the primary says of so many groups a second."""
        transactions = make_transactions(self._agents, round(rate * SECONDS) * GROUP, self._sequence)
        self._sequence += len(transactions)
        file = self._where / "transactions"
        file.write_bytes(cbor2.dumps(transactions))
        syncs = sync_times_ms(self._where)
        for one in self._processes:
            one.say(f"load {file} {rate} {SECONDS} {time.perf_counter() + 1}")
        answers = [one.hear() for one in self._processes]
        found = answers[answers[0]["view"] % REPLICAS]
        found["all_cpu_s"] = sum(one["cpu_s"] for one in answers)
        return _judged(found, rate, syncs)


def climb(load: OpaqueLoad | SignedLoad) -> list[dict[str, Any]]:
    """One run at each of the rising rates, up to the first that is not held."""
    found: list[dict[str, Any]] = []
    for rate in RATES:
        found.append(load.run(rate))
        if not found[-1]["is_held"]:
            break
    return found


def _judged(found: dict[str, Any], rate: int, syncs: list[float]) -> dict[str, Any]:
    is_held = len(found["took_ms"]) == found["groups"] and found["wall_s"] < SECONDS + HELD_S
    return {**found, "rate": rate, "syncs": syncs, "is_held": is_held}


def _busy(found: list[dict[str, Any]]) -> str:
    cores = statistics.median(one["all_cpu_s"] / one["wall_s"] for one in found)
    each = statistics.median(one["all_cpu_s"] / REPLICAS / max(1, one["decisions"]) for one in found)
    return f"{cores:.2f} cores in use, {each * 1000:.1f} ms of CPU a decision and replica"


def _short(one: dict[str, Any]) -> dict[str, Any]:
    took = one["took_ms"] or [0.0]
    return {"rate": one["rate"], "is_held": one["is_held"], "p50_ms": quantile(took, 0.5),
            "p99_ms": quantile(took, 0.99), "decided": len(one["took_ms"]), "groups": one["groups"],
            "wall_s": one["wall_s"]}


def _climbed(held: list[dict[str, Any]]) -> list[str]:
    shown = [_short(one) for one in held]
    return ["       by rate: " + "; ".join(
        f"{one['rate']}/s " + (f"{one['p50_ms']:.0f} / {one['p99_ms']:.0f} ms" if one["is_held"] else "not held")
        for one in shown)] if shown else []


def times_row(name: str, what: str, syncs: list[list[float]], found: list[dict[str, Any]]) -> Outcome:
    """Both medians over the rounds."""
    sync = statistics.median(quantile(one, 0.5) for one in syncs)
    sync99 = statistics.median(quantile(one, 0.99) for one in syncs)
    p50 = statistics.median(quantile(one["took_ms"], 0.5) for one in found)
    p99 = statistics.median(quantile(one["took_ms"], 0.99) for one in found)
    lost = sum(one["groups"] - len(one["took_ms"]) for one in found)
    limits = [FLOOR_SYNCS * sync + FLOOR_MS, FLOOR_SYNCS * sync + FLOOR_P99_MS,
              AIM_SYNCS * sync + AIM_MS, AIM_SYNCS * sync + AIM_P99_MS]
    is_good = p50 <= limits[0] and p99 <= limits[1] and not lost
    decisions = sum(one["decisions"] for one in found) / sum(one["wall_s"] for one in found)
    numbers = {"p50_ms": p50, "p99_ms": p99, "sync_p50_ms": sync, "sync_p99_ms": sync99, "floor_p50_ms": limits[0],
               "floor_p99_ms": limits[1], "aim_p50_ms": limits[2], "aim_p99_ms": limits[3],
               "decisions_per_s": decisions, "undecided": lost}
    lines = [f"p50 {p50:.1f} ms, p99 {p99:.1f} ms   floor {limits[0]:.1f} / {limits[1]:.1f} ms, "
             f"aim {limits[2]:.1f} / {limits[3]:.1f} ms   {what}",
             f"       the disk's own sync in the same run: p50 {sync:.2f} ms, p99 {sync99:.2f} ms; "
             f"{decisions:.0f} decisions a second" + (f"; {lost} groups NOT decided" if lost else "")]
    return Outcome(name, is_good, lines, numbers)
