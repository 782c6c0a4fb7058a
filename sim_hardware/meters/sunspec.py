"""SunSpec devices: "SunS", then model after model, each a number, a length and so many holding registers.

From the SunSpec information models (sunspec/models, Apache-2.0): 1 common, 101 to 103 inverters, 201 to 204 meters, 701
DER measurement, 713 and 802 storage. A value stands beside a power of ten; what a device does not have is FFFF (no
sign), 8000 (sign), 80000000, all ones, or 0 in a counter. Between ours stands a vendor's model that nobody knows, as
on real devices. Powers of inverters are positive where they generate.
"""

from collections.abc import Callable, Mapping
from fractions import Fraction

from sim_hardware.meters.types import Field, MeterType

CHARGE_PERCENT, HEALTH_PERCENT = 63, 97
VENDOR_MODEL = 64999
Values = Mapping[str, int]
Point = tuple[int, str, str, int, str, int]     # offset, value's name, unit, scale's offset, form, sign
LETTERS = ("A", "B", "C")


class Model:
    """One model: its number, length, and what stands where; every other register says "not implemented"."""

    def __init__(self, number: int, length: int, points: tuple[Point, ...], scales: Mapping[int, int],
                 empty: Mapping[int, int], plain: Mapping[int, int]) -> None:
        self.number, self.length = number, length
        self.points, self.scales, self.empty, self.plain = points, scales, empty, plain

    def fields(self, address: int) -> tuple[Field, ...]:
        """Its values as fields at an address; a register holds value / 10 ^ scale."""
        return tuple(Field(name, address + offset, unit, form,
                           Fraction(1, 10 ** self.scales[scale]) if self.scales[scale] >= 0
                           else 10 ** -self.scales[scale], sign)
                     for offset, name, unit, scale, form, sign in self.points)

    def words(self, address: int) -> dict[int, int]:
        """Header, scales and everything that no value fills."""
        found = {address + 2 + at: 0xFFFF for at in range(self.length)}
        found.update({address + at: word for at, word in self.empty.items()})
        found.update({address + at: power & 0xFFFF for at, power in self.scales.items()})
        found.update({address + at: word for at, word in self.plain.items()})
        return {**found, address: self.number, address + 1: self.length}


def _each(offsets: tuple[int, ...], name: str, unit: str, scale: int, form: str, sign: int = 1) -> tuple[Point, ...]:
    return tuple((offset, f"{name}_l{phase + 1}", unit, scale, form, sign) for phase, offset in enumerate(offsets))


def inverter(number: int) -> Model:
    """101 one phase, 102 two, 103 three; 50 registers."""
    phases = number - 100
    lines = ((7, "voltage_l12"), (8, "voltage_l23"), (9, "voltage_l31"))[:{1: 0, 2: 1, 3: 3}[phases]]
    return Model(number, 50, (
        (2, "current_total", "A", 6, "u16", 1), *_each((3, 4, 5)[:phases], "current", "A", 6, "u16"),
        *((at, name, "V", 13, "u16", 1) for at, name in lines),
        *_each((10, 11, 12)[:phases], "voltage", "V", 13, "u16"),
        (14, "active_power_total", "W", 15, "s16", -1), (16, "frequency", "Hz", 17, "u16", 1),
        (18, "apparent_power_total", "VA", 19, "s16", 1), (20, "reactive_power_total", "var", 21, "s16", 1),
        (22, "power_factor_percent", "%", 23, "s16", 1), (24, "energy_active_export_total", "Wh", 26, "u32", 1),
        (27, "dc_current", "A", 28, "u16", 1), (29, "dc_voltage", "V", 30, "u16", 1),
        (31, "dc_power", "W", 32, "s16", 1), (33, "temperature_cabinet", "Cel", 37, "s16", 1),
    ), {6: -2, 13: -1, 15: 0, 17: -2, 19: 0, 21: 0, 23: -1, 26: 0, 28: -2, 30: -1, 32: 0, 37: -1},
        {34: 0x8000, 35: 0x8000, 36: 0x8000}, {38: 4, **dict.fromkeys(range(40, 52), 0)})


