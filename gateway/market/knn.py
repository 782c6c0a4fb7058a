"""Makes a clearing at one uniform price from a book: the crossing gives volume and price, nearest neighbours pair.

Source: 000 with the rule "clear first, pair second" (papers.md, 000, [R]); the paper's own greedy search for the
nearest order keeps only 55-62 % of the welfare that the same book allows.

 1. Sells by (ask, -credit, height, tie), buys by (-bid, -credit, height, tie); walk while ask <= bid. What is passed
    on the way is accepted: this volume is the largest among those of the greatest welfare.
 2. L = max(last accepted ask, first bid not fully served), U = min(last accepted bid, first ask not fully served):
    the prices at which nobody left out would rather be in. The price is min(max(p_ref, L), U).
 3. Each accepted buy in order takes the accepted sell with the least (D, -credit, height, tie), D the distance of
    `nearest` between (ask, what the sell still has) and (p_ref, what the buy still wants); the lesser quantity changes
    hands, and again until the buy is served.

Every trade is within both limits, a buyer pays what its seller gets, there are at most buys + sells - 1 trades, and the
reference price moves price and pairs, never volume or welfare.
"""

from gateway.market.book import Book, Clearing, Context, Order, Trade, admit, tie_of, trade_of
from gateway.market.nearest import Metric, sellers_of


def clear(book: Book, context: Context) -> Clearing:
    """Clears the book; without a reference price the middle of [L, U], rounded down, stands in for it."""
    buys, sells, refused = admit(book.orders, context.beacon)
    bought, sold = cross(buys, sells)
    if not bought:
        return Clearing((), None, refused)
    low, high = price_range(buys, sells, bought, sold)
    p_ref = (low + high) // 2 if context.p_ref is None else context.p_ref
    price = min(max(p_ref, low), high)
    return Clearing(tuple(_pair(buys, sells, bought, sold, p_ref, price, context)), price, refused)


def cross(buys: list[Order], sells: list[Order]) -> tuple[list[int], list[int]]:
    """Returns what is accepted of the first buys and of the first sells, Wh; only the last of each may be a part."""
    bought: list[int] = []
    sold: list[int] = []
    want = have = 0                 # what is left of the last of each
    while True:
        if not want:
            if len(bought) == len(buys):
                break
            want = buys[len(bought)].wh
            bought.append(0)
        if not have:
            if len(sold) == len(sells):
                break
            have = sells[len(sold)].wh
            sold.append(0)
        if sells[len(sold) - 1].price > buys[len(bought) - 1].price:
            break
        wh = min(want, have)
        bought[-1] += wh
        sold[-1] += wh
        want -= wh
        have -= wh
    return [wh for wh in bought if wh], [wh for wh in sold if wh]


def price_range(buys: list[Order], sells: list[Order], bought: list[int], sold: list[int]) -> tuple[int, int]:
    """Returns (L, U) of a crossing that is not empty."""
    last_ask, last_bid = sells[len(sold) - 1].price, buys[len(bought) - 1].price
    unserved_bid = _first_left_price(buys, bought)
    unserved_ask = _first_left_price(sells, sold)
    low = last_ask if unserved_bid is None else max(last_ask, unserved_bid)
    high = last_bid if unserved_ask is None else min(last_bid, unserved_ask)
    assert low <= high
    return low, high


def _first_left_price(orders: list[Order], accepted: list[int]) -> int | None:
    """The price of the first order that is not wholly accepted."""
    index = len(accepted) - 1 if accepted[-1] < orders[len(accepted) - 1].wh else len(accepted)
    return orders[index].price if index < len(orders) else None


def _pair(buys: list[Order], sells: list[Order], bought: list[int], sold: list[int], p_ref: int, price: int,
          context: Context) -> list[Trade]:
    """The trades, in the order in which the buys are served."""
    # ranks by (-credit, height, tie): `sells` are in that order within equal asks only, so it is made anew over all
    order = sorted(range(len(sold)), key=lambda index: _rank(sells[index], context.beacon))
    left = [sold[index] for index in order]
    metric = Metric(context.price_weight * context.quantity_scale ** 2,
                    context.quantity_weight * context.price_scale ** 2)
    near = sellers_of([(sells[index].price, wh) for index, wh in zip(order, left)], metric)
    trades = []
    for buy, want in zip(buys, bought):
        while want:
            index = near.nearest(p_ref, want)
            wh = min(want, left[index])
            trades.append(trade_of(buy, sells[order[index]], price, wh))
            want -= wh
            left[index] -= wh
            if left[index]:
                near.change(index, left[index])
            else:
                near.remove(index)
    return trades


def _rank(sell: Order, beacon: bytes) -> tuple[int, int, bytes]:
    return -sell.credit, sell.height, tie_of(beacon, sell.id)
