"""Makes a book that can be cleared, and the order of equals, from signed orders: what every mechanism begins with.

A book is (slot, scale, flow, energy form) and a *set* of orders: no result may depend on their order of arrival, nor
on their place in a block. Equals go everywhere by one total order (market.md): price, credit (the higher first), height
of the block that holds the order, then SHA-256(beacon || id). The beacon is known only after the gate is closed
(`commitment.beacon_of`), so nobody can grind an id that comes first.

An owner, and a metering point, stands on one side of a book only, so that pairing never meets an own order; the order
that came later (by height, then by the same hash) is refused `both_sides`. A point has one bidder: 003's eq. (5) pays
for splitting one site into two identities (papers.md, 003, defect 8), hence a second owner's order for a point is
refused `point_taken`, and an id that comes twice counts once (`duplicate`).
"""

import hashlib
from collections.abc import Iterable
from typing import NamedTuple

BUY, SELL = 0, 1
# Flows of 000: G microgrid (has generation), U user, C the grid's account.
GU, GC, CU, CG = 0, 1, 2, 3
NO_BEACON = bytes(32)


class Order(NamedTuple):
    """One buyer's or seller's wish for one slot."""

    id: bytes                   # 32: hash of the order's payload
    owner: bytes                # 8: kid
    point: int
    side: int                   # BUY or SELL
    price: int                  # mc per kWh: a buyer's highest, a seller's lowest
    wh: int
    credit: int                 # thousandths of points, higher is better
    height: int                 # of the block that holds the order


class Book(NamedTuple):
    """The orders that may meet each other."""

    slot_s: int                 # start of the slot, Unix seconds
    scale: int                  # 0 day-ahead, 1 intraday, 2 real time
    flow: int                   # GU, GC, CU, CG
    form: int                   # energy form
    orders: tuple[Order, ...]


class Context(NamedTuple):
    """What a clearing needs to know beside the book; everything but the beacon comes from the rule set."""

    p_ref: int | None = None            # reference price of the flow, mc per kWh (gateway.market.reference)
    price_scale: int = 100_000          # P_max - P_min of the rule set, mc per kWh
    quantity_scale: int = 100_000       # Wh
    price_weight: int = 1
    quantity_weight: int = 1
    beacon: bytes = NO_BEACON


class Trade(NamedTuple):
    """So much energy from one seller to one buyer at one price."""

    buy_id: bytes
    sell_id: bytes
    buyer_point: int
    seller_point: int
    buyer: bytes
    seller: bytes
    price: int
    wh: int


class Clearing(NamedTuple):
    """A mechanism's answer; `price` is the uniform price, None where there is none."""

    trades: tuple[Trade, ...]
    price: int | None
    refused: tuple[tuple[bytes, str], ...]      # (order id, reason), by id


def tie_of(beacon: bytes, order_id: bytes) -> bytes:
    """The last word between equals."""
    return hashlib.sha256(beacon + order_id).digest()


def admit(orders: Iterable[Order], beacon: bytes) -> tuple[list[Order], list[Order], tuple[tuple[bytes, str], ...]]:
    """Returns (buys, best first; sells, best first; refused) by the total order of equals.

    ValueError for a side, price or volume that no order has: limits are asked when an order comes in (contracts).
    """
    ties = {}
    sides: dict[bytes | int, int] = {}
    owners: dict[int, bytes] = {}
    taken: tuple[list[Order], list[Order]] = ([], [])
    refused = []
    arrived = sorted((order.height, tie_of(beacon, order.id), order) for order in orders)
    for _, tie, order in arrived:
        if order.side not in (BUY, SELL) or order.price < 0 or order.wh < 1:
            raise ValueError(f"an order that no book may hold: {order}")
        if order.id in ties:
            refused.append((order.id, "duplicate"))
        elif sides.get(order.owner, order.side) != order.side or sides.get(order.point, order.side) != order.side:
            refused.append((order.id, "both_sides"))
        elif owners.get(order.point, order.owner) != order.owner:
            refused.append((order.id, "point_taken"))
        else:
            sides[order.owner] = sides[order.point] = order.side
            owners[order.point] = order.owner
            taken[order.side].append(order)
        ties[order.id] = tie
    buys, sells = taken
    buys.sort(key=lambda order: (-order.price, -order.credit, order.height, ties[order.id]))
    sells.sort(key=lambda order: (order.price, -order.credit, order.height, ties[order.id]))
    return buys, sells, tuple(sorted(refused))


def trade_of(buy: Order, sell: Order, price: int, wh: int) -> Trade:
    """The trade of `wh` between two orders at `price`."""
    return Trade(buy.id, sell.id, buy.point, sell.point, buy.owner, sell.owner, price, wh)
