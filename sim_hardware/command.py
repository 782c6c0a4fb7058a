"""`gridseal sim meter`, made from command-line options and a clock: one simulated meter, or all of a file.

`add_arguments(parser)` and `run(args, clock) -> exit code` are for whoever owns the command line.
"""

import argparse
import asyncio
import contextlib
import json
import signal
import sys
from datetime import date
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from pathlib import Path

from sim_hardware.config import (
    BAUDS,
    MAX_POINT,
    BusConfig,
    MeterConfig,
    SimConfig,
    check_config,
    load_config,
    load_faults,
    parse_address,
)
from sim_hardware.errors import SimError
from sim_hardware.faults import kinds_text, parse_fault
from sim_hardware.load import DAY_S
from sim_hardware.meters import TYPES, type_called
from sim_hardware.simulator import run as run_simulator
from sim_hardware.units import Clock

EXAMPLE = """examples:
  gridseal sim meter --type sdm120 --tcp 127.0.0.1:5020
  gridseal sim meter --type sdm630 --unit 3 --pty /tmp/meter --day table4:LA1 --truth truth.csv
  gridseal sim meter --config meters.toml --json"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """All options of `sim meter`; the parser is the caller's."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLE
    parser.add_argument("--config", type=Path, metavar="FILE", help="buses and meters from a TOML file, nothing else")
    parser.add_argument("--type", default="sdm120", help=f"{', '.join(TYPES)} (default sdm120)")
    parser.add_argument("--unit", type=int, default=1, help="number on the bus, 1..247 (default 1)")
    parser.add_argument("--point", type=int, default=1, help="number of the measured point (default 1)")
    line = parser.add_mutually_exclusive_group()
    line.add_argument("--tcp", metavar="HOST:PORT", help="Modbus TCP; port 0 takes a free one")
    line.add_argument("--rtu-tcp", metavar="HOST:PORT", help="RTU frames through TCP, in a serial line's time")
    line.add_argument("--pty", metavar="LINK", help="Modbus RTU on a pseudo-terminal, LINK is made to point at it")
    parser.add_argument("--baud", type=int, help="of the serial line (default: the meter's own)")
    parser.add_argument("--parity", choices=("N", "E", "O"), help="of the serial line (default: the meter's own)")
    parser.add_argument("--strict", action="store_true", help="a master at another baud rate is not understood")
    parser.add_argument("--day", help="table4:LA1|LA2|LA3|MG, generated:household|sun|wind|prosumer, csv:FILE "
                        "(default: what the type is usually put to)")
    parser.add_argument("--scale", default="1", help="multiplies the day's power (default 1)")
    parser.add_argument("--start-kwh", type=int, default=0, help="on the import counter when installed (default 0)")
    parser.add_argument("--seed", type=int, default=1, help="of everything left to chance (default 1)")
    parser.add_argument("--step", type=int, default=1, metavar="SECONDS", help="the registers change once a step")
    parser.add_argument("--installed", type=date.fromisoformat, metavar="DATE",
                        help="day on which the counters start (default: the truth file's first day, else today, UTC)")
    parser.add_argument("--truth", type=Path, metavar="FILE", help="write every image of the registers there")
    parser.add_argument("--fault", default="none", help=kinds_text())
    parser.add_argument("--faults", type=Path, metavar="FILE", help="which meter misbehaves how and when (TOML)")
    parser.add_argument("--control", metavar="HOST:PORT", help="switch faults while it runs; port 0 takes a free one")
    parser.add_argument("--json", action="store_true", help="one line of JSON when it listens, nothing else")


def run(args: argparse.Namespace, clock: Clock) -> int:
    """Serve until SIGINT or SIGTERM. 0 stopped, 2 a mistake in the options or files, printed to stderr."""
    try:
        config = load_config(args.config) if args.config else config_of(args)
        asyncio.run(_serve(config, clock, args.json))
    except SimError as error:
        print(f"gridseal sim meter: {error.detail}", file=sys.stderr)
        return 2
    return 0


