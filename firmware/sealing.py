"""Makes seal records out of a point's open readings.

Every point has a Chain: how high its seals are, which readings are not sealed yet, how far the ledger has acked. The
Book keeps the chains, the boot counter and the hashes that seals carry. All of it is found again from the journal at
the next start (recovery.py); what would be lost because the ring overwrites it (the head of a quiet point) is written
again in time (`keep_heads`).
"""

try:
    from micropython import const
except ImportError:
    def const(value):
        return value

NOTHING = bytes(32)  # seal.FIRST_PREVIOUS
OPEN_READINGS = 512  # unsealed readings whose numbers are held; the rest waits in the journal
ENVELOPE_ROOM = 54000  # bytes of readings a seal may cover, of the 60 KiB of an envelope
_BILLING_BYTES = const(200)  # upper bounds of one reading with its CBOR head
_OTHER_BYTES = const(1600)
_CATCH_UP_SEALS = const(32)  # seals of one point under way while readings are sealed again after a loss
_BEHIND = const(3)  # times seal_every, after which unsealed readings are a backlog
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
        self.previous = NOTHING
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
            size += _BILLING_BYTES if is_billing else _OTHER_BYTES
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
        self.flags = 0  # of every seal that is made: a board's, which slot runs
        self.chains = {}
        self.settings = settings
        self._slot_ms = parameters["slot_s"] * 1000
        self.late_ms = parameters["late_s"] * 1000
        self.journal = journal
        self.table = table
        self.boot_seq = 0
        self.configurations = {}  # its first boot -> [measurement, configuration, record number]
        self.configuration = 0  # the newest's
        self.first_seen = journal.first_seq
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
                from firmware import envelopes  # loaded while something is sealed

                made += envelopes.close(self, chain, count, emit, outbox, label_ms)
        return made

    def keep_heads(self, emit, outbox):
        """Writes again what the ring is about to overwrite; notices what it has overwritten. Returns alarm texts."""
        oldest_seq = self.boot_seq
        for point in self.chains:
            oldest_seq = min(oldest_seq, self.chains[point].head_seq or oldest_seq)
        for number in self.configurations:
            oldest_seq = min(oldest_seq, self.configurations[number][2])
        if self.journal.first_seq <= self.first_seen and oldest_seq >= self.journal.at_risk_seq:
            return ()
        from firmware import losses

        return losses.keep_heads(self, emit, outbox)

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

    def chain(self, point):
        if point not in self.chains:
            self.chains[point] = Chain(point)
        return self.chains[point]

    def _is_behind(self, chain, label_ms):
        """After an outage or a loss few large seals are made, at once: each record written costs an old one."""
        if chain.base is not None or chain.rest_seq is not None:
            return True
        return bool(chain.open) and label_ms - chain.open[0][1] > _BEHIND * self.settings.seal_every_ms

    def _may_close(self, chain, outbox):
        if chain.rest_seq is None:
            return bool(chain.open)
        if not chain.open:
            from firmware import losses

            losses.load_open(self, chain)
        return sum([1 for sealed in outbox.items if sealed.point == chain.point]) < _CATCH_UP_SEALS and bool(chain.open)
