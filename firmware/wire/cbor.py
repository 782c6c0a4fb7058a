"""Makes deterministic CBOR bytes from plain values, and plain values from exactly such bytes (RFC 8949, section 4.2.1).

The language is small on purpose (wire.md, Strictness): 64-bit integers, byte strings, UTF-8 text, arrays, maps with
integer keys -24..23, bool and null; shortest heads, definite lengths, keys in bytewise order, no duplicate key, no
trailing byte, eight levels. What `decode` accepts, `encode` gives back as the same bytes. There are no floats and no
tags: COSE puts its one tag in front itself.
"""

import struct

try:
    from micropython import const
except ImportError:
    def const(value):
        return value

from firmware.wire.errors import Refused

DEPTH = 8  # deepest message we sign has five levels; eight leaves room and bounds the stack of a board
_KEY_MINIMUM = const(-24)  # keys of one byte sort alike under every CBOR ordering rule
_KEY_MAXIMUM = const(23)

_UNSIGNED = const(0)
_NEGATIVE = const(1)
_BYTES = const(2)
_TEXT = const(3)
_ARRAY = const(4)
_MAP = const(5)


def encode(value):
    """Returns the one deterministic encoding of `value`; ValueError for what the language does not have."""
    out = bytearray()
    _write(out, value, DEPTH)
    return bytes(out)


def decode(data):
    """Returns the value of `data` (arrays as lists); Refused `malformed` or `too_deep`."""
    value, end = decode_from(data, 0)
    if end != len(data):
        raise Refused("malformed", end, len(data))
    return value


def decode_from(data, start):
    """Returns (value, end) of the item at `start`, for readers of sequences; Refused as `decode`."""
    return _read(data, start, DEPTH)


def head(major, number):
    """Returns the shortest head of a major type (0..7) and its number (0..2^64-1)."""
    out = bytearray()
    _write_head(out, major, number)
    return bytes(out)


def _write_head(out, major, number):
    major <<= 5
    if number < 24:
        out.append(major | number)
    elif number < 0x100:
        out.append(major | 24)
        out.append(number)
    elif number < 0x10000:
        out.append(major | 25)
        out.extend(struct.pack(">H", number))
    elif number < 0x100000000:
        out.append(major | 26)
        out.extend(struct.pack(">I", number))
    elif number < 0x10000000000000000:
        out.append(major | 27)
        out.extend(struct.pack(">Q", number))
    else:
        raise ValueError("integer beyond 64 bits")


def _write(out, value, depth):
    if value is None:
        out.append(0xF6)
    elif value is True:
        out.append(0xF5)
    elif value is False:
        out.append(0xF4)
    elif isinstance(value, int):
        if value >= 0:
            _write_head(out, _UNSIGNED, value)
        else:
            _write_head(out, _NEGATIVE, -1 - value)
    elif isinstance(value, (bytes, bytearray)):
        _write_head(out, _BYTES, len(value))
        out.extend(value)
    elif isinstance(value, str):
        text = value.encode()
        if not is_utf8(text):
            raise ValueError("text is not UTF-8")
        _write_head(out, _TEXT, len(text))
        out.extend(text)
    elif isinstance(value, (list, tuple)):
        if depth == 0:
            raise ValueError("deeper than %d levels" % DEPTH)
        _write_head(out, _ARRAY, len(value))
        for item in value:
            _write(out, item, depth - 1)
    elif isinstance(value, dict):
        if depth == 0:
            raise ValueError("deeper than %d levels" % DEPTH)
        _write_map(out, value, depth)
    else:
        raise ValueError("no encoding for " + repr(type(value)))


def _write_map(out, value, depth):
    heads = []
    for key in value:
        if isinstance(key, bool) or not isinstance(key, int) or not _KEY_MINIMUM <= key <= _KEY_MAXIMUM:
            raise ValueError("map key is not an integer of one byte: " + repr(key))
        heads.append((key if key >= 0 else 0x20 | (-1 - key), key))
    heads.sort()
    _write_head(out, _MAP, len(heads))
    for byte, key in heads:
        out.append(byte)
        _write(out, value[key], depth - 1)


def _read(data, at, depth):
    size = len(data)
    if at >= size:
        raise Refused("malformed", "an item", "the end")
    first = data[at]
    at += 1
    major = first >> 5
    number = first & 31
    if major == 7:
        if first == 0xF6:
            return None, at
        if first == 0xF5:
            return True, at
        if first == 0xF4:
            return False, at
        raise Refused("malformed", "bool or null", first)
    if number >= 24:
        number, at = _read_long_number(data, at, number)
    if major == _UNSIGNED:
        return number, at
    if major == _NEGATIVE:
        return -1 - number, at
    if major == _BYTES or major == _TEXT:
        if number > size - at:
            raise Refused("malformed", number, size - at)
        end = at + number
        piece = bytes(data[at:end])
        if major == _BYTES:
            return piece, end
        if not is_utf8(piece):
            raise Refused("malformed", "UTF-8", piece)
        return piece.decode(), end
    if major == _ARRAY or major == _MAP:
        if depth == 0:
            raise Refused("too_deep", DEPTH, DEPTH + 1)
        if number > size - at:  # each element takes a byte at least: a huge claim costs nothing
            raise Refused("malformed", number, size - at)
        if major == _ARRAY:
            items = []
            for _ in range(number):
                item, at = _read(data, at, depth - 1)
                items.append(item)
            return items, at
        return _read_map(data, at, number, depth)
    raise Refused("malformed", "no tag", first)


def _read_long_number(data, at, kind):
    if kind > 27:
        raise Refused("malformed", "a definite length", kind)
    width = 1 << (kind - 24)
    if at + width > len(data):
        raise Refused("malformed", width, len(data) - at)
    number = int.from_bytes(bytes(data[at:at + width]), "big")
    if number < (24, 0x100, 0x10000, 0x100000000)[kind - 24]:
        raise Refused("malformed", "the shortest head", number)
    return number, at + width


def _read_map(data, at, count, depth):
    value = {}
    last = -1
    for _ in range(count):
        if at >= len(data):
            raise Refused("malformed", "a key", "the end")
        byte = data[at]
        if byte > 0x37 or 0x17 < byte < 0x20:
            raise Refused("malformed", "a key of one byte", byte)
        if byte <= last:
            raise Refused("malformed", "keys that rise", byte)
        last = byte
        key = byte if byte < 0x20 else -1 - (byte & 31)
        value[key], at = _read(data, at + 1, depth - 1)
    return value, at


def is_utf8(data):
    """Tells whether `data` is well-formed UTF-8 (RFC 3629: shortest form, no surrogate, at most U+10FFFF).

    Our own, because MicroPython's decoder lets overlong forms and surrogates through.
    """
    at = 0
    size = len(data)
    while at < size:
        byte = data[at]
        at += 1
        if byte < 0x80:
            continue
        if byte < 0xC2 or byte > 0xF4:
            return False
        low, high = 0x80, 0xBF
        if byte < 0xE0:
            more = 1
        elif byte < 0xF0:
            more = 2
            if byte == 0xE0:
                low = 0xA0
            elif byte == 0xED:
                high = 0x9F
        else:
            more = 3
            if byte == 0xF0:
                low = 0x90
            elif byte == 0xF4:
                high = 0x8F
        if at + more > size:
            return False
        for _ in range(more):
            if not low <= data[at] <= high:
                return False
            low, high = 0x80, 0xBF
            at += 1
    return True
