"""Makes lines to meters for boards without threads: Modbus TCP by a socket, RTU by anything that reads and writes.

A port is what `bus.poll` asks for: `framing`, `clear`, `write`, `read`. It opens itself, and after a failure again in
pauses that double.
"""

import select
import socket
import time

try:
    from micropython import const
except ImportError:
    def const(value):
        return value

from firmware import modbus

CONNECT_S = 2
_BABBLE_MS = const(2000)  # a line that is not silent by then is asked all the same: the answer's checks decide
_REOPEN_MS = const(500)  # between two tries to open a line that is gone; doubling
_REOPEN_MAX_MS = const(30000)


class Port:
    """A line over a stream that `_connect` opens: without waiting, `read` gives what is there, None when nothing is.

    gap_ms: silence kept before each request; framing: modbus.RTU or modbus.TCP; baud: of a serial line, 0 of a
    network. RTU has no place in a frame that says whose it is, so `clear` drops what came unasked.
    """

    def __init__(self, gap_ms, framing, baud=0):
        self.framing = framing
        self.gap_ms = gap_ms
        self.baud = baud
        self._stream = None
        self._poller = select.poll()
        self._quiet_from_ms = self._reopen_at_ms = _ticks_ms()
        self._reopen_ms = _REOPEN_MS

    def clear(self):
        """Keeps the silence that is due before a request; what comes in it was not asked for, and puts it off.
        OSError while the line is closed."""
        self._open()
        silence_ms = max(self.gap_ms, modbus.silence_us(self.baud) // 1000 + 1) if self.baud else self.gap_ms
        start_ms = _ticks_ms()
        while True:
            _sleep_ms(silence_ms - _since_ms(self._quiet_from_ms))
            if not self._poller.poll(0):
                return
            while self._poller.poll(0):
                if not self._receive(256):
                    self._open()
            self._quiet_from_ms = _ticks_ms()
            if _since_ms(start_ms) > _BABBLE_MS:
                return

    def write(self, data):
        if self._stream is None:
            raise OSError("closed")
        try:
            if self._stream.write(data) != len(data):
                raise OSError("takes no more bytes")
        except OSError:
            self.close()
            raise

    def read(self, count, wait_ms):
        """Returns what came within the time, `count` bytes at most; OSError when the other side has closed."""
        start_ms = _ticks_ms()
        received = b""
        while len(received) < count and self._stream is not None:
            left_ms = wait_ms - _since_ms(start_ms)
            if left_ms <= 0 or not self._poller.poll(left_ms):
                break
            received += self._receive(count - len(received))
        self._quiet_from_ms = _ticks_ms()
        if self._stream is None:
            raise OSError("closed by the other side")
        return received

    def pause(self, wait_ms):
        _sleep_ms(wait_ms)

    def mark(self):
        """Returns a moment that `since_ms` counts from."""
        return _ticks_ms()

    def since_ms(self, mark):
        return _since_ms(mark)

    def close(self):
        if self._stream is not None:
            self._poller.unregister(self._stream)
            self._stream.close()
            self._stream = None

    def _connect(self):
        """Returns the open stream; OSError while it cannot be had."""
        raise OSError("no line")

    def _open(self):
        if self._stream is not None:
            return
        if _since_ms(self._reopen_at_ms) < 0:
            raise OSError("closed; tried again shortly")
        try:
            self._stream = self._connect()
        except OSError:
            self._reopen_at_ms = time.ticks_add(_ticks_ms(), self._reopen_ms)  # type: ignore[attr-defined]
            self._reopen_ms = min(2 * self._reopen_ms, _REOPEN_MAX_MS)
            raise
        self._reopen_ms = _REOPEN_MS
        self._poller.register(self._stream, select.POLLIN)

    def _receive(self, count):
        """Returns what is there; b"" after the end, with the line closed."""
        if self._stream is None:
            return b""
        try:
            data = self._stream.read(count)
        except OSError:
            data = b""
        if data is None:  # poll was wrong: nothing yet
            return b""
        if not data:
            self.close()
        return data


class TcpPort(Port):
    """A connection to `HOST:PORT` that is kept; RTU frames over it where the framing says so."""

    def __init__(self, address, gap_ms, framing=modbus.TCP, baud=0):
        super().__init__(gap_ms, framing, baud)
        host, _, number = address.rpartition(":")
        self._address = (host, int(number))

    def _connect(self):
        link = socket.socket()
        try:
            link.settimeout(CONNECT_S)
            link.connect(socket.getaddrinfo(self._address[0], self._address[1])[0][-1])
            link.setblocking(False)
        except OSError:
            link.close()
            raise
        return link


def open_port(line, speed):
    """Returns the port of a config.Bus that is a network: tcp://HOST:PORT, or rtu+tcp://HOST:PORT."""
    scheme, _, address = line.port.partition("://")
    is_tcp = scheme == "tcp"
    return TcpPort(address, line.gap_ms // speed, modbus.TCP if is_tcp else modbus.RTU, 0 if is_tcp else line.baud)


def _ticks_ms():
    return time.ticks_ms()  # type: ignore[attr-defined]  # a board's


def _since_ms(ticks_ms):
    return time.ticks_diff(time.ticks_ms(), ticks_ms)  # type: ignore[attr-defined]  # a board's


def _sleep_ms(wait_ms):
    if wait_ms > 0:
        time.sleep_ms(wait_ms)  # type: ignore[attr-defined]  # a board's
