"""Settlement: the credit paper's table, and a hundred thousand random slots of which every sum is zero."""

import os
import random
import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware.wire.errors import Refused
from gateway.market.amounts import AMOUNT_MC, ENERGY_WH, PRICE_MC, amount_mc, divide_half_even, shares
from gateway.market.book import CG, CU, GC, GU
from gateway.market.settle import Contract, Energy, Settled, Settlement, Supply, Tariff, settle
from tests.market.papers import BUYBACK_MC, RETAIL_MC, TABLE_2, WHEELING_MC, published

CASES = 100_000
TARIFF = Tariff(RETAIL_MC, BUYBACK_MC, WHEELING_MC)


def settled_rows() -> list[Settled]:
    """Table 2, each row as a slot of its own; kWh -> Wh, 10^-3 yuan -> mc."""
    return [settle([Contract(0, 1, 2, row.price * 100, row.agreed * 1000)],
                   {1: Energy(row.used * 1000, 0), 2: Energy(0, row.generated * 1000)}, TARIFF).trades[0]
            for row in TABLE_2]


def test_the_credit_papers_table_2() -> None:
    """papers.md, B1: 19 of 21 cells to the last unit; row 7 is 135.5 / 118.8 / 16.7; every row balances."""
    right = 0
    for row, ours in zip(TABLE_2, settled_rows()):
        cells = (ours.buyer_pays, ours.seller_gets, ours.grid_gets)
        right += sum(cell == print_ * 10_000 for cell, print_ in zip(cells, (row.buyer, row.seller, row.grid)))
        assert ours.buyer_pays == ours.seller_gets + ours.grid_gets
        print(" / ".join(f"{cell / 100_000:.1f}" for cell in cells))
    assert right == 19
    seven = settled_rows()[6]
    assert (seven.buyer_pays, seven.seller_gets, seven.grid_gets) == (13_550_000, 11_880_000, 1_670_000)


def test_our_copy_of_table_2_is_the_published_one() -> None:
    columns = ("price_yuan_kwh", "agreed_kwh", "actual_use_kwh", "actual_gen_kwh", "buyer_spend", "seller_income",
               "grid_income", "buyer_credit", "seller_credit")
    scales = (1000, 1, 1, 1, 10, 10, 10, 1, 1)
    rows = [tuple(Fraction(row[name]) * scale for name, scale in zip(columns, scales))
            for row in published("004_table2.csv")]
    assert rows == [tuple(row) for row in TABLE_2]


