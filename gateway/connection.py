"""Makes frames `(kind, body)` from one peer's TCP bytes, and bytes from frames: TLS 1.3, both sides with certificates.

Theory. A connection is in its handshake, open, or closed. In the handshake nobody is known yet: the bytes of all
strangers go through one shared 4 KiB window, a stranger may spend HANDSHAKE_BYTES and HANDSHAKE_S in all, and is
closed the moment its key is not one that the validator set names (security.md T36: no allocation of ours above 4 KiB
before that). Only an open connection may fill a buffer, and never beyond one frame. asyncio's own TLS would allocate
256 KiB when a stranger says hello; so the record layer is an `ssl.SSLObject` over two memory buffers here, and a burst
of small frames becomes one TLS write and one socket write per turn of the loop. An open connection is read and written
past asyncio's transport (`lines.py`).

A frame is a 32-bit big-endian length and the CBOR of `[kind, body]`.
"""

import asyncio
import socket
import ssl
import struct
from collections.abc import Mapping
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Protocol

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from firmware.wire import cbor
from firmware.wire.errors import Refused
from gateway.lines import Lines

STRANGER_BYTES = 4096  # T36
# A client's hello with post-quantum key shares (1.7 KiB), its certificate (0.6 KiB) and proof: 3 KiB. Four times that.
HANDSHAKE_BYTES = 12 * 1024
HANDSHAKE_S = 5.0  # two round trips and two signatures on a busy Pi
READ_BYTES = 64 * 1024  # four TLS records
RECORD_BYTES = 16 * 1024  # the most that TLS gives out at once
WRITE_BYTES = 1 << 20  # in the socket's queue; what is above waits in the peer's bounded queue, where it may be dropped
FRAME_HEAD = struct.Struct(">I")
SMALLEST_FRAME = 3
SILENCE_MS = 15_000  # unacknowledged data for so long: the line is dead (a cable pulled, a power cut)

_PAIR, _BYTES = b"\x82", 2  # CBOR: an array of two; major type 2

# One window for all connections of a loop: what is read is handed to the TLS object before anybody else reads.
_WINDOW = memoryview(bytearray(READ_BYTES))


class Owner(Protocol):
    """Who is told what happens on a connection."""

    def opened(self, connection: "Connection") -> bool:
        """The peer is known (`connection.index`); False closes it."""

    def framed(self, connection: "Connection", kind: int, body: object) -> None:
        """A frame came."""

    def writable(self, connection: "Connection") -> None:
        """The socket's queue has room again."""

    def closed(self, connection: "Connection", reason: str) -> None:
        """Once, when it is over; reason "" = without fault."""


def encode_frame(kind: int, body: object) -> bytes:
    """The bytes of a frame; body is anything `wire.cbor` takes."""
    if type(body) is bytes and 0 <= kind < 24:
        return _frame_head(kind, len(body)) + body
    data = cbor.encode([kind, body])
    return FRAME_HEAD.pack(len(data)) + data


@lru_cache(512)  # votes have few sizes
def _frame_head(kind: int, size: int) -> bytes:
    head = _PAIR + bytes((kind,)) + cbor.head(_BYTES, size)
    return FRAME_HEAD.pack(len(head) + size) + head


