"""What the ROM of three chips shows of itself: registers and identity, as Espressif's technical manuals give them.

Only what a flashing tool reads is here; every other register is a plain memory cell that was never written (0).
"""

from typing import NamedTuple

MAC = bytes.fromhex("7c9ebd0a1b2c")  # Espressif's range, a number of ours
CRYSTAL_DIVIDER = 347  # UART divider of 40 MHz at 115,200 baud: how the ESP32's crystal is told
WINBOND, SERIAL_NOR = 0xEF, 0x40  # JEDEC maker and type; the third byte is log2 of the size


class Chip(NamedTuple):
    """One kind of chip. security: the answer to GET_SECURITY_INFO, None where the ROM does not know that command."""

    name: str
    image_id: int  # in the header of every image for it
    registers: dict[int, int]
    spi: int  # base address of the controller that the flash hangs on
    user2_at: int  # offset of the register with the flash command's byte
    words_at: int  # offset of the first data word
    bootloader_at: int  # where the first image stands in flash
    security: bytes | None


def _security(image_id: int) -> bytes:
    """Flags, one count, seven key purposes, chip id, version of the interface: nothing is locked."""
    return bytes(4) + bytes(1) + bytes(7) + image_id.to_bytes(4, "little") + bytes(4)


def _mac(low_at: int) -> dict[int, int]:
    return {low_at: int.from_bytes(MAC[2:], "big"), low_at + 4: int.from_bytes(MAC[:2], "big")}


CHIPS = {
    # ESP32: magic word of the ROM; MAC in eFuse block 0, words 1 and 2
    "esp32": Chip("ESP32", 0, {0x40001000: 0x00F01D83, 0x3FF40014: CRYSTAL_DIVIDER, **_mac(0x3FF5A004)},
                  0x3FF42000, 0x24, 0x80, 0x1000, None),
    "esp32-s3": Chip("ESP32-S3", 9, {0x40001000: 0x9, **_mac(0x60007044)}, 0x60002000, 0x20, 0x58, 0, _security(9)),
    "esp32-c3": Chip("ESP32-C3", 5, {0x40001000: 0x1B31506F, **_mac(0x60008844)}, 0x60002000, 0x20, 0x58, 0,
                     _security(5)),
}


def jedec_id(flash_bytes: int) -> int:
    """What the flash answers to command 0x9F, first byte lowest: maker, type, log2 of the size."""
    return WINBOND | SERIAL_NOR << 8 | (flash_bytes.bit_length() - 1) << 16
