"""Makes a Reading's integers from register words, by integer arithmetic alone.

A register's exact value is a fraction (a float has a power of two below the line); it is scaled to the small unit by
the meter table's ratio and rounded half to even once, at the end. No float is ever made: a single-precision board
would lose watt-hours.
"""

try:
    from micropython import const
except ImportError:
    def const(value):
        return value

from firmware.wire.reading import IMPLAUSIBLE, Entry

WORDS = {"u16": 1, "s16": 1, "u32": 2, "s32": 2, "f32": 2, "u64": 4, "s64": 4}  # kinds and their registers
_INTEGER_BITS = const(63)  # what a signed CBOR integer may carry; a register beyond is no value
NOT_A_NUMBER = "nan"
OUT_OF_RANGE = "implausible"
NOT_IMPLEMENTED = "not_implemented"  # the device says so itself, by the value that its maker keeps for it
MOVED = "moved"  # another register map answers than the one that was found when this table was made
_SCALE_MAX = const(10)  # of a power of ten in a register: SunSpec's range


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
    bits = _bits(words, order)
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
    over = under = 1
    if field.special is not None:
        over, under, reason = _special(field, words, registers)
        if reason is not None:
            return None, reason
    fraction = exact(words, field.kind, field.order)
    if fraction is None:
        return None, NOT_A_NUMBER
    value = scaled(fraction[0] * field.numerator * over, fraction[1] * field.denominator * under)
    if not -(1 << _INTEGER_BITS) <= value < 1 << _INTEGER_BITS:
        return None, OUT_OF_RANGE
    return value, None


def _special(field, words, registers):
    """(factor, divisor, None) of what a field's Special asks for, or (1, 1, reason why there is no value)."""
    none, scale_at, guard = field.special
    if guard is not None:
        word = registers.get((field.function, guard[0]), "not_read")
        if word != guard[1]:
            return 1, 1, word if isinstance(word, str) else MOVED
    if none is not None and _bits(words, field.order) == none:
        return 1, 1, NOT_IMPLEMENTED
    if scale_at is None:
        return 1, 1, None
    word = registers.get((field.function, scale_at), "not_read")
    if isinstance(word, str):
        return 1, 1, word
    power = word - 0x10000 if word >> 15 else word
    if not -_SCALE_MAX <= power <= _SCALE_MAX:
        return 1, 1, NOT_IMPLEMENTED  # a value without its scale means nothing
    return (10 ** power, 1, None) if power >= 0 else (1, 10 ** -power, None)


def _bits(words, order):
    bits = 0
    for index in range(len(words)):
        bits = bits << 16 | (words[len(words) - 1 - index] if order == "lsw" else words[index])
    return bits


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
