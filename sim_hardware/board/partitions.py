"""Makes a list of partitions out of a flash's table, and the files of a ROMFS image or a littlefs out of one."""

import hashlib
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from sim_hardware.board.nor import SECTOR_BYTES, NorFlash

TABLE_AT, TABLE_BYTES, ENTRY_BYTES = 0x8000, 0xC00, 32
ENTRY_MAGIC, MD5_MAGIC = 0x50AA, b"\xeb\xeb" + 14 * b"\xff"
APP, DATA = 0, 1
ROMFS_MAGIC = b"\xd2\xcd\x31"
ROMFS_VERBATIM, ROMFS_POINTER, ROMFS_DIRECTORY, ROMFS_FILE = 2, 3, 4, 5


class Partition(NamedTuple):
    label: str
    kind: int  # APP or DATA
    subtype: int
    offset: int
    size: int


class BadTable(ValueError):
    """A partition table that the boot loader would refuse."""


def read_table(flash: NorFlash) -> list[Partition]:
    """The partitions of a flash, none where the table is blank; BadTable when its MD5 or an entry does not hold."""
    data = flash.read(TABLE_AT, TABLE_BYTES)
    found: list[Partition] = []
    for at in range(0, TABLE_BYTES, ENTRY_BYTES):
        entry = data[at:at + ENTRY_BYTES]
        if entry == ENTRY_BYTES * b"\xff":
            return found
        if entry[:16] == MD5_MAGIC:
            if hashlib.md5(data[:at], usedforsecurity=False).digest() != entry[16:]:
                raise BadTable("the table's MD5 does not hold")
            continue
        magic, kind, subtype, offset, size, label, _flags = struct.unpack("<HBBII16sI", entry)
        if magic != ENTRY_MAGIC or offset + size > flash.size or offset % SECTOR_BYTES:
            raise BadTable(f"entry {len(found)} is none")
        found.append(Partition(label.rstrip(b"\0").decode(errors="replace"), kind, subtype, offset, size))
    return found


def file_system(parts: list[Partition], flash_bytes: int) -> Partition:
    """The partition `vfs`: named in the table, or as MicroPython makes it, from the last one's end to the flash's."""
    for part in parts:
        if part.label == "vfs":
            return part
    end = max((part.offset + part.size for part in parts), default=flash_bytes)
    return Partition("vfs", DATA, 0x81, end, flash_bytes - end)


def _slots(data: bytes) -> dict[str, bytes]:
    """Files of the ROMFS images that begin in a partition; those of a second one, half-way, below "second/"."""
    half = len(data) // 2
    second = unpack_romfs(data[half:]) if half % SECTOR_BYTES == 0 else {}
    return unpack_romfs(data) | {f"second/{name}": content for name, content in second.items()}


def unpack_romfs(image: bytes) -> dict[str, bytes]:
    """{path: content} of a ROMFS image, {} of anything else (MicroPython's extmod/vfs_rom.c)."""
    if image[:3] != ROMFS_MAGIC:
        return {}
    size, at = _number(image, 3)
    system = image[at:at + size]
    return dict(_romfs_entries(system, system, ""))


def _romfs_entries(system: bytes, data: bytes, folder: str) -> Iterator[tuple[str, bytes]]:
    at = 0
    while at < len(data):
        kind, at = _number(data, at)
        size, at = _number(data, at)
        body, at = data[at:at + size], at + size
        if kind not in (ROMFS_DIRECTORY, ROMFS_FILE):
            continue
        length, name_at = _number(body, 0)
        name = folder + body[name_at:name_at + length].decode()
        body = body[name_at + length:]
        if kind == ROMFS_DIRECTORY:
            yield from _romfs_entries(system, body, name + "/")
        else:
            inner, inner_at = _number(body, 0)
            size, inner_at = _number(body, inner_at)
            content = body[inner_at:inner_at + size]
            if inner == ROMFS_POINTER:  # of so many bytes, from the file system's begin on
                size, offset_at = _number(content, 0)
                offset, _ = _number(content, offset_at)
                content = system[offset:offset + size]
            elif inner != ROMFS_VERBATIM:
                raise ValueError(f"{name}: content of an unknown kind {inner}")
            yield name, content


def _number(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    while True:
        value = value << 7 | data[at] & 0x7F
        at += 1
        if not data[at - 1] & 0x80:
            return value, at


def unpack(flash: NorFlash, folder: Path) -> list[tuple[Partition, int]]:
    """Writes the files of every ROMFS image and of the file system to folder/LABEL; each partition, its files."""
    from sim_hardware.board.files import read_files  # with littlefs
    counts = []
    parts = read_table(flash)
    system = file_system(parts, flash.size)
    for part in [*parts, *([system] if system not in parts else [])]:
        if part == system:
            found = read_files(flash, part) if part.size else None
        else:
            found = _slots(flash.read(part.offset, part.size)) if part.kind == DATA else None
        for name, content in (found or {}).items():
            target = folder / part.label / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        counts.append((part, len(found or {})))
    return counts
