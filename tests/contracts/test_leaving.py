"""An account or a point leaves the market: what is cancelled, what stands, when the deposit comes back, what stays."""

from pathlib import Path

from firmware.crypto.openssl import verify_digest
from firmware.wire import trading, transaction
from gateway.contracts import accounts, indexes, orders
from gateway.ledger.bills import export_bill
from gateway.market import billing, records, rules, views
from tests.contracts.area import FIRST_S, MONEY_MC, SLOT_S, Area, MarketWorld, area_of, refused
from tests.contracts.settling import Area as Settling
from tests.ledger.world import START_S, key, point_entry

NOW_S = START_S + 120
BUY, SELL = 0, 1
QUICK = {"provisional_s": SLOT_S, "final_s": SLOT_S}
DEPOSIT_MC = 1000


def leave(world: MarketWorld, name: str, point: int | None = None, sender: str = "") -> bytes:
    return world.tx(trading.LEAVE, trading.leave_body(key(name).kid if point is None else point), sender or name)


def put_deposit(area: Area, name: str, time_s: int = NOW_S) -> None:
    world = area.world
    assert area.block(time_s, world.deposit(name, DEPOSIT_MC), world.deposit(name, DEPOSIT_MC, sender=name)) == [
        "accepted"] * 2


def comes_again(world: MarketWorld, agent: str, owner: str, point: int) -> bytes:
    return world.tx(transaction.ENROL, transaction.enrol_body(
        world.request(agent), key(owner).kid, [point_entry(point)], ""))


def test_an_account_leaves(tmp_path: Path) -> None:
    """What is open is cancelled; a trade stands and is settled; then the deposit is free, in that very block."""
    with area_of(tmp_path, vee=QUICK) as area:
        world = area.world
        put_deposit(area, "p0")
        items = [world.order("p0", BUY, 50000, 100), world.order("p1", SELL, 42000, 100)]
        assert area.block(NOW_S, *items) == ["accepted"] * 2
        area.block(FIRST_S - 300)
        trade, = area.clearing().trades
        held_mc = orders.cost_mc(trade.price, trade.wh)
        later = [world.order("p0", side, 50000, 200, FIRST_S + at * SLOT_S, form=side) for at in (1, 2)
                 for side in (BUY, SELL)]
        other = world.order("p2", SELL, 60000, 7, FIRST_S + SLOT_S, form=BUY)
        assert area.block(FIRST_S - 200, *later, other) == ["accepted"] * 5
        assert area.account("p0").held_mc == held_mc + 2 * 10_000
        assert area.block(FIRST_S - 100, leave(world, "p0"), world.order("p0", BUY, 50000, 1, FIRST_S + SLOT_S),
                          leave(world, "p0")) == ["accepted", "not_permitted", "duplicate"]
        assert area.account("p0")[6:8] == (DEPOSIT_MC, held_mc), "the trade is not settled"
        assert orders.open_orders(area.state, key("p0").kid) == [] and not area.ledger._tree.with_prefix(b"bids/")
        left = [order.owner for _, data in area.ledger._tree.with_prefix(b"orders/")
                for order in records.decode_orders(data)]
        assert left == [key("p2").kid], "another's order stands"
        final_s = FIRST_S + 2 * SLOT_S
        area.block(final_s - 1)
        assert area.account("p0").deposit_mc == DEPOSIT_MC
        area.block(final_s)
        assert area.account("p0")[6:8] == (0, 0) and area.ledger.state_value(records.LEAVING_KEY) is None
        assert area.available("p0") == area.account("p0").balance_mc
        assert all(entry.kind != records.FORFEIT for entry in area.entries("p0"))
        area.check_entries()


def test_with_nothing_unsettled_the_deposit_comes_at_once(tmp_path: Path) -> None:
    area = Area(MarketWorld(2), tmp_path)
    put_deposit(area, "p0")
    assert area.block(NOW_S, leave(area.world, "p0")) == ["accepted"]
    assert area.account("p0")[1:2] + area.account("p0")[6:8] == (MONEY_MC, 0, 0), "no market yet: nothing to wait for"
    put_deposit(area, "p0")
    assert area.block(NOW_S, leave(area.world, "p0"), leave(area.world, "p0")) == ["accepted", "duplicate"]
    assert area.account("p0").deposit_mc == 0, "a deposit made after leaving is not bound either"
    area.begin(NOW_S)
    put_deposit(area, "p1")
    assert area.block(NOW_S, leave(area.world, "p1")) == ["accepted"]
    assert area.account("p1").deposit_mc == 0, "the market runs, and no slot is cleared yet"
    area.ledger.close()


