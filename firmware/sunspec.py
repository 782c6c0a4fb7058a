"""Makes the models of a SunSpec device (which, and where) from its registers, and a meter's fields from such models.

SunSpec Device Information Model Specification: "SunS" at 40000, 50000 or 0, then model after model: number, length,
so many registers; number FFFF is the end. Unknown models are skipped by their length. The caller reads.
"""

from collections import namedtuple

from firmware import meters
from firmware.meters import sunspec as data
from firmware.tables import Special
from firmware.tables import field as make_field

BASES = (40000, 50000, 0)
MARKER = [0x5375, 0x6E53]  # "SunS"
COMMON, END = 1, 0xFFFF
MODELS_MAX = 64  # a broken device must not hold the walk for ever
FUNCTION = 3
MAX_REGISTERS = 125
TEXTS = ((2, 16), (18, 16), (42, 8), (50, 16))  # of model 1: maker, model, version, serial number

# models: [(number, address of its first register)] of those in the tables; others: numbers that were skipped.
Device = namedtuple("Device", ("base", "maker", "model", "version", "number", "models", "others"))


def discover(read):
    """Returns the Device behind `read(address, count) -> words or None`, or None where there is no SunSpec."""
    for base in BASES:
        if read(base, 2) == MARKER:
            return _walk(read, base)
    return None


def fields(models, bounds):
    """Returns the Fields of [(model number, address)]; ValueError for an unknown model or two with the same value."""
    known = {number: (rows, phases) for number, _, rows, phases in data.MODELS}
    found = []
    names = set()
    for number, address in models:
        if number not in known:
            raise ValueError("SunSpec model %d: one of %s" % (number, ", ".join([str(one) for one in sorted(known)])))
        rows, phases = known[number]
        for label, name, unit, offset, kind, none, scale, numerator, denominator, is_billing in rows:
            if phases and not _has_phases(label, phases):
                continue
            special = Special(none, None if scale is None else address + scale, (address, number))
            field = make_field(label, name, unit, FUNCTION, address + offset, kind, "msw", numerator, denominator,
                                 meters.BILLING if is_billing else meters.OTHER, bounds, special)
            if field.name in names:
                raise ValueError("SunSpec model %d has %s like a model before: one file for each" % (number, label))
            names.add(field.name)
            found.append(field)
    return tuple(found)


def text_of(words):
    """Returns the printable text in registers, two letters each, up to the first zero byte."""
    text = ""
    for word in words:
        for byte in (word >> 8, word & 0xFF):
            if byte == 0:
                return text.strip()
            text += chr(byte) if 32 <= byte < 127 else "?"
    return text.strip()


def _walk(read, base):
    lengths = {number: length for number, length, _, _ in data.MODELS}
    texts = ["", "", "", ""]
    models: list = []
    others: list = []
    at = base + 2
    for _ in range(MODELS_MAX):
        header = read(at, 2)
        if header is None or header[0] == END:
            break
        number, length = header
        if number == COMMON and length >= 64:
            body = read(at + 2, 64)
            if body is not None:
                texts = [text_of(body[first - 2:first - 2 + count]) for first, count in TEXTS]
        elif number in lengths and length >= lengths[number]:
            models.append((number, at))
        else:
            others.append(number)
        at += 2 + length
        if at + 2 > 0x10000:
            break
    return Device(base, texts[0], texts[1], texts[2], texts[3], tuple(models), tuple(others))


def _has_phases(label, phases):
    """Whether a device of one or two phases can have this value."""
    end = label[label.rfind("_l") + 2:] if "_l" in label else ""
    for digit in end:
        if digit not in "123":
            return True
    return not [digit for digit in end if int(digit) > phases] and (phases > 1 or len(end) < 2)
