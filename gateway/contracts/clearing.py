"""Makes a slot's trades from its open orders and bids at the gate, and the record that keeps them and their rules.

Theory. The clearing runs in the first block at or after the gate, before that block's items. What it needs is in the
state, so anybody can run it again (`gridseal market recompute`). The books are sets: neither the place in a block nor
the order of the records counts, ties go by the beacon. That is the hash of the slot's revealed nonces; where none was
revealed, the hash of the newest header before the clearing's own block: the block's own header names the state that the
clearing makes, so it cannot be known here.

What leaves the state here: the slot's orders and bids, their places in their owners' lists, every hold but those of the
trades, which stay until the slot is final. Who did not reveal under `blind` pays his deposit to the grid.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from firmware.wire.reasons import NUMBERS
from gateway.contracts import accounts, bids, orders, registry, rulesets
from gateway.contracts.context import BlockContext, State
from gateway.market import blind, commitment, knn, records, reference
from gateway.market.book import BUY, SELL, Book, Clearing, Context, Order
from gateway.market.records import BidRecord, BookResult, ClearingRecord, OrderRecord, RuleVersion, TradeRecord
from gateway.market.rules import NAMES, Credit, Market, Tariff, retail_price

Key = tuple[int, int, int]  # scale, flow, energy form: a book of the slot
BLIND_BOOK: Key = (0, 0, 0)  # under `blind` all bids and offers of a slot are one book: a commit names no flow
_MECHANISMS: dict[str, Callable[[Book, Context], Clearing]] = {"knn": knn.clear, "blind": blind.clear}


class Found(NamedTuple):
    """What stood open for a slot."""

    orders: list[OrderRecord]
    bids: list[BidRecord]


class Rules(NamedTuple):
    """The versions that hold for a slot from its gate on."""

    versions: dict[str, RuleVersion]
    market: Market
    tariff: Tariff
    credit: Credit


def clear(store: State, context: BlockContext, slot_s: int) -> ClearingRecord:
    """Clears a slot; the record is written for every slot, also one without orders."""
    rules = _rules(store, context)
    found = _take(store, slot_s)
    beacon = commitment.beacon_of(bid.nonce for bid in found.bids if bid.nonce is not None) or context.previous_hash
    is_blind = rules.market.mechanism == "blind"
    _forfeit(store, context, slot_s, found.bids, is_blind)
    results, trades = _clear_books(store, rules, slot_s, found, beacon)
    _settle_holds(store, found, trades)
    _close(store, slot_s, found)
    market, tariff, vee, credit = (rules.versions[name].version for name in NAMES)
    record = ClearingRecord(slot_s, context.height, context.time_s, beacon, market, tariff, vee, credit, results,
                            trades)
    store.put(records.clearing_key(slot_s), records.encode(record))
    return record


def _rules(store: State, context: BlockContext) -> Rules:
    versions = {}
    for name in NAMES:
        version = rulesets.in_force(store, name, context.height)
        assert version is not None, "the calendar runs only with all rule sets, and they do not end"
        versions[name] = version
    market, tariff, credit = (rulesets.read(name, versions[name]) for name in ("market", "tariff", "credit"))
    return Rules(versions, market, tariff, credit)


def _take(store: State, slot_s: int) -> Found:
    """Takes a slot's orders and bids out of the state."""
    found = Found([], [])
    for shard in range(records.SHARDS):
        key = records.orders_key(slot_s, shard)
        taken = orders.orders_at(store, key)
        if taken:
            found.orders.extend(taken)
            store.delete(key)
        key = records.bids_key(slot_s, shard)
        sealed = bids.bids_at(store, key)
        if sealed:
            found.bids.extend(sealed)
            store.delete(key)
    return found


def _forfeit(store: State, context: BlockContext, slot_s: int, sealed: Sequence[BidRecord], is_blind: bool) -> None:
    """Deposits of unrevealed bids go to the grid; back to the bidder where another mechanism has come into force since,
    under which nobody could reveal."""
    grid = accounts.grid(store)
    assert grid is not None, "the calendar runs only with a grid account"
    for bid in sorted(sealed, key=lambda bid: bid.owner):
        if bid.nonce is not None:
            continue
        accounts.release(store, bid.owner, bid.deposit_mc)
        if is_blind and bid.deposit_mc:
            name = bid.id.hex()
            accounts.post(store, context, bid.owner, records.FORFEIT, -bid.deposit_mc, slot_s=slot_s, point=bid.point,
                          reference=name)
            accounts.post(store, context, grid, records.FORFEIT, bid.deposit_mc, slot_s=slot_s, point=bid.point,
                          reference=name)


