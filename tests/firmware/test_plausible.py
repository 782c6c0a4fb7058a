"""What counters may do between two readings, and what is marked: nothing is ever replaced or left out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware import meters, plausible
from firmware.wire.reading import IMPLAUSIBLE, STALE, Entry

MINUTE = 60_000
TABLE = meters.load("sdm630")
FIELDS = meters.fields_of(TABLE, meters.BILLING)
POWER_W = TABLE.max_power_w


class Meter:
    """One meter's readings, one after the other."""

    def __init__(self, name: str = "sdm630") -> None:
        table = meters.load(name)
        self.fields, self.most_w = meters.fields_of(table, meters.BILLING), table.max_power_w
        self.seen: object = None
        self.time_ms = 0

    def read(self, import_wh: int | None, export_wh: int | None, power_w: int | None, after_ms: int = MINUTE
             ) -> tuple[int, int]:
        """(bits, number of alarms) of a reading that much later."""
        self.time_ms += after_ms
        values = {"1.8.0": import_wh, "2.8.0": export_wh, "15.8.0": import_wh, "16.7.0": power_w, "36.7.0": power_w}
        entries = tuple(Entry(field.name, field.unit, values.get(field.name), None if values.get(field.name) is not None
                              else "no_answer") for field in self.fields)
        self.seen, bits, texts = plausible.judge(self.seen, self.fields, entries, self.time_ms, self.most_w)
        return bits, len(texts)


def test_a_fall_and_a_jump_are_marked_once() -> None:
    one = Meter()
    assert one.read(100_000, 5_000, 500) == (0, 0)
    assert one.read(100_008, 5_000, 500) == (0, 0)
    assert one.read(20, 5_000, 500) == (IMPLAUSIBLE, 1)
    assert one.read(28, 5_000, 500) == (0, 0)
    assert one.read(500_000, 5_000, 500) == (IMPLAUSIBLE, 1)
    assert one.read(500_008, 5_000, 500) == (0, 0)
    assert one.read(500_016, 4_999, -500) == (IMPLAUSIBLE, 1), "export as well"


def test_the_largest_power_is_believed() -> None:
    one = Meter()
    one.read(0, 0, POWER_W)
    assert one.read(POWER_W // 60, 0, POWER_W) == (0, 0)
    assert one.read(2 * POWER_W // 60 + 1000, 0, POWER_W) == (0, 0)
    assert one.read(3 * POWER_W // 60 + 2010, 0, POWER_W) == (IMPLAUSIBLE, 1)


def test_what_was_missed_counts_in() -> None:
    """A gap in between excuses a rise, and hides no fall."""
    one = Meter()
    one.read(100_000, 0, 100)
    for _ in range(60):
        assert one.read(None, None, None) == (0, 0)
    assert one.read(100_000 + POWER_W, 0, 100) == (0, 0)
    assert one.read(None, 0, 100) == (0, 0)
    assert one.read(99_000, 0, 100) == (IMPLAUSIBLE, 1)


@pytest.mark.parametrize(("name", "power_w", "minutes"), [("sdm630", 600, 5), ("em24", 600, 30), ("b23", 6000, 1)])
def test_counters_that_stand_still_under_load_are_stale(name: str, power_w: int, minutes: int) -> None:
    """After what three steps of the register would have shown, said once, until they move again."""
    one = Meter(name)
    one.read(100_000, 0, power_w)
    found = [one.read(100_000, 0, power_w) for _ in range(minutes + 3)]
    first = found.index((STALE, 1))
    assert first + 1 in (minutes, minutes + 1) and found[:first] == [(0, 0)] * first
    assert set(found[first + 1:]) <= {(STALE, 0)}
    assert one.read(100_100, 0, power_w) == (0, 0) == one.read(100_100, 0, power_w, 1000)


def test_without_load_nothing_moves_and_nothing_is_stale() -> None:
    one = Meter()
    assert {one.read(100_000, 0, 0) for _ in range(1000)} == {(0, 0)}
    one = Meter("pzem004t")
    assert {one.read(100_000, None, -500) for _ in range(100)} == {(0, 0)}, "it has no counter for what goes back"


@given(st.lists(st.tuples(st.integers(1000, 3_600_000), st.integers(-POWER_W, POWER_W)), min_size=2, max_size=40))
def test_no_meter_that_counts_its_power_is_ever_marked(steps: list[tuple[int, int]]) -> None:
    """Any load within the class, counted in steps of 10 Wh: the power shown is that of the time that follows."""
    one = Meter()
    counted, before_ms = [0, 0], MINUTE
    for elapsed_ms, power_w in steps:
        shown = [watt_ms // (10 * plausible.WATT_MS_PER_WH) * 10 for watt_ms in counted]
        assert one.read(shown[0], shown[1], power_w, before_ms) == (0, 0)
        counted[power_w < 0] += abs(power_w) * elapsed_ms
        before_ms = elapsed_ms
