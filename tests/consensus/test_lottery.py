"""The credit paper's lottery keeps the odds of eq. (11); its ranks; the baseline."""

import json
import math

import pytest

from deploy import cli
from gateway.consensus import lottery

CREDITS = [points * 1000 for points in range(91, 101)]


def test_odds_are_the_papers() -> None:
    """papers.md, 004: P(100) = 0.63215, P(99) = 0.23256, P(98) = 0.08555, P(91) = 7.80e-5."""
    odds = lottery.odds(lottery.credit_weights(CREDITS))
    assert odds[-3:] == pytest.approx([0.08555, 0.23256, 0.63215], abs=1e-5)
    assert odds[0] == pytest.approx(7.80e-5, rel=1e-3) and sum(odds) == pytest.approx(1)


def test_one_point_is_a_factor_of_e_whatever_the_height() -> None:
    for low in (0, 50_000, 98_000):
        one, other = lottery.credit_weights([low, low + 1000])
        assert other / one == pytest.approx(math.e, rel=1e-12)


@pytest.mark.parametrize("weights", [lottery.credit_weights(CREDITS), [1, 2, 3, 4], [5, 0, 5]])
def test_blocks_go_by_the_odds(weights: list[int]) -> None:
    """4,000 blocks: each player within 5 standard deviations of its share. (Without the rule for several hits in one
    tick the first players of the list would win too often.)"""
    blocks = 4000
    for share, won in zip(lottery.odds(weights), lottery.play(bytes(32), weights, blocks), strict=True):
        assert abs(won - blocks * share) <= 5 * math.sqrt(blocks * share * (1 - share)) + 1, (share, won)


def test_the_chain_of_blocks_decides() -> None:
    assert lottery.play(bytes(32), [1, 1], 64) == lottery.play(bytes(32), [1, 1], 64)
    assert lottery.play(bytes(32), [1] * 8, 64) != lottery.play(b"\x01" * 32, [1] * 8, 64)


def test_rank_correlation() -> None:
    assert lottery.rank_correlation([1, 2, 3], [10, 20, 30]) == pytest.approx(1)
    assert lottery.rank_correlation([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    assert lottery.rank_correlation([1, 2, 3, 4], [1, 1, 2, 2]) == pytest.approx(0.894427, abs=1e-6)
    assert lottery.rank_correlation([1, 1], [1, 2]) is None


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["market", "poca", "--runs", "20", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert sum(found["credit"]["blocks"]) == pytest.approx(50)
    assert sum(value > 0 for value in found["credit"]["correlations"]) >= 19
    assert found["credit"]["blocks"][9] > 25 > 10 > found["balance"]["blocks"][9]
    assert found["rotation_first"][9] > found["rotation_first"][0] > 0
    assert cli.main(["market", "poca", "--credits", "91,100", "--balances", "1,2,3"]) == 2
    assert "one of each" in capsys.readouterr().err
