"""Days of load, sun and wind, made from a name such as "table4:LA1", "generated:sun" or "csv:day.csv".

A day source answers `segments(day)`: for the UTC day number `day` (days since 1970-01-01) a list of
`(start_s, power_mw)`, the first at 0, rising, each power holding until the next start or 86,400 s.
Power is active power in milliwatt, positive = taken from the grid (import), negative = given (export).
"""

from pathlib import Path
from typing import Protocol

from sim_hardware.days import table4
from sim_hardware.days.csv_file import CsvDay
from sim_hardware.days.generated import GENERATORS, GeneratedDay
from sim_hardware.errors import SimError

DAY_S = 86_400
Segments = list[tuple[int, int]]


class Day(Protocol):
    """A source of days; equal arguments give equal segments, whatever was asked before."""

    def segments(self, day: int) -> Segments:
        """The UTC day `day` as (start_s, power_mw)."""


def open_day(name: str, seed: int, point: int, folder: Path = Path(".")) -> Day:
    """The day source called `name`; generated ones differ per (seed, point); csv paths count from `folder`."""
    kind, _, rest = name.partition(":")
    if kind == "table4" and rest in table4.COLUMNS:
        return table4.Table4Day(rest)
    if kind == "generated" and rest in GENERATORS:
        return GeneratedDay(rest, seed, point)
    if kind == "csv" and rest:
        return CsvDay(folder / rest)
    known = [f"table4:{column}" for column in table4.COLUMNS] + [f"generated:{kind}" for kind in GENERATORS]
    raise SimError("day", f"expected one of {', '.join(known)} or csv:FILE, found {name!r}")
