"""Makes records on flash that survive a power cut at any moment, and finds them again: a ring on a raw block device.

Theory. The device is NOR flash by MicroPython's block protocol, or a file that behaves like it: `writeblocks(b, data,
offset)` only programs, `ioctl(6, b)` erases one sector, `ioctl(3, 0)` makes everything before it durable. Sectors are
used round and round. A sector begins with a header that carries a rising epoch, so the newest is known; records follow,
each a multiple of 16 bytes (the unit of flash encryption), checked by a CRC over header, trim mark and payload. A
record is written once, in order, so after a cut only the last one can be torn: when what follows the last good record
is not blank, the sector is closed and the next one begins. A sector is erased right before it is used, never earlier
(an erase that was cut looks blank and is not). The sector after the newest is the spare: its records count as dropped,
yet stay readable until the ring moves on, so that whoever still needs one of them can copy it (`read_all`).
Marks of what is no longer needed (`trim`) ride in every record's header: nothing is ever changed in place.
"""

import binascii
import struct

MAGIC = b"GSJ1"
UNIT = 16
MARK = 0xA5
SYNC, BLOCK_COUNT, BLOCK_SIZE, ERASE = 3, 4, 5, 6  # MicroPython's ioctl operations
SECTORS = 4  # fewest: the newest, two to keep, the spare
WINDOW = 1024  # bytes of a sector that are looked at together: a dozen readings
RISK_SECTORS = 4  # more than any burst of records between two looks at `at_risk_seq` can fill

_SECTOR = ">4sII"  # magic, epoch, first sequence number; CRC-32 follows
_RECORD = ">HBBII"  # payload length, kind, MARK, sequence number, CRC-32; trim mark follows
_BLANK = b"\xff" * UNIT
_BLANKS = b"\xff" * 256


