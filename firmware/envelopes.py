"""Makes seal records and envelopes out of a point's records in the journal: functions over a sealing.Book.

A board loads this module while something is sealed or sent, and drops it then.
"""

from firmware import meters, reading_records, records
from firmware.outbox import Sealed
from firmware.wire import cose, merkle, topics
from firmware.wire import reading as reading_codec
from firmware.wire import seal as seal_codec
from firmware.wire.errors import Refused


def close(book, chain, count, emit, outbox, label_ms):
    """Turns a chain's `count` oldest open readings into a seal record; returns how many seals that made: 1 or 0."""
    first_seq, last_seq = chain.open[0][0], chain.open[count - 1][0]
    lost = 0 if chain.base is None else chain.height - chain.base
    previous = seal_codec.FIRST_PREVIOUS if lost else chain.previous
    record = records.SealRecord(chain.point, chain.height + 1, lost, chain.epoch_at(first_seq), 0, book.boot,
                                book.configuration, first_seq, last_seq - first_seq, count, previous)
    chain.open = chain.open[count:]
    try:
        readings = reading_records.readings_of(book.journal, book.settings.kid, record, book.table)
    except Refused:
        chain.has_lost = True
        return 0
    last = readings[-1][0]
    flags = last.quality & reading_codec.CLOCK_BITS | book.flags
    if lost or chain.has_lost:
        flags |= seal_codec.HEIGHTS_LOST
    if label_ms - last.time_ms > book.late_ms:
        flags |= seal_codec.LATE
    record = records.SealRecord(*record[:4], flags, *record[5:])
    chain.previous = seal_codec.payload_hash(payload_of(book, record, readings))
    seq = emit(records.SEAL, records.encode_seal(record, book.next_seq))
    chain.height += 1
    chain.head_seq = first_seq
    chain.base = None
    chain.has_lost = False
    outbox.add(Sealed(chain.point, chain.height, lost, seq, first_seq))
    return 1


def payload_of(book, record, readings):
    """Returns the bytes that are signed; Refused `damaged` when the hashes that the record names are gone."""
    if record.configuration not in book.configurations:
        raise Refused("damaged", "a configuration", record.configuration)
    return seal_payload(book.settings.kid, record, readings, book.configurations[record.configuration])


def seal_payload(kid, record, readings, hashes):
    """Returns the seal's payload, the same bytes each time, from its record and its readings.

    readings: [(Reading, its bytes)] in order; hashes: (measurement, configuration).
    """
    last = readings[-1][0]
    wh = {}
    for entry in last.entries:
        if entry.unit == "Wh":
            wh[entry.name] = entry.value
    return seal_codec.encode(seal_codec.Seal(
        seal_codec.VERSION, kid, record.point, record.meter_epoch, record.height, record.lost, record.previous,
        merkle.root([data for _, data in readings]), len(readings), readings[0][0].time_ms, last.time_ms,
        wh.get(meters.IMPORT), wh.get(meters.EXPORT), record.boot, record.flags, hashes[0], hashes[1]))


def rebuild(book, sealed):
    """Returns (payload, [reading bytes]) of a seal, byte for byte as before; Refused when records are gone."""
    for seq, kind, payload in book.journal.read(sealed.seq):
        if seq != sealed.seq or kind != records.SEAL:
            break
        record = records.decode_seal(payload, seq)
        readings = reading_records.readings_of(book.journal, book.settings.kid, record, book.table)
        return payload_of(book, record, readings), [data for _, data in readings]
    raise Refused("readings_missing", sealed.seq, None)


def find(book, point, height):
    """Returns the Sealed of a height that is only in the journal; Refused `wrong_height` when there is none."""
    chain = book.chains[point]
    found = None
    if not chain.acked < height <= chain.height:
        raise Refused("wrong_height", chain.height, height)
    for seq, kind, payload in book.journal.read(0):
        if kind == records.SEAL:
            record = records.decode_seal(payload, seq)
            if record.point == point and record.height == height:
                found = Sealed(point, height, record.lost, seq, record.first_seq)
    if found is None:
        raise Refused("wrong_height", None, height)
    return found


def envelope(book, sealed, light, signer):
    """Returns (topic, bytes) of an unacked seal with its readings, signed anew; Refused when records are gone."""
    payload, readings = rebuild(book, sealed)
    settings = book.settings
    message = cose.sign1(payload, settings.kid, "seal", light.chain_id, signer.sign_digest)
    sealed.leaf = merkle.leaf_hash(message) if signer.deterministic else None
    return (topics.agent_topic(settings.area, settings.kid, "envelope"), seal_codec.encode_envelope(message, readings))