def meter(number: int) -> Model:
    """201 one phase, 202 two, 203 three (star), 204 three (delta); 105 registers. Powers in tens of W (scale 1)."""
    phases = min(number - 200, 3)
    lines = ((12, "voltage_l12"), (13, "voltage_l23"), (14, "voltage_l31"))[:{1: 0, 2: 1, 3: 3}[phases]]
    counters = dict.fromkeys(range(38, 104), 0)         # a counter that is not there stands at 0
    return Model(number, 105, (
        (2, "current_total", "A", 6, "s16", 1), *_each((3, 4, 5)[:phases], "current", "A", 6, "s16"),
        (7, "voltage_avg_ln", "V", 15, "s16", 1), *_each((8, 9, 10)[:phases], "voltage", "V", 15, "s16"),
        *((at, name, "V", 15, "s16", 1) for at, name in lines),
        (16, "frequency", "Hz", 17, "s16", 1), (18, "active_power_total", "W", 22, "s16", 1),
        *_each((19, 20, 21)[:phases], "active_power", "W", 22, "s16"),
        (23, "apparent_power_total", "VA", 27, "s16", 1),
        *_each((24, 25, 26)[:phases], "apparent_power", "VA", 27, "s16"),
        (28, "reactive_power_total", "var", 32, "s16", 1),
        *_each((29, 30, 31)[:phases], "reactive_power", "var", 32, "s16"),
        (33, "power_factor_percent", "%", 37, "s16", 1),
        *_each((34, 35, 36)[:phases], "power_factor_percent", "%", 37, "s16"),
        (38, "energy_active_export_total", "Wh", 54, "u32", 1),
        *_each((40, 42, 44)[:phases], "energy_active_export", "Wh", 54, "u32"),
        (46, "energy_active_import_total", "Wh", 54, "u32", 1),
        *_each((48, 50, 52)[:phases], "energy_active_import", "Wh", 54, "u32"),
        (72, "energy_reactive_import_total", "varh", 104, "u32", 1),
        (96, "energy_reactive_export_total", "varh", 104, "u32", 1),
    ), {6: -2, 15: -1, 17: -2, 22: 1, 27: 1, 32: 0, 37: -1, 54: 0, 71: -0x8000, 104: 2},
        {11: 0x8000, 12: 0x8000, 13: 0x8000, 14: 0x8000, **dict.fromkeys(range(8, 11), 0x8000),
         **dict.fromkeys(range(3, 6), 0x8000), **dict.fromkeys(range(19, 22), 0x8000),
         **dict.fromkeys(range(24, 27), 0x8000), **dict.fromkeys(range(29, 32), 0x8000),
         **dict.fromkeys(range(34, 37), 0x8000), **counters}, {105: 0, 106: 0})


def der() -> Model:
    """701: three phases, 64-bit counters, scales at the end; 153 registers. Reactive energies: not implemented."""
    points: list[Point] = [
        (10, "active_power_total", "W", 116, "s16", -1), (11, "apparent_power_total", "VA", 118, "s16", 1),
        (12, "reactive_power_total", "var", 119, "s16", 1), (13, "power_factor_total", "1", 117, "s16", 1),
        (14, "current_total", "A", 113, "s16", 1), (16, "voltage_avg_ln", "V", 114, "u16", 1),
        (17, "frequency", "Hz", 115, "u32", 1), (19, "energy_active_export_total", "Wh", 120, "u64", 1),
        (23, "energy_active_import_total", "Wh", 120, "u64", 1), (36, "temperature_cabinet", "Cel", 122, "s16", 1)]
    for phase, start in enumerate((41, 64, 87)):
        end = f"_l{phase + 1}"
        points += [(start, "active_power" + end, "W", 116, "s16", -1),
                   (start + 1, "apparent_power" + end, "VA", 118, "s16", 1),
                   (start + 2, "reactive_power" + end, "var", 119, "s16", 1),
                   (start + 3, "power_factor" + end, "1", 117, "s16", 1),
                   (start + 4, "current" + end, "A", 113, "s16", 1),
                   (start + 5, ("voltage_l12", "voltage_l23", "voltage_l31")[phase], "V", 114, "u16", 1),
                   (start + 6, "voltage" + end, "V", 114, "u16", 1),
                   (start + 7, "energy_active_export" + end, "Wh", 120, "u64", 1),
                   (start + 11, "energy_active_import" + end, "Wh", 120, "u64", 1)]
    missing = {at: 0x8000 for at in (35, 37, 38, 39, 40)}
    return Model(701, 153, tuple(points), {113: -2, 114: -1, 115: -3, 116: 0, 117: -3, 118: 0, 119: 0, 120: 0,
                                           121: -0x8000, 122: -1},
                 missing, {2: 2, 3: 1, 4: 3, 5: 1, **dict.fromkeys(range(123, 155), 0)})


def storage() -> Model:
    """713: what a battery holds; 7 registers. Its health is not implemented."""
    return Model(713, 7, ((2, "energy_rating", "Wh", 7, "u16", 1), (3, "energy_available", "Wh", 7, "u16", 1),
                          (4, "state_of_charge", "%", 8, "u16", 1)), {7: 1, 8: -1}, {}, {6: 0})