class Journal:
    """The ring on `device`; opening it finds the end of what was written and continues behind it.

    next_seq: number of the next record; first_seq: the oldest that is kept; trimmed: everything below is not needed;
    dropped: sectors that overflow has taken although they held needed records; damaged: records that could not be
    read back. RAM: one integer a sector.
    """

    def __init__(self, device):
        self._device = device
        self._count = device.ioctl(BLOCK_COUNT, 0)
        self._size = device.ioctl(BLOCK_SIZE, 0)
        if self._count < SECTORS or self._size % UNIT:
            raise ValueError("a journal of %d sectors of %d bytes" % (self._count, self._size))
        self.dropped = 0
        self.damaged = 0
        self._damaged_seq = 0  # holes before this record are counted
        self.trimmed = 0
        self.next_seq = 1
        self._epoch = 0
        self._kept = 0  # sectors from the newest back to the oldest that is kept; the spare is none of them
        self._firsts = [-1] * self._count  # first sequence number of each sector, -1: nothing readable
        self._newest = self._count - 1
        self._offset = self._size  # where the next record goes; the sector's end: a new sector first
        self._recover()

    @property
    def first_seq(self):
        """The oldest record that is kept."""
        return self._firsts[self._index(self._kept - 1)] if self._kept else self.next_seq

    @property
    def at_risk_seq(self):
        """Records below this number are dropped within the next few sectors: copy what is still true of them."""
        margin = max(1, min(RISK_SECTORS, self._count // 4))
        room = self._count - 1 - self._kept  # sectors until the first is dropped
        if room >= margin:
            return 0
        return max(0, self._firsts[self._index(max(0, self._kept - 1 - margin + room))])

    def largest_payload(self):
        return self._size - 2 * UNIT

    def capacity_bytes(self):
        return (self._count - 1) * (self._size - UNIT)

    def used_sectors(self):
        """Returns how many sectors hold records that are still needed."""
        for age in range(self._kept):
            if 0 <= self._firsts[self._index(age)] <= self.trimmed:
                return age + 1
        return self._kept

    def append(self, kind, payload):
        """Writes one record and returns its sequence number; durable after `sync`. ValueError: too large."""
        length = len(payload)
        if length > self.largest_payload():
            raise ValueError("record of %d bytes" % length)
        size = UNIT + (length + UNIT - 1) // UNIT * UNIT
        if self._offset + size > self._size:
            self._begin_sector()
        seq = self.next_seq
        mark = struct.pack(">I", self.trimmed)
        record = bytearray(_BLANK * (size // UNIT))
        head = struct.pack(">HBBI", length, kind, MARK, seq)
        crc = binascii.crc32(payload, binascii.crc32(mark, binascii.crc32(head)))
        record[:8] = head
        record[8:12] = struct.pack(">I", crc & 0xFFFFFFFF)
        record[12:16] = mark
        record[16:16 + length] = payload
        self._device.writeblocks(self._newest, record, self._offset)
        self._offset += size
        self.next_seq = seq + 1
        return seq

    def sync(self):
        """Returns when every record appended so far would be found after a power cut."""
        self._device.ioctl(SYNC, 0)

    def trim(self, seq):
        """Says that no record below `seq` is needed; durable with the next record that is."""
        self.trimmed = max(self.trimmed, min(seq, self.next_seq))

    def read(self, first_seq):
        """Yields (sequence number, kind, payload) from `first_seq` on, in order; what was dropped is not there."""
        oldest = 0
        while oldest < self._kept - 1 and not 0 <= self._firsts[self._index(oldest)] <= first_seq:
            oldest += 1
        for age in range(min(oldest, self._kept - 1), -1, -1):
            if self._firsts[self._index(age)] < 0:
                continue
            for _, seq, kind, payload, _ in self._sector_records(self._index(age)):
                if seq >= first_seq:
                    yield seq, kind, payload

    def read_all(self):
        """Yields as `read` everything that can still be read, the spare sector's dropped records first."""
        spare = self._index(-1)
        if self._firsts[spare] >= 0:
            for _, seq, kind, payload, _ in self._sector_records(spare):
                yield seq, kind, payload
        for record in self.read(0):
            yield record

    def _index(self, age):
        """The sector that is so many older than the newest; -1: the spare, which is next."""
        return (self._newest - age) % self._count

    def _begin_sector(self):
        index = (self._newest + 1) % self._count
        self._firsts[index] = -1
        self._device.ioctl(ERASE, index)
        self._epoch += 1
        head = struct.pack(_SECTOR, MAGIC, self._epoch, self.next_seq)
        head += struct.pack(">I", binascii.crc32(head) & 0xFFFFFFFF)
        self._device.writeblocks(index, head, 0)
        self._firsts[index] = self.next_seq
        self._newest = index
        self._offset = UNIT
        if self._kept < self._count - 1:
            self._kept += 1
        elif self.first_seq > self.trimmed:
            self.dropped += 1

    def _recover(self):
        epochs = [-1] * self._count
        head = bytearray(UNIT)
        for index in range(self._count):
            self._device.readblocks(index, head, 0)
            magic, epoch, first = struct.unpack(_SECTOR, head[:12])
            if magic == MAGIC and struct.unpack(">I", head[12:])[0] == binascii.crc32(head[:12]) & 0xFFFFFFFF:
                epochs[index] = epoch
                self._firsts[index] = first
                if epoch > self._epoch:
                    self._epoch = epoch
                    self._newest = index
        if self._epoch == 0:
            return
        # What is older than one round of the ring, or out of its order, is the left-over of an erase that was cut.
        for index in range(self._count):
            age = (self._newest - index) % self._count
            if epochs[index] >= 0 and epochs[index] != self._epoch - age:
                self._firsts[index] = -1
            elif epochs[index] >= 0 and age < self._count - 1:
                self._kept = max(self._kept, age + 1)
        self.next_seq = self._firsts[self._newest]
        self._offset = UNIT
        for end, seq, _, _, mark in self._sector_records(self._newest):
            self.next_seq = seq + 1
            self.trimmed = mark
            self._offset = end
        if not self._is_blank_from(self._newest, self._offset):
            self._offset = self._size

    def _sector_records(self, index):
        """Yields (end offset, seq, kind, payload, mark) of one sector's good records; a bad one is stepped over.

        Through a window: a board may not have a sector's length of RAM in one piece.
        """
        window = bytearray(min(WINDOW, self._size))
        start = self._size  # of the window; nothing is in it yet
        expected = self._firsts[index]
        at = UNIT
        is_bad = False
        while at + UNIT <= self._size:
            if not start <= at <= start + len(window) - UNIT:
                start = min(at, self._size - len(window))
                self._device.readblocks(index, window, start)
            head = window[at - start:at - start + UNIT]
            length, kind, marker, seq, crc, mark = struct.unpack(_RECORD + "I", head)
            end = at + UNIT + (length + UNIT - 1) // UNIT * UNIT
            if marker == MARK and end <= self._size and seq >= expected:
                payload = window[at - start + UNIT:at - start + UNIT + length]
                if len(payload) < length:
                    payload = bytearray(length)
                    self._device.readblocks(index, payload, at + UNIT)
                found = binascii.crc32(payload, binascii.crc32(head[12:], binascii.crc32(head[:8])))
                if found & 0xFFFFFFFF == crc:
                    if seq > max(expected, self._damaged_seq):
                        self.damaged += seq - expected
                        self._damaged_seq = seq
                    yield end, seq, kind, bytes(payload), mark
                    expected = seq + 1
                    at = end
                    is_bad = False
                    continue
            if not is_bad and head == _BLANK and self._is_blank_from(index, at):
                return
            is_bad = True
            at += UNIT

    def _is_blank_from(self, index, offset):
        chunk = bytearray(len(_BLANKS))
        while self._size - offset >= len(chunk):
            self._device.readblocks(index, chunk, offset)
            if chunk != _BLANKS:
                return False
            offset += len(chunk)
        chunk = bytearray(self._size - offset)
        self._device.readblocks(index, chunk, offset)
        return chunk == _BLANKS[:len(chunk)]
