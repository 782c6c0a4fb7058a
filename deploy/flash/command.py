"""`gridseal flash`: makes a meter agent out of an ESP32 board and a meter.toml; run again, it finishes."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

from firmware.board import linux
from firmware.config import BadConfig

GOOD, BAD, USAGE = 0, 1, 2
BAUD = 460_800
EPILOG = """examples:
  gridseal flash /dev/ttyUSB0 --config meter-1 --area-folder area --firmware ESP32_GENERIC-OTA.bin --sha256 HASH
  gridseal flash /dev/ttyUSB0 --config meter-1
The second line puts a changed meter.toml or an approved board's certificate on a board that was flashed before."""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("flash", help="make a meter agent out of an ESP32 board", description=__doc__,
                                 epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("port", help="the board's serial port, such as /dev/ttyUSB0")
    parser.add_argument("--config", type=Path, required=True, metavar="FILE",
                        help="its meter.toml, or the folder it is in; the request is written there, and certificate, "
                        "genesis.cbor and wifi.toml are looked for there")
    parser.add_argument("--firmware", type=Path, metavar="FILE",
                        help="MicroPython's .bin for this chip with OTA (default: leave what is on the board)")
    parser.add_argument("--sha256", metavar="HASH", help="what the file of --firmware must hash to")
    parser.add_argument("--area-folder", type=Path, metavar="DIR",
                        help="take the genesis from there, where the meter's folder has none")
    parser.add_argument("--counter", type=int, default=0, metavar="N",
                        help="the version's number: updates must have a higher one (default 0)")
    parser.add_argument("--baud", type=int, default=BAUD, help=f"speed for writing flash (default {BAUD})")
    parser.add_argument("--json", action="store_true", help="one JSON object at the end; steps go to stderr")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from deploy.flash.errors import FlashError
    try:
        return _flash(args)
    except BadConfig as error:
        print(f"gridseal flash: {error}", file=sys.stderr)
        return USAGE
    except FlashError as error:
        print(f"gridseal flash: {error}", file=sys.stderr)
        return BAD


def _flash(args: argparse.Namespace) -> int:
    from deploy.flash import interpreter, settings, steps, tools
    if (args.firmware is None) != (args.sha256 is None):
        raise ValueError("--firmware and --sha256 belong together: the hash stands on the page the file comes from")
    if not 0 <= args.counter < 1 << 32:
        raise ValueError(f"--counter: 0 to 4294967295, not {args.counter}")
    firmware = interpreter.read(args.firmware, args.sha256) if args.firmware is not None else None
    _take_genesis(args)
    known = settings.load(args.config)
    out = sys.stderr if args.json else sys.stdout
    flashing = steps.Flashing(tools.Board(args.port, args.baud), steps.Order(known, firmware, args.counter),
                              lambda line: print(line, file=out, flush=True))
    result = flashing.run()
    if args.json:
        print(json.dumps({"kid": result.kid.hex(), "chip": result.chip, "flash_bytes": result.flash_bytes,
                          "request": str(result.request), "wrote": result.wrote, "is_approved": known.is_approved,
                          "measurement": result.measurement.hex()}))
    else:
        print(_next(args, known))
    return GOOD


def _take_genesis(args: argparse.Namespace) -> None:
    """The area's genesis comes beside a meter.toml that has none yet."""
    if args.area_folder is None:
        return
    settings, folder = linux.load_config(args.config)
    if not (folder / settings.genesis).exists():
        shutil.copy(args.area_folder / "genesis.cbor", folder / settings.genesis)


def _next(args: argparse.Namespace, known: object) -> str:
    from deploy.flash.settings import Settings
    assert isinstance(known, Settings)
    again = f"gridseal flash {args.port} --config {args.config}"
    area = args.area_folder or "DIR"
    if known.is_approved:
        return (f"next:\n  gridseal enroll list --area-folder {area}      its kid is among them\n"
                f"  mpremote connect {args.port}                 what it says; Ctrl-X ends that")
    points = " ".join(f"--point {meter.point}" for bus in known.config.buses for meter in bus.meters)
    return (f"next, the operator:\n  gridseal enroll approve {known.folder} --area-folder {area} {points}\n"
            f"then, with the certificate it wrote:\n  {again}")


