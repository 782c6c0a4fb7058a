"""Makes checked settings from a TOML file: `load(path, schema)` for any file, `load_gateway(path)` for gateway.toml.

A mistake in a file is told the way a person can mend it: file, line, key, what was expected, the nearest known key.
Unknown keys are errors: a misspelt limit that is silently ignored is worse than a gateway that does not start.
"""

import difflib
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from firmware.wire.device import is_text

REQUIRED = object()  # the default of a key that has none
# A configuration of 200 meters has about 30 KiB; more than this is a wrong file.
FILE_BYTES = 1 << 20
LOOPBACK = ("127.0.0.1", "localhost", "::1")
BAUDS = (1200, 2400, 4800, 9600, 19200, 38400, 57600, 115200)
EXIT_CODE = 2  # gateway.md, One command: 2 = usage or unreadable

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}\Z")  # a level of a topic: no '/', '+', '#'
_ADDRESS = re.compile(r"(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+):([0-9]{1,5})\Z")
_HEADER = re.compile(r"\s*(\[{1,2})\s*([^\[\]]+?)\s*\]{1,2}\s*(#.*)?\Z")
_ASSIGNMENT = re.compile(r"""\s*("[^"]*"|'[^']*'|[A-Za-z0-9_.-]+(?:\s*\.\s*[A-Za-z0-9_-]+)*)\s*=""")


class ConfigError(Exception):
    """A file that cannot be used; `str()` is the line for the person who wrote it."""

    exit_code = EXIT_CODE

    def __init__(self, file: Path, line: int, key: str, expected: str, found: str = "", nearest: str = ""):
        self.file, self.line, self.key = file, line, key
        self.expected, self.found, self.nearest = expected, found, nearest
        place = f"{file}:{line}: " if line else f"{file}: "
        text = f"{place}{key}: expected {expected}" if key else f"{place}expected {expected}"
        if found:
            text += f", found {found}"
        if nearest:
            text += f"; did you mean {nearest}?"
        super().__init__(text)


class Key(NamedTuple):
    """One key: what it is in words, the test of a value (True = good), the value when it is left out."""

    expected: str
    accepts: Callable[[Any], bool]
    default: Any = REQUIRED


class Table(NamedTuple):
    """A `[table]` of keys; `many` makes it a `[[table]]`, given back as a list of dicts."""

    keys: Mapping[str, "Key | Table"]
    many: bool = False
    required: bool = True


def text(expected: str = "a text", default: Any = REQUIRED) -> Key:
    """A text that is not empty."""
    return Key(expected, lambda value: isinstance(value, str) and value != "", default)


def choice(*values: str, default: Any = REQUIRED) -> Key:
    """One of some words."""
    return Key("one of " + ", ".join(values), lambda value: isinstance(value, str) and value in values, default)


def whole(lowest: int, highest: int, default: Any = REQUIRED) -> Key:
    """A whole number between two bounds, both included."""
    return Key(f"a whole number from {lowest} to {highest}",
               lambda value: type(value) is int and lowest <= value <= highest, default)


def truth(default: Any = REQUIRED) -> Key:
    """true or false."""
    return Key("true or false", lambda value: isinstance(value, bool), default)


def name(default: Any = REQUIRED) -> Key:
    """A name that may stand in a topic."""
    return Key("a name of lower-case letters, digits and '-', at most 32",
               lambda value: isinstance(value, str) and _NAME.match(value) is not None, default)


def address(default: Any = REQUIRED) -> Key:
    """host:port."""
    return Key('an address "host:port"', is_address, default)


def addresses(default: Any = REQUIRED) -> Key:
    """A list of host:port."""
    return Key('a list of addresses "host:port"', lambda value: _is_list_of(is_address, value), default)


def brokers(default: Any = REQUIRED) -> Key:
    """A list of brokers' addresses; without TLS on this machine only (security.md T22)."""
    return Key('a list of brokers "mqtts://host:port" (or "mqtt://127.0.0.1:port", without TLS, on this machine only)',
               lambda value: _is_list_of(is_broker, value), default)


def is_address(value: object) -> bool:
    """True for "host:port"."""
    match = _ADDRESS.match(value) if isinstance(value, str) else None
    return match is not None and int(match.group(2)) <= 65535


def is_own_address(value: object) -> bool:
    """True for host:port where host is this machine and nobody else's."""
    return isinstance(value, str) and is_address(value) and split_address(value)[0] in LOOPBACK


def is_broker(value: object) -> bool:
    """True for mqtts://host:port, and for mqtt://host:port where host is this machine."""
    if not isinstance(value, str):
        return False
    scheme, mark, rest = value.partition("://")
    return mark != "" and is_address(rest) and (
        scheme == "mqtts" or scheme == "mqtt" and split_address(rest)[0] in LOOPBACK)


