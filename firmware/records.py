"""Makes journal records from seals and the like, and seals again from the records; readings' are in reading_records.py.

A record holds what cannot be computed: a seal's root, times and registers are its readings'. Numbers are LEB128
varints, signed ones zigzag. The kinds, lists and numbers below are a format on flash: new ones at the end.
"""

from collections import namedtuple

from firmware.wire.errors import Refused

READING, SEAL, ACK, HEAD, BOOT, CONFIGURATION, EPOCH = 1, 2, 3, 4, 5, 6, 7
# A reading's first byte: five bits of quality, then these.
QUALITY, OTHER_GROUP, OWN, FULL_TIME = 31, 32, 64, 128
SINCE_MS = 1577836800000  # 2020-01-01: from here on 34 years of milliseconds fit TIME bytes
TIME, FULL = 5, 8
HEIGHTS_LOST = 16  # seal.HEIGHTS_LOST

# What a seal's record says; the rest of the seal follows from its readings and configuration (its record's boot).
SealRecord = namedtuple("SealRecord", (
    "point", "height", "lost", "meter_epoch", "flags", "boot", "configuration", "first_seq", "span", "count",
    "previous"))  # its readings: `count` records of the point between first_seq and first_seq + span
# How far a point is: written again before the record that says so is dropped.
Head = namedtuple("Head", ("point", "height", "meter_epoch", "acked", "last_ms", "previous"))


def point_and_time(payload):
    """Returns (point, time in ms, is billing) of a reading's record without decoding the rest."""
    return reading_head(payload)[:3]


def encode_seal(record, seq):
    """Returns the record of a seal, whose own number will be `seq`. ValueError: lost heights without their flag."""
    gap = seq - 1 - record.first_seq - record.span  # records between its last reading and itself
    is_dense = record.span == record.count - 1  # no other record stands between its readings
    is_more = gap > 0 or record.meter_epoch != 1
    if record.lost and not record.flags & HEIGHTS_LOST:
        raise ValueError("%d heights lost without a flag" % record.lost)
    values = [record.count << 2 | is_dense << 1 | is_more, record.point, record.height, record.boot,
              record.boot - record.configuration]
    if not is_dense:
        values.append(record.span)
    if is_more:
        values += [record.meter_epoch, gap]
    if record.flags & HEIGHTS_LOST:
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
    if flags & HEIGHTS_LOST:
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


def reading_head(payload):
    """(point, time in ms, is billing, where the table's number or tag begins) of a reading's record."""
    if not payload:
        raise Refused("damaged", "a reading", 0)
    at = 1 + (FULL if payload[0] & FULL_TIME else TIME)
    time_ms = int.from_bytes(payload[1:at], "big") + (0 if payload[0] & FULL_TIME else SINCE_MS)
    point, at = read_number(payload, at)
    return point, time_ms, not payload[0] & OTHER_GROUP, at


def numbers(values):
    """Returns the bytes of that many varints."""
    out = bytearray()
    for value in values:
        write_number(out, value)
    return bytes(out)


def write_number(out, value):
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
