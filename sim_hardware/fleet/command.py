"""`gridseal sim fleet make` and `run`, made from command-line options and a clock: many meters as signed traffic."""

import argparse
import asyncio
import contextlib
import hashlib
import json
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from sim_hardware.errors import SimError
from sim_hardware.fleet import folder
from sim_hardware.fleet.fleet import MISDEEDS, Fleet, Plan
from sim_hardware.fleet.run import Traffic
from sim_hardware.units import Clock

SETTLE_S = 60.0


def add_make(parser: argparse.ArgumentParser) -> None:
    """Options of `sim fleet make`; the parser is the caller's."""
    parser.add_argument("folder", type=Path)
    parser.add_argument("--genesis", type=Path, required=True, metavar="FILE", help="the area's genesis.cbor")
    parser.add_argument("--area", required=True, help="its name")
    parser.add_argument("--broker", action="append", required=True, metavar="URL", help="mqtts:// or, for trials, "
                        "mqtt://HOST:PORT; repeat")
    parser.add_argument("--agents", type=int, default=10, help="keys (default 10)")
    parser.add_argument("--points", type=int, default=10, help="meters behind each key, up to 256 (default 10)")
    parser.add_argument("--first-point", type=int, default=1, help="number of the first meter's point (default 1)")
    parser.add_argument("--seed", type=int, default=1, help="of keys and values: test keys, whoever knows it can sign")


def add_run(parser: argparse.ArgumentParser) -> None:
    """Options of `sim fleet run`."""
    parser.add_argument("folder", type=Path)
    parser.add_argument("--interval", type=int, default=60, metavar="SECONDS", help="between two seals of a meter")
    parser.add_argument("--readings", type=int, default=1, help="of a seal (default 1)")
    parser.add_argument("--jitter", type=int, default=2000, metavar="MS", help="after the full interval (default 2000)")
    parser.add_argument("--rate", type=int, default=0, metavar="N", help="N seals a second, evenly spread, instead")
    parser.add_argument("--outages", type=int, default=0, metavar="PERMILLE", help="of the agents are away for a while")
    parser.add_argument("--outage-s", type=int, default=600, metavar="SECONDS", help="how long (default 600)")
    parser.add_argument("--wrong-clocks", type=int, default=0, metavar="PERMILLE", help="of the agents have one")
    parser.add_argument("--clock-error", type=int, default=120, metavar="SECONDS", help="early or late (default 120)")
    parser.add_argument("--hostile", type=int, default=0, metavar="PERMILLE", help="of the agents also send: "
                        + ", ".join(MISDEEDS))
    parser.add_argument("--broker", metavar="URL", help="another than the fleet was made for: a proxy in between")
    parser.add_argument("--seconds", type=int, help="end after so long (default: at Ctrl-C)")
    parser.add_argument("--json", action="store_true", help="JSON lines instead of text")


def make(args: argparse.Namespace) -> int:
    """0 made, 2 a mistake in the options, printed to stderr."""
    try:
        genesis = args.genesis.read_bytes()
        plan = Plan(args.area, hashlib.sha256(genesis).digest(), args.agents, args.points, args.first_point, args.seed)
        home = folder.make(args.folder, plan, args.broker)
    except (SimError, OSError) as error:
        return _mistake(error)
    meters = args.agents * args.points
    print(f"{args.agents} agents with {meters} meters in {home.folder}, points {args.first_point} to "
          f"{args.first_point + meters - 1}\n"
          f"next: gridseal sim fleet enroll {home.folder} --area-folder DIR")
    return 0


def run(args: argparse.Namespace, clock: Clock) -> int:
    """Sends until SIGINT, SIGTERM or the time. 0 all that was honest is acked, 1 not all, 2 a mistake."""
    try:
        home = folder.load(args.folder)
        plan = replace(home.plan, interval_s=args.interval, readings=args.readings, jitter_ms=args.jitter,
                       rate=args.rate, outage_permille=args.outages, outage_s=args.outage_s,
                       clock_permille=args.wrong_clocks, clock_error_s=args.clock_error, hostile_permille=args.hostile)
        fleet = Fleet(plan, clock.now_ms())
        traffic = Traffic(home, fleet, clock, args.broker)
        folder.begin(home, fleet)
        try:
            is_settled = asyncio.run(_until_signal(traffic, args))
        finally:
            traffic.close()
            folder.end(home, fleet)
    except SimError as error:
        return _mistake(error)
    _say(traffic.report(), args.json, "in the end")
    return 0 if is_settled else 1


async def _until_signal(traffic: Traffic, args: argparse.Namespace) -> bool:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError, ValueError):      # not the main thread: the caller stops us
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
    traffic.connect()
    if args.json:
        print(json.dumps({"ready": True}), flush=True)
    else:
        plan = traffic.fleet.plan
        print(f"{plan.agents} agents, {plan.agents * plan.points} meters, "
              f"{plan.agents * plan.points * 1000 / plan.period_ms:.1f} seals a second; stop with Ctrl-C", flush=True)
    await traffic.run(stop, args.seconds, lambda report: _say(report, args.json, "so far"))
    return await traffic.settle(SETTLE_S)


def _say(report: dict[str, Any], as_json: bool, when: str) -> None:
    if as_json:
        print(json.dumps(report), flush=True)
        return
    text = f"{when}: {report['sent']} sent, {report['acked']} acked, {report['unacked']} waiting"
    if report["ack_ms"]:
        text += f"; ack after {report['ack_ms']['50']} ms (95 %: {report['ack_ms']['95']} ms)"
    for what in ("misdeeds", "refused"):
        if report[what]:
            text += f"; {what}: " + ", ".join(f"{name} {count}" for name, count in sorted(report[what].items()))
    print(text, flush=True)


def _mistake(error: Exception) -> int:
    detail = error.detail if isinstance(error, SimError) else str(error)
    print(f"gridseal sim fleet: {detail}", file=sys.stderr)
    return 2
