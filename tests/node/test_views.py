"""What people read: power from whatever a meter has of it, numbers in groups, times in words."""

from firmware.wire.reading import Entry, Reading
from gateway.api import views


def power(*entries: tuple[str, int | None]) -> int | None:
    made = [Entry(name, "W", value, None if value is not None else "timeout") for name, value in entries]
    return views.power_of(Reading(bytes(8), 1, 0, made, 2, bytes(32)))


def test_power_of_any_meter() -> None:
    assert power(("1.8.0", 5), ("16.7.0", -7), ("36.7.0", 1)) == -7, "the meter's own sum comes first"
    assert power(("1.7.0", 30), ("2.7.0", 45)) == -15
    assert power(("1.7.0", 30)) == 30
    assert power(("36.7.0", 230)) == 230, "a single-phase meter has its phase only"
    assert power(("36.7.0", 1), ("56.7.0", -20), ("76.7.0", 300)) == 281
    assert power(("36.7.0", 1), ("56.7.0", None), ("76.7.0", 300)) is None, "not a sum of what happened to answer"
    assert power(("16.7.0", None), ("36.7.0", 1)) is None
    assert power(("1.8.0", 5)) is None


def test_numbers_for_people() -> None:
    assert views.number_text(None) == "–"
    assert views.number_text(0) == "0" and views.number_text(999) == "999"
    assert views.number_text(-1234567) == "\u22121\u202f234\u202f567"
