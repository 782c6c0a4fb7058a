"""From energies to entries: every slot sums to 0, through real orders, seals and the real ledger."""

import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.contracts import accounts, settlement
from gateway.ledger.tree import Draft, StateTree
from gateway.market import records, rules
from tests import needs
from tests.contracts.settling import BALANCE_MC, Area
from tests.ledger.world import key
from tests.market.papers import TABLE_2

HOUR_S = 3600
RETAIL, BUYBACK = 61_500, 41_000


def changes(world: Area, name: str) -> list[tuple[str, int]]:
    """Kind and amount of everything that has happened to an account since the genesis."""
    return [(records.ENTRY_NAMES[row.kind], row.amount_mc) for row in world.entries(name)[1:]]


def test_the_credit_papers_table_through_the_contracts() -> None:
    """004, Table 2: seven contracts in seven slots, money and scores (papers.md B1, B2, B3)."""
    world = Area(parameters={"point_max_w": 10**6})
    for at, row in enumerate(TABLE_2):
        world.trade(world.first_s + at * HOUR_S, 1, 2, row.price * 100, row.agreed * 1000)
    assert world.block() == ["accepted"] * 14
    assert world.account("ann").held_mc == sum(row.price * row.agreed * 100 for row in TABLE_2)
    world.run_day({1: [(row.used * 1000, 0) for row in TABLE_2], 2: [(0, row.generated * 1000) for row in TABLE_2]})
    right = 0
    for row, buyer, seller, grid in zip(TABLE_2, world.entries("ann")[1:], world.entries("ben")[1:],
                                        world.entries("grid")[1:], strict=True):
        cells = (-buyer.amount_mc, seller.amount_mc, grid.amount_mc)
        assert sum((-cells[0], cells[1], cells[2])) == 0
        right += sum(cell == printed * 10_000 for cell, printed in
                     zip(cells, (row.buyer, row.seller, row.grid), strict=True))
        assert (buyer.used_wh, buyer.generated_wh) == (row.used * 1000, row.generated * 1000)
        assert buyer.matched_wh == seller.matched_wh == min(row.used, row.generated) * 1000
    assert right == 19
    assert (-world.entries("ann")[7].amount_mc, world.entries("ben")[7].amount_mc) == (13_550_000, 11_880_000)
    ann, ben = world.account("ann"), world.account("ben")
    assert (ann.buyer_count, ben.seller_count, ann.seller_count, ben.buyer_count) == (7, 7, 0, 0)
    assert accounts.credit(ann, True, 0) == 96_428 and accounts.credit(ben, False, 0) == 97_857
    assert ann.held_mc == 0
    world.check_money()


def test_a_slot_without_trades_is_the_grids() -> None:
    world = Area(owners={1: "ann", 2: "ben"})
    world.run_day({1: [(100, 0)], 2: [(3, 1000)]})
    assert changes(world, "ann") == [("supply", -6150)]
    assert changes(world, "ben") == [("supply", -184 + 41_000)]  # 3 Wh are 184.5 mc: half to even
    assert changes(world, "grid") == [("balance", 6150 + 184 - 41_000)]
    world.check_money()


def test_the_grids_own_points_pay_nothing() -> None:
    world = Area(points=(1, 2), owners={1: "ann", 2: "grid"})
    world.run_day({1: [(100, 0)], 2: [(0, 5000)]})
    assert changes(world, "grid") == [("balance", 6150)]
    world.check_money()


def test_sell_ten_times_what_is_there() -> None:
    """T66: two contracts over 10 kWh each, 2 kWh made: what was delivered is paid at the agreed price, the rest of the
    buyers' energy at the price of the grid, which is worse for them than the market; nothing is created."""
    world = Area(points=(1, 2, 3), owners={1: "ann", 2: "ben", 3: "cem"})
    for buyer in (1, 2):
        world.trade(world.first_s, buyer, 3, 50_000, 10_000)
    assert world.block() == ["accepted"] * 4
    world.run_day({1: [(10_000, 0)], 2: [(10_000, 0)], 3: [(0, 2000)]})
    assert changes(world, "cem") == [("trade", 50_000)] * 2
    assert changes(world, "ann") == changes(world, "ben") == [("trade", -(52_000 + 9 * RETAIL))]
    assert changes(world, "grid") == [("balance", 2 * (2000 + 9 * RETAIL))]
    assert accounts.credit(world.account("cem"), False, 0) == 10_000
    world.check_money()


