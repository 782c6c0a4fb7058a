"""Makes a meter out of an empty board, step by step; each step looks at what is there and does the rest.

Theory. Nothing is remembered on the computer: the board itself says how far it is. Flash is compared by MD5 and what
differs is written; files of its file system are compared by SHA-256, and a file has its name only when it is whole;
keys are made where there are none. So a run after any interruption, or on a finished board, ends in the same state. A
board whose partition table is not ours is new: its file system and journal are erased before our table is written, so
nothing of an earlier life is taken for its own. The boot loader starts an interpreter only when its hash holds, and
main.py is the last file to come: half a board starts nothing.
"""

import hashlib
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from deploy.flash import agent, interpreter, layout, on_board, request, settings, tools
from deploy.flash.errors import FlashError
from firmware import update
from firmware.planning import bus as planned
from firmware.planning import journal as planned_journal
from firmware.wire import cbor, cose

Say = Callable[[str], None]
UNSIGNED_KID, UNSIGNED = bytes(8), bytes(64)


class Order(NamedTuple):
    """What is to be done. firmware: None leaves the interpreter that is there; counter: the version's number, above
    which updates are taken."""

    settings: settings.Settings
    firmware: interpreter.Interpreter | None
    counter: int


class Result(NamedTuple):
    kid: bytes
    chip: str
    flash_bytes: int
    request: Path
    wrote: list[str]  # what was not there yet
    measurement: bytes


