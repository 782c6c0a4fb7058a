"""Makes the module esp32 of the simulated board: partitions of its flash by the table at 0x8000."""

import struct

import _board
from uctypes import addressof

SECTOR_BYTES = 4096
TABLE_AT, ENTRY_BYTES, ENTRIES = 0x8000, 32, 95
BLOCK_COUNT, BLOCK_SIZE, BLOCK_ERASE = 4, 5, 6  # of ioctl


class Partition:
    """A span of flash; blocks as an ESP32's Partition has them."""

    TYPE_APP, TYPE_DATA = 0, 1
    BOOT, RUNNING = 0, 1

    def __init__(self, label, block_size=SECTOR_BYTES):
        found = [entry for entry in table() if entry[4] == label]
        if not found:
            raise OSError(2)
        self._info = found[0]
        self._block_bytes = block_size

    @staticmethod
    def find(type=0, subtype=255, label=None, block_size=SECTOR_BYTES):
        return [Partition(entry[4], block_size) for entry in table()
                if entry[0] == type and subtype in (255, entry[1]) and label in (None, entry[4])]

    def info(self):
        return self._info

    def readblocks(self, block, buffer, offset=0):
        _board.read(self._place(block, offset, len(buffer)), addressof(buffer), len(buffer))

    def writeblocks(self, block, data, offset=None):
        place = self._place(block, offset or 0, len(data))
        if offset is None:
            _board.erase(place, len(data))
        _board.program(place, addressof(data), len(data))

    def ioctl(self, operation, argument):
        if operation == BLOCK_COUNT:
            return self._info[3] // self._block_bytes
        if operation == BLOCK_SIZE:
            return self._block_bytes
        if operation == BLOCK_ERASE:
            _board.erase(self._place(argument, 0, SECTOR_BYTES), SECTOR_BYTES)
        return 0

    def _place(self, block, offset, count):
        at = block * self._block_bytes + offset
        if at < 0 or at + count > self._info[3]:
            raise OSError(5)
        return self._info[2] + at


def table():
    """[(type, subtype, address, size, label, is encrypted), ...] of the partition table on flash."""
    data = bytearray(ENTRIES * ENTRY_BYTES)
    _board.read(TABLE_AT, addressof(data), len(data))
    found = []
    for at in range(0, len(data), ENTRY_BYTES):
        magic, kind, subtype, address, size, label, flags = struct.unpack_from("<HBBII16sI", data, at)
        if magic != 0x50AA:
            break
        found.append((kind, subtype, address, size, label.rstrip(b"\0").decode(), bool(flags & 1)))
    return found
