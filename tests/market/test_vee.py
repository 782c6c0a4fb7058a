"""Slot energies from registers: sums hold to the Wh over gaps, ratios, new meters and rollovers; a day of 25 h."""

import csv
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.market.records import INTERPOLATED, MEASURED, MISSING
from gateway.market.vee import (
    Border,
    Point,
    Span,
    between,
    border,
    borders,
    is_coarse,
    is_plausible,
    next_meter,
    roll_over,
    slot_energy,
    total_wh,
)
from tests import needs

HOUR_MS = 3_600_000
AT = 10 * HOUR_MS


@st.composite
def metered(draw: st.DrawFn) -> list[Point]:
    """Readings of one point at odd times, over meters that are replaced and roll over, with all kinds of ratios."""
    span = Span(draw(st.integers(0, 10**6)), 0, draw(st.integers(1, 400)), draw(st.integers(1, 7)))
    register, time_ms, points = span.start_wh, 0, []
    for _ in range(draw(st.integers(1, 40))):
        time_ms += draw(st.integers(1, 2 * HOUR_MS))
        register += draw(st.integers(0, 500))
        event = draw(st.integers(0, 9))
        if event == 0:
            start = draw(st.integers(0, 10**6))
            span = next_meter(span, register, start, span.ratio_num, span.ratio_den)
            register = start
        elif event == 1:
            modulus = register + 1
            span, register = roll_over(span, modulus), 0
        total = total_wh(span, register)
        assert total is not None
        points.append(Point(time_ms, total))
    return points


@given(metered(), st.sampled_from([1, 300_000, 900_000, HOUR_MS]), st.sampled_from([0, 10_000, 300_000, 2 * HOUR_MS]))
def test_slots_add_up(points: list[Point], slot_ms: int, boundary_ms: int) -> None:
    """The sum of slots is the last border less the first; none is negative; nothing is missing between two readings."""
    step = max(slot_ms, (points[-1].time_ms - points[0].time_ms) // 200 + 1)
    times = list(range(points[0].time_ms, points[-1].time_ms + 1, step))
    found = borders(points, times, boundary_ms)
    energies = [slot_energy(*pair) for pair in zip(found, found[1:])]
    assert all(one.quality != MISSING for one in found)
    assert all(energy.wh is not None and energy.wh >= 0 for energy in energies)
    assert sum(energy.wh or 0 for energy in energies) == (found[-1].wh or 0) - (found[0].wh or 0)
    assert found[0].wh == points[0].wh
    for time_ms, one in zip(times, found):
        distances = [abs(point.time_ms - time_ms) for point in points]
        assert (one.quality == MEASURED) == (min(distances) <= boundary_ms)
        if one.quality == MEASURED:
            nearest = [point.wh for point, far in zip(points, distances) if far == min(distances)]
            assert one.wh == nearest[-1], "of two equally near the later"


def test_a_border_by_hand() -> None:
    early, late = Point(AT - 4_000, 1_000), Point(AT + 5_000, 1_009)
    assert border(early, late, AT, 10_000) == Border(1_000, MEASURED)
    assert border(early, late._replace(time_ms=AT + 4_000), AT, 10_000) == Border(1_009, MEASURED)
    assert border(early, Point(AT, 1_003), AT, 0) == Border(1_003, MEASURED)
    assert border(early, late, AT, 3_999) == Border(1_004, INTERPOLATED)        # 1,000 + 9 x 4 / 9
    assert border(None, late, AT, 5_000) == Border(1_009, MEASURED)
    assert border(None, late, AT, 4_999) == border(early, None, AT, 3_999) == border(None, None, AT, 9) == (
        None, MISSING)
    assert between(Point(0, 0), Point(3, 2), 2) == 1, "rounded down"
    for before, after in ((Point(AT, 1), None), (None, Point(AT - 1, 1))):
        with pytest.raises(ValueError):
            border(before, after, AT, 1)
    assert slot_energy(Border(None, MISSING), Border(5, MEASURED)) == Border(None, MISSING)
    assert slot_energy(Border(5, INTERPOLATED), Border(9, MEASURED)) == Border(4, INTERPOLATED)


def test_a_meter_replaced_in_the_middle_of_a_day() -> None:
    """Old meter 90,000 -> 90,700 behind 40:1, new one from 12: the day is 40 x (700 + 88) Wh, nothing lost or twice."""
    old = Span(90_000, 0, 40, 1)
    new = next_meter(old, 90_700, 12, 40, 1)
    assert new == Span(12, 28_000, 40, 1)
    assert total_wh(new, 12) == total_wh(old, 90_700) and total_wh(new, 100) == 40 * (700 + 88)
    assert total_wh(new, 11) is None
    with pytest.raises(ValueError):
        next_meter(old, 89_999, 0, 1, 1)


def test_rollover() -> None:
    """A register of six digits in kWh, 999,999 -> 3, is 4 kWh on: 4 kW explain that in an hour, 3 kW do not."""
    modulus = 10**9
    before = Point(0, total_wh(Span(0, 0), 999_999_000) or 0)
    after = Point(HOUR_MS, total_wh(roll_over(Span(0, 0), modulus), 3_000) or 0)
    assert after.wh == 1_000_003_000 and is_plausible(before, after, 4_000) and not is_plausible(before, after, 3_999)
    assert total_wh(roll_over(Span(999_000_000, 7, 40, 1), modulus), 3_000) == 7 + 40 * 1_003_000
    with pytest.raises(ValueError):
        roll_over(Span(modulus + 1, 0), modulus)
    assert is_plausible(Point(0, 5), Point(HOUR_MS, 25), 20) and not is_plausible(Point(0, 5), Point(HOUR_MS, 26), 20)
    assert not is_plausible(Point(0, 5), Point(HOUR_MS, 4), 20)


@given(st.integers(1, 400), st.integers(1, 7), st.lists(st.integers(0, 10**6), min_size=1, max_size=9))
def test_ratios_lose_less_than_a_watt_hour(num: int, den: int, rises: list[int]) -> None:
    total = total_wh(Span(0, 0, num, den), sum(rises))
    assert total is not None and 0 <= Fraction(sum(rises) * num, den) - total < 1


def test_coarse_registers() -> None:
    assert is_coarse(999, 10) and not is_coarse(1000, 10)


def test_a_day_of_25_hours() -> None:
    """A real household's registers around the end of summer time 2015: 25 slots, and their sum is the day's."""
    path = needs.vectors("households/opsd_konstanz_residential4_60min_B_dst.csv")
    with path.open() as file:
        rows = [(row["cet_cest_timestamp"], round(float(row["grid_import_kwh"]) * 1000))
                for row in csv.DictReader(file) if row["grid_import_kwh"]]
    first = next(index for index, (label, _) in enumerate(rows) if label.startswith("2015-10-25T00:00"))
    last = next(index for index, (label, _) in enumerate(rows) if label.startswith("2015-10-26T00:00"))
    assert last - first == 25
    points = [Point(index * HOUR_MS, wh) for index, (_, wh) in enumerate(rows)]
    found = borders(points, [index * HOUR_MS for index in range(first, last + 1)], 0)
    energies = [slot_energy(*pair).wh or 0 for pair in zip(found, found[1:])]
    assert len(energies) == 25 and sum(energies) == rows[last][1] - rows[first][1] > 0
