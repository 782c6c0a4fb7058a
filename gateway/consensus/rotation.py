"""Makes the order in which members lead views from their credit: the primary rotation of POCA (004, eq. 11).

Theory. Eq. (11) gives member k the share e^C_k / sum e^C of the blocks. Taken literally it is all but a dictatorship:
one point of credit is a factor of e, 90 against 100 one of 22,026, and a primary that cannot be had would hardly ever
be followed by another. papers.md therefore divides the difference by a temperature of 5 (90 against 100: 7.4), and here
credit weighs the *order*, not the number of turns: views kN .. kN+N-1 follow the k-th weighted permutation, so that
each member leads exactly once in N views, as PBFT's liveness wants it, and the more trusted ones earlier.

Integers only. exp differs in its last bit between machines, and every replica must name the same primary: the weights
round(2^32 exp((C-100)/5)) for C = 0..100 are a table, made here once by decimal's correctly rounded exp, and part of
the genesis (ledger.md, POCA).
"""

import hashlib
from collections.abc import Sequence
from decimal import Decimal, localcontext
from functools import lru_cache

POINTS = 100
TEMPERATURE = 5
SCALE = 1 << 32
THOUSANDTHS = 1000      # of a point of credit, as gateway/market/credit.py counts
SEED_BYTES = 32


def weight_table() -> tuple[int, ...]:
    """Returns round(2^32 exp((C-100)/5)) for C = 0, 1, .. 100 points; the same on every machine."""
    with localcontext() as context:
        context.prec = 50
        return tuple(int((SCALE * (Decimal(points - POINTS) / TEMPERATURE).exp()).to_integral_value())
                     for points in range(POINTS + 1))


class CreditRotation:
    """Who leads each view of one epoch.

    seed: hash of the last header of the epoch before; credits: each member's, by id, in thousandths of a point
    (0..100,000), as of that block; table: 101 weights of the genesis. ValueError for anything else.
    """

    def __init__(self, seed: bytes, credits: Sequence[int], table: Sequence[int]) -> None:
        if len(seed) != SEED_BYTES or not credits or len(table) != POINTS + 1 or min(table) < 1:
            raise ValueError(f"a seed of {SEED_BYTES} bytes, a member and {POINTS + 1} weights from 1")
        if not all(0 <= credit <= POINTS * THOUSANDTHS for credit in credits):
            raise ValueError(f"credits of 0..{POINTS * THOUSANDTHS} thousandths")
        self._seed = bytes(seed)
        self._weights = tuple(table[credit // THOUSANDTHS] for credit in credits)
        self._round = lru_cache(maxsize=4)(self._permutation)

    def primary(self, view: int) -> int:
        """Returns the id of the member that leads `view`, from 0."""
        number, place = divmod(view, len(self._weights))
        return self._round(number)[place]

    def _permutation(self, number: int) -> tuple[int, ...]:
        """Draws all members one after the other, each draw by the weights of those that are left."""
        left = list(range(len(self._weights)))
        order: list[int] = []
        while left:
            order.append(left.pop(self._drawn(number, len(order), [self._weights[member] for member in left])))
        return tuple(order)

    def _drawn(self, number: int, place: int, weights: list[int]) -> int:
        """Returns the index drawn. 256 bits modulo a sum below 2^48 favour nobody by more than 2^-208."""
        digest = hashlib.sha256(self._seed + number.to_bytes(8, "big") + place.to_bytes(4, "big")).digest()
        rest = int.from_bytes(digest, "big") % sum(weights)
        for index, weight in enumerate(weights):
            if rest < weight:
                return index
            rest -= weight
        raise AssertionError("a remainder is below the sum")
