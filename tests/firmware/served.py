"""Makes simulated meters that answer on a TCP port and on a pseudo-terminal, in a thread of their own."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

from sim_hardware.config import BusConfig, MeterConfig, SimConfig
from sim_hardware.simulator import Simulator
from sim_hardware.truth import decode_row
from tests.sim_hardware.bench import HandClock

ON_PTY = 100  # a point on the pseudo-terminal is its unit and this


class Served:
    """The meters of two buses; ports by "tcp" and "pty"; the clock is moved by hand."""

    def __init__(self, folder: Path, time_ms: int, on_tcp: tuple[MeterConfig, ...],
                 on_pty: tuple[MeterConfig, ...]) -> None:
        self.clock = HandClock(time_ms, speed=600)
        self.config = SimConfig((BusConfig(on_tcp, tcp=("127.0.0.1", 0)),
                                 BusConfig(on_pty, pty=str(folder / "line"), baud=9600)), seed=7, step_s=60)
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        buses = asyncio.run_coroutine_threadsafe(self._start(), self.loop).result(20)["buses"]
        assert isinstance(buses, list)
        self.ports = {"tcp": "tcp://" + buses[0]["tcp"], "pty": str(folder / "line")}

    async def _start(self) -> dict[str, object]:
        self.simulator = Simulator(self.config, self.clock)
        return await self.simulator.start()

    def truth(self, point: int) -> dict[str, int]:
        """What that meter shows now, by the simulator's own map and arithmetic."""
        sim = next(one for one in self.simulator.meters if one.point == point)
        assert sim.image is not None
        return decode_row(sim.row(sim.image))

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self.simulator.close(), self.loop).result(20)
        self.loop.call_soon_threadsafe(self.loop.stop)
