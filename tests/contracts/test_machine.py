"""Money under any course of events: what is minted is what all balances are, and every hold is explained.

Hypothesis draws orders, cancellations, bids, reveals, top-ups, leavings and returns, changes of mechanism, seals and
steps of time; each step is a block of a real ledger. In the end the ledger starts again, executes everything anew, and
must come out the same.
"""

import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from firmware.wire import trading, transaction
from gateway.contracts import indexes, orders
from gateway.market import records
from tests.contracts.area import SLOT_S, Area, MarketWorld
from tests.ledger.world import START_S, key, point_entry

OWNERS = 5
NAMES = st.sampled_from([f"p{at}" for at in range(OWNERS)])
PRICES, VOLUMES = st.integers(40_000, 62_000), st.integers(1, 3_000)
KNOWN = {"accepted", "busy", "both_sides", "duplicate", "insufficient_funds", "not_included", "not_permitted",
         "outside_window", "wrong_mechanism", "no_rules", "wrong_digest"}


class Market(RuleBasedStateMachine):
    """One area; `sent` are ids that may be cancelled, `bids` what was committed."""

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.area = Area(MarketWorld(OWNERS, money_mc=400_000), Path(self.folder.name))
        self.world = self.area.world
        self.now_s = START_S + 60
        self.area.begin(self.now_s, {"vee": {"provisional_s": SLOT_S, "final_s": 2 * SLOT_S},
                                     "market": {"open_orders": 6}})
        self.versions = {"market": 1, "tariff": 1}
        self.sent: list[tuple[str, bytes]] = []
        self.bids: list[tuple[str, int, int, int]] = []
        self.registers = [1000] * OWNERS
        self.agents = [f"m{at}" for at in range(OWNERS)]

    def block(self, *items: bytes) -> list[str]:
        verdicts = self.area.block(self.now_s, *items)
        assert set(verdicts) <= KNOWN, verdicts
        return verdicts

    def slot(self, ahead: int) -> int:
        return (self.now_s // SLOT_S + ahead) * SLOT_S

    @rule(name=NAMES, side=st.integers(0, 1), price=PRICES, wh=VOLUMES, ahead=st.integers(1, 2), form=st.integers(0, 1))
    def order(self, name: str, side: int, price: int, wh: int, ahead: int, form: int) -> None:
        item = self.world.order(name, side, price, wh, self.slot(ahead), form=form)
        if self.block(item) == ["accepted"]:
            kid = key(name).kid
            self.sent.append((name, orders.open_orders(self.area.state, kid)[-1].id))

    @rule(limits=st.lists(st.tuples(PRICES, VOLUMES), min_size=OWNERS, max_size=OWNERS), buyers=st.integers(1, 30),
          is_blind=st.booleans(), shy=st.integers(0, 31))
    def slot_day(self, limits: list[tuple[int, int]], buyers: int, is_blind: bool, shy: int) -> None:
        """One slot from its commits to its gate: some buy, the others sell, the shy ones do not reveal."""
        self.mechanism(is_blind)
        slot_s = self.slot(2)
        self.now_s = slot_s - 900
        names = [f"p{at}" for at in range(OWNERS)]
        self.block(*(self.world.commit(name, *limit, slot_s) if is_blind and buyers >> at & 1 else
                     self.world.order(name, 1 - (buyers >> at & 1), *limit, slot_s)
                     for at, (name, limit) in enumerate(zip(names, limits, strict=True))))
        self.now_s = slot_s - 600
        self.block(*(self.world.reveal(name, *limit, slot_s)
                     for at, (name, limit) in enumerate(zip(names, limits, strict=True)) if not shy >> at & 1))
        self.now_s = slot_s - 300
        self.block()

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        name, found = data.draw(st.sampled_from(self.sent))
        self.block(self.world.tx(trading.CANCEL, trading.cancel_body(found), name))

    @rule(name=NAMES, price=PRICES, wh=VOLUMES)
    def commit(self, name: str, price: int, wh: int) -> None:
        if self.block(self.world.commit(name, price, wh, self.slot(1))) == ["accepted"]:
            self.bids.append((name, price, wh, self.slot(1)))

    @precondition(lambda self: self.bids)
    @rule(data=st.data(), is_wrong=st.booleans())
    def reveal(self, data: st.DataObject, is_wrong: bool) -> None:
        name, price, wh, slot_s = data.draw(st.sampled_from(self.bids))
        self.block(self.world.reveal(name, price, wh + is_wrong, slot_s))

    @rule(name=NAMES, amount_mc=st.integers(1, 500_000), kind=st.sampled_from(("top_up", "withdraw", "deposit")))
    def money(self, name: str, amount_mc: int, kind: str) -> None:
        make = getattr(self.world, kind)
        self.block(make(name, amount_mc), make(name, amount_mc, sender=name))

    @rule(at=st.integers(0, OWNERS - 1), is_point=st.booleans())
    def leave(self, at: int, is_point: bool) -> None:
        body = trading.leave_body(at + 1 if is_point else key(f"p{at}").kid)
        self.block(self.world.tx(trading.LEAVE, body, f"p{at}"))

    @precondition(lambda self: any(indexes.has_left(self.area.state, at + 1) for at in range(OWNERS)))
    @rule(data=st.data())
    def come_back(self, data: st.DataObject) -> None:
        at = data.draw(st.sampled_from([at for at in range(OWNERS) if indexes.has_left(self.area.state, at + 1)]))
        agent, self.agents[at] = self.agents[at], self.agents[at] + "+"
        body = transaction.enrol_body(self.world.request(self.agents[at]), key(f"p{at}").kid, [point_entry(at + 1)], "")
        assert self.block(self.world.revoke(agent), self.world.tx(transaction.ENROL, body)) == ["accepted"] * 2

    @rule(is_blind=st.booleans())
    def mechanism(self, is_blind: bool) -> None:
        self.versions["market"] += 1
        changes = {"mechanism": "blind" if is_blind else "knn", "open_orders": 6}
        item = self.world.rule_set("market", self.versions["market"], self.area.ledger.height() + 2, changes)
        if self.block(item) != ["accepted"]:
            self.versions["market"] -= 1

    @rule(seconds=st.sampled_from((1, 60, 300)))
    def wait(self, seconds: int) -> None:
        self.now_s += seconds
        self.block()

    @rule(before_s=st.sampled_from((900, 600, 301, 300, 0)))
    def wait_for_the_next(self, before_s: int) -> None:
        """To one of the times at which a slot's rules change."""
        next_s = self.slot(1) - before_s
        self.now_s = next_s if next_s > self.now_s else next_s + SLOT_S
        self.block()

    @rule(rises=st.lists(st.integers(0, 2_000), min_size=OWNERS, max_size=OWNERS))
    def border(self, rises: list[int]) -> None:
        """The next slot begins, and every meter tells its register at its border; then time goes on to the finals."""
        self.now_s = self.slot(1)
        items = []
        for at, rise in enumerate(rises):
            self.registers[at] += rise
            items.append(self.world.seal(self.agents[at], at + 1, self.now_s * 1000, self.registers[at],
                                         export_wh=self.registers[at] // 2 if at % 2 else None).leaf)
        self.area.block(self.now_s, *items)

    @invariant()
    def holds_are_explained(self) -> None:
        """held = open orders + sealed and opened bids + trades of slots that are not final."""
        if not hasattr(self, "area"):
            return
        tree, held = self.area.ledger._tree, dict.fromkeys((key(f"p{at}").kid for at in range(OWNERS)), 0)
        for _, data in tree.with_prefix(b"orders/"):
            for order in records.decode_orders(data):
                held[order.owner] += order.held_mc
        for _, data in tree.with_prefix(b"bids/"):
            for bid in records.decode_bids(data):
                held[bid.owner] += bid.held_mc + bid.deposit_mc
        calendar = self.area.calendar()
        assert calendar
        for slot_s in range(calendar.final_s, calendar.clear_s, SLOT_S):
            for trade in self.area.clearing(slot_s).trades:
                held[trade.buyer] += orders.cost_mc(trade.price, trade.wh)
        for at in range(OWNERS):
            account = self.area.account(f"p{at}")
            assert account.held_mc == held[account.address], (f"p{at}", account.held_mc, held[account.address])
            mine = orders.open_orders(self.area.state, account.address)
            assert all(entry.slot_s >= calendar.clear_s for entry in mine) and len(mine) <= 6
            if indexes.has_left(self.area.state, at + 1):
                sealed = {bid.id for _, data in tree.with_prefix(b"bids/") for bid in records.decode_bids(data)}
                assert all(entry.id in sealed for entry in mine), "only bids stand"

    def teardown(self) -> None:
        if not hasattr(self, "area"):
            return
        self.now_s += 4 * SLOT_S
        self.area.block(self.now_s)
        self.holds_are_explained()
        self.area.check_entries()
        assert self.area.ledger.state_value(records.LEAVING_KEY) is None, "whoever left has its deposit back"
        root, deadline_s = self.area.ledger.stand().state_root, self.area.ledger.deadline_s()
        self.area.restart()
        assert (self.area.ledger.stand().state_root, self.area.ledger.deadline_s()) == (root, deadline_s)
        self.area.ledger.check()
        self.area.ledger.close()
        self.folder.cleanup()


Market.TestCase.settings = settings(max_examples=25, stateful_step_count=30, deadline=None,
                                    suppress_health_check=[HealthCheck.too_slow])
TestMarket = Market.TestCase