class Flashing:
    """One run at one board. `say` gets a line at each step."""

    def __init__(self, board: tools.Board, order: Order, say: Say) -> None:
        self._board, self._order = board, order
        self._start_s = time.monotonic()
        self._say_line = say
        self._wrote: list[str] = []
        self._parts: list[layout.Part] = []

    def run(self) -> Result:
        """All of it; FlashError, or BadConfig for what no board could keep up with, says what stands in the way."""
        self._check_plan()
        found = self._find()
        model = f"{interpreter.chip_named(found.chip).model}-{found.flash_bytes >> 20}m"
        files = self._compile()
        manifest = make_manifest(model, self._order, files)
        with tempfile.TemporaryDirectory(prefix="gridseal-flash-") as work:
            self._write_flash(found, agent.slot_image(manifest, files), Path(work))
            self._write_files(found, Path(work))
        asked = self._enrol(model)
        if self._order.settings.is_approved:
            request.check_certificate(self._order.settings.files[settings.CERTIFICATE], asked)
            self._start()
        measurement = hashlib.sha256(cbor.encode([list(row) for row in agent.rows_of(files)])).digest()
        return Result(asked.kid, found.chip, found.flash_bytes, self._order.settings.folder / "request.cbor",
                      self._wrote, measurement)

    def _say(self, text: str) -> None:
        self._say_line(f"{time.monotonic() - self._start_s:6.1f} s  {text}")

    def _check_plan(self) -> None:
        config = self._order.settings.config
        planned.check(config, is_one_thread=True)
        for line in planned.predict(config):
            self._say(f"{line.port}: {line.points} points, {planned.describe(line, config)}")

    def _find(self) -> tools.Found:
        self._say(f"asks what is at {self._board.port}")
        found = self._board.find()
        chip = interpreter.chip_named(found.chip)
        firmware = self._order.firmware
        if firmware is not None and firmware.chip != chip:
            raise FlashError(f"{self._board.port}: this board is an {found.chip}, and the file of --firmware is for an "
                             f"{firmware.chip.name}. Nothing was written")
        try:
            self._parts = layout.layout(found.flash_bytes)
        except ValueError as error:
            raise FlashError(f"{self._board.port}: {error}. Nothing was written") from error
        room = layout.named(self._parts, "ota_0").size
        if firmware is not None and len(firmware.application) > room:
            raise FlashError(f"{self._board.port}: the file's application has {len(firmware.application)} bytes, and a "
                             f"flash of {found.flash_bytes >> 20} MiB has room for {room}: take MicroPython's build "
                             '"with support for OTA", or a board with 8 MiB. Nothing was written')
        journal = layout.named(self._parts, "journal")
        self._say(f"{found.chip} with {found.flash_bytes >> 20} MiB of flash; "
                  + planned_journal.describe(self._order.settings.config, journal.size))
        return found

    def _compile(self) -> agent.Files:
        types = self._order.settings.types
        files = agent.build(types)
        self._say(f"compiled the agent: {len(files)} files, {sum(len(data) for _, data in files)} bytes, meters "
                  f"{', '.join(types)}")
        return files

    def _write_flash(self, found: tools.Found, slot: bytes, work: Path) -> None:
        table = layout.make_table(self._parts)
        firmware = self._order.firmware
        if self._board.read(layout.TABLE_AT, layout.TABLE_BYTES, work / "table") != table:
            if firmware is None:
                raise FlashError(f"{self._board.port}: this board was not made by gridseal flash: give "
                                 "MicroPython's file with --firmware FILE --sha256 HASH. Nothing was written")
            self._say("a new board: erases what was in its file system and journal")
            self._erase_settings(found)
        pieces = {"agent": (layout.named(self._parts, "romfs").offset, slot)}
        if firmware is not None:
            pieces = {"boot loader": (firmware.chip.bootloader_at,
                                      interpreter.sized(firmware.bootloader, found.flash_bytes)),
                      "partition table": (layout.TABLE_AT, table),
                      "choice of interpreter": (layout.OTADATA_AT, b"\xff" * layout.OTADATA_BYTES),
                      "MicroPython": (layout.INTERPRETER_AT, firmware.application), **pieces}
        rows = []
        for offset, data in pieces.values():
            rows.append((offset, work / f"{offset:x}.bin"))
            rows[-1][1].write_bytes(data)
        self._say(f"writes {', '.join(pieces)}: {sum(len(data) for _, data in pieces.values()) >> 10} KiB, where they "
                  "are not there yet")
        written = self._board.write(rows)
        self._wrote += [name for name, (offset, _) in pieces.items() if offset in written]
        self._say("verified; written: " + (", ".join(self._wrote) or "nothing, all of it was there"))

    def _erase_settings(self, found: tools.Found) -> None:
        first = layout.named(self._parts, "vfs").offset
        self._board.erase(first, found.flash_bytes - first)

    def _write_files(self, found: tools.Found, work: Path) -> None:
        wanted = dict(agent.starters())
        main = wanted.pop("main.py")
        wanted |= self._order.settings.files
        there = self._probe([*wanted, "main.py"])
        if there["files"] is None:
            self._say("the file system cannot be read: erases it; the board makes a new one")
            self._erase_settings(found)
            there = self._probe([*wanted, "main.py"])
            if there["files"] is None:
                raise FlashError(f"{self._board.port}: the board's file system cannot be made")
        self._say(f"MicroPython {there['version']} answers" + (", with a key" if there["has_key"] else ""))
        if not there["maps_code"]:
            self._say(f"it does not map code from flash (MICROPY_VFS_ROM): code goes to RAM, {there['free'] >> 10} KiB "
                      "are free; a board without PSRAM has too little (docs/HARDWARE.md)")
        if self._order.settings.is_approved:
            wanted["main.py"] = main  # the last to come
        fresh = {name: data for name, data in wanted.items()
                 if there["files"].get(name) != hashlib.sha256(data).hexdigest()}
        if fresh:
            self._say(f"copies {', '.join(fresh)}")
            rows = []
            for number, (name, data) in enumerate(fresh.items()):
                rows.append((work / f"file-{number}", name))
                rows[-1][0].write_bytes(data)
            self._board.copy(rows)
            self._wrote += fresh

    def _probe(self, names: list[str]) -> dict[str, Any]:
        found: dict[str, Any] = on_board.read(self._board.run(on_board.probe(names)))
        return found

    def _enrol(self, model: str) -> request.Asked:
        self._say("asks the board for its keys' public halves and its signed request")
        known = self._order.settings
        code = on_board.enrol(known.config.area, model, self._order.counter)
        point, message, updated = on_board.read(self._board.run(code))
        if updated is not None:
            self._say(f"the board ran version {updated}, which had come by an update; from now on it runs this "
                      "computer's, and takes newer ones only")
        asked = request.check(bytes.fromhex(point), bytes.fromhex(message), known.files[settings.GENESIS])
        signature = bytes.fromhex(on_board.read(self._board.run(on_board.sign(request.digest_of(asked)))))
        (known.folder / "request.cbor").write_bytes(request.encode(asked, signature))
        self._say(f"device {asked.kid.hex()}; its request is in {known.folder / 'request.cbor'}")
        return asked

    def _start(self) -> None:
        self._board.restart()
        self._say("started: the agent runs")


def make_manifest(model: str, order: Order, files: agent.Files) -> bytes:
    """The slot's manifest, signed by nobody: who holds the cable needs no signature, and an agent that runs asks for
    none. What came by the air was checked before it was written."""
    payload = update.encode_manifest(model, order.counter, agent.rows_of(files))
    return bytes(cose.assemble(UNSIGNED_KID, payload, UNSIGNED))