def is_line(value: object) -> bool:
    """True for tcp://host:port and for an absolute path."""
    return isinstance(value, str) and (value.startswith("/") or is_address(value.removeprefix("tcp://"))
                                       and value.startswith("tcp://"))


def split_address(value: str) -> tuple[str, int]:
    """(host, port) of "host:port"; IPv6 in brackets."""
    host, _, port = value.rpartition(":")
    return host.strip("[]"), int(port)


def load(path: Path, schema: Table) -> dict[str, Any]:
    """The file's values by the schema, defaults filled in; raises ConfigError."""
    path = Path(path)
    try:
        with open(path, "rb") as file:
            data = file.read(FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(path, 0, "", "a file that can be read", error.strerror or "nothing") from error
    if len(data) > FILE_BYTES:
        raise ConfigError(path, 0, "", f"at most {FILE_BYTES} bytes", "more")
    try:
        source = data.decode()
        values = tomllib.loads(source)
    except UnicodeDecodeError as error:
        raise ConfigError(path, data.count(b"\n", 0, error.start) + 1, "", "a text in UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        message = str(error)
        place = re.search(r"line (\d+)", message)
        line = int(place.group(1)) if place else source.count("\n") + 1
        raise ConfigError(path, line, "", "TOML", message[:1].lower() + message[1:]) from error
    return _check_table(path, _lines(source), schema, values, ())


class DeviceConfig(NamedTuple):
    """A security and stability control device that this replica pulls; times of the check are labels."""

    name: str
    model: str
    port: str  # tcp://host:port, or a serial device
    unit: int
    twin: bool
    baud: int
    check_interval_s: int


class GatewayConfig(NamedTuple):
    """gateway.toml with paths made absolute; keys as in the schema below."""

    file: Path
    genesis: Path
    data: Path
    area: str
    listen: str
    api: str
    peers: tuple[str, ...]
    brokers: tuple[str, ...]
    signing_key: Path
    tls_cert: Path
    tls_key: Path
    ca: Path
    ack_interval_s: int
    transfer_after: int
    database: str
    scrub_s: int
    devices: tuple[DeviceConfig, ...] = ()


GATEWAY = Table({
    "genesis": text("the genesis file"),
    "data": text("the folder of ledger and votes", "data"),
    "area": name(),
    "listen": address("127.0.0.1:0"),
    "api": Key('an address "host:port" of this machine (127.0.0.1; the page has no login yet)', is_own_address,
               "127.0.0.1:0"),
    "peers": addresses(()),
    "brokers": brokers(),
    "signing_key": text("the file of the signing key", "signing.key"),
    "tls_cert": text("the file of the TLS certificate", "tls.crt"),
    "tls_key": text("the file of the TLS key", "tls.key"),
    "ca": text("the file of the area's CA certificate"),
    # an agent hears at most one ack in this time; an hour is the longest an agent is left without news
    "ack_interval_s": whole(1, 3600, 10),
    # blocks that this replica may lack and still fetch and execute one by one (some 10 minutes); of more it takes the
    # state alone, and keeps blocks from there on
    "transfer_after": whole(0, 1 << 32, 100_000),
    # rest between two passes through all records, looking for damage
    "scrub_s": whole(1, 30 * 86_400, 21_600),
    # "": SQLite in the data folder, as on a Pi; a server is for those who keep many gateways on one
    "database": Key('the address of a PostgreSQL database, "postgresql://..."',
                    lambda value: isinstance(value, str) and value.startswith(("postgresql://", "postgres://")), ""),
    "device": Table({
        "name": name(),
        "model": Key("the device's model as it was certified, 1 to 64 bytes",
                     lambda value: isinstance(value, str) and is_text(value)),
        "port": Key('a line "tcp://host:port" or the path of a serial device', is_line),
        "unit": whole(1, 247, 1),
        "twin": truth(False),
        "baud": Key("a speed of a serial line, 1200 to 115200", lambda value: value in BAUDS, 9600),
        "check_interval_s": whole(1, 86_400, 900),
    }, many=True, required=False),
})
_PATHS = ("genesis", "data", "signing_key", "tls_cert", "tls_key", "ca")


def load_gateway(path: Path) -> GatewayConfig:
    """gateway.toml (or the folder it lies in) as GatewayConfig; raises ConfigError. Paths count from the file."""
    path = Path(path)
    if path.is_dir():
        path = path / "gateway.toml"
    values = load(path, GATEWAY)
    for key in _PATHS:
        values[key] = path.parent.joinpath(values[key]).resolve()
    for key in ("peers", "brokers"):
        values[key] = tuple(values[key])
    values["devices"] = tuple(DeviceConfig(**one) for one in values.pop("device"))
    for one in values["devices"]:
        if one.unit + one.twin > 247:
            raise ConfigError(path, 0, f"device {one.name}", "a unit below 247, its twin answers at the next", "247")
    names = [one.name for one in values["devices"]]
    if len(set(names)) < len(names):
        raise ConfigError(path, 0, "device", "each device once", ", ".join(names))
    return GatewayConfig(file=path.resolve(), **values)


def _is_list_of(accepts: Callable[[object], bool], value: object) -> bool:
    return isinstance(value, list) and all(accepts(one) for one in value)


def _check_table(path: Path, lines: dict[tuple[str, ...], int], table: Table, values: dict[str, Any],
                 at: tuple[str, ...]) -> dict[str, Any]:
    for key in values:
        if key not in table.keys:
            near = difflib.get_close_matches(key, list(table.keys), 1, 0.5)
            raise ConfigError(path, _line(lines, at + (key,)), _dotted(at + (key,)), "a known key",
                              "an unknown one", near[0] if near else "")
    result = {}
    for key, rule in table.keys.items():
        here = at + (key,)
        if isinstance(rule, Table):
            result[key] = _check_tables(path, lines, rule, values.get(key), here)
        elif key not in values:
            if rule.default is REQUIRED:
                raise ConfigError(path, _line(lines, at), _dotted(here), rule.expected, "nothing")
            result[key] = rule.default
        elif not rule.accepts(values[key]):
            raise ConfigError(path, _line(lines, here), _dotted(here), rule.expected, _shown(values[key]))
        else:
            result[key] = values[key]
    return result


def _check_tables(path: Path, lines: dict[tuple[str, ...], int], rule: Table, found: Any,
                  at: tuple[str, ...]) -> Any:
    if found is None:
        if rule.required:
            expected = f"a table [[{_dotted(at)}]]" if rule.many else f"a table [{_dotted(at)}]"
            raise ConfigError(path, _line(lines, at[:-1]), _dotted(at), expected, "nothing")
        return [] if rule.many else None
    if rule.many:
        if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
            raise ConfigError(path, _line(lines, at), _dotted(at), f"tables [[{_dotted(at)}]]", _shown(found))
        return [_check_table(path, lines, rule, one, at + (str(number),)) for number, one in enumerate(found)]
    if not isinstance(found, dict):
        raise ConfigError(path, _line(lines, at), _dotted(at), f"a table [{_dotted(at)}]", _shown(found))
    return _check_table(path, lines, rule, found, at)


def _dotted(at: tuple[str, ...]) -> str:
    """("bus", "0", "meter", "1", "point") as bus[1].meter[2].point: people count from one."""
    result = ""
    for part in at:
        result += f"[{int(part) + 1}]" if part.isdecimal() and result else ("." if result else "") + part
    return result


def _shown(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."


def _line(lines: dict[tuple[str, ...], int], at: tuple[str, ...]) -> int:
    """The line of a key, or of the nearest thing around it that has one; 0 = the file as a whole."""
    while at and at not in lines:
        at = at[:-1]
    return lines.get(at, 0)


def _lines(source: str) -> dict[tuple[str, ...], int]:
    """Where each table and key stands. tomllib tells no lines; the file is known to be good TOML here."""
    lines: dict[tuple[str, ...], int] = {}
    counts: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    for number, line in _statements(source):
        header = _HEADER.match(line)
        if header:
            table = ()
            parts = _parts(header.group(2))
            for position, part in enumerate(parts, 1):
                table += (part,)
                last = position == len(parts)
                if last and header.group(1) == "[[":
                    counts[table] = counts.get(table, -1) + 1
                    lines.setdefault(table, number)
                if table in counts:
                    table += (str(counts[table]),)
            lines.setdefault(table, number)
            continue
        assignment = _ASSIGNMENT.match(line)
        if assignment:
            lines.setdefault(table + _parts(assignment.group(1)), number)
    return lines


def _statements(source: str) -> Iterator[tuple[int, str]]:
    """(line number, line) of the lines that begin a statement: not those inside a list or a text of several lines."""
    open_lists, open_text = 0, ""
    for number, line in enumerate(source.splitlines(), 1):
        if not open_lists and not open_text:
            yield number, line
            if _HEADER.match(line):
                continue
        for token in re.findall(r'"""|\'\'\'|"(?:[^"\\]|\\.)*"|\'[^\']*\'|#.*|[\[\]{}]', line):
            if open_text:
                open_text = "" if token == open_text else open_text
            elif token in ('"""', "'''"):
                open_text = token
            elif token in "[{":
                open_lists += 1
            elif token in "]}":
                open_lists -= 1


def _parts(dotted: str) -> tuple[str, ...]:
    return tuple(part.strip().strip("\"'") for part in dotted.split("."))
