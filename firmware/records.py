"""Makes journal records from readings, seals and the like, and these again from the records, byte for byte.

A record holds what cannot be computed: names and units of a reading are the meter table's, a seal's root, times and
registers are its readings'. Numbers are LEB128 varints, signed ones zigzag. The kinds and every list below are a
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
GROUPS = (meters.BILLING, meters.OTHER)
OWN = 127  # in place of a type's number: a person's own table, by its tag
TAG_HASH = 4  # bytes of its hash: a table that was changed meanwhile must not give old words a new meaning

# What a seal's record says; the rest of the seal follows from its readings, boot and configuration.
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
    out = bytearray()
    _write(out, reading.point)
    out.append((OWN if tag else meters.TYPES.index(meter_type)) << 1 | GROUPS.index(group))
    out.append(reading.quality)
    out.extend(reading.time_ms.to_bytes(6, "big"))
    out.extend(tag)
    for entry in reading.entries:
        if entry.missing is None:
            _write(out, (entry.value << 1 if entry.value >= 0 else (-entry.value << 1) - 1) + 1)
        else:
            out.append(0)
            out.append(_reason_number(entry.missing))
    out.extend(reading.raw)
    return bytes(out)


def decode_reading(kid, payload, tables):
    """Returns the Reading; `tables`: function type name -> Meter. Refused `damaged` for no such record."""
    point, at = _read(payload, 0)
    if len(payload) < at + 8 + 32:
        raise Refused("damaged", at + 8 + 32, len(payload))
    number = payload[at]
    quality = payload[at + 1]
    time_ms = int.from_bytes(payload[at + 2:at + 8], "big")
    at += 8
    if number >> 1 == OWN:
        table, at = _own_table(payload, at, tables)
    elif number >> 1 < len(meters.TYPES):
        table = tables(meters.TYPES[number >> 1])
    else:
        raise Refused("damaged", "a meter type", number)
    entries = []
    for field in meters.fields_of(table, GROUPS[number & 1]):
        value, at = _read(payload, at)
        if at + 32 > len(payload):
            raise Refused("damaged", at + 32, len(payload))
        if value:
            value -= 1
            value = -(value + 1 >> 1) if value & 1 else value >> 1
            entries.append(Entry(field.name, field.unit, value, None))
        else:
            entries.append(Entry(field.name, None, None, _reason(payload[at])))
            at += 1
    if len(payload) != at + 32:
        raise Refused("damaged", at + 32, len(payload))
    return Reading(kid, point, time_ms, tuple(entries), quality, bytes(payload[at:]))


def point_and_time(payload):
    """Returns (point, time in ms, is billing) of a reading's record without decoding the rest."""
    point, at = _read(payload, 0)
    return point, int.from_bytes(payload[at + 2:at + 8], "big"), not payload[at] & 1


def encode_seal(record):
    """Returns the record of a seal: ten numbers and the hash of the previous payload."""
    return _numbers(record[:10]) + record.previous


def decode_seal(payload):
    values, at = _read_many(payload, 10)
    values.append(_hash(payload, at))
    return SealRecord(*values)


def encode_head(head):
    return _numbers(head[:5]) + head.previous


def decode_head(payload):
    values, at = _read_many(payload, 5)
    values.append(_hash(payload, at))
    return Head(*values)


def encode_ack(point, height):
    return _numbers((point, height))


def decode_ack(payload):
    """Returns [point, height]."""
    return _read_many(payload, 2)[0]


def encode_epoch(point, meter_epoch):
    """Returns the record that from here on a point's readings are of the meter of that epoch."""
    return _numbers((point, meter_epoch))


def decode_epoch(payload):
    """Returns [point, meter epoch]."""
    return _read_many(payload, 2)[0]


def encode_boot(boot):
    return _numbers((boot,))


def decode_boot(payload):
    return _read(payload, 0)[0]


def encode_configuration(number, measurement, configuration):
    """Returns the record of the two hashes every seal carries, under a number that seals name them by."""
    return _numbers((number,)) + measurement + configuration


def decode_configuration(payload):
    number, at = _read(payload, 0)
    return number, _hash(payload[:at + 32], at), _hash(payload, at + 32)


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


def _numbers(values):
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


def _hash(data, at):
    """The 32 bytes at the end, from `at`."""
    if len(data) != at + 32:
        raise Refused("damaged", at + 32, len(data))
    return bytes(data[at:])


def _read(data, at):
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


def _read_many(data, count):
    values: list = []
    at = 0
    for _ in range(count):
        value, at = _read(data, at)
        values.append(value)
    return values, at
