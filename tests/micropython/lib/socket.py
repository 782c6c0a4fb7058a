"""Makes MicroPython's module `socket` out of the bridge: TCP as far as boards of ours use it."""

from _bridge import close as _close
from _bridge import connect as _connect
from _bridge import line as _line
from _bridge import poll as _poll
from _bridge import receive as _receive
from _bridge import send as _send
from micropython import const
from uctypes import addressof

AF_INET, SOCK_STREAM, IPPROTO_TCP, TCP_NODELAY = 2, 1, 6, 1
EAGAIN, EBADF = 11, 9
_CONNECT_MS = const(60000)
EHOSTUNREACH = 118  # lwIP's
gate = None  # a function that tells whether there is a network (lib/network.py)


class socket:
    """A stream; blocking, with a time limit, or neither. `read`, `readinto` and `write` as MicroPython's streams."""

    def __init__(self, family=AF_INET, kind=SOCK_STREAM, protocol=IPPROTO_TCP):
        self._id = 0
        self._wait_ms = -1

    def setsockopt(self, level, option, value):
        pass  # the bridge sets TCP_NODELAY

    def settimeout(self, wait_s):
        self._wait_ms = -1 if wait_s is None else int(wait_s * 1000)

    def setblocking(self, is_blocking):
        self._wait_ms = -1 if is_blocking else 0

    def connect(self, address):
        if gate is not None and not gate():
            raise OSError(EHOSTUNREACH)
        self._id = _checked(_connect(address[0], address[1], self._wait_ms if self._wait_ms > 0 else _CONNECT_MS))

    def fileno(self):
        return self._id

    def recv(self, count):
        """What is there, at most `count`; waits for the first byte; b"" at the end."""
        data = bytearray(count)
        got = _checked(_receive(self._id, addressof(data), count, self._wait_ms))
        return bytes(memoryview(data)[:got])

    def readinto(self, data, count=None):
        """Fills the buffer: None when nothing is there yet and it must not wait, 0 at the end."""
        count = len(data) if count is None else count
        at = 0
        address = addressof(data)
        while at < count:
            got = _receive(self._id, address + at, count - at, self._wait_ms)
            if got == -EAGAIN:
                return at or None
            if not _checked(got):
                break
            at += got
        return at

    def read(self, count):
        data = bytearray(count)
        got = self.readinto(data)
        return None if got is None else bytes(memoryview(data)[:got])

    def write(self, data):
        """Returns how many bytes went out: all of them."""
        at, address, count = 0, addressof(data), len(data)
        while at < count:
            at += _checked(_send(self._id, address + at, count - at))
        return at

    send = write

    def sendall(self, data):
        self.write(data)

    def close(self):
        if self._id:
            _close(self._id)
            self._id = 0


def terminal(path):
    """A stream for a terminal of the host, which stands for a serial line; as a socket that never waits."""
    made = socket()
    made._id = _checked(_line(path))
    made._wait_ms = 0
    return made


def getaddrinfo(host, port, family=0, kind=0):
    return [(AF_INET, SOCK_STREAM, IPPROTO_TCP, "", (host, port))]


def readable(sockets, wait_ms):
    """The sockets of a list that have something to read, at the latest after `wait_ms` (below 0: no limit)."""
    found = bytearray(len(sockets) or 1)
    count = _poll(",".join([str(one.fileno()) for one in sockets]), wait_ms, addressof(found))
    ids = bytes(found[:count])  # a bytearray does not know "in"
    return [one for one in sockets if one.fileno() in ids]


def _checked(number):
    if number < 0:
        raise OSError(-number)
    return number