def test_one_point_leaves_after_the_other(tmp_path: Path) -> None:
    """The deposit answers for all points of an owner; the last one's leaving frees it."""
    with area_of(tmp_path, vee=QUICK) as area:
        world = area.world
        assert area.block(NOW_S, comes_again(world, "m7", "p0", 7)) == ["accepted"]
        put_deposit(area, "p0")
        assert area.block(NOW_S, world.order("p0", BUY, 50000, 100), world.order("p0", BUY, 50000, 300, point=7)) == [
            "accepted"] * 2
        assert area.block(NOW_S, leave(world, "p0", 7)) == ["accepted"]
        assert [entry.point for entry in orders.open_orders(area.state, key("p0").kid)] == [1]
        assert area.account("p0")[6:8] == (DEPOSIT_MC, 5000) and area.ledger.state_value(records.LEAVING_KEY) is None
        assert area.block(NOW_S, world.order("p0", SELL, 50000, 100, point=7, form=1),
                          world.order("p0", SELL, 50000, 100, form=1)) == ["not_permitted", "accepted"]
        gate_s = FIRST_S + SLOT_S - 300
        area.block(gate_s)
        assert area.block(gate_s, leave(world, "p0", 1)) == ["accepted"]
        area.block(FIRST_S + 2 * SLOT_S)
        calendar = area.calendar()
        assert calendar and calendar.final_s == FIRST_S + SLOT_S
        assert area.account("p0")[6:8] == (DEPOSIT_MC, 0), "of two slots one is final"
        shown = views.accounts(area.ledger.state_value, area.ledger.height(), [records.encode(area.account("p0"))])
        assert shown["accounts"][0]["deposit_free_s"] == FIRST_S + 2 * SLOT_S
        area.block(FIRST_S + 3 * SLOT_S)
        assert area.account("p0").deposit_mc == 0
        assert indexes.points_of(area.state, key("p0").kid) == [1, 7], "they are still its points"


def test_a_sealed_bid_stands(tmp_path: Path) -> None:
    """T60: before the commits close a bid goes back with its deposit; then it stands, and costs it if never opened."""
    with area_of(tmp_path, vee=QUICK, market={"mechanism": "blind"}) as area:
        world = area.world
        lost_mc = rules.Market().commit_deposit_mc
        for name in ("p0", "p1", "p2"):
            put_deposit(area, name)
        assert area.block(FIRST_S - 900, *(world.commit(name, 50000, 100) for name in ("p0", "p1", "p2"))) == [
            "accepted"] * 3
        assert area.block(FIRST_S - 601, leave(world, "p0")) == ["accepted"]
        assert area.account("p0")[6:8] == (0, 0), "nobody's bid is open yet: nothing of it is left"
        assert area.block(FIRST_S - 600, leave(world, "p1"), leave(world, "p2"), world.reveal("p0", 50000, 100),
                          world.reveal("p1", 50000, 100)) == ["accepted"] * 2 + ["not_included", "accepted"]
        assert area.account("p1")[6:8] == (DEPOSIT_MC, 5000) and area.account("p2")[6:8] == (DEPOSIT_MC, lost_mc)
        area.block(FIRST_S - 300)
        assert [area.account(name).balance_mc for name in ("p0", "p1", "p2")] == [
            MONEY_MC, MONEY_MC, MONEY_MC - lost_mc]
        assert area.block(FIRST_S, world.commit("p1", 50000, 100, FIRST_S + SLOT_S)) == ["outside_window"]
        area.block(FIRST_S + 2 * SLOT_S - 1)
        assert [area.account(name).deposit_mc for name in ("p1", "p2")] == [DEPOSIT_MC] * 2
        assert area.block(FIRST_S + 2 * SLOT_S - 900, world.commit("p1", 50000, 100, FIRST_S + 3 * SLOT_S)) == [
            "outside_window"]
        area.block(FIRST_S + 2 * SLOT_S)
        assert [area.account(name)[6:8] for name in ("p1", "p2")] == [(0, 0)] * 2
        assert area.block(FIRST_S + 3 * SLOT_S - 900, world.commit("p1", 50000, 100, FIRST_S + 3 * SLOT_S)) == [
            "not_permitted"], "no point of its own is in the market"
        area.check_entries()


