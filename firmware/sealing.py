"""Makes seal records out of a point's open readings.

Every point has a Chain: how high its seals are, which readings are not sealed yet, how far the ledger has acked. The
Book keeps the chains, the boot counter and the hashes that seals carry. All of it is found again from the journal at
the next start (recovery.py); what would be lost because the ring overwrites it (the head of a quiet point) is written
again in time (`keep_heads`).
"""

from firmware import records
from firmware.outbox import Sealed
from firmware.wire import reading as reading_codec
from firmware.wire import seal as seal_codec
from firmware.wire.errors import Refused

OPEN_READINGS = 512  # unsealed readings whose numbers are held; the rest waits in the journal
ENVELOPE_ROOM = 54000  # bytes of readings a seal may cover, of the 60 KiB of an envelope
BILLING_BYTES, OTHER_BYTES = 200, 1600  # upper bounds of one reading with its CBOR head
CATCH_UP_SEALS = 32  # seals of one point under way while readings are sealed again after a loss
BEHIND = 3  # times seal_every, after which unsealed readings are a backlog
CONFIGURATIONS = 8  # pairs of hashes remembered for seals that are not acked


class Chain:
    """One point's seals and open readings."""

    def __init__(self, point):
        self.point = point
        self.meter_epoch = 1
        self.known_epoch = 1  # the newest that the journal names
        self.turns = []  # (record number, epoch before it): the meter was replaced there
        self.height = 0
        self.acked = 0
        self.previous = seal_codec.FIRST_PREVIOUS
        self.last_ms = None
        self.last_billing_ms = None
        self.open = []  # (record number, time, is billing), oldest first
        self.rest_seq = None  # open readings from this record on are not listed
        self.head_seq = None  # the oldest record needed to know this chain's head
        self.void = 0  # unacked heights up to here are given up
        self.base = None  # after a break: the height the next seal's loss is counted from
        self.orphan_seq = None  # readings from here on belong to a seal that overflow has taken in part ...
        self.orphan_height = 0  # ... of this height: needed until the ledger is known to have it
        self.has_lost = False  # readings were lost since the last seal
        self.last_record = None

    def add(self, seq, time_ms, is_billing):
        """A reading has been appended."""
        self.last_ms = time_ms
        if is_billing:
            self.last_billing_ms = time_ms
        if self.rest_seq is None and len(self.open) < OPEN_READINGS:
            self.open.append((seq, time_ms, is_billing))
        elif self.rest_seq is None:
            self.rest_seq = seq

    def epoch_at(self, seq):
        """Returns the epoch of the meter that a reading is of."""
        for turn_seq, before in self.turns:
            if seq < turn_seq:
                return before
        return self.meter_epoch

    def turn(self, seq, meter_epoch):
        """A new meter's readings begin at this record."""
        self.turns.append((seq, self.known_epoch))
        self.known_epoch = meter_epoch

    def group(self, label_ms, interval_ms, period_ms, slot_ms, is_hasty):
        """Returns how many of the open readings make a seal now (0: none yet); is_hasty: all that may share one.

        A billing reading belongs to the period that ends at its grid point, the other quantities to the one they are
        read in; a seal never spans a slot boundary, and times rise in it.
        """
        size = 0
        place = last_ms = None
        for index in range(len(self.open)):
            seq, time_ms, is_billing = self.open[index]
            due_ms = time_ms - time_ms % interval_ms
            here = _place(due_ms if is_billing else time_ms, is_billing, period_ms, slot_ms)
            size += BILLING_BYTES if is_billing else OTHER_BYTES
            if index and (here != place or time_ms <= last_ms or size > ENVELOPE_ROOM):
                return index
            if index and self.turns and self.epoch_at(seq) != self.epoch_at(self.open[0][0]):
                return index
            if is_billing and (due_ms % period_ms == 0 or due_ms % slot_ms == 0):
                return index + 1
            place, last_ms = here, time_ms
        if is_hasty or self.rest_seq is not None:
            return len(self.open)
        if place is not None and label_ms >= min(place[0] * slot_ms, place[1] * period_ms) + interval_ms:
            return len(self.open)  # the reading that should have closed it never came
        return 0


def _place(time_ms, is_billing, period_ms, slot_ms):
    if is_billing:
        return (time_ms + slot_ms - 1) // slot_ms, (time_ms + period_ms - 1) // period_ms
    return time_ms // slot_ms + 1, time_ms // period_ms + 1


