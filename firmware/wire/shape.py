"""Makes one check of a decoded value's shape, from a short list of field kinds; every message's decoder uses it.

Kinds: "u" unsigned integer, "u?" unsigned or null, "i" integer, "b" bytes, "b8" bytes of that length ("b8?" or null),
"t" text, "l" list, "l?" list or null, "*" anything. MicroPython says that True is no int, CPython that it is: both are
refused here where an integer is due.
"""

from firmware.wire.errors import Refused

TEXT_BYTES = 256  # a name, a model, a note: nothing signed carries longer text


def check_fields(value, kinds):
    """Raises Refused `malformed` unless `value` is a list whose elements are of `kinds`, one by one."""
    if not isinstance(value, list) or len(value) != len(kinds):
        raise Refused("malformed", len(kinds), len(value) if isinstance(value, list) else "no array")
    for index in range(len(kinds)):
        if not is_kind(value[index], kinds[index]):
            raise Refused("malformed", "field %d of kind %s" % (index, kinds[index]), value[index])


def is_kind(value, kind):
    """Tells whether a decoded value is of `kind`."""
    if kind == "*":
        return True
    if kind[-1] == "?":
        if value is None:
            return True
        kind = kind[:-1]
    first = kind[0]
    if first == "u":
        return is_integer(value) and value >= 0
    if first == "i":
        return is_integer(value)
    if first == "b":
        return isinstance(value, bytes) and (len(kind) == 1 or len(value) == int(kind[1:]))
    if first == "t":
        return isinstance(value, str) and len(value) <= TEXT_BYTES
    if first == "l":
        return isinstance(value, list)
    raise ValueError("unknown kind " + kind)


def is_integer(value):
    return isinstance(value, int) and value is not True and value is not False


def check_list(value, kind):
    """Raises Refused `malformed` unless `value` is a list of elements that are all of one kind."""
    if not isinstance(value, list):
        raise Refused("malformed", "an array", value)
    for item in value:
        if not is_kind(item, kind):
            raise Refused("malformed", kind, item)
