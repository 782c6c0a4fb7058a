"""Deposits, top-ups, withdrawals by two wills; genesis money; rule sets; what a debt does."""

from pathlib import Path

import pytest

from firmware.wire import genesis, trading, transaction
from firmware.wire.errors import Refused
from gateway.contracts import accounts, consents, indexes, rulesets
from gateway.market import records, rules
from tests.contracts.area import FIRST_S, MONEY_MC, Area, MarketWorld, area_of, nonce_of, refused
from tests.ledger.world import START_S, key, point_entry

NOW_S = START_S + 120


def test_genesis_money_is_minted(tmp_path: Path) -> None:
    with area_of(tmp_path) as area:
        assert area.account("p1").balance_mc == MONEY_MC and accounts.minted_mc(area.state) == 3 * MONEY_MC
        entry, = area.entries("p1")
        assert (entry.number, entry.kind, entry.amount_mc, entry.height, entry.reference) == (
            1, records.TOP_UP, MONEY_MC, 0, "genesis")
        assert area.account("grid").entries == 0


@pytest.mark.parametrize("balances", [
    [[bytes(8), 1], [bytes(8), 1]], [[b"b" * 8, 1], [b"a" * 8, 1]], [[bytes(7), 1]], [[bytes(8), -1]], [[bytes(8)]],
    [bytes(8)]])
def test_genesis_balances_are_read_strictly(balances: list) -> None:
    facts = genesis.decode(MarketWorld(1).genesis)
    with pytest.raises(Refused, match="malformed"):
        genesis.decode(genesis.encode(facts._replace(balances=balances)))


def test_two_wills(tmp_path: Path) -> None:
    with area_of(tmp_path) as area:
        world = area.world
        assert area.block(NOW_S, world.top_up("p0", 500), world.top_up("p0", 500)) == ["accepted", "duplicate"]
        assert area.account("p0").balance_mc == MONEY_MC
        assert area.block(NOW_S, world.top_up("p0", 501, sender="p0"), world.top_up("p0", 500, sender="p0")) == [
            "accepted", "accepted"]
        assert area.account("p0").balance_mc == MONEY_MC + 500
        entry = area.entries("p0")[-1]
        assert (entry.kind, entry.amount_mc, entry.reference) == (records.TOP_UP, 500, "r")
        assert area.block(NOW_S, world.top_up("p0", 500), world.top_up("p0", 500, sender="p0")) == ["accepted"] * 2
        assert area.account("p0").balance_mc == MONEY_MC + 1000, "in force, the same body is a new one"
        assert area.block(NOW_S, world.withdraw("p0", 700, sender="p0"), world.withdraw("p0", 700)) == ["accepted"] * 2
        assert area.account("p0").balance_mc == MONEY_MC + 300
        assert area.block(NOW_S, world.deposit("p0", 300), world.deposit("p0", 300, sender="p0")) == ["accepted"] * 2
        assert (area.account("p0").deposit_mc, area.available("p0")) == (300, MONEY_MC)
        assert area.account("p0").entries == 4, "a deposit changes no balance"
        left = [name for name, _ in area.ledger._tree.with_prefix(b"consent")]
        assert len(left) == 2, "one will still waits: the top-up of 501"


def test_money_is_refused(tmp_path: Path) -> None:
    with area_of(tmp_path) as area:
        world = area.world
        first = [world.withdraw("p0", MONEY_MC + 1), world.deposit("p0", MONEY_MC + 1), world.top_up("p0", 7),
                 *(world.top_up("p0", trading.AMOUNT_MC, str(at)) for at in range(2))]
        assert area.block(NOW_S, *first) == ["accepted"] * 5
        refused(area, NOW_S, [
            (world.withdraw("p0", MONEY_MC + 1, sender="p0"), "insufficient_funds"),
            (world.deposit("p0", MONEY_MC + 1, sender="p0"), "insufficient_funds"),
            (world.top_up("p0", 7, sender="p1"), "not_permitted"),
            (world.top_up("p0", 7, sender="operator"), "not_permitted"),
            (world.top_up("p0", 7, sender="m0"), "not_permitted"),
            (world.tx(trading.TOP_UP, [key("p0").kid, 0, ""], "grid"), "malformed"),
            (world.tx(trading.TOP_UP, [key("p0").kid, trading.AMOUNT_MC + 1, ""], "grid"), "malformed"),
        ])
        account = area.account("p0")
        accounts.BALANCE_MC, limit = account.balance_mc + trading.AMOUNT_MC, accounts.BALANCE_MC
        try:
            assert area.block(NOW_S, *(world.top_up("p0", trading.AMOUNT_MC, str(at), "p0") for at in range(2))) == [
                "accepted", "oversize"]
        finally:
            accounts.BALANCE_MC = limit


def test_the_grids_own_account_needs_one_signature(tmp_path: Path) -> None:
    with area_of(tmp_path) as area:
        assert area.block(NOW_S, area.world.top_up("grid", 9)) == ["accepted"]
        assert area.account("grid").balance_mc == 9


