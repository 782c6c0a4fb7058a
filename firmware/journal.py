"""Makes records on flash that survive a power cut at any moment, and finds them again: a ring on a raw block device.

Theory. The device is NOR flash by MicroPython's block protocol, or a file that behaves like it: `writeblocks(b, data,
offset)` only programs, `ioctl(6, b)` erases one sector, `ioctl(3, 0)` makes everything before it durable. Sectors are
used round and round. A sector begins with a header: magic, an epoch that rises, the number of its first record, CRC.
Records follow, each a multiple of 16 bytes (the unit of flash encryption): kind and length, a CRC, the trim mark where
it is not the one of the record before, the payload. A record's number is under the CRC without being stored: it follows
from its place, and nothing left over from another round of the ring can pass for the record that should be there.
A record is written once, in order, so after a cut only the last one can be torn: when what follows the last good record
is not blank, the sector is closed and the next one begins. A sector is erased right before it is used, never earlier
(an erase that was cut looks blank and is not). The sector after the newest is the spare: its records count as dropped,
yet stay readable until the ring moves on, so that whoever still needs one of them can copy it (`ring.read_all`).
Marks of what is no longer needed (`trim`) ride in the next record: nothing is ever changed in place.
"""

import binascii
import struct

try:
    from micropython import const
except ImportError:
    def const(value):
        return value

MAGIC = b"GSJ2"
SECTOR = ">4sII"  # a sector's header: magic, epoch, first sequence number; CRC-32 follows
UNIT = 16
SYNC, BLOCK_COUNT, BLOCK_SIZE, ERASE = 3, 4, 5, 6  # MicroPython's ioctl operations
SECTORS = 4  # fewest: the newest, two to keep, the spare
WINDOW = 512  # bytes of a sector that are looked at together: half a dozen readings; a board has little in one piece
_RISK_SECTORS = const(4)  # more than any burst of records between two looks at `at_risk_seq` can fill
KINDS = 14  # 1 to 14: blank flash reads as 15

HEAD, MARK = 6, 4  # bytes of a record before its payload, and of its trim mark if it has one
_HEAD = ">HI"  # kind << 12 | has a mark << 11 | length of the payload; CRC-32
_HAS_MARK = const(2048)
_LENGTH = const(2047)
_BLANK = b"\xff" * UNIT
_BLANKS = b"\xff" * 256


