"""What a meter at one point measures at any step, made from a day of power, a seed and the point's number.

Everything is an integer in a thousandth of the usual unit (mV, mA, mW, mVA, mvar, mHz, thousandths of a degree or per
cent), power factor in millionths, energy in mJ (mW s) and mvar s. A value depends on (seed, point, step, the day the
meter was installed) alone, so a simulator that is started again in the middle of a day goes on as if nothing happened.

Electrical model, per phase: voltage = 230 V + slow wander + flicker - sag in proportion to the load (a feeding phase
lifts it); reactive power by a power factor that changes with the day's segments (loads take it, inverters give a
little); apparent = sqrt(P^2 + Q^2); current = apparent / voltage. Frequency is one for all points.
"""

import math
from fractions import Fraction

from sim_hardware.chance import drift, pick, seed_of
from sim_hardware.days import Day
from sim_hardware.load import DAY_S, MJ_PER_WH, Segment, Wire, WireDay, on_grid

NOMINAL_MV = 230_000
SAG_MV = 4_500              # at the day's strongest load: 2 % of nominal, a usual house connection
T1_S = (6 * 3600, 22 * 3600)    # tariff 1 runs between these seconds of a UTC day, tariff 2 in the night
DEMAND_S = 900              # demand = mean import power of the last whole quarter of an hour
Values = dict[str, int]
Counters = tuple[int, int, int, int]


