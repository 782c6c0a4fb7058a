"""`gridseal meter scan`: finds the meters on a line and prints a ready piece of meter.toml; it only ever reads."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from firmware import config, meters, modbus, scan
from firmware.board import linux_bus

UNITS = "1-16"
TCP_UNITS = "1-16,100,126,240,247,255"  # 126 SMA's SunSpec, 240 and up Fronius' meters, 255 "the device itself"
GAP_MS = 100  # between requests: what the slowest of the known meters wants, inverters aside
SAY = Callable[[str], None]


def add_parser(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = actions.add_parser(
        "scan", help="find meters: baud rate, parity, unit number, type", description=__doc__,
        epilog="example: gridseal meter scan /dev/ttyUSB0. Only functions 3, 4 and 43/14 are sent: nothing can be "
               "changed. Some minutes on a serial line nobody answers on.")
    parser.add_argument("port", help="a serial device, tcp://host:502, or rtu+tcp://host:port")
    parser.add_argument("--units", help=f"numbers to try, such as 1-16,100 (default {UNITS}; TCP {TCP_UNITS})")
    parser.add_argument("--baud", type=int, help="only this baud rate")
    parser.add_argument("--parity", choices=("N", "E", "O"), help="only this parity")
    parser.add_argument("--point", type=int, default=1, help="number of the first point in the snippet (default 1)")
    parser.add_argument("--folder", type=Path, help="write the files that SunSpec devices need there")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")
    parser.set_defaults(run=_scan)


def find(port: str, units: list[int], lines: list[tuple[int, str]], say: SAY, gap_ms: int = GAP_MS,
         open_port: Callable[[config.Bus], linux_bus.Port] = linux_bus.open_port) -> list[scan.Finding]:
    """Returns what answers on a port. On a serial line the first setting at which anything answers is the line's."""
    if modbus.is_network(port):
        gap_ms = 0 if port.startswith("tcp://") else gap_ms
        with _opened(open_port, config.Bus(port, 9600, "N", gap_ms, scan.ANSWER_MS, ())) as line:
            there = scan.present(line, units) or scan.present(line, units, 3)
            return [scan.identify(line, unit, None) for unit in there]
    for function in (4, 3):
        for baud, parity in lines:
            say(f"{baud} baud, 8{parity}1 ...")
            with contextlib.suppress(LineRefused), \
                    _opened(open_port, config.Bus(port, baud, parity, gap_ms, scan.ANSWER_MS, ())) as line:
                there = scan.present(line, units, function)
                if there:
                    return [scan.identify(line, unit, (baud, parity)) for unit in there]
    return []


def snippet(port: str, findings: list[scan.Finding], first_point: int) -> tuple[str, dict[str, str]]:
    """Returns (a piece of meter.toml, {file name: contents} of the files that stand beside it)."""
    named = [finding for finding in findings if finding.types or finding.device]
    if not named:
        return "", {}
    lines = ["[[bus]]", f'port = "{port}"']
    if named[0].line is not None:
        lines += [f"baud = {named[0].line[0]}", f'parity = "{named[0].line[1]}"']
    files: dict[str, str] = {}
    point = first_point
    for finding in named:
        doubt = f"  # or {', '.join(finding.types[1:])}: see the label" if len(finding.types) > 1 else ""
        for name in finding.types[:1] or list(_files(finding, files)):
            lines += ["[[bus.meter]]", f"point = {point}", f"unit = {finding.unit}", f'type = "{name}"{doubt}']
            point += 1
    return "\n".join(lines) + "\n", files


