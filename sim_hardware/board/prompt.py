"""Runs the real MicroPython as the board's prompt: a process of Node with repl.mjs, files kept on the board's flash."""

import os
import subprocess
from pathlib import Path

from sim_hardware.board import files, images
from sim_hardware.board.chips import Chip
from sim_hardware.board.nor import NorFlash
from sim_hardware.board.partitions import APP, BadTable, Partition, file_system, read_table

BRIDGE = Path(__file__).with_name("repl.mjs")


class Unbootable(Exception):
    """What the flash holds does not start; the text is what the chip prints."""


class Prompt:
    """One start of the interpreter. `output` and `kept` are descriptors to be read when select says so."""

    def __init__(self, node: str, interpreter: Path, flash: NorFlash, chip: Chip, folder: Path) -> None:
        """Unbootable when boot loader, table or application do not hold."""
        self._flash, self._folder = flash, folder
        self._part = check_bootable(flash, chip)
        files.load(flash, self._part, folder)
        self.kept, theirs = os.pipe()  # a byte: the folder has changed
        theirs_answer, self._answer = os.pipe()
        try:
            self._child = subprocess.Popen(
                [node, str(BRIDGE), str(interpreter), str(flash.path), str(folder), str(theirs), str(theirs_answer)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=(theirs, theirs_answer))
        finally:
            os.close(theirs)
            os.close(theirs_answer)
        assert self._child.stdin is not None and self._child.stdout is not None
        self._input = self._child.stdin.fileno()
        self.output = self._child.stdout.fileno()

    def send(self, data: bytes) -> None:
        try:
            while data:
                data = data[os.write(self._input, data):]
        except BrokenPipeError:
            pass  # it has ended: whoever reads `output` sees it

    def keep(self) -> None:
        """Answers a byte of `kept`: what the folder holds is on flash."""
        if os.read(self.kept, 1):
            files.store(self._flash, self._part, self._folder)
            os.write(self._answer, b"k")

    def stop(self) -> None:
        """The power is gone: what was kept by now is on flash, nothing else."""
        self._child.kill()
        self._child.wait()
        assert self._child.stdin is not None and self._child.stdout is not None
        self._child.stdin.close()
        self._child.stdout.close()
        os.close(self.kept)
        os.close(self._answer)


def check_bootable(flash: NorFlash, chip: Chip) -> Partition:
    """Returns the file system's partition of a flash that starts; Unbootable says what the chip would print."""
    problem = images.problem_of(flash.read(chip.bootloader_at, 0x8000 - chip.bootloader_at), chip.image_id)
    if problem:
        raise Unbootable(problem)
    try:
        parts = read_table(flash)
    except BadTable as error:
        raise Unbootable(f"partition table: {error}") from error
    known = 1 << 20 + (flash.read(chip.bootloader_at + 3, 1)[0] >> 4)  # what the boot loader's header says of the flash
    for part in parts:
        if part.offset + part.size > known:
            raise Unbootable(f"partition {part.label} invalid: exceeds flash chip size {known:#x}")
    apps = [part for part in parts if part.kind == APP]
    if not apps:
        raise Unbootable("partition table: no application")
    problem = images.problem_of(flash.read(apps[0].offset, apps[0].size), chip.image_id)
    if problem:
        raise Unbootable(problem)
    return file_system(parts, flash.size)
