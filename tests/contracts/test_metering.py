"""Totals at borders: from seals with real keys, over meters, agents, rollovers, silences and clocks that are wrong."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware.wire import seal as seal_codec
from gateway.contracts import metering
from gateway.market import records
from tests.contracts.settling import Area
from tests.ledger.world import START_S, key

HOUR_S = 3600
UNSYNCHRONISED = 1  # flags: clock I


def area(rollovers: list | None = None, **changes) -> Area:
    """One point; slots are final so late that every reading of a test comes before."""
    vee = {"final_s": 30 * HOUR_S, "rollovers": rollovers or []}
    return Area(points=(1,), owners={1: "ann"}, rule_sets={"vee": vee}, **changes)


def energies(world: Area, slots: int) -> list[tuple[int | None, int | None, str]]:
    return [world.energy(1, world.first_s + at * HOUR_S) for at in range(slots)]


def test_nearest_within_boundary_else_interpolated_else_missing() -> None:
    """boundary_s is 10: 11:59:55 decides 12:00; 12:50 and 13:10 interpolate 13:00; nothing comes after."""
    world = area()
    start = world.first_s
    for after_s, register in ((0, 1000), (600, 1100), (HOUR_S - 5, 1600), (HOUR_S + 300, 1700),
                              (2 * HOUR_S - 600, 2000), (2 * HOUR_S + 600, 2101)):
        world.put_seal(1, start + after_s, register)
        world.block(start + after_s + 10)
    borders = [world.border(1, start + at * HOUR_S) for at in range(4)]
    assert [border and (border.import_wh, border.quality) for border in borders] == [
        (1000, records.MEASURED), (1600, records.MEASURED), (2050, records.INTERPOLATED), None]
    kid = key("agent 1").kid
    assert borders[1] and borders[1].seals == [[kid, 3, (start + HOUR_S - 5) * 1000]]
    assert borders[2] and borders[2].seals == [[kid, 5, (start + 2 * HOUR_S - 600) * 1000],
                                               [kid, 6, (start + 2 * HOUR_S + 600) * 1000]]
    world.finish(start + 2 * HOUR_S)
    assert energies(world, 3) == [(600, 0, "measured"), (450, 0, "interpolated"), (None, None, "missing")]
    assert world.border(1, start) is None and world.border(1, start + 2 * HOUR_S) is None, "not needed any more"
    world.check_money()


def test_of_two_equally_near_the_later_decides() -> None:
    world = area()
    border_s = world.first_s + HOUR_S
    for time_s, register in ((world.first_s, 0), (border_s - 7, 70), (border_s + 7, 84)):
        world.put_seal(1, time_s, register)
    world.block(border_s + 10)
    border = world.border(1, border_s)
    assert border and border.import_wh == 84


def test_before_the_calendar_runs_nothing_is_noted() -> None:
    world = area()
    world.put_seal(1, world.first_s - 60, 5)
    world.put_seal(1, world.first_s + 60, 65)
    world.block(world.first_s + 70)
    border = world.border(1, world.first_s)
    assert border and border.import_wh == 35 and world.border(1, world.first_s - HOUR_S) is None


@pytest.mark.parametrize(("changes", "import_wh", "verdict"), [
    ({"flags": UNSYNCHRONISED}, 900, "clock_not_synchronised"),
    ({"flags": UNSYNCHRONISED | seal_codec.LATE}, 900, "clock_not_synchronised late"),
    ({}, 50_000_000, "register_jumped"),
    ({}, 1, "register_fell"),
    ({}, None, "accepted"),
])
def test_a_seal_that_is_not_believed_decides_nothing(changes: dict, import_wh: int | None, verdict: str) -> None:
    """Its reading stands at the border; the straight line between the two believed ones counts all the same."""
    world = area()
    border_s = world.first_s + HOUR_S
    for time_s, register in ((world.first_s, 100), (border_s - 600, 400)):
        world.put_seal(1, time_s, register)
    world.put_seal(1, border_s, import_wh, **changes)
    assert world.block(border_s + 5)[-1] == verdict
    assert world.border(1, border_s) is None
    world.put_seal(1, border_s + 300, 990)  # after a fall or a jump the register is marked once more, back where it was
    world.put_seal(1, border_s + 600, 1000)
    world.block(border_s + 605)
    border = world.border(1, border_s)
    assert border and border.quality == records.INTERPOLATED
    kept = 600 if verdict == "register_jumped" else 300  # the first believed reading after it
    assert border.import_wh == 400 + ((1000 if kept == 600 else 990) - 400) * 600 // (600 + kept)


def test_an_unsynchronised_clock_moves_nothing_between_slots() -> None:
    """T8: three hours with a clock that runs wild, then good again: the sum is the registers', to the Wh."""
    world = area()
    world.put_seal(1, world.first_s, 0)
    world.block(world.first_s + 5)
    for minute, register in ((30, 500), (70, 5000), (150, 5500)):
        world.put_seal(1, world.first_s + minute * 60, register, flags=0)
        world.block(world.first_s + minute * 60 + 5)
    world.put_seal(1, world.first_s + 4 * HOUR_S, 8000)
    world.block(world.first_s + 4 * HOUR_S + 5)
    world.finish(world.first_s + 3 * HOUR_S)
    assert energies(world, 4) == [(2000, 0, "interpolated")] * 4


