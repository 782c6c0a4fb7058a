"""SimMeter and Unit, made from a meter's configuration: the image of a step, and who answers what on a bus."""

from collections.abc import Coroutine, Sequence
from fractions import Fraction
from typing import Protocol

from sim_hardware.adapter import Desk
from sim_hardware.chance import pick, seed_of
from sim_hardware.errors import SimError
from sim_hardware.faults import IN_THE_COUNTERS, Fault, spoil
from sim_hardware.frames import Answer, Request, exception_frame
from sim_hardware.meters import Field, Image, MeterType
from sim_hardware.meters.types import DIVISORS, MJ_PER_KWH
from sim_hardware.model import PointModel, Values
from sim_hardware.truth import Row

ILLEGAL_FUNCTION, ILLEGAL_ADDRESS, ILLEGAL_VALUE = 1, 2, 3
READ_HOLDING, READ_INPUT, IDENTIFY = 3, 4, 43
COUNTERS = ("energy_active_import_total", "energy_active_export_total", "energy_active_sum_total")
BEFORE_END_WH = 30          # a counter that is put before its end reaches it within minutes
MJ_PER_WH = MJ_PER_KWH // 1000


class Clock(Protocol):
    """What is asked of the clock that everything here gets passed in."""

    @property
    def speed(self) -> int:
        """Label time runs this many times faster than real time."""

    def now_ms(self) -> int:
        """Label time, Unix ms; never goes back."""

    def monotonic_ms(self) -> int:
        """Real time for waits, ms."""


class SimMeter:
    """One meter at one point: its newest image, made when a step begins (`advance`)."""

    def __init__(self, point: int, unit: int, meter: MeterType, model: PointModel, step_s: int, seed: int) -> None:
        self.point, self.unit, self.type = point, unit, meter
        self._model, self._step_s = model, step_s
        self.serial = pick(seed_of(seed, "serial"), point, 20_000_000, 29_999_999)
        self.holding = meter.holding_spans(unit, self.serial)
        self.image: Image | None = None
        self._counters = [field for field in meter.fields if field.name in COUNTERS]
        self._offsets_mj: dict[str, int] = {}   # what somebody did to its counters (faults)
        self._limits_mj: dict[str, int] = {}
        self._coming: list[Fault] = []

    def image_at(self, step: int) -> Image:
        """The registers of any step since the meter was installed."""
        values = self._model.values(step)
        if self._offsets_mj:
            values = dict(values)
            for name, offset in self._offsets_mj.items():
                values[name] += offset
                if name in self._limits_mj:
                    values[name] %= self._limits_mj[name]
        return self.type.image(step * self._step_s * 1000, values)

    def advance(self, step: int) -> Row:
        """Turn to the image of `step`; its row of the truth file."""
        while self._coming:
            self._disturb(self._coming.pop(0), self._model.values(step))
        self.image = self.image_at(step)
        return self.row(self.image)

    def disturb(self, fault: Fault) -> None:
        """Does something to the counters, with the next step and for good: one step has one image."""
        if fault.kind == "rollover" and not any(self._limit_mj(field) for field in self._counters):
            raise SimError("fault", f"nobody knows where the counters of {self.type.name} begin again")
        self._coming.append(fault)

    def _disturb(self, fault: Fault, values: Values) -> None:
        for field in self._counters:
            now = values[field.name] + self._offsets_mj.get(field.name, 0)
            limit = self._limit_mj(field)
            if fault.kind == "counter_jump":
                to = now + fault.value * MJ_PER_KWH
            elif fault.kind == "rollover" and limit:
                to = limit - BEFORE_END_WH * MJ_PER_WH
                self._limits_mj[field.name] = limit
            else:
                to = 0
            self._offsets_mj[field.name] = self._offsets_mj.get(field.name, 0) + to - now

    def _limit_mj(self, field: Field) -> int:
        """Where a counter begins again: at its display's end, or its register's; 0 for a float without the first, and
        for 64 bits, which no meter lives to fill."""
        if self.type.rollover_kwh:
            return self.type.rollover_kwh * MJ_PER_KWH
        if field.form.startswith("f") or field.words == 4:
            return 0
        bits = 16 * field.words - field.form.startswith("s")
        return int((1 << bits) * DIVISORS[field.unit] / Fraction(field.per_unit))

    def row(self, image: Image) -> Row:
        return Row(self.point, image.time_ms, self.unit, self.type.name, image.hex())

    def read(self, image: Image, function: int, address: int, count: int) -> Sequence[int] | int:
        """Words of an image or of the holding registers, or an exception code."""
        words = self.type.read(image, self.holding, function, address, count)
        return ILLEGAL_ADDRESS if words is None else words


