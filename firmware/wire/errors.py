"""Makes one exception with a reason from a closed list (`reasons.py`), from whatever was wrong with an input."""


class Refused(Exception):
    """An input from outside that is not taken: `reason` (one of the list) and the two values that disagreed."""

    def __init__(self, reason, expected=None, found=None):
        super().__init__(reason)
        self.reason = reason
        self.expected = expected
        self.found = found

    @property
    def number(self):
        """The reason's result code; ValueError for a reason that is not in the list."""
        from firmware.wire import reasons

        number = reasons.NUMBERS.get(self.reason)
        if number is None:
            raise ValueError("unknown reason " + repr(self.reason))
        return number

    def __str__(self):
        if self.expected is None and self.found is None:
            return self.reason
        return "%s: expected %s, found %s" % (self.reason, _show(self.expected), _show(self.found))


class Impossible(Exception):
    """Something that cannot happen if this program is right (mpy-cross -O3 drops asserts, so firmware raises this)."""


def check(is_good, reason, expected=None, found=None):
    """Raises Refused(reason) unless `is_good`."""
    if not is_good:
        raise Refused(reason, expected, found)


def _show(value):
    if isinstance(value, (bytes, bytearray)):
        return bytes(value).hex()
    return repr(value)
