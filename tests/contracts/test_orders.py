"""Orders, cancellations, sealed bids: what each is refused for, what is held, what the clearing at the gate makes."""

import hashlib
import itertools
import random
import time
from pathlib import Path

from firmware.wire import state, trading, transaction
from firmware.wire.reasons import NUMBERS
from gateway.contracts import orders, registry
from gateway.market import records, rules
from tests.contracts.area import FIRST_S, MONEY_MC, SLOT_S, Area, MarketWorld, area_of, nonce_of, order_id, refused
from tests.ledger.world import START_S, key, point_entry

BUY, SELL = 0, 1
NOW_S = START_S + 120
GATE_S = FIRST_S - 300
BLIND = {"mechanism": "blind"}


def test_orders_are_held_and_cleared(tmp_path: Path) -> None:
    with area_of(tmp_path) as area:
        world = area.world
        assert area.calendar() == (FIRST_S, FIRST_S, FIRST_S) and area.ledger.deadline_s() == GATE_S
        items = [world.order("p0", BUY, 60001, 700), world.order("p1", SELL, 40000, 500),
                 world.order("p2", SELL, 70000, 500)]
        assert area.block(NOW_S, *items) == ["accepted"] * 3
        held_mc = -(-60001 * 700 // 1000)
        assert (area.account("p0").held_mc, area.available("p0")) == (held_mc, MONEY_MC - held_mc)
        assert area.account("p1").held_mc == 0
        assert area.block(GATE_S - 1) == [] and area.ledger.state_value(records.clearing_key(FIRST_S)) is None
        area.block(GATE_S)
        found = area.clearing()
        assert (found.slot_s, found.height, found.time_s) == (FIRST_S, area.ledger.height(), GATE_S)
        assert [found.market_version, found.tariff_version, found.vee_version, found.credit_version] == [1] * 4
        trade, = found.trades
        assert (trade.number, trade.buyer_point, trade.seller_point, trade.wh) == (0, 1, 2, 500)
        assert (trade.buyer, trade.seller, trade.buy_id, trade.sell_id) == (
            key("p0").kid, key("p1").kid, order_id(items[0]), order_id(items[1]))
        assert 40000 <= trade.price <= 60001
        book, = found.books
        assert (book.wh, book.orders, book.refused, book.price) == (500, 3, [], trade.price)
        assert book.reference_price is not None and 41000 <= book.reference_price <= 61500
        assert area.account("p0").held_mc == orders.cost_mc(trade.price, 500), "the trade's hold stays until final"
        assert not area.ledger._tree.with_prefix(b"orders/") and not area.ledger._tree.with_prefix(b"open/")
        assert area.calendar() == (FIRST_S + SLOT_S, FIRST_S, FIRST_S)
        assert area.ledger.deadline_s() == GATE_S + SLOT_S


def test_a_slot_without_orders_has_a_record(tmp_path: Path) -> None:
    with area_of(tmp_path) as area:
        area.block(GATE_S + 3 * SLOT_S)
        assert [area.clearing(FIRST_S + at * SLOT_S).trades for at in range(4)] == [[]] * 4
        assert area.ledger.state_value(records.clearing_key(FIRST_S + 4 * SLOT_S)) is None
        assert area.clearing().beacon == area.ledger.header("trade", area.ledger.height())[4:36]  # type: ignore[index]


def test_orders_are_refused(tmp_path: Path) -> None:
    with area_of(tmp_path, market={"price_min": 1000, "price_max": 90000, "wh_min": 10, "wh_max": 1000}) as area:
        world = area.world
        assert area.block(NOW_S, world.order("p0", BUY, 50000, 100)) == ["accepted"]
        refused(area, NOW_S, [
            (world.order("p0", BUY, 50000, 100), "duplicate"),
            (world.order("p0", SELL, 50000, 100), "both_sides"),
            (world.order("p1", BUY, 999, 100), "wrong_price"), (world.order("p1", BUY, 90001, 100), "wrong_price"),
            (world.order("p1", BUY, 50000, 9), "wrong_volume"), (world.order("p1", BUY, 50000, 1001), "wrong_volume"),
            (world.order("p1", BUY, 50000, 100, point=99), "unknown_point"),
            (world.order("p1", BUY, 50000, 100, point=1), "not_its_point"),
            (world.order("p1", BUY, 50000, 100, FIRST_S + 1), "outside_window"),
            (world.order("p1", BUY, 50000, 100, FIRST_S + 30 * SLOT_S), "outside_window"),
            (world.order("p1", BUY, 50000, 100, START_S), "outside_window"),
            (world.order("m1", BUY, 50000, 100, point=2), "not_permitted"),
            (world.tx(trading.ORDER, [1, 2, 3], "p1"), "malformed"),
            (world.commit("p1", 50000, 100), "wrong_mechanism"), (world.reveal("p1", 5, 10), "wrong_mechanism"),
        ])
        other_books = [world.order("p0", SELL, 50000, 100, scale=1), world.order("p0", SELL, 50000, 100, flow=1),
                       world.order("p0", SELL, 50000, 100, form=1),
                       world.order("p0", SELL, 50000, 100, FIRST_S + SLOT_S)]
        assert area.block(GATE_S - 1, *other_books) == ["accepted"] * 4, "each of these is another book"
        assert area.block(GATE_S, world.order("p1", BUY, 50000, 100)) == ["outside_window"]


def test_nothing_is_traded_before_the_rules(tmp_path: Path) -> None:
    area = Area(MarketWorld(2), tmp_path)
    world = area.world
    refused(area, NOW_S, [(world.order("p0", BUY, 50000, 100), "no_rules"), (world.commit("p0", 5, 5), "no_rules")])
    assert area.block(NOW_S, world.rule_set("market", 1, 4)) == ["accepted"]
    assert area.block(NOW_S, world.order("p0", BUY, 50000, 100)) == ["no_rules"], "the other rule sets are missing"
    area.ledger.close()


def test_funds(tmp_path: Path) -> None:
    with area_of(tmp_path, money_mc=5000) as area:
        world = area.world
        assert area.block(NOW_S, world.order("p0", BUY, 50000, 60), world.order("p0", BUY, 50000, 60, form=1),
                          world.order("p0", BUY, 50000, 40, form=2), world.order("p0", BUY, 1, 1, form=3),
                          world.order("p0", SELL, 1, 1, form=3)) == [
            "accepted", "insufficient_funds", "accepted", "insufficient_funds", "accepted"]
        assert area.available("p0") == 0
        assert area.block(NOW_S, world.withdraw("p0", 1), world.withdraw("p0", 1, sender="p0")) == [
            "accepted", "insufficient_funds"]


def test_cancel(tmp_path: Path) -> None:
    with area_of(tmp_path) as area:
        world = area.world
        item, other = world.order("p0", BUY, 50000, 100), world.order("p1", BUY, 50000, 100)
        assert area.block(NOW_S, item, other) == ["accepted"] * 2
        mine = trading.cancel_body(order_id(item))
        refused(area, NOW_S, [(world.tx(trading.CANCEL, mine, "p1"), "not_included"),
                              (world.tx(trading.CANCEL, trading.cancel_body(bytes(32)), "p0"), "not_included")])
        assert area.block(NOW_S, world.tx(trading.CANCEL, mine, "p0"), world.tx(trading.CANCEL, mine, "p0"),
                          world.order("p0", SELL, 50000, 100)) == ["accepted", "not_included", "accepted"]
        assert area.account("p0").held_mc == 0
        height = area.ledger.height() + 2
        assert area.block(NOW_S, world.rule_set("market", 2, height, {"gate_s": 300, "commit_close_s": 301})) == [
            "accepted"]
        assert area.block(GATE_S, world.tx(trading.CANCEL, trading.cancel_body(order_id(other)), "p1")) == [
            "not_included"], "it is cleared"
        later = world.order("p1", BUY, 50000, 100, FIRST_S + SLOT_S)
        assert area.block(GATE_S, later) == ["accepted"]


def test_a_gate_moved_over_an_order_closes_it(tmp_path: Path) -> None:
    """A new rule set with an earlier gate: its first block clears what it finds past the gate."""
    with area_of(tmp_path) as area:
        world = area.world
        item = world.order("p0", BUY, 50000, 100)
        height = area.ledger.height() + 2
        market = {"gate_s": 3000, "commit_close_s": 3100, "commit_open_s": 3200}
        assert area.block(NOW_S, item, world.rule_set("market", 2, height, market)) == ["accepted"] * 2
        assert area.block(FIRST_S - 2000, world.tx(trading.CANCEL, trading.cancel_body(order_id(item)), "p0")) == [
            "not_included"]
        assert area.clearing().market_version == 2 and area.account("p0").held_mc == 0


def test_spam_of_one_owner(tmp_path: Path) -> None:
    """T64: ten thousand orders of one owner leave 96 in the book; a thousand owners' clearing is quick."""
    with area_of(tmp_path) as area:
        world = area.world
        slots = [FIRST_S + at * SLOT_S for at in range(23)]
        kinds = itertools.cycle((slot_s, scale, flow, form) for form in range(256) for slot_s in slots
                                for scale in range(3) for flow in range(4))
        results: list[str] = []
        began = time.monotonic()
        for _ in range(20):
            items = [world.order("p0", SELL, 50000, 100, slot_s, None, scale, flow, form)
                     for slot_s, scale, flow, form in itertools.islice(kinds, 500)]
            results += area.block(NOW_S, *items)
        assert results == ["accepted"] * 96 + ["busy"] * 9904
        assert area.block(NOW_S, world.order("p1", BUY, 60000, 100)) == ["accepted"], "others are unaffected"
        began = time.monotonic()
        area.block(GATE_S)
        assert time.monotonic() - began < 1
        assert area.clearing().trades[0].wh == 100


def test_ten_thousand_owners_clear_in_seconds(tmp_path: Path) -> None:
    """The largest book an area may come to. Registry and orders are written as their rules write them, without 20,000
    signatures."""
    chance = random.Random(64)
    with area_of(tmp_path) as area:
        draft = area.state
        agent = area.ledger.state_value(state.agent_key(key("p0").kid))
        shards: dict[int, list[records.OrderRecord]] = {}
        for at in range(10_000):
            kid, name = hashlib.sha256(b"%d" % at).digest()[:8], hashlib.sha256(b"order %d" % at).digest()
            draft.put(state.agent_key(kid), agent or b"")
            point = registry.point_of(area.state, 1)
            assert point
            draft.put(state.point_key(1000 + at), state.encode_record(point._replace(point=1000 + at, owner=kid)))
            made = records.OpenOrder(FIRST_S, 0, 0, 0, at % 2, 1000 + at, name)
            draft.put(records.open_key(kid), records.encode_list([made]))
            shards.setdefault(name[0] % records.SHARDS, []).append(records.OrderRecord(
                name, kid, 1000 + at, 0, at % 2, 0, 0, chance.randrange(41000, 61000), chance.randrange(1, 999), 1, 0))
        for shard, rows in shards.items():
            draft.put(records.orders_key(FIRST_S, shard), records.encode_list(rows))
        area.ledger._tree.apply(draft.changes)
        began = time.monotonic()
        area.block(GATE_S)
        assert time.monotonic() - began < 10
        assert len(area.clearing().trades) > 2000


def test_commit_and_reveal(tmp_path: Path) -> None:
    """T60: of a hundred bids thirty are not revealed: thirty deposits go to the grid, and the seventy clear as if there
    had been no others. Nothing waits for anybody."""
    deposit_mc = rules.Market().commit_deposit_mc
    chance = random.Random(60)
    bids = {f"p{at}": (chance.randrange(42000, 60000), chance.randrange(100, 900)) for at in range(100)}
    shy = sorted(bids)[10:40]
    cleared = []
    for is_all, folder in ((True, tmp_path / "all"), (False, tmp_path / "seventy")):
        with area_of(folder, owners=105, market=BLIND) as area:
            world = area.world
            sells = [world.order(f"p{at}", SELL, 41000 + 100 * at, 5000) for at in range(100, 105)]
            commits = [world.commit(name, *bid) for name, bid in bids.items() if is_all or name not in shy]
            assert set(area.block(FIRST_S - 900, *sells, *commits)) == {"accepted"}
            assert area.account("p0").held_mc == deposit_mc
            reveals = [world.reveal(name, *bid) for name, bid in bids.items() if name not in shy]
            assert set(area.block(FIRST_S - 600, *reveals)) == {"accepted"}
            area.block(GATE_S)
            found = area.clearing()
            cleared.append([(trade[4:10]) for trade in found.trades])
            assert len(found.trades) > 20
            assert {trade.price for trade in found.trades} <= {price for price, _ in bids.values()}
            lost = [name for name in bids if area.account(name).balance_mc == MONEY_MC - deposit_mc]
            assert sorted(lost) == (shy if is_all else [])
            assert area.account("grid").balance_mc == len(lost) * deposit_mc
            assert all(area.account(name).held_mc == sum(orders.cost_mc(trade.price, trade.wh) for trade in found.trades
                                                         if trade.buyer == key(name).kid) for name in bids)
            area.check_entries()
    assert cleared[0] == cleared[1]


def test_a_copied_commit_cannot_be_opened(tmp_path: Path) -> None:
    """T61: the commitment binds its bidder; and a wrong price, volume, nonce or slot does not open it either."""
    with area_of(tmp_path, market=BLIND) as area:
        world = area.world
        mine = world.commit("p0", 50000, 100)
        digest = trading.decode_commit_body(transaction.decode(transaction.cose.parse(mine).payload).body)[1]
        copied = world.tx(trading.COMMIT, trading.commit_body(FIRST_S, digest), "p1")
        assert area.block(FIRST_S - 900, mine, copied) == ["accepted"] * 2
        refused(area, FIRST_S - 600, [
            (world.reveal("p1", 50000, 100, nonce=nonce_of("p0")), "wrong_digest"),
            (world.reveal("p0", 50001, 100), "wrong_digest"), (world.reveal("p0", 50000, 101), "wrong_digest"),
            (world.reveal("p0", 50000, 100, nonce=bytes(16)), "wrong_digest"),
            (world.reveal("p2", 50000, 100), "not_included"),
            (world.reveal("p0", 50000, 100, FIRST_S + SLOT_S), "outside_window"),
            (world.reveal("p0", 10**9, 100), "wrong_price"), (world.reveal("p0", 1, 0), "wrong_volume"),
        ])
        assert area.block(FIRST_S - 600, world.reveal("p0", 50000, 100), world.reveal("p0", 50000, 100)) == [
            "accepted", "duplicate"]
        area.block(GATE_S)
        assert area.account("p1").balance_mc == MONEY_MC - rules.Market().commit_deposit_mc, "the copy cost its deposit"


def test_bids_are_refused(tmp_path: Path) -> None:
    with area_of(tmp_path, market={**BLIND, "price_max": 90000, "open_orders": 2}, money_mc=200_000) as area:
        world = area.world
        second = transaction.enrol_body(world.request("m7"), key("p2").kid, [point_entry(7)], "")
        sell = world.order("p1", SELL, 50000, 100)
        assert area.block(FIRST_S - 901, world.tx(transaction.ENROL, second), sell) == ["accepted"] * 2
        refused(area, FIRST_S - 901, [
            (world.commit("p0", 50000, 100), "outside_window"), (world.order("p0", BUY, 5, 5), "wrong_mechanism")])
        assert area.block(FIRST_S - 900, world.commit("p0", 90001, 100)) == ["accepted"]
        commit = trading.commit_body(FIRST_S, bytes(32))
        bid = orders.open_orders(area.state, key("p0").kid)
        refused(area, FIRST_S - 601, [
            (world.commit("p0", 50000, 100), "duplicate"), (world.commit("p1", 50000, 100), "both_sides"),
            (world.order("p0", SELL, 50000, 100, form=3), "both_sides"),
            (world.commit("p2", 50000, 100), "not_permitted"),
            (world.tx(trading.COMMIT, commit, "grid"), "not_permitted"), (world.reveal("p0", 5, 5), "outside_window"),
            (world.tx(trading.CANCEL, trading.cancel_body(bid[0].id), "p0"), "not_permitted"),
        ])
        assert area.block(FIRST_S - 601, world.withdraw("p0", 50_000), world.withdraw("p0", 50_000, sender="p0")) == [
            "accepted"] * 2
        refused(area, FIRST_S - 600, [(world.commit("p0", 50000, 100), "outside_window"),
                                      (world.reveal("p0", 90001, 100), "wrong_price")])


def test_a_reveal_needs_its_price(tmp_path: Path) -> None:
    with area_of(tmp_path, market=BLIND, money_mc=200_000) as area:
        world = area.world
        bids = [world.commit("p0", 50000, 4001), world.commit("p1", 50000, 4000)]
        assert area.block(FIRST_S - 900, *bids) == ["accepted"] * 2
        assert area.block(FIRST_S - 600, world.reveal("p0", 50000, 4001), world.reveal("p1", 50000, 4000)) == [
            "insufficient_funds", "accepted"]
        assert area.available("p1") == 0


def test_a_mechanism_changed_before_the_gate_costs_nobody(tmp_path: Path) -> None:
    """Sealed bids under rules that know none: deposits go back; orders to buy under rules that want bids: refused."""
    with area_of(tmp_path, market=BLIND) as area:
        world = area.world
        height = area.ledger.height() + 3
        commits = [world.commit("p0", 50000, 100), world.commit("p1", 50000, 100), world.order("p2", SELL, 41000, 100)]
        assert area.block(FIRST_S - 900, *commits) == ["accepted"] * 3
        assert area.block(FIRST_S - 600, world.reveal("p0", 50000, 100), world.rule_set("market", 2, height)) == [
            "accepted"] * 2
        area.block(GATE_S)
        found = area.clearing()
        assert found.trades == [] and sum(len(book.refused) for book in found.books) == 1
        assert [area.account(name)[1:2] + area.account(name)[7:8] for name in ("p0", "p1")] == [(MONEY_MC, 0)] * 2
        assert area.block(GATE_S, world.rule_set("market", 3, height + 2, BLIND), world.order(
            "p0", BUY, 50000, 100, FIRST_S + SLOT_S)) == ["accepted"] * 2
        area.block(GATE_S + SLOT_S)
        book, = area.clearing(FIRST_S + SLOT_S).books
        assert [row[1] for row in book.refused] == [NUMBERS["wrong_mechanism"]] and area.account("p0").held_mc == 0


def test_who_left_does_not_trade(tmp_path: Path) -> None:
    """Between order and gate: a key revoked, a point given to another owner."""
    with area_of(tmp_path, owners=5) as area:
        world = area.world
        items = [world.order("p0", SELL, 41000, 100), world.order("p1", SELL, 41000, 100),
                 world.order("p2", SELL, 42000, 100), world.order("p3", BUY, 60000, 1000)]
        assert area.block(NOW_S, *items) == ["accepted"] * 4
        again = transaction.enrol_body(world.request("m9"), key("p4").kid, [point_entry(2)], "")
        assert area.block(NOW_S, world.revoke("p0"), world.revoke("m1"), world.tx(transaction.ENROL, again)) == [
            "accepted"] * 3
        area.block(GATE_S)
        found = area.clearing()
        assert [trade.seller_point for trade in found.trades] == [3]
        assert sorted(row[1] for row in found.books[0].refused) == sorted(
            (NUMBERS["revoked"], NUMBERS["not_its_point"]))


def test_order_of_arrival_means_nothing(tmp_path: Path) -> None:
    """T62: permuted within a block and over blocks before the gate: the same clearing, ids and amounts."""
    chance = random.Random(62)
    cleared = set()
    for turn in range(12):
        with area_of(tmp_path / str(turn), owners=16, market=BLIND if turn % 2 else {}) as area:
            world = area.world
            items = [world.order(f"p{at}", SELL, 41000 + 37 * at, 200 + at) for at in range(8)]
            opened = []
            if turn % 2:
                items += [world.commit(f"p{at}", 50000 + 41 * at, 150 + at) for at in range(8, 16)]
                opened = [world.reveal(f"p{at}", 50000 + 41 * at, 150 + at) for at in range(8, 16)]
            else:
                items += [world.order(f"p{at}", BUY, 50000 + 41 * at, 150 + at) for at in range(8, 16)]
            for at_s, some in ((FIRST_S - 900, items), (FIRST_S - 500, opened)):
                chance.shuffle(some)
                cut = chance.randrange(len(some) + 1)
                for part in (some[:cut], some[cut:]):
                    assert set(area.block(at_s, *part)) <= {"accepted"}
            area.block(GATE_S)
            trades = area.clearing().trades
            assert trades
            cleared.add((turn % 2, tuple(trade[1:] for trade in trades)))
    assert len(cleared) == 2