class Place:
    """A meter on a bus with the fault it has there; setting `fault` is the moment at which it begins."""

    def __init__(self, meter: SimMeter, fault: Fault) -> None:
        self.meter = meter
        self.answers = 0
        self.fault = fault

    @property
    def fault(self) -> Fault:
        return self._fault

    @fault.setter
    def fault(self, fault: Fault) -> None:
        if fault.kind == "nan" and not any(field.form.startswith("f") for field in self.meter.type.fields):
            raise SimError("fault", f"{self.meter.type.name} shows integers: they cannot be no number")
        if fault.kind in IN_THE_COUNTERS:
            self.meter.disturb(fault)
        self._fault = fault
        self._frozen = self.meter.image if fault.kind == "stuck" else None

    def image(self) -> Image | None:
        """What it shows now."""
        if self._fault.kind == "stuck" and self._frozen is None:
            self._frozen = self.meter.image         # stuck from the start
        return self._frozen or self.meter.image


class Units:
    """All meters of one bus behind one pymodbus server. baud: of a serial line; network: behind a socket."""

    def __init__(self, meters: Sequence[tuple[SimMeter, Fault]], *, rtu: bool, baud: int = 9600,
                 network: bool | None = None) -> None:
        self.rtu, self.network, self._baud = rtu, not rtu if network is None else network, baud
        self.places = {meter.unit: Place(meter, fault) for meter, fault in meters}
        self._images: dict[int, Image] = {}
        identities = {meter.unit: meter.type.identity for meter, _ in meters}
        self._desk = Desk(self._read, identities, rtu=rtu)
        self.answered = 0

    def answer(self, request: Request) -> Coroutine[None, None, Answer]:
        """What goes out for one request.

        Not a coroutine function, on purpose: the image and the fault are those of the moment of this call, which is
        the moment the request arrived, however long the answer waits for its turn.
        """
        place = self.places.get(request.unit)
        if place is None or request.pdu[0] & 0x80:
            return _silence()                   # nobody has that number; or an exception answer echoed by the terminal
        place.answers += 1
        return self._answer(request, place.meter, place.fault, place.image(), place.answers)

    async def _answer(self, request: Request, meter: SimMeter, fault: Fault, image: Image | None, turn: int) -> Answer:
        if image is None:
            return Answer(b"")
        code = _refusal(meter.type, request.pdu)
        if code:
            answer = exception_frame(request, code, rtu=self.rtu)
        else:
            answer = await self._desk.answer(request.frame, lambda: self._images.__setitem__(meter.unit, image))
        self.answered += 1
        return spoil(fault, request, answer, turn, rtu=self.rtu, baud=self._baud) if answer else Answer(b"")

    def _read(self, unit: int, function: int, address: int, count: int) -> Sequence[int] | int:
        return self.places[unit].meter.read(self._images[unit], function, address, count)


async def _silence() -> Answer:
    return Answer(b"")


def _refusal(meter: MeterType, pdu: bytes) -> int:
    """The exception code that a meter of this type gives before it looks at its registers, 0 for none."""
    if pdu[0] not in (READ_HOLDING, READ_INPUT, IDENTIFY):
        return ILLEGAL_FUNCTION
    if pdu[0] == IDENTIFY:
        return 0 if len(pdu) == 4 else ILLEGAL_VALUE
    if len(pdu) != 5 or not 1 <= int.from_bytes(pdu[3:5], "big") <= meter.max_registers:
        return ILLEGAL_VALUE
    return 0