def test_several_trades_share_by_largest_remainder() -> None:
    """1,000 Wh made for contracts of 1, 1 and 1: 334, 333, 333."""
    world = Area(points=(1, 2, 3, 4), owners={1: "ann", 2: "ben", 3: "cem", 4: "dan"})
    for buyer in (1, 2, 3):
        world.trade(world.first_s, buyer, 4, 50_000, 777)
    world.block()
    world.run_day({1: [(500, 0)], 2: [(500, 0)], 3: [(500, 0)], 4: [(0, 1000)]})
    assert [row.generated_wh for row in world.entries("dan")[1:]] == [334, 333, 333]
    world.check_money()


def test_missing_energy_moves_no_money_until_it_is_corrected() -> None:
    """The seller's meter is silent over the slot; the hold is released; a late reading changes nothing; the correction
    enters the trade as if it had been known, and the same correction again is refused."""
    world = Area()
    slot_s = world.first_s
    world.trade(slot_s, 1, 2, 50_000, 1000)
    world.block()
    world.put_seal(1, slot_s, 0)
    world.put_seal(2, slot_s, 0, 0)
    world.block(slot_s + 5)
    world.put_seal(1, slot_s + HOUR_S, 1000)
    world.block(slot_s + HOUR_S + 5)
    world.finish(slot_s)
    assert world.energy(2, slot_s) == (None, None, "missing")
    assert changes(world, "ann") == changes(world, "ben") == [("trade", 0)]
    assert world.entries("ann")[-1].reference == world.entries("ben")[-1].reference == "missing"
    assert (world.account("ann").held_mc, world.account("ann").buyer_count) == (0, 0)

    world.put_seal(2, slot_s + HOUR_S, 0, 900)
    assert world.block() == ["late"]
    assert world.energy(2, slot_s) == (None, None, "missing") and changes(world, "ben") == [("trade", 0)]

    world.correct(2, slot_s, 0, 900)
    world.correct(2, slot_s, 0, 900)
    assert world.block() == ["accepted", "duplicate"]
    assert world.energy(2, slot_s) == (0, 900, "substituted")
    assert changes(world, "ben") == [("trade", 0), ("correction", 45_000)]
    assert changes(world, "ann")[-1] == ("correction", -(900 * 52 + 100 * 61 + 50))
    row = world.entries("ben")[-1]
    assert (row.slot_s, row.trade, row.generated_wh, row.matched_wh, row.reference) == (slot_s, 0, 900, 900,
                                                                                        "read by hand")
    assert accounts.credit(world.account("ben"), False, 0) == 90_000
    world.check_money()


def test_corrections_may_follow_one_another() -> None:
    """After final three times and back again: the balances are those of the last energies alone."""
    world = Area()
    slot_s = world.first_s
    world.trade(slot_s, 1, 2, 50_000, 1000)
    world.block()
    world.run_day({1: [(1000, 0)], 2: [(0, 1000)]})
    first = [world.account(name).balance_mc for name in ("ann", "ben", "grid")]
    scores = [world.account("ann")[2:6], world.account("ben")[2:6]]
    world.correct(2, slot_s, None, 400, records.MEASURED)
    world.correct(1, slot_s, 700, None)
    world.correct(2, slot_s, None, None, records.MISSING)
    assert world.block() == ["accepted"] * 3
    assert world.energy(2, slot_s) == (None, None, "missing")
    assert [world.account(name).balance_mc for name in ("ann", "ben", "grid")] == [BALANCE_MC] * 3
    assert world.account("ben").seller_count == 0
    world.check_money()
    world.correct(2, slot_s, 0, 1000, sender="dispatcher")
    world.correct(1, slot_s, 1000, None)
    assert world.block() == ["accepted"] * 2
    assert [world.account(name).balance_mc for name in ("ann", "ben", "grid")] == first
    assert [world.account("ann")[2:6], world.account("ben")[2:6]] == scores
    world.check_money()


