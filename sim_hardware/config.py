"""SimConfig, made from a TOML file or from keyword arguments; every mistake is named with file, line and key.

A file of faults (`load_faults`) says which meter misbehaves how and when:

    [[fault]]
    point = 2
    fault = "late 800 every 3"
    from_s = 600            # label seconds after the simulator's start (default 0)
    until_s = 1200          # default: for ever
"""

import difflib
import re
import tomllib
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

from sim_hardware.errors import SimError
from sim_hardware.faults import Fault, parse_fault
from sim_hardware.load import DAY_S
from sim_hardware.meters import TYPES, MeterType, type_called

BAUDS = (1200, 2400, 4800, 9600, 19200, 38400, 57600, 115200)
MAX_POINT = 2**32 - 1
MAX_METERS = 1000           # of one process: each costs about 25 (one phase) to 90 us (three) of work a step


@dataclass(frozen=True)
class MeterConfig:
    """One meter. `scale` multiplies the day's power; `fault` holds from the start; `start_kwh` is on the import counter
    when it is installed (beside what a new meter shows), so that a rollover need not be waited for.
    """

    point: int
    unit: int
    type: MeterType
    day: str = "generated:household"
    scale: Fraction = Fraction(1)
    fault: Fault = Fault()
    start_kwh: int = 0


@dataclass(frozen=True)
class BusConfig:
    """One bus: `tcp` = (host, port), port 0 = any, or `rtu_tcp` = the same with RTU frames of a serial line behind it,
    or `pty` = path of a link to make ("" = none).

    `strict`: a master that has set another baud rate on the pty is not understood, as on copper.
    """

    meters: tuple[MeterConfig, ...]
    tcp: tuple[str, int] | None = None
    pty: str | None = None
    rtu_tcp: tuple[str, int] | None = None
    baud: int = 9600
    parity: str = "N"
    strict: bool = False


@dataclass(frozen=True)
class FaultWindow:
    """A fault of one point from `from_s` to `until_s` (None = for ever), label seconds after the simulator's start."""

    point: int
    fault: Fault
    from_s: int = 0
    until_s: int | None = None


@dataclass(frozen=True)
class SimConfig:
    """All that one simulator process serves. `folder`: what relative paths of csv days count from."""

    buses: tuple[BusConfig, ...]
    seed: int = 1
    step_s: int = 1
    truth: Path | None = None
    control: tuple[str, int] | None = None
    installed: date | None = None
    folder: Path = Path(".")
    faults: tuple[FaultWindow, ...] = ()


ROOT_KEYS = ("seed", "step_s", "truth", "control", "installed", "faults", "bus")
BUS_KEYS = ("tcp", "pty", "rtu_tcp", "baud", "parity", "strict", "meter")
FAULT_KEYS = ("point", "fault", "from_s", "until_s")
METER_KEYS = ("point", "unit", "type", "day", "scale", "fault", "start_kwh")


