"""Bills over what happens in the life of a point: other meters and agents, silence, rollover, corrections, odd days."""

import contextlib
import datetime

import pytest

from firmware.crypto.openssl import verify_digest
from firmware.wire.errors import Refused
from gateway.ledger.bills import export_bill, settled_slots
from gateway.ledger.reader import Reader
from gateway.market import billing, records
from gateway.market.billing import Report
from tests.bill import second_verifier
from tests.contracts.settling import Area
from tests.ledger.world import key

HOUR_S = 3600
UNSYNCHRONISED = 1  # flags: clock I
TRADES_WH, PRICE = 700, 50_000


def bill_of(world: Area, name: str, first_s: int | None = None, end_s: int | None = None) -> Report:
    """The account's bill, good in both verifiers."""
    world.certify()
    with contextlib.closing(Reader.open(world.folder)) as reader:
        settled = settled_slots(reader)
        data = export_bill(reader, key(name).kid, settled[0] if first_s is None else first_s,
                           settled[1] if end_s is None else end_s)
    report = billing.check_bill(data, world.genesis, verify_digest)
    assert second_verifier.check(data, world.genesis) == report.total_mc
    return report


def area(**changes) -> Area:
    """Ann's point 1 buys of ben's point 2 in four slots to come; slots are final a day after they end."""
    rule_sets = {"vee": {"final_s": 86_400, "rollovers": [["sdm120", 100_000]]}}
    world = Area(rule_sets={**rule_sets, **changes.pop("rule_sets", {})}, **changes)
    for at in range(4):
        world.trade(world.first_s + at * HOUR_S, 1, 2, PRICE, TRADES_WH)
    assert set(world.block()) == {"accepted"}
    return world


def play(world: Area, seals: list[tuple[float, int | None]], **changes) -> None:
    """Ann's seals (hours after the first slot, register); ben's meter exports 1,000 Wh an hour, always on time."""
    hours = sorted({*(at for at, _ in seals), *range(5)})
    registers = dict(seals)
    for at in hours:
        time_s = world.first_s + int(at * HOUR_S)
        if at in registers:
            world.put_seal(1, time_s, registers[at], **changes)
        if at == int(at):
            world.put_seal(2, time_s, 0, 1000 * int(at))
        world.block(time_s + 20)


def settle(world: Area) -> None:
    world.finish(world.first_s + 3 * HOUR_S)


def used(report: Report) -> int:
    return sum(entry.used_wh or 0 for entry in report.entries if entry.kind in (records.TRADE, records.SUPPLY))


def test_meter_and_agent_are_replaced_in_the_middle() -> None:
    """The old meter ends at 1,750, the new one begins at 20 under another key: 1,250 Wh, none lost, none twice."""
    world = area(starts={1: 1000})
    play(world, [(0, 1000), (1, 1500)])
    world.replace_meter(1, (1750, 0), (20, 0))
    assert world.block() == ["accepted"] * 2
    world.replace_agent(1, "spare")
    assert world.block() == ["accepted"]
    play_on(world, [(2, 120), (3, 220), (4, 520)])
    settle(world)
    report = bill_of(world, "ann")
    assert used(report) == (1750 - 1000) + (520 - 20) and len(report.entries) == 4
    assert not [text for text in report.doubts if "missing" in text]
    assert bill_of(world, "ben").total_mc > 0


def play_on(world: Area, seals: list[tuple[int, int]]) -> None:
    """Ann's later seals, at the clock's own time: ben's came before."""
    for at, register in seals:
        time_s = world.first_s + at * HOUR_S
        world.put_seal(1, time_s, register)
        world.block(max(world.now_s, time_s + 20))


def test_silence_at_a_border_is_interpolated_and_said() -> None:
    world = area()
    play(world, [(0, 0), (1, 500), (1.75, 800), (2.25, 1000), (3, 1300), (4, 1600)])
    settle(world)
    report = bill_of(world, "ann")
    assert used(report) == 1600
    assert [text.split(":")[1][:13] for text in report.doubts] == [" interpolated"] * 2


