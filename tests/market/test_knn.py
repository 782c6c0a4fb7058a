"""Clearing by crossing and nearest neighbours: best volume and welfare, fair price, input order without effect."""

import os
import random
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.market import blind, knn
from gateway.market.amounts import amount_mc
from gateway.market.book import BUY, SELL, Book, Clearing, Context, Order, tie_of
from tests.market.books import best_of, make_book, make_order, random_book, refused_by_hand

BOOKS = 20_000
CONTEXT = Context(40_500, 5_000, 3, 1, 1, bytes(range(32)))


def check_clearing(book: Book, context: Context) -> int:
    """Everything that papers.md, C7, asks of one clearing; returns its volume."""
    clearing = knn.clear(book, context)
    orders = {order.id: order for order in book.orders}
    refused = refused_by_hand(book, context.beacon)
    assert dict(clearing.refused) == refused
    standing = [order for order in book.orders if order.id not in refused]
    served = dict.fromkeys(orders, 0)
    paid = got = welfare = 0
    for trade in clearing.trades:
        buy, sell = orders[trade.buy_id], orders[trade.sell_id]
        assert trade.buyer == buy.owner != sell.owner == trade.seller and buy.point != sell.point
        assert (trade.buyer_point, trade.seller_point) == (buy.point, sell.point)
        assert sell.price <= trade.price <= buy.price and trade.price == clearing.price and trade.wh > 0
        for order in (buy, sell):
            served[order.id] += trade.wh
        paid += amount_mc(trade.wh, trade.price)
        got += amount_mc(trade.wh, trade.price)
        welfare += trade.wh * (buy.price - sell.price)
    volume = sum(trade.wh for trade in clearing.trades)
    assert paid == got and all(served[order.id] <= order.wh for order in book.orders)
    assert not any(served[name] for name in refused)
    assert (welfare, volume) == best_of(standing)
    assert len(clearing.trades) <= max(len(standing) - 1, 0)
    assert (clearing.price is None) == (not clearing.trades)
    if clearing.price is not None:
        check_price(standing, served, clearing.price, context.p_ref)
        if context.p_ref is not None:
            pairs = [(trade.buy_id, trade.sell_id, trade.wh) for trade in clearing.trades]
            assert pairs == pairs_by_hand(standing, served, context, context.p_ref)
    return volume


def pairs_by_hand(standing: list[Order], served: dict[bytes, int], context: Context, p_ref: int
                  ) -> list[tuple[bytes, bytes, int]]:
    """papers.md, 000, rule step 3, literally, from what each order is served in all."""
    left = dict(served)
    pairs = []
    buys = sorted((order for order in standing if order.side == BUY),
                  key=lambda order: (-order.price, -order.credit, order.height, tie_of(context.beacon, order.id)))
    for buy in buys:
        while left[buy.id]:
            _, sell = min(
                ((context.price_weight * ((order.price - p_ref) * context.quantity_scale) ** 2
                  + context.quantity_weight * ((left[order.id] - left[buy.id]) * context.price_scale) ** 2,
                  -order.credit, order.height, tie_of(context.beacon, order.id)), order)
                for order in standing if order.side == SELL and left[order.id])
            wh = min(left[buy.id], left[sell.id])
            pairs.append((buy.id, sell.id, wh))
            left[buy.id] -= wh
            left[sell.id] -= wh
    return pairs


