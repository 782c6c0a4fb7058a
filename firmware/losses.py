"""Makes the best of a full journal and of gaps in it: what the ring takes, what is given up, what had no room in RAM.

Functions over a sealing.Book. A board loads this module when one of these things happens, and drops it again.
"""

from firmware import envelopes, records
from firmware.outbox import Sealed
from firmware.sealing import OPEN_READINGS
from firmware.wire.errors import Refused


def keep_heads(book, emit, outbox):
    """Writes again what the ring is about to overwrite; notices what it has overwritten. Returns alarm texts."""
    texts = []
    first_seq = book.journal.first_seq
    if first_seq > book.first_seen:
        book.first_seen = first_seq
        for point in sorted(book.chains):
            if notice_drop(book, book.chains[point], first_seq, outbox):
                texts.append("point %d: the journal is full, its oldest unacked readings are lost; no gateway has "
                             "acked for too long" % point)
    risk_seq = book.journal.at_risk_seq
    for point in sorted(book.chains):
        chain = book.chains[point]
        if chain.head_seq is not None and chain.head_seq < risk_seq:
            chain.head_seq = emit(records.HEAD, records.encode_head(records.Head(
                point, chain.height, chain.meter_epoch, chain.acked, chain.last_ms or 0, chain.previous)))
    if book.boot_seq < risk_seq:
        book.boot_seq = emit(records.BOOT, records.encode_boot(book.boot))
    for number in sorted(book.configurations):
        entry = book.configurations[number]
        if entry[2] < risk_seq:
            entry[2] = emit(records.CONFIGURATION, records.encode_configuration(number, entry[0], entry[1]))
    return texts


def answers_loss(book, point, first, outbox):
    """The ledger wants a point's heights from `first` on: returns whether they are gone, and then declares it.

    The unacked seals are given up: the next one names the heights as lost and seals their readings, as far as
    there are any, once more. A wanted range is no proof: a lie here costs heights, never readings.
    """
    chain = book.chains[point]
    if first > chain.height:
        return False
    if chain.base is not None:
        chain.base = first - 1
        return False
    if outbox.find(point, first) is not None:
        return False
    if first > chain.void:
        try:
            envelopes.rebuild(book, envelopes.find(book, point, first))
            return False  # it waits in the journal for its turn
        except Refused:
            pass  # gone: that is the loss to declare
    break_chain(book, chain, outbox, first - 1)
    return True


def load(book, outbox):
    """Takes seals from the journal that had no room in the outbox."""
    for seq, kind, payload in book.journal.read(outbox.begin_load()):
        if kind == records.SEAL:
            record = records.decode_seal(payload, seq)
            chain = book.chain(record.point)
            if record.height > chain.acked and record.height > chain.void:
                outbox.add(Sealed(record.point, record.height, record.lost, seq, record.first_seq))


def load_open(book, chain):
    """Takes a chain's open readings from the journal that had no room in RAM."""
    start_seq, chain.rest_seq = chain.rest_seq, None
    for seq, kind, payload in book.journal.read(start_seq):
        if kind == records.READING:
            point, time_ms, is_billing = records.point_and_time(payload)
            if point == chain.point:
                if len(chain.open) >= OPEN_READINGS:
                    chain.rest_seq = seq
                    return
                chain.open.append((seq, time_ms, is_billing))


def notice_drop(book, chain, first_seq, outbox):
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


def break_chain(book, chain, outbox, base):
    """Gives up all unacked seals; base: the height that the next one's loss is counted from."""
    start_seq = chain.open[0][0] if chain.open else chain.rest_seq
    for sealed in outbox.items:
        if sealed.point == chain.point and (start_seq is None or sealed.first_seq < start_seq):
            start_seq = sealed.first_seq
    if outbox.unloaded_first_seq is not None and (start_seq is None or outbox.unloaded_first_seq < start_seq):
        start_seq = first_unacked(book, chain, outbox, start_seq)
    if chain.orphan_seq is not None and base < chain.orphan_height:
        start_seq = chain.orphan_seq
    chain.orphan_seq = None
    outbox.abandon(chain.point)
    chain.void = chain.height
    chain.base = base
    chain.open = []
    chain.rest_seq = start_seq
    chain.has_lost = True


def first_unacked(book, chain, outbox, start_seq):
    """Returns the oldest reading that an unacked seal in the journal needs, or `start_seq` if that is older."""
    for seq, kind, payload in book.journal.read(outbox.unloaded_seq):
        if kind == records.SEAL:
            record = records.decode_seal(payload, seq)
            if record.point == chain.point and record.height > max(chain.acked, chain.void):
                return record.first_seq if start_seq is None else min(start_seq, record.first_seq)
    return start_seq