def room(length):
    """Returns the bytes on flash of a record without a mark whose payload has `length` bytes."""
    return (HEAD + length + UNIT - 1) // UNIT * UNIT


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
        self._marked = -1  # the trim mark that the newest sector's last record has
        self._offset = self._size  # where the next record goes; the sector's end: a new sector first
        from firmware import ring  # needed once: a board may drop it
        # epoch: the newest sector's; firsts: first sequence number of each sector, -1: nothing readable; kept: sectors
        # from the newest back to the oldest that is kept; the spare is none of them
        self._epoch, self._newest, self._kept, self._firsts = ring.find(device, self._count)
        if self._epoch:
            self._offset, self.next_seq, self.trimmed, self._marked = ring.find_end(self, self._kept)
            if not self.is_blank(0, self._offset):
                self._offset = self._size

    @property
    def first_seq(self):
        """The oldest record that is kept."""
        for age in range(self._kept - 1, -1, -1):
            if self.first_of(age) >= 0:
                return self.first_of(age)
        return self.next_seq

    @property
    def at_risk_seq(self):
        """Records below this number are dropped within the next few sectors: copy what is still true of them."""
        margin = max(1, min(_RISK_SECTORS, self._count // 4))
        free = self._count - 1 - self._kept  # sectors until the first is dropped
        if free >= margin:
            return 0
        return max(0, self.first_of(max(0, self._kept - 1 - margin + free)))

    def largest_payload(self):
        return min(_LENGTH, self._size - UNIT - HEAD - MARK)

    def used_sectors(self):
        """Returns how many sectors hold records that are still needed."""
        for age in range(self._kept):
            if 0 <= self.first_of(age) <= self.trimmed:
                return age + 1
        return self._kept

    def append(self, kind, payload):
        """Writes one record; returns its sequence number. Durable after `sync`. ValueError: no such kind, too large."""
        length = len(payload)
        if length > self.largest_payload() or not 0 < kind <= KINDS:
            raise ValueError("record %d of %d bytes" % (kind, length))
        if self._offset + room(length + (0 if self.trimmed == self._marked else MARK)) > self._size:
            self._begin_sector()
        word = kind << 12 | length
        mark = b""
        if self.trimmed != self._marked:
            word |= _HAS_MARK
            self._marked = self.trimmed
            mark = struct.pack(">I", self.trimmed)
        record = bytearray(_BLANK * (room(len(mark) + length) // UNIT))
        crc = _checksum(binascii.crc32(payload, binascii.crc32(mark, binascii.crc32(struct.pack(">H", word)))),
                        self.next_seq)
        record[:HEAD] = struct.pack(_HEAD, word, crc)
        start = HEAD + len(mark)
        record[HEAD:start] = mark
        record[start:start + length] = payload
        self._device.writeblocks(self._newest, record, self._offset)
        self._offset += len(record)
        self.next_seq += 1
        return self.next_seq - 1

    def sync(self):
        """Returns when every record appended so far would be found after a power cut."""
        self._device.ioctl(SYNC, 0)

    def trim(self, seq):
        """Says that no record below `seq` is needed; durable with the next record that is."""
        self.trimmed = max(self.trimmed, min(seq, self.next_seq))

    def read(self, first_seq):
        """Yields (sequence number, kind, payload) from `first_seq` on, in order; what was dropped is not there."""
        oldest = 0
        while oldest < self._kept - 1 and not 0 <= self.first_of(oldest) <= first_seq:
            oldest += 1
        for age in range(min(oldest, self._kept - 1), -1, -1):
            for _, seq, kind, payload, _ in self.sector_records(age):
                if seq >= first_seq:
                    yield seq, kind, payload

    def first_of(self, age):
        """Returns the first sequence number of the sector that is so many older than the newest; -1: not readable."""
        return self._firsts[self._index(age)]

    def _index(self, age):
        """The sector that is so many older than the newest; -1: the spare, which is next."""
        return (self._newest - age) % self._count

    def _begin_sector(self):
        index = self._index(-1)
        self._firsts[index] = -1
        self.sync()  # a file's system may write in another order: never a later sector without what is before it
        self._device.ioctl(ERASE, index)
        head = struct.pack(SECTOR, MAGIC, self._epoch + 1, self.next_seq)
        head += struct.pack(">I", binascii.crc32(head) & 0xFFFFFFFF)
        self._device.writeblocks(index, head, 0)
        self._epoch += 1
        self._firsts[index] = self.next_seq
        self._newest = index
        self._offset = UNIT
        self._marked = -1
        if self._kept < self._count - 1:
            self._kept += 1
        elif self.first_seq > self.trimmed:
            self.dropped += 1

    def sector_records(self, age):
        """Yields (end offset, seq, kind, payload, mark or None) of a sector's good records; a bad one is stepped over.
        age 0: the newest, -1: the spare.

        Through a window: a board may not have a sector's length of RAM in one piece.
        """
        index = self._index(age)
        expected = self.first_of(age)
        window = bytearray(min(WINDOW, self._size))
        start = self._size  # of the window; nothing is in it yet
        at = good = UNIT if expected >= 0 else self._size  # good: where the last good record ends
        while at + UNIT <= self._size:
            if not start <= at <= start + len(window) - UNIT:
                start = min(at, self._size - len(window))
                self._device.readblocks(index, window, start)
            word, crc = struct.unpack(_HEAD, window[at - start:at - start + HEAD])
            if word == 0xFFFF:
                if at == good and self.is_blank(age, at):
                    break
                at += UNIT
                continue
            body = HEAD + (MARK if word & _HAS_MARK else 0)
            size = body + (word & _LENGTH)
            record = window[at - start:at - start + size]
            if len(record) < size and at + size <= self._size:
                record = bytearray(size)
                self._device.readblocks(index, record, at)
            at += UNIT
            if len(record) < size:
                continue
            found = binascii.crc32(memoryview(record)[HEAD:], binascii.crc32(memoryview(record)[:2]))
            first = expected if at == good + UNIT else expected + 1  # what is bad was one record at least
            for seq in range(first, expected + (at - good) // UNIT):
                if _checksum(found, seq) == crc:
                    if age >= 0:
                        self._count_damaged(expected, seq)
                    at = good = at - UNIT + room(size - HEAD)
                    mark = struct.unpack(">I", record[HEAD:body])[0] if body > HEAD else None
                    yield at, seq, word >> 12, bytes(record[body:]), mark
                    expected = seq + 1
                    break
        if age > 0:
            self._count_damaged(expected, self.first_of(age - 1))

    def _count_damaged(self, expected, seq):
        """The records from `expected` to before `seq` are gone; however often they are looked for, they count once."""
        if seq > max(expected, self._damaged_seq):
            self.damaged += seq - max(expected, self._damaged_seq)
            self._damaged_seq = seq

    def is_blank(self, age, offset):
        """Returns whether a sector holds nothing from there on."""
        index = self._index(age)
        chunk = bytearray(len(_BLANKS))
        while self._size - offset >= len(chunk):
            self._device.readblocks(index, chunk, offset)
            if chunk != _BLANKS:
                return False
            offset += len(chunk)
        chunk = bytearray(self._size - offset)
        self._device.readblocks(index, chunk, offset)
        return chunk == _BLANKS[:len(chunk)]


def _checksum(crc, seq):
    """Returns the CRC-32 of a record: that of its head, mark and payload, and on over its number."""
    return binascii.crc32(struct.pack(">I", seq), crc) & 0xFFFFFFFF
