"""Makes the partition table of a board's flash out of its size: where interpreter, agent, settings and journal lie.

The format is Espressif's (gen_esp32part.py): entries of 32 bytes, then an MD5 over them, blank to the end.
"""

import hashlib
import struct
from typing import NamedTuple

TABLE_AT, TABLE_BYTES = 0x8000, 0xC00
SECTOR_BYTES = 4096
SMALLEST = 4 << 20
APP, DATA = 0, 1
ENTRY_MAGIC, MD5_MAGIC = 0x50AA, b"\xeb\xeb" + 14 * b"\xff"
LARGE = 8 << 20  # from here on there is room for MicroPython's usual builds, which are made for speed
INTERPRETER_AT, INTERPRETER_BYTES, LARGE_INTERPRETER_BYTES = 0x010000, 0x180000, 0x270000
OTADATA_AT, OTADATA_BYTES = 0x00D000, 0x2000
SLOT_BYTES, SETTINGS_BYTES = 0x020000, 0x018000


class Part(NamedTuple):
    label: str
    kind: int
    subtype: int
    offset: int
    size: int


def layout(flash_bytes: int) -> list[Part]:
    """The partitions of a flash of that size; the journal takes all that is left. ValueError below 4 MiB.

    The first five are MicroPython's own with OTA (ports/esp32/partitions-4MiB-ota.csv, partitions-8MiBplus-ota.csv).
    `romfs` holds both slots of the agent: an interpreter maps one partition of that label only.
    """
    if flash_bytes < SMALLEST:
        raise ValueError(f"a flash of {flash_bytes >> 20} MiB is too small: two interpreters, two versions of the "
                         "agent and a journal need 4 MiB")
    app_bytes = INTERPRETER_BYTES if flash_bytes < LARGE else LARGE_INTERPRETER_BYTES
    slots_at = INTERPRETER_AT + 2 * app_bytes
    settings_at = slots_at + 2 * SLOT_BYTES
    journal_at = settings_at + SETTINGS_BYTES
    return [
        Part("nvs", DATA, 0x02, 0x009000, 0x4000), Part("otadata", DATA, 0x00, OTADATA_AT, OTADATA_BYTES),
        Part("phy_init", DATA, 0x01, 0x00F000, 0x1000),
        Part("ota_0", APP, 0x10, INTERPRETER_AT, app_bytes),
        Part("ota_1", APP, 0x11, INTERPRETER_AT + app_bytes, app_bytes),
        Part("romfs", DATA, 0x8F, slots_at, 2 * SLOT_BYTES),
        Part("vfs", DATA, 0x81, settings_at, SETTINGS_BYTES),
        Part("journal", DATA, 0x40, journal_at, flash_bytes - journal_at),
    ]


def named(parts: list[Part], label: str) -> Part:
    return next(part for part in parts if part.label == label)


def make_table(parts: list[Part]) -> bytes:
    """The bytes at TABLE_AT; ValueError where two partitions overlap or one leaves its sectors."""
    entries = b""
    end = TABLE_AT + SECTOR_BYTES
    for part in parts:
        if part.offset < end or part.offset % SECTOR_BYTES or part.size % SECTOR_BYTES:
            raise ValueError(f"partition {part.label} at {part.offset:#x}, {part.size:#x} bytes")
        end = part.offset + part.size
        entries += struct.pack("<HBBII16sI", ENTRY_MAGIC, part.kind, part.subtype, part.offset, part.size,
                               part.label.encode(), 0)
    table = entries + MD5_MAGIC + hashlib.md5(entries, usedforsecurity=False).digest()
    return table.ljust(TABLE_BYTES, b"\xff")
