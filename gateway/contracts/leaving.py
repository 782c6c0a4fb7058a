"""Makes an account, or one of its points, leave the market (type 3), and gives its deposit back when all is settled.

Theory. A point that has left is out of the market, not off the grid: no order or bid may name it, while its meter, what
it draws and feeds in, and its owner's debts stay with it (security.md, T65) until the operator registers it anew, which
brings it back. What its owner could cancel is cancelled. A sealed bid whose time to commit is over stands, opened or
not: leaving must not be the free way out that its deposit bars (T60).

A deposit answers for all points of an owner. It comes back when the last of them has left, and every slot is final that
was cleared before or for which a bid stands; at once where there is none.
"""

from firmware.wire import cbor, trading
from firmware.wire.errors import check
from firmware.wire.transaction import Transaction
from gateway.contracts import accounts, bids, indexes, orders, registry, rulesets
from gateway.contracts.context import BlockContext, State
from gateway.market import records
from gateway.market.records import BidRecord, OpenOrder, OrderRecord


def leave(store: State, context: BlockContext, found: Transaction) -> None:
    """Type 3, by the owner; Refused `not_permitted` for another's account, `unknown_point`, `not_its_point`,
    `duplicate` for what has left already."""
    owner = accounts.of(store, found.sender)
    who = trading.decode_leave_body(found.body)
    if isinstance(who, bytes):
        check(accounts.of(store, who) == owner, "not_permitted", owner, who)
        points = indexes.points_in_market(store, owner)
        is_waiting = any(kid == owner for kid, _ in indexes.leaving(store))
        is_bound = accounts.load(store, owner).deposit_mc > 0 and not is_waiting
        check(bool(points) or is_bound, "duplicate", "an account in the market", who)
    else:
        point = registry.point_of(store, who)
        check(point is not None, "unknown_point", "a registered point", who)
        assert point is not None
        check(point.owner == owner, "not_its_point", point.owner, owner)
        check(not indexes.has_left(store, who), "duplicate", "a point in the market", who)
        points = [who]
    data = store.get(records.CALENDAR_KEY)
    clear_s = 0 if data is None else records.decode_calendar(data).clear_s
    _take_back(store, context, owner, points)
    for number in points:
        store.put(records.left_key(number), cbor.encode(clear_s))
    if not indexes.points_in_market(store, owner):
        _note(store, context, owner)


def give_back(store: State, final_s: int) -> None:
    """After a slot's final: the deposits that waited for it; slots before final_s are done."""
    waiting = indexes.leaving(store)
    due = [kid for kid, slot_s in waiting if slot_s <= final_s]
    for kid in due:
        _free(store, kid)
    if due:
        indexes.put_leaving(store, [row for row in waiting if row[0] not in due])


def _note(store: State, context: BlockContext, owner: bytes) -> None:
    """The owner's deposit is free, now or after the last slot that may still cost it something."""
    if not accounts.load(store, owner).deposit_mc:
        return
    data = store.get(records.CALENDAR_KEY)
    final_s = 0 if data is None else records.decode_calendar(data).final_s
    ends = [entry.slot_s + context.parameters["slot_s"] for entry in orders.open_orders(store, owner)]
    ends += [cbor.decode(store.get(records.left_key(point)) or b"\0") for point in indexes.points_of(store, owner)]
    end_s = max([*ends, *indexes.former_of(store, owner)], default=0)
    if end_s <= final_s:
        _free(store, owner)
    else:
        indexes.put_leaving(store, sorted([*indexes.leaving(store), [owner, end_s]]))


def _free(store: State, kid: bytes) -> None:
    accounts.put(store, accounts.load(store, kid)._replace(deposit_mc=0))


def _take_back(store: State, context: BlockContext, owner: bytes, points: list[int]) -> None:
    """Cancels what the points have open, as far as it may be cancelled now, and releases what was held for it."""
    kept = []
    for entry in orders.open_orders(store, owner):
        is_taken = entry.point in points and (_take_order(store, context, owner, entry)
                                              or _take_bid(store, context, owner, entry))
        if not is_taken:
            kept.append(entry)
    orders.put_open(store, owner, kept)


def _take_order(store: State, context: BlockContext, owner: bytes, entry: OpenOrder) -> bool:
    key = records.orders_key(entry.slot_s, entry.id[0] % records.SHARDS)
    standing: list[OrderRecord] = orders.orders_at(store, key)
    mine = next((order for order in standing if order.id == entry.id), None)
    if mine is None or context.time_s >= entry.slot_s - rulesets.market(store, context.height).gate_s:
        return False
    standing.remove(mine)
    orders.put_list(store, key, standing)
    accounts.release(store, owner, mine.held_mc)
    return True


def _take_bid(store: State, context: BlockContext, owner: bytes, entry: OpenOrder) -> bool:
    key = records.bids_key(entry.slot_s, owner[0] % records.SHARDS)
    standing: list[BidRecord] = bids.bids_at(store, key)
    mine = next((bid for bid in standing if bid.id == entry.id), None)
    if mine is None or context.time_s >= entry.slot_s - rulesets.market(store, context.height).commit_close_s:
        return False
    standing.remove(mine)
    orders.put_list(store, key, standing)
    accounts.release(store, owner, mine.deposit_mc + mine.held_mc)
    return True
