"""Makes Modbus lines out of serial ports and TCP sockets, and a worker thread for each that polls meters in turn."""

import contextlib
import queue
import random
import select
import socket
import termios
import threading
import time
from typing import Any, Protocol

import serial

from firmware import bus, config, modbus

CONNECT_S = 2.0
REOPEN_S, REOPEN_MAX_S = 0.5, 30.0  # between two tries to open a line that is gone; doubling
BABBLE_S = 2.0  # a line that is not silent by then is asked all the same: the answer's checks decide
QUEUE_READS = 256  # more reads than an agent's points can never wait for one worker


class Clock(Protocol):
    """What this board needs of the clock that is passed in."""

    speed: int

    def now_ms(self) -> int: ...

    def monotonic_ms(self) -> int: ...

    def quality(self) -> int: ...

    def progress(self, label_ms: int) -> None: ...


class Port:
    """A line to the meters that opens itself; errors are OSError. gap_ms: silence kept before each request.

    baud: of a serial line, 0 for a network. speed divides the gaps of a demo's line.
    """

    framing = modbus.RTU

    def __init__(self, gap_ms: int, baud: int = 0, speed: int = 1) -> None:
        self.gap_ms, self.baud = gap_ms, baud
        self._speed = speed
        self._quiet_from_s = 0.0
        self._reopen_at_s = 0.0
        self._reopen_s = REOPEN_S

    def open(self) -> None:
        """Opens the line if it is closed; OSError while it cannot be, at once while the last failure is fresh."""
        if self._is_open():
            return
        if time.monotonic() < self._reopen_at_s:
            raise OSError("closed; tried again shortly")
        try:
            self._open()
            self._reopen_s = REOPEN_S
        except OSError:
            self._reopen_at_s = time.monotonic() + self._reopen_s * random.uniform(0.8, 1.2)
            self._reopen_s = min(2 * self._reopen_s, REOPEN_MAX_S)
            raise

    def clear(self) -> None:
        """Keeps the silence that is due before a request; what comes in it was not asked for, and puts it off."""
        self.open()
        end_s = time.monotonic() + BABBLE_S
        while True:
            pause_s = self._quiet_from_s + self.silence_s() - time.monotonic()
            if pause_s > 0:
                time.sleep(pause_s)
            if not self._drain() or time.monotonic() > end_s:
                return
            self._quiet_from_s = time.monotonic()

    def silence_s(self) -> float:
        """Returns the silence before a request: t3.5 of a serial line, or what its devices want."""
        silence_us = modbus.silence_us(self.baud) if self.baud else 0
        return max(self.gap_ms * 1000, silence_us) / 1e6 / self._speed

    def write(self, data: bytes) -> None:
        self._write(data)

    def pause(self, wait_ms: int) -> None:
        time.sleep(wait_ms / 1000)

    def mark(self) -> float:
        """Returns a moment that `since_ms` counts from."""
        return time.monotonic()

    def since_ms(self, mark: float) -> int:
        return int((time.monotonic() - mark) * 1000)

    def read(self, count: int, wait_ms: int) -> bytes:
        """Returns up to `count` bytes: fewer when no more came in the time an answer may take."""
        try:
            return self._read(count, wait_ms)
        finally:
            self._quiet_from_s = time.monotonic()

    def close(self) -> None: ...

    def _is_open(self) -> bool:
        raise OSError("no line")

    def _open(self) -> None: ...

    def _drain(self) -> bool:
        """Drops what is there; was there anything?"""
        return False

    def _write(self, data: bytes) -> None: ...

    def _read(self, count: int, wait_ms: int) -> bytes:
        return b""


class SerialPort(Port):
    """RTU on a serial port (or a pseudo-terminal)."""

    def __init__(self, path: str, baud: int, parity: str, gap_ms: int, speed: int = 1) -> None:
        super().__init__(gap_ms, baud, speed)
        self._path, self._parity = path, parity
        self._serial: serial.Serial | None = None

    def close(self) -> None:
        if self._serial is not None:
            self._serial.close()
            self._serial = None

    def _is_open(self) -> bool:
        return self._serial is not None

    def _open(self) -> None:
        try:
            # one stop bit is what meters ship with, though serial line V1.02, 2.5.1 wants two where there is no parity
            self._serial = serial.Serial(self._path, self.baud, parity=self._parity, timeout=0, exclusive=True)
        except (termios.error, ValueError) as error:
            raise OSError(f"{self._path}: {error}") from error

    def _drain(self) -> bool:
        def drop(line: serial.Serial) -> bool:
            is_there = line.in_waiting > 0
            line.reset_input_buffer()
            return is_there
        return bool(self._guard(drop))

    def _write(self, data: bytes) -> None:
        self._guard(lambda line: line.write(data))

    def _read(self, count: int, wait_ms: int) -> bytes:
        wait_s = (wait_ms + modbus.line_ms(count + 8, self.baud)) / 1000

        def take(line: serial.Serial) -> bytes:
            line.timeout = wait_s
            return bytes(line.read(count))
        return bytes(self._guard(take))

    def _guard(self, use: Any) -> Any:
        """A pulled-out adapter shows as several kinds of exception: the line closes, and it is one OSError."""
        if self._serial is None:
            raise OSError("closed")
        try:
            return use(self._serial)
        except (OSError, termios.error, TypeError) as error:
            with contextlib.suppress(OSError):
                self.close()
            self._serial = None
            raise OSError(str(error)) from error


