"""Makes journal records from readings, seals and the like, and these again from the records, byte for byte.

A record holds what cannot be computed: names and units of a reading are the meter table's, a seal's root, times and
registers are its readings'. Numbers are LEB128 varints, signed ones zigzag. The kinds, lists and numbers below are a
format on flash: new ones at the end.
"""

from collections import namedtuple

from firmware import meters
from firmware.modbus import EXCEPTION, FAULTS
from firmware.wire import merkle
from firmware.wire import seal as seal_codec
from firmware.wire.errors import Refused
from firmware.wire.reading import Entry, Reading, encode

READING, SEAL, ACK, HEAD, BOOT, CONFIGURATION, EPOCH = 1, 2, 3, 4, 5, 6, 7
# A missing value's; 128 + code: an exception.
REASONS = FAULTS + ("nan", "implausible", "not_read", "not_asked", "not_implemented", "moved")
EXCEPTIONS_FROM = 128
# A reading's first byte: five bits of quality, then these.
QUALITY, OTHER_GROUP, OWN, FULL_TIME = 31, 32, 64, 128
SINCE_MS = 1577836800000  # 2020-01-01: from here on 34 years of milliseconds fit TIME bytes
TIME, FULL = 5, 8
USUAL_MV, USUAL_MHZ = 230000, 50000  # what values are written relative to: most take a byte less
TAG_HASH = 4  # bytes of its hash: a table that was changed meanwhile must not give old words a new meaning

# What a seal's record says; the rest of the seal follows from its readings and configuration (its record's boot).
SealRecord = namedtuple("SealRecord", (
    "point", "height", "lost", "meter_epoch", "flags", "boot", "configuration", "first_seq", "span", "count",
    "previous"))  # its readings: `count` records of the point between first_seq and first_seq + span
# How far a point is: written again before the record that says so is dropped.
Head = namedtuple("Head", ("point", "height", "meter_epoch", "acked", "last_ms", "previous"))


def tag_of(meter):
    """Returns what a record of a person's own table says about it, b"" for a shipped one."""
    if meter.type in meters.TYPES:
        return b""
    name = meter.type.encode()
    return bytes((len(name),)) + name + meters.map_hash(meter)[:TAG_HASH]


def encode_reading(reading, meter_type, group, tag=b""):
    """Returns the record of a Reading that holds exactly the fields of one group of a meter type; tag: tag_of it."""
    if not 0 <= reading.quality <= QUALITY:
        raise ValueError("quality %d" % reading.quality)
    since_ms = reading.time_ms - SINCE_MS
    is_full = not 0 <= since_ms < 1 << 8 * TIME
    out = bytearray((reading.quality | (OTHER_GROUP if group == meters.OTHER else 0) | (OWN if tag else 0) |
                     (FULL_TIME if is_full else 0),))
    out.extend(reading.time_ms.to_bytes(FULL, "big") if is_full else since_ms.to_bytes(TIME, "big"))
    _write(out, reading.point)
    out.extend(tag or bytes((meters.TYPES.index(meter_type),)))
    for entry in reading.entries:
        if entry.missing is None:
            value = entry.value - _usual(entry)
            _write(out, (value << 1 if value >= 0 else (-value << 1) - 1) + 1)
        else:
            out.append(0)
            out.append(_reason_number(entry.missing))
    out.extend(reading.raw)
    return bytes(out)


def decode_reading(kid, payload, tables):
    """Returns the Reading; `tables`: function type name -> Meter. Refused `damaged` for no such record."""
    point, time_ms, is_billing, at = _head(payload)
    if len(payload) < at + 1 + 32:
        raise Refused("damaged", at + 1 + 32, len(payload))
    if payload[0] & OWN:
        table, at = _own_table(payload, at, tables)
    elif payload[at] < len(meters.TYPES):
        table = tables(meters.TYPES[payload[at]])
        at += 1
    else:
        raise Refused("damaged", "a meter type", payload[at])
    entries = []
    for field in meters.fields_of(table, meters.BILLING if is_billing else meters.OTHER):
        value, at = read_number(payload, at)
        if at + 32 > len(payload):
            raise Refused("damaged", at + 32, len(payload))
        if value:
            value -= 1
            value = (-(value + 1 >> 1) if value & 1 else value >> 1) + _usual(field)
            entries.append(Entry(field.name, field.unit, value, None))
        else:
            entries.append(Entry(field.name, None, None, _reason(payload[at])))
            at += 1
    if len(payload) != at + 32:
        raise Refused("damaged", at + 32, len(payload))
    return Reading(kid, point, time_ms, tuple(entries), payload[0] & QUALITY, bytes(payload[at:]))


def point_and_time(payload):
    """Returns (point, time in ms, is billing) of a reading's record without decoding the rest."""
    return _head(payload)[:3]