def test_who_may_not(tmp_path: Path) -> None:
    with area_of(tmp_path) as area:
        world = area.world
        refused(area, NOW_S, [
            (leave(world, "p1", sender="p0"), "not_permitted"), (leave(world, "p0", 2), "not_its_point"),
            (leave(world, "p0", 99), "unknown_point"), (leave(world, "m0", 1), "not_permitted"),
            (leave(world, "operator"), "not_permitted"), (leave(world, "grid"), "not_permitted"),
            (world.tx(trading.LEAVE, [], "p0"), "malformed"), (world.tx(trading.LEAVE, ["p0"], "p0"), "malformed")])
        assert area.block(NOW_S, leave(world, "p0", 1)) == ["accepted"]
        refused(area, NOW_S, [(leave(world, "p0", 1), "duplicate"), (leave(world, "p0"), "duplicate")])


def test_the_owners_new_key_leaves_for_it(tmp_path: Path) -> None:
    with area_of(tmp_path) as area:
        world = area.world
        new = world.tx(transaction.REPLACE_AGENT, [key("p0").kid, world.request("n0", "participant")])
        assert area.block(NOW_S, new, world.order("n0", BUY, 50000, 100, point=1)) == ["accepted"] * 2
        assert area.block(NOW_S, leave(world, "n0"), leave(world, "p0", sender="n0")) == ["accepted", "duplicate"]
        assert area.account("p0").held_mc == 0 and indexes.has_left(area.state, 1)


def test_registered_anew_it_is_back_with_its_debt(tmp_path: Path) -> None:
    """T65: leaving washes nothing. Its own owner again, or another one: the debt is there, and the deposit bound."""
    with area_of(tmp_path, vee=QUICK) as area:
        world = area.world
        put_deposit(area, "p0")
        area.block(FIRST_S - 300)
        assert area.block(FIRST_S - 300, leave(world, "p0")) == ["accepted"]
        with area.ledger._writing():  # what a settlement would enter
            draft, context = area.state, area.ledger.context("trade", 0, FIRST_S - 300, bytes(32))
            accounts.post(draft, context, key("p0").kid, records.SUPPLY, -MONEY_MC - 5000)
            accounts.post(draft, context, key("grid").kid, records.BALANCE, MONEY_MC + 5000)
            area.ledger._tree.apply(draft.changes)
        assert area.block(FIRST_S - 200, world.revoke("m0"), comes_again(world, "m8", "p0", 1),
                          world.order("p0", SELL, 50000, 100, FIRST_S + SLOT_S)) == [
            "accepted", "accepted", "insufficient_funds"]
        assert area.ledger.state_value(records.LEAVING_KEY) is None and not indexes.has_left(area.state, 1)
        area.block(FIRST_S + 2 * SLOT_S)
        assert area.account("p0").deposit_mc == DEPOSIT_MC, "back before its deposit was free, so it answers again"
        comes = transaction.enrol_body(world.request("p9", "participant"), key("p9").kid, [], "")
        assert area.block(FIRST_S + 2 * SLOT_S, leave(world, "p0", 1), world.revoke("m8"),
                          world.tx(transaction.ENROL, comes), comes_again(world, "m9", "p9", 1)) == ["accepted"] * 4
        assert area.account("p9").balance_mc == -5000 and area.account("p0").balance_mc == 0
        assert area.block(FIRST_S + 2 * SLOT_S, world.order("p9", SELL, 50000, 9, FIRST_S + 3 * SLOT_S, point=1)) == [
            "insufficient_funds"]
        area.check_entries()


def test_the_bill_of_who_left_holds(tmp_path: Path) -> None:
    """Off the market, still on the grid: what it draws afterwards is supplied and billed; its trades are settled."""
    area = Settling(tmp_path)
    area.trade(area.first_s, 1, 2, 55_000, 200)
    assert area.block() == ["accepted"] * 2
    area.block(area.first_s)
    area.add(trading.LEAVE, trading.leave_body(1), "ann")
    assert area.block() == ["accepted"]
    area.run_day({1: [(200, 0)] * 3, 2: [(0, 150)] * 3})
    area.certify()
    area.check_money()
    found = billing.check_bill(export_bill(area.ledger, key("ann").kid, area.first_s, area.first_s + 3 * 3600),
                               area.genesis, verify_digest)
    assert [(entry.kind, entry.used_wh) for entry in found.entries] == [
        (records.TRADE, 200), (records.SUPPLY, 200), (records.SUPPLY, 200)]
    area.ledger.close()
