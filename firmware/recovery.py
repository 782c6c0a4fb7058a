"""Makes a device's state again out of its journal, once at the start: what is open, sealed and acked, and a new boot.

Functions over a sealing.Book that has just been made. A board drops this module when the agent runs.
"""

from firmware import envelopes, facts, losses, reading_records, records, ring
from firmware.outbox import Sealed
from firmware.sealing import CONFIGURATIONS, OPEN_READINGS
from firmware.wire import seal as seal_codec
from firmware.wire.errors import Refused


def recover(book, outbox):
    """Reads the journal: what is open, sealed and acked. Twice, because an ack stands behind what it acks."""
    for seq, kind, payload in ring.read_all(book.journal):
        _take_facts(book, seq, kind, payload)
    for seq, kind, payload in ring.read_all(book.journal):
        if kind == records.READING:
            point, time_ms, is_billing = records.point_and_time(payload)
            chain = book.chain(point)
            chain.open.append((seq, time_ms, is_billing))
            chain.last_ms = time_ms
            if is_billing:
                chain.last_billing_ms = time_ms
        elif kind == records.SEAL:
            _take_seal(book, seq, records.decode_seal(payload, seq), outbox)
    for point in sorted(book.chains):
        _find_head(book, book.chains[point], outbox)


def begin(book, emit):
    """Starts a new boot: its counter, the hashes of this run's program and configuration, and meters that were
    replaced since the last one are recorded. Returns alarm texts."""
    texts = []
    for place in book.settings.places:
        chain = book.chains[place.point]
        if place.meter_epoch > chain.known_epoch:
            chain.turn(emit(records.EPOCH, facts.encode_epoch(place.point, place.meter_epoch)), place.meter_epoch)
        elif place.meter_epoch < chain.known_epoch:
            texts.append("point %d: its journal is at meter epoch %d, the configuration says %d, which is over" % (
                place.point, chain.known_epoch, place.meter_epoch))
    for point in book.chains:
        book.chains[point].meter_epoch = book.chains[point].known_epoch
    book.boot += 1
    book.boot_seq = emit(records.BOOT, records.encode_boot(book.boot))
    hashes = [book.settings.measurement, book.settings.configuration]
    newest = book.configurations.get(book.configuration)
    if newest is None or newest[:2] != hashes:
        book.configuration = book.boot
        payload = records.encode_configuration(book.configuration, hashes[0], hashes[1])
        book.configurations[book.configuration] = hashes + [emit(records.CONFIGURATION, payload)]
    return texts


def _take_facts(book, seq, kind, payload):
    if kind == records.ACK:
        point, height = facts.decode_ack(payload)
        chain = book.chain(point)
        chain.acked = max(chain.acked, height)
    elif kind == records.SEAL:
        record = records.decode_seal(payload, seq)
        chain = book.chain(record.point)
        chain.known_epoch = max(chain.known_epoch, record.meter_epoch)
        book.boot = max(book.boot, record.boot)
        if record.height > chain.height:
            chain.height = record.height
            chain.last_record = record
            chain.head_seq = record.first_seq
        if record.lost:
            chain.void = max(chain.void, record.height - 1)
    elif kind == records.HEAD:
        head = facts.decode_head(payload)
        chain = book.chain(head.point)
        chain.acked = max(chain.acked, head.acked)
        chain.known_epoch = max(chain.known_epoch, head.meter_epoch)
        if head.height >= chain.height:
            chain.height = head.height
            chain.previous = head.previous
            chain.last_record = None
            chain.head_seq = seq
            chain.last_ms = head.last_ms or None
    elif kind == records.EPOCH:
        point, meter_epoch = facts.decode_epoch(payload)
        book.chain(point).turn(seq, meter_epoch)
    elif kind == records.BOOT:
        book.boot = max(book.boot, facts.decode_boot(payload))
    elif kind == records.CONFIGURATION:
        number, measurement, configuration = facts.decode_configuration(payload)
        book.configurations[number] = [measurement, configuration, seq]
        book.configuration = max(book.configuration, number)
        book.boot = max(book.boot, number)
        if len(book.configurations) > CONFIGURATIONS:
            book.configurations.pop(min(book.configurations))


def _take_seal(book, seq, record, outbox):
    chain = book.chain(record.point)
    if record.height > chain.acked and record.height <= chain.void:
        return  # given up: its readings are open again, or sealed under a later height
    last_seq = record.first_seq + record.span
    chain.open = [item for item in chain.open if item[0] > last_seq or item[0] < record.first_seq]
    if record.height > chain.acked:
        outbox.add(Sealed(record.point, record.height, record.lost, seq, record.first_seq))


def _find_head(book, chain, outbox):
    is_readable = chain.acked <= chain.height
    chain.height = max(chain.height, chain.acked)
    if chain.last_record is not None:
        record, chain.last_record = chain.last_record, None
        try:
            readings = reading_records.readings_of(book.journal, book.settings.kid, record, book.table)
            chain.previous = seal_codec.payload_hash(envelopes.payload_of(book, record, readings))
        except Refused:
            is_readable = False
    if not is_readable:  # the next seal cannot link to this one: a height is given up in between
        chain.base = chain.height
        chain.height += 1
        chain.has_lost = True
    losses.notice_drop(book, chain, book.journal.first_seq, outbox)
    if len(chain.open) > OPEN_READINGS:
        chain.rest_seq = chain.open[OPEN_READINGS][0]
        chain.open = chain.open[:OPEN_READINGS]
