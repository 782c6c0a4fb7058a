"""`gridseal sim board`, made from command-line options: one simulated ESP32 on a pseudo-terminal, or a look at one."""

import argparse
import hashlib
import json
import signal
import sys
import tempfile
from pathlib import Path

from sim_hardware.board import images, node, nor, partitions
from sim_hardware.board.chips import CHIPS
from sim_hardware.board.nor import WornFlash
from sim_hardware.errors import SimError

STAND_IN_BYTES = 1_300_000  # of the application, as MicroPython's for OTA has
EXAMPLE = """examples:
  gridseal sim board --pty ./board --flash flash.bin
  gridseal sim board --make-firmware firmware.bin
  gridseal sim board --flash flash.bin --unpack found
  gridseal sim board --pty ./board --flash flash.bin --unplug-at 400000"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """All options of `sim board`; the parser is the caller's."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLE
    parser.add_argument("--pty", type=Path, metavar="LINK", help="LINK is made to point at the board's port")
    parser.add_argument("--chip", choices=tuple(CHIPS), default="esp32", help="what the ROM says it is (default esp32)")
    parser.add_argument("--flash-mib", type=int, default=4, choices=tuple(nor.SIZES.values()),
                        help="size of the flash (default 4)")
    parser.add_argument("--flash", type=Path, metavar="FILE", help="keep the flash's content there, or forget it")
    parser.add_argument("--interpreter", type=Path, metavar="DIR",
                        help=f"folder of npm's {node.PACKAGE}, for the prompt; else ${node.VARIABLE}")
    parser.add_argument("--unplug-at", type=int, default=-1, metavar="N", help="the plug is pulled at byte N")
    parser.add_argument("--lose-at", type=int, default=-1, metavar="N", help="bytes get lost from byte N on")
    parser.add_argument("--lose-bytes", type=int, default=16, metavar="COUNT", help="... so many (default 16)")
    parser.add_argument("--worn-sector", type=int, default=-1, metavar="NUMBER",
                        help="a sector of 4 KiB of the flash takes no more data")
    parser.add_argument("--unpack", type=Path, metavar="DIR",
                        help="write the files that the flash holds there, partition by partition, and end")
    parser.add_argument("--make-firmware", type=Path, metavar="FILE",
                        help="write a stand-in for MicroPython's file for that chip, and end")
    parser.add_argument("--json", action="store_true", help="one line of JSON when it is plugged in, nothing else")


def run(args: argparse.Namespace) -> int:
    """Serves until SIGINT or SIGTERM or the pulled plug. 0 stopped, 2 a mistake in the options, printed to stderr."""
    try:
        if args.make_firmware is not None:
            return _make_firmware(args)
        with tempfile.TemporaryDirectory(prefix="gridseal-board-") as work:
            flash = WornFlash(args.flash or Path(work) / "flash.bin", args.flash_mib << 20)
            try:
                flash.worn_sector = args.worn_sector
                return _unpack(args, flash) if args.unpack is not None else _serve(args, flash, Path(work))
            finally:
                flash.close()
    except ModuleNotFoundError as error:
        print(f"gridseal sim board: {error}: pip install 'gridseal[flash]'", file=sys.stderr)
        return 2
    except (SimError, ValueError) as error:
        print(f"gridseal sim board: {error.detail if isinstance(error, SimError) else error}", file=sys.stderr)
        return 2


def _serve(args: argparse.Namespace, flash: WornFlash, work: Path) -> int:
    from sim_hardware.board.board import Board, Faults  # with littlefs, which other simulators do not need
    if args.interpreter is not None:
        node.find_interpreter(args.interpreter)  # a wrong one is told now, not when the prompt is wanted
    faults = Faults(args.unplug_at, args.lose_at, args.lose_bytes)
    board = Board(CHIPS[args.chip], flash, work,
                  lambda: (node.find_node(), node.find_interpreter(args.interpreter)), faults)
    device = board.plug(args.pty)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: board.stop())
    ready = {"ready": True, "pty": str(args.pty or device), "device": device, "chip": board.chip.name,
             "flash_bytes": flash.size}
    print(json.dumps(ready) if args.json else _text(ready), flush=True)
    board.serve()
    if board.is_unplugged and not args.json:
        print(f"unplugged at byte {args.unplug_at}; start it again with the same --flash to plug it in")
    return 0


def _text(ready: dict[str, object]) -> str:
    size = nor.SIZES[int(str(ready["flash_bytes"]))]
    return (f"{ready['chip']} with {size} MiB of flash on {ready['pty']}\n"
            f"  esptool --port {ready['pty']} flash-id\n"
            f"  mpremote connect {ready['pty']} exec 'print(1)'     once MicroPython is on it\n"
            "stop with Ctrl-C")


def _unpack(args: argparse.Namespace, flash: WornFlash) -> int:
    for part, count in partitions.unpack(flash, args.unpack):
        print(f"{part.label:<9} {part.offset:#08x} {part.size:#08x} {count:>4} files")
    return 0


def _make_firmware(args: argparse.Namespace) -> int:
    data = images.make_stand_in(CHIPS[args.chip], STAND_IN_BYTES)
    args.make_firmware.write_bytes(data)
    print(f"{hashlib.sha256(data).hexdigest()}  {args.make_firmware}")
    return 0
