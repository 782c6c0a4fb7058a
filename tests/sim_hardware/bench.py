"""A clock set by hand and a running simulator with real masters, made for the tests of this folder."""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Coroutine
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from pymodbus.client import AsyncModbusSerialClient, AsyncModbusTcpClient

from sim_hardware.config import BusConfig, MeterConfig, SimConfig
from sim_hardware.faults import Fault
from sim_hardware.frames import crc16
from sim_hardware.meters import TYPES
from sim_hardware.simulator import Simulator

MIDNIGHT_MS = 1_781_913_600_000         # 2026-06-20 00:00 UTC
DAY_MS = 86_400_000


class HandClock:
    """Label time stands still until a test moves it; waits are real."""

    def __init__(self, now_ms: int = MIDNIGHT_MS, speed: int = 1) -> None:
        self.time_ms, self.speed = now_ms, speed

    def now_ms(self) -> int:
        return self.time_ms

    def monotonic_ms(self) -> int:
        return time.monotonic_ns() // 1_000_000

    def quality(self) -> int:
        """Synchronised, as an agent's clock says it."""
        return 2

    def progress(self, label_ms: int) -> None:
        """Nobody waits for anybody here."""


def meter(point: int, unit: int, kind: str = "sdm120", day: str = "generated:household", fault: str = "none",
          value: int = 0) -> MeterConfig:
    return MeterConfig(point, unit, TYPES[kind], day, Fraction(1), Fault(fault, value))


def tcp(*meters: MeterConfig, **more: Any) -> SimConfig:
    """One TCP bus on a free port, a control port, seed 7, a step of 60 s."""
    return SimConfig((BusConfig(meters, tcp=("127.0.0.1", 0)),), **{"seed": 7, "step_s": 60,
                                                                  "control": ("127.0.0.1", 0), **more})


def rtu(link: Path, *meters: MeterConfig, baud: int = 9600, parity: str = "N", **more: Any) -> SimConfig:
    """The same on a pseudo-terminal."""
    return replace(tcp(**more), buses=(BusConfig(meters, pty=str(link), baud=baud, parity=parity),))


class Bench:
    """A simulator and what it said when it was ready."""

    def __init__(self, simulator: Simulator, ready: dict[str, Any]) -> None:
        self.simulator, self.ready = simulator, ready

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.ready["buses"][0]["tcp"].rpartition(":")
        return host, int(port)

    async def control(self, line: str) -> str:
        """One line to the control port, one line back."""
        host, _, port = self.ready["control"].rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(line.encode() + b"\n")
        answer = await asyncio.wait_for(reader.readline(), 5)
        writer.close()
        return answer.decode().rstrip("\n")


@contextlib.asynccontextmanager
async def running(config: SimConfig, clock: HandClock) -> AsyncIterator[Bench]:
    """A started simulator; its `follow` is not run, so images change when a request or the test asks."""
    simulator = Simulator(config, clock)
    try:
        yield Bench(simulator, await simulator.start())
    finally:
        await simulator.close()


@contextlib.asynccontextmanager
async def tcp_master(address: tuple[str, int], timeout_s: float = 2) -> AsyncIterator[AsyncModbusTcpClient]:
    client = AsyncModbusTcpClient(address[0], port=address[1], timeout=timeout_s, retries=0)
    assert await client.connect()
    try:
        yield client
    finally:
        client.close()


@contextlib.asynccontextmanager
async def rtu_master(port: str, baud: int = 9600, parity: str = "N", timeout_s: float = 2
                     ) -> AsyncIterator[AsyncModbusSerialClient]:
    client = AsyncModbusSerialClient(port, baudrate=baud, parity=parity, timeout=timeout_s, retries=0)
    assert await client.connect()
    try:
        yield client
    finally:
        client.close()


class RawLine:
    """A master that sends and sees bytes, for what a decent one would not."""

    def __init__(self, port: str) -> None:
        self._file = os.open(port, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)

    def send(self, unit: int, pdu: bytes) -> None:
        frame = bytes((unit,)) + pdu
        self.write(frame + crc16(frame))

    def write(self, data: bytes) -> None:
        os.write(self._file, data)

    async def read(self, count: int, timeout_s: float = 2) -> bytes:
        """`count` bytes, or fewer when the time is up."""
        data, end = b"", time.monotonic() + timeout_s
        while len(data) < count and time.monotonic() < end:
            with contextlib.suppress(BlockingIOError):
                data += os.read(self._file, count - len(data))
            await asyncio.sleep(0.002)
        return data

    def close(self) -> None:
        os.close(self._file)


def play(scene: Coroutine[Any, Any, None], limit_s: float = 30) -> None:
    """Run one scene with a bound on its time."""
    asyncio.run(asyncio.wait_for(scene, limit_s))
