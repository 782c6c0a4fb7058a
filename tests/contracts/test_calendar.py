"""What block time makes happen: when, once, in order, the same after a restart, in a copy and when computed again."""

import json
from pathlib import Path

import pytest

from deploy import cli
from firmware.wire import transaction
from gateway.contracts import accounts, calendar, indexes
from gateway.ledger import history, recompute
from gateway.ledger.ledger import Ledger
from gateway.market import records
from tests.contracts.area import FIRST_S, MONEY_MC, SLOT_S, Area, MarketWorld, area_of
from tests.ledger.world import START_S, key, point_entry

BUY, SELL = 0, 1
NOW_S = START_S + 120
GATE_S = FIRST_S - 300
QUICK = {"provisional_s": SLOT_S, "final_s": 2 * SLOT_S}


def slots(*numbers: int) -> tuple[int, ...]:
    return tuple(FIRST_S + number * SLOT_S for number in numbers)


def trade(area: Area) -> None:
    """One trade in the first slot."""
    items = [area.world.order("p0", BUY, 60000, 700), area.world.order("p1", SELL, 41000, 500)]
    assert area.block(NOW_S, *items) == ["accepted"] * 2


def test_it_begins_with_a_grid_and_all_rules(tmp_path: Path) -> None:
    area = Area(MarketWorld(1), tmp_path)
    world = area.world
    assert area.block(NOW_S, world.revoke("grid"), *(world.rule_set(name, 1, 3) for name in (
        "market", "tariff", "vee"))) == ["accepted"] * 4
    assert area.block(NOW_S, world.rule_set("credit", 1, 4)) == ["accepted"] and area.block(NOW_S) == []
    assert area.calendar() is None and area.ledger.deadline_s() is None
    assert area.block(GATE_S) == [] and area.calendar() == slots(1, 1, 1), "at the gate it is not ahead any more"
    assert area.ledger.deadline_s() == GATE_S + SLOT_S
    area.ledger.close()


def test_duties_come_in_the_order_of_their_times(tmp_path: Path) -> None:
    with area_of(tmp_path, vee=QUICK) as area:
        steps = [(GATE_S - 1, (0, 0, 0)), (GATE_S, (1, 0, 0)), (GATE_S + SLOT_S, (2, 0, 0)),
                 (FIRST_S + 2 * SLOT_S - 1, (3, 0, 0)), (FIRST_S + 2 * SLOT_S, (3, 1, 0)),
                 (FIRST_S + 3 * SLOT_S, (4, 2, 1)), (FIRST_S + 9 * SLOT_S, (10, 8, 7))]
        for time_s, cursors in steps:
            deadline_s = area.ledger.deadline_s()
            area.block(time_s)
            assert area.calendar() == slots(*cursors), time_s
            assert (deadline_s is not None and deadline_s <= time_s) is (time_s != GATE_S - 1)
            after_s = area.ledger.deadline_s()
            assert after_s is not None and after_s > time_s, "nothing that is due is left"


def test_a_long_silence_is_made_up_for_block_by_block(tmp_path: Path) -> None:
    with area_of(tmp_path, vee=QUICK) as area:
        late_s = START_S + 30 * 86400
        area.block(late_s)
        found = area.calendar()
        assert found is not None and sum(cursor - FIRST_S for cursor in found) == calendar.DUTIES * SLOT_S
        deadline_s = area.ledger.deadline_s()
        assert deadline_s is not None and deadline_s <= late_s, "the next block is due at once"
        height = area.ledger.height()
        while (deadline_s := area.ledger.deadline_s() or 0) <= late_s:
            area.block(late_s)
        assert area.ledger.height() - height < 3 * 30 * 24 // calendar.DUTIES + 2
        assert area.world and area.block(late_s, area.world.order("p0", SELL, 5, 5, late_s)) == ["outside_window"]


def test_a_slot_keeps_the_rules_of_its_gate(tmp_path: Path) -> None:
    with area_of(tmp_path, vee=QUICK) as area:
        area.block(GATE_S)
        height = area.ledger.height() + 2
        assert area.block(GATE_S, area.world.rule_set("vee", 2, height, {"provisional_s": 60, "final_s": 120}),
                          area.world.rule_set("tariff", 2, height)) == ["accepted"] * 2
        area.block(FIRST_S + 2 * SLOT_S - 1)
        assert area.calendar() == slots(3, 0, 0), "the first slot waits for the old rules' time, and others behind it"
        assert [area.clearing(slot_s).vee_version for slot_s in slots(0, 1)] == [1, 2]
        area.block(FIRST_S + 2 * SLOT_S + 60)
        assert area.calendar() == slots(3, 2, 0)


