"""Makes a Meter (what can be read where, and what it means) from the name of a type: one data file per type.

A field's place in its table is part of the journal's format: new fields are added at the end, and so are new types in
TYPES. Names are OBIS codes without medium, channel and tail (wire.md); "x." and a name where OBIS has none.
"""

import hashlib
from collections import namedtuple

from firmware.decode import WORDS
from firmware.wire import cbor

TYPES = ("sdm120", "sdm630", "pzem004t")  # a type's place here stands in journal records: add at the end only
IMPORT, EXPORT = "1.8.0", "2.8.0"
BILLING, OTHER = "billing", "other"

Field = namedtuple("Field", (
    "name", "unit", "function", "address", "count", "kind", "order", "numerator", "denominator", "low", "high",
    "group", "label"))
Meter = namedtuple("Meter", (
    "type", "maker", "model", "fields", "max_registers", "max_hole", "gap_ms", "baud", "parity", "max_power_w"))


def load(name):
    """Returns the Meter of a type; ValueError names the types there are."""
    if name not in TYPES:
        raise ValueError("unknown meter type %s: one of %s" % (name, ", ".join(TYPES)))
    table = __import__("firmware.meters." + name, None, None, ("FIELDS",))
    return make(name, table.MAKER, table.MODEL, table.FIELDS, table.LIMITS, table.SERIAL, table.MAX_POWER_W)


def make(name, maker, model, rows, limits, serial, max_power_w):
    """Returns a Meter from plain rows, as the data files and (later) a user's own table hold them.

    rows: (label, name, unit, function, address, kind, order, numerator, denominator, low, high, group), value in
    `unit` = register * numerator / denominator; limits: (registers per read, largest hole crossed, gap in ms);
    serial: (baud, parity).
    """
    fields = []
    for row in rows:
        label, name_, unit, function, address, kind, order, numerator, denominator, low, high, group = row
        if kind not in WORDS or order not in ("msw", "lsw") or denominator <= 0 or group not in (BILLING, OTHER):
            raise ValueError("%s: field %s" % (name, label))
        fields.append(Field(name_, unit, function, address, WORDS[kind], kind, order, numerator, denominator,
                            low, high, group, label))
    return Meter(name, maker, model, tuple(fields), limits[0], limits[1], limits[2], serial[0], serial[1],
                 max_power_w)


def fields_of(meter, group):
    """Returns the fields of one group, in the table's order."""
    return tuple([field for field in meter.fields if field.group == group])


def map_hash(meter):
    """Returns SHA-256 of the table's CBOR: the register-map hash that the registry keeps for a point."""
    rows = []
    for field in meter.fields:
        rows.append([field.name, field.unit, field.function, field.address, field.kind, field.order,
                     field.numerator, field.denominator, field.group])
    return hashlib.sha256(cbor.encode([meter.type, meter.maker, meter.model, rows])).digest()
