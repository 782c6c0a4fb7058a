"""Says whether an application image in flash would start, and makes a stand-in where MicroPython's own file is lacking.

The format is Espressif's ("Firmware Image Format" in esptool's manual): header of 24 bytes, segments, a checksum at the
end of a block of 16 bytes, SHA-256 over all of it. The boot loader checks the last two, so half an image never runs.
"""

import hashlib
import struct

from sim_hardware.board.chips import Chip
from sim_hardware.board.loader import CHECKSUM_SEED, checksum_of

MAGIC, HASH_BYTES, HEADER_BYTES = 0xE9, 32, 24
TABLE_AT, APP_AT = 0x8000, 0x10000
TEXT = b"stand-in for MicroPython, made by gridseal sim board: no code of an interpreter is in it\n"


def problem_of(data: bytes, image_id: int) -> str:
    """Why an image at the start of `data` would not start on a chip with that id; "" when it would."""
    if len(data) < HEADER_BYTES or data[0] != MAGIC:
        return f"invalid header: 0x{int.from_bytes(data[:4], 'little'):08x}"
    if int.from_bytes(data[12:14], "little") != image_id:
        return f"image is for chip id {int.from_bytes(data[12:14], 'little')}"
    at, checksum = HEADER_BYTES, CHECKSUM_SEED
    for _ in range(data[1]):
        length = int.from_bytes(data[at + 4:at + 8], "little")
        body = data[at + 8:at + 8 + length]
        if len(body) != length or not length:
            return "a segment ends beyond the partition"
        checksum ^= checksum_of(body) ^ CHECKSUM_SEED
        at += 8 + length
    at = at // 16 * 16 + 16
    if data[at - 1:at] != bytes([checksum]):
        return "checksum of the image does not hold"
    if data[23] and hashlib.sha256(data[:at]).digest() != data[at:at + HASH_BYTES]:
        return "hash of the image does not hold"
    return ""


def make_image(image_id: int, body: bytes) -> bytes:
    """An image of one segment."""
    body += bytes(-len(body) % 4)
    data = struct.pack("<BBBBIB3sHBHH4sB", MAGIC, 1, 2, 0x20, 0x40080000, 0xEE, bytes(3), image_id, 0, 0, 0xFFFF,
                       bytes(4), 1) + struct.pack("<II", 0x3F400020, len(body)) + body
    data += bytes(15 - len(data) % 16) + bytes([checksum_of(body)])
    return data + hashlib.sha256(data).digest()


def make_stand_in(chip: Chip, size: int) -> bytes:
    """A file like MicroPython's for that chip: boot loader, a partition table, application of about `size` bytes.

    The simulated board takes it for an interpreter; a real chip would start nothing.
    """
    boot = make_image(chip.image_id, TEXT)
    filler = b"".join(hashlib.sha256(TEXT + number.to_bytes(4, "big")).digest() for number in range(size // 32))
    app = make_image(chip.image_id, TEXT + filler)
    entries = [(0, 0x10, 0x10000, 0x1F0000, b"factory")]
    table = b"".join(struct.pack("<HBBII16sI", 0x50AA, *entry, 0) for entry in entries)
    table += b"\xeb\xeb" + 14 * b"\xff" + hashlib.md5(table, usedforsecurity=False).digest()
    data = boot.ljust(TABLE_AT - chip.bootloader_at, b"\xff") + table
    return data.ljust(APP_AT - chip.bootloader_at, b"\xff") + app
