"""Makes a plant's terminal on Modbus: one image of registers a second, the same for whoever reads in that second.

Holding registers (function 3), each value two registers, high word first, signed but for the time:

    0 time (Unix s)     2 frequency mHz     4 active power W    6 AGC command W     8 bus voltage mV
    10 AVC command mV   12 reactive var     14 status           16 capacity W

status: 1 AGC in service, 2 AVC in service, 4 excused, 8 connected.
"""

import struct
from collections.abc import Sequence

from sim_hardware.adapter import Desk
from sim_hardware.frames import Request, exception_frame
from sim_hardware.plant.model import Plant
from sim_hardware.units import ILLEGAL_ADDRESS, ILLEGAL_FUNCTION, READ_HOLDING, Clock

REGISTERS = 18
MOST = 125


class Terminal:
    """The plant's unit on a bus."""

    def __init__(self, plant: Plant, clock: Clock, unit: int = 1, *, rtu: bool = False) -> None:
        self.plant, self.unit, self.rtu = plant, unit, rtu
        self._clock = clock
        self._desk: Desk | None = None

    async def answer(self, request: Request) -> tuple[bytes, int]:
        """(frame, late ms) as a bus wants it; silence for another unit."""
        if request.unit != self.unit:
            return b"", 0
        if request.pdu[0] != READ_HOLDING:
            return exception_frame(request, ILLEGAL_FUNCTION, rtu=self.rtu), 0
        if self._desk is None:
            self._desk = Desk(self._read, {}, rtu=self.rtu)
        return await self._desk.answer(request.frame, lambda: None), 0

    def words(self) -> list[int]:
        """The registers now."""
        found = self.plant.sample(self._clock.now_ms() // 1000)
        values = struct.pack(">I8i", found.time_s & 0xFFFFFFFF, found.frequency_mhz, found.power_w, found.agc_command_w,
                             found.voltage_mv, found.avc_command_mv, found.reactive_var, found.status,
                             self.plant.plan.capacity_kw * 1000)
        return list(struct.unpack(f">{REGISTERS}H", values))

    def _read(self, unit: int, function: int, address: int, count: int) -> Sequence[int] | int:
        words = self.words()
        return words[address:address + count] if address + count <= len(words) else ILLEGAL_ADDRESS
