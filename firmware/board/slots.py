"""Makes the spare slot of a board's flash into what firmware/update.py writes a version to: a ROMFS image by sectors.

The image's first sector is erased when a version begins to come and written last, when all else was verified: between
these the slot is no image and nobody starts it.
"""

import firmware
from firmware import boot
from firmware.board.micro import exists, read_file
from firmware.journal import ERASE

SECTOR_BYTES = boot.SECTOR_BYTES
UNIT_BYTES = 16  # encrypted flash is written in such units


class RomStore:
    """partition: esp32.Partition of label romfs; path: the boot record; slot: 0 or 1, not the one that runs."""

    limit = boot.SLOT_BYTES
    piece_bytes = 1024  # a message is in RAM four times: as packet, in parts, decoded, and on its way to flash

    def __init__(self, partition, path, slot):
        self._partition = partition
        self._path = path
        self.slot = slot
        self._first = slot * boot.SLOT_BYTES // SECTOR_BYTES
        self._data_first = 0

    def open(self, index_bytes, size):
        self._data_first = self._first + index_bytes // SECTOR_BYTES

    def begin(self):
        """What the slot held is given up: first in the boot record, so that nobody goes back to it."""
        record = boot.load(self._path)
        if record is not None and record[boot.COUNTERS + self.slot]:
            record[boot.COUNTERS + self.slot] = 0
            boot.save(self._path, record)
        self._partition.ioctl(ERASE, self._first)

    def read(self, offset, buffer):
        self._partition.readblocks(self._data_first + offset // SECTOR_BYTES, buffer, offset % SECTOR_BYTES)

    def write(self, offset, data):
        block = self._data_first + offset // SECTOR_BYTES
        if offset % SECTOR_BYTES == 0:
            self._partition.ioctl(ERASE, block)
        if len(data) % UNIT_BYTES:
            data += bytes(-len(data) % UNIT_BYTES)
        self._partition.writeblocks(block, data, offset % SECTOR_BYTES)

    def finish(self, index, manifest):
        for number in range(len(index) // SECTOR_BYTES - 1, -1, -1):
            self._partition.ioctl(ERASE, self._first + number)
            part = memoryview(index)[number * SECTOR_BYTES:(number + 1) * SECTOR_BYTES]
            self._partition.writeblocks(self._first + number, part, 0)


def spare(folder):
    """Returns (RomStore, boot record, path of the record) for the slot that does not run."""
    from esp32 import Partition
    partition = Partition.find(Partition.TYPE_DATA, label=boot.LABEL)[0]
    path = folder + "/" + boot.NAME
    record = boot.load(path) or boot.fresh(boot.holds(partition, 0), boot.holds(partition, 1))
    return RomStore(partition, path, running() ^ 1), record, path


def running():
    """The slot whose files these are, 0 or 1. In safe mode it need not be the record's."""
    return 1 if firmware.__file__.startswith(boot.POINTS[1]) else 0


def model():
    """What this board was flashed as: the model in the running slot's manifest; None where there is none."""
    from firmware import update
    from firmware.wire import cose
    from firmware.wire.errors import Refused
    try:
        message = running_manifest()
        return update.cbor.decode(cose.parse(message).payload)[1] if message else None
    except Refused:
        return None


def running_manifest():
    """The manifest that lies in the running slot, as bytes; None where the code was put there by other means."""
    path = boot.POINTS[running()] + "/manifest.cbor"
    return read_file(path) if exists(path) else None
