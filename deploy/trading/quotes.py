"""Makes a participant's default quote from what it and the others expect to use: the bidding model of the paper 003.

Source: 003, eqs. (3)-(8), as papers.md resolves them.

    (3)  EV_i = alpha (sum of the last n days' volumes of this hour) / n                alpha 0.33 in the paper
    (5)  bid_i = (2^share - 1) (P_RES - F) + F,  share = EV_i / S,  S = sum of all EV of the hour
    (6)  C_mv = C_EC / (P_GE T_LS)                levelised cost of the wind turbine
    (7)  C_mv <= bid <= P_RES                     (8)  F <= price at which the microgrid sells

P_RES is the retail price of the hour, F the feed-in price. Share 0 bids F, share 1 bids P_RES. The paper's S is called
"total shortfall power"; only the sum of expected volumes gives its Table 4 (defect 2).

Every bidder can compute every bid once the volumes are published, so this is a quote that a client may start from and
no rule of the ledger (defect 7); and since e^x differs between libraries, nothing replicated may import it. A bid goes
into an order rounded half up to TICK_MC, as the paper prints it: rounding to whole mc first would turn one of its 72.
"""

import math
from collections.abc import Sequence

ALPHA = 0.33
TICK_MC = 100           # three decimals of a yuan


def expected_wh(history_wh: Sequence[int], alpha: float = ALPHA) -> int:
    """Returns EV of one hour, whole Wh, from the same hour of the days before, eq. (3); ValueError without any."""
    if not history_wh or not 0 < alpha <= 1:
        raise ValueError("at least one day of history, and an alpha above 0 and at most 1")
    return round(alpha * sum(history_wh) / len(history_wh))


def quote(own_wh: int, all_wh: int, retail_mc: int, feed_in_mc: int) -> float:
    """Returns the bid of eq. (5) in mc per kWh; own_wh: this bidder's EV, all_wh: the EVs' sum with its own."""
    if not 0 <= own_wh <= all_wh or not all_wh:
        raise ValueError(f"an expected volume within the sum of all, not {own_wh} of {all_wh} Wh")
    return feed_in_mc + math.expm1(own_wh / all_wh * math.log(2)) * (retail_mc - feed_in_mc)


def order_price(own_wh: int, all_wh: int, retail_mc: int, feed_in_mc: int, levelised_mc: int = 0) -> int:
    """Returns the quote as an order carries it: whole ticks in mc, but inside the bounds of eq. (7) in any case."""
    exact = quote(own_wh, all_wh, retail_mc, feed_in_mc)
    return min(max(math.floor(exact / TICK_MC + 0.5) * TICK_MC, levelised_mc), retail_mc)


def levelised_cost(cost_mc: int, yearly_kwh: int, years: int) -> float:
    """Returns C_mv of eq. (6), mc per kWh: the plant's cost over all it makes in its life."""
    if yearly_kwh <= 0 or years <= 0:
        raise ValueError("a plant that makes something for some time")
    return cost_mc / (yearly_kwh * years)


def is_allowed_bid(bid_mc: float, levelised_mc: float, retail_mc: int) -> bool:
    """Eq. (7)."""
    return levelised_mc <= bid_mc <= retail_mc


def is_allowed_ask(ask_mc: float, feed_in_mc: int) -> bool:
    """Eq. (8): who sells for less than the feed-in price had better feed in."""
    return feed_in_mc <= ask_mc
