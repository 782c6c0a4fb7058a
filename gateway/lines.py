"""Makes one turn of the loop out of what the sockets of all peers bring at one time, past asyncio's transports.

An open connection's socket is read by one poll of its own, and that poll by the loop: all that is readable is read,
then whoever has waited for it is called, in the same turn. A vote costs one turn in place of three, and votes that come
together are one call of the replica. Accepting, dialling, the handshake, what a full socket leaves over and the end
stay with asyncio's transport. Where the system has no epoll, reading stays there as well.
"""

import asyncio
import select
import socket
from collections.abc import Callable


class Lines:
    """The open connections of one replica; all methods in the loop's thread."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._poll = select.epoll() if hasattr(select, "epoll") else None
        self._readers: dict[int, Callable[[], None]] = {}
        self._ends: list[Callable[[], None]] = []
        self._is_reading = False
        if self._poll:
            self._loop.add_reader(self._poll.fileno(), self._read)

    def take(self, transport: asyncio.Transport, read: Callable[[], None]) -> socket.socket | None:
        """The socket under a transport, from now on read by `read` when it is readable; None where that cannot be."""
        if self._poll is None:
            return None
        transport.pause_reading()
        line = socket.socket(fileno=socket.dup(transport.get_extra_info("socket").fileno()))
        line.setblocking(False)
        self._readers[line.fileno()] = read
        self._poll.register(line.fileno(), select.EPOLLIN)
        return line

    def release(self, line: socket.socket) -> None:
        """Reads it no more; its transport has a number of its own for it."""
        if self._poll and self._readers.pop(line.fileno(), None):
            self._poll.unregister(line.fileno())
            line.close()

    def at_end(self, call: Callable[[], None]) -> None:
        """Calls at the end of this turn's reading, or soon when nothing is being read."""
        if self._is_reading:
            self._ends.append(call)
        else:
            self._loop.call_soon(call)

    def close(self) -> None:
        """Ends the poll; its lines have been released."""
        if self._poll:
            self._loop.remove_reader(self._poll.fileno())
            self._poll.close()
            self._poll = None

    def _read(self) -> None:
        assert self._poll is not None
        self._is_reading = True
        try:
            for number, _ in self._poll.poll(0):
                read = self._readers.get(number)
                if read:
                    read()
        finally:
            self._is_reading = False
            ends, self._ends = self._ends, []
            for call in ends:
                call()
