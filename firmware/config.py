"""Makes a checked agent configuration out of the map that a board read from its file (TOML on Linux, JSON elsewhere).

An error names the key, what was expected, what was found, and the nearest known key. Unknown keys are errors: a
misspelt interval must not pass for the default.
"""

import hashlib
from collections import namedtuple

from firmware import meters, modbus
from firmware.tables import slim
from firmware.wire import cbor
from firmware.wire.topics import is_area

Config = namedtuple("Config", (
    "area", "genesis", "data", "brokers", "interval_s", "seal_every_s", "details_every_s", "silence_s", "window",
    "outbox", "journal_kib", "keep_frames_days", "signing_key", "tls_cert", "tls_key", "ca", "ntp", "plain_mqtt", "led",
    "buses", "hash", "own", "tables"))  # tables: {type: Meter as an agent keeps it (meters.slim)}
Bus = namedtuple("Bus", ("port", "baud", "parity", "gap_ms", "answer_ms", "meters"))
BusMeter = namedtuple("BusMeter", ("point", "unit", "type", "epoch", "gap_ms"))  # silence that this meter wants

POINTS = 32  # of one agent: their heads must fit one journal sector
DAY_S = 86400

# key: (kind, default or None for required, lowest, highest)
_TOP: dict = {
    "area": ("text", None, 1, 32), "genesis": ("text", "genesis.cbor", 1, 4096), "data": ("text", "data", 1, 4096),
    "brokers": ("texts", None, 1, 8), "interval_s": ("number", 60, 1, 3600),
    "seal_every_s": ("number", 60, 1, 3600), "details_every_s": ("number", 900, 0, DAY_S),
    "silence_s": ("number", 60, 1, 3600), "window": ("number", 20, 1, 1000), "outbox": ("number", 4096, 16, 100000),
    "journal_kib": ("number", 16384, 64, 1048576), "keep_frames_days": ("number", 30, 0, 3650),
    "signing_key": ("text", "signing.key", 1, 4096), "tls_cert": ("text", "tls.crt", 0, 4096),
    "tls_key": ("text", "tls.key", 0, 4096), "ca": ("text", "ca.crt", 0, 4096), "bus": ("tables", None, 1, 16),
    # of boards only: time servers (none named: the brokers' hosts), MQTT without encryption, the pin of a light
    "ntp": ("texts", [], 0, 4), "plain_mqtt": ("switch", False, 0, 0), "led": ("number", -1, -1, 64),
}
_BUS = {
    "port": ("text", None, 1, 4096), "baud": ("number", 0, 0, 1000000), "parity": ("text", "", 0, 1),
    "gap_ms": ("number", -1, -1, 10000), "answer_ms": ("number", 500, 10, 60000), "meter": ("tables", None, 1, 247),
}
_METER = {
    "point": ("number", None, 0, 0xFFFFFFFF), "unit": ("number", None, 0, 255), "type": ("text", None, 1, 32),
    "epoch": ("number", 1, 1, 0xFFFF),
}


class BadConfig(Exception):
    """A configuration that cannot be used: `key` (dotted, with numbers for tables) and a sentence."""

    def __init__(self, key, problem):
        super().__init__("%s: %s" % (key, problem))
        self.key = key
        self.problem = problem


def load(values, own=None):
    """Returns the Config of a plain map; BadConfig otherwise. own: {type: Meter} of a person's own files (own.py)."""
    top = checked(values, _TOP, "")
    own = own or {}
    if not is_area(top["area"]):
        raise BadConfig("area", "expected up to 32 of a-z, 0-9 and '-', found %r" % top["area"])
    for url in top["brokers"]:
        if not url.startswith("mqtts://") and not url.startswith("mqtt://"):
            raise BadConfig("brokers", "expected mqtts://HOST:PORT (mqtt:// on this machine only), found %r" % url)
    buses = []
    points: dict = {}
    kept: dict = {}
    for number in range(len(top["bus"])):
        buses.append(_bus(top["bus"][number], "bus[%d]" % number, points, own, kept))
    if len(points) > POINTS:
        raise BadConfig("bus", "expected %d points at most, found %d" % (POINTS, len(points)))
    digest = _hash_of(top, buses, kept)
    del top["bus"]
    tables = {name: kept[name][0] for name in kept}
    return Config(buses=tuple(buses), hash=digest, own=own, tables=tables, **top)


def table(name, own):
    """Returns the Meter of a type: one of a person's own, or a shipped one."""
    return own[name] if name in own else meters.load(name)


def places(config):
    """Returns the points to serve as agent.Place, bus by bus, with their whole tables."""
    from firmware.agent import Place  # a configuration is read before there is an agent

    whole = {name: table(name, config.own) for name in config.tables}
    found = []
    for number in range(len(config.buses)):
        for meter in config.buses[number].meters:
            found.append(Place(meter.point, number, meter.unit, whole[meter.type], meter.epoch))
    return tuple(found)


def _keep(name, own, kept):
    """Returns the slim Meter of a type; kept: {type: (slim Meter, hash of its register map)}, for a whole table takes
    room and a while."""
    if name not in kept:
        whole = table(name, own)
        kept[name] = (slim(whole), meters.map_hash(whole))
    return kept[name][0]


