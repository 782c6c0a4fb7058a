"""Makes what each trade and each point pays or gets for a slot, from the trades, the measured energies and the tariff.

Source: the rule behind 004, Table 2, found by recomputing it (papers.md, 004; the paper does not print it):

    m = min(used, generated)                    agreed volume does not cap it
    buyer pays   m (p + w) + (used - m) retail
    seller gets  m p + (generated - m) buyback
    grid         takes the difference           w wheeling; a shortfall's retail price already holds the transport

19 of the table's 21 cells follow; row 7 is 135.5 / 118.8 / 16.7 (the print charges wheeling on all energy used there
and nowhere else). The purchase subsidy of 000 (eqs. 3, 6, 8), k m p^2, is a line of its own, from the grid to who buys
from it (flows CU and CG); its rate is 0 by default, and it is never more than what the matched energy costs (p above
1 / k, 20 yuan at the paper's rate), so that no rule set can pay people for using energy.

A point's energy of the slot, used (import) for its purchases and generated (export) for its sales, is shared over its
trades in proportion to agreed volume by largest remainder, ties by the trade's number; `used` and `generated` of a
trade are those shares. A direction in which a point has no trade is the grid's: import at retail, export at buyback.

Money is rounded where it changes hands and nowhere else: matched energy, rest and subsidy are one amount each, half to
even, so a party is at most 1 mc from its exact sum in a trade (1.5 with a subsidy), and one `grid` line makes the sum
of all zero, exactly. Where a party's energy is missing (VEE), nothing of the trade is settled, for neither party:
matched 0, amounts 0, marked; a correction settles the slot again and enters the differences.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from gateway.market.amounts import amount_mc, check_energy, check_price, divide_half_even, shares
from gateway.market.book import CG, CU, GU


class Contract(NamedTuple):
    """A trade to be settled; `number` is its name in the slot."""

    number: int
    buyer_point: int
    seller_point: int
    price: int                  # mc per kWh
    wh: int                     # agreed
    flow: int = GU


class Energy(NamedTuple):
    """What a point imported and exported in the slot, Wh; None: missing."""

    used: int | None
    generated: int | None


class Tariff(NamedTuple):
    """The grid's prices of the slot, mc per kWh; subsidy in thousandths of kWh per currency unit."""

    retail: int
    buyback: int
    wheeling: int
    subsidy: int = 0


class Settled(NamedTuple):
    """One trade: shares and matched energy in Wh, amounts in mc. Missing shares are None and nothing is settled."""

    number: int
    buyer_point: int
    seller_point: int
    used: int | None
    generated: int | None
    matched: int
    buyer_pays: int             # after the subsidy
    seller_gets: int
    grid_gets: int
    subsidy: int                # of buyer_pays: what the grid has taken off

    @property
    def is_missing(self) -> bool:
        return self.used is None or self.generated is None


class Supply(NamedTuple):
    """A point's energy outside of trades, Wh: None where it is missing, 0 where trades hold it; pays less gets, mc."""

    point: int
    used: int | None
    generated: int | None
    pays: int                   # for `used`, at retail
    gets: int                   # for `generated`, at buyback


class Settlement(NamedTuple):
    """A slot. `balances` (point, mc gained or lost) and the grid's share sum to 0."""

    trades: tuple[Settled, ...]         # by number
    supplies: tuple[Supply, ...]        # by point, of every point with an untraded direction
    balances: tuple[tuple[int, int], ...]
    grid: int


