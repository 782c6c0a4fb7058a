"""Makes a Meter out of the data file of its type, and the hash of its register map; what Meters and Fields are."""

import hashlib
import sys
from collections import namedtuple

try:
    from micropython import const
except ImportError:
    def const(value):
        return value

from firmware import meters
from firmware.decode import WORDS
from firmware.wire import cbor

Field = namedtuple("Field", (
    "name", "unit", "function", "address", "count", "kind", "order", "numerator", "denominator", "low", "high",
    "group", "label", "special"))
# What some fields have beside their registers, else None. none: the raw integer (as unsigned) that means "no value";
# scale_at: address of the 16-bit signed power of ten that the value is multiplied with; guard: (address, word) that
# must be found, or the register map there is another one today.
Special = namedtuple("Special", ("none", "scale_at", "guard"))
# number: (function, address, registers, "u32" or "text") of the serial number; identity: (function, address,
# registers, ((words), ...)), where a meter of this type shows one of these; each None where no maker documents it.
Meter = namedtuple("Meter", (
    "type", "maker", "model", "fields", "max_registers", "max_hole", "gap_ms", "baud", "parity", "max_power_w",
    "number", "identity"))

REAL_FUNCTIONS = (3, 4)
_ANGLE_MAX = const(360000)  # thousandths of a degree; anything else that has no unit
_COUNT_MAX = const(1000000)
_FREQUENCY_LOW_MHZ = const(40000)
_FREQUENCY_HIGH_MHZ = const(70000)
_PERMILLE_MAX = const(10000)  # distortion may be far above 100 %


def load(name, group=None):
    """Returns the Meter of a type; ValueError names the types there are. group: with the fields of that one only."""
    if name not in meters.TYPES:
        raise ValueError("unknown meter type %s: one of %s" % (name, ", ".join(meters.TYPES)))
    table = __import__("firmware.meters." + name, None, None, ("FIELDS",))
    sys.modules.pop("firmware.meters." + name, None)  # used up here
    delattr(sys.modules["firmware.meters"], name)
    specials = {}  # one for all fields of a kind: a board has little room
    for kind, none in table.NONE:
        specials[kind] = Special(none, None, None)
    fields = []
    for line in _lines(table.FIELDS):
        label, name_, unit, function, address, kind, numerator, denominator, is_billing = line.split()
        group_ = meters.BILLING if is_billing == "1" else meters.OTHER
        if group is None or group == group_:
            fields.append(field(label, _or_none(name_), _or_none(unit), int(function), int(address, 0), kind,
                                table.ORDER, int(numerator), int(denominator), group_, table.BOUNDS,
                                specials.get(kind)))
    return Meter(name, table.MAKER, table.MODEL, tuple(fields), table.LIMITS[0], table.LIMITS[1], table.LIMITS[2],
                 table.SERIAL[0], table.SERIAL[1], table.BOUNDS[0], table.NUMBER, table.IDENTITY)


def slim(meter):
    """Returns a shipped table as an agent keeps it: the fields of the frequent polls only, and none of its facts."""
    if meter.type not in meters.TYPES:
        return meter
    return Meter(meter.type, None, None, meters.fields_of(meter, meters.BILLING), meter.max_registers, meter.max_hole,
                 meter.gap_ms, meter.baud, meter.parity, meter.max_power_w, None, None)


def field(label, name, unit, function, address, kind, order, numerator, denominator, group, bounds, special=None):
    """Returns a Field: value in `unit` = register * numerator / denominator. name None: no OBIS code, "x." + label.

    bounds: the largest plausible (power in W, current in mA, voltage in mV, counter in Wh) of the meter.
    """
    if kind not in WORDS or order not in ("msw", "lsw") or denominator <= 0 or function not in REAL_FUNCTIONS:
        raise ValueError("field %s" % label)
    low, high = _range(label, unit, bounds)
    if WORDS[kind] == 1:
        order = "msw"  # one word has no order, and one spelling gives one hash
    return Field(name or "x." + label, unit, function, address, WORDS[kind], kind, order, numerator, denominator, low,
                 high, group, label, special)


def map_hash(meter):
    """Returns SHA-256 of the table's CBOR: the register-map hash that the registry keeps for a point."""
    rows = []
    for field in meter.fields:
        row = [field.name, field.unit, field.function, field.address, field.kind, field.order, field.numerator,
               field.denominator, field.group]
        if field.special is not None:
            row.append([list(part) if isinstance(part, tuple) else part for part in field.special])
        rows.append(row)
    return hashlib.sha256(cbor.encode([meter.type, meter.maker, meter.model, rows])).digest()


def _range(label, unit, bounds):
    """(lowest, highest) plausible value of a field."""
    power_w, current_ma, voltage_mv, energy_wh = bounds
    if unit == "mV":
        return 0, voltage_mv
    if unit == "mA":
        return -current_ma, current_ma
    if unit in ("W", "VA", "var"):
        return -power_w, power_w
    if unit == "Wh" and "_net" not in label:
        return 0, energy_wh
    if unit is not None and unit.endswith("h"):
        return -energy_wh, energy_wh
    if unit == "/1000":
        return (-1000, 1000) if label.startswith("power_factor") else (0, _PERMILLE_MAX)
    if label == "frequency":
        return _FREQUENCY_LOW_MHZ, _FREQUENCY_HIGH_MHZ
    return (-_ANGLE_MAX, _ANGLE_MAX) if "angle" in label else (-_COUNT_MAX, _COUNT_MAX)


def _lines(text):
    """Yields the lines of a table's text but those that only people read; one at a time, for a board's sake."""
    at = 1
    while at < len(text):
        end = text.find("\n", at)
        if text[at] != "#":
            yield text[at:end]
        at = end + 1


def _or_none(word):
    return None if word == "-" else word