def _bus(values, name, points, own, kept):
    bus = checked(values, _BUS, name + ".")
    if bus["parity"] not in ("", "N", "E", "O"):
        raise BadConfig(name + ".parity", 'expected "N", "E" or "O", found %r' % bus["parity"])
    found = []
    units: dict = {}
    for number in range(len(bus["meter"])):
        key = "%s.meter[%d]" % (name, number)
        row = checked(bus["meter"][number], _METER, key + ".")
        if row["type"] not in meters.TYPES and row["type"] not in own:
            raise BadConfig(key + ".type", "expected one of %s, or the name of a file of your own beside this one; "
                            "found %r, did you mean %r?" % (", ".join(meters.TYPES), row["type"],
                                                            _nearest(row["type"], list(meters.TYPES) + sorted(own))))
        if row["point"] in points:
            raise BadConfig(key + ".point", "point %d stands in %s too" % (row["point"], points[row["point"]]))
        is_part = _is_part_of_a_device(row["type"], own)
        if row["unit"] in units and not (is_part and units[row["unit"]][1]):
            raise BadConfig(key + ".unit", "unit %d stands in %s too" % (row["unit"], units[row["unit"]][0]))
        points[row["point"]] = key
        units[row["unit"]] = (key, is_part)
        gap_ms = bus["gap_ms"]
        if gap_ms < 0:
            gap_ms = 0 if bus["port"].startswith("tcp://") else _keep(row["type"], own, kept).gap_ms
        _keep(row["type"], own, kept)
        found.append(BusMeter(row["point"], row["unit"], row["type"], row["epoch"], gap_ms))
    _check_port(bus["port"], name, found)
    first = _keep(found[0].type, own, kept)
    return Bus(bus["port"], bus["baud"] or first.baud, bus["parity"] or first.parity,
               max([row.gap_ms for row in found]), bus["answer_ms"], tuple(found))


def _is_part_of_a_device(name, own):
    """SunSpec's models are guarded, and one unit may be an inverter and a meter: two points, two files."""
    special = own[name].fields[0].special if name in own else None
    return special is not None and special.guard is not None


def _check_port(port, name, rows):
    """tcp://HOST:PORT, rtu+tcp://HOST:PORT or a device; a serial line's units are 1 to 247 (serial line V1.02, 2.2)."""
    if modbus.is_network(port):
        number = port[port.rfind(":") + 1:]
        if port.rfind(":") < port.find("//") + 3 or not number.isdigit() or not 0 < int(number) < 65536:
            raise BadConfig(name + ".port", "expected tcp://HOST:PORT or rtu+tcp://HOST:PORT, found %r" % port)
        if port.startswith("tcp://"):
            return
    for number in range(len(rows)):
        if not 0 < rows[number].unit <= 247:
            raise BadConfig("%s.meter[%d].unit" % (name, number),
                            "expected 1 to 247 on a serial line, found %d" % rows[number].unit)


def checked(values, known, prefix):
    """Returns the map with its defaults; known: {key: (kind, default or None for required, lowest, highest)}."""
    if not isinstance(values, dict):
        raise BadConfig(prefix.rstrip(".") or "file", "expected a table, found %r" % (values,))
    for key in sorted(values):
        if key not in known:
            raise BadConfig(prefix + key, "unknown key; did you mean %r?" % _nearest(key, sorted(known)))
    found = {}
    for key in sorted(known):
        kind, default, low, high = known[key]
        if key not in values:
            if default is None:
                raise BadConfig(prefix + key, "missing")
            found[key] = default
            continue
        found[key] = values[key]
        problem = _problem(values[key], kind, low, high)
        if problem:
            raise BadConfig(prefix + key, "expected %s, found %r" % (problem, values[key]))
    return found


def _problem(value, kind, low, high):
    """Returns what was expected where `value` is not it, else None."""
    if kind == "number":
        if not isinstance(value, int) or value is True or value is False or not low <= value <= high:
            return "a whole number from %d to %d" % (low, high)
        return None
    if kind == "switch":
        return None if value is True or value is False else "true or false"
    if kind == "decimal":  # whoever takes it looks at it closer
        return None if isinstance(value, str) or (isinstance(value, int) and value is not True and value is not False) \
            else 'a number, in quotes where this file\'s format would make it a float'
    if kind == "text":
        return None if isinstance(value, str) and low <= len(value) <= high else "a text"
    what = "a list of texts" if kind == "texts" else "tables"
    if not isinstance(value, list) or not low <= len(value) <= high:
        return "%s (%d to %d)" % (what, low, high)
    for item in value:
        if not isinstance(item, str if kind == "texts" else dict):
            return what
    return None


def _hash_of(top, buses, kept):
    """SHA-256 of what shapes the readings: field 16 of every seal. Where keys and folders are is not part of it."""
    rows = []
    for bus in buses:
        for meter in bus.meters:
            rows.append([meter.point, meter.unit, meter.type, meter.epoch, kept[meter.type][1]])
    rows.sort()
    data = cbor.encode([top["area"], top["interval_s"], top["seal_every_s"], top["details_every_s"], rows])
    return hashlib.sha256(data).digest()


def _nearest(word, known):
    from firmware.nearest import nearest  # where something is misspelt

    return nearest(word, known)