def test_an_unexplained_rise_is_nobodys_and_marks_its_slot_only() -> None:
    """A register that jumps and goes on from there: the slot of the jump is missing, the next one is not."""
    world = area()
    register = 1000
    for at in range(0, 3 * HOUR_S + 1, 600):
        register += 10
        if at == HOUR_S + 1800:
            register += 10**9
        world.put_seal(1, world.first_s + at, register)
        found = world.block(world.first_s + at + 5)
        assert found == ["register_jumped" if at == HOUR_S + 1800 else "accepted"]
    world.finish(world.first_s + 2 * HOUR_S)
    assert energies(world, 3) == [(60, 0, "measured"), (None, None, "missing"), (60, 0, "measured")]


def test_a_long_silence_is_missing_but_for_its_ends() -> None:
    world = area(slot_s=60)
    world.put_seal(1, world.first_s, 0)
    world.block(world.first_s + 5)
    last_s = world.first_s + (metering.BORDERS + 2) * 60
    world.put_seal(1, last_s, 9000)
    world.block(last_s + 5)
    assert world.border(1, last_s) and world.border(1, last_s - 60) is None
    world = area(slot_s=60)
    world.put_seal(1, world.first_s, 0)
    world.put_seal(1, world.first_s + metering.BORDERS * 60, 8000)
    world.block(world.first_s + metering.BORDERS * 60 + 5)
    assert world.border(1, world.first_s + 120)


def test_the_register_rolls_over() -> None:
    """T9: a register that begins again at 10,000,000 Wh is bridged where the rule set knows it, else it is a fall."""
    limit_wh = 10_000_000
    for is_known in (True, False):
        world = area(model="pzem004t",
                     rollovers=[["pzem004t", limit_wh]] if is_known else [])
        register = limit_wh - 300
        for at in range(0, 2 * HOUR_S + 1, 600):
            world.put_seal(1, world.first_s + at, register)
            world.block(world.first_s + at + 5)
            register = (register + 100) % limit_wh
        world.finish(world.first_s + HOUR_S)
        expected = (600, 0, "measured") if is_known else (None, None, "missing")
        assert energies(world, 2) == [expected, (600, 0, "measured")]
        assert len(world.meter(1).epochs) == (2 if is_known else 1)