def test_a_correction_before_final_is_kept() -> None:
    world = Area()
    slot_s = world.first_s
    for point in (1, 2):
        world.put_seal(point, slot_s, 0, 0)
    world.block(slot_s + 5)
    for point in (1, 2):
        world.put_seal(point, slot_s + HOUR_S, 500, 0)
    world.block(slot_s + HOUR_S + 5)
    world.correct(1, slot_s, 300, None)
    world.correct(2, slot_s, 200, None)
    assert world.block() == ["accepted"] * 2
    world.block(slot_s + HOUR_S + 300)
    slot = world.slot(slot_s)
    assert slot.status == records.PROVISIONAL and world.energy(1, slot_s) == (300, 0, "substituted")
    assert changes(world, "ann") == []
    world.correct(1, slot_s, 350, None)
    world.correct(2, slot_s, None, None, records.MISSING)  # takes it back: the registers count again
    assert world.block() == ["accepted"] * 2
    world.finish(slot_s)
    assert world.slot(slot_s).status == records.FINAL
    assert changes(world, "ann") == [("supply", -350 * RETAIL // 1000)]
    assert world.energy(2, slot_s) == (500, 0, "measured")
    world.check_money()


@pytest.mark.parametrize(("change", "reason"), [
    ({"slot": 1}, "outside_window"),  # not over
    ({"slot": -1}, "outside_window"),  # before the calendar
    ({"slot": 0.5}, "outside_window"),
    ({"point": 9}, "unknown_point"),
    ({"import_wh": None, "export_wh": None}, "malformed"),
    ({"quality": records.MISSING}, "malformed"),
    ({"import_wh": 10**12}, "wrong_volume"),
    ({"reason": "x" * 201}, "oversize"),
    ({"sender": "ann"}, "not_permitted"),
    ({"quality": 4}, "malformed"),
])
def test_a_correction_is_refused(change: dict, reason: str) -> None:
    world = Area()
    world.run_day({1: [(1000, 0)], 2: [(0, 1000)]}, is_final=False)
    values = {"point": 1, "slot": 0, "import_wh": 5, "export_wh": 0, "quality": records.SUBSTITUTED, **change}
    slot_s = world.first_s + int(values.pop("slot") * HOUR_S)
    point, import_wh, export_wh, quality = (values.pop(name) for name in ("point", "import_wh", "export_wh", "quality"))
    for _ in range(2):  # before final and after it
        world.correct(point, slot_s, import_wh, export_wh, quality, **values)
        assert world.block() == [reason]
        world.finish(world.first_s)
    world.check_money()


def test_settled_once_and_alike_after_a_restart() -> None:
    """Between provisional and final one replica starts again: its states stay those of the other."""
    roots = []
    for is_restarted in (False, True):
        world = Area()
        world.trade(world.first_s, 1, 2, 50_000, 1000)
        world.block()
        world.run_day({1: [(900, 0)], 2: [(0, 800)]}, is_final=False)
        world.block(world.first_s + HOUR_S + 300)
        assert world.slot(world.first_s).status == records.PROVISIONAL
        if is_restarted:
            world.reopen()
        world.finish(world.first_s)
        entries = len(world.entries("ann"))
        roots.append(world.execute(world.now_s + 30).state_root)
        assert len(world.entries("ann")) == entries == 2
        world.ledger.check()
        world.check_money()
        draft = Draft(StateTree(world.ledger._tree.items()))
        settlement.final(draft, world.ledger.context("trade", 99, world.now_s, bytes(32)), world.first_s)
        assert draft.changes == {}, "once is for ever, whoever asks again"
    assert roots[0] == roots[1]


def _zone(instant: str, before_s: int, after_s: int) -> list[list[int]]:
    return [[0, before_s], [int(datetime.datetime.fromisoformat(instant).timestamp()), after_s]]


@pytest.mark.parametrize(("day", "hours", "zone"), [
    ("2026-10-24T22:00:00+00:00", 25, _zone("2026-10-25T01:00:00+00:00", 7200, 3600)),
    ("2026-03-28T23:00:00+00:00", 23, _zone("2026-03-29T01:00:00+00:00", 3600, 7200)),
    ("2026-05-01T22:00:00+00:00", 24, [[0, 7200]]),
])
def test_a_local_day_of_23_24_or_25_hours(day: str, hours: int, zone: list[list[int]]) -> None:
    """A cheap night from 22 to 6 o'clock local time: seven, eight or nine hours of it in that day, by the table."""
    start_s = int(datetime.datetime.fromisoformat(day).timestamp())
    periods = [[0, 6, 20_000], [6, 22, 60_000], [22, 24, 20_000]]
    world = Area(points=(1,), owners={1: "ann"}, created_s=start_s - HOUR_S,
                 rule_sets={"tariff": {"zone": zone, "periods": periods}})
    assert world.first_s == start_s
    slots = world.run_day({1: [(1000 + at, 0) for at in range(hours)]})
    tariff = rules.read("tariff", rules.make("tariff", {"zone": zone, "periods": periods}))
    local = [(slot_s + rules.offset_s(tariff, slot_s)) // HOUR_S % 24 for slot_s in slots]
    assert (local[0], local[-1], len(slots)) == (0, 23, hours)
    rows = world.entries("ann")[1:]
    assert [row.slot_s for row in rows] == slots
    prices = [20_000 if hour < 6 or hour >= 22 else 60_000 for hour in local]
    assert [-row.amount_mc for row in rows] == [
        (1000 + at) * price // 1000 for at, price in enumerate(prices)]
    assert prices.count(20_000) == hours - 16
    assert sum(row.used_wh or 0 for row in rows) == sum(1000 + at for at in range(hours))
    world.check_money()


def test_the_household_day_of_25_hours() -> None:
    """A house in Konstanz, 2015-10-25, as it was measured: 25 local hours, and their sum is last less first."""
    path = needs.vectors("households/opsd_konstanz_residential4_60min_B_dst.csv")
    lines = [line.split(",") for line in path.read_text().splitlines()]
    at = {name: lines[0].index(name) for name in ("utc_timestamp", "cet_cest_timestamp", "grid_import_kwh",
                                                  "grid_export_kwh")}
    rows = [(int(datetime.datetime.fromisoformat(line[at["utc_timestamp"]]).timestamp()),
             line[at["cet_cest_timestamp"]][:10], round(float(line[at["grid_import_kwh"]]) * 1000),
             round(float(line[at["grid_export_kwh"]]) * 1000)) for line in lines[1:]]
    local = [index for index, row in enumerate(rows) if row[1] == "2015-10-25"]
    assert len(local) == 25
    day = rows[local[0]:local[-1] + 2]
    world = Area(points=(1,), owners={1: "ann"}, created_s=day[0][0] - HOUR_S, starts={1: 0},
                 rule_sets={"tariff": {"zone": _zone("2015-10-25T01:00:00+00:00", 7200, 3600)}})
    for time_s, _, import_wh, export_wh in day:
        world.put_seal(1, time_s, import_wh, export_wh)
        assert world.block(time_s + 20) == ["accepted"]
    world.finish(day[-2][0])
    found = [world.energy(1, row[0]) for row in day[:-1]]
    assert {quality for _, _, quality in found} == {"measured"}
    assert sum(import_wh or 0 for import_wh, _, _ in found) == day[-1][2] - day[0][2] == 5197
    assert sum(export_wh or 0 for _, export_wh, _ in found) == day[-1][3] - day[0][3] == 19_559
    assert len(world.entries("ann")) == 26
    world.check_money()


def test_alpha_helps_sellers_of_weather_driven_energy() -> None:
    world = Area(rule_sets={"credit": {"natural_alpha": 200, "natural_forms": [2]}})
    for form, at in ((1, 0), (2, 1)):
        world.trade(world.first_s + at * HOUR_S, 1, 2, 50_000, 1000, form=form)
    world.block()
    world.run_day({1: [(1000, 0)] * 2, 2: [(0, 500)] * 2})
    ben = world.account("ben")
    assert (ben.seller_sum, ben.seller_count) == (50_000 + 60_000, 2)


def test_the_owner_of_a_slot_is_who_had_the_point_then() -> None:
    """A point changes hands between a slot and its final: its energy is the former owner's."""
    world = Area(points=(1, 2), owners={1: "ann", 2: "ben"})
    world.run_day({1: [(1000, 0)], 2: [(0, 0)]}, is_final=False)
    world.items.append(world.revoke("agent 1"))
    world.enrol_point(1, "agent 1b", "ben")
    assert world.block() == ["accepted"] * 2
    world.finish(world.first_s)
    assert changes(world, "ann") == [("supply", -61_500)]
    assert key("ben").kid == world.point(1).owner
    world.check_money()


_ENERGY = st.tuples(st.integers(0, 3000), st.integers(0, 3000))


@settings(max_examples=12, deadline=None)
@given(st.lists(_ENERGY, min_size=3, max_size=3), st.lists(_ENERGY, min_size=3, max_size=3),
       st.lists(st.tuples(st.integers(0, 2), _ENERGY), max_size=3),
       st.lists(st.tuples(st.permutations((1, 2, 3)), st.integers(0, 90_000), st.integers(1, 4000)), max_size=4))
def test_corrected_is_as_if_it_had_been_so(measured: list, right: list, detours: list, trades: list) -> None:
    """Whatever was measured and corrected on the way: balances, credit and sums are those of the right energies."""
    found = []
    for energies in (measured, right):
        world = Area(points=(1, 2, 3))
        for points, price, wh in trades:
            world.trade(world.first_s, points[0], points[1], price, wh)
        world.block()
        world.run_day({point: [energies[point - 1]] for point in (1, 2, 3)})
        if energies is measured:
            for at, (import_wh, export_wh) in [*detours, *enumerate(right)]:
                world.correct(at + 1, world.first_s, import_wh, export_wh, records.MEASURED)
                assert world.block()[0] in ("accepted", "duplicate")
                world.check_money()
        found.append([world.account(name)[1:8] for name in ("ann", "ben", "cem", "grid")])
        world.check_money()
    assert found[0] == found[1]
