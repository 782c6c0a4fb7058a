"""A TCP port or pseudo-terminal with meters or devices on it, made from whoever answers there, in real line time.

On a serial line an answer takes the time it would take on copper: the request's own characters, 3.5 characters of
silence, the answer's characters, at the chosen baud rate, all divided by the clock's speed. Characters leave in groups
of about 2 ms (a timer cannot do better) and pauses below a millisecond are not waited for. asyncio's own timer is used
for these waits; labels come from the clock only.
"""

import asyncio
import contextlib
import os
import pty
import termios
import tty
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from sim_hardware.errors import SimError
from sim_hardware.frames import Request, rtu_request, tcp_body_length, tcp_request
from sim_hardware.units import Clock

MAX_CONNECTIONS = 32        # a Modbus gateway box has 4 or so; a test may open more, a leak must show
MAX_WAITING = 64            # answers under way on one line; more means a master that floods
GARBAGE_S = 0.02            # bytes that became no frame are dropped after this silence (or 3.5 characters if longer)
GROUP_S = 0.002
SHORTEST_WAIT_S = 0.001
OUTPUT_SPEED = 5            # in what termios.tcgetattr returns

Advance = Callable[[], None]                # brings every image to the present; called before a request is looked at


class Answering(Protocol):
    """Who is on a bus."""

    def answer(self, request: Request) -> Coroutine[None, None, tuple[bytes, int]]:
        """As `Units.answer`."""


Who = TypeVar("Who", bound=Answering)


class TcpBus(Generic[Who]):
    """Modbus TCP. Answers leave at once; each connection is served in order, a late answer holds up nobody."""

    def __init__(self, units: Who, advance: Advance, host: str, port: int) -> None:
        self.units, self._advance, self._host, self._port = units, advance, host, port
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self) -> dict[str, object]:
        """Listen; {"tcp": "host:port"} with the port in use."""
        try:
            self._server = await asyncio.start_server(self._serve, self._host, self._port)
        except OSError as error:
            raise SimError("listen", f"{self._host}:{self._port}: {error.strerror or error}") from error
        return {"tcp": f"{self._host}:{self._server.sockets[0].getsockname()[1]}"}

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or len(self._connections) >= MAX_CONNECTIONS:
            writer.close()
            return
        self._connections.add(task)
        try:
            while True:
                header = await reader.readexactly(7)
                length = tcp_body_length(header)
                if length is None:
                    break                                   # not Modbus: nothing after it can be trusted
                request = tcp_request(header, await reader.readexactly(length))
                self._advance()
                answer, late_ms = await self.units.answer(request)
                if late_ms and answer:
                    asyncio.get_running_loop().call_later(late_ms / 1000, _write, writer, answer)
                elif answer:
                    writer.write(answer)
                    await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass                                            # the master hung up: its right
        finally:
            self._connections.discard(task)
            writer.close()

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)


def _write(writer: asyncio.StreamWriter, data: bytes) -> None:
    if not writer.is_closing():
        writer.write(data)


class PtyBus(Generic[Who]):
    """Modbus RTU on a pseudo-terminal; `link` is made a symbolic link to it ("" = none, use the device's name).

    `strict`: what a master sends that has set another baud rate is noise. (A pty has no parity to look at.)
    """

    def __init__(self, units: Who, advance: Advance, link: str, baud: int, parity: str, clock: Clock,
                 strict: bool = False) -> None:
        self.units, self._advance, self._link = units, advance, Path(link) if link else None
        self._baud, self._parity, self._speed = baud, parity, max(1, clock.speed)
        self._character_s = (10 if parity == "N" else 11) / baud / self._speed
        self._strict_speed = getattr(termios, f"B{baud}") if strict else None
        self._ours = self._theirs = -1
        self._buffer = b""
        self._drop: asyncio.TimerHandle | None = None
        self._free_at = 0.0                                 # when the wire is free again, the loop's time
        self._tasks: set[asyncio.Task[None]] = set()

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
                "timing_divided_by": self._speed}

    def _readable(self) -> None:
        try:
            data = os.read(self._ours, 4096)
        except OSError:
            return
        if self._strict_speed is not None and termios.tcgetattr(self._theirs)[OUTPUT_SPEED] != self._strict_speed:
            return
        if self._drop is not None:
            self._drop.cancel()
            self._drop = None
        self._buffer += data
        request = rtu_request(self._buffer)
        loop = asyncio.get_running_loop()
        if request is None:
            self._drop = loop.call_later(max(GARBAGE_S, 3.5 * self._character_s), self._forget)
            return
        self._buffer = b""
        if len(self._tasks) >= MAX_WAITING:
            return
        self._advance()
        task = loop.create_task(self._exchange(loop.time(), request, self.units.answer(request)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _forget(self) -> None:
        self._buffer, self._drop = b"", None

    async def _exchange(self, arrived: float, request: Request,
                        answering: Coroutine[None, None, tuple[bytes, int]]) -> None:
        answer, late_ms = await answering
        if not answer:
            return
        ready = arrived + (len(request.frame) + 3.5) * self._character_s + late_ms / 1000
        await _until(ready)
        begin = max(ready, self._free_at)                   # another answer is on the wire: after it
        self._free_at = begin + len(answer) * self._character_s
        group = max(1, int(GROUP_S / self._character_s))
        for first in range(0, len(answer), group):
            part = answer[first:first + group]
            await _until(begin + (first + len(part)) * self._character_s)
            with contextlib.suppress(OSError):              # nobody reads and the buffer is full: a wire forgets
                os.write(self._ours, part)

    async def stop(self) -> None:
        if self._ours < 0:
            return
        asyncio.get_running_loop().remove_reader(self._ours)
        if self._drop is not None:
            self._drop.cancel()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._link is not None and self._link.is_symlink() and os.readlink(self._link) == os.ttyname(self._theirs):
            self._link.unlink()
        os.close(self._ours)
        os.close(self._theirs)
        self._ours = self._theirs = -1


async def _until(moment: float) -> None:
    left = moment - asyncio.get_running_loop().time()
    if left >= SHORTEST_WAIT_S:
        await asyncio.sleep(left)
