"""Makes journal records from readings, and readings again from the records, byte for byte.

A record holds what cannot be computed: names and units are the meter table's. The lists below are a format on flash:
new ones at the end.
"""

try:
    from micropython import const
except ImportError:
    def const(value):
        return value

from firmware import meters, records
from firmware.modbus import EXCEPTION, FAULTS
from firmware.wire.errors import Refused
from firmware.wire.reading import Entry, Reading, encode

# A missing value's; 128 + code: an exception.
REASONS = FAULTS + ("nan", "implausible", "not_read", "not_asked", "not_implemented", "moved")
_EXCEPTIONS_FROM = const(128)
_USUAL_MV = const(230000)  # what values are written relative to: most take a byte less
_USUAL_MHZ = const(50000)
_TAG_HASH = const(4)  # bytes of its hash: a table that was changed meanwhile must not give old words a new meaning


def tag_of(meter):
    """Returns what a record of a person's own table says about it, b"" for a shipped one."""
    if meter.type in meters.TYPES:
        return b""
    name = meter.type.encode()
    return bytes((len(name),)) + name + meters.map_hash(meter)[:_TAG_HASH]


def encode_reading(reading, meter_type, group, tag=b""):
    """Returns the record of a Reading that holds exactly the fields of one group of a meter type; tag: tag_of it."""
    if not 0 <= reading.quality <= records.QUALITY:
        raise ValueError("quality %d" % reading.quality)
    since_ms = reading.time_ms - records.SINCE_MS
    is_full = not 0 <= since_ms < 1 << 8 * records.TIME
    out = bytearray((reading.quality | (records.OTHER_GROUP if group == meters.OTHER else 0) |
                     (records.OWN if tag else 0) | (records.FULL_TIME if is_full else 0),))
    out.extend(reading.time_ms.to_bytes(records.FULL, "big") if is_full else since_ms.to_bytes(records.TIME, "big"))
    records.write_number(out, reading.point)
    out.extend(tag or bytes((meters.TYPES.index(meter_type),)))
    for entry in reading.entries:
        if entry.missing is None:
            value = entry.value - _usual(entry)
            records.write_number(out, (value << 1 if value >= 0 else (-value << 1) - 1) + 1)
        else:
            out.append(0)
            out.append(_reason_number(entry.missing))
    out.extend(reading.raw)
    return bytes(out)


def decode_reading(kid, payload, tables):
    """Returns the Reading; `tables`: function type name -> Meter. Refused `damaged` for no such record."""
    point, time_ms, is_billing, at = records.reading_head(payload)
    if len(payload) < at + 1 + 32:
        raise Refused("damaged", at + 1 + 32, len(payload))
    if payload[0] & records.OWN:
        table, at = _own_table(payload, at, tables)
    elif payload[at] < len(meters.TYPES):
        table = tables(meters.TYPES[payload[at]])
        at += 1
    else:
        raise Refused("damaged", "a meter type", payload[at])
    entries = []
    for field in meters.fields_of(table, meters.BILLING if is_billing else meters.OTHER):
        value, at = records.read_number(payload, at)
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
    return Reading(kid, point, time_ms, tuple(entries), payload[0] & records.QUALITY, bytes(payload[at:]))


def readings_of(journal, kid, record, tables):
    """Returns [(Reading, bytes)] of a seal from the journal; Refused `readings_missing` if any is gone."""
    found = []
    for seq, kind, payload in journal.read(record.first_seq):
        if seq > record.first_seq + record.span:
            break
        if kind == records.READING and records.point_and_time(payload)[0] == record.point:
            reading = decode_reading(kid, payload, tables)
            found.append((reading, encode(reading)))
    if len(found) != record.count:
        raise Refused("readings_missing", record.count, len(found))
    return found


def _usual(field):
    """The value that one of this Field or Entry is written relative to."""
    if field.unit == "mV":
        return _USUAL_MV
    return _USUAL_MHZ if field.name == "14.7.0" else 0


def _own_table(payload, at, tables):
    """(Meter, where its tag ends); Refused where that table is no longer what it was."""
    end = at + 1 + payload[at] + _TAG_HASH
    if len(payload) < end + 32:
        raise Refused("damaged", end + 32, len(payload))
    name = bytes(payload[at + 1:end - _TAG_HASH])
    try:
        table = tables(name.decode())
    except ValueError:
        raise Refused("damaged", "the meter type's file", name)
    if tag_of(table) != bytes(payload[at:end]):
        raise Refused("damaged", "the meter type's file as it was", name)
    return table, end


def _reason_number(reason):
    if reason.startswith(EXCEPTION):
        return _EXCEPTIONS_FROM + (int(reason[len(EXCEPTION):]) & 127)
    return REASONS.index(reason)


def _reason(number):
    if number >= _EXCEPTIONS_FROM:
        return EXCEPTION + str(number - _EXCEPTIONS_FROM)
    if number >= len(REASONS):
        raise Refused("damaged", len(REASONS), number)
    return REASONS[number]
