"""Makes the table of faults: every meter type, on every kind of line, with every fault switched on in turn.

    python -m tests.firmware.faults [--types sdm630,em24] [--lines tcp,pty,rtu_tcp] [--processes 4]

A real agent reads a faulty meter and a healthy one on the same line through the ports of a Pi; everything that it
seals is compared with what the simulator says its meters showed. A sealed value is right, or its reading is marked
(implausible, stale); anything else is "WRONG" and ends the command with 1. The healthy one must lack nothing, nor the
faulty one for another reason than its fault; where that is so ("odd": an answer may take longer than allowed on a busy
machine), that fault is played once more by itself. Every byte that was sent must belong to a request of function 3, 4
or 43/14 (`sniffer.py`).
Label time is moved by hand, line time is divided by 4: `live_faults.py` measures intervals in real time.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import queue
import sys
import tempfile
import time
import tomllib
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

from deploy import meter_scan
from firmware import agent as agent_module
from firmware import config, meters, own
from firmware.agent import Agent, Settings
from firmware.board.linux_bus import Worker
from firmware.crypto.openssl import OpenSSLSigner, verify_digest
from firmware.journal import Journal
from firmware.lightnode import LightNode
from firmware.tables import Meter
from firmware.wire import header, identity
from firmware.wire.reading import IMPLAUSIBLE, STALE, Reading
from sim_hardware.config import BusConfig, SimConfig
from sim_hardware.errors import SimError
from sim_hardware.faults import KINDS, Fault, parse_fault
from sim_hardware.meters import TYPES
from tests.firmware.served import NOON_MS, Running
from tests.firmware.sniffer import Sniffer
from tests.firmware.world import Chain, Flash, Gateway
from tests.sim_hardware.bench import HandClock, meter

INTERVAL_S = 20  # with it goes the budget of a poll, which most faults use up
HALF_MS = INTERVAL_S * 500
ANSWER_MS, LATE_MS = 100, 160  # what is late is given up and comes into the next request
SPEED = 4  # of the lines: silence must stay longer than the pauses of an answer that drips
PROBE_MS = 60_000  # longer than an agent leaves a silent unit alone
FAULTY, HEALTHY = 1, 2  # points, and units
HEALTHY_TYPE = "sdm630"
ROUNDS = 3  # with a fault: until a silent unit is given up
LONG_ROUNDS = {"stuck": 16, "rollover": 12}  # until counters that stand still were seen to; until they are past the end
LINES = ("tcp", "pty", "rtu_tcp")
# JUMP: more than the meter's largest power counts in a round.
FAULTS = ("no_answer", f"late {LATE_MS}", f"late {LATE_MS} every 2", f"late {ANSWER_MS // 4}", "slow_drip 5",
          "wrong_crc", "wrong_crc every 2", "wrong_unit", "wrong_function", "wrong_transaction", "short 3", "fewer",
          "long 2", "stray_before 4", "stray_after 4", "echo", "exception 2", "exception 6", "all_ones", "nan",
          "baud_mismatch 4800", "collision", "reset", "reset every 2", "stuck", "counter_jump JUMP", "counter_reset",
          "rollover")
GIVEN_UP = ("no_answer", "length", "unit", "function", "transaction")
# Why a value may be missing under a fault, beside "not_asked" of what the poll's end left over.
FRAMES = {"crc", "length", "unit", "function", "no_answer"}
REASONS = {
    "no_answer": {"no_answer"}, "late": {"no_answer", "transaction", "length"},
    "slow_drip": {"length", "no_answer", "crc"},
    "wrong_crc": {"crc"}, "wrong_unit": {"unit", "length"}, "wrong_function": {"function", "length"},
    "short": {"length", "crc"}, "wrong_transaction": {"transaction"}, "fewer": {"length"}, "long": {"length"},
    "baud_mismatch": FRAMES,
    "stray_before": {"length", "no_answer"}, "collision": FRAMES | {"exception"}, "reset": {"port"},
    "exception": {"exception"}, "all_ones": {"not_implemented", "nan"}, "nan": {"nan", "not_implemented", "moved",
                                                                                "implausible"},
}
# What the simulator's truth calls otherwise (SunSpec).
SAME = {"power_factor_total": "power_factor_percent", **{
    f"power_factor_l{phase}": f"power_factor_percent_l{phase}" for phase in (1, 2, 3)},
        "energy_reactive_q1_total": "energy_reactive_import_total",
        "energy_reactive_q4_total": "energy_reactive_export_total"}
# What simulated SunSpec devices always show: feeding at full power, discharging.
FIXED = {"status": (3, 4), "battery_state": (3,)}


class Station:
    """An agent with its journal, its workers and an honest gateway; what the gateway takes is in `readings`."""

    def __init__(self, settings: config.Config, clock: Any) -> None:
        self.settings, self.clock = settings, clock
        chain = Chain(created_s=NOON_MS // 1000 - 7200)
        signer = OpenSSLSigner.from_scalar(hashlib.sha256(b"test agent faults").digest())
        kid = identity.kid_of(signer.public_key())
        self.gateway = Gateway(chain, signer.public_key())
        self.journal = Journal(Flash(sectors=64))
        places = config.places(settings)
        self.agent = Agent(Settings(kid, "home", places, settings.interval_s * 1000, settings.seal_every_s * 1000,
                                    settings.details_every_s * 1000, 3_600_000, 1000, 4096, bytes(32), settings.hash),
                           LightNode(chain.genesis, verify_digest, None), self.journal, signer, verify_digest,
                           clock.now_ms())
        self.inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.workers = [Worker(line, clock, self.inbox) for line in settings.buses]
        self.labels = {place.point: {field.name: field.label for field in config.table(row.type, settings.own).fields}
                       for place, row in zip(places, [row for line in settings.buses for row in line.meters])}
        self.alarms: list[str] = []
        self.wait_ms = 0
        self.under_way = 0
        self.is_owed = False  # an answer was given up since that was last asked
        self.obey(self.agent.on_connected(0))

    @property
    def readings(self) -> dict[tuple[int, int], Reading]:
        return self.gateway.readings

    def tick(self) -> None:
        self.obey(self.agent.tick(self.clock.now_ms(), self.wait_ms))

    def take(self, wait_s: float) -> bool:
        """Handles one outcome of a poll, if one comes in time."""
        try:
            kind, duty, start_ms, quality, exchanges = self.inbox.get(timeout=max(0.0, wait_s))
        except queue.Empty:
            return False
        assert kind == "words", duty
        self.under_way -= 1
        self.is_owed = self.is_owed or any(exchange.reason in GIVEN_UP for exchange in exchanges)
        self.obey(self.agent.on_words(duty, start_ms, quality, exchanges, self.clock.now_ms(), self.wait_ms))
        return True

    def settle(self) -> None:
        """One label's work: polls until nothing is due, then what is sealed goes out and is acked."""
        self.tick()
        while self.under_way:
            assert self.take(60), "a worker that does not come back"
            self.tick()
        tip = header.decode(self.gateway.chain.tip)
        if self.gateway.pending:
            data = self.gateway.ack(max(self.clock.now_ms() // 1000, tip.time_s))
            self.obey(self.agent.on_ack(data, self.clock.now_ms() // 1000, self.wait_ms))
        self.tick()

    def obey(self, duties: list[Any]) -> None:
        for duty in duties:
            if isinstance(duty, agent_module.Append):
                assert self.journal.append(duty.kind, duty.payload) == duty.seq
            elif isinstance(duty, agent_module.Sync):
                self.journal.sync()
            elif isinstance(duty, agent_module.Trim):
                self.journal.trim(duty.seq)
            elif isinstance(duty, agent_module.Publish):
                made = self.agent.envelope(duty.point, duty.height)
                if made is not None:
                    self.gateway.take(*made)
                    self.obey(self.agent.on_published(duty.point, duty.height))
            elif isinstance(duty, agent_module.Alarm):
                self.alarms.append(duty.text)
            elif isinstance(duty, agent_module.Read):
                self.under_way += 1
                if duty.attempts:
                    self.workers[duty.bus].read(duty)
                else:
                    self.inbox.put(("words", duty, self.clock.now_ms(), 2, []))

    def close(self) -> None:
        for worker in self.workers:
            worker.stop()


class Outcome(NamedTuple):
    """What one fault led to: counts of the faulty one's values by what became of them; `wrong`: (point, label, sealed,
    shown); `odd`: (point, label, reason) of values that are missing and should not be, or not for that."""

    fault: str
    values: Counter[str]
    wrong: list[tuple[int, str, int | None, int | None]]
    odd: list[tuple[int, str, str | None]]


class Bench:
    """One faulty meter and one healthy on a line; `play` switches a fault on, off again, and says what was sealed."""

    def __init__(self, folder: Path, name: str, line: str) -> None:
        self.name, self.line = name, line
        # the healthy one stands last, so that what comes late from the faulty one comes into its requests
        # some kW in the way of the type: enough to move every counter within minutes
        day = "table4:MG" if TYPES[name].day == "generated:sun" else "table4:LA1"
        sims = (replace(meter(FAULTY, FAULTY, name, day), scale=Fraction(6, 100)),
                meter(HEALTHY, HEALTHY, HEALTHY_TYPE, "generated:prosumer"))
        where: dict[str, Any] = {line: str(folder / "line") if line == "pty" else ("127.0.0.1", 0)}
        self.sim = Running(SimConfig((BusConfig(sims, baud=9600, **where),), seed=7, step_s=INTERVAL_S // 2),
                           HandClock(NOON_MS, speed=SPEED))
        try:
            facts = self.sim.facts[0]
            self.sniffer = Sniffer({"tcp": "tcp://", "rtu_tcp": "rtu+tcp://", "pty": ""}[line] + facts[line])
            self.port = self.sniffer.port
            kind, self.own = self._type()
            self.most_w = config.table(kind, self.own).max_power_w
            rows = [{"point": FAULTY, "unit": FAULTY, "type": kind},
                    {"point": HEALTHY, "unit": HEALTHY, "type": HEALTHY_TYPE}]
            self.station = Station(config.load({
                "area": "home", "brokers": ["mqtt://127.0.0.1:1883"], "interval_s": INTERVAL_S,
                "seal_every_s": INTERVAL_S, "details_every_s": INTERVAL_S,
                "bus": [{"port": self.port, "baud": 9600, "parity": "N", "answer_ms": ANSWER_MS, "meter": rows}]},
                self.own), self.sim.clock)
        except BaseException:
            self.sim.close()
            raise
        self.truth: dict[tuple[int, int], dict[str, int]] = {}
        self.frozen: dict[str, int] = {}
        self.rounds(2)

    def close(self) -> None:
        self.station.close()
        self.sniffer.close()
        self.sim.close()
        functions = set(self.sniffer.functions())
        assert functions and functions <= {3, 4, 43}, functions

    def rounds(self, count: int) -> None:
        """Intervals go by: billing quantities at their ends, the others half way; a silent unit is always probed."""
        for _ in range(2 * count):
            self.sim.turn(HALF_MS)
            self.station.wait_ms += PROBE_MS
            if self.station.is_owed:  # half an interval is longer than two answers' time (planning/bus.py)
                time.sleep(2 * ANSWER_MS / 1000)
                self.station.is_owed = False
            now_ms = self.sim.clock.now_ms()
            for point in (FAULTY, HEALTHY):
                self.truth[point, now_ms] = self.sim.truth(point)
            self.station.settle()

    def play(self, text: str, rounds: int) -> Outcome | None:
        """One fault, from before it to after it; None where this line or meter cannot have it."""
        jump_kwh = self.most_w * 3 // 60 // 1000 + 10
        try:
            fault = parse_fault(text.replace("JUMP", str(jump_kwh)), rtu=self.line != "tcp", network=self.line != "pty")
            from_ms = self.sim.clock.now_ms()
            self.sim.fault(FAULTY, fault)
        except SimError:
            return None
        self.frozen = self.truth[FAULTY, from_ms] if fault.kind == "stuck" else {}
        self.rounds(LONG_ROUNDS.get(fault.kind, rounds))
        until_ms = self.sim.clock.now_ms()
        self.sim.fault(FAULTY, Fault())
        self.rounds(2)
        return self._judge(text, fault.kind, from_ms, until_ms)

    def _judge(self, text: str, kind: str, from_ms: int, until_ms: int) -> Outcome:
        values: Counter[str] = Counter()
        wrong, odd = [], []
        readings = {key: reading for key, reading in self.station.readings.items() if key[1] > from_ms}
        assert len({key[0] for key in readings}) == 2
        for (point, time_ms), reading in readings.items():
            is_over = point == HEALTHY or time_ms > until_ms + 2 * HALF_MS  # one poll later all is right again
            for entry in reading.entries:
                label = self.station.labels[point][entry.name]
                truth = self.truth[point, time_ms]
                shown = truth.get(label, truth.get(SAME.get(label, "")))
                if entry.value in FIXED.get(label, ()):
                    shown = entry.value
                became = self._became(kind, entry.value, entry.missing, shown, label, reading.quality)
                if became == "WRONG":
                    wrong.append((point, label, entry.value, shown))
                if entry.missing not in (None, "not_implemented") and (is_over or not _is_excused(kind, entry.missing)):
                    odd.append((point, label, entry.missing))
                if point == FAULTY and time_ms <= until_ms:
                    values[became] += 1
        return Outcome(text, values, wrong, odd)

    def _became(self, kind: str, value: int | None, missing: str | None, shown: int | None, label: str, quality: int
                ) -> str:
        if missing is not None:
            return f"missing ({missing})"
        marks = "implausible" if quality & IMPLAUSIBLE else "stale" if quality & STALE else ""
        if value == shown:
            return f"right, marked {marks}" if marks else "right"
        if kind == "stuck" and value == self.frozen.get(label, self.frozen.get(SAME.get(label, ""))):
            return f"as shown, {marks}" if marks else "as shown"
        return f"marked {marks}" if marks else "WRONG"

    def _type(self) -> tuple[str, dict[str, Meter]]:
        """A shipped type, or for a SunSpec device the first file that `meter scan` makes."""
        if not self.name.startswith("sunspec"):
            return self.name, {}
        found = meter_scan.find(self.port, [FAULTY], [(9600, "N")], lambda text: None, 1)
        _, files = meter_scan.snippet(self.port, found, 1)
        name, text = next(iter(files.items()))
        kind = name.removesuffix(".toml")
        return kind, {kind: own.make(kind, tomllib.loads(text))}


def _is_excused(kind: str, missing: str) -> bool:
    """Whether a value of the faulty meter may be missing for that reason."""
    return missing == "not_asked" or missing.split("_")[0] in REASONS.get(kind, ()) or missing in REASONS.get(kind, ())


class Job(NamedTuple):
    """Faults of one type on one line, each held for so many intervals."""

    name: str
    line: str
    faults: tuple[str, ...] = FAULTS
    rounds: int = ROUNDS


def run(job: Job) -> list[tuple[str, str, Outcome]]:
    """[(type, line, Outcome)] of the faults that this line and meter can have."""
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), job.name, job.line)
        try:
            return [(job.name, job.line, outcome) for fault in job.faults
                    if (outcome := bench.play(fault, job.rounds)) is not None]
        finally:
            bench.close()


def play(work: list[Job], processes: int) -> list[tuple[str, str, Outcome]]:
    """All jobs, side by side in processes of their own (each has threads that keep time); what was odd, once more."""
    rounds = {(job.name, job.line): job.rounds for job in work}
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        rows = [row for rows in pool.imap_unordered(run, work) for row in rows]
    odd = [row for row in rows if row[2].odd and not row[2].wrong]
    if odd:
        print(f"once more: {', '.join(f'{name} {line} {outcome.fault}' for name, line, outcome in odd)}", flush=True)
        rows = [row for row in rows if row not in odd]
        with multiprocessing.get_context("spawn").Pool(2) as pool:
            again = pool.imap_unordered(run, [Job(name, line, (outcome.fault,), rounds[name, line])
                                              for name, line, outcome in odd])
            rows += [row for found in again for row in found]
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.firmware.faults", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    every = [*meters.TYPES, *(name for name in TYPES if name.startswith("sunspec"))]
    parser.add_argument("--types", default=",".join(every))
    parser.add_argument("--lines", default=",".join(LINES))
    parser.add_argument("--faults", default=",".join(FAULTS))
    parser.add_argument("--processes", type=int, default=3)
    args = parser.parse_args()
    faults = tuple(args.faults.split(","))
    missing = set(KINDS) - {fault.split()[0] for fault in FAULTS} - {"none"}
    assert not missing, missing
    rows = play([Job(name, line, faults) for name in args.types.split(",") for line in args.lines.split(",")],
                args.processes)
    print_table(rows, faults)
    return 1 if any(outcome.wrong or outcome.odd for _, _, outcome in rows) else 0


def print_table(rows: list[tuple[str, str, Outcome]], faults: tuple[str, ...]) -> None:
    """One line for each fault, over all types and lines; then what was wrong, row by row."""
    print(f"{'fault':24} {'on':>4}  values sealed while it held, and what became of them")
    for fault in faults:
        mine = [row for row in rows if row[2].fault == fault]
        total = sum((outcome.values for _, _, outcome in mine), Counter())
        print(f"{fault:24} {len(mine):>4}  " + ", ".join(f"{what} {count}" for what, count in sorted(total.items())))
    for name, line, outcome in rows:
        if outcome.wrong:
            print(f"WRONG {name} {line} {outcome.fault}: {outcome.wrong[:4]}")
        if outcome.odd:
            print(f"odd {name} {line} {outcome.fault}: {len(outcome.odd)}, as {outcome.odd[:2]}")
    values = sum(sum(outcome.values.values()) for _, _, outcome in rows)
    print(f"{len({row[0] for row in rows})} types, {len({row[1] for row in rows})} kinds of line, {len(rows)} runs, "
          f"{values} values of faulty meters; wrong: {sum(len(outcome.wrong) for _, _, outcome in rows)}, odd: "
          f"{sum(len(outcome.odd) for _, _, outcome in rows)}")


if __name__ == "__main__":
    sys.exit(main())
