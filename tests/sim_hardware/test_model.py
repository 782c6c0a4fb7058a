"""Energy is the exact integral of power; a point is a function of seed, point and step alone."""

import math
import struct
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim_hardware.days import DAY_S, open_day
from sim_hardware.days.table4 import COLUMNS, HOURS_10WH
from sim_hardware.load import Segment, WireDay, on_grid
from sim_hardware.meters import TYPES
from sim_hardware.meters.types import MJ_PER_KWH
from sim_hardware.model import PointModel

DAY = 20_624                            # 2026-06-20
MJ_PER_10WH = 36_000_000
DAYS = ("table4:LA2", "table4:MG", "generated:household", "generated:sun", "generated:wind", "generated:prosumer")


def model(day: str, phases: int = 3, seed: int = 7, point: int = 4, step_s: int = 60, installed: int = DAY,
          scale: Fraction = Fraction(1)) -> PointModel:
    return PointModel(seed, point, phases, open_day(day, seed, point), step_s, installed, scale)


@pytest.mark.parametrize("day", DAYS)
@pytest.mark.parametrize("phases", [1, 3])
def test_energy_is_the_integral_of_power(day: str, phases: int) -> None:
    """Over two days and midnight, per phase and in total, to the last millijoule, import and export apart."""
    point = model(day, phases)
    first = DAY * 1440
    ends = ["_total"] + [f"_l{phase + 1}" for phase in range(phases)]
    before = point.values(first)
    taken, given_back = dict.fromkeys(ends, 0), dict.fromkeys(ends, 0)
    for step in range(first, first + 2 * 1440):
        now = point.values(step)
        for end in ends:
            assert now["energy_active_import" + end] - before["energy_active_import" + end] == taken[end]
            assert now["energy_active_export" + end] - before["energy_active_export" + end] == given_back[end]
            for phase_end in [end] if end != "_total" else ends[1:]:
                power = now["active_power" + phase_end]
                taken[end] += max(power, 0) * 60
                given_back[end] += max(-power, 0) * 60
        assert now["active_power_total"] == sum(now["active_power" + end] for end in ends[1:])
    assert taken["_total"] + given_back["_total"] > 0


@pytest.mark.parametrize("column", COLUMNS)
def test_the_paper_s_hours_come_out_exactly(column: str) -> None:
    point, (index, sign) = model(f"table4:{column}"), COLUMNS[column]
    name = "energy_active_import_total" if sign > 0 else "energy_active_export_total"
    counters = [point.values(DAY * 1440 + hour * 60)[name] for hour in range(25)]
    assert [later - earlier for earlier, later in zip(counters, counters[1:])] == [
        row[index] * MJ_PER_10WH for row in HOURS_10WH]


@pytest.mark.parametrize("day", DAYS)
def test_any_step_can_be_asked_first(day: str) -> None:
    """A model started in the middle says what one says that was there all day; other seeds and points differ."""
    long_there = model(day)
    steps = [DAY * 1440 + minute for minute in (0, 1, 777, 1439, 1440, 3000, 5 * 1440 + 61)]
    told = [long_there.values(step) for step in steps]
    assert [model(day).values(step) for step in reversed(steps)] == told[::-1]
    assert long_there.values(steps[2]) == told[2], "asked backwards"
    assert model(day, seed=8).values(steps[2]) != told[2]
    assert model(day, point=5).values(steps[2]) != told[2]


def test_values_are_plausible() -> None:
    point = model("generated:household", 1)
    all_values = [point.values(step) for step in range(DAY * 1440, DAY * 1440 + 1440)]
    assert all(220_000 < values["voltage_l1"] < 236_000 for values in all_values)
    assert all(49_900 < values["frequency"] < 50_100 for values in all_values)
    assert all(0 < values["power_factor_l1"] <= 10**6 for values in all_values)
    for values in all_values:
        apparent = values["voltage_l1"] * values["current_l1"] / 1000
        assert abs(apparent - values["apparent_power_l1"]) <= values["voltage_l1"] / 1000 + 1
    assert len({values["active_power_l1"] for values in all_values}) > 1300, "noise moves the power"
    for values in all_values:
        active, reactive, whole = (values[kind + "_power_l1"] for kind in ("active", "reactive", "apparent"))
        assert whole == math.isqrt(active * active + reactive * reactive) > active > 0 < reactive
        assert abs(values["power_factor_l1"] / 10**6 - active / whole) < 2e-6
        assert abs(math.cos(math.radians(values["phase_angle_l1"] / 1000)) - active / whole) < 2e-5
    loaded = max(all_values, key=lambda values: values["active_power_l1"])
    idle = min(all_values, key=lambda values: values["active_power_l1"])
    assert loaded["voltage_l1"] < idle["voltage_l1"], "voltage sags under load"


def test_three_phases_add_up() -> None:
    values = model("table4:LA1").values(DAY * 1440 + 600)
    volts, amps = ([values[f"{kind}_l{phase}"] for phase in (1, 2, 3)] for kind in ("voltage", "current"))
    assert values["voltage_avg_ln"] == sum(volts) // 3 and values["current_total"] == sum(amps)
    for name, first, second in (("voltage_l12", 0, 1), ("voltage_l23", 1, 2), ("voltage_l31", 2, 0)):
        between = abs(volts[first] - volts[second] * complex(-0.5, 0.75 ** 0.5))
        assert abs(values[name] - between) < 2
    turn = complex(-0.5, 0.75 ** 0.5)
    assert abs(values["current_n"] - abs(amps[0] + amps[1] * turn + amps[2] * turn ** 2)) < 2
    for kind in ("import", "export", "sum"):
        for which in ("active", "reactive"):
            assert values[f"energy_{which}_{kind}_total"] == sum(
                values[f"energy_{which}_{kind}_l{phase}"] for phase in (1, 2, 3))


