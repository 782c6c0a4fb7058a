"""Makes a Reading out of its bytes, strictly: the other half of reading.py, which a board does not need."""

from firmware.wire import cbor
from firmware.wire.errors import check
from firmware.wire.reading import BASE_VERSION, ENTRIES, MISSING, NAME_PREFIX, UNITS, Entry, Reading, is_name
from firmware.wire.shape import is_integer, is_kind


def decode(data):
    """Returns the Reading of exactly such bytes; Refused `malformed`."""
    records = cbor.decode(data)
    check(isinstance(records, list) and 4 <= len(records) <= ENTRIES + 3, "malformed", "a pack", len(data))
    for record in records:
        check(isinstance(record, dict), "malformed", "a record", record)
    kid, point, time_ms = _decode_base(records[0])
    entries = tuple([_decode_entry(record) for record in records[1:-2]])
    quality, raw = records[-2], records[-1]
    check(sorted(quality) == [0, 2] and quality[0] == "quality" and is_kind(quality[2], "u"),
          "malformed", "quality", quality)
    check(sorted(raw) == [0, 8] and raw[0] == "raw" and is_kind(raw[8], "b32"), "malformed", "raw", raw)
    return Reading(kid, point, time_ms, entries, quality[2], raw[8])


def _decode_entry(record):
    name = record.get(0)
    check(is_kind(name, "t"), "malformed", "a name", name)
    labels = sorted(record)
    if labels == [0, 3]:
        check(name.endswith(MISSING) and is_kind(record[3], "t"), "malformed", "a reason", record[3])
        name = name[:-len(MISSING)]
        check(is_name(name), "malformed", "a name", name)
        return Entry(name, None, None, record[3])
    check(is_name(name) and not name.endswith(MISSING), "malformed", "a name", name)
    check(labels in ([0, 2], [0, 1, 2]), "malformed", "a value", labels)
    check(is_integer(record[2]), "malformed", "an integer", record[2])
    unit = record.get(1)
    check(1 not in record or unit in UNITS, "malformed", "a unit", unit)
    return Entry(name, unit, record[2], None)


def _decode_base(record):
    check(sorted(record) == [-3, -2, -1, 0, 1, 2] and record[-1] == BASE_VERSION, "malformed", "a base record", record)
    check(record[0] == "ms" and record[1] == "ms", "malformed", "ms", record[0])
    check(is_kind(record[-3], "u") and is_kind(record[2], "u") and record[2] < 1000, "malformed", "a time", record[2])
    name = record[-2]
    check(is_kind(name, "t") and name.startswith(NAME_PREFIX), "malformed", NAME_PREFIX, name)
    parts = name[len(NAME_PREFIX):].split(":")
    check(len(parts) == 3 and parts[2] == "" and len(parts[0]) == 16, "malformed", "kid and point", name)
    check(is_lower_hex(parts[0]) and is_decimal(parts[1]), "malformed", "kid and point", name)
    return bytes.fromhex(parts[0]), int(parts[1]), record[-3] * 1000 + record[2]


def is_lower_hex(text):
    for letter in text:
        if letter not in "0123456789abcdef":
            return False
    return True


def is_decimal(text):
    """Tells whether `text` is a number without leading zero, in at most ten digits."""
    if not 0 < len(text) <= 10 or (text[0] == "0" and len(text) > 1):
        return False
    for letter in text:
        if letter not in "0123456789":
            return False
    return True
