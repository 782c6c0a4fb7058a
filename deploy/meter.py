"""`gridseal meter`: the agent on a Pi: run it, check it without starting it, read a meter now, replace a meter."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path

from deploy import meter_correct, meter_replace, meter_scan, meter_types
from deploy.clock import open_clock
from firmware.board import linux, linux_slots
from firmware.config import BadConfig
from firmware.planning import bus as planned


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("meter", help="the agent on a Pi: run, check, read, replace", description=__doc__)
    actions = parser.add_subparsers(dest="action", required=True)
    run = actions.add_parser("run", help="run the agent of a folder", epilog="example: gridseal meter run agent")
    run.add_argument("folder", type=Path, help="the agent's folder, or its meter.toml")
    run.add_argument("--clock", help=argparse.SUPPRESS)
    run.add_argument("--clock-name", help=argparse.SUPPRESS)
    run.set_defaults(run=_run)
    check = actions.add_parser("check", help="say what it would do; start nothing",
                               epilog="example: gridseal meter check agent")
    check.add_argument("folder", type=Path, help="the agent's folder, or its meter.toml")
    check.set_defaults(run=_check)
    read = actions.add_parser("read", help="read a meter once: raw words beside values",
                              epilog="example: gridseal meter read /dev/ttyUSB0 --type sdm120")
    read.add_argument("port", help="a serial device, tcp://host:502, or rtu+tcp://host:port")
    read.add_argument("--type", required=True, help="a name of `gridseal meter types`, or a file of your own (.toml)")
    read.add_argument("--unit", type=int, default=1, help="number on the bus (default 1)")
    read.add_argument("--baud", type=int, default=0, help="of the serial line (default: the meter's own)")
    read.add_argument("--parity", choices=("N", "E", "O"), default="", help="default: the meter's own")
    read.add_argument("--json", action="store_true", help="one JSON object instead of text")
    read.set_defaults(run=_read)
    meter_scan.add_parser(actions)
    meter_types.add_parser(actions)
    meter_replace.add_parser(actions)
    meter_correct.add_parser(actions)


def check_files(path: Path) -> None:
    """BadConfig, with what to do, when a file is missing that `gridseal enroll` makes."""
    settings, folder = linux.load_config(path)
    ask = f"gridseal enroll request {folder} --area-folder DIR"
    approve = f"the operator has not approved this device yet: gridseal enroll approve {folder} --area-folder DIR"
    wanted = {"genesis": ask, "signing_key": ask}
    if any(url.startswith("mqtts://") for url in settings.brokers):
        wanted.update(tls_key=ask, tls_cert=approve, ca=approve)
    for key, remedy in wanted.items():
        file = folder / getattr(settings, key)
        if not file.exists():
            raise BadConfig(f"{key}: {file}", f"is missing; {remedy}")


def _run(args: argparse.Namespace) -> int:
    stopping: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda found, _frame: stopping.append(found))
    clock = open_clock(args.clock, args.clock_name)
    try:
        check_files(args.folder)
        if linux_slots.has_slots(args.folder) and not args.clock:  # a version that came by gridseal update
            return linux_slots.supervise(args.folder, lambda: bool(stopping), lambda line: print(line, flush=True))
        linux.run(args.folder, clock, lambda: bool(stopping), lambda line: print(line, flush=True))
    except BadConfig as error:
        return _unusable(str(error))
    return 0


def _check(args: argparse.Namespace) -> int:
    try:
        check_files(args.folder)
        print("\n".join(linux.check(args.folder)))
        planned.check(linux.load_config(args.folder)[0])
    except BadConfig as error:
        return _unusable(str(error))
    return 0


def _read(args: argparse.Namespace) -> int:
    if not 0 < args.unit < 248:
        raise ValueError(f"--unit: 1 to 247, not {args.unit}")
    rows = linux.meter_read(args.port, args.type, args.unit, args.baud, args.parity)
    if args.json:
        print(json.dumps([vars(row) for row in rows]))
    else:
        for row in rows:
            value = f"missing ({row.missing})" if row.missing else f"{row.value} {row.unit}"
            print(f"{row.function}:{row.address:<6} {' '.join(row.words):<20} {row.name:<12} {value:<22} {row.label}")
    if all(row.missing for row in rows):
        print(f"nothing answered at {args.port}, unit {args.unit}: check the wires A and B, baud rate, unit number",
              file=sys.stderr)
        return 1
    return 0


def _unusable(text: str) -> int:
    print(f"gridseal meter: {text}", file=sys.stderr)
    return 2