class PointModel:
    """One measured point of one or three phases. `installed_day`: UTC day at whose midnight the counters start.

    `start_kwh`: on the import counter beside what a new meter shows. `tariffs`: whether counters by tariff and by day
    are among the values, which cost as much as all others together.
    """

    def __init__(self, seed: int, point: int, phases: int, day: Day, step_s: int, installed_day: int,
                 scale: Fraction = Fraction(1), start_kwh: int = 0, tariffs: bool = False) -> None:
        if DAY_S % step_s or phases not in (1, 3):
            raise ValueError("the step must divide a day; phases are 1 or 3")
        self._day, self._step_s, self._installed_day, self._scale = day, step_s, installed_day, scale
        self._phases = range(phases)
        self._seeds = {name: seed_of(seed, name, point) for name in
                       ("voltage", "flicker", "factor", "share", "noise", "distortion", "start")}
        self._frequency_seed = seed_of(seed, "frequency")
        shares = [pick(self._seeds["share"], phase, 280, 380) for phase in self._phases]
        self._shares = [Fraction(share, sum(shares)) for share in shares]
        self._start = [self._delivered(phase) for phase in self._phases]
        self._start[0] = _add(self._start[0], (start_kwh * 1000 * MJ_PER_WH, 0, 0, 0))
        self._has_tariffs = tariffs
        self._night: Counters = (0, 0, 0, 0)    # what tariff 2 has counted until midnight; tariff 1 has the rest
        self._number: int | None = None         # the day the fields below are about
        self._midnight: list[Counters] = []
        self._wires: list[WireDay] = []
        self._peaks: list[int] = []
        self._demand: list[int] = []

    def values(self, step: int) -> Values:
        """Every quantity by name; `step` = label seconds since 1970 divided by step_s, rounded down."""
        number, step_of_day = divmod(step, DAY_S // self._step_s)
        self._turn_to(number)
        wires = self._wires_at(step_of_day)
        second = step * self._step_s
        values: Values = {"frequency": 50_000 + drift(self._frequency_seed, second, 60, -25, 25)}
        for phase, wire in enumerate(wires):
            self._phase_values(values, phase, wire, step, second)
        _total_values(values, wires)
        values["active_power_demand"], values["active_power_demand_max"] = self._demand_at(step_of_day)
        if self._has_tariffs:
            self._tariff_values(values, step_of_day)
        return values

    def _delivered(self, phase: int) -> Counters:
        """A new meter shows what the maker's test bench left on it and some months of use: whole Wh, per phase."""
        start = self._seeds["start"]
        return (pick(start, phase, 20_000, 120_000) * MJ_PER_WH, pick(start, phase + 8, 0, 20_000) * MJ_PER_WH,
                pick(start, phase + 16, 5_000, 30_000) * MJ_PER_WH, pick(start, phase + 24, 0, 9_000) * MJ_PER_WH)

    def _turn_to(self, number: int) -> None:
        if number == self._number:
            return
        if number < self._installed_day:
            raise ValueError("asked for a day before the meter was installed")
        if self._number is None or number < self._number:
            self._midnight, first = list(self._start), self._installed_day
            self._night = (0, 0, 0, 0)
        else:
            first = self._number
        for day in range(first, number):
            wires = self._wires if day == self._number else self._wires_of(day)
            if self._has_tariffs:
                self._night = _add(self._night, _night_of(wires, DAY_S // self._step_s, self._step_s))
            totals = [wire.total for wire in wires]
            self._midnight = [_add(counters, total) for counters, total in zip(self._midnight, totals)]
        self._wires = self._wires_of(number)
        self._peaks = [max(1, wire.peak_mw) for wire in self._wires]
        self._number, self._demand = number, []

    def _wires_of(self, day: int) -> list[WireDay]:
        grid = [(start, int(power * self._scale)) for start, power in on_grid(self._day.segments(day), self._step_s)]
        wires = []
        for phase in self._phases:
            segments = []
            for start, power in grid:
                part = int(power * self._shares[phase]) if phase else power - sum(
                    int(power * share) for share in self._shares[1:])       # phase 1 takes the rounding
                factor = self._seeds["factor"] ^ phase
                tangent = pick(factor, start, 150, 480) if part > 0 else pick(factor, start, -120, 40)
                segments.append(Segment(start, part, abs(part) * tangent // 1000))
            wires.append(WireDay(segments, self._step_s, seed_of(self._seeds["noise"], day, phase)))
        return wires

    def _wires_at(self, step_of_day: int) -> list[Wire]:
        result = []
        for counters, day in zip(self._midnight, self._wires):
            wire = day.at(step_of_day)
            result.append(Wire(wire.power_mw, wire.reactive_mvar, *_add(counters, wire[2:])))
        return result

    def _phase_values(self, values: Values, phase: int, wire: Wire, step: int, second: int) -> None:
        end = f"_l{phase + 1}"
        seeds = self._seeds
        voltage = (NOMINAL_MV + drift(seeds["voltage"] ^ phase, second, 600, -2500, 2500)
                   + pick(seeds["flicker"] ^ phase, step, -250, 250)
                   - SAG_MV * wire.power_mw // self._peaks[phase])
        apparent = math.isqrt(wire.power_mw ** 2 + wire.reactive_mvar ** 2)
        distortion = seeds["distortion"] ^ phase
        values["voltage" + end] = voltage
        values["current" + end] = apparent * 1000 // voltage
        values["active_power" + end] = wire.power_mw
        values["reactive_power" + end] = wire.reactive_mvar
        values["apparent_power" + end] = apparent
        values["power_factor" + end] = _power_factor(wire.power_mw, apparent)
        values["phase_angle" + end] = _angle(wire.power_mw, wire.reactive_mvar)
        values["thd_voltage" + end] = drift(distortion, second, 1800, 1200, 2900)
        values["thd_current" + end] = drift(distortion ^ 64, second, 900, 3000, 14_000)
        _energies(values, end, wire)

    def _tariff_values(self, values: Values, step_of_day: int) -> None:
        """Counters of two tariffs (a meter with four has the others unused) and of the day so far."""
        night = _add(self._night, _night_of(self._wires, step_of_day, self._step_s))
        midnight = [sum(column) for column in zip(*self._midnight)]
        for index, kind in enumerate(("import", "export")):
            total = values[f"energy_active_{kind}_total"]
            values[f"energy_active_{kind}_t1"], values[f"energy_active_{kind}_t2"] = total - night[index], night[index]
            values[f"energy_active_{kind}_t3"] = values[f"energy_active_{kind}_t4"] = 0
            values[f"energy_active_{kind}_today"] = total - midnight[index]
        for end in ("_t1", "_t2"):
            values["energy_active_sum" + end] = values["energy_active_import" + end] + values[
                "energy_active_export" + end]

    def _demand_at(self, step_of_day: int) -> tuple[int, int]:
        """(mean import power of the last whole block, the largest since midnight), mW."""
        block_steps = max(1, DEMAND_S // self._step_s)
        block = step_of_day // block_steps
        while len(self._demand) < block:
            first = len(self._demand) * block_steps
            energy_mj = sum(wire.at(first + block_steps).import_mj - wire.at(first).import_mj for wire in self._wires)
            self._demand.append(energy_mj // (block_steps * self._step_s))
        return (self._demand[block - 1], max(self._demand[:block])) if block else (0, 0)


def _total_values(values: Values, wires: list[Wire]) -> None:
    phases = len(wires)
    power, reactive = sum(wire.power_mw for wire in wires), sum(wire.reactive_mvar for wire in wires)
    apparent = math.isqrt(power ** 2 + reactive ** 2)
    values["active_power_total"], values["reactive_power_total"] = power, reactive
    values["apparent_power_total"] = apparent
    values["power_factor_total"] = _power_factor(power, apparent)
    values["phase_angle_total"] = _angle(power, reactive)
    _energies(values, "_total", Wire(*(sum(column) for column in zip(*wires))))
    if phases == 1:
        return
    volts = [values[f"voltage_l{phase}"] for phase in (1, 2, 3)]
    amps = [values[f"current_l{phase}"] for phase in (1, 2, 3)]
    values["voltage_avg_ln"] = sum(volts) // 3
    values["current_total"], values["current_avg"] = sum(amps), sum(amps) // 3
    for first, second in ((0, 1), (1, 2), (2, 0)):              # 120 degrees apart: law of cosines
        a, b = volts[first], volts[second]
        values[f"voltage_l{first + 1}{second + 1}"] = math.isqrt(a * a + b * b + a * b)
    a, b, c = amps
    values["current_n"] = math.isqrt(a * a + b * b + c * c - a * b - b * c - c * a)


def _night_of(wires: list[WireDay], step: int, step_s: int) -> Counters:
    """What the day's first `step` steps counted outside of tariff 1, all phases together."""
    begin, end = (second // step_s for second in T1_S)
    counters: Counters = (0, 0, 0, 0)
    for wire in wires:
        counters = _add(counters, wire.at(min(step, begin))[2:])
        if step > end:
            late, early = wire.at(step)[2:], wire.at(end)[2:]
            counters = _add(counters, tuple(after - before for after, before in zip(late, early)))
    return counters


def _energies(values: Values, end: str, wire: Wire) -> None:
    values["energy_active_import" + end] = wire.import_mj
    values["energy_active_export" + end] = wire.export_mj
    values["energy_active_sum" + end] = wire.import_mj + wire.export_mj
    values["energy_reactive_import" + end] = wire.reactive_import_mvars
    values["energy_reactive_export" + end] = wire.reactive_export_mvars
    values["energy_apparent" + end] = math.isqrt(       # of both directions together, as one power factor would give
        (wire.import_mj + wire.export_mj) ** 2 + (wire.reactive_import_mvars + wire.reactive_export_mvars) ** 2)
    values["energy_reactive_sum" + end] = wire.reactive_import_mvars + wire.reactive_export_mvars


def _power_factor(power_mw: int, apparent_mva: int) -> int:
    """Signed as the power; a phase without load counts as 1. Never beyond 1, whatever isqrt rounded off."""
    return max(-10**6, min(10**6, power_mw * 10**6 // apparent_mva)) if apparent_mva else 10**6


def _angle(power_mw: int, reactive_mvar: int) -> int:
    """Thousandths of a degree; rounded so coarsely that no C library's last bit shows."""
    return round(math.degrees(math.atan2(reactive_mvar, power_mw)) * 1000)


def _add(first: tuple[int, ...], second: tuple[int, ...]) -> Counters:
    return first[0] + second[0], first[1] + second[1], first[2] + second[2], first[3] + second[3]