def test_the_same_after_a_restart_in_a_copy_and_when_executed_again(tmp_path: Path) -> None:
    with area_of(tmp_path / "one", vee=QUICK) as area:
        trade(area)
        area.block(GATE_S)
        area.block(FIRST_S + 2 * SLOT_S)
        deadline_s, root = area.ledger.deadline_s(), area.ledger.stand().state_root
        area.restart()
        assert (area.ledger.deadline_s(), area.ledger.stand().state_root) == (deadline_s, root)
        trade_s = FIRST_S + 3 * SLOT_S
        area.block(trade_s, area.world.order("p2", SELL, 5, 5, trade_s + SLOT_S))
        area.ledger.check()
        stand = area.ledger.stand()
        other = Ledger.open(tmp_path / "two", area.world.genesis)
        blocks = [(area.ledger.block("trade", height), b"") for height in range(1, stand.heads[0][1] + 1)]
        other.install(stand.n, blocks, [tuple(head) for head in stand.heads], stand.state_root)  # type: ignore[arg-type]
        assert other.deadline_s() == area.ledger.deadline_s()
        other.close()


def test_earlier_states_are_found_again(tmp_path: Path) -> None:
    with area_of(tmp_path, vee=QUICK) as area:
        trade(area)
        for time_s in (GATE_S, FIRST_S, FIRST_S + 2 * SLOT_S, FIRST_S + 3 * SLOT_S):
            area.block(time_s)
        top = area.ledger.height()
        for height in range(1, top + 1):
            history.state_at(area.ledger, "trade", height)  # compares with the root that the block names
            before = history.state_before(area.ledger, "trade", height)
            if height > 1:
                assert before.root() == history.state_at(area.ledger, "trade", height - 1).root()


def test_a_clearing_is_computed_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "data"
    with area_of(folder, vee=QUICK) as area:
        trade(area)
        area.block(GATE_S + SLOT_S, area.world.order("p1", SELL, 5, 5, FIRST_S + 2 * SLOT_S))
        height = area.ledger.height()
        area.block(FIRST_S + 3 * SLOT_S)
        first, second = recompute.clearings_of(area.ledger, height)
        assert first.is_equal and second.is_equal and first.record == area.clearing()
        assert first.record.trades and not second.record.trades
    words = ["--data", str(folder)]
    assert cli.main(["market", "recompute", str(height), *words]) == 0
    said = capsys.readouterr().out
    assert f"good: 2 slots of block {height}" in said and "point 2 to point 1, 500 Wh" in said
    assert cli.main(["market", "recompute", str(height), *words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["verdict"] == "good" and len(told["slots"]) == 2
    assert cli.main(["market", "recompute", "1", *words]) == 0 and "cleared no slot" in capsys.readouterr().out
    assert cli.main(["market", "recompute", "999", *words]) == 2
    assert cli.main(["market", "recompute", "1", "--data", str(tmp_path)]) == 2
    capsys.readouterr()


def test_an_edited_clearing_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "data"
    with area_of(folder) as area:
        trade(area)
        area.block(GATE_S)
        height, found = area.ledger.height(), area.clearing()
        better = found._replace(trades=[found.trades[0]._replace(price=found.trades[0].price - 1)])
        with area.ledger.store.writing():
            area.ledger.store.put("state", records.clearing_key(FIRST_S), records.encode(better))
    assert cli.main(["market", "recompute", str(height), "--data", str(folder)]) == 1
    assert "BAD" in capsys.readouterr().err


def test_a_debt_that_comes_after_the_owner_left(tmp_path: Path) -> None:
    """What slots before it cost the old owner goes with the point too, when they are final."""
    with area_of(tmp_path, vee=QUICK) as area:
        trade(area)
        area.block(GATE_S)
        world = area.world
        comes = transaction.enrol_body(world.request("p9", "participant"), key("p9").kid, [], "")
        again = transaction.enrol_body(world.request("m9"), key("p9").kid, [point_entry(1)], "")
        assert area.block(FIRST_S, world.revoke("m0"), world.tx(transaction.ENROL, comes),
                          world.tx(transaction.ENROL, again)) == ["accepted"] * 3
        assert indexes.points_of(area.state, key("p0").kid) == [] and area.account("p9").balance_mc == 0
        assert area.ledger.state_value(records.FORMER_KEY) is not None
        with area.ledger._writing():  # what a settlement would enter
            draft = area.state
            context = area.ledger.context("trade", 0, FIRST_S, bytes(32))
            accounts.post(draft, context, key("p0").kid, records.SUPPLY, -MONEY_MC - 7)
            accounts.post(draft, context, key("grid").kid, records.BALANCE, MONEY_MC + 7)
            area.ledger._tree.apply(draft.changes)
        area.block(FIRST_S + 3 * SLOT_S)
        assert (area.account("p0").balance_mc, area.account("p9").balance_mc) == (0, -7)
        area.block(FIRST_S + 4 * SLOT_S)
        assert area.ledger.state_value(records.FORMER_KEY) is None, "all of its slots are final"
