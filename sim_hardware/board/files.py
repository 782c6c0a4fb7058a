"""Keeps the board's file system: littlefs on the flash's partition `vfs`, as MicroPython formats it, and a folder.

The folder is what the interpreter works on. `load` fills it from flash; `store` puts what has changed back, by the
copy-on-write of littlefs, so blocks are used and worn as on a board.
"""

import shutil
from pathlib import Path

import littlefs
from littlefs.context import UserContext
from littlefs.errors import LittleFSError

from sim_hardware.board.nor import BLANK, SECTOR_BYTES, NorFlash
from sim_hardware.board.partitions import Partition

BOOT = "# This file is executed on every boot (including wake-boot from deepsleep)\n"
DAMAGED = ".damaged"  # a file that lib/start.py looks for


class Blocks(UserContext):
    """A partition as littlefs' block device."""

    def __init__(self, flash: NorFlash, offset: int) -> None:
        self._flash, self._offset = flash, offset

    def read(self, cfg: littlefs.lfs.LFSConfig, block: int, off: int, size: int) -> bytearray:
        return bytearray(self._flash.read(self._offset + block * SECTOR_BYTES + off, size))

    def prog(self, cfg: littlefs.lfs.LFSConfig, block: int, off: int, data: bytes) -> int:
        self._flash.program(self._offset + block * SECTOR_BYTES + off, data)
        return 0

    def erase(self, cfg: littlefs.lfs.LFSConfig, block: int) -> int:
        self._flash.erase(self._offset + block * SECTOR_BYTES, SECTOR_BYTES)
        return 0

    def sync(self, cfg: littlefs.lfs.LFSConfig) -> int:
        return 0


def load(flash: NorFlash, part: Partition, folder: Path) -> None:
    """Makes the folder what the partition holds. A blank one is formatted, as MicroPython does at its first start; one
    that is neither blank nor a file system leaves DAMAGED."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    found = read_files(flash, part)
    if found is None:
        if flash.read(part.offset, SECTOR_BYTES) != bytes([BLANK]) * SECTOR_BYTES:
            (folder / DAMAGED).touch()
            return
        system = _system(flash, part)
        system.format()
        (folder / "boot.py").write_text(BOOT)
        store(flash, part, folder)
        return
    for name, content in found.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)


def read_files(flash: NorFlash, part: Partition) -> dict[str, bytes] | None:
    """{path: content} of the file system, None where there is none. Empty folders are left out."""
    system = _system(flash, part)
    try:
        system.mount()
    except LittleFSError:
        return None
    return {path: _content(system, path) for path in _paths(system)}


def store(flash: NorFlash, part: Partition, folder: Path) -> None:
    """Writes what differs from the partition; OSError (no space) as a board has it."""
    if (folder / DAMAGED).exists():
        return
    system = _system(flash, part)
    system.mount()
    wanted = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    there = set(_paths(system))
    for gone in there - wanted.keys():
        system.remove("/" + gone)
    for name, content in wanted.items():
        if name in there and _content(system, name) == content:
            continue
        if "/" in name:
            system.makedirs("/" + name.rpartition("/")[0], exist_ok=True)
        with system.open("/" + name, "wb") as file:
            file.write(content)
    system.unmount()


def _system(flash: NorFlash, part: Partition) -> littlefs.LittleFS:
    """Sizes as MicroPython's VfsLfs2 takes them by default (extmod/vfs_lfs.c)."""
    return littlefs.LittleFS(Blocks(flash, part.offset), mount=False, block_size=SECTOR_BYTES,
                             block_count=part.size // SECTOR_BYTES, read_size=32, prog_size=32, cache_size=128,
                             lookahead_size=32, block_cycles=100)


def _paths(system: littlefs.LittleFS) -> list[str]:
    return [f"{root.strip('/')}/{name}".lstrip("/") for root, _, names in system.walk("/") for name in names]


def _content(system: littlefs.LittleFS, path: str) -> bytes:
    with system.open("/" + path, "rb") as file:
        return bytes(file.read())
