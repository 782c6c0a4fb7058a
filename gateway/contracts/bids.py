"""Makes sealed bids from commits, and opens them by reveals (types 12 and 13): the buyers' way under `blind`.

A commit's deposit is held until its reveal; who does not reveal loses it to the grid when the slot is cleared
(security.md, T60), so that looking at the others' bids first is not free.
"""

from firmware.wire import trading
from firmware.wire.errors import check
from firmware.wire.transaction import Transaction
from gateway.contracts import accounts, indexes, orders, rulesets
from gateway.contracts.context import BlockContext, State
from gateway.market import commitment, records
from gateway.market.records import BidRecord, OpenOrder
from gateway.market.rules import Market


def commit(store: State, context: BlockContext, found: Transaction) -> None:
    """Type 12; Refused `no_rules`, `wrong_mechanism`, `outside_window`, `not_permitted` unless its owner has one
    point in the market (a bid names none), `duplicate` and what else an order is refused for."""
    owner = accounts.of(store, found.sender)
    slot_s, digest = trading.decode_commit_body(found.body)
    rules = _blind_rules(store, context)
    orders.check_slot(store, context, slot_s, rules.commit_open_s, rules.commit_close_s)
    points = indexes.points_in_market(store, owner)
    check(len(points) == 1, "not_permitted", "one point", points)
    made = OpenOrder(slot_s, 0, 0, 0, orders.BUY, points[0], orders.id_of(found))
    waiting = orders.open_orders(store, owner)
    orders.check_beside(rules, waiting, made)
    accounts.check_available(store, owner, rules.commit_deposit_mc)
    accounts.hold(store, owner, rules.commit_deposit_mc)
    orders.put_open(store, owner, [*waiting, made])
    key = _key(slot_s, owner)
    store.put(key, records.encode_list([*bids_at(store, key), BidRecord(
        made.id, owner, points[0], digest, rules.commit_deposit_mc, context.height, None, None, None, 0)]))


def reveal(store: State, context: BlockContext, found: Transaction) -> None:
    """Type 13; Refused `not_included` without a commit, `duplicate` after a reveal, `wrong_digest` unless these values
    were committed, and as an order for window, limits and funds."""
    owner = accounts.of(store, found.sender)
    body = trading.decode_reveal_body(found.body)
    rules = _blind_rules(store, context)
    orders.check_slot(store, context, body.slot_s, rules.commit_close_s, rules.gate_s)
    key = _key(body.slot_s, owner)
    bids = bids_at(store, key)
    at = next((index for index, bid in enumerate(bids) if bid.owner == owner), None)
    check(at is not None, "not_included", "a commit", None)
    assert at is not None
    bid = bids[at]
    check(bid.nonce is None, "duplicate", bid.price, body.price)
    values = (body.slot_s, body.price, body.wh, body.nonce)
    is_first_keys = commitment.commitment(context.chain_id, owner, *values) == bid.commitment
    commitment.check_reveal(bid.commitment, context.chain_id, owner if is_first_keys else found.sender, *values)
    orders.check_limits(rules, body.price, body.wh)
    held_mc = orders.cost_mc(body.price, body.wh)
    accounts.check_available(store, owner, held_mc - bid.deposit_mc)
    accounts.release(store, owner, bid.deposit_mc)
    accounts.hold(store, owner, held_mc)
    bids[at] = bid._replace(deposit_mc=0, price=body.price, wh=body.wh, nonce=body.nonce, held_mc=held_mc)
    store.put(key, records.encode_list(bids))


def bids_at(store: State, key: bytes) -> list[BidRecord]:
    """The bids of a shard."""
    data = store.get(key)
    return [] if data is None else records.decode_bids(data)


def _blind_rules(store: State, context: BlockContext) -> Market:
    rules = rulesets.market(store, context.height)
    check(rules.mechanism == "blind", "wrong_mechanism", "blind", rules.mechanism)
    return rules


def _key(slot_s: int, kid: bytes) -> bytes:
    return records.bids_key(slot_s, kid[0] % records.SHARDS)
