"""`gridseal meter replace`: makes one fact of a meter's end and its successor's start, signed by agent and operator.

    gridseal meter replace agent 7 --old 104711/0 --start 12/0 --area-folder area    where both keys are at hand
    gridseal meter replace agent 7 --old 104711/0 --start 12/0 --as agent            on the device; makes replace-7.cbor
    gridseal meter replace replace-7.cbor 7 --as operator --area-folder area         where the operator's key is

Stop the agent, read the old meter's registers, change the meters, type this, start the agent. What is in its journal is
sealed as the old meter's; what is read from here on is the new one's (`epoch` in meter.toml).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from deploy import enroll
from deploy.clock import open_clock
from deploy.meter_file import set_epoch
from deploy.operator import Outcome, Person
from firmware import agent, config, meters
from firmware.board import linux
from firmware.wire import cbor, transaction
from firmware.wire.errors import Refused

READ = "read"
BODY_BYTES = 4096


class _Device(Person):
    """A meter agent as somebody who sends transactions: the keys in its folder."""

    def __init__(self, folder: Path, settings: config.Config) -> None:
        self.folder, self.area, self.brokers = folder, settings.area, list(settings.brokers)
        self._take(folder, "agent", folder / settings.genesis, folder / settings.ca)


def add_parser(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = actions.add_parser(
        "replace", help="a meter was replaced: both registers, signed by agent and operator", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example: gridseal meter replace agent 7 --old 104711/0 --start 12/0 --area-folder area")
    parser.add_argument("folder", type=Path, help="the agent's folder; for --as operator the replace-POINT.cbor")
    parser.add_argument("point", type=int, help="the metering point's number")
    parser.add_argument("--old", metavar="WH[/WH]", help="the old meter's last import and export register; read: ask "
                        "the meter that is on the bus now")
    parser.add_argument("--start", metavar="WH[/WH]", default=READ, help="the new meter's first registers (default: "
                        "ask the meter that is on the bus now)")
    parser.add_argument("--maker", help="of the new meter (default: by its type in the meter.toml)")
    parser.add_argument("--model", help="of the new meter (default: by its type in the meter.toml)")
    parser.add_argument("--serial", default="", help="of the new meter")
    parser.add_argument("--as", dest="side", choices=("agent", "operator"),
                        help="sign for one side only (default: both)")
    parser.add_argument("--area-folder", type=Path, metavar="DIR", help="made by gateway init; for the operator's side")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")
    parser.add_argument("--clock", help=argparse.SUPPRESS)
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    if args.side != "agent" and args.area_folder is None:
        raise ValueError("--area-folder DIR: where the operator's key is (or --as agent)")
    if args.side == "operator":
        body = _read_body(args.folder, args.point)
        return _tell(args, [("operator", _send_operator(args, body))])
    settings, folder = linux.load_config(args.folder)
    place = next((place for place in config.places(settings) if place.point == args.point), None)
    if place is None:
        raise ValueError(f"{folder / linux.CONFIG_NAME} has no point {args.point}")
    body = _make_body(args, settings, place)
    file = folder / f"replace-{args.point}.cbor"
    file.write_bytes(cbor.encode(body))
    device = _Device(folder, settings)
    signed = device.sign(transaction.REPLACE_METER, body, open_clock(args.clock))
    outcomes = [("agent", device.submit(settings.area, signed, list(settings.brokers)))]
    if outcomes[0][1].code == 0:
        set_epoch(folder / linux.CONFIG_NAME, args.point, place.meter_epoch + 1)
        if args.side is None:
            outcomes.append(("operator", _send_operator(args, body)))
    return _tell(args, outcomes, file)


def _send_operator(args: argparse.Namespace, body: list) -> Outcome:
    person = Person(args.area_folder)
    signed = person.sign(transaction.REPLACE_METER, body, open_clock(args.clock))
    return person.submit(enroll.area_name(args.area_folder), signed, enroll.area_brokers(args.area_folder))


def _make_body(args: argparse.Namespace, settings: config.Config, place: agent.Place) -> list:
    if args.old is None:
        raise ValueError("--old WH/WH: the old meter's last registers (--old read, while it is still on the bus)")
    if args.old == args.start == READ:
        raise ValueError("--old read and --start read: that is one meter; write down the one that is gone")
    old = _registers(args.old, "--old", settings, place)
    start = _registers(args.start, "--start", settings, place)
    return [args.point, *old, place.meter.maker if args.maker is None else args.maker,
            place.meter.model if args.model is None else args.model, args.serial, *start]


def _registers(text: str, option: str, settings: config.Config, place: agent.Place) -> tuple[int | None, int | None]:
    """Import and export in Wh, as written or read; None for a register that the meter has not."""
    names = [field.name for field in place.meter.fields]
    if text == READ:
        line = settings.buses[place.bus]
        rows = {row.name: row for row in linux.meter_read(line.port, place.meter.type, place.unit, line.baud,
                                                          line.parity)}
        values = [rows[name].value if name in names else None for name in (meters.IMPORT, meters.EXPORT)]
        if any(value is None for name, value in zip((meters.IMPORT, meters.EXPORT), values) if name in names):
            raise ValueError(f"{option} read: the meter does not answer; write its registers as WH/WH")
        return values[0], values[1]
    import_wh, _, export_wh = text.partition("/")
    has_export = meters.EXPORT in names
    if not import_wh.isdigit() or not (export_wh.isdigit() if has_export else export_wh == ""):
        form = "WH/WH, import and export" if has_export else "WH"
        raise ValueError(f"{option}: expected {form}, whole Wh as the meter shows them, or read; not {text!r}")
    return int(import_wh), int(export_wh) if has_export else None


def _read_body(path: Path, point: int) -> list:
    if path.is_dir():
        path = path / f"replace-{point}.cbor"
    data = path.read_bytes()
    if len(data) > BODY_BYTES:
        raise Refused("oversize", BODY_BYTES, len(data))
    body: list = cbor.decode(data)
    found = transaction.decode_replace_meter_body(body)
    if found.point != point:
        raise ValueError(f"{path} is about point {found.point}, not {point}")
    return body


def _tell(args: argparse.Namespace, outcomes: list[tuple[str, Outcome]], file: Path | None = None) -> int:
    is_good = all(outcome.code == 0 for _, outcome in outcomes)
    if args.json:
        print(json.dumps({"point": args.point, "wills": [
            {"side": side, "height": outcome.height, "code": outcome.code, "result": outcome.reason}
            for side, outcome in outcomes]}))
        return 0 if is_good else 1
    for side, outcome in outcomes:
        print(f"{side}: {'signed' if outcome.code == 0 else 'refused: ' + outcome.reason} (block {outcome.height})")
    if is_good and args.side == "agent":
        print(f"send {file} to the operator, who types:\n"
              f"  gridseal meter replace {file} {args.point} --as operator --area-folder DIR")
    if is_good and file is not None:
        print(f"meter.toml has the new epoch; start the agent: gridseal meter run {file.parent}")
    return 0 if is_good else 1