def tls_contexts(certificate: Path, key: Path, ca: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """(for who listens, for who dials) from PEM files; names are not checked, the key is (`Connection`)."""
    contexts = []
    for protocol in (ssl.PROTOCOL_TLS_SERVER, ssl.PROTOCOL_TLS_CLIENT):
        context = ssl.SSLContext(protocol)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(ca)
        context.load_cert_chain(certificate, key)
        if protocol is ssl.PROTOCOL_TLS_SERVER:
            context.num_tickets = 0  # a resumed session would carry no certificate's proof
        contexts.append(context)
    return contexts[0], contexts[1]


def key_hash(certificate_der: bytes) -> bytes:
    """SHA-256 of a certificate's SubjectPublicKeyInfo, as the validator set names it."""
    public_key = x509.load_der_x509_certificate(certificate_der).public_key()
    return sha256(public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()


class Connection(asyncio.BufferedProtocol):
    """One TCP connection; `members` maps the hash of a TLS key to the replica's index."""

    def __init__(self, owner: Owner, lines: Lines, context: ssl.SSLContext, server_side: bool,
                 members: Mapping[bytes, int], frame_bytes: int):
        self.index: int | None = None
        self.server_side = server_side
        self.is_open = False
        self.reason = ""
        self.address = ""
        self._owner, self._lines, self._members, self._frame_bytes = owner, lines, members, frame_bytes
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=server_side)
        self._transport: asyncio.Transport | None = None
        self._line: socket.socket | None = None  # while open
        self._handshake_bytes = 0
        self._deadline: asyncio.TimerHandle | None = None
        self._inbox = bytearray()
        self._is_full = False
        self.over = asyncio.Event()

    # what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.address = "{}:{}".format(*(transport.get_extra_info("peername") or ("?", 0))[:2])
        transport.set_write_buffer_limits(WRITE_BYTES)
        line = transport.get_extra_info("socket")
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            line.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENCE_MS)
        self._deadline = asyncio.get_running_loop().call_later(HANDSHAKE_S, self.abort, "handshake took too long")
        self._shake_hands()

    def get_buffer(self, sizehint: int) -> memoryview:
        return _WINDOW if self.is_open else _WINDOW[:STRANGER_BYTES]

    def buffer_updated(self, nbytes: int) -> None:
        if self._transport is None:
            return
        self._incoming.write(_WINDOW[:nbytes])
        if not self.is_open:
            self._handshake_bytes += nbytes
            if self._handshake_bytes > HANDSHAKE_BYTES:
                self.abort("handshake too long")
                return
            self._shake_hands()
        if self.is_open:
            self._read()

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self._is_full = True

    def resume_writing(self) -> None:
        self._is_full = False
        if self.is_open:
            self._owner.writable(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._release()
        self.is_open, self._transport = False, None
        if self._deadline:
            self._deadline.cancel()
        if not self.reason and self.index is None:
            self.reason = "closed in the handshake"
        self.over.set()
        self._owner.closed(self, self.reason)
        self._inbox.clear()

    # what the owner calls

    @property
    def is_writable(self) -> bool:
        """True when a write would not pile up."""
        return self.is_open and not self._is_full

    def write(self, data: bytes) -> None:
        """Sends frames (joined by the caller) in one socket write."""
        if not self.is_open or self._transport is None:
            return
        view = memoryview(data)
        try:
            while view:
                view = view[self._tls.write(view):]
        except ssl.SSLError as error:
            self.abort(f"TLS: {error.reason}")
            return
        self._flush()

    def close(self, reason: str = "") -> None:
        """Says goodbye and closes."""
        self.reason = self.reason or reason
        if self._transport is None:
            return
        if self.is_open:
            try:
                self._tls.unwrap()
            except ssl.SSLError:
                pass  # the other side's goodbye is not waited for
            self._flush()
        self._release()
        self._transport.close()

    def abort(self, reason: str) -> None:
        """Closes at once, throwing away what is queued."""
        self.reason = self.reason or reason
        self.is_open = False
        if self._transport is not None:
            self._flush()  # the TLS alert tells an honest peer what is wrong with it
            self._release()
            self._transport.abort()

    # within

    def _shake_hands(self) -> None:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return
        except ssl.SSLError as error:
            self.abort(f"TLS: {error.reason}")
            return
        self._flush()
        certificate = self._tls.getpeercert(True)
        self.index = self._members.get(key_hash(certificate)) if certificate else None
        if self.index is None:
            self.abort("key not in the validator set")
            return
        if self._deadline:
            self._deadline.cancel()
        self.is_open = True
        assert self._transport is not None
        self._line = self._lines.take(self._transport, self._read_line)
        if not self._owner.opened(self):
            self.abort("not wanted")

    def _release(self) -> None:
        if self._line is not None:
            self._lines.release(self._line)
            self._line = None

    def _flush(self) -> None:
        transport = self._transport
        if not self._outgoing.pending or transport is None or transport.is_closing():
            return
        data = self._outgoing.read()
        if self._line is not None and not transport.get_write_buffer_size():
            try:
                sent = self._line.send(data)
            except OSError:  # full, or broken: the transport finds out
                sent = 0
            if sent == len(data):
                return
            data = data[sent:]
        transport.write(data)

    def _read_line(self) -> None:
        """What the socket has, as `buffer_updated`."""
        assert self._line is not None
        try:
            count = self._line.recv_into(_WINDOW)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            count = 0
        if not count:
            self._release()
            if self._transport is not None:
                self._transport.close()
            return
        self._incoming.write(_WINDOW[:count])
        self._read()

    def _read(self) -> None:
        try:
            while self.is_open and (self._incoming.pending or self._tls.pending()):
                data = self._tls.read(RECORD_BYTES)
                if not data:
                    self.close()
                    return
                if self._inbox:
                    self._inbox += data
                    del self._inbox[:self._take_frames(self._inbox)]
                else:
                    self._inbox += data[self._take_frames(data):]
        except ssl.SSLWantReadError:
            pass  # half a record
        except ssl.SSLZeroReturnError:
            self.close()
        except ssl.SSLError as error:
            self.abort(f"TLS: {error.reason}")

    def _take_frames(self, data: bytes | bytearray) -> int:
        """Hands out the whole frames; the place behind them."""
        start, end = 0, len(data)
        while self.is_open and end - start >= FRAME_HEAD.size:
            size = FRAME_HEAD.unpack_from(data, start)[0]
            if not SMALLEST_FRAME <= size <= self._frame_bytes:
                self.abort("frame size")
                break
            if end - start < FRAME_HEAD.size + size:
                break
            start += FRAME_HEAD.size
            frame = bytes(memoryview(data)[start:start + size])
            start += size
            try:
                kind, body = decode_frame(frame)
            except Refused as refused:
                self.abort(f"frame: {refused.reason}")
                break
            self._owner.framed(self, kind, body)
        return start


def decode_frame(frame: bytes) -> tuple[int, object]:
    """(kind, body) of a frame without its length; Refused."""
    if frame[:1] == _PAIR and len(frame) > 2 and frame[1] < 24 and frame[2] >> 5 == _BYTES:
        # nearly every frame: a small kind and one byte string to the end
        if frame[2] == 0x58 and len(frame) > 27 and frame[3] == len(frame) - 4:  # a vote
            return frame[1], frame[4:]
        body, end = cbor.decode_from(frame, 2)
        if end == len(frame):
            return frame[1], body
    value = cbor.decode(frame)
    if not isinstance(value, list) or len(value) != 2 or type(value[0]) is not int:
        raise Refused("malformed", "[kind, body]", type(value).__name__)
    return value[0], value[1]


