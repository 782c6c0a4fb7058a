"""A running simulator, made from a SimConfig and a clock: buses, images step by step, truth file, control port."""

import asyncio
import contextlib
from collections.abc import Callable
from datetime import date

from sim_hardware.bus import PtyBus, RtuTcpBus, TcpBus
from sim_hardware.config import BusConfig, FaultWindow, SimConfig, check_config
from sim_hardware.control import Control
from sim_hardware.days import open_day
from sim_hardware.errors import SimError
from sim_hardware.faults import Fault
from sim_hardware.load import DAY_S
from sim_hardware.model import PointModel
from sim_hardware.truth import TruthFile, first_time_ms
from sim_hardware.units import Clock, SimMeter, Units

LONGEST_LOOK_S = 0.05       # a clock may be held or jump: look at it this often at least, real time
SHORTEST_LOOK_S = 0.002     # at speed 600 this is 1.2 s of label time; a request looks at the clock itself
MAX_JUMP_ROWS = 1_000_000   # about a minute of work and up to 700 MB of truth: a clock that jumps further is broken
EPOCH_ORDINAL = date(1970, 1, 1).toordinal()


class Simulator:
    """All meters of one process. `start` listens, `follow` keeps the images in step with the clock until `stop`."""

    def __init__(self, config: SimConfig, clock: Clock) -> None:
        check_config(config)
        self._config, self._clock = config, clock
        self._step_ms = config.step_s * 1000
        self._truth = TruthFile(config.truth) if config.truth else None
        now_step = clock.now_ms() // self._step_ms
        installed = self._installed_day(now_step)
        self.buses: list[TcpBus[Units] | RtuTcpBus[Units] | PtyBus[Units]] = []
        self.meters: list[SimMeter] = []
        for bus in config.buses:
            placed = []
            for meter in bus.meters:
                day = open_day(meter.day, config.seed, meter.point, config.folder)
                model = PointModel(config.seed, meter.point, meter.type.phases, day, config.step_s, installed,
                                   meter.scale, meter.start_kwh, meter.type.has_tariffs)
                sim = SimMeter(meter.point, meter.unit, meter.type, model, config.step_s, config.seed)
                placed.append((sim, meter.fault))
                self.meters.append(sim)
            self.buses.append(self._bus(bus, Units(placed, rtu=bus.tcp is None, baud=bus.baud,
                                                   network=bus.pty is None)))
        self._control = Control(config.control, [bus.units for bus in self.buses]) if config.control else None
        self._check_same_meters()
        self.step = now_step
        self._windows = FaultPlan(config.faults, [bus.units for bus in self.buses], clock.now_ms())
        self._turn(now_step)

    async def start(self) -> dict[str, object]:
        """Open every bus; the ready line as a dictionary."""
        ready: dict[str, object] = {"ready": True, "buses": [await bus.start() for bus in self.buses],
                                    "control": await self._control.start() if self._control else None}
        return ready

    def advance(self) -> None:
        """Bring every image to the clock's step; each step in between gets its row, in order of time."""
        self._windows.look(self._clock.now_ms())
        now_step = self._clock.now_ms() // self._step_ms
        if self._truth is None:
            if self.step < now_step:
                self._turn(now_step)
            return
        if (now_step - self.step) * len(self.meters) > MAX_JUMP_ROWS:
            raise SimError("truth", f"the clock jumped from {self.step * self._step_ms} to {self._clock.now_ms()}, "
                                    f"expected at most {MAX_JUMP_ROWS} rows at once")
        while self.step < now_step:
            self._turn(self.step + 1)

    async def follow(self, stop: asyncio.Event) -> None:
        """Advance at every step's start until `stop` is set."""
        while not stop.is_set():
            self.advance()
            left_ms = (self.step + 1) * self._step_ms - self._clock.now_ms()
            wait_s = min(LONGEST_LOOK_S, max(SHORTEST_LOOK_S, left_ms / 1000 / max(1, self._clock.speed)))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), wait_s)

    async def close(self) -> None:
        for bus in self.buses:
            await bus.stop()
        if self._control:
            await self._control.stop()
        if self._truth:
            self._truth.close()

    def _bus(self, bus: BusConfig, units: Units) -> TcpBus[Units] | RtuTcpBus[Units] | PtyBus[Units]:
        if bus.tcp is not None:
            return TcpBus(units, self.advance, *bus.tcp)
        if bus.rtu_tcp is not None:
            return RtuTcpBus(units, self.advance, *bus.rtu_tcp, bus.baud, bus.parity, self._clock)
        return PtyBus(units, self.advance, bus.pty or "", bus.baud, bus.parity, self._clock, bus.strict)

    def _turn(self, step: int) -> None:
        rows = [meter.advance(step) for meter in self.meters]
        self.step = step
        if self._truth is None:
            return
        self._truth.write(row for row in rows
                          if (last := self._truth.last(row.point)) is None or row.time_ms > last.time_ms)

    def _installed_day(self, now_step: int) -> int:
        """As configured; else the day the truth file begins with; else the clock's day."""
        today = now_step * self._config.step_s // DAY_S
        if self._config.installed is not None:
            day = self._config.installed.toordinal() - EPOCH_ORDINAL
            if day > today:
                raise SimError("config", f"installed: expected a day not after the clock's, "
                                         f"found {self._config.installed}")
            return day
        first_ms = first_time_ms(self._config.truth) if self._config.truth else None
        day = today if first_ms is None else first_ms // 1000 // DAY_S
        if day > today:
            raise SimError("truth", f"{self._config.truth}: its first row is later than the clock's day")
        return day

    def _check_same_meters(self) -> None:
        """A truth file goes on only with the meters that wrote it: same seed, step, days, types, installed day."""
        for meter in self.meters:
            last = self._truth.last(meter.point) if self._truth else None
            if last is None:
                continue
            step, rest = divmod(last.time_ms, self._step_ms)
            if rest or meter.row(meter.image_at(step)) != last:
                raise SimError("truth", f"{self._config.truth}: point {meter.point} was written by another meter, "
                                        "seed, day or step; give the same configuration or another truth file")


class FaultPlan:
    """Switches faults by the clock, as a file of faults says; what a person switches in between holds until then."""

    def __init__(self, windows: tuple[FaultWindow, ...], buses: list[Units], start_ms: int) -> None:
        places = {place.meter.point: place for units in buses for place in units.places.values()}
        self._moments = []
        for window in windows:
            place = places[window.point]
            self._moments.append((start_ms + window.from_s * 1000, place, window.fault))
            if window.until_s is not None:
                self._moments.append((start_ms + window.until_s * 1000, place, Fault()))
        self._moments.sort(key=lambda moment: moment[0])

    def look(self, now_ms: int) -> None:
        """Does what has become due."""
        while self._moments and self._moments[0][0] <= now_ms:
            _, place, fault = self._moments.pop(0)
            place.fault = fault


async def run(config: SimConfig, clock: Clock, stop: asyncio.Event,
              on_ready: Callable[[dict[str, object]], None] | None = None) -> None:
    """Serve `config` until `stop` is set. `on_ready` gets {"ready", "buses", "control"} once everything listens."""
    simulator = Simulator(config, clock)
    try:
        ready = await simulator.start()
        if on_ready is not None:
            on_ready(ready)
        await simulator.follow(stop)
    finally:
        await simulator.close()