def describe(finding: scan.Finding) -> list[str]:
    """What was found, for a person."""
    where = f"unit {finding.unit}"
    if finding.line is not None:
        where += f" at {finding.line[0]} baud, 8{finding.line[1]}1"
    says = f', says "{finding.product}"' if finding.product else ""
    number = f", serial number {finding.number}" if finding.number else ""
    if finding.device is not None:
        device = finding.device
        models = ", ".join(f"{model} at {address}" for model, address in device.models)
        skipped = f"; others: {', '.join(map(str, device.others))}" if device.others else ""
        return [f"{where}: SunSpec, {device.maker} {device.model} {device.version}{number}",
                f"  models {models}{skipped}"]
    if not finding.types:
        return [f"{where}: a device of an unknown type{says}. A file of your own describes it: docs/METERS.md"]
    table = meters.load(finding.types[0])
    lines = [f"{where}: {table.maker} {table.model} ({finding.types[0]}){number}{says}"]
    if len(finding.types) > 1:
        lines.append(f"  the same registers as {', '.join(finding.types[1:])}: look at the label on the meter")
    return lines


class LineRefused(Exception):
    """A setting that this line cannot have, such as parity on a pseudo-terminal."""


@contextlib.contextmanager
def _opened(open_port: Callable[[config.Bus], linux_bus.Port], line: config.Bus) -> Iterator[linux_bus.Port]:
    port = open_port(line)
    try:
        port.open()
    except OSError as error:
        if line.parity != "N":
            raise LineRefused(str(error)) from error
        raise
    try:
        yield port
    finally:
        port.close()


def _files(finding: scan.Finding, files: dict[str, str]) -> list[str]:
    """Adds a file for each model that is a meter of its own (storage goes with the inverter); their types' names."""
    device = finding.device
    storage = [model for model in device.models if model[0] in (713, 802)]
    others = [model for model in device.models if model not in storage]
    groups = [[model] for model in others] or [[storage[0]]]
    if others and storage:  # 713 and 802 say the same
        at = next((index for index, group in enumerate(groups) if group[0][0] in (101, 102, 103, 701)), 0)
        groups[at].append(storage[0])
    names = []
    for group in groups:
        name = f"sunspec-{finding.unit}" + (f"-{group[0][0]}" if len(groups) > 1 else "")
        text = [f"maker = {json.dumps(device.maker or 'unknown')}", f"model = {json.dumps(device.model or 'SunSpec')}"]
        for model, address in group:
            text += ["[[sunspec]]", f"model = {model}", f"address = {address}"]
        files[name + ".toml"] = "\n".join(text) + "\n"
        names.append(name)
    return names


def _scan(args: argparse.Namespace) -> int:
    is_tcp = modbus.is_network(args.port)
    units = units_of(args.units or (TCP_UNITS if is_tcp else UNITS))
    lines = [line for line in scan.LINES if args.baud in (None, line[0]) and args.parity in (None, line[1])]
    if args.baud and not lines:
        lines = [(args.baud, parity) for parity in ("N", "E", "O") if args.parity in (None, parity)]
    findings = find(args.port, units, lines, lambda text: print(text, file=sys.stderr, flush=True))
    text, files = snippet(args.port, findings, args.point)
    if args.folder is not None:
        for name, content in files.items():
            with open(args.folder / name, "x", encoding="utf-8") as file:
                file.write(content)
    if args.json:
        print(json.dumps({"meters": [
            {"unit": one.unit, "line": one.line, "types": one.types, "product": one.product, "number": one.number,
             "sunspec": one.device and one.device._asdict()} for one in findings], "snippet": text, "files": files}))
        return 0 if findings else 1
    for finding in findings:
        print("\n".join(describe(finding)))
    if text:
        print(f"\n# for meter.toml\n{text}", end="")
    for name, content in files.items():
        print(f"\n# {name}, beside meter.toml\n{content}", end="")
    if not findings:
        print(f"nothing answers on {args.port}: wires A and B, power, unit numbers (--units 1-247)?", file=sys.stderr)
        return 1
    return 0


def units_of(text: str) -> list[int]:
    """The numbers of "1-16,100"; ValueError otherwise."""
    units: list[int] = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        try:
            units += range(int(first), int(last if dash else first) + 1)
        except ValueError as error:
            raise ValueError(f"--units: expected numbers such as 1-16,100, not {text!r}") from error
    if not units or not all(0 <= unit <= 255 for unit in units):
        raise ValueError(f"--units: expected numbers from 0 to 255, not {text!r}")
    return units
