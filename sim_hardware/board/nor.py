"""Makes a file behave like a NOR flash chip: erasing sets bits, programming only clears them."""

import mmap
import os
from pathlib import Path

SECTOR_BYTES = 4096
SIZES = {size << 20: size for size in (2, 4, 8, 16)}  # bytes: MiB
BLANK = 0xFF


class NorFlash:
    """A flash chip of `size` bytes in a file, which other processes may map too. What is there stays there.

    dirty_writes counts bytes that were programmed over others without an erase and so became neither: on a chip a
    mistake of whoever wrote them.
    """

    def __init__(self, path: Path, size: int) -> None:
        """ValueError when the file has another size."""
        if size not in SIZES:
            raise ValueError(f"a flash has {', '.join(map(str, SIZES.values()))} MiB, not {size} bytes")
        if not path.exists():
            path.write_bytes(bytes([BLANK]) * size)
        descriptor = os.open(path, os.O_RDWR)
        try:
            found = os.fstat(descriptor).st_size
            if found != size:
                raise ValueError(f"{path} has {found} bytes, expected {size}")
            self._map = mmap.mmap(descriptor, size)
        finally:
            os.close(descriptor)
        self.path, self.size = path, size
        self.erases = self.dirty_writes = 0

    def read(self, offset: int, count: int) -> bytes:
        return self._map[self._place(offset, count):offset + count]

    def program(self, offset: int, data: bytes) -> None:
        """Clears bits; a bit that is 0 stays 0 until its sector is erased."""
        start = self._place(offset, len(data))
        there = self._map[start:start + len(data)]
        if there.count(BLANK) == len(data):  # the usual case, and the quick one
            self._map[start:start + len(data)] = data
            return
        left = int.from_bytes(there, "big") & int.from_bytes(data, "big")
        result = left.to_bytes(len(data), "big")
        self.dirty_writes += sum(found != wanted for found, wanted in zip(result, data, strict=True))
        self._map[start:start + len(data)] = result

    def erase(self, offset: int, count: int) -> None:
        """Erases every sector that [offset, offset + count) touches."""
        first = self._place(offset, count) // SECTOR_BYTES
        last = (offset + count + SECTOR_BYTES - 1) // SECTOR_BYTES
        self.erases += last - first
        self._map[first * SECTOR_BYTES:last * SECTOR_BYTES] = bytes([BLANK]) * ((last - first) * SECTOR_BYTES)

    def close(self) -> None:
        self._map.flush()
        self._map.close()

    def _place(self, offset: int, count: int) -> int:
        if offset < 0 or count < 0 or offset + count > self.size:
            raise ValueError(f"{count} bytes at {offset:#x} of a flash of {self.size:#x}")
        return offset


class WornFlash(NorFlash):
    """A flash with one sector that keeps what is in it."""

    worn_sector = -1

    def program(self, offset: int, data: bytes) -> None:
        first, end = self.worn_sector * SECTOR_BYTES, (self.worn_sector + 1) * SECTOR_BYTES
        if first < offset + len(data) and offset < end:
            data = data[:max(0, first - offset)] + b"\xff" * (min(end, offset + len(data)) - max(first, offset)) \
                + data[max(0, end - offset):]
        super().program(offset, data)
