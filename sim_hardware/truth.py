"""truth.csv, made from every image a simulator served: what the meters really showed, to join a ledger with.

Columns `point,time_ms,unit,type,registers`. `time_ms` = start of the step, label time, Unix ms. `registers` = all
measured registers of that step in rising order: spans `AAAA:words`, address and words in hexadecimal (4 digits each),
parted by one space. A row is on disk (handed to the kernel) before the first answer from its image leaves.

`read_truth` turns the rows into exact integers in small units, rounded half to even, by arithmetic of its own: nothing
of the firmware's decoder is used.
"""

import csv
import os
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

from sim_hardware.errors import SimError
from sim_hardware.meters import TYPES, Field

HEADER = "point,time_ms,unit,type,registers"

# Small units: mV, mA, W, VA, var, Wh, VAh, varh, mHz, 1/1000 for power factor, degree and Celsius, a per mille for
# per cent; a flag stays as it is.
SMALL_PER_UNIT = {"V": 1000, "A": 1000, "W": 1, "VA": 1, "var": 1, "kW": 1000, "kVA": 1000, "kvar": 1000, "Wh": 1,
                  "VAh": 1, "varh": 1, "kWh": 1000, "kVAh": 1000, "kvarh": 1000, "Hz": 1000, "1": 1000, "deg": 1000,
                  "Cel": 1000, "%": 10, "flag": 1}


class Row(NamedTuple):
    """One line of truth.csv as it stands."""

    point: int
    time_ms: int
    unit: int
    type: str
    registers: str


class TruthFile:
    """The writer: append only; continues a file that is there, and drops a last line that a kill cut short."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._last = _mend(path)
            self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            if os.fstat(self._file).st_size == 0:
                os.write(self._file, (HEADER + "\n").encode())
        except OSError as error:
            raise SimError("truth", f"{path}: {error.strerror}") from error

    def last(self, point: int) -> Row | None:
        """The newest row of `point` that the file held when it was opened."""
        return self._last.get(point)

    def write(self, rows: Iterable[Row]) -> None:
        """Append the rows in one write, so that a kill leaves whole rows or a torn last line, which opening mends."""
        data = "".join(f"{row.point},{row.time_ms},{row.unit},{row.type},{row.registers}\n" for row in rows).encode()
        try:
            while data:
                data = data[os.write(self._file, data):]
        except OSError as error:
            raise SimError("truth", f"{self.path}: {error.strerror}") from error

    def close(self) -> None:
        os.close(self._file)


def rows_of(path: Path) -> Iterator[Row]:
    """Every row of a truth file; a malformed one is named by its line."""
    with open(path, newline="", encoding="ascii") as file:
        reader = csv.reader(file)
        if next(reader, []) != HEADER.split(","):
            raise SimError("truth", f"{path} line 1: expected {HEADER}")
        for cells in reader:
            try:
                point, time_ms, unit, type_name, registers = cells
                row = Row(int(point), int(time_ms), int(unit), type_name, registers)
            except ValueError as error:
                raise SimError("truth", f"{path} line {reader.line_num}: expected {HEADER}, found {cells}") from error
            if row.type not in TYPES:
                raise SimError("truth", f"{path} line {reader.line_num}: unknown meter type {row.type!r}")
            yield row


def read_truth(*paths: Path | str) -> dict[tuple[int, int], dict[str, int]]:
    """{(point, time_ms): {field name: integer in its small unit}} of one or several truth files.

    Two rows for one (point, time_ms) must be equal (two simulators never tell two truths): SimError otherwise.
    """
    result: dict[tuple[int, int], dict[str, int]] = {}
    origin: dict[tuple[int, int], Row] = {}
    for path in paths:
        for row in rows_of(Path(path)):
            key = row.point, row.time_ms
            if key in origin:
                if origin[key] != row:
                    raise SimError("truth", f"{path}: point {row.point} at {row.time_ms} has two different rows")
                continue
            origin[key] = row
            result[key] = decode_row(row)
    return result


def decode_row(row: Row) -> dict[str, int]:
    """{field name: integer in its small unit} of one row."""
    try:
        spans = [(int(address, 16), bytes.fromhex(words)) for address, words in
                 (span.split(":") for span in row.registers.split())]
    except ValueError as error:
        raise SimError("truth", f"point {row.point} at {row.time_ms}: expected AAAA:words, found {row.registers!r}"
                       ) from error
    return {field.name: _small(field, _words_of(field, spans)) for field in TYPES[row.type].fields}


def _words_of(field: Field, spans: list[tuple[int, bytes]]) -> bytes:
    size = 2 * field.words
    for address, data in spans:
        offset = 2 * (field.address - address)
        if 0 <= offset and offset + size <= len(data):
            return data[offset:offset + size]
    raise SimError("truth", f"no register {field.address:#06x} in the row, {field.name} cannot be read")


def _small(field: Field, words: bytes) -> int:
    kind, _, order = field.form.partition("_")
    if order:
        words = b"".join(words[at:at + 2] for at in range(len(words) - 2, -1, -2))
    ratio = field.sign * SMALL_PER_UNIT[field.unit] / Fraction(field.per_unit)
    if kind == "f32":
        return round_f32(int.from_bytes(words, "big"), ratio.numerator, ratio.denominator)
    raw = int.from_bytes(words, "big", signed=kind[0] == "s")
    return _half_even(raw * ratio.numerator, ratio.denominator)


def round_f32(bits: int, factor: int, divisor: int = 1) -> int:
    """IEEE 754 single (as its 32 bits) times a factor through a divisor, exactly, then rounded half to even."""
    exponent, fraction = bits >> 23 & 0xFF, bits & 0x7FFFFF
    if exponent == 0xFF:
        raise SimError("truth", f"the register holds {bits:#010x}, which is no number")
    mantissa = (fraction | 0x800000 if exponent else fraction) * factor
    shift = max(exponent, 1) - 150                              # value = mantissa x 2^shift
    size = _half_even(mantissa << max(shift, 0), divisor << max(-shift, 0))
    return -size if bits >> 31 else size


def _half_even(numerator: int, denominator: int) -> int:
    whole, rest = divmod(numerator, denominator)
    return whole + (2 * rest > denominator or (2 * rest == denominator and whole & 1))


def _mend(path: Path) -> dict[int, Row]:
    """Cut a torn last line off; the newest row of each point."""
    if not path.exists() or not path.stat().st_size:
        return {}
    with open(path, "rb+") as file:
        data = file.read()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            file.truncate(whole)
        if not whole:
            return {}
    return {row.point: row for row in rows_of(path)}


def first_time_ms(path: Path) -> int | None:
    """`time_ms` of the file's first row, None if there is no row."""
    if not path.exists() or not path.stat().st_size:
        return None
    return next((row.time_ms for row in rows_of(path)), None)
