"""SimMeter and Unit, made from a meter's configuration: the image of a step, and who answers what on a bus."""

from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Protocol

from sim_hardware.adapter import Desk
from sim_hardware.chance import pick, seed_of
from sim_hardware.faults import Fault, spoil
from sim_hardware.frames import Request, exception_frame
from sim_hardware.meters import Image, MeterType
from sim_hardware.model import PointModel
from sim_hardware.truth import Row

ILLEGAL_FUNCTION, ILLEGAL_ADDRESS, ILLEGAL_VALUE = 1, 2, 3
READ_HOLDING, READ_INPUT, IDENTIFY = 3, 4, 43


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

    def image_at(self, step: int) -> Image:
        """The registers of any step since the meter was installed."""
        return self.type.image(step * self._step_s * 1000, self._model.values(step))

    def advance(self, step: int) -> Row:
        """Turn to the image of `step`; its row of the truth file."""
        self.image = self.image_at(step)
        return self.row(self.image)

    def row(self, image: Image) -> Row:
        return Row(self.point, image.time_ms, self.unit, self.type.name, image.hex())

    def read(self, image: Image, function: int, address: int, count: int) -> Sequence[int] | int:
        """Words of an image or of the holding registers, or an exception code."""
        words = self.type.read(image, self.holding, function, address, count)
        return ILLEGAL_ADDRESS if words is None else words


@dataclass
class Place:
    """A meter on a bus with the fault it has there."""

    meter: SimMeter
    fault: Fault


class Units:
    """All meters of one bus behind one pymodbus server."""

    def __init__(self, meters: Sequence[tuple[SimMeter, Fault]], *, rtu: bool) -> None:
        self.rtu = rtu
        self.places = {meter.unit: Place(meter, fault) for meter, fault in meters}
        self._images: dict[int, Image] = {}
        identities = {meter.unit: meter.type.identity for meter, _ in meters}
        self._desk = Desk(self._read, identities, rtu=rtu)
        self.answered = 0

    def answer(self, request: Request) -> Coroutine[None, None, tuple[bytes, int]]:
        """What goes out for one request: await it for (bytes, extra real ms); b"" = silence.

        Not a coroutine function, on purpose: the image and the fault are those of the moment of this call, which is
        the moment the request arrived, however long the answer waits for its turn.
        """
        place = self.places.get(request.unit)
        if place is None or request.pdu[0] & 0x80:
            return _silence()                   # nobody has that number; or an exception answer echoed by the terminal
        return self._answer(request, place.meter, place.fault, place.meter.image)

    async def _answer(self, request: Request, meter: SimMeter, fault: Fault, image: Image | None) -> tuple[bytes, int]:
        if fault.kind == "no_answer" or image is None:
            return b"", 0
        code = fault.value if fault.kind == "exception" else _refusal(meter.type, request.pdu)
        if code:
            answer = exception_frame(request, code, rtu=self.rtu)
        else:
            answer = await self._desk.answer(request.frame, lambda: self._images.__setitem__(meter.unit, image))
        self.answered += 1
        return spoil(fault, answer), fault.value if fault.kind == "late" else 0

    def _read(self, unit: int, function: int, address: int, count: int) -> Sequence[int] | int:
        return self.places[unit].meter.read(self._images[unit], function, address, count)


async def _silence() -> tuple[bytes, int]:
    return b"", 0


def _refusal(meter: MeterType, pdu: bytes) -> int:
    """The exception code that a meter of this type gives before it looks at its registers, 0 for none."""
    if pdu[0] not in (READ_HOLDING, READ_INPUT, IDENTIFY):
        return ILLEGAL_FUNCTION
    if pdu[0] == IDENTIFY:
        return 0 if len(pdu) == 4 else ILLEGAL_VALUE
    if len(pdu) != 5 or not 1 <= int.from_bytes(pdu[3:5], "big") <= meter.max_registers:
        return ILLEGAL_VALUE
    return 0
