"""Makes the clock that pytest keeps (deploy/clock.py) into the clock an agent on the bridge is given."""

import struct

from _bridge import clock_done, clock_ns, clock_page
from micropython import const
from uctypes import addressof

_SYNCHRONISED = const(2)


class SharedClock:
    """A participant's view: labels run at `speed`, never past the keeper's limit and never back; waits are real."""

    def __init__(self):
        self._page = bytearray(48)
        self._ns = bytearray(8)
        self._done = bytearray(16)
        self._last_ms = 0
        self.speed = self._read()[4]

    def now_ms(self):
        _, label_ms, monotonic_us, limit_ms, speed, _ = self._read()
        passed_us = max(0, self._monotonic_ns() // 1000 - monotonic_us)
        self._last_ms = max(self._last_ms, min(limit_ms, label_ms + passed_us * speed // 1000))
        return self._last_ms

    def monotonic_ms(self):
        return self._monotonic_ns() // 1000000

    def quality(self):
        return _SYNCHRONISED

    def progress(self, label_ms):
        struct.pack_into("<qq", self._done, 0, label_ms, label_ms)
        clock_done(addressof(self._done))

    def _monotonic_ns(self):
        clock_ns(addressof(self._ns))
        return struct.unpack("<q", self._ns)[0]

    def _read(self):
        while True:
            clock_page(addressof(self._page))
            found = struct.unpack("<QqqqqQ", self._page)
            if found[0] == found[5] and found[0]:
                return found