def test_waiting_wills_are_bounded(tmp_path: Path) -> None:
    with area_of(tmp_path) as area:
        world = area.world
        wills = [world.top_up("p0", 1, str(at)) for at in range(consents.WAITING + 3)]
        assert set(area.block(NOW_S, *wills)) == {"accepted"}
        assert len(area.ledger._tree.with_prefix(b"consent/")) == consents.WAITING
        assert area.block(NOW_S, world.top_up("p0", 1, "2", "p0"), world.top_up("p0", 1, "3", "p0")) == ["accepted"] * 2
        assert area.account("p0").balance_mc == MONEY_MC + 1, "the oldest made room"


def test_a_second_grid_comes_when_the_first_is_revoked(tmp_path: Path) -> None:
    with area_of(tmp_path) as area:
        world = area.world
        second = transaction.enrol_body(world.request("grid2", "grid"), key("grid2").kid, [], "")
        assert area.block(NOW_S, world.tx(transaction.ENROL, second), world.top_up("p0", 1, sender="grid2")) == [
            "accepted", "not_permitted"]
        assert accounts.grid(area.state) == key("grid").kid
        assert area.block(NOW_S, world.revoke("grid"), world.top_up("p0", 1, sender="grid2"),
                          world.top_up("p0", 1, sender="p0")) == ["accepted"] * 3
        assert accounts.grid(area.state) == key("grid2").kid
        assert area.block(NOW_S, world.revoke("grid2")) == ["accepted"]
        assert accounts.grid(area.state) == key("grid2").kid, "sums still need an account"


def test_rule_sets_come_at_their_height(tmp_path: Path) -> None:
    area = Area(MarketWorld(1), tmp_path)
    world = area.world
    assert area.block(NOW_S, world.rule_set("tariff", 1, 2), world.rule_set("tariff", 2, 3, {"buyback": 1})) == [
        "accepted"] * 2
    assert rulesets.in_force(area.state, "tariff", 1) is None
    found = [rulesets.in_force(area.state, "tariff", height) for height in (2, 3, 99)]
    assert [version.version for version in found if version] == [1, 2, 2]
    assert found[1] and rulesets.read("tariff", found[1]).buyback == 1
    assert area.calendar() is None and area.ledger.deadline_s() is None
    area.ledger.close()


def test_a_backdated_tariff_is_refused(tmp_path: Path) -> None:
    """T70, and everything else that is wrong with a rule set."""
    with area_of(tmp_path) as area:
        world = area.world
        body = trading.rule_set_body("tariff", 2, 99, rules.make("tariff"))
        height = area.ledger.height() + 1
        refused(area, NOW_S, [
            (world.rule_set("tariff", 2, height), "backdated"), (world.rule_set("tariff", 2, 1), "backdated"),
            (world.rule_set("tariff", 1, 99), "wrong_version"), (world.rule_set("tariff", 3, 99), "wrong_version"),
            (world.tx(trading.RULE_SET, [*body[:3], bytes(32), body[4]]), "wrong_digest"),
            (world.rule_set("tariff", 2, 99, {"periods": [[0, 23, 1]]}), "malformed"),
            (world.rule_set("market", 2, 99, {"mechanism": "auction"}), "malformed"),
            (world.rule_set("market", 2, 99, {"price_max": 2**60}), "malformed"),
            (world.rule_set("market", 2, 99, {"open_s": 2**60}), "malformed"),
            (world.rule_set("vee", 2, 99, {"final_s": 2**60}), "malformed"),
            (world.tx(trading.RULE_SET, trading.rule_set_body("typo", 1, 99, [])), "malformed"),
            (world.rule_set("tariff", 2, 99, sender="grid"), "not_permitted"),
        ])
        assert area.block(NOW_S, world.rule_set("tariff", 2, 99), world.rule_set("tariff", 3, 98)) == [
            "accepted", "backdated"], "a version does not begin before the one before it"


def test_versions_are_bounded_and_those_in_use_are_kept(tmp_path: Path) -> None:
    with area_of(tmp_path) as area:
        world = area.world
        height = area.ledger.height() + 1
        items = [world.rule_set("vee", number, height + 1) for number in range(2, rulesets.VERSIONS + 2)]
        assert area.block(NOW_S, *items) == ["accepted"] * (rulesets.VERSIONS - 1) + ["busy"]
        assert area.block(NOW_S, world.rule_set("vee", rulesets.VERSIONS + 1, height + 2)) == ["accepted"]
        kept = [version.version for version in rulesets.versions(area.state, "vee")]
        assert kept == list(range(2, rulesets.VERSIONS + 2)), "nothing is open, so the oldest made room"


