"""Finds the seller nearest to a buyer's target, exactly and by integers: a linear scan, or a kd-tree with backtracking.

Source: 000, step "KNN matching by kd-tree". The paper stops at "the leaf that contains X", which is not the nearest
neighbour in 68-72 % of searches (leaf size 1; papers.md, 000); so the tree goes back up until no box can hold a nearer
one. A seller's place is (price, quantity), each divided by its fixed scale, which in integers is

    D = wp ((price - p) SQ)^2 + wq ((quantity - q) SP)^2          SP, SQ scales of price and quantity, wp, wq weights

and equals in D go by rank, the seller's index: sellers are handed in by the total order of equals, so the result never
depends on how the tree was built. The tree is a heap of boxes over leaves of LEAF sellers. Each box knows its bounds,
how many sellers are left in it and their smallest rank; a box is skipped when its least possible (D, rank) is not
below the best found. By the rank even ten thousand equal orders are searched in a few steps.

Both classes answer the same questions: `nearest(p, q)`, `remove(index)`, `change(index, quantity)`. Python integers
have no upper bound, so D cannot overflow.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

LEAF = 8
SCAN = 1000         # below so many sellers the scan is as fast (papers.md, 000)

Place = tuple[int, int]             # price in mc per kWh, quantity in Wh


class Metric(NamedTuple):
    """The weights of one book's distance, ready to multiply: wp SQ^2 and wq SP^2."""

    price: int
    quantity: int

    def distance(self, place: Place, price: int, quantity: int) -> int:
        """D of the formula above."""
        return self.price * (place[0] - price) ** 2 + self.quantity * (place[1] - quantity) ** 2


class Sellers(Protocol):
    """Sellers that are taken away one by one."""

    def nearest(self, price: int, quantity: int) -> int:
        """The index of the nearest seller that is left (ValueError: none is)."""

    def remove(self, index: int) -> None:
        """The seller has nothing left."""

    def change(self, index: int, quantity: int) -> None:
        """The seller has this quantity left."""


def sellers_of(places: Sequence[Place], metric: Metric) -> Sellers:
    """The quicker of the two for so many sellers; `places` by the total order of equals."""
    return Scan(places, metric) if len(places) < SCAN else Tree(places, metric)


class Scan:
    """Looks at every seller."""

    def __init__(self, places: Sequence[Place], metric: Metric) -> None:
        self._places = dict(enumerate(places))
        self._metric = metric

    def nearest(self, price: int, quantity: int) -> int:
        metric = self._metric
        return min((metric.distance(place, price, quantity), index) for index, place in self._places.items())[1]

    def remove(self, index: int) -> None:
        del self._places[index]

    def change(self, index: int, quantity: int) -> None:
        self._places[index] = (self._places[index][0], quantity)


class _Box:
    """A node: bounds of the sellers below it, the smallest rank among them, and children or sellers."""

    __slots__ = ("up", "left", "right", "sellers", "low_price", "high_price", "low_wh", "high_wh", "rank")

    def __init__(self, up: "_Box | None") -> None:
        self.up = up
        self.left: _Box | None = None
        self.right: _Box | None = None
        self.sellers: list[int] | None = None
        self.low_price = self.high_price = self.low_wh = self.high_wh = 0
        self.rank = -1              # -1: nobody is left


class Tree:
    """A kd-tree, split at the median of the wider side; a seller stays in its leaf, whose bounds follow it."""

    def __init__(self, places: Sequence[Place], metric: Metric) -> None:
        self._places = list(places)
        self._metric = metric
        self._leaves: list[_Box] = [_Box(None)] * len(places)
        self._root = self._build(list(range(len(places))), None)

    def nearest(self, price: int, quantity: int) -> int:
        if self._root.rank < 0:
            raise ValueError("no seller is left")
        best = None
        by_price, by_quantity = self._metric
        places = self._places
        stack = [(self._least(self._root, price, quantity), self._root)]
        while stack:
            least, box = stack.pop()
            if best is not None and least > best:
                continue
            if box.sellers is not None:
                for index in box.sellers:
                    place = places[index]
                    found = (by_price * (place[0] - price) ** 2 + by_quantity * (place[1] - quantity) ** 2, index)
                    if best is None or found < best:
                        best = found
                continue
            below = [(self._least(child, price, quantity), child)
                     for child in (box.left, box.right) if child is not None and child.rank >= 0]
            if len(below) == 2 and below[0][0] < below[1][0]:
                below.reverse()     # the nearer one is looked at first
            stack.extend(below)
        assert best is not None
        return best[1]

    def remove(self, index: int) -> None:
        leaf = self._leaves[index]
        assert leaf.sellers is not None
        leaf.sellers.remove(index)
        self._tighten(leaf)

    def change(self, index: int, quantity: int) -> None:
        self._places[index] = (self._places[index][0], quantity)
        self._tighten(self._leaves[index])

    def _least(self, box: _Box, price: int, quantity: int) -> tuple[int, int]:
        """The least (D, rank) that a seller in the box can have."""
        by_price, by_quantity = self._metric
        price_off = max(box.low_price - price, price - box.high_price, 0)
        quantity_off = max(box.low_wh - quantity, quantity - box.high_wh, 0)
        return by_price * price_off * price_off + by_quantity * quantity_off * quantity_off, box.rank

    def _build(self, sellers: list[int], up: _Box | None) -> _Box:
        box = _Box(up)
        if len(sellers) <= LEAF:
            box.sellers = sellers
            for index in sellers:
                self._leaves[index] = box
        else:
            prices, quantities = zip(*(self._places[index] for index in sellers))
            wide_price = self._metric.price * (max(prices) - min(prices)) ** 2
            wide_quantity = self._metric.quantity * (max(quantities) - min(quantities)) ** 2
            axis = 0 if wide_price >= wide_quantity else 1
            sellers.sort(key=lambda index: (self._places[index][axis], index))
            middle = len(sellers) // 2
            box.left = self._build(sellers[:middle], box)
            box.right = self._build(sellers[middle:], box)
        self._bound(box)
        return box

    def _tighten(self, leaf: _Box) -> None:
        box: _Box | None = leaf
        while box is not None:
            self._bound(box)
            box = box.up

    def _bound(self, box: _Box) -> None:
        if box.sellers is not None:
            if not box.sellers:
                box.rank = -1
                return
            prices = [self._places[index][0] for index in box.sellers]
            quantities = [self._places[index][1] for index in box.sellers]
            box.low_price, box.high_price = min(prices), max(prices)
            box.low_wh, box.high_wh = min(quantities), max(quantities)
            box.rank = min(box.sellers)
            return
        left, right = box.left, box.right
        assert left is not None and right is not None
        if left.rank < 0 or right.rank < 0:
            one = right if left.rank < 0 else left
            box.low_price, box.high_price = one.low_price, one.high_price
            box.low_wh, box.high_wh, box.rank = one.low_wh, one.high_wh, one.rank
            return
        box.low_price, box.high_price = min(left.low_price, right.low_price), max(left.high_price, right.high_price)
        box.low_wh, box.high_wh = min(left.low_wh, right.low_wh), max(left.high_wh, right.high_wh)
        box.rank = min(left.rank, right.rank)
