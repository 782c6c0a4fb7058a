"""Makes one reading's bytes (a SenML pack in deterministic CBOR, RFC 8428) from integers, and the integers back.

Integers only, in the small unit (mV, mA, W, Wh, ...): what is signed has no float. Every entry either has a value or
says why it is missing; an old value never goes out under a new time. The last two records are the quality bits and
the hash of the Modbus frames that the values were read from.
"""

from collections import namedtuple

from firmware.wire import cbor
from firmware.wire.shape import is_integer

BASE_VERSION = 26  # RFC 9100: 10 + 2^4, because secondary units such as Wh appear
NAME_PREFIX = "urn:dev:os:32473-"  # RFC 9039, the private enterprise number kept for examples
UNITS = ("Wh", "W", "var", "VA", "varh", "VAh", "mV", "mA", "/1000")  # frequency goes as mHz without a unit
MISSING = ".missing"
ENTRIES = 64  # a three-phase meter's whole register set has about 60 values

CLOCK_UNKNOWN, CLOCK_INFORMATIVE, CLOCK_SYNCHRONISED, CLOCK_RELATIVE = 0, 1, 2, 3  # OCMF's U, I, S, R
CLOCK_BITS = 3
ESTIMATED = 4
STALE = 8
IMPLAUSIBLE = 16

Entry = namedtuple("Entry", ("name", "unit", "value", "missing"))
Reading = namedtuple("Reading", ("kid", "point", "time_ms", "entries", "quality", "raw"))


def encode(reading):
    """Returns the pack's bytes. entries: tuple of Entry in the meter table's order; raw: 32 bytes; time: Unix ms."""
    if not 0 < len(reading.entries) <= ENTRIES or len(reading.raw) != 32 or len(reading.kid) != 8:
        raise ValueError("a reading has 1..%d entries, a kid of 8 and a hash of 32 bytes" % ENTRIES)
    seconds, milliseconds = divmod(reading.time_ms, 1000)
    name = "%s%s:%d:" % (NAME_PREFIX, reading.kid.hex(), reading.point)
    parts = [cbor.head(4, len(reading.entries) + 3),
             cbor.encode({-1: BASE_VERSION, -2: name, -3: seconds, 0: "ms", 1: "ms", 2: milliseconds})]
    for entry in reading.entries:  # one after the other: a board has no room for all these maps
        parts.append(cbor.encode(_record(entry)))
    parts.append(cbor.encode({0: "quality", 2: reading.quality}))
    parts.append(cbor.encode({0: "raw", 8: bytes(reading.raw)}))
    return b"".join(parts)


def decode(data):
    """Returns the Reading of exactly such bytes; Refused `malformed`."""
    from firmware.wire import reading_decode  # a board only makes readings

    return reading_decode.decode(data)


def value_of(reading, name):
    """Returns the integer of the entry `name`, or None when the reading has none or says it is missing."""
    for entry in reading.entries:
        if entry.name == name:
            return entry.value
    return None


def has_entry(reading, name):
    """Tells whether the reading has an entry `name`, with a value or missing."""
    for entry in reading.entries:
        if entry.name == name:
            return True
    return False


def _record(entry):
    if not is_name(entry.name):
        raise ValueError("not a SenML name: " + repr(entry.name))
    if entry.missing is not None:
        return {0: entry.name + MISSING, 3: entry.missing}
    if not is_integer(entry.value):
        raise ValueError("not an integer: " + repr(entry.value))
    if entry.unit is None:
        return {0: entry.name, 2: entry.value}
    if entry.unit not in UNITS:
        raise ValueError("not a unit of ours: " + entry.unit)
    return {0: entry.name, 1: entry.unit, 2: entry.value}


def is_name(text):
    """Tells whether `text` may stand in a SenML name (RFC 8428, section 4.5.1)."""
    if not 0 < len(text) <= 64 or text in ("quality", "raw", "ms"):
        return False
    for letter in text:
        if not ("a" <= letter <= "z" or "A" <= letter <= "Z" or "0" <= letter <= "9" or letter in "-:./_"):
            return False
    return True
