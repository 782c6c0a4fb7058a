"""`gridseal sim plant`, made from command-line options and a clock: a plant on Modbus, or a file of its samples."""

import argparse
import asyncio
import contextlib
import csv
import json
import signal
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from sim_hardware.bus import PtyBus, TcpBus
from sim_hardware.command import parse_option
from sim_hardware.config import BAUDS
from sim_hardware.control import Control
from sim_hardware.errors import SimError
from sim_hardware.plant.device import Terminal
from sim_hardware.plant.model import AVC_S, EVENT_S, NAMES, Plan, Plant, Sample
from sim_hardware.units import Clock

EXAMPLE = """examples:
  gridseal sim plant --tcp 127.0.0.1:5040 --agc 900 --control 127.0.0.1:5041
  gridseal sim plant --csv plant.csv --truth plant.json --from 2026-01-01 --hours 24 --frequency 500
  echo 'set agc_quality 200' | nc -N 127.0.0.1 5041

qualities and shares are in 1000; what is not followed is slow, stuck, the wrong way, short, none or weak"""
HELP = f"sample | truth SECONDS | set NAME PERMILLE | help; NAME is one of {', '.join(NAMES)}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """All options of `sim plant`; the parser is the caller's."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLE
    parser.add_argument("--capacity-kw", type=int, default=50_000, help="what it can give (default 50000)")
    parser.add_argument("--agc", type=int, default=950, help="AGC commands followed (default 950)")
    parser.add_argument("--avc", type=int, default=950, help="AVC commands followed (default 950)")
    parser.add_argument("--frequency", type=int, default=900, help="frequency events answered (default 900)")
    parser.add_argument("--agc-service", type=int, default=980, help="quarters of an hour with AGC in service")
    parser.add_argument("--avc-service", type=int, default=980, help="quarters of an hour with AVC in service")
    parser.add_argument("--excused", type=int, default=20, help="quarters of an hour that do not count (default 20)")
    parser.add_argument("--seed", type=int, default=1, help="of everything left to chance (default 1)")
    line = parser.add_mutually_exclusive_group()
    line.add_argument("--tcp", metavar="HOST:PORT", help="Modbus TCP; port 0 takes a free one (default)")
    line.add_argument("--pty", metavar="LINK", help="Modbus RTU on a pseudo-terminal, LINK is made to point at it")
    line.add_argument("--csv", type=Path, metavar="FILE", help="write samples there instead, and end")
    parser.add_argument("--baud", type=int, default=9600, choices=BAUDS, help="of the serial line (default 9600)")
    parser.add_argument("--unit", type=int, default=1, help="number on the bus (default 1)")
    parser.add_argument("--control", metavar="HOST:PORT", help="change it while it runs; port 0 takes a free one")
    parser.add_argument("--truth", type=Path, metavar="FILE", help="with --csv: what was done on purpose, as JSON")
    parser.add_argument("--from", dest="begins", default="2026-01-01", metavar="TIME", help="with --csv: ISO, UTC")
    parser.add_argument("--hours", type=int, default=24, help="with --csv (default 24)")
    parser.add_argument("--step", type=int, default=1, metavar="SECONDS", help="with --csv (default 1)")
    parser.add_argument("--json", action="store_true", help="one line of JSON when it listens, nothing else")


class PlantControl(Control):
    """The plant's control port; one line in, one line out."""

    def __init__(self, address: tuple[str, int], plant: Plant, clock: Clock) -> None:
        super().__init__(address, ())
        self._plant, self._clock = plant, clock

    def do(self, line: str) -> str:
        """The answer to one line."""
        now_s = self._clock.now_ms() // 1000
        match line.split():
            case ["sample"]:
                return json.dumps(self._plant.sample(now_s)._asdict())
            case ["truth", seconds] if seconds.isdecimal() and int(seconds) <= 86_400:
                return json.dumps(self._plant.truth(now_s - int(seconds), now_s))
            case ["set", name, value] if value.isdecimal():
                try:
                    self._plant.change(name, int(value), now_s)
                except SimError as error:
                    return f"error {error.detail}"
                return "ok"
            case ["help"]:
                return HELP
        return f"error expected {HELP}"