def test_no_rollover_that_the_points_power_cannot_explain() -> None:
    world = area(model="pzem004t", starts={1: 500}, rollovers=[["pzem004t", 10_000_000]])
    for at, register in ((0, 500), (600, 600), (1200, 5), (1800, 15), (HOUR_S, 75), (2 * HOUR_S, 175)):
        world.put_seal(1, world.first_s + at, register)
        world.block(world.first_s + at + 5)
    world.finish(world.first_s + HOUR_S)
    # Below its start it is not the meter that was registered: nothing moves until somebody says what happened.
    assert energies(world, 2) == [(None, None, "missing")] * 2


def test_the_meter_is_replaced_in_the_middle_of_a_day() -> None:
    """Old meter 1,000 -> 1,750 with its end read by hand, new one 20 -> 270: 750 + 250, to the Wh; a seal of the old
    one that was under way still comes."""
    world = area(starts={1: 1000})
    start = world.first_s
    for after_s, register in ((0, 1000), (HOUR_S, 1500)):
        world.put_seal(1, start + after_s, register)
        world.block(start + after_s + 5)
    world.replace_meter(1, (1750, 0), (20, None))
    assert world.block(start + HOUR_S + 1500) == ["accepted"] * 2
    point = world.point(1)
    assert (point.meter_epoch, point.serial, point.start_import_wh) == (2, "new", 20)
    world.epochs[1] = 1
    world.put_seal(1, start + HOUR_S + 900, 1700)
    world.epochs[1] = 2
    world.put_seal(1, start + HOUR_S + 1800, 22)
    assert world.block(start + HOUR_S + 1805) == ["late", "accepted"]
    world.epochs[1] = 1
    world.put_seal(1, start + HOUR_S + 1860, 1760, is_next=False)
    assert world.block(start + HOUR_S + 1861) == ["wrong_meter_epoch"], "the old meter is gone"
    world.epochs[1] = 2
    for after_s, register in ((2 * HOUR_S, 120), (3 * HOUR_S, 270)):
        world.put_seal(1, start + after_s, register)
        assert world.block(start + after_s + 5) == ["accepted"]
    world.finish(start + 2 * HOUR_S)
    assert energies(world, 3) == [(500, 0, "measured"), (350, 0, "measured"), (150, 0, "measured")]
    assert [epoch.number for epoch in world.meter(1).epochs] == [1, 2]
    world.check_money()


def test_what_a_replaced_meter_needs() -> None:
    world = area(starts={1: 1000})
    world.put_seal(1, world.first_s, 1500)
    world.block(world.first_s + 5)
    for senders, old, expected in (
            (("agent 1", "agent 1"), (1600, 0), ["accepted", "duplicate"]),
            (("operator",), (1600, 0), ["accepted"]),
            (("operator",), (1600, 0), ["accepted"]),  # a first will again, to do it once more
            (("operator",), (1600, 0), ["duplicate"]),
            (("agent 1b",), (1600, 0), ["not_enrolled"]),
            (("operator",), (None, 0), ["contradiction"]),
            (("operator",), (None, None), ["contradiction"]),
            (("grid",), (1700, 0), ["not_permitted"])):
        world.replace_meter(1, old, (0, None), senders)
        assert world.block() == expected, senders
    assert (world.point(1).meter_epoch, world.point(1).start_import_wh) == (2, 0)
    world.put_seal(1, world.first_s + 60, 700, meter_epoch=2)
    world.block(world.first_s + 65)
    world.replace_meter(1, (699, 0), (0, None), ["operator"])
    assert world.block() == ["contradiction"], "below what it has sealed"
    world.add(4, [99, 1, 1, "", "", "", 0, 0])
    world.add(4, [1, 1, 1, "", "", "", 0])
    assert world.block() == ["unknown_point", "malformed"]


