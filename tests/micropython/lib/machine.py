"""Makes MicroPython's module `machine` for tests: resets are exit codes, a watchdog bites, UARTs are other lines.

    lines: {UART number: "HOST:PORT" of a TCP connection that carries RTU, or a terminal's path}
    has_echo: the receiver stays on while the UART sends, so that it hears itself
    start_chip(year): the chip's clock as after power-on (2000) or a restart, its epoch 2000
"""

import socket
import time
from collections import namedtuple

import _bridge
import utime

RESET, BITE = 42, 43  # exit codes
EPOCH_S = 946684800  # 2000-01-01
lines: dict = {}
has_echo = False
pins: dict = {}
timers: list = []
Edge = namedtuple("Edge", ("ms", "value"))

_until = None  # ticks at which the watchdog bites
_chip_s = None  # seconds since 2000 when the chip's clock was set, and the ticks of that moment
_chip_ticks = 0


def reset():
    raise SystemExit(RESET)


def unique_id():
    return b"\x7c\x9e\xbd\x00\x00\x01"


class Pin:
    IN, OUT = 1, 3

    def __init__(self, number, mode=IN, value=None):
        self.edges = []  # what it was set to, and when
        pins[number] = self
        if value is not None:
            self.value(value)

    def value(self, value=None):
        if value is not None:
            self.edges.append(Edge(_bridge.ticks_ms(), value))
        return self.edges[-1].value if self.edges else 0


class Timer:
    """Never fires by itself: `callback` can be called."""

    PERIODIC, ONE_SHOT = 1, 0

    def __init__(self, number):
        self.callback = None

    def init(self, period=0, mode=PERIODIC, callback=None):
        self.period, self.callback = period, callback
        timers.append(self)


class WDT:
    """Bites where time is looked at or waited for, as far as a single thread can be bitten."""

    def __init__(self, id=0, timeout=5000):
        self._timeout = timeout
        time.sleep_ms, time.ticks_ms = _sleep_ms, _ticks_ms
        self.feed()

    def feed(self):
        global _until
        _until = utime.ticks_add(_bridge.ticks_ms(), self._timeout)


def _ticks_ms():
    now = _bridge.ticks_ms()
    if _until is not None and utime.ticks_diff(now, _until) > 0:
        print("WATCHDOG")
        raise SystemExit(BITE)
    return now


def _sleep_ms(wait_ms):
    end = utime.ticks_add(_bridge.ticks_ms(), wait_ms)
    while utime.ticks_diff(end, _ticks_ms()) > 0:
        _bridge.sleep_ms(min(50, utime.ticks_diff(end, _bridge.ticks_ms())))


class UART:
    """The other end of a line; speeds and pins are only remembered."""

    opened: list = []

    def __init__(self, number, **settings):
        if number not in lines:
            raise OSError(19)
        self.number, self.settings, self.held = number, settings, b""
        where = lines[number]
        self._line = socket.socket()
        if where.startswith("/"):
            self._line._id = _bridge.line(where)
            if self._line._id < 0:
                raise OSError(-self._line._id)
        else:
            host, _, port = where.rpartition(":")
            self._line._id = socket._checked(socket._connect(host, int(port), 5000))  # no matter what Wi-Fi does
        self._line.setblocking(False)
        UART.opened.append(self)

    def fileno(self):
        return self._line.fileno()

    def write(self, data):
        if has_echo:
            self.held += bytes(data)
        return self._line.write(data)

    def flush(self):
        pass

    def any(self):
        return len(self.held) or (1 if socket.readable([self._line], 0) else 0)

    def read(self, count):
        """What is there; None when nothing is."""
        if self.held:
            data, self.held = self.held[:count], self.held[count:]
            return data
        return self._line.read(count) or None

    def deinit(self):
        self._line.close()


def start_chip(now_s=0):
    """now_s: Unix seconds that the chip's clock has kept; 0: it begins with 2000-01-01."""
    global _chip_s, _chip_ticks
    _chip_s, _chip_ticks = max(0, now_s - EPOCH_S), _bridge.ticks_ms()
    time.time = _time
    time.gmtime = time.localtime = _gmtime


def _time():
    return _chip_s + utime.ticks_diff(_bridge.ticks_ms(), _chip_ticks) // 1000


def _gmtime(now_s=None):
    return utime.gmtime((_time() if now_s is None else now_s) + EPOCH_S)


class RTC:
    def datetime(self, moment=None):
        global _chip_s, _chip_ticks
        if moment is None:
            now = _gmtime()
            return (now[0], now[1], now[2], now[6], now[3], now[4], now[5], 0)
        found = utime.mktime((moment[0], moment[1], moment[2], moment[4], moment[5], moment[6], 0, 0))
        _chip_s, _chip_ticks = found - EPOCH_S, _bridge.ticks_ms()
        return None
