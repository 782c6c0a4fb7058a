"""Prints what meter tables, own tables, SunSpec and a scan make of made-up registers, the same in every interpreter."""

from firmware import decode, meters, modbus, own, reading_records, scan, sunspec
from firmware.config import BadConfig
from firmware.wire.reading import Reading, encode


def line(name, value):
    print(name, value.hex() if isinstance(value, bytes) else value)


def words_from(seed):
    """Registers out of nothing: the same for the same address everywhere."""
    class Words:
        def get(self, key, default=None):
            return (key[0] * 40503 + key[1] * 2654435761 + seed) >> 7 & 0xFFFF
    return Words()


for name in meters.TYPES:
    table = meters.load(name)
    for group in (meters.BILLING, meters.OTHER):
        fields = meters.fields_of(table, group)
        line(name, modbus.plan(fields, table.max_registers, table.max_hole))
        for seed in (1, 99991):
            entries, quality = decode.entries_of(fields, words_from(seed))
            if entries:
                reading = Reading(b"\x01" * 8, 7, 1767225600123, entries, quality, b"\x02" * 32)
                record = reading_records.encode_reading(reading, name, group)
                line("record", record)
                again = reading_records.decode_reading(b"\x01" * 8, record, meters.load)
                line("again", encode(again) == encode(reading))

VALUES = {"maker": "Acme", "model": "M1", "max_registers": 80, "function": 4, "field": [
    {"label": "power", "obis": "36.7.0", "unit": "kW", "address": 12, "kind": "f32", "billing": True},
    {"label": "import", "obis": "1.8.0", "unit": "kWh", "address": 72, "kind": "u32", "scale": "0.01", "billing": True,
     "word_order": "lsw", "none": 0xFFFFFFFF}]}
table = own.make("acme", VALUES)
line("own", meters.map_hash(table))
entries, quality = decode.entries_of(table.fields, words_from(5))
reading = Reading(b"\x01" * 8, 7, 1767225600123, entries, quality, b"\x02" * 32)
record = reading_records.encode_reading(reading, "acme", meters.BILLING, reading_records.tag_of(table))
line("own record", record)
line("own again", reading_records.decode_reading(b"\x01" * 8, record, lambda name: {"acme": table}[name]) == reading)
for key, value in (("modell", "x"), ("function", 6), ("parity", "X"), ("max_registers", 1), ("word_order", "abc")):
    changed = dict(VALUES)
    changed[key] = value
    try:
        own.make("acme", changed)
    except BadConfig as error:
        line("bad", (error.key, error.problem))

registers = {40000: 0x5375, 40001: 0x6E53, 40002: 1, 40003: 65, 40004: 0x4163, 40005: 0x6D65}
registers.update({40069: 64999, 40070: 2, 40073: 103, 40074: 50, 40073 + 14: 0xF8A2, 40073 + 15: 1, 40073 + 24: 1,
                  40073 + 25: 0x86A0, 40073 + 16: 5001, 40073 + 17: 0xFFFE, 40125: 802, 40126: 62, 40125 + 11: 631,
                  40125 + 56: 0xFFFF, 40189: 0xFFFF})
device = sunspec.discover(lambda address, count: [registers.get(at, 0) for at in range(address, address + count)])
line("device", (device.base, device.maker, device.models, device.others))
table = own.make("sun", {"maker": "a", "model": "b", "sunspec": [
    {"model": number, "address": address} for number, address in device.models]})
line("sunspec", meters.map_hash(table))
line("plan", modbus.plan(table.fields, table.max_registers, table.max_hole))
entries, quality = decode.entries_of(table.fields, {(3, at): registers.get(at, 0) for at in range(40000, 40200)})
for entry in entries:
    line(entry.name, (entry.unit, entry.value, entry.missing))


class Port:
    """A PZEM that answers function 4, and only that."""

    framing = modbus.RTU
    baud = gap_ms = 0
    registers = (2257, 108, 0, 244, 0, 38, 0, 500, 100, 0)

    def clear(self):
        self.answer = b""

    def write(self, data):
        function, first, count = data[1], data[2] << 8 | data[3], data[4] << 8 | data[5]
        if function != 4 or first + count > 10 or function == 43:
            body = bytes((1, function | 128, 1 if function != 4 else 2))
        else:
            body = bytes((1, 4, 2 * count))
            for word in self.registers[first:first + count]:
                body += bytes((word >> 8, word & 255))
        crc = modbus.crc16(body)
        self.answer = body + bytes((crc & 255, crc >> 8))

    def read(self, count, wait_ms):
        data = self.answer[:count]
        self.answer = self.answer[count:]
        return data

    def mark(self):
        return 0

    def since_ms(self, mark):
        return 0


line("present", scan.present(Port(), [1]))
found = scan.identify(Port(), 1, (9600, "N"))
line("found", (found.types, found.product, found.number, found.points, found.device))
