"""`gridseal sim security-device`, made from command-line options and a clock: one simulated control device."""

import argparse
import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from sim_hardware.bus import PtyBus, TcpBus
from sim_hardware.command import parse_option
from sim_hardware.config import BAUDS
from sim_hardware.device_control import DeviceControl
from sim_hardware.errors import SimError
from sim_hardware.security_device import ROLE_NAMES, SOFTWARE_BYTES, Device, Kind, factory_files
from sim_hardware.units import Clock

EXAMPLE = """examples:
  gridseal sim security-device --device bay-1 --tcp 127.0.0.1:5030 --twin --control 127.0.0.1:5031
  gridseal sim security-device --device bay-1 --export files
  echo 'tamper settings 17' | nc -N 127.0.0.1 5031"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """All options of `sim security-device`; the parser is the caller's."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLE
    parser.add_argument("--device", default="bay-1", help="its name, as its serial text says (default bay-1)")
    parser.add_argument("--model", default="ssc-100", help="its product code (default ssc-100)")
    parser.add_argument("--release", default="2.0", help="the version of software and strategy (default 2.0)")
    parser.add_argument("--unit", type=int, default=1, help="number on the bus, 1..247 (default 1)")
    parser.add_argument("--twin", action="store_true", help="an A/B twin answers at the next unit")
    line = parser.add_mutually_exclusive_group()
    line.add_argument("--tcp", metavar="HOST:PORT", help="Modbus TCP; port 0 takes a free one (default)")
    line.add_argument("--pty", metavar="LINK", help="Modbus RTU on a pseudo-terminal, LINK is made to point at it")
    parser.add_argument("--baud", type=int, default=9600, choices=BAUDS, help="of the serial line (default 9600)")
    parser.add_argument("--seed", type=int, default=1, help="of the files' content (default 1)")
    parser.add_argument("--software-bytes", type=int, default=SOFTWARE_BYTES, help="length of the software image")
    parser.add_argument("--control", metavar="HOST:PORT", help="alter it while it runs; port 0 takes a free one")
    parser.add_argument("--export", type=Path, metavar="DIR",
                        help="write software.bin, strategy.bin and settings.bin there, as the manufacturer hands them "
                        "to the laboratory, and end")
    parser.add_argument("--json", action="store_true", help="one line of JSON when it listens, nothing else")


def run(args: argparse.Namespace, clock: Clock) -> int:
    """Serve until SIGINT or SIGTERM. 0 stopped, 2 a mistake in the options, printed to stderr."""
    kind = Kind(args.seed, args.model, args.release, args.device, args.software_bytes)
    try:
        device = Device(kind, args.unit, has_twin=args.twin, rtu=args.pty is not None)
        if args.export is not None:
            for path in export(kind, args.export):
                print(path)
            return 0
        asyncio.run(_until_signal(args, device, clock))
    except SimError as error:
        print(f"gridseal sim security-device: {error.detail}", file=sys.stderr)
        return 2
    return 0


def export(kind: Kind, folder: Path) -> list[Path]:
    """Writes the three files that a laboratory certifies."""
    folder.mkdir(parents=True, exist_ok=True)
    names = {role: name for name, role in ROLE_NAMES.items()}
    paths = []
    for file in factory_files(kind)[:3]:
        paths.append(folder / f"{names[file.role]}.bin")
        paths[-1].write_bytes(file.data)
    return paths


async def serve(device: Device, bus: "TcpBus[Device] | PtyBus[Device]", control: tuple[str, int] | None,
                stop: asyncio.Event, on_ready: Callable[[dict[str, object]], None]) -> None:
    """Serves one device until `stop`; on_ready gets {"ready", "buses", "control"}."""
    port = DeviceControl(control, device) if control else None
    try:
        on_ready({"ready": True, "buses": [await bus.start()], "control": await port.start() if port else None})
        await stop.wait()
    finally:
        await bus.stop()
        if port:
            await port.stop()


def make_bus(args: argparse.Namespace, device: Device, clock: Clock) -> "TcpBus[Device] | PtyBus[Device]":
    """The device's line by the options."""
    if args.pty is not None:
        return PtyBus(device, lambda: None, args.pty, args.baud, "N", clock)
    return TcpBus(device, lambda: None, *parse_option(args.tcp or "127.0.0.1:0", "--tcp"))


async def _until_signal(args: argparse.Namespace, device: Device, clock: Clock) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError, ValueError):      # not the main thread: the caller stops us
            asyncio.get_running_loop().add_signal_handler(number, stop.set)

    def on_ready(ready: dict[str, object]) -> None:
        print(json.dumps(ready) if args.json else _text(device, ready), flush=True)

    control = parse_option(args.control, "--control") if args.control else None
    await serve(device, make_bus(args, device, clock), control, stop, on_ready)


def _text(device: Device, ready: dict[str, object]) -> str:
    buses = ready["buses"]
    assert isinstance(buses, list)
    facts = buses[0]
    where = f"Modbus TCP on {facts['tcp']}" if "tcp" in facts else f"Modbus RTU on {facts['pty']}, {facts['baud']} baud"
    units = " and ".join(str(device.unit + at) for at in range(len(device.sides)))
    lines = [where, f"  unit {units}: {device.kind.model} {device.kind.version}, device {device.kind.device}"]
    if ready["control"]:
        lines.append(f"control: {ready['control']} (say: help)")
    return "\n".join(lines + ["stop with Ctrl-C"])
