"""The reference price: the closed form against floating point and against a search of the bargain itself."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware.wire.errors import Refused
from gateway.market.book import CG, CU, GC, GU
from gateway.market.reference import FLOWS, Bounds, Flow, bargain, check_proposed, price_of, prices, worth

WIDE = Bounds(0, 400_000)
RANGE = Bounds(40_000, 70_000)          # 0.4 to 0.7 yuan: the bid ranges of 000 together
flows = st.builds(Flow, st.integers(30_000, 45_000), st.integers(45_000, 110_000), st.integers(0, 10**7),
                  st.integers(0, 10**7))


@given(flows.filter(lambda flow: flow.supply_wh > 0 and flow.demand_wh > 0))
def test_closed_form_in_floating_point(flow: Flow) -> None:
    a = flow.demand_wh / (flow.supply_wh + flow.demand_wh)
    value = (flow.seller_mc + a * (flow.buyer_mc - flow.seller_mc)) / 1e5
    exact = {GU: value, GC: value}
    exact[CU] = exact[CG] = 10 * (1 - math.sqrt(1 - 0.2 * value))
    for kind in FLOWS:
        found = price_of(flow, kind, WIDE)
        assert found is not None and found % 10 == 0
        assert abs(found / 1e5 - exact[kind]) <= 0.5e-4 + 1e-8, "rounded to 10 mc = 10^-4"


@pytest.mark.parametrize("kind", FLOWS)
def test_no_price_is_better_in_the_bargain(kind: int) -> None:
    """000, [R]: the weighted product of what both sides gain is largest at p*, over all prices of a grid of 10 mc."""
    flow = Flow(38_000, 61_500, 500_000, 250_000)
    a = flow.demand_wh / (flow.supply_wh + flow.demand_wh)

    def gain(price: int) -> float:
        value = worth(price, 50 if kind in (CU, CG) else 0) / 1e10
        low, high = value - flow.seller_mc / 1e5, flow.buyer_mc / 1e5 - value
        return a * math.log(low) + (1 - a) * math.log(high) if low > 0 and high > 0 else -math.inf

    assert max(range(38_000, 65_000, 10), key=gain) == price_of(flow, kind, WIDE)


def test_by_hand() -> None:
    """Scarce supply moves the price to the buyer's fallback, plenty to the seller's; half way at equal volumes."""
    assert price_of(Flow(38_000, 61_500, 1, 1), GU, WIDE) == 49_750
    assert price_of(Flow(38_000, 61_500, 3, 1), GU, WIDE) == 43_880      # 43,875: the half goes to the even ten
    assert price_of(Flow(38_000, 61_500, 1, 3), GU, WIDE) == 55_620      # 55,625
    assert price_of(Flow(38_000, 61_500, 1, 1), CU, WIDE) == 51_050      # 10 (1 - sqrt(0.9005)) = 0.510532
    assert bargain(Flow(38_000, 61_500, 1, 1)) == 4_975_000_000


@given(st.lists(flows, min_size=4, max_size=4), st.sampled_from([0, 50]))
def test_prices_are_in_bounds_free_of_arbitrage_and_taken(found: list[Flow], subsidy: int) -> None:
    own = prices(found, RANGE, subsidy)
    for price, flow in zip(own, found):
        assert price is None or RANGE.low <= price <= RANGE.high
        if not flow.supply_wh or not flow.demand_wh:
            assert price is None, "C5: a flow without volume has no price"
    back = own[GC]
    if back is not None:
        for sold in (own[CU], own[CG]):
            assert sold is None or (back <= sold and back * 10**5 <= worth(sold, subsidy)), "C6"
    check_proposed(own, found, RANGE, subsidy)


def test_the_papers_money_pump_has_no_price() -> None:
    """papers.md, 000, defect 10: P_GC above P_CG; ours is lowered to what the grid's own sale is worth, or is none."""
    pump = (Flow(38_000, 61_500, 1, 1), Flow(58_000, 61_500, 1, 9), Flow(41_000, 61_500, 9, 1),
            Flow(38_000, 61_500, 9, 1))
    _, back, _, sold = prices(pump, WIDE)
    assert back is not None and sold is not None
    assert back * 10**5 <= worth(sold) < (back + 10) * 10**5
    assert price_of(pump[GC], GC, WIDE) == 61_150
    assert prices(pump, Bounds(41_000, 400_000))[GC] is None


def refusal(proposed: tuple[int | None, ...], found: list[Flow], bounds: Bounds = RANGE) -> str:
    with pytest.raises(Refused) as refused:
        check_proposed(proposed, found, bounds)
    return refused.value.reason


def test_proposed_prices() -> None:
    found = [Flow(45_000, 60_000, 1, 1), Flow(41_000, 44_000, 1, 1), Flow(42_000, 44_000, 1, 1), Flow(0, 0, 0, 5)]
    own = prices(found, RANGE)
    _, back, sold, none = own
    assert own[GU] == 52_500 and back is not None and sold is not None and none is None
    check_proposed((52_600, back - 90, sold, None), found, RANGE)
    assert refusal((52_601, *own[1:]), found) == "wrong_price"
    assert refusal((52_399, *own[1:]), found) == "wrong_price"
    assert refusal((None, *own[1:]), found) == "wrong_price"
    assert refusal((*own[:3], 50_000), found) == "wrong_price"
    assert refusal(own[:3], found) == "malformed"
    at_bound = [Flow(70_000, 70_000, 1, 1), *found[1:]]
    assert prices(at_bound, RANGE)[GU] == 70_000 and refusal((70_001, *own[1:]), at_bound) == "wrong_price"
    lowered = [found[0], Flow(44_000, 44_000, 1, 1), *found[2:]]
    first, back, *rest = prices(lowered, RANGE)
    assert back is not None and back < 44_000
    assert refusal((first, back + 20, *rest), lowered) == "arbitrage"


def test_nothing_to_gain_and_beyond_the_curve() -> None:
    assert price_of(Flow(50_000, 40_000, 1, 1), GU, WIDE) is None
    assert price_of(Flow(600_000, 700_000, 1, 1), CU, WIDE) == WIDE.high      # p - 0.05 p^2 is never above 5
    assert price_of(Flow(30_000, 40_000, 1, 1), GU, RANGE) == RANGE.low