def test_a_debt_comes_back_with_its_point(tmp_path: Path) -> None:
    """T65: whoever leaves in debt finds the debt at the point again, and orders nothing before it is paid."""
    with area_of(tmp_path) as area:
        world = area.world
        with area.ledger._writing():  # a settlement's outcome, without the day that leads to it
            draft = area.state
            context = area.ledger.context("trade", 0, NOW_S, bytes(32))
            accounts.post(draft, context, key("p0").kid, records.SUPPLY, -MONEY_MC - 5000)
            accounts.post(draft, context, key("grid").kid, records.BALANCE, MONEY_MC + 5000)
            area.ledger._tree.apply(draft.changes)
        assert area.account("p0").balance_mc == -5000
        refused(area, NOW_S, [(world.order("p0", 1, 50000, 100), "insufficient_funds")])
        again = transaction.enrol_body(world.request("m9"), key("p9").kid, [point_entry(1)], "")
        comes = transaction.enrol_body(world.request("p9", "participant"), key("p9").kid, [], "")
        assert area.block(NOW_S, world.revoke("m0"), world.revoke("p0"), world.tx(transaction.ENROL, comes),
                          world.tx(transaction.ENROL, again)) == ["accepted"] * 4
        assert (area.account("p0").balance_mc, area.account("p9").balance_mc) == (0, -5000)
        assert [entry.kind for entry in area.entries("p9")] == [records.DEBT]
        assert area.entries("p9")[0].point == 1 and area.entries("p0")[-1].amount_mc == 5000
        order = world.order("p9", 1, 50000, 100, point=1)
        assert area.block(NOW_S, order) == ["insufficient_funds"]
        assert area.block(NOW_S, world.top_up("p9", 5000), world.top_up("p9", 5000, sender="p9"),
                          world.order("p9", 1, 50000, 100, point=1)) == ["accepted"] * 3
        area.check_entries()


def test_a_debt_stays_with_who_has_other_points(tmp_path: Path) -> None:
    with area_of(tmp_path) as area:
        world = area.world
        second = transaction.enrol_body(world.request("m7"), key("p0").kid, [point_entry(7)], "")
        assert area.block(NOW_S, world.tx(transaction.ENROL, second), world.revoke("m7")) == ["accepted"] * 2
        with area.ledger._writing():
            draft = area.state
            context = area.ledger.context("trade", 0, NOW_S, bytes(32))
            accounts.post(draft, context, key("p0").kid, records.SUPPLY, -MONEY_MC - 1)
            accounts.post(draft, context, key("grid").kid, records.BALANCE, MONEY_MC + 1)
            area.ledger._tree.apply(draft.changes)
        sold = transaction.enrol_body(world.request("m8"), key("p1").kid, [point_entry(7)], "")
        assert area.block(NOW_S, world.tx(transaction.ENROL, sold)) == ["accepted"]
        assert (area.account("p0").balance_mc, area.account("p1").balance_mc) == (-1, MONEY_MC)


def test_an_account_outlives_its_owners_key(tmp_path: Path) -> None:
    """The operator replaces a participant's key: money, points, open orders and bids are the new key's to sign for."""
    blind = {"mechanism": "blind"}
    with area_of(tmp_path, market=blind) as area:
        world, kid = area.world, key("p0").kid
        late_s = FIRST_S - 900
        assert area.block(late_s, world.commit("p0", 50000, 100), world.withdraw("p0", 5),
                          world.order("p1", 1, 41000, 100)) == ["accepted"] * 3
        new = world.request("n0", "participant")
        assert area.block(late_s, world.tx(transaction.REPLACE_AGENT, [kid, new])) == ["accepted"]
        assert area.block(FIRST_S - 600, world.reveal("p0", 50000, 100)) == ["revoked"]
        body = trading.reveal_body(FIRST_S, 50000, 100, nonce_of("p0"))
        again = transaction.enrol_body(world.request("m9"), key("n0").kid, [point_entry(9)], "")
        assert area.block(FIRST_S - 600, world.tx(trading.REVEAL, body, "n0"), world.withdraw("p0", 5, sender="n0"),
                          world.tx(transaction.ENROL, again), world.top_up("p0", 9, sender="p1"),
                          world.top_up("n0", 9, sender="n0")) == ["accepted"] * 3 + ["not_permitted"] * 2
        assert indexes.points_of(area.state, kid) == [1, 9], "whoever says the new kid means the same owner"
        area.block(FIRST_S - 300)
        assert [trade.buyer for trade in area.clearing().trades] == [kid]
        assert area.account("p0").balance_mc == MONEY_MC - 5 and area.account("n0").entries == 0
        assert area.block(FIRST_S, world.tx(transaction.REPLACE_AGENT, [key("n0").kid, world.request(
            "n1", "participant")]), world.order("n1", 1, 41000, 10, FIRST_S + 3600, point=1)) == ["accepted"] * 2
        grid = world.request("g1", "grid")
        assert area.block(FIRST_S, world.tx(transaction.REPLACE_AGENT, [key("grid").kid, grid]),
                          world.withdraw("p0", 6, sender="n1"), world.withdraw("p0", 6, sender="grid"),
                          world.withdraw("p0", 6, sender="g1")) == ["accepted", "accepted", "revoked", "accepted"]
        assert accounts.grid(area.state) == key("grid").kid and area.account("p0").balance_mc == MONEY_MC - 11