def check_price(standing: list[Order], served: dict[bytes, int], price: int, p_ref: int | None) -> None:
    """At that price nobody who trades loses, and nobody who is left out would rather trade: that is [L, U]."""
    low = max(order.price for order in standing
              if (order.side == SELL and served[order.id]) or (order.side == BUY and served[order.id] < order.wh))
    high = min(order.price for order in standing
               if (order.side == BUY and served[order.id]) or (order.side == SELL and served[order.id] < order.wh))
    assert low <= price <= high
    assert price == ((low + high) // 2 if p_ref is None else min(max(p_ref, low), high))


def test_random_books() -> None:
    """GRIDSEAL_BOOKS_SEED repeats a run."""
    seed = int(os.environ.get("GRIDSEAL_BOOKS_SEED", time.time_ns() % 10**9))
    print(f"{BOOKS} books, GRIDSEAL_BOOKS_SEED={seed}")
    traded, refused = run_books(random.Random(seed), BOOKS)
    assert traded > BOOKS // 4 and refused > BOOKS // 20, "the books are worth looking at"


def run_books(chance: random.Random, books: int) -> tuple[int, int]:
    """How many had trades and how many had refusals, of so many random books that are all as they must be."""
    traded = refused = 0
    for _ in range(books):
        book = random_book(chance, chance.randint(0, 9), wh=chance.choice((1, 2, 3, 4)))
        context = CONTEXT._replace(p_ref=chance.choice((None, 30_000, 40_500, 99_000)), beacon=chance.randbytes(32),
                                   price_weight=chance.randint(0, 3), quantity_weight=chance.randint(0, 3))
        traded += check_clearing(book, context) > 0
        refused += bool(refused_by_hand(book, context.beacon))
    return traded, refused


@given(st.randoms(use_true_random=False), st.integers(0, 60))
def test_order_of_input_is_nothing(chance: random.Random, size: int) -> None:
    book = random_book(chance, size, owners=12)
    mixed = list(book.orders)
    chance.shuffle(mixed)
    assert knn.clear(book._replace(orders=tuple(mixed)), CONTEXT) == knn.clear(book, CONTEXT)


@pytest.mark.parametrize("clear", [knn.clear, blind.clear])
def test_a_thousand_permutations(clear: Callable[[Book, Context], Clearing]) -> None:
    """security.md, T62: neither mechanism looks at the order in which bids came in."""
    chance = random.Random(62)
    book = random_book(chance, 60, owners=20)
    first = clear(book, CONTEXT)
    assert len(first.trades) > 5 and first.refused
    mixed = list(book.orders)
    for _ in range(1000):
        chance.shuffle(mixed)
        assert clear(book._replace(orders=tuple(mixed)), CONTEXT) == first


@given(st.randoms(use_true_random=False), st.integers(0, 40))
def test_the_reference_moves_price_and_pairs_only(chance: random.Random, size: int) -> None:
    book = random_book(chance, size, owners=12)
    one, other = (knn.clear(book, CONTEXT._replace(p_ref=p_ref)) for p_ref in (10_000, 90_000))
    assert sum(trade.wh for trade in one.trades) == sum(trade.wh for trade in other.trades)
    for name in ("buy_id", "sell_id"):
        assert ({getattr(trade, name) for trade in one.trades} == {getattr(trade, name) for trade in other.trades})


def test_a_book_by_hand() -> None:
    """Bids 50, 48, 44 for 3, 2, 2; asks 40, 43, 45 of 2, 2, 4: volume 5 (ask 45 <= bid 48), [L, U] = [45, 45]."""
    buys = [make_order(n, n, BUY, price, wh) for n, price, wh in ((1, 50_000, 3), (2, 48_000, 2), (3, 44_000, 2))]
    sells = [make_order(n, n, SELL, price, wh) for n, price, wh in ((4, 40_000, 2), (5, 43_000, 2), (6, 45_000, 4))]
    clearing = knn.clear(make_book(*buys, *sells), CONTEXT._replace(p_ref=43_000, price_scale=1000, quantity_scale=1))
    assert clearing.price == 45_000
    # D = (ask - 43,000)^2 + 1000^2 (has - wants)^2; buy 1 wants 3: sell 4 (has 2) 9+1, sell 5 (2) 0+1, sell 6 (1) 4+4
    # it takes 2 of sell 5 and then wants 1: sell 4 9+1, sell 6 4+0; buy 2 wants 2 and sell 4 alone is left
    assert [(trade.buyer_point, trade.seller_point, trade.wh) for trade in clearing.trades] == [
        (1, 5, 2), (1, 6, 1), (2, 4, 2)]


def test_equals_go_by_credit_then_height_then_hash() -> None:
    beacon = CONTEXT.beacon
    sell = make_order(0, 99, SELL, 40_000, 1)

    def served(*buys: Order) -> bytes:
        (trade,) = knn.clear(make_book(sell, *buys), CONTEXT).trades
        return trade.buy_id

    late_good = make_order(1, 1, BUY, 41_000, 1, credit=9, height=3)
    early = make_order(2, 2, BUY, 41_000, 1, credit=8, height=1)
    early_too = make_order(3, 3, BUY, 41_000, 1, credit=8, height=1)
    dear = make_order(4, 4, BUY, 41_001, 1, credit=0, height=9)
    assert served(late_good, early, dear) == dear.id
    assert served(late_good, early) == late_good.id
    assert served(late_good._replace(credit=8), early) == early.id
    assert served(early, early_too) == min(early.id, early_too.id, key=lambda name: tie_of(beacon, name))


def test_one_side_for_an_owner_and_a_point() -> None:
    first = make_order(1, 1, BUY, 50_000, 5, height=1)
    own = make_order(2, 1, SELL, 40_000, 5, height=2, point=7)
    neighbour = make_order(3, 2, SELL, 40_000, 5, height=2, point=1)
    squatter = make_order(5, 4, BUY, 60_000, 5, height=2, point=1)
    again = first._replace(height=4)
    stranger = make_order(4, 3, SELL, 45_000, 2, height=3)
    clearing = knn.clear(make_book(own, squatter, neighbour, stranger, again, first), CONTEXT)
    assert clearing.refused == tuple(sorted([(own.id, "both_sides"), (neighbour.id, "both_sides"),
                                             (squatter.id, "point_taken"), (first.id, "duplicate")]))
    assert [(trade.buyer_point, trade.seller_point, trade.wh) for trade in clearing.trades] == [(1, 3, 2)]
    # the one that came earlier stays, whichever side it is on
    assert knn.clear(make_book(first, own._replace(height=0)), CONTEXT).refused == ((first.id, "both_sides"),)


def test_wrong_use() -> None:
    good = make_order(1, 1, BUY, 1, 1)
    for wrong in (good._replace(side=2), good._replace(price=-1), good._replace(wh=0)):
        with pytest.raises(ValueError, match="no book"):
            knn.clear(make_book(wrong), CONTEXT)