def encode_seal(record, seq):
    """Returns the record of a seal, whose own number will be `seq`. ValueError: lost heights without their flag."""
    gap = seq - 1 - record.first_seq - record.span  # records between its last reading and itself
    is_dense = record.span == record.count - 1  # no other record stands between its readings
    is_more = gap > 0 or record.meter_epoch != 1
    if record.lost and not record.flags & seal_codec.HEIGHTS_LOST:
        raise ValueError("%d heights lost without a flag" % record.lost)
    values = [record.count << 2 | is_dense << 1 | is_more, record.point, record.height, record.boot,
              record.boot - record.configuration]
    if not is_dense:
        values.append(record.span)
    if is_more:
        values += [record.meter_epoch, gap]
    if record.flags & seal_codec.HEIGHTS_LOST:
        values.append(record.lost)
    return bytes((record.flags,)) + numbers(values) + record.previous


def decode_seal(payload, seq):
    """Returns the SealRecord of the record number `seq`; Refused `damaged`."""
    if not payload:
        raise Refused("damaged", "a seal", 0)
    flags = payload[0]
    (count, point, height, boot, age), at = read_many(payload, 1, 5)
    span = (count >> 2) - 1
    meter_epoch, gap, lost = 1, 0, 0
    if not count & 2:
        span, at = read_number(payload, at)
    if count & 1:
        (meter_epoch, gap), at = read_many(payload, at, 2)
    if flags & seal_codec.HEIGHTS_LOST:
        lost, at = read_number(payload, at)
    return SealRecord(point, height, lost, meter_epoch, flags, boot, boot - age, seq - 1 - gap - span, span,
                      count >> 2, hash_at(payload, at))


def encode_head(head):
    """Returns the record of a Head; this and the following are decoded in facts.py."""
    return numbers(head[:5]) + head.previous


def encode_ack(point, height):
    return numbers((point, height))


def encode_boot(boot):
    return numbers((boot,))


def encode_configuration(boot, measurement, configuration):
    """Returns the record of the two hashes that every seal carries from that boot on; seals name them by it."""
    return numbers((boot,)) + measurement + configuration


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


def readings_of(journal, kid, record, tables):
    """Returns [(Reading, bytes)] of a seal from the journal; Refused `readings_missing` if any is gone."""
    found = []
    for seq, kind, payload in journal.read(record.first_seq):
        if seq > record.first_seq + record.span:
            break
        if kind == READING and point_and_time(payload)[0] == record.point:
            reading = decode_reading(kid, payload, tables)
            found.append((reading, encode(reading)))
    if len(found) != record.count:
        raise Refused("readings_missing", record.count, len(found))
    return found


def _head(payload):
    """(point, time in ms, is billing, where the table's number or tag begins) of a reading's record."""
    if not payload:
        raise Refused("damaged", "a reading", 0)
    at = 1 + (FULL if payload[0] & FULL_TIME else TIME)
    time_ms = int.from_bytes(payload[1:at], "big") + (0 if payload[0] & FULL_TIME else SINCE_MS)
    point, at = read_number(payload, at)
    return point, time_ms, not payload[0] & OTHER_GROUP, at


def _usual(field):
    """The value that one of this Field or Entry is written relative to."""
    if field.unit == "mV":
        return USUAL_MV
    return USUAL_MHZ if field.name == "14.7.0" else 0


def _own_table(payload, at, tables):
    """(Meter, where its tag ends); Refused where that table is no longer what it was."""
    end = at + 1 + payload[at] + TAG_HASH
    if len(payload) < end + 32:
        raise Refused("damaged", end + 32, len(payload))
    name = bytes(payload[at + 1:end - TAG_HASH])
    try:
        table = tables(name.decode())
    except ValueError:
        raise Refused("damaged", "the meter type's file", name)
    if tag_of(table) != bytes(payload[at:end]):
        raise Refused("damaged", "the meter type's file as it was", name)
    return table, end


def _reason_number(reason):
    if reason.startswith(EXCEPTION):
        return EXCEPTIONS_FROM + (int(reason[len(EXCEPTION):]) & 127)
    return REASONS.index(reason)


def _reason(number):
    if number >= EXCEPTIONS_FROM:
        return EXCEPTION + str(number - EXCEPTIONS_FROM)
    if number >= len(REASONS):
        raise Refused("damaged", len(REASONS), number)
    return REASONS[number]


def numbers(values):
    """Returns the bytes of that many varints."""
    out = bytearray()
    for value in values:
        _write(out, value)
    return bytes(out)


def _write(out, value):
    if value < 0:
        raise ValueError("negative %d" % value)
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)


def hash_at(data, at):
    """Returns the 32 bytes that stand at the end, from `at`."""
    if len(data) != at + 32:
        raise Refused("damaged", at + 32, len(data))
    return bytes(data[at:])


def read_number(data, at):
    """Returns (the number at `at`, where it ends); Refused `damaged`."""
    value = shift = 0
    while True:
        if at >= len(data) or shift > 70:
            raise Refused("damaged", "a number", at)
        byte = data[at]
        value |= (byte & 127) << shift
        at += 1
        if byte < 128:
            return value, at
        shift += 7


def read_many(data, at, count):
    """Returns ([numbers], where they end)."""
    values: list = []
    for _ in range(count):
        value, at = read_number(data, at)
        values.append(value)
    return values, at
