"""A day of load, made from a CSV file with the columns time (or hour) and watt.

`hour` 0..23, or `time` as HH:MM or HH:MM:SS: one day, played again every day.
`time` as 2026-11-20T00:15:00Z (UTC, zone Z or +00:00): each date plays on its own date; on any other date the file's
dates are played in turn. A power holds until the next row; before the first row of the file the last one holds.
Positive = import. Further columns are ignored.
"""

import csv
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path

from sim_hardware.errors import SimError

MAX_ROWS = 600_000          # a year of minutes; more would be a mistake and fill the memory
MAX_WATT = 10**9            # a gigawatt: beyond it somebody has mixed up the columns
UNDATED = -1
EPOCH_ORDINAL = date(1970, 1, 1).toordinal()


class CsvDay:
    """The days of one file, read and checked at once."""

    def __init__(self, path: Path) -> None:
        rows = _read(path)
        dated: dict[int, list[tuple[int, int]]] = {}
        held = rows[-1][2]                      # one day goes round: before its first row the last one holds
        for day, start_s, power_mw in rows:
            if day not in dated:
                dated[day] = [] if start_s == 0 else [(0, held)]
            dated[day].append((start_s, power_mw))
            held = power_mw
        self._days = dated
        self._order = sorted(dated)

    def segments(self, day: int) -> list[tuple[int, int]]:
        """The file's own day if it has that date, else one of its days in turn."""
        if day in self._days:
            return self._days[day]
        return self._days[self._order[day % len(self._order)]]


def _read(path: Path) -> list[tuple[int, int, int]]:
    """(day, start_s, power_mw) of each row, rising."""
    rows: list[tuple[int, int, int]] = []
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            header = [name.strip().lower() for name in next(reader, [])]
            time_name = "time" if "time" in header else "hour"
            if time_name not in header or "watt" not in header:
                raise SimError("day", f"{path} line 1: expected columns time,watt or hour,watt, found {header}")
            columns = header.index(time_name), header.index("watt")
            for row in reader:
                if not any(cell.strip() for cell in row):
                    continue
                where = f"{path} line {reader.line_num}"
                if len(row) <= max(columns):
                    raise SimError("day", f"{where}: expected {len(header)} columns, found {len(row)}")
                day, start_s = _moment(row[columns[0]].strip(), time_name, where)
                if rows and (day == UNDATED) != (rows[0][0] == UNDATED):
                    raise SimError("day", f"{where}: expected times of one kind, with or without a date")
                if rows and (day, start_s) <= rows[-1][:2]:
                    raise SimError("day", f"{where}: expected a time after the row before, found {row[columns[0]]!r}")
                rows.append((day, start_s, _power(row[columns[1]].strip(), where)))
                if len(rows) > MAX_ROWS:
                    raise SimError("day", f"{where}: expected at most {MAX_ROWS} rows")
    except OSError as error:
        raise SimError("day", f"{path}: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise SimError("day", f"{path}: expected text in UTF-8, comma separated: {error}") from error
    if not rows:
        raise SimError("day", f"{path}: expected at least one row below the header, found none")
    return rows


def _moment(text: str, time_name: str, where: str) -> tuple[int, int]:
    """(day number or UNDATED, second of the day)."""
    try:
        if time_name == "hour":
            hour = int(text)
            if not 0 <= hour <= 23:
                raise ValueError("an hour outside 0..23")
            return UNDATED, hour * 3600
        if "T" in text or " " in text:
            moment = datetime.fromisoformat(text)
            if moment.utcoffset() is None or moment.utcoffset() != UTC.utcoffset(None) or moment.microsecond:
                raise ValueError("not whole seconds of UTC")
            return moment.toordinal() - EPOCH_ORDINAL, moment.hour * 3600 + moment.minute * 60 + moment.second
        parts = [int(part) for part in text.split(":")]
        if len(parts) not in (2, 3) or not (0 <= parts[0] <= 23 and all(0 <= part <= 59 for part in parts[1:])):
            raise ValueError("not a time of day")
        return UNDATED, parts[0] * 3600 + parts[1] * 60 + (parts[2] if len(parts) == 3 else 0)
    except ValueError as error:
        raise SimError("day", f"{where}: expected an hour 0..23, HH:MM[:SS] or YYYY-MM-DDTHH:MM:SSZ, "
                              f"found {text!r} ({error})") from error


def _power(text: str, where: str) -> int:
    try:
        watt = Decimal(text)
    except InvalidOperation as error:
        raise SimError("day", f"{where}: expected a number of watt, found {text!r}") from error
    if not watt.is_finite() or abs(watt) > MAX_WATT:
        raise SimError("day", f"{where}: expected a power within {MAX_WATT} W, found {text!r}")
    return int(watt * 1000)