def random_slot(chance: random.Random) -> tuple[list[Contract], dict[int, Energy | None], Tariff]:
    """A few points that buy, sell, do both or nothing; nothing, little, much and missing energy."""
    points = chance.sample(range(1000), chance.randint(1, 6))
    largest = chance.choice((3, 2_000, 10**6, ENERGY_WH))
    highest = chance.choice((3, 100_000, PRICE_MC))
    contracts = []
    for number in chance.sample(range(50), chance.randint(0, 6) if len(points) > 1 else 0):
        buyer, seller = chance.sample(points, 2)
        contracts.append(Contract(number, buyer, seller, chance.randint(0, highest), chance.randint(1, largest),
                                  chance.choice((GU, GC, CU, CG))))
    energies: dict[int, Energy | None] = {}
    for point in points:
        if chance.random() < 0.95:
            energies[point] = Energy(*(chance.choice((0, 1, chance.randint(0, largest), chance.randint(0, largest)))
                                       if chance.random() < 0.97 else None for _ in range(2)))
        elif chance.random() < 0.5:
            energies[point] = None
    tariff = Tariff(chance.randint(0, highest), chance.randint(0, highest), chance.randint(0, highest // 10),
                    chance.choice((0, 0, 50, 10**6)))
    return contracts, energies, tariff


def check_settlement(contracts: list[Contract], energies: dict[int, Energy | None], tariff: Tariff,
                     made: Settlement) -> None:
    """Sums are zero, energy is shared to the last Wh, and nobody is farther than 1 unit from the exact amount."""
    assert sum(balance for _, balance in made.balances) + made.grid == 0
    agreed = {one.number: one for one in contracts}
    assert [trade.number for trade in made.trades] == sorted(agreed)
    exact: dict[int, Fraction] = dict.fromkeys((point for point, _ in made.balances), Fraction(0))
    amounts = dict.fromkeys(exact, Fraction(0))         # a unit for each trade, so is each direction of a supply
    moved: dict[tuple[int, int], int] = {}
    for trade in made.trades:
        one = agreed[trade.number]
        assert trade.buyer_pays == trade.seller_gets + trade.grid_gets
        if trade.used is None or trade.generated is None:
            assert trade.is_missing and trade[6:] == (0, 0, 0, 0) and trade.matched == 0
        else:
            matched = min(trade.used, trade.generated)
            assert trade.matched == matched
            subsidy = Fraction(tariff.subsidy * matched * one.price**2, 10**11) if one.flow in (CU, CG) else Fraction(0)
            subsidy = min(subsidy, Fraction(matched * one.price, 1000))
            assert 0 <= trade.subsidy <= trade.buyer_pays + trade.subsidy
            exact[trade.buyer_point] -= Fraction(matched * (one.price + tariff.wheeling)
                                                 + (trade.used - matched) * tariff.retail, 1000) - subsidy
            exact[trade.seller_point] += Fraction(matched * one.price
                                                  + (trade.generated - matched) * tariff.buyback, 1000)
            amounts[trade.buyer_point] += Fraction(3, 2) if subsidy else 1
            amounts[trade.seller_point] += 1
        for direction, point in enumerate((trade.buyer_point, trade.seller_point)):
            part = trade[3 + direction]
            if part is not None:
                moved[point, direction] = moved.get((point, direction), 0) + part
    for supply in made.supplies:
        exact[supply.point] += Fraction((supply.generated or 0) * tariff.buyback - (supply.used or 0) * tariff.retail,
                                        1000)
        amounts[supply.point] += 1
        for direction, value in enumerate((supply.used, supply.generated)):
            if value:
                assert (supply.point, direction) not in moved
                moved[supply.point, direction] = value
    for point, balance in made.balances:
        assert abs(balance - exact[point]) <= amounts[point]
        energy = energies.get(point) or Energy(None, None)
        for direction, whole in enumerate(energy):
            assert moved.get((point, direction), 0) == (whole or 0)


def run_cases(seed: int, cases: int) -> tuple[int, int]:
    """How many trades were matched and how many were missing, of so many random slots that all hold."""
    chance = random.Random(seed)
    matched = missing = 0
    for _ in range(cases):
        contracts, energies, tariff = random_slot(chance)
        made = settle(contracts, energies, tariff)
        check_settlement(contracts, energies, tariff, made)
        matched += sum(trade.matched > 0 for trade in made.trades)
        missing += sum(trade.is_missing for trade in made.trades)
    return matched, missing


def test_random_slots() -> None:
    """security.md, T67 (a million: `python -m tests.market`); GRIDSEAL_SLOTS_SEED repeats a run."""
    seed = int(os.environ.get("GRIDSEAL_SLOTS_SEED", time.time_ns() % 10**9))
    matched, missing = run_cases(seed, CASES)
    print(f"{CASES} slots, GRIDSEAL_SLOTS_SEED={seed}: {matched} trades matched, {missing} missing")
    assert matched > CASES // 4 and missing > CASES // 100


@given(st.randoms(use_true_random=False))
def test_order_of_input_is_nothing(chance: random.Random) -> None:
    contracts, energies, tariff = random_slot(chance)
    mixed, points = list(contracts), list(energies.items())
    chance.shuffle(mixed)
    chance.shuffle(points)
    assert settle(mixed, dict(points), tariff) == settle(contracts, energies, tariff)


def test_shortfall_surplus_and_supply_by_hand() -> None:
    """Two sellers deliver 1,000 and 500 of 2 x 1,000 Wh to a buyer that uses 2,001; one more point just consumes."""
    contracts = [Contract(4, 1, 2, 50_000, 1000), Contract(7, 1, 3, 48_000, 1000)]
    energies = {1: Energy(2_001, 30), 2: Energy(11, 1_500), 3: Energy(0, 500), 9: Energy(100, 7)}
    made = settle(contracts, energies, TARIFF)
    # 2,001 Wh over equal trades: 1,001 for the smaller number
    assert made.trades == (
        Settled(4, 1, 2, 1_001, 1_500, 1_001, 52_052, 50_050 + 499 * 41, 52_052 - 50_050 - 499 * 41, 0),
        Settled(7, 1, 3, 1_000, 500, 500, 25_000 + 30_750, 24_000, 25_000 + 30_750 - 24_000, 0))
    assert made.supplies == (Supply(1, 0, 30, 0, 1_230), Supply(2, 11, 0, 676, 0),    # 11 x 61.5 = 676.5: to even
                             Supply(3, 0, 0, 0, 0), Supply(9, 100, 7, 6_150, 287))
    assert dict(made.balances) == {1: 1_230 - 107_802, 2: 50_050 + 20_459 - 676, 3: 24_000, 9: -5_863}
    assert made.grid == -sum(dict(made.balances).values())


def test_missing_energy_settles_nothing() -> None:
    contracts = [Contract(0, 1, 2, 50_000, 1000), Contract(1, 1, 3, 50_000, 1000)]
    made = settle(contracts, {1: Energy(1_000, 0), 2: None, 3: Energy(0, 500)}, TARIFF)
    assert made.trades[0] == Settled(0, 1, 2, 500, None, 0, 0, 0, 0, 0) and made.trades[0].is_missing
    assert made.trades[1].matched == 500 and not made.trades[1].is_missing
    assert Supply(2, None, 0, 0, 0) in made.supplies and dict(made.balances)[2] == 0
    # an import meter without an export register is missing in that direction only
    assert settle([], {5: (70, None)}, TARIFF).supplies == (Supply(5, 70, None, 4_305, 0),)


def test_the_purchase_subsidy_goes_from_the_grid_to_who_buys_from_it() -> None:
    """000, eq. (8): 0.05 x 10 kWh x 0.5^2 = 0.125 yuan."""
    for flow, subsidy in ((GU, 0), (GC, 0), (CU, 12_500), (CG, 12_500)):
        (trade,) = settle([Contract(0, 1, 2, 50_000, 10_000, flow)], {1: (10_000, 0), 2: (0, 10_000)},
                          TARIFF._replace(subsidy=50)).trades
        assert (trade.subsidy, trade.buyer_pays, trade.seller_gets) == (subsidy, 520_000 - subsidy, 500_000)
        assert trade.grid_gets == 20_000 - subsidy
    # at 30 yuan the rate would pay 45 yuan per kWh: it takes off the price, no more
    (trade,) = settle([Contract(0, 1, 2, 3_000_000, 10_000, CU)], {1: (10_000, 0), 2: (0, 10_000)},
                      TARIFF._replace(subsidy=50)).trades
    assert (trade.subsidy, trade.buyer_pays) == (30_000_000, 20_000)


def test_bounds_and_wrong_use() -> None:
    one = Contract(0, 1, 2, 50_000, 1000)
    for contract, energy, tariff, reason in (
            (one._replace(price=PRICE_MC + 1), (0, 0), TARIFF, "wrong_price"),
            (one._replace(price=-1), (0, 0), TARIFF, "wrong_price"),
            (one, (0, 0), TARIFF._replace(retail=PRICE_MC + 1), "wrong_price"),
            (one._replace(wh=0), (0, 0), TARIFF, "wrong_volume"),
            (one, (ENERGY_WH + 1, 0), TARIFF, "wrong_volume"), (one, (0, -1), TARIFF, "wrong_volume")):
        with pytest.raises(Refused) as refused:
            settle([contract], {1: energy}, tariff)
        assert refused.value.reason == reason
    for wrong in ([one, one], [one._replace(seller_point=1)]):
        with pytest.raises(ValueError):
            settle(wrong, {}, TARIFF)
    with pytest.raises(ValueError):
        settle([one], {}, TARIFF._replace(subsidy=-1))
    assert amount_mc(ENERGY_WH, PRICE_MC) == AMOUNT_MC and 900 * AMOUNT_MC < 2**63


@given(st.integers(-10**12, 10**12), st.integers(1, 10**6))
def test_half_to_even_is_pythons_own(number: int, divisor: int) -> None:
    assert divide_half_even(number, divisor) == round(Fraction(number, divisor))


@given(st.integers(0, 10**12), st.lists(st.integers(0, 10**9), min_size=1, max_size=9).filter(any))
def test_shares(whole: int, weights: list[int]) -> None:
    parts = shares(whole, weights, list(range(len(weights))))
    assert sum(parts) == whole
    for part, weight in zip(parts, weights):
        assert abs(part - Fraction(whole * weight, sum(weights))) < 1
    order = list(range(len(weights)))[::-1]
    assert shares(whole, weights[::-1], order) == parts[::-1]


def test_shares_wrong_use() -> None:
    for whole, weights in ((-1, [1]), (1, [0]), (1, [2, -1])):
        with pytest.raises(ValueError):
            shares(whole, weights, list(range(len(weights))))