def test_demand_is_the_last_quarter_s_mean() -> None:
    point = model("table4:LA1")
    values = point.values(DAY * 1440 + 75)          # 01:15: the quarter from 01:00 at 19.20 kW
    assert values["active_power_demand"] // 1_000_000 in (18, 19)
    assert values["active_power_demand_max"] // 1_000_000 in (36, 37)   # an hour before: 36.36 kW
    assert point.values(DAY * 1440)["active_power_demand_max"] == 0


def test_scale_and_refusals() -> None:
    half, whole = model("table4:LA3", scale=Fraction(1, 2)), model("table4:LA3")
    steps = DAY * 1440 + 600, DAY * 1440 + 660
    halves, wholes = ([point.values(step)["energy_active_import_total"] for step in steps] for point in (half, whole))
    assert 2 * (halves[1] - halves[0]) == wholes[1] - wholes[0]
    with pytest.raises(ValueError):
        model("table4:LA1", installed=DAY + 1).values(DAY * 1440)
    with pytest.raises(ValueError):
        model("table4:LA1", step_s=7)


@st.composite
def days(draw: st.DrawFn) -> list[tuple[int, int]]:
    starts = draw(st.lists(st.integers(1, DAY_S - 1), unique=True, max_size=40))
    return [(start, draw(st.integers(-10**9, 10**9))) for start in [0, *sorted(starts)]]


@settings(max_examples=150)
@given(days(), st.sampled_from([1, 5, 60, 300, 900, 3600, 86_400]))
def test_the_grid_keeps_the_energy(segments: list[tuple[int, int]], step_s: int) -> None:
    """Laid on steps, the day has the same energy but for less than one mW over each mixed step."""
    laid = on_grid(segments, step_s)
    assert laid[0][0] == 0 and all(a[0] < b[0] for a, b in zip(laid, laid[1:]))

    def energy(parts: list[tuple[int, int]], unit_s: int) -> int:
        ends = [start for start, _ in parts[1:]] + [DAY_S // unit_s]
        return sum(power * (end - start) * unit_s for (start, power), end in zip(parts, ends))

    lost = energy(segments, 1) - energy(laid, step_s)
    assert 0 <= lost <= len(laid) * step_s
    if step_s == 1:
        assert lost == 0 and laid == segments


@settings(max_examples=60)
@given(days(), st.sampled_from([60, 300, 900]), st.integers(0, 2**32))
def test_a_wire_s_counters_follow_its_power(segments: list[tuple[int, int]], step_s: int, seed: int) -> None:
    """The closed form of the counters equals step-by-step addition, with noise, signs and odd segments."""
    wire = WireDay([Segment(start, power, power // 3) for start, power in on_grid(segments, step_s)], step_s, seed)
    taken = given_back = lagging = leading = 0
    for step in range(DAY_S // step_s):
        now = wire.at(step)
        assert now[2:] == (taken, given_back, lagging, leading)
        taken += max(now.power_mw, 0) * step_s
        given_back += max(-now.power_mw, 0) * step_s
        lagging += max(now.reactive_mvar, 0) * step_s
        leading += max(-now.reactive_mvar, 0) * step_s
    assert wire.total == (taken, given_back, lagging, leading) == wire.at(DAY_S // step_s)[2:]


@pytest.mark.parametrize("day", ["generated:household", "generated:prosumer", "table4:MG"])
def test_two_tariffs_share_every_millijoule(day: str) -> None:
    """Tariff 1 stands still by night, tariff 2 by day; together they are the total, each of them the exact integral."""
    point = PointModel(7, 4, 3, open_day(day, 7, 4), 60, DAY, tariffs=True)
    first = DAY * 1440
    before = point.values(first)
    midnight = before
    for step in range(first, first + 2 * 1440 + 30):
        now = point.values(step)
        if step % 1440 == 0:
            midnight = now
        is_night = not 6 * 60 <= (step - 1) % 1440 < 22 * 60
        for kind, sign in (("import", 1), ("export", -1)):
            name = f"energy_active_{kind}"
            assert now[name + "_t1"] + now[name + "_t2"] == now[name + "_total"]
            grown = now[name + "_total"] - before[name + "_total"]
            assert now[name + ("_t2" if is_night else "_t1")] - before[name + ("_t2" if is_night else "_t1")] == grown
            if step > first:
                assert grown == sum(max(sign * before[f"active_power_l{phase}"], 0) * 60 for phase in (1, 2, 3))
            assert now[name + "_today"] == now[name + "_total"] - midnight[name + "_total"]
        assert now["energy_active_sum_t2"] == now["energy_active_import_t2"] + now["energy_active_export_t2"]
        before = now
    late = PointModel(7, 4, 3, open_day(day, 7, 4), 60, DAY, tariffs=True)
    assert late.values(step) == now, "asked without the days before"


def test_a_counter_starts_where_it_is_told_and_rolls_over() -> None:
    """Just below the end of its display a meter goes on from 0 and loses nothing."""
    kind = TYPES["sdm630"]
    point = PointModel(7, 4, 3, open_day("table4:LA1", 7, 4), 3600, DAY, start_kwh=999_400)
    shown = []
    for hour in range(24):
        values = point.values(DAY * 24 + hour)
        image = kind.image(0, values)
        words = image.read(0x0048, 2)
        assert words is not None
        shown.append(struct.unpack(">f", struct.pack(">HH", *words))[0])
        assert abs(shown[-1] - values["energy_active_import_total"] / MJ_PER_KWH % 1_000_000) < 0.1
    assert max(shown) > 999_000 and min(shown) < 1500, "it rolled over within the day"
    assert sum(later < earlier for earlier, later in zip(shown, shown[1:])) == 1