def test_a_slot_without_readings_is_missing_and_said() -> None:
    """A register that jumps by more than the point's power is nobody's energy: two slots are missing."""
    world = area()
    play(world, [(0, 0), (1, 500), (2, 5_000_000), (3, 5_000_300), (4, 5_000_600)])
    settle(world)
    report = bill_of(world, "ann")
    missing = [text for text in report.doubts if "missing" in text]
    assert missing and used(report) < 5000
    assert [entry.reference for entry in report.entries].count("missing") == len(missing)


def test_an_unsynchronised_clock_moves_nothing_between_slots() -> None:
    """Its reading says 13:00 and is not believed: the line between the readings around it is."""
    world = area()
    for at, register, flags in ((0, 0, 2), (1, 500, 2), (1.5, 600, 2), (2, 5000, UNSYNCHRONISED), (2.5, 800, 2),
                                (3, 1000, 2), (4, 1200, 2)):
        world.put_seal(1, world.first_s + int(at * HOUR_S), register, flags=flags)
        if at == int(at):
            world.put_seal(2, world.first_s + int(at * HOUR_S), 0, 1000 * int(at))
        world.block(world.first_s + int(at * HOUR_S) + 20)
    settle(world)
    report = bill_of(world, "ann")
    assert used(report) == 1200 and len([text for text in report.doubts if "interpolated" in text]) == 2


def test_the_register_begins_again() -> None:
    world = area(starts={1: 99_000})
    play(world, [(0, 99_000), (1, 99_600), (2, 200), (3, 500), (4, 700)])
    settle(world)
    assert used(bill_of(world, "ann")) == 1700


@pytest.mark.parametrize("is_late", [False, True])
def test_a_correction_is_in_the_bill(is_late: bool) -> None:
    """Before final it stands in place of the measured energy; after final as lines of its own; the sum is one."""
    world = area()
    play(world, [(0, 0), (1, 500), (2, 1000), (3, 1500), (4, 2000)])
    if is_late:
        world.finish(world.first_s + 2 * HOUR_S)
    world.correct(1, world.first_s + HOUR_S, 650, 0)
    assert world.block() == ["accepted"]
    settle(world)
    report = bill_of(world, "ann")
    assert any("substituted" in text for text in report.doubts)
    kinds = [entry.kind for entry in report.entries]
    assert kinds.count(records.CORRECTION) == is_late and kinds.count(records.TRADE) == 4
    expected = -sum(round(wh * (PRICE + 2000) / 1000) for wh in (500, 650, 500, 500))
    assert report.total_mc == expected


def test_a_bill_of_a_local_day_of_25_hours() -> None:
    """2026-10-25 in Central Europe begins at 22:00 UTC and has 25 slots."""
    first_s = int(datetime.datetime.fromisoformat("2026-10-24T22:00:00+00:00").timestamp())
    change_s = int(datetime.datetime.fromisoformat("2026-10-25T01:00:00+00:00").timestamp())
    world = Area(created_s=first_s - 2 * HOUR_S, rule_sets={"tariff": {"zone": [[0, 7200], [change_s, 3600]]}})
    world.run_day({1: [(100 + at, 0) for at in range(27)], 2: [(0, 50)] * 27})
    report = bill_of(world, "ann", first_s, first_s + 25 * HOUR_S)
    assert len(report.entries) == 25 and (report.first_s, report.end_s) == (first_s, first_s + 25 * HOUR_S)
    assert used(report) == sum(100 + at for at in range(1, 26))


def test_periods_that_are_none() -> None:
    world = area()
    play(world, [(0, 0), (1, 500), (2, 1000), (3, 1500), (4, 2000)])
    with contextlib.closing(Reader.open(world.folder)) as reader:
        for first_s, end_s in ((world.first_s, world.first_s), (world.first_s + 1, world.first_s + HOUR_S)):
            with pytest.raises(ValueError, match="whole slots"):
                export_bill(reader, key("ann").kid, first_s, end_s)
        with pytest.raises(Refused, match="not_included"):
            export_bill(reader, key("ann").kid, world.first_s, world.first_s + 4 * HOUR_S)
    settle(world)
    world.certify()
    with contextlib.closing(Reader.open(world.folder)) as reader:
        with pytest.raises(Refused, match="not_included"):
            export_bill(reader, key("stranger").kid, world.first_s, world.first_s + 4 * HOUR_S)
