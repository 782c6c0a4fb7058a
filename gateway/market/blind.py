"""Makes a clearing at each buyer's own price from a book of revealed bids: a queue from the highest bid to the lowest.

Source: 003, section 3.3.1 (the queue), figure 12 (every buyer's own bill); papers.md, 003, [R]. The paper says "from
high to low" and, once, "low bidding first": high to low is what its figures follow (defect 4). Bids are sealed until
the gate closes (`commitment`); this function sees only what was revealed.

The microgrids' residual, the sell orders, goes out first, the cheapest ask first; equals by the total order of
`book`. A buy takes what is left as long as the ask is not above its own bid, in parts if need be, and pays its bid
(eq. 5's default quote lies between feed-in and retail price, eqs. 7 and 8). What stays unserved the grid balances: it
is bought at the retail price when the slot is settled (`settle`), and what stays unsold goes at the buy-back price.
"""

from gateway.market.book import Book, Clearing, Context, Trade, admit, trade_of


def clear(book: Book, context: Context) -> Clearing:
    """Clears the book; pay-as-bid, so there is no uniform price. Of the context only the beacon counts."""
    buys, sells, refused = admit(book.orders, context.beacon)
    trades: list[Trade] = []
    at = 0
    left = sells[0].wh if sells else 0
    for buy in buys:
        want = buy.wh
        while want and at < len(sells) and sells[at].price <= buy.price:
            wh = min(want, left)
            trades.append(trade_of(buy, sells[at], buy.price, wh))
            want -= wh
            left -= wh
            if not left:
                at += 1
                left = sells[at].wh if at < len(sells) else 0
    return Clearing(tuple(trades), None, refused)