def settle(contracts: Sequence[Contract], energies: Mapping[int, Energy | tuple[int | None, int | None] | None],
           tariff: Tariff) -> Settlement:
    """Settles one slot; a point that is not in `energies`, or None there, is missing.

    Refused `wrong_price` or `wrong_volume` beyond the bounds of `amounts`; ValueError for a number that comes twice or
    a point that trades with itself.
    """
    _check(contracts, tariff)
    points = sorted({*energies, *(point for one in contracts for point in (one.buyer_point, one.seller_point))})
    measured = {point: Energy(*(energies.get(point) or (None, None))) for point in points}
    for energy in measured.values():
        for value in energy:
            if value is not None:
                check_energy(value)
    used = _shared({point: energy.used for point, energy in measured.items()}, contracts, 1)
    generated = _shared({point: energy.generated for point, energy in measured.items()}, contracts, 2)
    trades = tuple(settle_trade(one, used[one.number], generated[one.number], tariff)
                   for one in sorted(contracts))
    buyers, sellers = ({one[side] for one in contracts} for side in (1, 2))
    supplies = tuple(_supply(point, measured[point], point in buyers, point in sellers, tariff)
                     for point in points if point not in buyers or point not in sellers)
    balances = dict.fromkeys(points, 0)
    for trade in trades:
        balances[trade.buyer_point] -= trade.buyer_pays
        balances[trade.seller_point] += trade.seller_gets
    for supply in supplies:
        balances[supply.point] += supply.gets - supply.pays
    return Settlement(trades, supplies, tuple(balances.items()), -sum(balances.values()))


def settle_trade(one: Contract, used: int | None, generated: int | None, tariff: Tariff) -> Settled:
    """Settles one trade by its shares, the rule at the top of this file."""
    if used is None or generated is None:
        return Settled(one.number, one.buyer_point, one.seller_point, used, generated, 0, 0, 0, 0, 0)
    matched = min(used, generated)
    pays = amount_mc(matched, one.price + tariff.wheeling) + amount_mc(used - matched, tariff.retail)
    gets = amount_mc(matched, one.price) + amount_mc(generated - matched, tariff.buyback)
    subsidy = subsidy_mc(matched, one.price, tariff.subsidy) if one.flow in (CU, CG) else 0
    return Settled(one.number, one.buyer_point, one.seller_point, used, generated, matched, pays - subsidy, gets,
                   pays - subsidy - gets, subsidy)


def subsidy_mc(energy_wh: int, price_mc: int, rate: int) -> int:
    """Returns k Q P^2 (000, eqs. 3 and 8) in mc, Q P at most: rate / 1000 x Wh / 1000 x (price / 10^5)^2 x 10^5."""
    return min(divide_half_even(rate * energy_wh * price_mc * price_mc, 10**11), amount_mc(energy_wh, price_mc))


def _shared(wholes: Mapping[int, int | None], contracts: Sequence[Contract], side: int) -> dict[int, int | None]:
    """Each trade's part of its point's energy; `side`: which field names the point, 1 the buyer's, 2 the seller's."""
    of_point: dict[int, list[Contract]] = {}
    for one in sorted(contracts):
        of_point.setdefault(one[side], []).append(one)
    result: dict[int, int | None] = {}
    for point, mine in of_point.items():
        whole = wholes[point]
        if whole is None:
            result.update({one.number: None for one in mine})
        else:
            parts = shares(whole, [one.wh for one in mine], [one.number for one in mine])
            result.update({one.number: part for one, part in zip(mine, parts)})
    return result


def _supply(point: int, energy: Energy, is_buyer: bool, is_seller: bool, tariff: Tariff) -> Supply:
    used = 0 if is_buyer else energy.used
    generated = 0 if is_seller else energy.generated
    return Supply(point, used, generated,
                  amount_mc(used or 0, tariff.retail), amount_mc(generated or 0, tariff.buyback))


def _check(contracts: Sequence[Contract], tariff: Tariff) -> None:
    for price in (tariff.retail, tariff.buyback, tariff.wheeling):
        check_price(price)
    if tariff.subsidy < 0:
        raise ValueError(f"a subsidy that is not negative, not {tariff.subsidy}")
    if len({one.number for one in contracts}) != len(contracts):
        raise ValueError("two trades of one slot have one number")
    for one in contracts:
        check_price(one.price)
        check_energy(one.wh, 1)
        if one.buyer_point == one.seller_point:
            raise ValueError(f"point {one.buyer_point} trades with itself")
