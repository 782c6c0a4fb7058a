"""The kd-tree finds what the linear scan finds, with ties, while sellers shrink and go; and it is quick."""

import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.market import knn, nearest
from gateway.market.book import BUY, SELL, Book, Context
from gateway.market.nearest import Metric, Scan, Tree
from tests.market.books import make_book, make_order

metrics = st.builds(Metric, st.integers(0, 9), st.integers(0, 9))


@given(st.integers(1, 300), st.sampled_from([1, 2, 5, 1000]), metrics, st.randoms(use_true_random=False))
def test_tree_is_scan(size: int, spread: int, metric: Metric, chance: random.Random) -> None:
    places = [(chance.randrange(spread), 1 + chance.randrange(spread)) for _ in range(size)]
    tree, scan = Tree(places, metric), Scan(places, metric)
    left = {index: wh for index, (_, wh) in enumerate(places)}
    while left:
        target = chance.randrange(-2, spread + 2), chance.randrange(spread + 2)
        found = tree.nearest(*target)
        assert found == scan.nearest(*target)
        other = chance.choice((found, chance.choice(list(left))))       # not only the one found is ever changed
        if chance.random() < 0.4 and left[other] > 1:
            left[other] -= 1
            tree.change(other, left[other])
            scan.change(other, left[other])
        else:
            del left[other]
            tree.remove(other)
            scan.remove(other)
    for sellers in (tree, scan):
        with pytest.raises(ValueError):
            sellers.nearest(0, 0)


def test_the_leaf_that_holds_the_target_is_not_enough() -> None:
    """papers.md, 000: most searches end in a neighbour leaf, so backtracking is what makes the tree right."""
    chance = random.Random(7)
    places = [(chance.randrange(1000), chance.randrange(1000)) for _ in range(512)]
    metric = Metric(1, 1)
    tree, scan = Tree(places, metric), Scan(places, metric)
    wrong = 0
    for _ in range(200):
        price, wh = chance.randrange(1000), chance.randrange(1000)
        box = tree._root
        while box.sellers is None:
            assert box.left is not None and box.right is not None
            box = min((box.left, box.right), key=lambda child: tree._least(child, price, wh))
        here = min(box.sellers, key=lambda index: (metric.distance(places[index], price, wh), index))
        wrong += here != scan.nearest(price, wh)
        assert tree.nearest(price, wh) == scan.nearest(price, wh)
    assert wrong > 20


def big_book(size: int, seed: int, prices: int, quantities: int) -> Book:
    chance = random.Random(seed)
    return make_book(*(make_order(n, n, n % 2, (40_000 if n % 2 == SELL else 41_000) + chance.randrange(prices),
                                  1 + chance.randrange(quantities), chance.randrange(2), chance.randint(1, 4))
                       for n in range(size)))


@pytest.mark.parametrize(("prices", "quantities"), [(2_000, 5_000), (3, 3), (1, 1)])
def test_big_books_clear_alike_by_tree_and_scan(monkeypatch: pytest.MonkeyPatch, prices: int, quantities: int) -> None:
    book = big_book(2_600, 3, prices, quantities)
    context = Context(40_500)
    assert BUY == 0 and 2_600 // 2 > nearest.SCAN
    by_tree = knn.clear(book, context)
    monkeypatch.setattr(nearest, "SCAN", 10**9)
    assert knn.clear(book, context) == by_tree and len(by_tree.trades) > 900


@pytest.mark.parametrize(("prices", "quantities"), [(2_000, 5_000), (1, 1), (1, 5_000), (2_000, 1)])
def test_ten_thousand_orders(prices: int, quantities: int) -> None:
    """security.md, T64: below a second; the bound here leaves room for whoever shares the machine."""
    book = big_book(10_000, 4, prices, quantities)
    start = time.process_time()
    clearing = knn.clear(book, Context(40_500))
    took_s = time.process_time() - start
    print(f"10,000 orders, {prices} prices, {quantities} quantities: {len(clearing.trades)} trades in {took_s:.2f} s")
    assert took_s < 2
