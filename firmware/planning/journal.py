"""Makes a prediction of how long a journal holds while nothing can be sent, from a configuration and a size.

It encodes the records that an agent would write (ordinary values of a house, or of a plant of the meter's size) and
counts what they take on flash. While no broker is reached only slot boundaries close seals; while one is, and no
gateway acks, `seal_every_s` does.
"""

from firmware import config, meters, reading_records, records
from firmware.journal import MARK, UNIT, room
from firmware.wire.reading import Entry, Reading
from firmware.wire.seal import FIRST_PREVIOUS

SECTOR_BYTES = 4096
DAY_S = 86400
SLOT_S = 3600  # the chain's default; a genesis may say otherwise
TIME_MS = 1800000000000
# Values that take as many bytes as they do for years: 50 MWh, a tenth of a meter's range, the usual voltage and 50 Hz.
FREQUENCY_MHZ = 50000
ENERGY_WH, VOLTAGE_MV, OTHER = 50000000, 235000, 900
HEIGHT, BOOT = 100000, 50
GROUP_BYTES = 54000  # sealing.ENVELOPE_ROOM: what one seal may cover


def offline_s(settings, size_bytes, slot_s=SLOT_S, is_heard=False):
    """Returns for how many seconds a Config's points fill a journal of so many bytes, until the oldest is dropped.

    is_heard: a broker takes what is sent, but no gateway acks it, so that seals close as often as ever.
    """
    sectors = size_bytes // SECTOR_BYTES - 1  # one is the spare
    sizes = _sizes(settings, settings.seal_every_s if is_heard else slot_s)
    count = sum([each for each, _ in sizes])
    per_day = sum([each * size for each, size in sizes])
    # A record that does not fit begins the next sector: on average half of one and half a unit stay empty.
    usable = SECTOR_BYTES - UNIT - MARK - (per_day // count - UNIT) // 2
    return sectors * usable * DAY_S // per_day


def describe(settings, size_bytes, slot_s=SLOT_S):
    """Returns one line of text."""
    days, tenths = divmod(offline_s(settings, size_bytes, slot_s) * 10 // DAY_S, 10)
    heard, heard_tenths = divmod(offline_s(settings, size_bytes, slot_s, True) * 10 // DAY_S, 10)
    return "journal: %d bytes, %d.%d days offline (%d.%d while a broker answers and no gateway does)" % (
        size_bytes, days, tenths, heard, heard_tenths)


def records_a_day(settings, slot_s=SLOT_S):
    """Returns [(how many a day, bytes on flash)] of readings, other quantities and seals of all points."""
    return _sizes(settings, slot_s)


def _sizes(settings, seal_s):
    found = []
    billing = DAY_S // settings.interval_s
    points = sum([len(line.meters) for line in settings.buses])
    others = 0
    for line in settings.buses:
        for row in line.meters:
            table = config.table(row.type, settings.own)
            found.append((billing, _reading(table, row.point, meters.BILLING)))
            has_others = settings.details_every_s and meters.fields_of(table, meters.OTHER)
            details = DAY_S // settings.details_every_s if has_others else 0
            if details:
                found.append((details, _reading(table, row.point, meters.OTHER)))
            others += details
    for line in settings.buses:
        for row in line.meters:
            seals = min(billing, DAY_S // seal_s)
            count = max(1, billing // seals)
            span = count - 1 if points == 1 and not others else (points * billing + others) // seals
            found.append((seals, room(len(records.encode_seal(records.SealRecord(
                row.point, HEIGHT, 0, row.epoch, 2, BOOT, BOOT, HEIGHT, span, count, FIRST_PREVIOUS),
                HEIGHT + span + 1)))))
    return found


def _reading(table, point, group):
    """Bytes on flash of one reading."""
    entries = []
    for field in meters.fields_of(table, group):
        if field.unit in ("Wh", "varh", "VAh"):
            value = ENERGY_WH
        elif field.unit == "mV":
            value = VOLTAGE_MV
        elif field.unit in ("W", "VA", "var", "mA"):
            value = field.high // 10
        else:
            value = FREQUENCY_MHZ if field.name == "14.7.0" else OTHER
        entries.append(Entry(field.name, field.unit, value, None))
    own = table.type not in meters.TYPES
    return room(len(reading_records.encode_reading(Reading(bytes(8), point, TIME_MS, tuple(entries), 2, bytes(32)),
                                           table.type, group, reading_records.tag_of(table) if own else b"")))