def load_config(path: Path) -> SimConfig:
    """Read and check a TOML file; SimError("config") names file, line, key, what was expected and what was found."""
    try:
        text = path.read_text(encoding="utf-8")
        data = tomllib.loads(text, parse_float=Decimal)
    except OSError as error:
        raise SimError("config", f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SimError("config", f"{path}: expected text in UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise SimError("config", f"{path}: {error}") from error
    return parse_config(data, _Places(str(path), text), path.parent)


def parse_config(data: dict[str, Any], places: "_Places", folder: Path) -> SimConfig:
    """The same from a dictionary of the file's shape."""
    root = _Table(data, places, "")
    root.allow(ROOT_KEYS)
    buses = tuple(_bus(_Table(bus, places, f"bus[{index}]")) for index, bus in enumerate(root.tables("bus")))
    truth, control = root.text("truth", ""), root.text("control", "")
    installed = data.get("installed")
    if installed is not None and type(installed) is not date:
        raise root.error("installed", "a date such as 2026-11-20", installed)
    config = SimConfig(buses, root.whole("seed", 1, 0, 2**63), root.whole("step_s", 1, 1, DAY_S),
                       folder / truth if truth else None,
                       parse_address(control, lambda found: root.error("control", "HOST:PORT", found))
                       if control else None, installed, folder,
                       load_faults(folder / root.text("faults", ""), buses) if root.text("faults", "") else ())
    if DAY_S % config.step_s:
        raise root.error("step_s", "a number of seconds that divides a day", config.step_s)
    check_config(config)
    return config


def load_faults(path: Path, buses: tuple[BusConfig, ...]) -> tuple[FaultWindow, ...]:
    """The windows of a file of faults, for the meters of these buses; SimError("config") names file, line and key."""
    try:
        text = path.read_text(encoding="utf-8")
        data = tomllib.loads(text)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SimError("config", f"{path}: {error}") from error
    places = _Places(str(path), text)
    root = _Table(data, places, "")
    root.allow(("fault",))
    return tuple(_window(_Table(row, places, f"fault[{index}]"), buses)
                 for index, row in enumerate(root.tables("fault")))


def _window(table: "_Table", buses: tuple[BusConfig, ...]) -> FaultWindow:
    table.allow(FAULT_KEYS)
    point = table.whole("point", 0, 1, MAX_POINT)
    bus = next((bus for bus in buses if point in [meter.point for meter in bus.meters]), None)
    if bus is None:
        raise table.error("point", "a point of a meter here", point)
    from_s = table.whole("from_s", 0, 0, 10**9)
    until_s = table.whole("until_s", 0, from_s + 1, 10**9) if "until_s" in table.data else None
    return FaultWindow(point, _fault(table, rtu=bus.tcp is None, network=bus.pty is None), from_s, until_s)


def check_config(config: SimConfig) -> None:
    """What holds across tables: points and units apart, at least one bus, not too many meters."""
    points = [meter.point for bus in config.buses for meter in bus.meters]
    if not points or len(points) > MAX_METERS:
        raise SimError("config", f"expected 1..{MAX_METERS} meters, found {len(points)}")
    for point in points:
        if points.count(point) > 1:
            raise SimError("config", f"expected each point once, found point {point} {points.count(point)} times")
    for index, bus in enumerate(config.buses):
        units = [meter.unit for meter in bus.meters]
        if len(set(units)) < len(units):
            raise SimError("config", f"bus[{index}]: expected each unit once, found units {sorted(units)}")


def parse_address(text: str, error: Any) -> tuple[str, int]:
    """(host, port) of HOST:PORT; `error(found)` makes the exception."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise error(text)
    return host, int(port)


def _bus(table: "_Table") -> BusConfig:
    table.allow(BUS_KEYS)
    lines = [key for key in ("tcp", "pty", "rtu_tcp") if key in table.data]
    if len(lines) != 1:
        raise table.error(lines[0] if lines else "", "one of tcp, pty, rtu_tcp", " and ".join(lines) or "none")
    meters = tuple(_meter(_Table(meter, table.places, f"{table.name}.meter[{index}]"), rtu=lines != ["tcp"],
                          network=lines != ["pty"]) for index, meter in enumerate(table.tables("meter")))
    address = None
    if lines != ["pty"]:
        address = parse_address(table.text(lines[0], ""), lambda found: table.error(lines[0], "HOST:PORT", found))
    if lines == ["tcp"]:
        for key in ("baud", "parity", "strict"):
            if key in table.data:
                raise table.error(key, "no line settings on a TCP bus", table.data[key])
        return BusConfig(meters, tcp=address)
    baud = table.whole("baud", meters[0].type.baud if meters else 9600, 1, 10**6)
    if baud not in BAUDS:
        raise table.error("baud", f"one of {BAUDS}", baud)
    parity = table.text("parity", meters[0].type.parity if meters else "N")
    strict = table.data.get("strict", False)
    if not isinstance(strict, bool):
        raise table.error("strict", "true or false", strict)
    if parity not in ("N", "E", "O"):
        raise table.error("parity", "N, E or O", parity)
    if address is not None:
        return BusConfig(meters, rtu_tcp=address, baud=baud, parity=parity)
    return BusConfig(meters, pty=table.text("pty", ""), baud=baud, parity=parity, strict=strict)


def _meter(table: "_Table", *, rtu: bool, network: bool) -> MeterConfig:
    table.allow(METER_KEYS)
    for key in ("point", "unit", "type"):
        if key not in table.data:
            raise table.error("", f"the key {key}", "none")
    meter = type_called(table.text("type", ""))
    if meter is None:
        raise table.error("type", f"one of {', '.join(TYPES)}", table.data["type"])
    scale = table.data.get("scale", 1)
    if (isinstance(scale, bool) or not isinstance(scale, int | Decimal) or not Decimal(scale).is_finite()
            or not 0 < scale <= 1000):
        raise table.error("scale", "a number above 0, at most 1000", scale)
    fault = _fault(table, rtu=rtu, network=network)
    return MeterConfig(table.whole("point", 0, 1, MAX_POINT), table.whole("unit", 0, 1, 247), meter,
                       table.text("day", meter.day), Fraction(scale), fault,
                       table.whole("start_kwh", 0, 0, 10**9))


def _fault(table: "_Table", *, rtu: bool, network: bool) -> Fault:
    try:
        return parse_fault(table.text("fault", "none"), rtu=rtu, network=network)
    except SimError as error:
        raise table.error("fault", error.detail, table.data["fault"]) from error


class _Table:
    """One table of the file with checks that name their place."""

    def __init__(self, data: Any, places: "_Places", name: str) -> None:
        self.places, self.name = places, name
        if not isinstance(data, dict):
            raise self.error("", "a table", data)
        self.data: dict[str, Any] = data

    def error(self, key: str, expected: str, found: object) -> SimError:
        return SimError("config", f"{self.places.where(self.name, key)}: expected {expected}, found {found!r}")

    def allow(self, keys: tuple[str, ...]) -> None:
        for key in self.data:
            if key not in keys:
                near = difflib.get_close_matches(key, keys, 1, 0.0)
                raise self.error(key, f"a known key (nearest: {near[0]})", key)

    def whole(self, key: str, default: int, low: int, high: int) -> int:
        value = self.data.get(key, default)
        if type(value) is not int or not low <= value <= high:
            raise self.error(key, f"a whole number {low}..{high}", value)
        return value

    def text(self, key: str, default: str) -> str:
        value = self.data.get(key, default)
        if not isinstance(value, str):
            raise self.error(key, "a text in quotes", value)
        return value

    def tables(self, key: str) -> list[Any]:
        value = self.data.get(key, [])
        if not isinstance(value, list):
            raise self.error(key, f"[[{key}]] tables", value)
        return value


class _Places:
    """Lines of keys in a TOML text; tomllib does not keep them, so they are looked for in the plain layout."""

    def __init__(self, file: str, text: str = "") -> None:
        self._file = file
        self._lines: dict[tuple[str, str], int] = {}
        table, counts = "", {"bus": -1, "bus.meter": -1, "fault": -1}
        for number, line in enumerate(text.splitlines(), 1):
            if header := re.match(r"\s*\[\[\s*(bus(?:\.meter)?|fault)\s*\]\]", line):
                counts[header[1]] += 1
                if header[1] == "bus":
                    counts["bus.meter"] = -1
                table = f"bus[{counts['bus']}]" if header[1] != "fault" else f"fault[{counts['fault']}]"
                if header[1] == "bus.meter":
                    table += f".meter[{counts['bus.meter']}]"
                self._lines[table, ""] = number
            elif key := re.match(r"\s*\"?([A-Za-z0-9_-]+)\"?\s*=", line):
                self._lines.setdefault((table, key[1]), number)

    def where(self, table: str, key: str) -> str:
        line = self._lines.get((table, key)) or self._lines.get((table, ""))
        name = ".".join(part for part in (table, key) if part)
        return f"{self._file}{f' line {line}' if line else ''}{f': {name}' if name else ''}"
