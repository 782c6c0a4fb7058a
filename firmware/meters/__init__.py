"""Makes a Meter (what can be read where, and what it means) from the name of a type: one data file per type.

A field's place in its table is part of the journal's format: new fields are added at the end, and so are new types in
TYPES. Names are OBIS codes without medium, channel and tail (wire.md); "x." and a name where OBIS has none. How a table
is read and what a Meter is: tables.py, which a board needs at its start only.
"""

from firmware.schedule import BILLING
from firmware.schedule import OTHER as OTHER

# A type's place here stands in journal records: add at the end only, never beyond OWN (records.py) of them.
TYPES = ("sdm120", "sdm630", "pzem004t", "sdm230", "sdm72d", "sdm72dv2", "b23", "em24", "em340",
         "ddsu666", "dtsu666", "umg96rm", "we514", "we516", "iem3155", "growatt_rtu2", "growatt_tlxh", "sma")
IMPORT, EXPORT = "1.8.0", "2.8.0"


def fields_of(meter, group):
    """Returns the fields of one group, in the table's order; what `slim` left out is loaded anew each time."""
    if group != BILLING and meter.maker is None:
        return load(meter.type, group).fields
    return tuple([field for field in meter.fields if field.group == group])


def load(name, group=None):
    """Returns the Meter of a type; ValueError names the types there are. group: with the fields of that one only."""
    from firmware import tables

    return tables.load(name, group)


def map_hash(meter):
    """Returns SHA-256 of the table's CBOR: the register-map hash that the registry keeps for a point."""
    from firmware import tables

    return tables.map_hash(meter)
