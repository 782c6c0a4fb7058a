"""What pages and commands are told of the market: from a real ledger's records, exact, and no more than is open."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.market import records, views
from tests.contracts.area import FIRST_S, MONEY_MC, SLOT_S, MarketWorld, area_of
from tests.contracts.area import Area as MarketArea
from tests.contracts.settling import BALANCE_MC, Area
from tests.ledger.world import START_S, key
from tests.scenarios.page import ENERGIES, make_area


def market(area: Area | MarketArea, slot_s: int | None = None) -> dict[str, Any]:
    found = views.market(area.ledger.state_value, area.ledger.height(), 3600, slot_s)
    assert found is not None
    return found


def stored(area: Area | MarketArea) -> list[bytes]:
    return [data for _, data in area.ledger.state_with(records.ACCOUNT)]


def settlement(area: Area | MarketArea, slot_s: int | None = None) -> dict[str, Any] | None:
    return views.settlement(area.ledger.state_value, area.ledger.height(), 3600, stored(area), slot_s)


def settled(area: Area, slot_s: int | None = None) -> dict[str, Any]:
    found = settlement(area, slot_s)
    assert found is not None
    return found


def accounts(area: Area | MarketArea) -> dict[str, Any]:
    return views.accounts(area.ledger.state_value, area.ledger.height(), stored(area))


def test_before_there_is_a_market(tmp_path: Path) -> None:
    area = MarketArea(MarketWorld(1), tmp_path)
    found = market(area)
    assert found == {"is_running": False, "slot_length_s": 3600, "mechanism": None, "next_s": None, "open": None,
                     "traded_s": None, "cleared": None, "rules": dict.fromkeys(("market", "tariff", "vee", "credit"))}
    assert settlement(area) is None
    assert views.market(area.ledger.state_value, 0, 3600, FIRST_S) is None
    assert accounts(area)["sum_mc"] == accounts(area)["minted_mc"] == MONEY_MC
    area.ledger.close()


def test_a_slot_open_and_cleared(tmp_path: Path) -> None:
    with area_of(tmp_path) as area:
        assert market(area)["cleared"] is None and market(area)["open"]["books"] == []
        world = area.world
        assert area.block(START_S + 120, world.order("p0", 0, 60_000, 700), world.order("p2", 0, 45_000, 300),
                          world.order("p1", 1, 41_000, 500)) == ["accepted"] * 3
        opened = market(area)["open"]
        assert (opened["slot_s"], opened["gate_s"], opened["orders"]) == (FIRST_S, FIRST_S - 300, 3)
        assert opened["commit_open_s"] is None
        assert opened["books"] == [{"scale": "day-ahead", "flow": "GU", "form": 0, "buys": 2, "sells": 1,
                                    "buy_wh": 1000, "sell_wh": 500, "best_buy": 60_000, "best_sell": 41_000}]
        assert market(area, FIRST_S + SLOT_S)["open"]["orders"] == 0
        area.block(FIRST_S - 300)
        record = area.clearing()
        found = market(area)
        assert found["open"]["slot_s"] == FIRST_S + SLOT_S and found["next_s"]["clear"] == FIRST_S + SLOT_S
        cleared = found["cleared"]
        assert cleared == market(area, FIRST_S)["cleared"] and market(area, FIRST_S)["open"] is None
        assert (cleared["mechanism"], cleared["height"], cleared["beacon"]) == (
            "knn", record.height, record.beacon.hex())
        assert cleared["books"][0]["price"] == record.books[0].price == cleared["lowest"] == cleared["highest"]
        assert cleared["books"][0]["reference_price"] == record.books[0].reference_price is not None
        assert [(row["buyer"], row["seller"], row["wh"]) for row in cleared["trades"]] == [
            (key("p0").kid.hex(), key("p1").kid.hex(), 500)]
        assert cleared["wh"] == 500 and cleared["orders"] == 3
        area.block(FIRST_S + SLOT_S - 300)
        assert market(area)["cleared"]["trades"] == [] and market(area)["traded_s"] == FIRST_S
        for slot_s in (FIRST_S - SLOT_S, FIRST_S + 1, FIRST_S + SLOT_S + 7, 0):
            assert views.market(area.ledger.state_value, area.ledger.height(), 3600, slot_s) is None, slot_s


def test_nobodys_price_is_shown_before_a_blind_gate(tmp_path: Path) -> None:
    with area_of(tmp_path, market={"mechanism": "blind"}) as area:
        world = area.world
        assert area.block(FIRST_S - 880, world.commit("p0", 55_000, 700), world.commit("p1", 52_000, 400),
                          world.order("p2", 1, 38_000, 1000)) == ["accepted"] * 3
        assert area.block(FIRST_S - 590, world.reveal("p0", 55_000, 700)) == ["accepted"]
        opened = market(area)["open"]
        assert (opened["orders"], opened["commits"], opened["reveals"], opened["books"]) == (1, 2, 1, [])
        assert (opened["commit_open_s"], opened["commit_close_s"]) == (FIRST_S - 900, FIRST_S - 600)
        assert not {"55000", "38000", "52000"} & {str(value) for value in opened.values()}
        assert area.block(FIRST_S - 585, world.reveal("p1", 52_000, 400)) == ["accepted"]
        area.block(FIRST_S - 300)
        cleared = market(area)["cleared"]
        assert (cleared["lowest"], cleared["highest"], cleared["wh"]) == (52_000, 55_000, 1000)
        assert cleared["books"][0]["price"] is cleared["books"][0]["reference_price"] is None


def test_a_settlement_to_the_last_unit(tmp_path: Path) -> None:
    area = make_area(tmp_path / "area")
    found = settled(area)
    assert found["slot_s"] == area.first_s + 3600 and found["status"] == "final" and found["is_whole"]
    rows = {row["point"]: row for row in found["points"]}
    names = ("import_wh", "export_wh", "bought_wh", "shortfall_wh", "sold_wh", "surplus_wh", "amount_mc")
    # 3,999 Wh at 0.473 + 0.02 are 197,150.7 mc, 1,126 Wh at 0.615 are 69,249; 3,999 Wh at 0.473 are 189,152.7, 1,000
    # are 47,300; 130 Wh at 0.615 are 7,995
    assert [rows[1][name] for name in names] == [5125, 0, 3999, 1126, None, None, -(197_151 + 69_249)]
    assert [rows[2][name] for name in names] == [130, 4999, None, None, 4999, 0, 189_153 + 47_300 - 7_995]
    assert [rows[4][name] for name in names] == [640, 0, None, None, None, None, None], "the grid's own point"
    assert {row["quality"] for row in rows.values()} == {"measured"}
    assert rows[1]["account"] == key("ann").kid.hex() and rows[4]["account"] == key("grid").kid.hex()
    assert found["sum_mc"] == 0 and found["bought_wh"] == found["sold_wh"] == 4999
    assert (found["shortfall_wh"], found["surplus_wh"]) == (1126 + 1750, 0)
    assert found["turnover_mc"] == 189_153 + 47_300
    assert found["tariff"] == {"retail": 61_500, "buyback": 41_000, "wheeling": 2_000} and found["offset_s"] == 3600
    area.ledger.close()


def amounts(area: Area) -> dict[str, int]:
    """What the settlements of all slots say of each account."""
    sums: dict[str, int] = {}
    for at in range(len(ENERGIES[1])):
        found = settled(area, area.first_s + at * 3600)
        assert found["sum_mc"] == 0 and found["grid"]["account"] == key("grid").kid.hex()
        rows = [(row["account"], row["amount_mc"] or 0) for row in found["points"]]
        for account, amount_mc in [*rows, (found["grid"]["account"], found["grid"]["amount_mc"])]:
            sums[account] = sums.get(account, 0) + amount_mc
    return sums


def test_settlements_are_what_balances_changed_by_also_after_corrections(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    area = make_area(tmp_path / "area")

    def changes() -> dict[str, int]:
        return {row["address"]: row["balance_mc"] - BALANCE_MC for row in accounts(area)["accounts"]}

    first = amounts(area)
    assert first == changes() and len(first) == 4
    area.correct(1, area.first_s, 6_000, 0, reason="read <b>again</b>")
    area.correct(2, area.first_s, 0, 8_000)
    assert area.block() == ["accepted"] * 2
    area.correct(1, area.first_s, None, None, records.MISSING, reason="nobody knows")
    assert area.block() == ["accepted"]
    assert amounts(area) == changes() != first
    found = settled(area, area.first_s)
    assert {row["reason"] for row in found["corrections"]} == {"read <b>again</b>", "read by hand", "nobody knows"}
    row = next(row for row in found["points"] if row["point"] == 1)
    assert (row["quality"], row["import_wh"], row["bought_wh"], row["amount_mc"]) == ("missing", None, None, 0)
    trade = next(row for row in found["trades"] if row["buyer_point"] == 1)
    assert trade["is_missing"] and trade["matched_wh"] is None and trade["buyer_mc"] == 0
    monkeypatch.setattr(views, "LOOKED", 3)
    assert not settled(area, area.first_s)["is_whole"]
    area.ledger.close()


def test_a_slot_that_is_not_final(tmp_path: Path) -> None:
    area = Area(tmp_path)
    area.trade(area.first_s, 1, 2, 55_000, 200)
    assert area.block() == ["accepted"] * 2
    area.run_day({1: [(200, 0)], 2: [(0, 150)]}, is_final=False)
    area.block(area.first_s + 3600 + 300)
    assert settlement(area) is None, "the last final one: there is none"
    found = settled(area, area.first_s)
    assert found["status"] == "provisional" and found["sum_mc"] is None and found["grid"] is None
    assert [(row["import_wh"], row["export_wh"], row["amount_mc"]) for row in found["points"]] == [
        (200, 0, None), (0, 150, None)]
    assert found["trades"][0]["wh"] == 200 and found["trades"][0]["matched_wh"] is None
    assert found["bought_wh"] is None and found["turnover_mc"] == 0
    for slot_s in (area.first_s + 3600, area.first_s - 3600, area.first_s + 1):
        assert settlement(area, slot_s) is None
    area.ledger.close()


def test_accounts_with_buying_and_selling_apart(tmp_path: Path) -> None:
    area = make_area(tmp_path / "area")
    found = accounts(area)
    assert found["grid"] == key("grid").kid.hex() and found["sum_mc"] == found["minted_mc"] == 4 * BALANCE_MC
    assert [list(row)[:3] for row in found["accounts"]] == [["address", "balance_mc", "credit"]] * 4, "004, eq. 7"
    assert [row["address"] for row in found["accounts"]] == sorted(row["address"] for row in found["accounts"])
    rows = {row["address"]: row for row in found["accounts"]}
    ann, ben = rows[key("ann").kid.hex()], rows[key("ben").kid.hex()]
    assert (ann["role"], ann["points"], rows[key("grid").kid.hex()]["role"]) == ("participant", [1], "grid")
    # sold: 8,000 and 5,000 Wh agreed in two trades each; made 9,000 and 4,999: 100, 100, 99.975 and 100
    assert ben["scores"] == {"buying": 0, "selling": 4} and ben["credit"]["selling"] == 399_975 // 4
    assert ann["scores"] == {"buying": 2, "selling": 0} and ann["credit"] == {"buying": 100_000, "selling": 100_000}
    assert ann["held_mc"] == 52 * 2_000 * 2 - (52_000 * 2_000 - 52_000 * 1_500) // 1000, "an order, and a trade"
    assert ann["available_mc"] == ann["balance_mc"] - ann["held_mc"]
    assert ann["balance_mc"] == BALANCE_MC - ann["spent_mc"] + ann["earned_mc"]
    area.ledger.close()


def test_credit_of_each_side_is_its_own_mean() -> None:
    record = records.AccountRecord(key("ann").kid, -5, 190_001, 2, 0, 0, 3, 4, 7, 100, 95)
    found = views.accounts(lambda _: None, 1, [records.encode(record)])
    assert found == {"grid": None, "minted_mc": 0, "sum_mc": -5, "accounts": [{
        "address": key("ann").kid.hex(), "balance_mc": -5, "credit": {"buying": 95_000, "selling": None},
        "scores": {"buying": 2, "selling": 0}, "role": None, "points": [], "available_mc": -12, "deposit_mc": 3,
        "deposit_free_s": None, "held_mc": 4, "spent_mc": 100, "earned_mc": 95, "entries": 7}]}


def test_an_accounts_first_entry_counts(tmp_path: Path) -> None:
    """Nobody has a balance, no meter has said anything: the slot is settled with what is missing."""
    with area_of(tmp_path, owners=2, money_mc=0, vee={"provisional_s": 300, "final_s": 600}) as area:
        area.block(FIRST_S + SLOT_S + 600)
        found = settlement(area)
        assert found is not None and found["sum_mc"] == 0 and found["grid"]["amount_mc"] == 0
        assert [(row["quality"], row["import_wh"], row["amount_mc"]) for row in found["points"]] == [
            ("missing", None, 0)] * 2
        assert [row["account"] for row in found["points"]] == [key("p0").kid.hex(), key("p1").kid.hex()]
