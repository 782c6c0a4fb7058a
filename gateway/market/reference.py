"""Makes the reference price of each flow, in closed form and by integers, and checks a price that somebody proposes.

Source: 000, eqs. (1)-(13), with the objective of papers.md, 000, [R]: per flow the weighted Nash bargain

    max  a ln(e(p) - s) + (1 - a) ln(b - e(p))      =>      e* = s + a (b - s)

s the seller's fallback (feed-in price), b the buyer's (retail price), a = demand / (supply + demand). What the grid
sells (CU, CG) carries the purchase subsidy 0.05 p^2 (eqs. 3, 6, 8), so there e(p) = p - 0.05 p^2, and

    GU, GC:  p* = e*            CU, CG:  p* = (1 - sqrt(1 - 4 k e*)) / (2 k) = 10 (1 - sqrt(1 - 0.2 e*))    k = 0.05

Here in units of 1e-10 of the currency unit, a as a fraction of 32 bits, the root by integer square root (its error,
1e-10, is 1e-9 in the price), rounded half to even to 10 mc, clipped to the rule set's bounds (eq. 13). The bargain has
one optimum only, so this is also the oracle of any optimiser.

What the paper prints for 12:00 is a money pump: the microgrid buys from the grid at 0.42 and sells to it at 0.60 in one
hour (papers.md, defect 10). So P_GC <= min(e(P_CG), e(P_CU)) always; our own price of GC is lowered to that, and where
this leaves the bounds there is none. A flow without volume has no price (null): nothing would be paid at it.
"""

from collections.abc import Sequence
from math import isqrt
from typing import NamedTuple

from firmware.wire.errors import check
from gateway.market.amounts import divide_half_even
from gateway.market.book import CG, CU, GC, GU

FLOWS = (GU, GC, CU, CG)
SUBSIDY = 50            # thousandths of kWh per currency unit: the paper's 0.05
GRAIN_MC = 10           # our own prices are multiples of this
TOLERANCE_MC = 100      # a proposed price may be so far from ours
_FINE = 10**5           # 1e-10 of the currency unit in one mc
_ONE = 10**10           # the currency unit in 1e-10

Prices = tuple[int | None, int | None, int | None, int | None]


class Flow(NamedTuple):
    """What a bargain is about: fallback prices in mc per kWh, what is offered and wanted in Wh."""

    seller_mc: int
    buyer_mc: int
    supply_wh: int
    demand_wh: int


class Bounds(NamedTuple):
    """P_min and P_max of eq. (13), mc per kWh."""

    low: int
    high: int


def share(supply_wh: int, demand_wh: int) -> int:
    """Returns a = demand / (supply + demand) as a fraction of 2^32, rounded down."""
    return (demand_wh << 32) // (supply_wh + demand_wh)


def bargain(flow: Flow) -> int | None:
    """Returns e* in 1e-10 of the currency unit, None for a flow without volume or without anything to gain."""
    if flow.supply_wh <= 0 or flow.demand_wh <= 0 or flow.buyer_mc < flow.seller_mc:
        return None
    part = share(flow.supply_wh, flow.demand_wh)
    return flow.seller_mc * _FINE + ((flow.buyer_mc - flow.seller_mc) * _FINE * part >> 32)


def with_subsidy(value: int, subsidy: int) -> int | None:
    """Returns the p of which p - k p^2 is `value` (both in 1e-10); None where no p is worth as much."""
    if not subsidy:
        return value
    under = _ONE - 4 * subsidy * value // 1000          # 1 - 4 k e
    if under < 0:
        return None
    return 500 * (_ONE - isqrt(under * _ONE)) // subsidy


def worth(price_mc: int, subsidy: int = SUBSIDY) -> int:
    """Returns e(p) = p - k p^2 in 1e-10 of the currency unit: what a buyer pays in the end."""
    return price_mc * _FINE - subsidy * price_mc * price_mc // 1000


def price_of(flow: Flow, kind: int, bounds: Bounds, subsidy: int = SUBSIDY) -> int | None:
    """Returns p* of one flow (kind GU, GC, CU or CG) in mc per kWh, None for a flow without volume."""
    value = bargain(flow)
    if value is None:
        return None
    exact = with_subsidy(value, subsidy) if kind in (CU, CG) else value
    if exact is None:
        return bounds.high
    return min(max(_to_grain(exact), bounds.low), bounds.high)


def prices(flows: Sequence[Flow], bounds: Bounds, subsidy: int = SUBSIDY) -> Prices:
    """Returns p* of the four flows in the order GU, GC, CU, CG, free of arbitrage."""
    found = [price_of(flow, kind, bounds, subsidy) for kind, flow in zip(FLOWS, flows, strict=True)]
    limit = _arbitrage_limit(found, subsidy)
    back = found[GC]
    if back is not None and limit is not None and back * _FINE > limit:
        lowered = limit // (_FINE * GRAIN_MC) * GRAIN_MC
        found[GC] = lowered if lowered >= bounds.low else None
    return found[GU], found[GC], found[CU], found[CG]


def check_proposed(proposed: Sequence[int | None], flows: Sequence[Flow], bounds: Bounds,
                   subsidy: int = SUBSIDY) -> None:
    """Checks four proposed prices (null for a flow without volume) as every replica does.

    Refused `malformed` (not four), `wrong_price` (outside the bounds, a price without volume or the reverse, more than
    TOLERANCE_MC from ours) or `arbitrage`.
    """
    check(len(proposed) == len(FLOWS), "malformed", len(FLOWS), len(proposed))
    for price, own in zip(proposed, prices(flows, bounds, subsidy)):
        check((price is None) == (own is None), "wrong_price", own, price)
        if price is not None and own is not None:
            check(bounds.low <= price <= bounds.high, "wrong_price", tuple(bounds), price)
            check(abs(price - own) <= TOLERANCE_MC, "wrong_price", own, price)
    limit = _arbitrage_limit(proposed, subsidy)
    back = proposed[GC]
    check(back is None or limit is None or back * _FINE <= limit, "arbitrage", limit, back)


def _arbitrage_limit(found: Sequence[int | None], subsidy: int) -> int | None:
    """min(e(P_CG), e(P_CU)) of what has a price, in 1e-10."""
    return min((worth(price, subsidy) for price in (found[CU], found[CG]) if price is not None), default=None)


def _to_grain(fine: int) -> int:
    """1e-10 of the currency unit -> mc, the nearest multiple of GRAIN_MC, a half to the even one."""
    return GRAIN_MC * divide_half_even(fine, _FINE * GRAIN_MC)