def battery() -> Model:
    """802: a battery; 62 registers, nearly all of them not implemented."""
    return Model(802, 62, ((11, "state_of_charge", "%", 56, "u16", 1), (13, "state_of_health", "%", 58, "u16", 1),
                           (34, "battery_voltage", "V", 59, "u16", 1), (44, "battery_current", "A", 61, "s16", 1),
                           (47, "battery_power", "W", 63, "s16", 1)),
                 {56: -1, 58: 0, 59: -1, 61: -1, 63: 0}, {at: 0x8000 for at in (49, 52, 53, 54, 55, 57, 60, 62)},
                 {22: 3})


def _more(phases: int) -> Callable[[Values], Values]:
    """The DC side, the battery, and for a device of two phases its own totals."""
    def prepare(values: Values) -> Values:
        power = -values["active_power_total"]
        more = {**values, "dc_power": power * 103 // 100, "dc_voltage": 612_300, "temperature_cabinet": 38_400,
                "energy_rating": 12_000 * 3_600_000, "energy_available": 7_560 * 3_600_000,
                "state_of_charge": CHARGE_PERCENT * 1000, "state_of_health": HEALTH_PERCENT * 1000,
                "battery_power": power // 10, "battery_voltage": 51_200, "battery_current": power * 100 // 51_200}
        if phases == 2:
            for name in ("active_power", "reactive_power", "apparent_power", "energy_active_import",
                         "energy_active_export", "energy_reactive_import", "energy_reactive_export"):
                more[name + "_total"] = values[name + "_l1"] + values[name + "_l2"]
        more.setdefault("current_total", values["current_l1"])
        more.setdefault("voltage_avg_ln", values["voltage_l1"])
        more["dc_current"] = abs(more["dc_power"]) * 1000 // more["dc_voltage"]
        more["power_factor_percent"] = more["power_factor_total"] // 10
        for phase in range(1, phases + 1):
            more[f"power_factor_percent_l{phase}"] = values[f"power_factor_l{phase}"] // 10
        return more
    return prepare


def device(name: str, product: str, models: tuple[Model, ...], base: int, day: str) -> MeterType:
    """A device of model 1, a vendor's model and these, from `base`; its serial number stands in model 1."""
    numbers = {model.number for model in models}
    phases = 1 if numbers & {101, 201} else 2 if numbers & {102, 202} else 3
    texts = {2: ("Gridseal sim", 16), 18: (product, 16), 34: ("", 8), 42: ("1.0", 8)}
    address = base + 2
    words = {base: 0x5375, base + 1: 0x6E53, address: 1, address + 1: 66, address + 67: 0x8000, address + 66: 1}
    for offset, (text, count) in texts.items():
        data = text.encode().ljust(2 * count, b"\0")
        words.update({address + offset + at: int.from_bytes(data[2 * at:2 * at + 2], "big") for at in range(count)})
    at = address + 68
    words.update({at: VENDOR_MODEL, at + 1: 3, at + 2: 1, at + 3: 2, at + 4: 3})
    at += 5
    fields: tuple[Field, ...] = ()
    for model in models:
        words.update(model.words(at))
        fields += model.fields(at)
        at += 2 + model.length
    words.update({at: 0xFFFF, at + 1: 0})
    serial = address + 50
    return MeterType(
        name=name, model=product, phases=1 if phases == 1 else 3, baud=9600, max_registers=125, functions=(3,),
        spans=((base, serial - base), (serial + 16, at + 2 - serial - 16)),
        identity={0: "Gridseal sim", 1: product, 2: "1.0"}, holding=((serial, ("serial", 16)),),
        prepare=_more(phases), fields=fields, filler={at: word for at, word in words.items()
                                                      if not serial <= at < serial + 16}, day=day)


DEVICES = (
    device("sunspec_101", "Solo 3000", (inverter(101),), 40000, "generated:sun"),
    device("sunspec_102", "Split 5000", (inverter(102),), 50000, "generated:sun"),
    device("sunspec_103", "Trio 8000 with battery", (inverter(103), battery()), 40000, "generated:sun"),
    device("sunspec_201", "Meter 1P", (meter(201),), 0, "generated:household"),
    device("sunspec_202", "Meter 2P", (meter(202),), 40000, "generated:household"),
    device("sunspec_203", "Meter 3P", (meter(203),), 40000, "generated:prosumer"),
    device("sunspec_204", "Meter 3P delta", (meter(204),), 50000, "generated:prosumer"),
    device("sunspec_701", "DER 10000", (der(), storage()), 40000, "generated:sun"),
)
