"""Credit: scores of the credit paper's rows, running means, and bounds for every weighting factor."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware.wire.errors import Refused
from gateway.market.amounts import ENERGY_WH
from gateway.market.credit import FULL, Credit, add, buyer_score, mean, seller_score
from tests.market.papers import TABLE_2

energies = st.integers(0, ENERGY_WH)
agreements = st.integers(1, ENERGY_WH)


def test_scores_of_table_2() -> None:
    """papers.md, B2: 11 of 14 equal the print; row 6 seller 95, row 7 both 100 (no rule gives 90 and 85)."""
    buyers = [buyer_score(row.used * 1000, row.agreed * 1000) for row in TABLE_2]
    sellers = [seller_score(row.generated * 1000, row.agreed * 1000) for row in TABLE_2]
    assert buyers == [100_000, 100_000, 90_000, 100_000, 90_000, 95_000, 100_000]
    assert sellers == [100_000, 100_000, 100_000, 100_000, 90_000, 95_000, 100_000]
    equal = sum(score == row.buyer_score * 1000 for score, row in zip(buyers, TABLE_2))
    assert equal + sum(score == row.seller_score * 1000 for score, row in zip(sellers, TABLE_2)) == 11


@pytest.mark.parametrize(("scores", "printed"), [
    ([100, 100, 90, 100, 90, 95, 100], [100, 100, 96.6667, 97.5, 96, 95.8333, 96.4286]),
    ([100, 100, 100, 100, 90, 95, 100], [100, 100, 100, 100, 98, 97.5, 97.8571])])
def test_running_means(scores: list[int], printed: list[float]) -> None:
    """papers.md, B3, in whole thousandths, rounded down."""
    credit = Credit()
    for score, print_ in zip(scores, printed):
        credit = add(credit, score * 1000)
        assert 0 <= print_ * 1000 - mean(credit, 0) < 1.05
    assert credit == Credit(sum(scores) * 1000, 7)


def test_a_long_history_weighs_evenly() -> None:
    """papers.md, 004, defect 2: 10 trades, the literal recursion over published means would end at 96.563."""
    credit = Credit()
    for score in (100, 100, 100, 100, 100, 85, 85, 85, 85, 85):
        credit = add(credit, score * 1000)
    assert mean(credit, 0) == 92_500


def test_the_natural_weighting_factor_is_capped() -> None:
    """004, eq. (12): 0.9 x 1.2 = 108 as printed, and 100 at full delivery; 0.8 x 1.1 = 88."""
    assert seller_score(900, 1000, 200) == FULL
    assert seller_score(800, 1000, 100) == 88_000
    assert seller_score(800, 1000) == 80_000
    assert seller_score(5000, 1000, 299) == FULL


@given(energies, agreements, st.integers(0, 299), st.integers(0, ENERGY_WH))
def test_bounds_and_monotony(delivered: int, agreed: int, alpha: int, more: int) -> None:
    """papers.md, B5; and who delivers more never scores less."""
    score = seller_score(delivered, agreed, alpha)
    assert 0 <= score <= FULL
    assert score <= seller_score(min(delivered + more, ENERGY_WH), agreed, alpha)
    assert buyer_score(delivered, agreed) == seller_score(delivered, agreed, 0) <= score


def test_without_a_score_and_over_nothing() -> None:
    assert mean(Credit(), 100_000) == 100_000 and mean(add(Credit(), 0), 100_000) == 0
    for scored in (buyer_score, seller_score):
        for used, agreed in ((1, 0), (-1, 1), (1, ENERGY_WH + 1)):
            with pytest.raises(Refused, match="wrong_volume"):
                scored(used, agreed)
    for alpha in (-1, 300):
        with pytest.raises(ValueError):
            seller_score(1, 1, alpha)
    for score in (-1, FULL + 1):
        with pytest.raises(ValueError):
            add(Credit(), score)
