"""Finds a journal's ring on its device, and reads all of it: at the start, and not needed any more afterwards."""

import binascii
import struct

from firmware.journal import MAGIC, SECTOR, UNIT


def find(device, count):
    """Returns (epoch, newest, kept, firsts) as journal.Journal has them; epoch 0: nothing was ever written."""
    epochs = [-1] * count
    firsts = [-1] * count
    epoch = kept = 0
    newest = count - 1
    head = bytearray(UNIT)
    for index in range(count):
        device.readblocks(index, head, 0)
        magic, found, first = struct.unpack(SECTOR, head[:12])
        if magic == MAGIC and struct.unpack(">I", head[12:])[0] == binascii.crc32(head[:12]) & 0xFFFFFFFF:
            epochs[index] = found
            firsts[index] = first
            if found > epoch:
                epoch = found
                newest = index
    # What is older than one round of the ring, or out of its order, is the left-over of an erase that was cut.
    for index in range(count):
        age = (newest - index) % count
        if epochs[index] >= 0 and epochs[index] != epoch - age:
            firsts[index] = -1
        elif epochs[index] >= 0 and age < count - 1:
            kept = max(kept, age + 1)
    return epoch, newest, kept, firsts


def find_end(journal, kept):
    """Returns (offset behind the last good record, number of the next, trim mark, the newest sector's mark or -1).

    The last trim mark may stand in a sector before the newest.
    """
    offset = UNIT
    next_seq = journal.first_of(0)
    trimmed = 0
    marked = -1
    for end, seq, _, _, mark in journal.sector_records(0):
        offset = end
        next_seq = seq + 1
        if mark is not None:
            marked = trimmed = mark
    age = 1
    while not trimmed and marked < 0 and age < kept:
        for _, _, _, _, mark in journal.sector_records(age):
            trimmed = mark or trimmed
        age += 1
    return offset, next_seq, trimmed, marked


def read_all(journal):
    """Yields as `journal.read` everything that can still be read, the spare sector's dropped records first."""
    for _, seq, kind, payload, _ in journal.sector_records(-1):
        yield seq, kind, payload
    for record in journal.read(0):
        yield record