def config_of(args: argparse.Namespace) -> SimConfig:
    """One meter on one bus from the options; a free TCP port of loopback if no line is chosen."""
    meter = type_called(args.type)
    if meter is None:
        raise SimError("config", f"--type: expected one of {', '.join(TYPES)}, found {args.type!r}")
    for name, value, low, high in (("--unit", args.unit, 1, 247), ("--point", args.point, 1, MAX_POINT),
                                   ("--seed", args.seed, 0, 2**63), ("--start-kwh", args.start_kwh, 0, 10**9)):
        if not low <= value <= high:
            raise SimError("config", f"{name}: expected {low}..{high}, found {value}")
    if args.step < 1 or DAY_S % args.step:
        raise SimError("config", f"--step: expected a number of seconds that divides a day, found {args.step}")
    try:
        scale = Fraction(Decimal(args.scale))
    except (InvalidOperation, ValueError, OverflowError):
        scale = Fraction(0)
    if not 0 < scale <= 1000:
        raise SimError("config", f"--scale: expected a number above 0, at most 1000, found {args.scale!r}")
    sim = MeterConfig(args.point, args.unit, meter, args.day or meter.day, scale,
                      parse_fault(args.fault, rtu=args.pty is not None or args.rtu_tcp is not None,
                                  network=args.pty is None), args.start_kwh)
    if args.pty is not None or args.rtu_tcp is not None:
        baud = args.baud or meter.baud
        if baud not in BAUDS:
            raise SimError("config", f"--baud: expected one of {BAUDS}, found {baud}")
        address = None if args.rtu_tcp is None else parse_option(args.rtu_tcp, "--rtu-tcp")
        bus = BusConfig((sim,), pty=args.pty, rtu_tcp=address, baud=baud, parity=args.parity or meter.parity,
                        strict=args.strict)
    else:
        bus = BusConfig((sim,), tcp=parse_option(args.tcp or "127.0.0.1:0", "--tcp"))
    config = SimConfig((bus,), args.seed, args.step, args.truth,
                       parse_option(args.control, "--control") if args.control else None, args.installed,
                       faults=load_faults(args.faults, (bus,)) if args.faults else ())
    check_config(config)
    return config


def parse_option(text: str, option: str) -> tuple[str, int]:
    """(host, port) of an option's HOST:PORT; SimError names the option."""
    return parse_address(text, lambda found: SimError("config", f"{option}: expected HOST:PORT, found {found!r}"))


async def _serve(config: SimConfig, clock: Clock, as_json: bool) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError, ValueError):      # not the main thread: the caller stops us
            loop.add_signal_handler(number, stop.set)

    def on_ready(ready: dict[str, object]) -> None:
        print(json.dumps(ready) if as_json else describe(config, ready, clock), flush=True)

    await run_simulator(config, clock, stop, on_ready)


def describe(config: SimConfig, ready: dict[str, object], clock: Clock) -> str:
    """What is served and how to look at it, for a person."""
    lines = []
    buses = ready["buses"]
    assert isinstance(buses, list)
    for bus, facts in zip(config.buses, buses):
        if "tcp" in facts:
            lines.append(f"Modbus TCP on {facts['tcp']}")
        else:
            timing = "real line timing" if clock.speed == 1 else f"line timing divided by {clock.speed}"
            where = f"through TCP on {facts['rtu_tcp']}" if "rtu_tcp" in facts else f"on {facts['pty']}"
            lines.append(f"Modbus RTU {where}, {bus.baud} baud, 8{bus.parity}1, {timing}")
        for meter in bus.meters:
            fault = "" if meter.fault.kind == "none" else f", fault: {meter.fault}"
            scale = "" if meter.scale == 1 else f" x {float(meter.scale):g}"
            lines.append(f"  unit {meter.unit:<3} {meter.type.model:<22} point {meter.point}, "
                         f"{meter.day}{scale}{fault}")
        if bus.meters and "rtu_tcp" not in facts:           # mbpoll does not speak it
            lines.append("  try: " + mbpoll_line(bus, facts))
    if config.truth:
        lines.append(f"truth: {config.truth} (a row every {config.step_s} s of meter time)")
    if ready["control"]:
        lines.append(f"control: {ready['control']} (say: help)")
    if clock.speed != 1:
        lines.append(f"meter time runs {clock.speed} times faster than the clock on the wall")
    return "\n".join(lines + ["stop with Ctrl-C"])


def mbpoll_line(bus: BusConfig, facts: dict[str, object]) -> str:
    """An mbpoll command that reads the first meter's first registers (voltage first)."""
    meter = bus.meters[0]
    first = meter.type.fields[0]
    table = 3 if 4 in meter.type.functions else 4               # mbpoll's: 3 input registers, 4 holding registers
    form = f"{table}:float -B -c 1" if first.form == "f32" else f"{table} -c {min(10, meter.type.spans[0][1])}"
    start = first.address if first.form == "f32" else meter.type.spans[0][0]
    if bus.tcp is not None:
        host, _, port = str(facts["tcp"]).rpartition(":")
        return f"mbpoll -m tcp -p {port} -a {meter.unit} -0 -r {start} -t {form} -1 {host}"
    parity = {"N": "none", "E": "even", "O": "odd"}[bus.parity]
    return f"mbpoll -m rtu -b {bus.baud} -P {parity} -a {meter.unit} -0 -r {start} -t {form} -1 {facts['pty']}"
