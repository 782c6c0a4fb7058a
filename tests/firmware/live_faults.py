"""Makes the table of delays: how far neighbours are off their interval while one meter of their line misbehaves.

    python -m tests.firmware.live_faults [--interval 10] [--rounds 4] [--line pty]

Real time everywhere: a serial line takes the time of its characters, the agent polls by the clock on the wall through
the workers of a Pi. In the middle of three meters one has every fault in turn, for some intervals each, with one
interval in between; of the others each reading's distance from the one before it is measured. It stays within a tenth
of the interval, or the command ends with 1.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

from firmware import config
from sim_hardware.config import BusConfig, SimConfig
from sim_hardware.errors import SimError
from sim_hardware.faults import Fault, parse_fault
from tests.firmware.faults import Station
from tests.firmware.served import NOON_MS, Running
from tests.sim_hardware.bench import meter

FAULTS = ("no_answer", "late 400", "late 700", "late 700 every 2", "slow_drip 30", "wrong_crc", "wrong_crc every 2",
          "wrong_unit", "wrong_function", "wrong_transaction", "short 3", "fewer", "long 2", "stray_before 4",
          "stray_after 4", "echo", "exception 6", "all_ones", "nan", "stuck", "baud_mismatch 4800", "collision",
          "reset", "reset every 2")
TYPES = {1: "sdm630", 2: "sdm120", 3: "em24"}
FAULTY = 2
PERCENT = 10  # of the interval, that a neighbour may be off


class WallClock:
    """Label time from noon on, as fast as real time."""

    speed = 1

    def __init__(self) -> None:
        self._start = time.monotonic()

    def now_ms(self) -> int:
        return NOON_MS + int((time.monotonic() - self._start) * 1000)

    def monotonic_ms(self) -> int:
        return time.monotonic_ns() // 1_000_000

    def quality(self) -> int:
        return 2

    def progress(self, label_ms: int) -> None:
        """Nobody waits for anybody here."""


class Delay(NamedTuple):
    """What one fault did to the neighbours: their largest distance from the interval, their readings, values missing
    of theirs, and whether the faulty one ever had a value."""

    fault: str
    worst_ms: int
    readings: int
    missing: int
    is_readable: bool


class Street:
    """Three meters on one line, and the agent that polls them in real time in a thread of its own."""

    def __init__(self, folder: Path, line: str, interval_s: int, baud: int = 9600) -> None:
        self.line, self.interval_s = line, interval_s
        self.clock = WallClock()
        sims = tuple(replace(meter(unit, unit, name, "generated:prosumer"), scale=Fraction(1))
                     for unit, name in TYPES.items())
        where: dict[str, Any] = {line: str(folder / "line") if line == "pty" else ("127.0.0.1", 0)}
        self.sim = Running(SimConfig((BusConfig(sims, baud=baud, **where),), seed=7, step_s=60), self.clock)
        port = {"tcp": "tcp://", "rtu_tcp": "rtu+tcp://", "pty": ""}[line] + self.sim.facts[0][line]
        rows = [{"point": unit, "unit": unit, "type": name} for unit, name in TYPES.items()]
        self.station = Station(config.load({
            "area": "home", "brokers": ["mqtt://127.0.0.1:1883"], "interval_s": interval_s,
            "seal_every_s": interval_s,
            "details_every_s": 0, "bus": [{"port": port, "baud": baud, "parity": "N", "meter": rows}]}), self.clock)
        self._is_over = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._is_over:
            self.station.wait_ms = self.clock.monotonic_ms()
            self.station.tick()
            due_ms = self.station.agent.next_ms()
            wait_s = 0.2 if due_ms is None else (due_ms - self.clock.now_ms()) / 1000
            self.station.take(min(0.2, wait_s))

    def close(self) -> None:
        self._is_over = True
        self._thread.join(10)
        self.station.close()
        self.sim.close()

    def wait_until(self, label_ms: int) -> None:
        while (left_ms := label_ms - self.clock.now_ms()) > 0:
            time.sleep(left_ms / 1000)

    def play(self, faults: tuple[str, ...], rounds: int) -> Iterator[Delay]:
        """Each fault for some intervals; it begins and ends in the middle of one."""
        step_ms = self.interval_s * 1000
        begin_ms = self.clock.now_ms() // step_ms * step_ms + 2 * step_ms
        self.wait_until(begin_ms + step_ms // 2)
        for text in faults:
            try:
                fault = parse_fault(text, rtu=self.line != "tcp", network=self.line != "pty")
                self.sim.fault(FAULTY, fault)
            except SimError:
                continue
            from_ms = begin_ms
            begin_ms += (rounds + 2) * step_ms
            self.wait_until(from_ms + rounds * step_ms + step_ms // 2)
            self.sim.fault(FAULTY, Fault())
            self.wait_until(begin_ms + step_ms // 2)
            yield self._judge(text, from_ms, begin_ms)

    def _judge(self, text: str, from_ms: int, until_ms: int) -> Delay:
        """Of the readings from the interval before the fault to the one after it."""
        half_ms = self.interval_s * 500
        readings = {key: reading for key, reading in dict(self.station.readings).items()
                    if from_ms - half_ms < key[1] < until_ms + half_ms}
        worst_ms = count = missing = 0
        for unit in TYPES:
            times = sorted(time_ms for point, time_ms in readings if point == unit)
            if unit == FAULTY:
                continue
            assert len(times) > (until_ms - from_ms) // (2 * half_ms), (unit, times)
            count += len(times)
            missing += sum(entry.value is None for time_ms in times for entry in readings[unit, time_ms].entries)
            worst_ms = max(worst_ms, *(abs(later - earlier - 2 * half_ms) for earlier, later in zip(times, times[1:])))
        is_readable = any(entry.value is not None for (point, time_ms), reading in readings.items()
                          if point == FAULTY and from_ms + half_ms < time_ms < until_ms - 2 * half_ms
                          for entry in reading.entries)
        return Delay(text, worst_ms, count, missing, is_readable)


def dead_unit(job: tuple[str, int]) -> Delay:
    """The sample of the suite: a quick line, one meter silent for two intervals. job: (line, interval in s)."""
    with tempfile.TemporaryDirectory() as folder:
        street = Street(Path(folder), *job, baud=19200)
        try:
            return next(street.play(("no_answer",), 2))
        finally:
            street.close()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.firmware.live_faults", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--interval", type=int, default=10, help="seconds (default 10)")
    parser.add_argument("--rounds", type=int, default=4, help="intervals that each fault holds (default 4)")
    parser.add_argument("--line", choices=("pty", "tcp", "rtu_tcp"), default="pty")
    parser.add_argument("--faults", default=",".join(FAULTS))
    args = parser.parse_args()
    allowed_ms = args.interval * 10 * PERCENT
    is_good = True
    with tempfile.TemporaryDirectory() as folder:
        street = Street(Path(folder), args.line, args.interval)
        try:
            for delay in street.play(tuple(args.faults.split(",")), args.rounds):
                is_good = is_good and delay.worst_ms <= allowed_ms and not delay.missing
                print(f"{args.line} {delay.fault:20} neighbours off by {delay.worst_ms:>5} of {allowed_ms} ms; "
                      f"{delay.readings} readings, {delay.missing} values missing; the meter itself "
                      f"{'is' if delay.is_readable else 'is not'} read", flush=True)
        finally:
            street.close()
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
