"""Makes NOR flash in memory whose power can fail at any moment, and judges what a journal finds on it afterwards.

Theory. A program clears bits and sets none; it goes by units of 16 bytes, and one that is cut leaves nothing, all, or
some of its bits. An erase that is cut leaves the sector as it was, in part, or blank to look at: in each case what is
programmed there before a whole erase is worth nothing (`weak`). `Recorder` notes what a journal does to its device;
`every_cut` then goes through that list once, and makes of each moment between and within two operations a flash that
lost its power there. Runs in MicroPython too, so it is written in what both understand.
"""

import hashlib

from firmware.journal import BLOCK_COUNT, BLOCK_SIZE, ERASE, SYNC, Journal

UNIT = 16
NOTHING, ALL, SOME = 0, 1, 2  # what a cut operation leaves
KINDS = 14


class PowerCut(Exception):
    """The board is dead from here on."""


class Chance:
    """Numbers that are the same in every interpreter (xorshift of 32 bits)."""

    def __init__(self, seed):
        self._state = (seed * 2654435761 + 1) & 0xFFFFFFFF or 1

    def below(self, limit):
        state = self._state
        state ^= state << 13 & 0xFFFFFFFF
        state ^= state >> 17
        state ^= state << 5 & 0xFFFFFFFF
        self._state = state
        return (state >> 7) % limit


class Flash:
    """NOR flash: readblocks, writeblocks, ioctl as esp32.Partition has them. cut_at: the unit or erase that is cut.

    erases, units: done so far; overwritten: bytes that a program should have set bits in; weak: sectors whose erase
    was cut, spoilt: programs of these.
    """

    def __init__(self, sectors=8, size=4096, seed=1):
        self.data = [bytearray(b"\xff" * size) for _ in range(sectors)]
        self.size = size
        self.erases = self.units = self.overwritten = self.spoilt = 0
        self.erased = [0] * sectors
        self.weak = set()
        self.cut_at = None
        self._chance = Chance(seed)

    def copy(self, seed):
        made = Flash(0, self.size, seed)
        made.data = [bytearray(sector) for sector in self.data]
        made.erased = [0] * len(made.data)
        made.weak = set(self.weak)
        return made

    def readblocks(self, block, buffer, offset=0):
        buffer[:] = self.data[block][offset:offset + len(buffer)]

    def writeblocks(self, block, data, offset=0):
        if offset % UNIT or offset + len(data) > self.size:
            raise ValueError("program of %d bytes at %d" % (len(data), offset))
        for at in range(0, len(data), UNIT):
            self.units += 1
            is_cut = self.cut_at is not None and self.units > self.cut_at
            self.program(block, offset + at, data[at:at + UNIT], self._chance.below(3) if is_cut else ALL)
            if is_cut:
                raise PowerCut

    def ioctl(self, operation, argument):
        if operation == BLOCK_COUNT:
            return len(self.data)
        if operation == BLOCK_SIZE:
            return self.size
        if operation == ERASE:
            self.units += 1
            is_cut = self.cut_at is not None and self.units > self.cut_at
            self.erase(argument, self._chance.below(3) if is_cut else ALL, is_cut)
            if is_cut:
                raise PowerCut
        return 0

    def programmed(self):
        """Bytes programmed so far."""
        return (self.units - self.erases) * UNIT

    def program(self, block, offset, unit, what):
        self.spoilt += block in self.weak
        sector = self.data[block]
        for index in range(len(unit) if what != NOTHING else 0):
            byte = unit[index]
            if what == SOME:
                byte |= self._chance.below(256)
            if byte & ~sector[offset + index]:
                self.overwritten += 1
            sector[offset + index] &= byte

    def erase(self, block, what, is_cut):
        self.erases += 1
        self.erased[block] += 1
        if not is_cut:
            self.weak.discard(block)
        else:
            self.weak.add(block)
        sector = self.data[block]
        if what == ALL:
            sector[:] = b"\xff" * self.size
        elif what == SOME:
            half = self._chance.below(self.size)
            sector[:half] = b"\xff" * half
            for index in range(half, self.size, 1 + self._chance.below(32)):
                sector[index] |= self._chance.below(256)


class Cached(Flash):
    """A file behind a system's cache: what was not synced may be on the disk or not, by blocks of 512 bytes."""

    def __init__(self, sectors, size, seed):
        Flash.__init__(self, sectors, size, seed)
        self._disk = [bytearray(sector) for sector in self.data]

    def ioctl(self, operation, argument):
        if operation == SYNC:
            self._disk = [bytearray(sector) for sector in self.data]
        return Flash.ioctl(self, operation, argument)

    def lose_power(self):
        for block in range(len(self.data)):
            for at in range(0, self.size, 512):
                if self._chance.below(2):
                    self.data[block][at:at + 512] = self._disk[block][at:at + 512]
        self._disk = [bytearray(sector) for sector in self.data]


class Recorder:
    """A journal's device that notes each erase (block, -1, None) and unit (block, offset, bytes) in `done`."""

    def __init__(self, flash):
        self._flash = flash
        self.done = []

    def readblocks(self, block, buffer, offset=0):
        self._flash.readblocks(block, buffer, offset)

    def writeblocks(self, block, data, offset=0):
        for at in range(0, len(data), UNIT):
            self.done.append((block, offset + at, bytes(data[at:at + UNIT])))
        self._flash.writeblocks(block, data, offset)

    def ioctl(self, operation, argument):
        if operation == ERASE:
            self.done.append((argument, -1, None))
        return self._flash.ioctl(operation, argument)


