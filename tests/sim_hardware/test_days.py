"""Days from CSV files and generators; every mistake in a file is named with its line."""

from pathlib import Path

import pytest

from sim_hardware.days import open_day
from sim_hardware.days.generated import GENERATORS
from sim_hardware.errors import SimError
from tests import needs

JUNE_20, JUNE_21, DECEMBER_21 = 20_624, 20_625, 20_808


def write(folder: Path, text: str) -> str:
    (folder / "day.csv").write_text(text)
    return "csv:day.csv"


def test_hours_repeat_every_day(tmp_path: Path) -> None:
    day = open_day(write(tmp_path, "hour,watt\n6,100\n18,-2500.5\n"), 1, 1, tmp_path)
    expected = [(0, -2_500_500), (21_600, 100_000), (64_800, -2_500_500)]
    assert day.segments(JUNE_20) == expected == day.segments(JUNE_21)


def test_times_of_day_and_further_columns(tmp_path: Path) -> None:
    day = open_day(write(tmp_path, "\ufeffplace,Time,watt\nx,00:00,1\n\ny,23:59:58,2.0004\n"), 1, 1, tmp_path)
    assert day.segments(5) == [(0, 1000), (86_398, 2000)]


def test_dates_play_on_their_dates_and_else_in_turn(tmp_path: Path) -> None:
    text = "time,watt\n2026-06-20T12:00:00Z,10\n2026-06-21T06:00:00+00:00,20\n"
    day = open_day(write(tmp_path, text), 1, 1, tmp_path)
    first, second = [(0, 20_000), (43_200, 10_000)], [(0, 10_000), (21_600, 20_000)]
    assert day.segments(JUNE_20) == first and day.segments(JUNE_21) == second
    assert [day.segments(JUNE_21 + later) for later in (1, 2)] == [first, second]


@pytest.mark.parametrize(("text", "line", "word"), [
    ("", 1, "time,watt"),
    ("when,watt\n0,1\n", 1, "time,watt"),
    ("hour,watt\n", None, "at least one row"),
    ("hour,watt\n0,1\n24,1\n", 3, "hour"),
    ("hour,watt\n0,1\n0,2\n", 3, "after"),
    ("hour,watt\n5,1\n4,2\n", 3, "after"),
    ("hour,watt\n0,much\n", 2, "number of watt"),
    ("hour,watt\n0,nan\n", 2, "power"),
    ("hour,watt\n0,1e12\n", 2, "power"),
    ("hour,watt\n0\n", 2, "columns"),
    ("time,watt\n12:61,1\n", 2, "12:61"),
    ("time,watt\n2026-06-20T12:00:00,1\n", 2, "UTC"),
    ("time,watt\n2026-06-20T12:00:00+02:00,1\n", 2, "UTC"),
    ("time,watt\n00:00,1\n2026-06-20T12:00:00Z,1\n", 3, "one kind"),
])
def test_a_bad_file_is_named_with_its_line(tmp_path: Path, text: str, line: int | None, word: str) -> None:
    with pytest.raises(SimError) as caught:
        open_day(write(tmp_path, text), 1, 1, tmp_path)
    assert caught.value.reason == "day" and word in caught.value.detail
    assert line is None or f"day.csv line {line}" in caught.value.detail


@pytest.mark.parametrize("name", ["table4:LA4", "generated:tide", "csv:", "sun", "csv:nowhere.csv"])
def test_unknown_days(tmp_path: Path, name: str) -> None:
    with pytest.raises(SimError) as caught:
        open_day(name, 1, 1, tmp_path)
    assert caught.value.reason == "day"


@pytest.mark.parametrize("kind", GENERATORS)
def test_generated_days_differ_and_repeat(kind: str) -> None:
    day = open_day(f"generated:{kind}", 7, 3)
    today = day.segments(JUNE_20)
    assert len(today) == 96 and [start for start, _ in today] == list(range(0, 86_400, 900))
    assert open_day(f"generated:{kind}", 7, 3).segments(JUNE_20) == today
    assert day.segments(JUNE_21) != today
    assert open_day(f"generated:{kind}", 8, 3).segments(JUNE_20) != today
    assert open_day(f"generated:{kind}", 7, 4).segments(JUNE_20) != today


def test_generated_days_look_like_what_they_are() -> None:
    def week_wh(kind: str, first: int) -> list[int]:
        return [-sum(power for _, power in open_day(f"generated:{kind}", 7, 3).segments(day)) // 4000
                for day in range(first, first + 28)]

    sun = open_day("generated:sun", 7, 3).segments(JUNE_20)
    assert all(power > 0 for start, power in sun if start < 3 * 3600), "the inverter's standby at night"
    assert all(power < 0 for start, power in sun if 9 * 3600 <= start < 15 * 3600)
    assert sum(week_wh("sun", JUNE_20)) > 2 * sum(week_wh("sun", DECEMBER_21)), "summer is brighter"
    assert all(2_000 < -wh < 25_000 for wh in week_wh("household", JUNE_20))
    wind = week_wh("wind", JUNE_20)
    assert min(wind) >= 0 and max(wind) > 3 * min(wind), "windy and calm days"


def test_a_measured_household_plays(tmp_path: Path) -> None:
    """Hourly counters of a real house, turned into watt, where they are at hand."""
    path = needs.vectors("households/opsd_konstanz_residential4_60min_A.csv")
    rows, last = ["time,watt"], None
    for line in path.read_text().splitlines()[1:]:
        stamp, _, _, counter = line.split(",")[:4]
        if counter:
            if last is not None:
                rows.append(f"{last[0]},{(float(counter) - last[1]) * 1000:.0f}")
            last = stamp, float(counter)
    day = open_day(write(tmp_path, "\n".join(rows)), 1, 1, tmp_path)
    assert any(power > 0 for _, power in day.segments(JUNE_20))
