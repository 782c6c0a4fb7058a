"""A TCP port or pseudo-terminal with meters or devices on it, made from whoever answers there, in real line time.

Modbus TCP, RTU on a pseudo-terminal, or RTU frames through a TCP connection, as a box makes it that only joins bytes.

On a serial line an answer takes the time it would take on copper: the request's own characters, 3.5 characters of
silence, the answer's characters, at the chosen baud rate, all divided by the clock's speed. Characters leave in groups
of about 2 ms (a timer cannot do better) and pauses below a millisecond are not waited for. asyncio's own timer is used
for these waits; labels come from the clock only.
"""

import asyncio
import contextlib
import os
import pty
import socket
import struct
import termios
import tty
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from sim_hardware.errors import SimError
from sim_hardware.frames import Answer, Request, rtu_request, tcp_body_length, tcp_request
from sim_hardware.units import Clock

MAX_CONNECTIONS = 32        # a Modbus gateway box has 4 or so; a test may open more, a leak must show
MAX_WAITING = 64            # answers under way on one line; more means a master that floods
GARBAGE_S = 0.02            # bytes that became no frame are dropped after this silence (or 3.5 characters if longer)
GROUP_S = 0.002
SHORTEST_WAIT_S = 0.001
OUTPUT_SPEED = 5            # in what termios.tcgetattr returns

Advance = Callable[[], None]                # brings every image to the present; called before a request is looked at
Write = Callable[[bytes], None]


class Answering(Protocol):
    """Who is on a bus."""

    def answer(self, request: Request) -> Coroutine[None, None, tuple]:
        """The fields of an `Answer`, all or the first ones."""


Who = TypeVar("Who", bound=Answering)