def _clear_books(store: State, rules: Rules, slot_s: int, found: Found, beacon: bytes
                 ) -> tuple[list[BookResult], list[TradeRecord]]:
    """Every book's result by (scale, flow, form), and all trades, numbered through."""
    books, refused, forms = _books(store, rules, found)
    prices = {} if rules.market.mechanism == "blind" else _reference_prices(rules, slot_s, books)
    results: list[BookResult] = []
    trades: list[TradeRecord] = []
    for key in sorted(books):
        context = Context(prices.get(key), rules.market.price_scale, rules.market.quantity_scale,
                          rules.market.price_weight, rules.market.quantity_weight, beacon)
        clearing = _MECHANISMS[rules.market.mechanism](Book(slot_s, *key, tuple(books[key])), context)
        for trade in clearing.trades:
            trades.append(TradeRecord(len(trades), *forms[trade.sell_id], trade.buyer, trade.buyer_point, trade.seller,
                                      trade.seller_point, trade.price, trade.wh, trade.buy_id, trade.sell_id))
        out = refused[key] + [[order_id, NUMBERS[reason]] for order_id, reason in clearing.refused]
        results.append(BookResult(*key, prices.get(key), clearing.price, sum(trade.wh for trade in clearing.trades),
                                  len(books[key]) + len(refused[key]), sorted(out)))
    return results, trades


def _books(store: State, rules: Rules, found: Found
           ) -> tuple[dict[Key, list[Order]], dict[Key, list[list]], dict[bytes, Key]]:
    """(orders by book, those that cannot take part any more with their reason, every sell's own scale, flow, form)."""
    is_blind = rules.market.mechanism == "blind"
    books: dict[Key, list[Order]] = {}
    refused: dict[Key, list[list]] = {}
    forms: dict[bytes, Key] = {}
    rows = [(order.id, order.owner, order.point, order.side, order.price, order.wh, order.height,
             (order.scale, order.flow, order.form), is_blind and order.side == BUY) for order in found.orders]
    rows += [(bid.id, bid.owner, bid.point, BUY, bid.price, bid.wh, bid.height, BLIND_BOOK, not is_blind)
             for bid in found.bids if bid.price is not None and bid.wh is not None]
    for order_id, owner, point, side, price, wh, height, key, is_wrong in sorted(rows):
        book = BLIND_BOOK if is_blind else key
        books.setdefault(book, [])
        refused.setdefault(book, [])
        reason = "wrong_mechanism" if is_wrong else _why_not(store, owner, point)
        if reason is not None:
            refused[book].append([order_id, NUMBERS[reason]])
            continue
        credit = accounts.credit(accounts.load(store, owner), side == BUY, rules.credit.prior)
        books[book].append(Order(order_id, owner, point, side, price, wh, credit, height))
        if side == SELL:
            forms[order_id] = key
    return books, refused, forms


def _why_not(store: State, owner: bytes, point: int) -> str | None:
    """What has changed since the order came: its owner's key was revoked, the point went to somebody else."""
    sender, record = registry.signer_of(store, owner), registry.point_of(store, point)
    if sender is None or sender.revoked_height is not None:
        return "revoked"
    return None if record is not None and record.owner == owner else "not_its_point"


def _reference_prices(rules: Rules, slot_s: int, books: dict[Key, list[Order]]) -> dict[Key, int]:
    """p* of each book; the four flows of one scale and form are priced together, free of arbitrage (000)."""
    retail = retail_price(rules.tariff, slot_s)
    bounds = reference.Bounds(rules.market.price_min, rules.market.price_max)
    found: dict[Key, int] = {}
    for scale, form in sorted({(scale, form) for scale, _, form in books}):
        flows = []
        for flow in reference.FLOWS:
            volumes = [0, 0]
            for order in books.get((scale, flow, form), ()):
                volumes[order.side] += order.wh
            flows.append(reference.Flow(rules.tariff.buyback, retail, volumes[SELL], volumes[BUY]))
        for flow, price in zip(reference.FLOWS, reference.prices(flows, bounds, rules.tariff.subsidy), strict=True):
            if price is not None:
                found[scale, flow, form] = price
    return found


def _settle_holds(store: State, found: Found, trades: Sequence[TradeRecord]) -> None:
    """Of every buyer's hold there stays what his trades may cost. Parts are rounded up one by one, so that it may be a
    few mc more than what was held for the whole."""
    changes: dict[bytes, int] = {}
    held = [(order.owner, order.held_mc) for order in found.orders] + [(bid.owner, bid.held_mc) for bid in found.bids]
    for owner, held_mc in held:
        changes[owner] = changes.get(owner, 0) - held_mc
    for trade in trades:
        changes[trade.buyer] += orders.cost_mc(trade.price, trade.wh)
    for owner in sorted(changes):
        if changes[owner] > 0:
            accounts.hold(store, owner, changes[owner])
        else:
            accounts.release(store, owner, -changes[owner])


def _close(store: State, slot_s: int, found: Found) -> None:
    """Takes the slot out of its owners' lists."""
    for owner in sorted({order.owner for order in found.orders} | {bid.owner for bid in found.bids}):
        left = [entry for entry in orders.open_orders(store, owner) if entry.slot_s != slot_s]
        orders.put_open(store, owner, left)