class TcpPort(Port):
    """Modbus TCP, or RTU frames through TCP; one request at a time, one connection that is kept."""

    def __init__(self, host: str, number: int, gap_ms: int, speed: int = 1, behind: int = 0) -> None:
        """behind: baud rate of the serial line whose RTU frames come through the connection, 0 for Modbus TCP."""
        super().__init__(gap_ms, behind, speed)
        self.framing = modbus.RTU if behind else modbus.TCP
        self._address = (host, number)
        self._socket: socket.socket | None = None

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _is_open(self) -> bool:
        return self._socket is not None

    def _open(self) -> None:
        self._socket = socket.create_connection(self._address, timeout=CONNECT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _drain(self) -> bool:
        is_there = False
        while self._socket is not None and select.select([self._socket], [], [], 0)[0]:
            if not self._receive(4096):
                self.open()
                return False
            is_there = True
        return is_there

    def _write(self, data: bytes) -> None:
        if self._socket is None:
            raise OSError("closed")
        try:
            self._socket.settimeout(CONNECT_S)
            self._socket.sendall(data)
        except OSError:
            self.close()
            raise

    def _read(self, count: int, wait_ms: int) -> bytes:
        end_s = time.monotonic() + wait_ms / 1000
        received = b""
        while len(received) < count and self._socket is not None:
            left_s = end_s - time.monotonic()
            if left_s <= 0 or not select.select([self._socket], [], [], left_s)[0]:
                break
            more = self._receive(count - len(received))
            if not more:
                raise OSError("closed by the other side")
            received += more
        return received

    def _receive(self, count: int) -> bytes:
        """Returns what is there; b"" after the end, with the line closed."""
        if self._socket is None:
            return b""
        try:
            data = self._socket.recv(count)
        except OSError:
            data = b""
        if not data:
            self.close()
        return data


def open_port(line: config.Bus, speed: int = 1) -> Port:
    """Returns the port of a bus: "tcp://host:port", "rtu+tcp://host:port", or a serial device's path."""
    if modbus.is_network(line.port):
        scheme, _, address = line.port.partition("://")
        host, _, number = address.rpartition(":")
        return TcpPort(host.strip("[]"), int(number), line.gap_ms, speed, 0 if scheme == "tcp" else line.baud)
    return SerialPort(line.port, line.baud, line.parity, line.gap_ms, speed)


class Worker:
    """Polls the units of one bus, one after the other, in its own thread; outcomes go to `inbox`."""

    def __init__(self, line: config.Bus, clock: Clock, inbox: "queue.SimpleQueue[tuple[Any, ...]]") -> None:
        self._port = open_port(line, clock.speed)
        self._answer_ms = line.answer_ms
        self._gaps = {row.unit: row.gap_ms for row in line.meters}
        self._last_gap_ms = 0
        self._clock = clock
        self._inbox = inbox
        self._reads: queue.Queue[Any] = queue.Queue(QUEUE_READS)
        self._transaction = 0
        self._thread = threading.Thread(target=self._run, name="bus " + line.port, daemon=True)
        self._thread.start()

    def read(self, duty: Any) -> None:
        self._reads.put_nowait(duty)

    def stop(self) -> None:
        """Ends after the poll under way."""
        self._reads.put(None)
        self._thread.join(5.0)

    def _run(self) -> None:
        try:
            self._poll_for_ever()
        except Exception as error:  # a defect of ours: the main loop must end with it, not wait for ever
            self._inbox.put(("failed", error))

    def _poll_for_ever(self) -> None:
        while True:
            duty = self._reads.get()
            if duty is None:
                self._port.close()
                return
            gap_ms = self._gaps.get(duty.unit, 0)
            self._port.gap_ms = max(gap_ms, self._last_gap_ms)  # what the last one wants after, this one before it
            self._last_gap_ms = gap_ms
            with contextlib.suppress(OSError):
                self._port.clear()  # the gap before the first request belongs to no reading's time
            self._port.gap_ms = gap_ms
            start_ms, quality = self._clock.now_ms(), self._clock.quality()
            exchanges = bus.poll(self._port, duty.unit, duty.requests, duty.attempts, self._answer_ms,
                                 self._transaction, duty.budget_ms)
            self._transaction = self._transaction + len(exchanges) & 0xFFFF
            self._inbox.put(("words", duty, start_ms, quality, exchanges))