def run(args: argparse.Namespace, clock: Clock) -> int:
    """Serve until SIGINT or SIGTERM, or write a file. 0 done, 2 a mistake in the options, printed to stderr."""
    try:
        plant = Plant(Plan(args.seed, args.capacity_kw, args.agc, args.avc, args.frequency, args.agc_service,
                           args.avc_service, args.excused))
        if args.csv is not None:
            return write(plant, args)
        asyncio.run(_until_signal(args, plant, clock))
    except (SimError, OSError) as error:
        print(f"gridseal sim plant: {error.detail if isinstance(error, SimError) else error}", file=sys.stderr)
        return 2
    return 0


def write(plant: Plant, args: argparse.Namespace) -> int:
    """Writes the samples of a time, and the truth about it."""
    try:
        begins = datetime.fromisoformat(args.begins)
    except ValueError as error:
        raise SimError("config", f"--from: expected a time as 2026-01-01T06:00, found {args.begins!r}") from error
    first_s = int(begins.replace(tzinfo=begins.tzinfo or UTC).timestamp())
    for name, value, low, high in (("--hours", args.hours, 1, 24 * 366), ("--step", args.step, 1, 3600)):
        if not low <= value <= high:
            raise SimError("config", f"{name}: expected {low}..{high}, found {value}")
    if first_s % EVENT_S or first_s % AVC_S:
        raise SimError("config", f"--from: expected a multiple of {EVENT_S // 60} minutes, found {args.begins!r}")
    last_s = first_s + args.hours * 3600
    with open(args.csv, "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(Sample._fields)
        rows.writerows(plant.sample(at) for at in range(first_s, last_s, args.step))
    if args.truth is not None:
        args.truth.write_text(json.dumps(plant.truth(first_s, last_s), indent=1) + "\n")
    print(f"{(last_s - first_s + args.step - 1) // args.step} samples in {args.csv}")
    return 0


async def serve(bus: "TcpBus[Terminal] | PtyBus[Terminal]", control: Control | None, stop: asyncio.Event,
                on_ready: Callable[[dict[str, object]], None]) -> None:
    """Serves one plant until `stop`; on_ready gets {"ready", "buses", "control"}."""
    try:
        on_ready({"ready": True, "buses": [await bus.start()], "control": await control.start() if control else None})
        await stop.wait()
    finally:
        await bus.stop()
        if control:
            await control.stop()


async def _until_signal(args: argparse.Namespace, plant: Plant, clock: Clock) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError, ValueError):      # not the main thread: the caller stops us
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
    terminal = Terminal(plant, clock, args.unit, rtu=args.pty is not None)
    bus: TcpBus[Terminal] | PtyBus[Terminal]
    if args.pty is not None:
        bus = PtyBus(terminal, lambda: None, args.pty, args.baud, "N", clock)
    else:
        bus = TcpBus(terminal, lambda: None, *parse_option(args.tcp or "127.0.0.1:0", "--tcp"))
    control = PlantControl(parse_option(args.control, "--control"), plant, clock) if args.control else None

    def on_ready(ready: dict[str, object]) -> None:
        print(json.dumps(ready) if args.json else _text(args, ready), flush=True)

    await serve(bus, control, stop, on_ready)


def _text(args: argparse.Namespace, ready: dict[str, object]) -> str:
    buses = ready["buses"]
    assert isinstance(buses, list)
    facts = buses[0]
    where = f"Modbus TCP on {facts['tcp']}" if "tcp" in facts else f"Modbus RTU on {facts['pty']}, {facts['baud']} baud"
    lines = [where, f"  unit {args.unit}: a plant of {args.capacity_kw} kW, registers 0..17 of function 3"]
    if "tcp" in facts:
        host, _, port = str(facts["tcp"]).rpartition(":")
        lines.append(f"  try: mbpoll -m tcp -p {port} -a {args.unit} -0 -r 2 -t 4:int -B -c 8 -1 {host}")
    if ready["control"]:
        lines.append(f"control: {ready['control']} (say: help)")
    return "\n".join(lines + ["stop with Ctrl-C"])
