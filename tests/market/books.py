"""Makes random books with ties, and the best that any allocation of them can reach, by trying all allocations."""

import hashlib
import itertools
import random

from gateway.market.book import BUY, SELL, Book, Order


def order_id(number: int) -> bytes:
    return hashlib.sha256(b"order %d" % number).digest()


def make_order(number: int, owner: int, side: int, price: int, wh: int, credit: int = 0, height: int = 1,
               point: int | None = None) -> Order:
    """An order of owner `owner`; its point is its owner's own unless said."""
    return Order(order_id(number), owner.to_bytes(8, "big"), owner if point is None else point, side, price, wh,
                 credit, height)


def make_book(*orders: Order) -> Book:
    return Book(1_790_000_000, 0, 0, 0, orders)


def random_book(chance: random.Random, orders: int, owners: int = 6, prices: int = 6, wh: int = 4) -> Book:
    """Few prices, quantities, credits and heights, so that all kinds of ties come up; owners that want both sides."""
    leaning = [chance.randrange(2) for _ in range(owners)]
    made = []
    for number in range(orders):
        owner = chance.randrange(owners)
        side = leaning[owner] if chance.random() < 0.9 else 1 - leaning[owner]
        point = owner if chance.random() < 0.95 else chance.randrange(owners)
        made.append(make_order(number, owner, side, 38_000 + 1000 * chance.randrange(prices), chance.randint(1, wh),
                               chance.randrange(3), chance.randint(1, 3), point))
    return make_book(*made)


def best_of(orders: list[Order]) -> tuple[int, int]:
    """(greatest welfare in mc x Wh, greatest volume with that welfare): every split of every order is tried."""
    by_volume: list[dict[int, int]] = []
    for side, sign in ((BUY, 1), (SELL, -1)):
        best: dict[int, int] = {}
        mine = [order for order in orders if order.side == side]
        for split in itertools.product(*(range(order.wh + 1) for order in mine)):
            volume = sum(split)
            worth = sign * sum(wh * order.price for wh, order in zip(split, mine))
            best[volume] = max(best.get(volume, worth), worth)
        by_volume.append(best)
    buys, sells = by_volume
    return max((buys[volume] + sells[volume], volume) for volume in buys.keys() & sells.keys())


def refused_by_hand(book: Book, beacon: bytes) -> dict[bytes, str]:
    """Who may not stand in the book, said in another way than `admit` does: one look back over all before."""
    arrived = sorted(book.orders, key=lambda order: (order.height, hashlib.sha256(beacon + order.id).digest()))
    refused: dict[bytes, str] = {}
    for index, order in enumerate(arrived):
        before = [one for one in arrived[:index] if one.id not in refused]
        if any(one.side != order.side and (one.owner == order.owner or one.point == order.point) for one in before):
            refused[order.id] = "both_sides"
        elif any(one.point == order.point and one.owner != order.owner for one in before):
            refused[order.id] = "point_taken"
    return refused