class Book:
    """All chains of a device. settings: agent.Settings; parameters: the chain's; table: type name -> Meter."""

    def __init__(self, settings, parameters, journal, table):
        self.next_seq = journal.next_seq
        self.boot = 0
        self.chains = {}
        self.settings = settings
        self._slot_ms = parameters["slot_s"] * 1000
        self._late_ms = parameters["late_s"] * 1000
        self.journal = journal
        self.table = table
        self.boot_seq = 0
        self.configurations = {}  # its first boot -> [measurement, configuration, record number]
        self.configuration = 0  # the newest's
        self._first_seen = journal.first_seq
        for place in settings.places:
            self.chains[place.point] = Chain(place.point)

    def rising_time(self, point, time_ms):
        """Returns the time for a reading: two of one point never share a millisecond."""
        chain = self.chains[point]
        return time_ms + 1 if chain.last_ms == time_ms else time_ms

    def close_due(self, emit, outbox, label_ms, is_online):
        """Turns open readings into seal records, as far as their periods are over; returns how many seals."""
        made = 0
        for point in sorted(self.chains):
            chain = self.chains[point]
            if chain.base is not None and not is_online:
                continue  # the loss may yet grow, and a height that is used is used for ever
            is_hasty = is_online and self._is_behind(chain, label_ms)
            period_ms = self.settings.seal_every_ms if is_online and not is_hasty else self._slot_ms
            while self._may_close(chain, outbox):
                count = chain.group(label_ms, self.settings.interval_ms, period_ms, self._slot_ms, is_hasty)
                if not count:
                    break
                made += self._close(chain, count, emit, outbox, label_ms)
        return made

    def keep_heads(self, emit, outbox):
        """Writes again what the ring is about to overwrite; notices what it has overwritten. Returns alarm texts."""
        texts = []
        first_seq = self.journal.first_seq
        if first_seq > self._first_seen:
            self._first_seen = first_seq
            for point in sorted(self.chains):
                if self.notice_drop(self.chains[point], first_seq, outbox):
                    texts.append("point %d: the journal is full, its oldest unacked readings are lost; no gateway has "
                                 "acked for too long" % point)
        risk_seq = self.journal.at_risk_seq
        for point in sorted(self.chains):
            chain = self.chains[point]
            if chain.head_seq is not None and chain.head_seq < risk_seq:
                chain.head_seq = emit(records.HEAD, records.encode_head(records.Head(
                    point, chain.height, chain.meter_epoch, chain.acked, chain.last_ms or 0, chain.previous)))
        if self.boot_seq < risk_seq:
            self.boot_seq = emit(records.BOOT, records.encode_boot(self.boot))
        for number in sorted(self.configurations):
            entry = self.configurations[number]
            if entry[2] < risk_seq:
                entry[2] = emit(records.CONFIGURATION, records.encode_configuration(number, entry[0], entry[1]))
        return texts

    def load(self, outbox):
        """Takes seals from the journal that had no room in the outbox."""
        for seq, kind, payload in self.journal.read(outbox.begin_load()):
            if kind == records.SEAL:
                record = records.decode_seal(payload, seq)
                chain = self.chain(record.point)
                if record.height > chain.acked and record.height > chain.void:
                    outbox.add(Sealed(record.point, record.height, record.lost, seq, record.first_seq))

    def find(self, point, height):
        """Returns the Sealed of a height that is only in the journal; Refused `wrong_height` when there is none."""
        chain = self.chains[point]
        found = None
        if not chain.acked < height <= chain.height:
            raise Refused("wrong_height", chain.height, height)
        for seq, kind, payload in self.journal.read(0):
            if kind == records.SEAL:
                record = records.decode_seal(payload, seq)
                if record.point == point and record.height == height:
                    found = Sealed(point, height, record.lost, seq, record.first_seq)
        if found is None:
            raise Refused("wrong_height", None, height)
        return found

    def rebuild(self, sealed):
        """Returns (payload, [reading bytes]) of a seal, byte for byte as before; Refused when records are gone."""
        for seq, kind, payload in self.journal.read(sealed.seq):
            if seq != sealed.seq or kind != records.SEAL:
                break
            record = records.decode_seal(payload, seq)
            readings = records.readings_of(self.journal, self.settings.kid, record, self.table)
            return self.payload(record, readings), [data for _, data in readings]
        raise Refused("readings_missing", sealed.seq, None)

    def answers_loss(self, point, first, outbox):
        """The ledger wants a point's heights from `first` on: returns whether they are gone, and then declares it.

        The unacked seals are given up: the next one names the heights as lost and seals their readings, as far as
        there are any, once more. A wanted range is no proof: a lie here costs heights, never readings.
        """
        chain = self.chains[point]
        if first > chain.height:
            return False
        if chain.base is not None:
            chain.base = first - 1
            return False
        if outbox.find(point, first) is not None:
            return False
        if first > chain.void:
            try:
                self.rebuild(self.find(point, first))
                return False  # it waits in the journal for its turn
            except Refused:
                pass  # gone: that is the loss to declare
        self._break_chain(chain, outbox, first - 1)
        return True

    def lowest_seq(self, outbox):
        """Returns the oldest record that is still needed."""
        lowest = outbox.lowest_seq()
        for point in self.chains:
            chain = self.chains[point]
            if chain.acked >= chain.orphan_height:
                chain.orphan_seq = None
            for seq in (chain.orphan_seq, chain.open[0][0] if chain.open else chain.rest_seq):
                if seq is not None and (lowest is None or seq < lowest):
                    lowest = seq
        return self.next_seq if lowest is None else lowest

    def _break_chain(self, chain, outbox, base):
        """Gives up all unacked seals; base: the height that the next one's loss is counted from."""
        start_seq = chain.open[0][0] if chain.open else chain.rest_seq
        for sealed in outbox.items:
            if sealed.point == chain.point and (start_seq is None or sealed.first_seq < start_seq):
                start_seq = sealed.first_seq
        if outbox.unloaded_first_seq is not None and (start_seq is None or outbox.unloaded_first_seq < start_seq):
            start_seq = self._first_unacked(chain, outbox, start_seq)
        if chain.orphan_seq is not None and base < chain.orphan_height:
            start_seq = chain.orphan_seq
        chain.orphan_seq = None
        outbox.abandon(chain.point)
        chain.void = chain.height
        chain.base = base
        chain.open = []
        chain.rest_seq = start_seq
        chain.has_lost = True

    def chain(self, point):
        if point not in self.chains:
            self.chains[point] = Chain(point)
        return self.chains[point]

    def _is_behind(self, chain, label_ms):
        """After an outage or a loss few large seals are made, at once: each record written costs an old one."""
        if chain.base is not None or chain.rest_seq is not None:
            return True
        return bool(chain.open) and label_ms - chain.open[0][1] > BEHIND * self.settings.seal_every_ms

    def _may_close(self, chain, outbox):
        if chain.rest_seq is None:
            return bool(chain.open)
        if not chain.open:
            self._load_open(chain)
        return sum([1 for sealed in outbox.items if sealed.point == chain.point]) < CATCH_UP_SEALS and bool(chain.open)

    def _load_open(self, chain):
        start_seq, chain.rest_seq = chain.rest_seq, None
        for seq, kind, payload in self.journal.read(start_seq):
            if kind == records.READING:
                point, time_ms, is_billing = records.point_and_time(payload)
                if point == chain.point:
                    if len(chain.open) >= OPEN_READINGS:
                        chain.rest_seq = seq
                        return
                    chain.open.append((seq, time_ms, is_billing))

    def _close(self, chain, count, emit, outbox, label_ms):
        first_seq, last_seq = chain.open[0][0], chain.open[count - 1][0]
        lost = 0 if chain.base is None else chain.height - chain.base
        previous = seal_codec.FIRST_PREVIOUS if lost else chain.previous
        record = records.SealRecord(chain.point, chain.height + 1, lost, chain.epoch_at(first_seq), 0, self.boot,
                                    self.configuration, first_seq, last_seq - first_seq, count, previous)
        chain.open = chain.open[count:]
        try:
            readings = records.readings_of(self.journal, self.settings.kid, record, self.table)
        except Refused:
            chain.has_lost = True
            return 0
        last = readings[-1][0]
        flags = last.quality & reading_codec.CLOCK_BITS
        if lost or chain.has_lost:
            flags |= seal_codec.HEIGHTS_LOST
        if label_ms - last.time_ms > self._late_ms:
            flags |= seal_codec.LATE
        record = records.SealRecord(*record[:4], flags, *record[5:])
        chain.previous = seal_codec.payload_hash(self.payload(record, readings))
        seq = emit(records.SEAL, records.encode_seal(record, self.next_seq))
        chain.height += 1
        chain.head_seq = first_seq
        chain.base = None
        chain.has_lost = False
        outbox.add(Sealed(chain.point, chain.height, lost, seq, first_seq))
        return 1

    def payload(self, record, readings):
        if record.configuration not in self.configurations:
            raise Refused("damaged", "a configuration", record.configuration)
        return records.seal_payload(self.settings.kid, record, readings,
                                    self.configurations[record.configuration])

    def notice_drop(self, chain, first_seq, outbox):
        """Returns whether the ring took anything of this chain that was needed.

        Seals that are gone are not declared lost yet: the ledger may have had them. If it wants them, it says so.
        """
        height = outbox.forget_before(chain.point, first_seq)
        is_lost = height > 0
        if is_lost:
            chain.orphan_height = height
        if is_lost or chain.orphan_seq is not None:
            chain.orphan_seq = first_seq
        while chain.open and chain.open[0][0] < first_seq:
            chain.open = chain.open[1:]
            is_lost = True
        if not chain.open and chain.rest_seq is not None and chain.rest_seq < first_seq:
            chain.rest_seq = first_seq
            is_lost = True
        if is_lost:
            chain.has_lost = True
        return is_lost

    def _first_unacked(self, chain, outbox, start_seq):
        for seq, kind, payload in self.journal.read(outbox.unloaded_seq):
            if kind == records.SEAL:
                record = records.decode_seal(payload, seq)
                if record.point == chain.point and record.height > max(chain.acked, chain.void):
                    return record.first_seq if start_seq is None else min(start_seq, record.first_seq)
        return start_seq
