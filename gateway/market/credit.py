"""Makes credit scores and their running mean from what was agreed and what was delivered.

Source: 004, eqs. (1), (2), (12), as papers.md resolves them. In thousandths of a point:

    buyer   s = 100 min(1, used / agreed)
    seller  s = 100 min(1, generated / agreed), and with the natural weighting factor of weather-driven plants
            s = 100 min(1, generated (1 + alpha) / agreed) while generated <= agreed, else 100          0 < alpha < 0.3

Eq. (12) as printed exceeds 100 (ratio 0.9, alpha 0.2: 108) and falls back to 100 at full delivery: hence the cap
(defect 5). Eqs. (1), (2) feed published means back as if they were scores, which weighs old trades more; kept here are
the sum and the number of scores, and the mean is sum // number (defect 2). Buyer and seller are apart. Without a score
there is no mean: the rule set's prior stands in, with weight 0 (defect 6). A trade over nothing is refused.
"""

from typing import NamedTuple

from gateway.market.amounts import check_energy

FULL = 100_000                  # thousandths: 100 points
ALPHA_BOUND = 300               # thousandths; alpha is below


class Credit(NamedTuple):
    """Sum and number of an account's scores on one side (buying or selling)."""

    total: int = 0
    number: int = 0


def buyer_score(used_wh: int, agreed_wh: int) -> int:
    """Returns the score of one trade's buyer in thousandths; Refused `wrong_volume` for agreed 0."""
    check_energy(used_wh)
    check_energy(agreed_wh, 1)
    return min(FULL, used_wh * FULL // agreed_wh)


def seller_score(generated_wh: int, agreed_wh: int, alpha: int = 0) -> int:
    """Returns the score of one trade's seller in thousandths; alpha in thousandths, 0 for controllable plants.

    Refused `wrong_volume` for agreed 0; ValueError for an alpha outside 0..299.
    """
    if not 0 <= alpha < ALPHA_BOUND:
        raise ValueError(f"a natural weighting factor below {ALPHA_BOUND} thousandths, not {alpha}")
    check_energy(generated_wh)
    check_energy(agreed_wh, 1)
    return min(FULL, generated_wh * (1000 + alpha) * (FULL // 1000) // agreed_wh)


def add(credit: Credit, score: int) -> Credit:
    """Returns the credit with one score more."""
    if not 0 <= score <= FULL:
        raise ValueError(f"a score of 0..{FULL}, not {score}")
    return Credit(credit.total + score, credit.number + 1)


def mean(credit: Credit, prior: int) -> int:
    """Returns the credit in thousandths of a point; `prior` (of the rule set) where there is no score yet."""
    return credit.total // credit.number if credit.number else prior
