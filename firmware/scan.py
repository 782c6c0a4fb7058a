"""Makes findings (line settings, unit, meter type) from a bus, by reading requests alone: functions 3, 4 and 43/14.

A unit is there when it answers anything, an exception too. Which type it is: by the identification register where the
maker has one, by SunSpec's marker, and else by reading it as each type in turn: registers that answer, that hold what
a mains connection can show, and powers that fit each other speak for a type, silence and nonsense against it. Types
with the same registers cannot be told apart and are named together.
"""

from collections import namedtuple

from firmware import bus, decode, meters, modbus, sunspec

# What is tried, most usual first: what the makers ship, then what people set. Settings of a line: (baud, parity).
LINES = ((9600, "N"), (2400, "N"), (9600, "E"), (19200, "E"), (19200, "N"), (38400, "N"), (4800, "N"), (1200, "N"),
         (115200, "N"), (2400, "E"), (38400, "E"), (57600, "N"), (4800, "E"), (9600, "O"), (19200, "O"))
GATEWAY = ("exception_10", "exception_11")  # of a box between TCP and the line: nobody is there
SWEEP_MS, ANSWER_MS = 250, 600
STRANGERS = 40  # below this many points a type is not named
CERTAIN = 1000  # what an identification register or a product's name adds
TWINS = (("sdm120", "sdm230"),)  # the same registers as far as they can be read: only a name tells them apart

# line: (baud, parity) or None; types: best first, all of one score; device: sunspec.Device or None; product: what the
# unit says of itself by 43/14, or ""; number: its serial number, or "".
Finding = namedtuple("Finding", ("line", "unit", "types", "device", "product", "number", "points"))


def present(port, units, function=4, answer_ms=SWEEP_MS):
    """Returns the units that answer on an open line. Few are silent to a function they do not know; those want 3."""
    found = []
    for unit in units:
        try:
            bus.ask(port, unit, modbus.read_registers(function, 0, 2), answer_ms)
        except modbus.BadAnswer as bad:
            if bad.reason in GATEWAY or not bad.reason.startswith(modbus.EXCEPTION):
                continue
        found.append(unit)
    return found


def identify(port, unit, line, answer_ms=ANSWER_MS):
    """Returns the Finding of one unit that is there."""
    product = product_of(port, unit, answer_ms)

    def read(address, count):
        return _words(port, unit, 3, address, count, answer_ms)
    device = sunspec.discover(read)
    if device is not None and device.models:
        return Finding(line, unit, (), device, product, device.number, 0)
    scores = []
    for name in meters.TYPES:
        table = meters.load(name)
        scores.append((points_of(port, unit, table, product, answer_ms), name))
    best = max([points for points, _ in scores])
    if best < STRANGERS:
        return Finding(line, unit, (), None, product, "", best)
    types = tuple([name for points, name in scores if points == best])
    for twins in TWINS:
        if types[0] in twins and best < CERTAIN:
            types = twins
    return Finding(line, unit, types, None, product, number_of(port, unit, meters.load(types[0]), answer_ms), best)


def product_of(port, unit, answer_ms=ANSWER_MS):
    """Returns "maker product revision" by function 43/14, "" where it is not spoken (most meters)."""
    try:
        _, _, pdu = bus.ask(port, unit, modbus.read_identity(1), answer_ms)
        objects, _ = modbus.identity_of(pdu)
    except modbus.BadAnswer:
        return ""
    texts = []
    for key in (0, 1, 2):
        text = objects.get(key, b"")
        texts.append("".join([chr(byte) if 32 <= byte < 127 else "?" for byte in text]))
    return " ".join([text for text in texts if text])


def number_of(port, unit, table, answer_ms=ANSWER_MS):
    """Returns the serial number as text where the maker documents one, else ""."""
    if table.number is None:
        return ""
    function, address, count, kind = table.number
    words = _words(port, unit, function, address, count, answer_ms)
    if words is None:
        return ""
    return sunspec.text_of(words) if kind == "text" else str(words[0] << 16 | words[1])


def points_of(port, unit, table, product, answer_ms=ANSWER_MS):
    """Returns how much speaks for a unit being of a table's type."""
    points = 0
    if table.identity is not None:
        function, address, count, known = table.identity
        words = _words(port, unit, function, address, count, answer_ms)
        points += CERTAIN if words is not None and tuple(words) in known else -200
    if product and table.model.split(",")[0].split(" ")[0] in product.split(" "):
        points += CERTAIN
    exchanges = []
    requests = modbus.plan(table.fields, table.max_registers, table.max_hole)
    for request in requests:
        exchanges += bus.poll(port, unit, (request,), 2, answer_ms)
        if exchanges[-1].words is None and not exchanges[-1].reason.startswith(modbus.EXCEPTION):
            return -CERTAIN  # a unit that is there and does not answer this: as this type it could not be read
    entries, _ = decode.entries_of(table.fields, bus.registers_of(exchanges, requests))
    values = {}
    for field, entry in zip(table.fields, entries):
        if entry.missing == decode.NOT_IMPLEMENTED:
            continue
        if entry.value is None:
            points -= 8
        elif not field.low <= entry.value <= field.high:
            points -= 20
        else:
            values[field.label] = entry.value
            points += 1 if entry.value else 0
    return points + _of_mains(values) + _of_powers(values)


def _of_mains(values):
    """Voltages and frequency stand in narrow ranges wherever there is mains; nothing else does by chance."""
    points = 0
    if "frequency" in values:
        points += 20 if 45000 <= values["frequency"] <= 65000 else -30
    for label in ("voltage_l1", "voltage_l2", "voltage_l3"):
        if label in values:
            points += 10 if 80000 <= values[label] <= 300000 else -6
    return points


def _of_powers(values):
    """S^2 = P^2 + Q^2, and U x I = S, each within 3 % and a few units."""
    points = 0
    for end in ("_l1", "_l2", "_l3", "_total"):
        active, reactive = values.get("active_power" + end), values.get("reactive_power" + end)
        apparent = values.get("apparent_power" + end)
        if active is not None and reactive is not None and apparent:
            points += 10 if _is_near(apparent * apparent, active * active + reactive * reactive) else -10
        volts, amps = values.get("voltage" + end), values.get("current" + end)
        if volts and amps and active is not None:
            points += 10 if abs(active) <= abs(volts * amps) * 104 // 100000000 + 5 else -20
    return points


def _is_near(left, right):
    return abs(left - right) * 100 <= 6 * max(left, right) + 100000


def _words(port, unit, function, address, count, answer_ms):
    return bus.poll(port, unit, ((function, address, count),), 2, answer_ms)[-1].words
