"""Makes a tap of a line: every byte that a master sends is kept and must belong to a request that only reads.

It stands between a master and the real line (a pseudo-terminal or a TCP port), passes everything on both ways, and
knows the shapes of the four allowed requests by itself: nothing of the agent's own codec is used.
"""

from __future__ import annotations

import contextlib
import os
import pty
import select
import socket
import struct
import threading
import tty

from sim_hardware.frames import crc16

READ_HOLDING, READ_INPUT, READ_FILE, IDENTIFY = 3, 4, 20, 43
PDU_BYTES = {READ_HOLDING: 5, READ_INPUT: 5, READ_FILE: 9, IDENTIFY: 4}  # of the requests, all of fixed length here
LINGER = struct.pack("ii", 1, 0)


def functions_of(stream: bytes, *, rtu: bool) -> list[int]:
    """The function codes of a master's bytes; AssertionError for a byte that is part of no reading request."""
    found = []
    at = 0
    while at < len(stream):
        if rtu:
            size = 3 + PDU_BYTES.get(stream[at + 1] if at + 1 < len(stream) else 0, 0)
            frame = stream[at:at + size]
            assert size > 3 and len(frame) == size and crc16(frame[:-2]) == frame[-2:], f"{stream[at:at + 20].hex()}"
            pdu = frame[1:-2]
        else:
            size = 6 + int.from_bytes(stream[at + 4:at + 6], "big")
            frame = stream[at:at + size]
            assert frame[2:4] == b"\0\0" and 8 <= len(frame) == size, f"no frame: {stream[at:at + 20].hex()}"
            pdu = frame[7:]
        assert PDU_BYTES.get(pdu[0]) == len(pdu), f"not a reading request: {frame.hex()}"
        assert pdu[0] != READ_FILE or pdu[1:3] == b"\x07\x06", frame.hex()
        assert pdu[0] != IDENTIFY or pdu[1] == 14, frame.hex()
        found.append(pdu[0])
        at += size
    return found


class Sniffer:
    """A tap of one line. `port`: what the master opens in its place."""

    def __init__(self, target: str) -> None:
        """target: tcp://host:port, rtu+tcp://host:port, or a serial device."""
        self._scheme, _, address = target.rpartition("://")
        self._streams: list[bytearray] = []
        self._pairs: dict[int, tuple[int, bytearray | None]] = {}  # from file: (to file, where to keep it)
        self._ends: dict[int, object] = {}  # sockets, kept alive
        self._listener: socket.socket | None = None
        self._is_over = False
        if self._scheme:
            host, _, number = address.rpartition(":")
            self._target = host, int(number)
            self._listener = socket.create_server(("127.0.0.1", 0))
            self.port = f"{self._scheme}://127.0.0.1:{self._listener.getsockname()[1]}"
        else:
            line = os.open(target, os.O_RDWR | os.O_NOCTTY)
            tty.setraw(line)
            ours, self._theirs = pty.openpty()
            tty.setraw(self._theirs)
            self.port = os.ttyname(self._theirs)
            self._join(ours, line)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def functions(self) -> list[int]:
        """Of everything that was sent, in order by connection; AssertionError for what does more than read."""
        return [code for stream in list(self._streams)
                for code in functions_of(bytes(stream), rtu=self._scheme != "tcp")]

    def close(self) -> None:
        self._is_over = True
        self._thread.join(5)
        for file in list(self._pairs):
            self._end(file)
        if self._listener is not None:
            self._listener.close()
        else:
            os.close(self._theirs)

    def _join(self, master: int, line: int) -> None:
        stream = bytearray()
        self._streams.append(stream)
        self._pairs[master] = line, stream
        self._pairs[line] = master, None

    def _run(self) -> None:
        while not self._is_over:
            door = [] if self._listener is None else [self._listener.fileno()]
            for file in select.select([*self._pairs, *door], [], [], 0.05)[0]:
                if file in door:
                    self._accept()
                elif file in self._pairs:
                    self._pass_on(file)

    def _accept(self) -> None:
        assert self._listener is not None
        master = self._listener.accept()[0]
        try:
            line = socket.create_connection(self._target, timeout=5)
        except OSError:
            master.close()
            return
        for link in (master, line):
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._ends[link.fileno()] = link
        self._join(master.fileno(), line.fileno())

    def _pass_on(self, file: int) -> None:
        other, stream = self._pairs[file]
        try:
            data = os.read(file, 4096)
        except OSError:
            data = b""
        if not data:
            if self._listener is not None:
                self._end(file)
            return
        if stream is not None:
            stream += data
        with contextlib.suppress(OSError):
            os.write(other, data)

    def _end(self, file: int) -> None:
        """A connection that ends on one side ends on the other, at once."""
        pair = self._pairs.pop(file, None)
        if pair is None:
            return
        self._end(pair[0])
        link = self._ends.pop(file, None)
        if isinstance(link, socket.socket):
            link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER)
            link.close()
        else:
            os.close(file)
