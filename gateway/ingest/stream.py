"""Makes MQTT packets from a broker's connection, plain or TLS, much at once: the socket that paho gets.

Why not the plain socket: paho asks for two single bytes and the rest of every packet, sends every PUBACK by itself, and
spends 10 us on a PUBLISH; the system's TLS socket makes two system calls for each record, and a broker sends each
message as a record of its own. Together that was a fifth of all that a message costs a gateway.

What is taken here are whole PUBLISHes of QoS 1 and MQTT 3.1.1 in their usual size. Any other packet is lent to paho,
which has the last word on it, byte by byte as it comes; so is everything of MQTT 5.
"""

import socket
import ssl
from contextlib import suppress
from struct import Struct
from typing import NamedTuple

READ_BYTES = 65_536
RECORD_BYTES = 16_384  # the most that a TLS record holds (RFC 8446, section 5.1)
DUP_AND_RETAIN = 0x09
PUBLISH_1 = 0x32  # a PUBLISH of QoS 1, both of those flags aside (MQTT 3.1.1, section 3.3.1)
PUBACK = 0x4002  # with its remaining length, before the message's id

_head = Struct(">BBBH").unpack_from  # flags, a remaining length of two bytes, the topic's length
_puback = Struct(">HH").pack


class Publish(NamedTuple):
    """One message that came in, QoS 1."""

    topic: bytes
    payload: bytes
    message: int  # its id, for the PUBACK
    retained: bool


_new = tuple.__new__  # a named tuple without the call between


class Stream:
    """One connection; one thread uses it. What paho calls: recv, send, pending, close, fileno, setblocking."""

    def __init__(self, sock: socket.socket, is_311: bool, context: ssl.SSLContext | None = None, host: str = ""):
        """Of a connected socket with a timeout; with a context the TLS handshake is made here: OSError if it fails."""
        self._sock, self._is_311 = sock, is_311
        self._in, self._at = b"", 0
        self._lent = 0  # bytes of the packet that paho is reading
        self._is_short = True  # what is here is no whole packet yet
        self._is_over = False  # nothing more will come
        self._error: OSError | None = None  # why, where it was no orderly end
        self._out, self._raw = bytearray(), bytearray()  # to be sent: as it is, and encrypted
        self._tls: ssl.SSLObject | None = None
        if context is not None:
            self._tls_in, self._tls_out = ssl.MemoryBIO(), ssl.MemoryBIO()
            self._tls = context.wrap_bio(self._tls_in, self._tls_out, server_hostname=host)
            try:
                self._shake_hands(self._tls)
            except BaseException:
                sock.close()
                raise

    # What the link calls.

    def fill(self) -> bool:
        """Takes in what the system has for us; False when that is nothing now."""
        if self._is_over:
            return False
        try:
            data = self._sock.recv(READ_BYTES)
        except BlockingIOError:
            return False
        except OSError as error:
            self._is_over, self._error = True, error
            return True
        if not data:
            self._is_over = True
        elif self._tls is not None:
            data = self._decrypt(self._tls, data)
        if data:
            self._in = self._in[self._at:] + data
            self._at, self._is_short = 0, False
        return True

    def take(self, limit: int) -> list[Publish]:
        """Up to so many PUBLISHes; none when what comes next is paho's or not here yet."""
        found: list[Publish] = []
        data, at, size = self._in, self._at, len(self._in)
        while not self._lent and len(found) < limit:
            if size - at < 5:
                self._lend(data, at)
                break
            flags, low, high, name_size = _head(data, at)
            if flags & ~DUP_AND_RETAIN != PUBLISH_1 or not self._is_311 or low < 128 or not 0 < high < 128:
                self._lend(data, at)
                break
            end, id_at = at + 3 + (high << 7) + low - 128, at + 5 + name_size
            if end > size:
                self._is_short = True
                break
            message = data[id_at] << 8 | data[id_at + 1] if name_size and id_at + 2 <= end else 0
            if not message:
                self._lend(data, at)
                break
            found.append(_new(Publish, (data[at + 5:id_at], data[id_at + 2:end], message, bool(flags & 1))))
            at = end
        self._at = at
        return found

    def is_for_paho(self) -> bool:
        """A packet that is not taken here, or the connection's end, waits for paho to read it."""
        has_more = self._at < len(self._in)
        return (has_more and self._lent > 0) or (self._is_over and (self._is_short or not has_more))

    def acknowledge(self, message: int) -> None:
        """A PUBACK; `flush` sends it."""
        self._out += _puback(PUBACK, message)

    def flush(self) -> None:
        """Sends what the system takes now; raises OSError when the connection is gone."""
        waiting = self._out
        if self._tls is not None:
            while self._out:
                del self._out[:self._tls.write(self._out)]
            waiting = self._raw
            if self._tls_out.pending:
                waiting += self._tls_out.read()
        while waiting:
            try:
                del waiting[:self._sock.send(waiting)]
            except BlockingIOError:
                return

    def wants_write(self) -> bool:
        return bool(self._out or self._raw)

    # What paho calls.

    def recv(self, size: int) -> bytes:
        """Of the packet that is lent, as much as is here."""
        taken = self._in[self._at:self._at + min(size, self._lent)]
        if not taken:
            if not self.is_for_paho():
                raise BlockingIOError
            if self._error is not None:
                raise self._error
        self._at += len(taken)
        self._lent -= len(taken)
        return taken

    def send(self, data: bytes) -> int:
        """Takes everything; `flush` sends it."""
        self._out += data
        return len(data)

    def pending(self) -> int:
        """Bytes that are here to be gone on with, which no poll of the socket shows."""
        return 0 if self._is_short else len(self._in) - self._at

    def close(self) -> None:
        with suppress(OSError):  # of a connection that is closed because it is broken
            self.flush()  # the DISCONNECT of an orderly end
        self._sock.close()

    def fileno(self) -> int:
        return self._sock.fileno()

    def setblocking(self, flag: bool) -> None:
        self._sock.setblocking(flag)

    def _lend(self, data: bytes, at: int) -> None:
        """Leaves the packet at `at` to paho, once its length is here."""
        length = 0
        for index in range(4):
            if at + 1 + index >= len(data):
                self._is_short = True
                return
            byte = data[at + 1 + index]
            length |= (byte & 127) << 7 * index
            if byte < 128:
                self._lent = 2 + index + length
                return
        self._lent = 6  # no length at all: paho will say so

    def _shake_hands(self, tls: ssl.SSLObject) -> None:
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._sock.sendall(self._tls_out.read())
                data = self._sock.recv(READ_BYTES)
                if not data:
                    raise ConnectionError("closed during the TLS handshake") from None
                self._tls_in.write(data)
            except ssl.SSLError:
                with suppress(OSError):
                    self._sock.sendall(self._tls_out.read())  # the alert that says why
                raise
        self._sock.sendall(self._tls_out.read())

    def _decrypt(self, tls: ssl.SSLObject, data: bytes) -> bytes:
        """What the records hold that are whole with `data`."""
        self._tls_in.write(data)
        pieces = []
        try:
            while piece := tls.read(RECORD_BYTES):
                pieces.append(piece)
            self._is_over = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self._is_over = True
        except ssl.SSLError as error:
            self._is_over, self._error = True, error
        return b"".join(pieces)
