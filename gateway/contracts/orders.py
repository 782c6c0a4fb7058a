"""Makes the open orders of the slots to come from orders and their cancellations (types 10 and 11).

An order stands twice: in its slot's shard, where the clearing finds it, and in its owner's list, where the rules about
one owner's orders are asked. Both entries go with the clearing. What a buyer may have to pay is held from his balance.
"""

import hashlib

from firmware.wire import trading, transaction
from firmware.wire.errors import check
from firmware.wire.transaction import Transaction
from gateway.contracts import accounts, indexes, registry, rulesets
from gateway.contracts.context import BlockContext, State
from gateway.market import records
from gateway.market.records import OpenOrder, OrderRecord
from gateway.market.rules import Market

BUY, SELL = 0, 1


def order(store: State, context: BlockContext, found: Transaction) -> None:
    """Type 10; Refused `no_rules`, `outside_window`, `wrong_price`, `wrong_volume`, `unknown_point`, `not_its_point`,
    `not_permitted` for a point that has left, `wrong_mechanism`, `busy`, `both_sides`, `duplicate`,
    `insufficient_funds`."""
    owner = accounts.of(store, found.sender)
    body = trading.decode_order_body(found.body)
    rules = rulesets.market(store, context.height)
    check_slot(store, context, body.slot_s, rules.open_s, rules.gate_s)
    check_limits(rules, body.price, body.wh)
    point = registry.point_of(store, body.point)
    check(point is not None, "unknown_point", "a registered point", body.point)
    assert point is not None
    check(point.owner == owner, "not_its_point", point.owner, owner)
    check(not indexes.has_left(store, body.point), "not_permitted", "a point in the market", body.point)
    check(rules.mechanism != "blind" or body.side == SELL, "wrong_mechanism", "a commit", body.side)
    made = OpenOrder(body.slot_s, body.scale, body.flow, body.form, body.side, body.point, id_of(found))
    waiting = open_orders(store, owner)
    check_beside(rules, waiting, made)
    held_mc = cost_mc(body.price, body.wh) if body.side == BUY else 0
    accounts.check_available(store, owner, held_mc)
    accounts.hold(store, owner, held_mc)
    put_open(store, owner, [*waiting, made])
    key = records.orders_key(body.slot_s, made.id[0] % records.SHARDS)
    store.put(key, records.encode_list([*orders_at(store, key), OrderRecord(
        made.id, owner, body.point, body.scale, body.side, body.flow, body.form, body.price, body.wh,
        context.height, held_mc)]))


def cancel(store: State, context: BlockContext, found: Transaction) -> None:
    """Type 11, by the owner before the gate; Refused `not_included` for what is not open, `not_permitted` for a bid
    (its deposit answers for it), `outside_window`."""
    owner = accounts.of(store, found.sender)
    order_id = trading.decode_cancel_body(found.body)
    waiting = open_orders(store, owner)
    at = next((index for index, entry in enumerate(waiting) if entry.id == order_id), None)
    check(at is not None, "not_included", "an open order", order_id)
    assert at is not None
    slot_s = waiting[at].slot_s
    key = records.orders_key(slot_s, order_id[0] % records.SHARDS)
    orders = orders_at(store, key)
    mine = next((entry for entry in orders if entry.id == order_id), None)
    check(mine is not None, "not_permitted", "an order", "a bid")
    assert mine is not None
    check(context.time_s < slot_s - rulesets.market(store, context.height).gate_s, "outside_window", slot_s,
          context.time_s)
    accounts.release(store, owner, mine.held_mc)
    put_open(store, owner, waiting[:at] + waiting[at + 1:])
    orders.remove(mine)
    put_list(store, key, orders)


def check_slot(store: State, context: BlockContext, slot_s: int, from_s: int, until_s: int) -> None:
    """Refused `outside_window` unless block time is from `from_s` until (not at) `until_s` before a slot that is not
    cleared yet; `no_rules` before the calendar runs."""
    data = store.get(records.CALENDAR_KEY)
    check(data is not None, "no_rules", "a running calendar", None)
    assert data is not None
    check(slot_s % context.parameters["slot_s"] == 0, "outside_window", context.parameters["slot_s"], slot_s)
    check(slot_s - from_s <= context.time_s < slot_s - until_s, "outside_window", slot_s, context.time_s)
    clear_s = records.decode_calendar(data).clear_s
    check(slot_s >= clear_s, "outside_window", clear_s, slot_s)


def check_limits(rules: Market, price: int, wh: int) -> None:
    """Refused `wrong_price`, `wrong_volume` outside the rule set's limits."""
    check(rules.price_min <= price <= rules.price_max, "wrong_price", (rules.price_min, rules.price_max), price)
    check(rules.wh_min <= wh <= rules.wh_max, "wrong_volume", (rules.wh_min, rules.wh_max), wh)


def check_beside(rules: Market, waiting: list[OpenOrder], made: OpenOrder) -> None:
    """Refused `both_sides`, `duplicate`, `busy` by what else the owner has open. All bids and offers of a slot under
    `blind` are one book, whatever they are named."""
    for entry in waiting:
        if entry.slot_s == made.slot_s and (rules.mechanism == "blind" or entry[1:4] == made[1:4]):
            check(entry.side == made.side, "both_sides", entry.side, made.side)
            check(entry.point != made.point, "duplicate", entry.id, made.point)
    check(len(waiting) < rules.open_orders, "busy", rules.open_orders, len(waiting))


def cost_mc(price: int, wh: int) -> int:
    """What a purchase may cost, rounded up: so much is held."""
    return -(-price * wh // 1000)


def id_of(found: Transaction) -> bytes:
    """An order's or bid's name: SHA-256 of its transaction's payload (the codec has one spelling)."""
    return hashlib.sha256(transaction.encode(found)).digest()


def open_orders(store: State, kid: bytes) -> list[OpenOrder]:
    """What an owner has open, oldest first."""
    data = store.get(records.open_key(kid))
    return [] if data is None else records.decode_open(data)


def put_open(store: State, kid: bytes, entries: list[OpenOrder]) -> None:
    """Writes what an owner has open."""
    put_list(store, records.open_key(kid), entries)


def orders_at(store: State, key: bytes) -> list[OrderRecord]:
    """The orders of a shard."""
    data = store.get(key)
    return [] if data is None else records.decode_orders(data)


def put_list(store: State, key: bytes, entries: list) -> None:
    """Writes a list of records; an empty one is no entry."""
    if entries:
        store.put(key, records.encode_list(entries))
    else:
        store.delete(key)
