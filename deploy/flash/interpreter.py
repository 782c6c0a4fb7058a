"""Makes the pieces of MicroPython's file for a board, checked by hash, chip and size: boot loader and application.

MicroPython's .bin is what lies in flash from the boot loader on: boot loader, its partition table at 0x8000, and the
application at 0x10000. The table is left out, ours stands in its place. Image format: Espressif's, "Firmware Image
Format" in esptool's manual.
"""

import hashlib
from pathlib import Path
from typing import NamedTuple

from deploy.flash import layout
from deploy.flash.errors import FlashError

IMAGE_MAGIC = 0xE9
HEADER_BYTES, SEGMENT_HEAD_BYTES, HASH_BYTES = 24, 8, 32
SEGMENTS = 16


class Chip(NamedTuple):
    """A kind of chip: its number in images, esptool's name, where its boot loader lies, the first part of models."""

    image_id: int
    name: str
    bootloader_at: int
    model: str


CHIPS = (Chip(0, "ESP32", 0x1000, "esp32"), Chip(9, "ESP32-S3", 0, "esp32s3"), Chip(5, "ESP32-C3", 0, "esp32c3"))


class Interpreter(NamedTuple):
    chip: Chip
    bootloader: bytes
    application: bytes
    digest: str  # SHA-256 of the file


def chip_named(name: str) -> Chip:
    for chip in CHIPS:
        if chip.name == name:
            return chip
    raise FlashError(f"this is an {name}; the agent runs on {', '.join(chip.name for chip in CHIPS)}")


def read(path: Path, sha256: str) -> Interpreter:
    """The pieces of a file whose SHA-256 is the one given; FlashError says what is wrong with it."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise FlashError(f"{path}: {error.strerror}") from error
    digest = hashlib.sha256(data).hexdigest()
    if digest != sha256.strip().lower():
        raise FlashError(f"{path}: SHA-256 is {digest}, expected {sha256}: not the file that was meant. Nothing was "
                         "written")
    chip = _chip_of(path, data)
    table_at = layout.TABLE_AT - chip.bootloader_at
    app_at = layout.INTERPRETER_AT - chip.bootloader_at
    if data[table_at:table_at + 2] != layout.ENTRY_MAGIC.to_bytes(2, "little"):
        raise FlashError(f"{path}: no partition table at {layout.TABLE_AT:#x}: take the .bin for a first flash, not "
                         "the .app-bin of an update")
    bootloader = data[:_image_bytes(path, data[:table_at], "boot loader")]
    application = data[app_at:app_at + _image_bytes(path, data[app_at:], "application")]
    return Interpreter(chip, bootloader, application, digest)


def sized(bootloader: bytes, flash_bytes: int) -> bytes:
    """The boot loader with that flash's size in its header, and its hash made again.

    MicroPython's files say 4 MiB for every board, and a boot loader refuses partitions beyond what its header says.
    """
    power = (flash_bytes >> 20).bit_length() - 1  # 1 MiB is 0
    data = bootloader[:3] + bytes([power << 4 | bootloader[3] & 0x0F]) + bootloader[4:]
    if not data[23]:
        return data
    return data[:-HASH_BYTES] + hashlib.sha256(data[:-HASH_BYTES]).digest()


def _chip_of(path: Path, data: bytes) -> Chip:
    if len(data) < HEADER_BYTES or data[0] != IMAGE_MAGIC:
        raise FlashError(f"{path}: no image for an ESP32 (begins with {data[:1].hex() or 'nothing'}, expected e9)")
    image_id = int.from_bytes(data[12:14], "little")
    for chip in CHIPS:
        if chip.image_id == image_id:
            return chip
    raise FlashError(f"{path}: for a chip of number {image_id}; the agent runs on "
                     f"{', '.join(chip.name for chip in CHIPS)}")


def _image_bytes(path: Path, data: bytes, what: str) -> int:
    """Length of the image at the start of `data`, with its checksum and hash; FlashError when it is not whole."""
    if len(data) < HEADER_BYTES or data[0] != IMAGE_MAGIC or data[1] > SEGMENTS:
        raise FlashError(f"{path}: no {what} where one belongs")
    at = HEADER_BYTES
    for _ in range(data[1]):
        at += SEGMENT_HEAD_BYTES + int.from_bytes(data[at + 4:at + 8], "little")
    end = at // 16 * 16 + 16  # the checksum ends a block
    if data[23]:
        if hashlib.sha256(data[:end]).digest() != data[end:end + HASH_BYTES]:
            raise FlashError(f"{path}: the {what}'s own hash does not hold")
        end += HASH_BYTES
    if end > len(data):
        raise FlashError(f"{path}: the {what} is cut off")
    return end
