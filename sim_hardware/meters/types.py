"""MeterType and Image: all input registers of one meter at one step, made from its values by its map."""

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

MJ_PER_KWH = 3_600_000_000

# A value of model.py divided by this is in the unit.
DIVISORS = {"V": 10**3, "A": 10**3, "W": 10**3, "VA": 10**3, "var": 10**3, "Hz": 10**3, "deg": 10**3, "%": 10**3,
            "1": 10**6, "kWh": MJ_PER_KWH, "kvarh": MJ_PER_KWH, "flag": 1}


class Field(NamedTuple):
    """One quantity in input registers. `form`: "f32" (2 words, big end first), "u16", "u32_lsw" (low word first).

    Integer forms hold the value in `unit` times `per_unit`, rounded down and without sign; f32 holds the unit itself.
    """

    name: str
    address: int
    unit: str
    form: str = "f32"
    per_unit: int = 1


@dataclass(frozen=True)
class Image:
    """All input registers at one step. `spans` = ((first address, bytes), ...), rising; outside is exception 2."""

    time_ms: int
    spans: tuple[tuple[int, bytes], ...]

    def read(self, address: int, count: int) -> list[int] | None:
        """`count` words from `address`, or None where the meter has no registers."""
        return read_spans(self.spans, address, count)

    def hex(self) -> str:
        """`AAAA:words` per span, addresses and words in hexadecimal, spans parted by one space."""
        return " ".join(f"{address:04x}:{data.hex()}" for address, data in self.spans)


@dataclass(frozen=True)
class MeterType:
    """A maker's meter: map, limits, line defaults. `spans` = ((address, words), ...) that can be read."""

    name: str
    model: str
    phases: int
    baud: int
    max_registers: int
    spans: tuple[tuple[int, int], ...]
    fields: tuple[Field, ...]
    identity: Mapping[int, str]
    holding: tuple[tuple[int, str | int], ...] = ()              # (address, what): see holding_spans
    prepare: Callable[[Mapping[str, int]], Mapping[str, int]] | None = None    # what the chip makes of the values

    def image(self, time_ms: int, values: Mapping[str, int]) -> Image:
        """The registers of one step; words in a span that no field fills read as zero."""
        if self.prepare is not None:
            values = self.prepare(values)
        buffers = [(address, bytearray(2 * words)) for address, words in self.spans]
        for name, address, unit, form, per_unit in self.fields:
            first, buffer = next(span for span in buffers if span[0] <= address < span[0] + len(span[1]) // 2)
            offset = 2 * (address - first)
            value, divisor = values[name], DIVISORS[unit]
            if form == "f32":
                struct.pack_into(">f", buffer, offset, value / divisor)
                continue
            raw = abs(value) * per_unit // divisor
            if form == "u16":
                struct.pack_into(">H", buffer, offset, raw & 0xFFFF)
            else:
                struct.pack_into(">HH", buffer, offset, raw & 0xFFFF, raw >> 16 & 0xFFFF)
        return Image(time_ms, tuple((address, bytes(buffer)) for address, buffer in buffers))

    def holding_spans(self, unit: int, serial: int) -> tuple[tuple[int, bytes], ...]:
        """Holding registers that are served: the serial number (u32, big end first) or plain settings (u16)."""
        facts = {"serial": serial.to_bytes(4, "big"), "unit": unit.to_bytes(2, "big")}
        joined: list[tuple[int, bytes]] = []
        for address, what in self.holding:
            data = what.to_bytes(2, "big") if isinstance(what, int) else facts[what]
            if joined and joined[-1][0] + len(joined[-1][1]) // 2 == address:
                joined[-1] = (joined[-1][0], joined[-1][1] + data)
            else:
                joined.append((address, data))
        return tuple(joined)


def read_spans(spans: tuple[tuple[int, bytes], ...], address: int, count: int) -> list[int] | None:
    """Words out of (first address, bytes) spans; None if any is in none; spans never touch."""
    for first, data in spans:
        if first <= address and address + count <= first + len(data) // 2:
            offset = 2 * (address - first)
            return list(struct.unpack(f">{count}H", data[offset:offset + 2 * count]))
    return None
