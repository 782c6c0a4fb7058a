"""Makes a Reading's integers from register words, by integer arithmetic alone.

A register's exact value is a fraction (a float has a power of two below the line); it is scaled to the small unit by
the meter table's ratio and rounded half to even once, at the end. No float is ever made: a single-precision board
would lose watt-hours.
"""

from firmware.wire.reading import IMPLAUSIBLE, Entry

WORDS = {"u16": 1, "s16": 1, "u32": 2, "s32": 2, "f32": 2, "u64": 4, "s64": 4}  # kinds and their registers
INTEGER_BITS = 63  # what a signed CBOR integer may carry; a register beyond is no value
NOT_A_NUMBER = "nan"
OUT_OF_RANGE = "implausible"


def entries_of(fields, registers):
    """Returns (entries, quality bits) for one reading.

    fields: of a meter table, in its order. registers: {(function, address): word or reason text}; a reason (one of
    modbus.FAULTS and the like) makes the entry missing with it. A value outside the table's plausible range is kept,
    since it is what the meter said, and marked by the quality bit; energy below zero is no value at all.
    """
    entries = []
    quality = 0
    for field in fields:
        value, reason = _value_of(field, registers)
        if reason is None and not field.low <= value <= field.high:
            quality |= IMPLAUSIBLE
            if field.unit == "Wh" and value < 0:
                reason = OUT_OF_RANGE
        if reason is None:
            entries.append(Entry(field.name, field.unit, value, None))
        else:
            entries.append(Entry(field.name, None, None, reason))
    return tuple(entries), quality


def exact(words, kind, order):
    """Returns (numerator, denominator > 0) of the registers' exact value, or None where it is no number.

    words: 16-bit, in bus order; order: "msw" the first register is the most significant, "lsw" the least.
    """
    if len(words) != WORDS[kind]:
        raise ValueError("%s of %d words" % (kind, len(words)))
    bits = 0
    for index in range(len(words)):
        word = words[len(words) - 1 - index] if order == "lsw" else words[index]
        bits = bits << 16 | word
    size = 16 * len(words)
    if kind[0] == "f":
        return _exact_float(bits)
    if kind[0] == "s" and bits >> (size - 1):
        bits -= 1 << size
    return bits, 1


def scaled(numerator, denominator):
    """Returns the integer nearest to the fraction, a half going to the even one."""
    whole, rest = divmod(numerator, denominator)
    if 2 * rest > denominator or (2 * rest == denominator and whole & 1):
        whole += 1
    return whole


def _value_of(field, registers):
    words = []
    for address in range(field.address, field.address + field.count):
        word = registers.get((field.function, address), "not_read")
        if isinstance(word, str):
            return None, word
        words.append(word)
    fraction = exact(words, field.kind, field.order)
    if fraction is None:
        return None, NOT_A_NUMBER
    value = scaled(fraction[0] * field.numerator, fraction[1] * field.denominator)
    if not -(1 << INTEGER_BITS) <= value < 1 << INTEGER_BITS:
        return None, OUT_OF_RANGE
    return value, None


def _exact_float(bits):
    """IEEE 754 binary32: 1 sign bit, 8 exponent bits, 23 bits of fraction."""
    exponent = bits >> 23 & 0xFF
    fraction = bits & 0x7FFFFF
    if exponent == 0xFF:
        return None
    if exponent:
        fraction |= 0x800000
    else:
        exponent = 1
    if bits >> 31:
        fraction = -fraction
    shift = exponent - 150
    if shift >= 0:
        return fraction << shift, 1
    return fraction, 1 << -shift
