"""MeterType and Image: all registers of one meter at one step, made from its values by its map."""

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import NamedTuple

MJ_PER_KWH = 3_600_000_000
READ_HOLDING, READ_INPUT = 3, 4

# A value of model.py divided by this is in the unit.
DIVISORS = {"V": 10**3, "A": 10**3, "W": 10**3, "VA": 10**3, "var": 10**3, "kW": 10**6, "kVA": 10**6, "kvar": 10**6,
            "Hz": 10**3, "deg": 10**3, "%": 10**3, "Cel": 10**3, "1": 10**6, "Wh": MJ_PER_KWH // 1000,
            "VAh": MJ_PER_KWH // 1000, "varh": MJ_PER_KWH // 1000, "kWh": MJ_PER_KWH, "kVAh": MJ_PER_KWH,
            "kvarh": MJ_PER_KWH, "flag": 1}
FORMS = {"u16": "H", "s16": "h", "u32": "I", "s32": "i", "u64": "Q", "s64": "q", "f32": "f"}


class Field(NamedTuple):
    """One quantity in the registers. `form`: "f32", "u16", "s16", "u32", "s32", "u64", "s64", big end first; with
    "_lsw" the low word comes first. `sign` -1: the register counts what is given back as positive.

    A register holds the value in `unit` times `per_unit`; integer forms cut off what is below 1, the ones without a
    sign show none. What does not fit goes on from 0, as in a counter.
    """

    name: str
    address: int
    unit: str
    form: str = "f32"
    per_unit: int | Fraction = 1
    sign: int = 1

    @property
    def words(self) -> int:
        """Registers it takes."""
        return int(self.form[1:3]) // 16

    def encoder(self) -> Callable[[int], bytes]:
        """What makes the registers' bytes of one of the model's values."""
        kind, _, order = self.form.partition("_")
        size, divisor, mask = 2 * self.words, DIVISORS[self.unit], (1 << 16 * self.words) - 1
        ratio = Fraction(self.per_unit) / divisor
        over, under = ratio.numerator, ratio.denominator
        signed, sign, pack = kind[0] == "s", self.sign, struct.Struct(">f").pack

        def as_float(value: int) -> bytes:
            return pack(sign * value * over / under)

        def as_integer(value: int) -> bytes:
            raw = abs(value) * over // under
            return ((-raw if signed and value * sign < 0 else raw) & mask).to_bytes(size, "big")

        def low_first(value: int) -> bytes:
            data = plain(value)
            return b"".join(data[at:at + 2] for at in range(size - 2, -1, -2))
        plain = as_float if kind == "f32" else as_integer
        return low_first if order else plain


@dataclass(frozen=True)
class Image:
    """All measured registers at one step. `spans` = ((first address, bytes), ...), rising; outside is exception 2."""

    time_ms: int
    spans: tuple[tuple[int, bytes], ...]

    def read(self, address: int, count: int) -> list[int] | None:
        """`count` words from `address`, or None where the meter has no registers."""
        return read_spans(self.spans, address, count)

    def hex(self) -> str:
        """`AAAA:words` per span, addresses and words in hexadecimal, spans parted by one space."""
        return " ".join(f"{address:04x}:{data.hex()}" for address, data in self.spans)


Text = tuple[str, int]                          # ("serial", registers): the serial number as text


