"""Makes a Meter out of the map of a person's own meter file (TOML beside meter.toml, JSON where there is no TOML).

For a meter that no shipped table describes, or a SunSpec device as `meter scan` found it. Everything is checked here,
because nobody tests such a file: an error names the key, what was expected and found, and the nearest known key.
"""

from firmware import meters, modbus, sunspec
from firmware.config import BadConfig, checked
from firmware.decode import WORDS
from firmware.tables import REAL_FUNCTIONS, Meter, Special
from firmware.tables import field as make_field
from firmware.wire.reading import ENTRIES, is_name

TYPE_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789_-"
NAME_BYTES = 32  # of a type's name: it stands in every journal record of such a meter
# unit in the file: (unit of the reading, how many of these it is). Percent become thousandths.
UNITS = {
    "V": ("mV", 1000), "mV": ("mV", 1), "A": ("mA", 1000), "mA": ("mA", 1), "W": ("W", 1), "kW": ("W", 1000),
    "VA": ("VA", 1), "kVA": ("VA", 1000), "var": ("var", 1), "kvar": ("var", 1000), "Wh": ("Wh", 1),
    "kWh": ("Wh", 1000), "MWh": ("Wh", 1000000), "VAh": ("VAh", 1), "kVAh": ("VAh", 1000), "varh": ("varh", 1),
    "kvarh": ("varh", 1000), "Hz": (None, 1000), "deg": (None, 1000), "Cel": (None, 1000), "1": ("/1000", 1000),
    "%": ("/1000", 10), "": (None, 1),
}
DIGITS = 15  # of a scale

_TOP: dict = {
    "maker": ("text", None, 1, 64), "model": ("text", None, 1, 64), "baud": ("number", 9600, 300, 1000000),
    "parity": ("text", "N", 1, 1), "max_registers": ("number", 16, 1, modbus.REGISTERS),
    "max_hole": ("number", 0, 0, modbus.REGISTERS), "gap_ms": ("number", 100, 0, 10000),
    "max_power_w": ("number", 1000000, 1, 10 ** 12), "max_current_a": ("number", 10000, 1, 10 ** 9),
    "max_voltage_v": ("number", 1500, 1, 10 ** 6), "max_energy_kwh": ("number", 10 ** 10, 1, 10 ** 14),
    "function": ("number", 3, 3, 4), "word_order": ("text", "msw", 3, 3), "number": ("tables", [], 0, 1),
    "field": ("tables", [], 0, 2 * ENTRIES), "sunspec": ("tables", [], 0, 8),
}
_FIELD = {
    "label": ("text", None, 1, 48), "obis": ("text", "", 0, 16), "unit": ("text", None, 0, 5),
    "function": ("number", 0, 0, 4), "address": ("number", None, 0, 0xFFFF), "kind": ("text", None, 3, 3),
    "word_order": ("text", "", 0, 3), "scale": ("decimal", "1", 0, 0), "billing": ("switch", False, 0, 0),
    "none": ("number", -1, -1, (1 << 64) - 1),
}
_NUMBER = {"function": ("number", 3, 3, 4), "address": ("number", None, 0, 0xFFFF),
           "registers": ("number", 2, 1, 16), "kind": ("text", "u32", 3, 4)}
_MODEL = {"model": ("number", None, 1, 0xFFFE), "address": ("number", None, 0, 0xFFFF)}


def make(name, values):
    """Returns the Meter of a plain map; BadConfig otherwise."""
    if not is_type_name(name):
        raise BadConfig("type", "expected up to %d of a-z, 0-9, '_' and '-', found %r" % (NAME_BYTES, name))
    if name in meters.TYPES:
        raise BadConfig("type", "%s is a shipped type: give this one another name" % name)
    top = checked(values, _TOP, "")
    _one_of("parity", top["parity"], ("N", "E", "O"))
    _one_of("word_order", top["word_order"], ("msw", "lsw"))
    if bool(top["field"]) == bool(top["sunspec"]):
        raise BadConfig("field", "expected either [[field]] tables or [[sunspec]] tables")
    bounds = (top["max_power_w"], 1000 * top["max_current_a"], 1000 * top["max_voltage_v"],
              1000 * top["max_energy_kwh"])
    most = top["max_registers"]
    if top["sunspec"]:
        fields = _models(top["sunspec"], bounds)
        most = sunspec.MAX_REGISTERS if "max_registers" not in values else most
    else:
        fields = _fields(top, bounds)
    for group in (meters.BILLING, meters.OTHER):
        count = len([field for field in fields if field.group == group])
        if count > ENTRIES or (count == 0 and group == meters.BILLING):
            raise BadConfig("field", "expected 1 to %d fields with billing = true, and as many without at most; "
                            "found %d of %s" % (ENTRIES, count, group))
    try:
        modbus.plan(fields, most, top["max_hole"])
    except ValueError as error:
        raise BadConfig("max_registers", "expected room for a whole value, found %d: %s" % (most, error))
    number = _number(top["number"][0]) if top["number"] else None
    return Meter(name, top["maker"], top["model"], fields, most, top["max_hole"], top["gap_ms"], top["baud"],
                        top["parity"], top["max_power_w"], number, None)


