"""`gridseal gateway`: an area's folder made, its replicas and broker run, their state shown.

`run DIR` runs all of an area that lives on this machine; `run DIR/replica-K` runs that one replica, as a cabinet's Pi
does. Both run the same process per replica.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from deploy import broker, joining, mosquitto, provision
from deploy.clock import open_clock
from deploy.supervisor import Program, Supervisor, gridseal, read_list
from firmware.wire import genesis

STATUS_S = 3.0  # a replica on this machine that does not answer in this time is shown as silent
READY_S = 30.0
LOOK_S = 1.0  # between two looks for replicas that have joined


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("gateway", help="one replica or a whole area", description=__doc__)
    actions = parser.add_subparsers(dest="action", required=True)
    init = actions.add_parser("init", help="make an area: CA, keys, broker, genesis, replicas",
                              epilog="example: gridseal gateway init area --area home --replicas 4")
    init.add_argument("folder", type=Path)
    init.add_argument("--area", default="home", help="1 to 32 of a-z, 0-9 and '-'")
    init.add_argument("--replicas", type=int, default=1, help="1 (a single Pi) or 4 (one may lie or fail)")
    init.add_argument("--brokers", type=int, default=1, help="at most one per replica")
    init.add_argument("--host", default="127.0.0.1", help="address where replicas and brokers listen")
    init.add_argument("--broker-name", action="append", default=[], help="a further name of the brokers' machine")
    init.add_argument("--free-ports", action="store_true", help="take free ports instead of 7100, 7200, 8883")
    init.add_argument("--plain-broker", action="store_true",
                      help="the embedded broker on loopback instead of Mosquitto: no TLS, no access list")
    init.add_argument("--set", action="append", default=[], metavar="NAME=NUMBER", help="a chain parameter")
    init.add_argument("--speed", type=int, default=1, help="labels run this many times faster: a demo chain")
    init.add_argument("--ack-interval", type=int, default=10, metavar="SECONDS", help="between two acks to one agent")
    init.set_defaults(run=_init)
    run = actions.add_parser("run", help="run an area, or one replica of it",
                             epilog="example: gridseal gateway run area")
    run.add_argument("folder", type=Path, help="the area's folder, or one replica's")
    run.set_defaults(run=_run)
    status = actions.add_parser("status", help="who runs, how far they are",
                                epilog="example: gridseal gateway status area --json")
    status.add_argument("folder", type=Path, help="the area's folder, or one replica's")
    status.set_defaults(run=_status)
    for action in (init, run, status, joining.add_parser(actions)):
        action.add_argument("--clock", help=argparse.SUPPRESS)
        action.add_argument("--json", action="store_true", help="JSON instead of text")


def area_programs(folder: Path, clock_folder: str | None = None) -> list[Program]:
    """Returns what runs an area on this machine: its brokers, then its replicas."""
    programs = [broker.program(path.parent) for path in sorted(folder.glob("broker-*/address"))]
    clock = ["--clock", clock_folder] if clock_folder else []
    for home in replica_folders(folder):
        programs.append(Program(home.name, "replica", home, gridseal("gateway", "run", str(home), *clock)))
    return programs


def replica_folders(folder: Path) -> list[Path]:
    """Returns the replicas' folders of an area, by index; the folder itself when it is a replica's."""
    if (folder / "gateway.toml").exists():
        return [folder]
    found = [path.parent for path in folder.glob("replica-*/gateway.toml")]
    return sorted(found, key=lambda path: int(path.name.rpartition("-")[2]))


def replica_status(home: Path) -> dict[str, Any]:
    """Returns what a replica says of itself, or {"folder", "silent": reason} when it does not answer."""
    facts: dict[str, Any] = {"folder": str(home)}
    try:
        run = json.loads((home / "data" / "run.json").read_text())
        with urllib.request.urlopen(f"http://{run['api']}/api/status", timeout=STATUS_S) as answer:
            return {**facts, **json.load(answer)}
    except FileNotFoundError:
        return {**facts, "silent": "it does not run"}
    except (OSError, ValueError, KeyError, urllib.error.URLError) as error:
        return {**facts, "silent": str(error) or type(error).__name__}


def _init(args: argparse.Namespace) -> int:
    changes = {}
    for setting in args.set:
        name, _, number = setting.partition("=")
        changes[name] = int(number)
    plan = provision.Plan(
        args.area, args.replicas, args.brokers, open_clock(args.clock).now_ms() // 1000, args.speed, changes,
        args.host, tuple(args.broker_name), args.plain_broker, args.free_ports, args.ack_interval)
    genesis.parameters(changes)
    chain_id = provision.make_area(args.folder, plan)
    values = {"folder": str(args.folder), "area": args.area, "chain_id": chain_id.hex(), "replicas": args.replicas}
    if args.json:
        print(json.dumps(values))
        return 0
    print(f"area {args.area}: {args.replicas} replica{'s' if args.replicas > 1 else ''}, chain {chain_id.hex()}\n"
          f"give {args.folder / 'genesis.cbor'} to whoever wants to check a bill; keep {args.folder / 'recovery'} "
          "offline\n"
          f"start it: gridseal gateway run {args.folder}")
    if args.replicas == 1:
        print("one signer: tamper-evident, not Byzantine")
    if not args.plain_broker and mosquitto.find() is None:
        print("Mosquitto is not installed: sudo apt install mosquitto")
    return 0


def _run(args: argparse.Namespace) -> int:
    if (args.folder / "gateway.toml").exists():
        from gateway.config import load_gateway
        from gateway.node import run as run_replica
        return _until_signal(lambda stop: run_replica(load_gateway(args.folder), open_clock(args.clock), stop))
    if not replica_folders(args.folder):
        raise FileNotFoundError(f"{args.folder} is neither an area nor a replica; gridseal gateway init makes one")
    return _until_signal(lambda stop: _run_area(args.folder.resolve(), args.clock, stop))


async def _run_area(folder: Path, clock_folder: str | None, stop: asyncio.Event) -> None:
    supervisor = Supervisor(folder, lambda line: print(line, flush=True))
    try:
        for program in area_programs(folder, clock_folder):
            await supervisor.start(program)
        await wait_ready(supervisor, folder)
        for home in replica_folders(folder):
            facts = replica_status(home)
            print(f"{home.name} runs, page http://{facts.get('api', '?')}/", flush=True)
        print("the area runs; Ctrl-C ends it", flush=True)
        await _start_newcomers(supervisor, folder, clock_folder, stop)
    finally:
        await supervisor.stop(("replica", "broker"))


async def _start_newcomers(supervisor: Supervisor, folder: Path, clock_folder: str | None,
                           stop: asyncio.Event) -> None:
    """Until the end: replicas whose folders `gateway join` has made are started as well."""
    while not stop.is_set():
        for program in area_programs(folder, clock_folder):
            if program.name not in supervisor.running and (program.folder / "data").exists():
                await supervisor.start(program)
                print(f"{program.name} joins", flush=True)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), LOOK_S)


async def wait_ready(supervisor: Supervisor, folder: Path, wait_s: float = READY_S) -> None:
    """Returns when every replica answers and has a broker; TimeoutError or ChildProcessError with its last words."""
    loop = asyncio.get_running_loop()
    end = loop.time() + wait_s
    for home in replica_folders(folder):
        while True:
            facts = await asyncio.to_thread(replica_status, home)
            if any(one.get("connected") for one in facts.get("brokers", ())):
                break
            if supervisor.running[home.name].is_down_for_good:
                raise ChildProcessError(f"{home.name} gave up: {supervisor.last_words(home.name)}")
            if loop.time() > end:
                raise TimeoutError(f"{home.name} is not ready: {facts.get('silent', 'no broker')}; "
                                   f"{supervisor.last_words(home.name)}")
            await asyncio.sleep(0.1)


def _until_signal(work: Any) -> int:
    async def main() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await work(stop)

    asyncio.run(main())
    return 0


def area_status(folder: Path) -> dict[str, Any]:
    """Returns {"replicas": [...], "processes": [...]}: what replicas say, and the process ids of all that runs here."""
    return {"replicas": [replica_status(home) for home in replica_folders(folder)], "processes": read_list(folder)}


def _status(args: argparse.Namespace) -> int:
    if not replica_folders(args.folder):
        raise FileNotFoundError(f"{args.folder} is neither an area nor a replica")
    values = area_status(args.folder)
    silent = [one for one in values["replicas"] if "silent" in one]
    if args.json:
        print(json.dumps(values))
    else:
        for one in values["replicas"]:
            print(_status_line(one))
        for row in values["processes"]:
            if row["kind"] != "replica":
                print(f"{row['name']:<12} {row['kind']:<8} pid {row['pid'] or 'down'}")
        if len(values["replicas"]) == 1:
            print("one signer: tamper-evident, not Byzantine")
    if silent:
        print(f"{len(silent)} of {len(values['replicas'])} do not answer", file=sys.stderr)
    return 1 if silent else 0


def _status_line(one: dict[str, Any]) -> str:
    name = Path(one["folder"]).name
    if "silent" in one:
        return f"{name:<12} silent: {one['silent']}"
    refused = sum(one["refused"].values())
    role = "primary" if one.get("primary") == one.get("index") else "backup"
    return (f"{name:<12} height {one['height']} view {one['view']} {role:<8} readings {one['readings']} "
            f"refused {refused} lag {one['lag_ms'] / 1000:.1f} s pid {one['pid']}")