class Log:
    """What a journal was told: `payload_of` each record, its newest trim mark, what is synced."""

    def __init__(self):
        self.tries = {}  # seq -> how often a record of that number was begun
        self.marks = {}
        self.synced = 0

    def append(self, journal, length):
        seq = journal.next_seq
        self.tries[seq] = self.tries.get(seq, 0) + 1
        self.marks[seq] = journal.trimmed
        journal.append(seq % KINDS + 1, payload_of(seq, self.tries[seq], length))

    def sync(self, journal):
        journal.sync()
        self.synced = journal.next_seq - 1


def payload_of(seq, attempt, length):
    """No two records are alike, nor two attempts at one."""
    made = hashlib.sha256(b"%d %d" % (seq, attempt)).digest()
    return (made * (length // 32 + 1))[:length]


def story(journal, log, count, chance, trim_behind, lengths=(0, 130)):
    """Appends `count` records of chance lengths; syncs and trims now and then, never where trim_behind is 0."""
    for _ in range(count):
        log.append(journal, lengths[0] + chance.below(lengths[1] - lengths[0] + 1))
        if chance.below(3) == 0:
            log.sync(journal)
        if trim_behind and chance.below(4) == 0:
            journal.trim(max(1, journal.next_seq - trim_behind))


def faults(flash, log, first_seq, synced):
    """Returns what is wrong with what a journal finds on `flash`, [] if nothing, and the journal.

    first_seq: what was kept before the power failed, and after it at the latest; synced: the newest record known to
    be durable then.
    """
    wrong = []
    journal = Journal(flash)
    numbers = []
    for seq, kind, payload in journal.read(0):
        numbers.append(seq)
        if kind != seq % KINDS + 1 or payload != payload_of(seq, log.tries.get(seq, 0), len(payload)):
            wrong.append("record %d is not what was written" % seq)
    if numbers != list(range(journal.first_seq, journal.next_seq)):
        wrong.append("a hole")
    if journal.next_seq <= synced:
        wrong.append("record %d was synced, and the next is %d" % (synced, journal.next_seq))
    if journal.first_seq > max(first_seq, 1):
        wrong.append("kept from %d, should be from %d" % (journal.first_seq, first_seq))
    if numbers and journal.trimmed != log.marks[journal.next_seq - 1]:
        wrong.append("trimmed to %d, was %d" % (journal.trimmed, log.marks[journal.next_seq - 1]))
    if journal.damaged or flash.overwritten or flash.spoilt:
        wrong.append("damaged %d, overwritten %d, spoilt %d" % (journal.damaged, flash.overwritten, flash.spoilt))
    return wrong, journal


def first_after(journal, found):
    """The first record that `found` may begin with, opened after `journal` lost its power at some moment."""
    if found._epoch == journal._epoch or journal._kept < journal._count - 1:
        return journal.first_seq
    return min([first for first in journal._firsts if first > journal.first_seq])  # its header was written


class Sweep:
    """One long run and all moments at which its power can fail. step: only every so many of them."""

    def __init__(self, sectors, size, records, trim_behind, seed, lengths=(0, 130)):
        self.shape = (sectors, size)
        self.records = records
        self.trim_behind = trim_behind
        self.seed = seed
        self.lengths = lengths
        self.cuts = self.again = 0
        self.bad = []
        self.flash = Flash(sectors, size, seed)
        self.journal = None

    def run(self, step=1, offset=0):
        """Records the run, then cuts it everywhere; returns itself."""
        recorder = Recorder(self.flash)
        journal = self.journal = Journal(recorder)
        log = Log()
        chance = Chance(self.seed)
        facts = []  # before each record: (operations so far, first record kept, newest synced)
        for _ in range(self.records):
            facts.append((len(recorder.done), journal.first_seq, log.synced))
            story(journal, log, 1, chance, self.trim_behind, self.lengths)
        facts.append((len(recorder.done), journal.first_seq, log.synced))
        self._cut_all(recorder.done, facts, log, step, offset)
        return self

    def _cut_all(self, done, facts, log, step, offset):
        flash = Flash(self.shape[0], self.shape[1], self.seed)
        at = 0
        for index in range(len(done)):
            while at + 1 < len(facts) - 1 and facts[at + 1][0] <= index:
                at += 1
            block, place, unit = done[index]
            if index % step == offset:
                for what in (NOTHING, ALL, SOME):
                    cut = flash.copy(index * 3 + what)
                    if unit is None:
                        cut.erase(block, what, True)
                    else:
                        cut.program(block, place, unit, what)
                    self._judge(cut, log, facts[at][2], facts[at + 1][1], index * 3 + what)
            if unit is None:
                flash.erase(block, ALL, False)
            else:
                flash.program(block, place, unit, ALL)

    def _judge(self, cut, log, synced, first_seq, number):
        """What is found; then it goes on, loses its power once more, and is judged again."""
        self.cuts += 1
        wrong, journal = faults(cut, log, first_seq, synced)
        after = Log()
        for seq in range(journal.first_seq, journal.next_seq):
            after.tries[seq] = log.tries[seq]
            after.marks[seq] = log.marks[seq]
        for seq in range(journal.next_seq, max(log.tries) + 1):
            after.tries[seq] = log.tries[seq]  # a number may be begun again, with other content
        after.synced = synced
        chance = Chance(number)
        cut.units, cut.cut_at = 0, chance.below(40)
        try:
            while True:
                story(journal, after, 1, chance, self.trim_behind, self.lengths)
        except PowerCut:
            self.again += 1
        cut.cut_at = None
        more, journal = faults(cut, after, first_after(journal, Journal(cut)), after.synced)
        for _ in range(3):
            after.append(journal, 20)
        after.sync(journal)
        last = faults(cut, after, journal.first_seq, after.synced)[0]
        for text in wrong + more + last:
            self.bad.append("cut %d: %s" % (number, text))