def test_the_agent_is_replaced_in_the_middle_of_a_day() -> None:
    """The old one's last good reading is carried over, and not its last, which had no clock."""
    world = area()
    start = world.first_s
    for after_s, register, changes in ((0, 0, {}), (HOUR_S, 600, {}), (HOUR_S + 600, 700, {}),
                                       (HOUR_S + 900, 750, {"flags": 0})):
        world.put_seal(1, start + after_s, register, **changes)
        world.block(start + after_s + 5)
    world.replace_agent(1, "agent 1b")
    assert world.block(start + HOUR_S + 1000) == ["accepted"]
    meter = world.meter(1)
    assert (meter.last_ms, meter.last_import_wh, meter.seal_kid, meter.seal_height) == (
        (start + HOUR_S + 600) * 1000, 700, key("agent 1").kid, 3)
    for after_s, register in ((2 * HOUR_S + 600, 1300), (3 * HOUR_S, 1700)):
        world.put_seal(1, start + after_s, register)
        assert world.block(start + after_s + 5) == ["accepted"]
    world.finish(start + 2 * HOUR_S)
    assert energies(world, 3) == [(600, 0, "measured"), (600, 0, "interpolated"), (500, 0, "interpolated")]
    border = world.border(1, start + 3 * HOUR_S)
    assert border and border.import_wh == 1700
    world.check_money()


def test_a_new_key_while_the_ledger_waits_for_the_new_meters_first_seal() -> None:
    """Meter and then agent replaced, no seal between: the new agent begins at the new meter's start."""
    world = area()
    for after_s, register in ((0, 5000), (600, 5100)):
        world.put_seal(1, world.first_s + after_s, register)
    world.block(world.first_s + 605)
    world.replace_meter(1, (5200, 0), (7, None))
    world.replace_agent(1, "agent 1b")
    assert world.block(world.first_s + 700) == ["accepted"] * 3
    assert world.point(1).start_import_wh == 7
    world.put_seal(1, world.first_s + HOUR_S, 107)
    assert world.block(world.first_s + HOUR_S + 5) == ["accepted"]
    world.finish(world.first_s)
    assert energies(world, 1) == [(300, 0, "measured")]


@pytest.mark.parametrize(("start_wh", "expected"), [(40, 110), (None, 50)])
def test_a_point_is_enrolled_anew_with_another_meter(start_wh: int | None, expected: int) -> None:
    """Its totals go on where the old agent's seals ended; a start that nobody wrote down is the first reading."""
    world = area()
    for after_s, register in ((0, 500), (600, 550)):
        world.put_seal(1, world.first_s + after_s, register)
    world.block(world.first_s + 605)
    world.items.append(world.revoke("agent 1"))
    world.enrol_point(1, "agent 1b", "ann", serial="another", start_import_wh=start_wh)
    assert world.block() == ["accepted"] * 2
    world.epochs[1] = 2
    for after_s, register in ((1200, 100), (HOUR_S, 100), (2 * HOUR_S, 130)):
        world.put_seal(1, world.first_s + after_s, register)
        assert world.block(world.first_s + after_s + 5) == ["accepted"]
    world.finish(world.first_s + HOUR_S)
    assert energies(world, 2) == [(expected, 0, "measured"), (30, 0, "measured")]


def test_another_ratio_is_another_meter() -> None:
    world = area()
    world.put_seal(1, world.first_s, 500)
    world.block(world.first_s + 5)
    world.items.append(world.revoke("agent 1"))
    world.enrol_point(1, "agent 1b", "ann", ratio_num=40, start_import_wh=500)
    assert world.block() == ["accepted"] * 2
    world.epochs[1] = 2
    world.put_seal(1, world.first_s + HOUR_S, 510)
    world.block(world.first_s + HOUR_S + 5)
    world.finish(world.first_s)
    assert energies(world, 1) == [(400, 0, "measured")]


def test_a_first_seal_that_read_nothing_is_no_reading() -> None:
    """The start of the registry is no reading either: nothing is known at the border before the first one."""
    world = area()
    world.put_seal(1, world.first_s - 60, None, None)
    world.put_seal(1, world.first_s + HOUR_S, 700)
    assert world.block(world.first_s + HOUR_S + 5) == ["late", "accepted"]
    assert world.border(1, world.first_s) is None and world.border(1, world.first_s + HOUR_S)