def is_type_name(name):
    """Tells whether a meter type may have that name: it is a file's name too."""
    return 0 < len(name) <= NAME_BYTES and not [letter for letter in name if letter not in TYPE_LETTERS]


def ratio_of(text):
    """Returns (numerator, denominator) of a decimal such as "0.01", "-1" or 1000; None for anything else."""
    text = str(text)
    sign, digits = (-1, text[1:]) if text.startswith("-") else (1, text)
    whole, _, rest = digits.partition(".")
    if not whole or len(whole) + len(rest) > DIGITS or (not rest and "." in digits):
        return None
    for letter in whole + rest:
        if letter not in "0123456789":
            return None
    numerator, denominator = int(whole + rest), 10 ** len(rest)
    return (sign * numerator, denominator) if numerator else None


def _fields(top, bounds):
    found: list = []
    names: dict = {}
    for number in range(len(top["field"])):
        key = "field[%d]" % number
        row = checked(top["field"][number], _FIELD, key + ".")
        function = row["function"] or top["function"]
        _one_of(key + ".function", function, REAL_FUNCTIONS)
        _one_of(key + ".kind", row["kind"], tuple(sorted(WORDS)))
        _one_of(key + ".unit", row["unit"], tuple(sorted(UNITS)))
        order = row["word_order"] or top["word_order"]
        _one_of(key + ".word_order", order, ("msw", "lsw"))
        ratio = ratio_of(row["scale"])
        if ratio is None:
            raise BadConfig(key + ".scale", 'expected a decimal that is not 0, such as "0.01", found %r' % row["scale"])
        if row["obis"] and not _is_obis(row["obis"]):
            raise BadConfig(key + ".obis", 'expected three numbers, such as "1.8.0", found %r' % row["obis"])
        if not is_name("x." + row["label"]):
            raise BadConfig(key + ".label", "expected letters, digits and '_', found %r" % row["label"])
        if row["address"] + WORDS[row["kind"]] > 0x10000:
            raise BadConfig(key + ".address", "a %s at %d goes beyond 65535" % (row["kind"], row["address"]))
        unit, factor = UNITS[row["unit"]]
        numerator, denominator = _shortest(ratio[0] * factor, ratio[1])
        field = make_field(row["label"], row["obis"] or None, unit, function, row["address"], row["kind"], order,
                             numerator, denominator, meters.BILLING if row["billing"] else meters.OTHER, bounds,
                             None if row["none"] < 0 else Special(row["none"], None, None))
        for what in (field.name, field.label):
            if names.get(what, key) != key:
                raise BadConfig(key + ".label", "%s stands in %s too" % (what, names[what]))
            names[what] = key
        found.append(field)
    return tuple(found)


def _models(rows, bounds):
    pairs = []
    for number in range(len(rows)):
        row = checked(rows[number], _MODEL, "sunspec[%d]." % number)
        pairs.append((row["model"], row["address"]))
    try:
        return sunspec.fields(pairs, bounds)
    except ValueError as error:
        raise BadConfig("sunspec", str(error))


def _number(values):
    row = checked(values, _NUMBER, "number[0].")
    _one_of("number[0].kind", row["kind"], ("u32", "text"))
    return row["function"], row["address"], row["registers"], row["kind"]


def _one_of(key, value, known):
    if value not in known:
        raise BadConfig(key, "expected one of %s, found %r" % (", ".join([str(one) or '""' for one in known]), value))


def _is_obis(text):
    parts = text.split(".")
    wrong = [part for part in parts if not part or [letter for letter in part if letter not in "0123456789"]]
    return len(parts) == 3 and not wrong


def _shortest(numerator, denominator):
    """The same fraction in its lowest terms."""
    left, right = abs(numerator), denominator
    while right:
        left, right = right, left % right
    return numerator // left, denominator // left
