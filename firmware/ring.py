"""Finds the sectors of a journal's ring on its device, when the journal is opened: not needed any more afterwards."""

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