def test_ratio_four_to_one() -> None:
    """CT 4:1 and, harder, 7:3: the sum of slots is the period's, whatever each is rounded to."""
    for ratio in ((4, 1), (7, 3)):
        world = area(ratios={1: ratio}, starts={1: 3})
        slots = world.run_day({1: [(wh, 0) for wh in (101, 1, 0, 7, 50, 2)]})
        found = [world.energy(1, slot_s)[0] for slot_s in slots]
        assert sum(wh or 0 for wh in found) == 161 * ratio[0] // ratio[1]
        if ratio == (4, 1):
            assert found == [404, 4, 0, 28, 200, 8]
        world.check_money()


def test_a_register_that_the_meter_has_not() -> None:
    world = area()
    for at in range(2):
        world.put_seal(1, world.first_s + at * HOUR_S, at * 70, None)
    world.block(world.first_s + HOUR_S + 5)
    world.finish(world.first_s)
    assert energies(world, 1) == [(70, None, "measured")]
    assert world.entries("ann")[-1].amount_mc == -70 * 61_500 // 1000


_STEPS = st.lists(st.tuples(st.integers(120, 5400), st.integers(0, 3000), st.sampled_from(
    ("good", "good", "good", "unread", "clock", "glitch", "meter", "agent"))), min_size=4, max_size=16)
_TAKEN = {"accepted", "clock_not_synchronised", "register_jumped", "register_fell"}


@settings(max_examples=40, deadline=None)
@given(_STEPS, st.sampled_from(((1, 1), (4, 1), (7, 3))))
def test_the_sum_of_slots_is_last_less_first(steps: list[tuple[int, int, str]], ratio: tuple[int, int]) -> None:
    """Whatever is unread, misread, read with a wrong clock, through a new meter or a new agent: what lies between the
    first and the last border is the difference of their totals, and no slot is negative."""
    world = area(ratios={1: ratio})
    time_s, total, offset, is_off = world.first_s, 0, 0, False
    world.put_seal(1, time_s, 0)
    world.block(time_s + 1)
    for number, (wait_s, rise, kind) in enumerate([*steps, (3600, 5, "good"), (120, 1, "good")]):
        time_s, total = time_s + wait_s, total + rise
        if kind == "glitch" and is_off:
            kind = "good"  # read twice alike, it is no misreading any more
        is_off = kind == "glitch" or (is_off and kind == "unread")
        if kind == "meter":
            world.replace_meter(1, (total - offset, 0), (5, None))
            offset = total - 5
        elif kind == "agent":
            world.replace_agent(1, f"agent 1-{number}")
        changes = {"flags": 0} if kind == "clock" else {}
        register = None if kind == "unread" else total - offset + (10**8 if kind == "glitch" else 0)
        world.put_seal(1, time_s, register, **changes)
        assert {mark for text in world.block(time_s + 1) for mark in text.split()} <= _TAKEN
    last_s = time_s // HOUR_S * HOUR_S
    first, last = world.border(1, world.first_s), world.border(1, last_s)
    if last_s == world.first_s:
        return
    slots = range(world.first_s, last_s, HOUR_S)
    assert first and last
    found = [metering.energy_of(_Store(world), 1, slot_s, HOUR_S) for slot_s in slots]
    assert all(row.import_wh is not None and row.import_wh >= 0 for row in found)
    assert sum(row.import_wh or 0 for row in found) == (last.import_wh or 0) - (first.import_wh or 0)
    assert (last.import_wh or 0) <= total * ratio[0] // ratio[1]


class _Store:
    """The area's state, to read."""

    def __init__(self, world: Area):
        self.get = world.ledger.state_value

    def put(self, key: bytes, value: bytes) -> None:
        raise AssertionError("only read here")

    def delete(self, key: bytes) -> None:
        raise AssertionError("only read here")


assert START_S % HOUR_S == 0
