"""The rotation by credit: everybody leads once in N views, the trusted ones earlier, the same on every machine."""

import hashlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.consensus.rotation import POINTS, SCALE, CreditRotation, weight_table

TABLE = weight_table()
SEED = hashlib.sha256(b"the last header of the epoch before").digest()


def test_weights_are_the_formulas() -> None:
    assert len(TABLE) == POINTS + 1 and TABLE[100] == SCALE and TABLE[0] == 9
    for points, weight in enumerate(TABLE):
        assert abs(weight - SCALE * math.exp((points - 100) / 5)) <= 0.5 + 1e-6
    packed = b"".join(weight.to_bytes(8, "big") for weight in TABLE)
    assert hashlib.sha256(packed).hexdigest()[:16] == "c054595e91e660c2"


@given(st.binary(min_size=32, max_size=32), st.lists(st.integers(0, 100_000), min_size=1, max_size=13),
       st.integers(0, 1 << 40))
def test_each_leads_once_a_round(seed: bytes, credits: list[int], number: int) -> None:
    rotation = CreditRotation(seed, credits, TABLE)
    first = number * len(credits)
    assert sorted(rotation.primary(view) for view in range(first, first + len(credits))) == list(range(len(credits)))
    assert rotation.primary(first) == CreditRotation(seed, credits, TABLE).primary(first)


def test_the_first_turn_goes_by_weight() -> None:
    """4,000 rounds of ten members of 91..100 points: each one's share of first turns within 5 standard deviations."""
    credits = [points * 1000 for points in range(91, 101)]
    rotation = CreditRotation(SEED, credits, TABLE)
    rounds = 4000
    turns = [0] * 10
    for number in range(rounds):
        turns[rotation.primary(number * 10)] += 1
    total = sum(TABLE[91:101])
    for points, count in zip(range(91, 101), turns, strict=True):
        share = TABLE[points] / total
        assert abs(count - rounds * share) < 5 * math.sqrt(rounds * share * (1 - share)), (points, count)


def test_a_golden_order() -> None:
    """What any replica must name: if this changes, running clusters fork in who leads."""
    rotation = CreditRotation(SEED, [100_000, 95_000, 90_000, 0], TABLE)
    assert [rotation.primary(view) for view in range(12)] == [1, 0, 2, 3, 0, 1, 2, 3, 1, 0, 2, 3]


def test_refuses_nonsense() -> None:
    for seed, credits, table in ((SEED[:31], [0], TABLE), (SEED, [], TABLE), (SEED, [100_001], TABLE),
                                 (SEED, [-1], TABLE), (SEED, [0], TABLE[:100]), (SEED, [0], (0, *TABLE[1:]))):
        with pytest.raises(ValueError):
            CreditRotation(seed, credits, table)