@dataclass(frozen=True)
class MeterType:
    """A maker's meter: map, limits, line defaults. `spans` = ((address, words), ...) that can be read.

    `functions` read the measured registers, `holding_functions` the fixed ones (serial number, settings). `filler`
    gives words that no field fills and that are not zero; `alone` what a read of that one register gives instead of
    the half of a value. `rollover_kwh`: energy counters go back to 0 there (0: where their registers end).
    """

    name: str
    model: str
    phases: int
    baud: int
    max_registers: int
    spans: tuple[tuple[int, int], ...]
    fields: tuple[Field, ...]
    identity: Mapping[int, str]
    holding: tuple[tuple[int, str | int | bytes | Text], ...] = ()      # (address, what): see holding_spans
    prepare: Callable[[Mapping[str, int]], Mapping[str, int]] | None = None    # what the chip makes of the values
    parity: str = "N"
    functions: tuple[int, ...] = (READ_INPUT,)
    holding_functions: tuple[int, ...] = (READ_HOLDING,)
    filler: Mapping[int, int] | None = None
    alone: Mapping[int, int] | None = None
    rollover_kwh: int = 0
    day: str = "generated:household"            # what it is usually put to

    @property
    def has_tariffs(self) -> bool:
        """Whether it needs the model's counters by tariff or by day."""
        return any(field.name.endswith(("_t1", "_t2", "_today")) for field in self.fields)

    def image(self, time_ms: int, values: Mapping[str, int]) -> Image:
        """The registers of one step; words in a span that nothing fills read as zero."""
        if self.prepare is not None:
            values = self.prepare(values)
        blank, steps = self._plan
        buffers = [bytearray(data) for _, data in blank]
        limit = self.rollover_kwh * MJ_PER_KWH
        for name, is_counter, index, first, end, encode in steps:
            value = values[name]
            buffers[index][first:end] = encode(value % limit if is_counter else value)
        return Image(time_ms, tuple((address, bytes(buffer)) for (address, _), buffer in zip(blank, buffers)))

    @cached_property
    def _plan(self) -> tuple[list[tuple[int, bytes]], list[tuple[str, bool, int, int, int, Callable[[int], bytes]]]]:
        """(spans without values, [(value's name, whether it rolls over, span, first byte, end, what encodes it)])."""
        blank = [(address, bytearray(2 * words)) for address, words in self.spans]

        def place(address: int) -> tuple[int, int]:
            index = next(at for at, (first, data) in enumerate(blank) if first <= address < first + len(data) // 2)
            return index, 2 * (address - blank[index][0])
        for address, word in (self.filler or {}).items():
            index, first = place(address)
            blank[index][1][first:first + 2] = word.to_bytes(2, "big")
        steps = []
        for field in self.fields:
            index, first = place(field.address)
            is_counter = bool(self.rollover_kwh) and field.name.startswith("energy_")
            steps.append((field.name, is_counter, index, first, first + 2 * field.words, field.encoder()))
        return [(address, bytes(data)) for address, data in blank], steps

    def holding_spans(self, unit: int, serial: int) -> tuple[tuple[int, bytes], ...]:
        """Registers that never change: the serial number (32 bits, or text), settings (16 bits), bytes as they are."""
        facts = {"serial": serial.to_bytes(4, "big"), "unit": unit.to_bytes(2, "big")}
        found: list[tuple[int, bytes]] = []
        for address, what in self.holding:
            if isinstance(what, tuple):
                data = f"SN{serial}".encode()[:2 * what[1]].ljust(2 * what[1], b"\0")
            elif isinstance(what, str):
                data = facts[what]
            else:
                data = what if isinstance(what, bytes) else what.to_bytes(2, "big")
            found.append((address, data))
        return _joined(tuple(found))

    def read(self, image: Image, holding: tuple[tuple[int, bytes], ...], function: int, address: int,
             count: int) -> list[int] | None:
        """The words that a read of this function gives, or None where there is nothing to read."""
        words = None
        if function in self.functions:
            if count == 1 and self.alone and address in self.alone:
                return [self.alone[address]]
            words = image.read(address, count)
        if words is None and function in self.holding_functions:
            words = read_spans(holding, address, count)
            if words is None and function in self.functions:        # from one into the other: one row of registers
                words = read_spans(_joined(image.spans + holding), address, count)
        return words


def per_phase(name: str, address: int, unit: str, form: str = "f32", per_unit: int | Fraction = 1, step: int = 2,
              phases: int = 3) -> tuple[Field, ...]:
    """A value for each phase, `step` registers from one to the next."""
    return tuple(Field(f"{name}_l{phase + 1}", address + step * phase, unit, form, per_unit)
                 for phase in range(phases))


def read_spans(spans: tuple[tuple[int, bytes], ...], address: int, count: int) -> list[int] | None:
    """Words out of (first address, bytes) spans; None if any is in none; spans never touch."""
    for first, data in spans:
        if first <= address and address + count <= first + len(data) // 2:
            offset = 2 * (address - first)
            return list(struct.unpack(f">{count}H", data[offset:offset + 2 * count]))
    return None


def _joined(spans: tuple[tuple[int, bytes], ...]) -> tuple[tuple[int, bytes], ...]:
    """The same spans in rising order, those that touch made one."""
    joined: list[tuple[int, bytes]] = []
    for address, data in sorted(spans):
        if joined and joined[-1][0] + len(joined[-1][1]) // 2 == address:
            joined[-1] = (joined[-1][0], joined[-1][1] + data)
        else:
            joined.append((address, data))
    return tuple(joined)
