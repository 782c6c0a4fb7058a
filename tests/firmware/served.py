"""Makes simulated meters that answer on real lines, in a thread of their own."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

from sim_hardware.config import BusConfig, MeterConfig, SimConfig
from sim_hardware.faults import Fault
from sim_hardware.simulator import Simulator
from sim_hardware.truth import decode_row
from sim_hardware.units import Place
from tests.sim_hardware.bench import MIDNIGHT_MS, HandClock

ON_PTY = 100  # a point on the pseudo-terminal is its unit and this
NOON_MS = MIDNIGHT_MS + 13 * 3_600_000


class Running:
    """A simulator; `facts`: what it says of each bus. The clock is moved by hand, waits are real."""

    def __init__(self, config: SimConfig, clock: Any = None) -> None:
        self.clock = clock or HandClock(NOON_MS)
        self.config = config
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        facts: Any = asyncio.run_coroutine_threadsafe(self._start(), self.loop).result(20)["buses"]
        self.facts: list[dict[str, Any]] = facts

    async def _start(self) -> dict[str, object]:
        self.simulator = Simulator(self.config, self.clock)
        return await self.simulator.start()

    def place(self, point: int) -> Place:
        return next(place for bus in self.simulator.buses for place in bus.units.places.values()
                    if place.meter.point == point)

    def fault(self, point: int, fault: Fault) -> None:
        """Switches a fault, in the simulator's own thread."""
        async def switch() -> None:
            self.place(point).fault = fault
        asyncio.run_coroutine_threadsafe(switch(), self.loop).result(5)

    def turn(self, label_ms: int) -> None:
        """The clock goes on, and so do the registers."""
        async def advance() -> None:
            self.clock.time_ms += label_ms
            self.simulator.advance()
        asyncio.run_coroutine_threadsafe(advance(), self.loop).result(20)

    def truth(self, point: int) -> dict[str, int]:
        """What that meter shows now, by the simulator's own map and arithmetic."""
        sim = self.place(point).meter
        assert sim.image is not None
        return decode_row(sim.row(sim.image))

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self.simulator.close(), self.loop).result(20)
        self.loop.call_soon_threadsafe(self.loop.stop)


class Served(Running):
    """The meters of two buses; ports by "tcp" and "pty"."""

    def __init__(self, folder: Path, time_ms: int, on_tcp: tuple[MeterConfig, ...],
                 on_pty: tuple[MeterConfig, ...]) -> None:
        super().__init__(SimConfig((BusConfig(on_tcp, tcp=("127.0.0.1", 0)),
                                    BusConfig(on_pty, pty=str(folder / "line"), baud=9600)), seed=7, step_s=60),
                         HandClock(time_ms, speed=600))
        self.ports = {"tcp": "tcp://" + self.facts[0]["tcp"], "pty": str(folder / "line")}