class TcpServer(Generic[Who]):
    """What both kinds of TCP bus share: connections, each with a task that serves it."""

    name = "tcp"

    def __init__(self, units: Who, advance: Advance, host: str, port: int) -> None:
        self.units, self._advance, self._host, self._port = units, advance, host, port
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._connections = 0

    async def start(self) -> dict[str, object]:
        """Listen; {"tcp": "host:port"} with the port in use."""
        try:
            self._server = await asyncio.start_server(self._accept, self._host, self._port)
        except OSError as error:
            raise SimError("listen", f"{self._host}:{self._port}: {error.strerror or error}") from error
        return {self.name: f"{self._host}:{self._server.sockets[0].getsockname()[1]}"}

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or self._connections >= MAX_CONNECTIONS:
            writer.close()
            return
        self._tasks.add(task)
        self._connections += 1
        try:
            await self._serve(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass                                            # the master hung up: its right; or the server ends
        finally:
            self._connections -= 1
            self._tasks.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, to its end."""

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        if len(self._tasks) >= MAX_WAITING:
            work.close()
            return
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class TcpBus(TcpServer[Who]):
    """Modbus TCP. Answers leave at once; each connection is served in order, a late answer holds up nobody."""

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            header = await reader.readexactly(7)
            length = tcp_body_length(header)
            if length is None:
                return                                      # not Modbus: nothing after it can be trusted
            request = tcp_request(header, await reader.readexactly(length))
            self._advance()
            answer = Answer(*await self.units.answer(request))
            if answer.is_reset:
                _reset(writer)
                return
            if answer.late_ms or answer.drip_ms:
                self._spawn(_send_slowly(writer, answer))
            elif answer.data:
                writer.write(answer.data)
                await writer.drain()


class RtuTcpBus(TcpServer[Who]):
    """RTU frames through TCP: a box that joins the bytes of a serial line to a connection, in the line's time."""

    name = "rtu_tcp"

    def __init__(self, units: Who, advance: Advance, host: str, port: int, baud: int, parity: str,
                 clock: Clock) -> None:
        super().__init__(units, advance, host, port)
        self._facts = {"baud": baud, "parity": parity, "timing_divided_by": max(1, clock.speed)}
        self._line = Line(units, advance, baud, parity, clock)

    async def start(self) -> dict[str, object]:
        return {**await super().start(), **self._facts}

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ear = Ear(self._line, lambda data: _write(writer, data), lambda: _reset(writer))
        while data := await reader.read(4096):
            ear.hear(data)

    async def stop(self) -> None:
        await self._line.stop()
        await super().stop()


class Line(Generic[Who]):
    """A serial line's time: requests that are whole are answered one after the other, each as long as copper takes."""

    def __init__(self, units: Who, advance: Advance, baud: int, parity: str, clock: Clock) -> None:
        self.units, self._advance, self.speed = units, advance, max(1, clock.speed)
        self.character_s = (10 if parity == "N" else 11) / baud / self.speed
        self._free_at = 0.0                                 # when the wire is free again, the loop's time
        self._tasks: set[asyncio.Task[None]] = set()

    def ask(self, request: Request, write: Write, reset: Callable[[], None]) -> None:
        """A whole request has arrived; what goes out for it goes to `write`, in time."""
        if len(self._tasks) >= MAX_WAITING:
            return
        self._advance()
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._exchange(loop.time(), request, self.units.answer(request), write, reset))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _exchange(self, arrived: float, request: Request, answering: Coroutine[None, None, tuple], write: Write,
                        reset: Callable[[], None]) -> None:
        answer = Answer(*await answering)
        if answer.is_reset:
            reset()
        if not answer.data:
            return
        ready = arrived + (len(request.frame) + 3.5) * self.character_s + answer.late_ms / 1000
        await _until(ready)
        character_s = max(self.character_s, answer.drip_ms / 1000)
        begin = max(ready, self._free_at)                   # another answer is on the wire: after it
        if not answer.drip_ms:                              # one that drips leaves room for others to talk into it
            self._free_at = begin + len(answer.data) * character_s
        group = max(1, int(GROUP_S / character_s))
        for first in range(0, len(answer.data), group):
            part = answer.data[first:first + group]
            await _until(begin + (first + len(part)) * character_s)
            with contextlib.suppress(OSError):              # nobody reads and the buffer is full: a wire forgets
                write(part)

    async def stop(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Ear:
    """Cuts requests out of the bytes of one talker; what became no request is forgotten after a silence."""

    def __init__(self, line: Line, write: Write, reset: Callable[[], None]) -> None:
        self._line, self._write, self._reset = line, write, reset
        self._buffer = b""
        self._drop: asyncio.TimerHandle | None = None

    def hear(self, data: bytes) -> None:
        self.close()
        self._buffer += data
        request = rtu_request(self._buffer)
        if request is None:
            self._drop = asyncio.get_running_loop().call_later(max(GARBAGE_S, 3.5 * self._line.character_s),
                                                               self._forget)
            return
        self._buffer = b""
        self._line.ask(request, self._write, self._reset)

    def close(self) -> None:
        if self._drop is not None:
            self._drop.cancel()
            self._drop = None

    def _forget(self) -> None:
        self._buffer, self._drop = b"", None


class PtyBus(Generic[Who]):
    """Modbus RTU on a pseudo-terminal; `link` is made a symbolic link to it ("" = none, use the device's name).

    `strict`: what a master sends that has set another baud rate is noise. (A pty has no parity to look at.)
    """

    def __init__(self, units: Who, advance: Advance, link: str, baud: int, parity: str, clock: Clock,
                 strict: bool = False) -> None:
        self.units, self._link = units, Path(link) if link else None
        self._baud, self._parity = baud, parity
        self._strict_speed = getattr(termios, f"B{baud}") if strict else None
        self._ours = self._theirs = -1
        self._line = Line(units, advance, baud, parity, clock)
        self._ear = Ear(self._line, lambda data: self._write(data), lambda: None)

    async def start(self) -> dict[str, object]:
        """Open the pty; {"pty": name to open, "device": ..., "baud", "parity", "timing_divided_by"}."""
        self._ours, self._theirs = pty.openpty()            # theirs stays open here, or a master's leaving would end it
        tty.setraw(self._theirs)
        os.set_blocking(self._ours, False)
        device = os.ttyname(self._theirs)
        try:
            if self._link is not None:
                if self._link.is_symlink():
                    self._link.unlink()                     # left by a killed simulator
                self._link.symlink_to(device)
        except OSError as error:
            await self.stop()
            raise SimError("listen", f"{self._link}: {error.strerror}, cannot make a link to {device}") from error
        asyncio.get_running_loop().add_reader(self._ours, self._readable)
        return {"pty": str(self._link or device), "device": device, "baud": self._baud, "parity": self._parity,
                "timing_divided_by": self._line.speed}

    def _readable(self) -> None:
        try:
            data = os.read(self._ours, 4096)
        except OSError:
            return
        if self._strict_speed is None or termios.tcgetattr(self._theirs)[OUTPUT_SPEED] == self._strict_speed:
            self._ear.hear(data)

    def _write(self, data: bytes) -> None:
        os.write(self._ours, data)

    async def stop(self) -> None:
        if self._ours < 0:
            return
        asyncio.get_running_loop().remove_reader(self._ours)
        self._ear.close()
        await self._line.stop()
        if self._link is not None and self._link.is_symlink() and os.readlink(self._link) == os.ttyname(self._theirs):
            self._link.unlink()
        os.close(self._ours)
        os.close(self._theirs)
        self._ours = self._theirs = -1


def _write(writer: asyncio.StreamWriter, data: bytes) -> None:
    if not writer.is_closing():
        writer.write(data)


def _reset(writer: asyncio.StreamWriter) -> None:
    """Ends a connection by RST: what was on its way is lost, and the other side's next call fails."""
    link = writer.get_extra_info("socket")
    if link is not None:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _send_slowly(writer: asyncio.StreamWriter, answer: Answer) -> None:
    await asyncio.sleep(answer.late_ms / 1000)
    size = 1 if answer.drip_ms else len(answer.data)
    for first in range(0, len(answer.data), size):
        _write(writer, answer.data[first:first + size])
        await asyncio.sleep(answer.drip_ms / 1000)


async def _until(moment: float) -> None:
    left = moment - asyncio.get_running_loop().time()
    if left >= SHORTEST_WAIT_S:
        await asyncio.sleep(left)
