"""Makes MicroPython's module `esp32` out of a file: /chip/flash.bin, an ESP32's whole flash with its partition table.

The flash is NOR: what is written only clears bits, and what needs an erase first is a fault. `cut_after`: the power
fails in the middle of the operation of that number, which is half done then (exit code 44).
"""

import struct

PATH = "/chip/flash.bin"
TABLE_AT, ENTRY_BYTES = 0x8000, 32
SECTOR_BYTES = 4096
BLANK = b"\xff" * 64
CUT = 44

cut_after = None
cut_label = None  # None: operations of every partition count
operations = 0
_file = None


class Partition:
    TYPE_APP, TYPE_DATA = 0, 1
    BOOT, RUNNING = 0, 1

    def __init__(self, label, block_size=SECTOR_BYTES):
        found = [row for row in _table() if row[4] == label]
        if not found:
            raise OSError(2)
        self._info = found[0]

    @staticmethod
    def find(type=0, subtype=255, label=None, block_size=SECTOR_BYTES):
        return [Partition(row[4]) for row in _table()
                if row[0] == type and subtype in (255, row[1]) and label in (None, row[4])]

    def info(self):
        return self._info

    def readblocks(self, block, buffer, offset=0):
        _flash().seek(self._at(block, offset, len(buffer)))
        _flash().readinto(buffer)

    def writeblocks(self, block, data, offset=None):
        at = self._at(block, offset or 0, len(data))
        if offset is None:
            for number in range(len(data) // SECTOR_BYTES):
                self.ioctl(6, block + number)
        _flash().seek(at)
        for index in range(0, len(data), 64):  # in small parts: a real chip takes no heap for this
            old = _flash().read(min(64, len(data) - index))
            for byte in range(len(old)):
                if data[index + byte] & ~old[byte]:
                    raise ValueError("byte %d is written and was not erased" % (at + index + byte))
        is_cut = self._count()
        _flash().seek(at)
        _flash().write(memoryview(data)[:len(data) // 2] if is_cut else data)
        _end(is_cut)

    def ioctl(self, operation, argument):
        if operation == 4:
            return self._info[3] // SECTOR_BYTES
        if operation == 5:
            return SECTOR_BYTES
        if operation == 6:
            at = self._at(argument, 0, SECTOR_BYTES)
            is_cut = self._count()
            _flash().seek(at)
            for _ in range((SECTOR_BYTES // 2 if is_cut else SECTOR_BYTES) // len(BLANK)):
                _flash().write(BLANK)
            _end(is_cut)
        return 0

    def _count(self):
        """True for the operation that the power fails in."""
        global operations
        if cut_label in (None, self._info[4]):
            operations += 1
            return cut_after is not None and operations >= cut_after
        return False

    def _at(self, block, offset, count):
        at = block * SECTOR_BYTES + offset
        if block < 0 or at + count > self._info[3]:
            raise OSError(5)
        return self._info[2] + at


def _flash():
    global _file
    if _file is None:
        _file = open(PATH, "r+b")
    return _file


def _end(is_cut):
    if is_cut:
        _flash().flush()
        print("POWER CUT in flash operation", operations)
        raise SystemExit(CUT)
    _flash().flush()


def _table():
    found = []
    _flash().seek(TABLE_AT)
    while True:
        data = _flash().read(ENTRY_BYTES)
        if len(data) < ENTRY_BYTES:
            return found
        magic, kind, subtype, address, size, label, flags = struct.unpack("<HBBII16sI", data)
        if magic != 0x50AA:
            return found
        found.append((kind, subtype, address, size, label.rstrip(b"\0").decode(), bool(flags & 1)))
