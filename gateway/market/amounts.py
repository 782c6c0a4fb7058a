"""Makes whole amounts of money and whole shares of energy from integers: the only place where the market rounds.

Units (wire.md): energy in Wh, money in mc = 10^-5 of the currency unit, prices in mc per kWh, so that

    amount = Wh x price / 1000, rounded half to even            one payer, one payee
    shares of a whole by largest remainder                      one whole, many takers: the shares' sum is the whole

Bounds. A price is at most PRICE_MC (1,000 currency units per kWh), an energy at most ENERGY_WH (100 GWh in one slot,
more than any area has). Their amount is at most 10^16 mc, the sum of 900 such amounts still fits the 64 bits of a
signed integer of the wire (9.2 x 10^18); what is beyond is refused before it is computed with.
"""

from collections.abc import Sequence

from firmware.wire.errors import check

PRICE_MC = 10**8
ENERGY_WH = 10**11
AMOUNT_MC = PRICE_MC * ENERGY_WH // 1000


def divide_half_even(number: int, divisor: int) -> int:
    """Returns number / divisor (divisor > 0) as the nearest integer, a half to the even one."""
    quotient, rest = divmod(number, divisor)
    if 2 * rest > divisor or (2 * rest == divisor and quotient & 1):
        quotient += 1
    return quotient


def amount_mc(energy_wh: int, price_mc: int) -> int:
    """Returns the money for `energy_wh` at `price_mc` per kWh."""
    return divide_half_even(energy_wh * price_mc, 1000)


def check_price(price_mc: int, low_mc: int = 0, high_mc: int = PRICE_MC) -> None:
    """Raises Refused `wrong_price` unless low <= price <= high."""
    check(low_mc <= price_mc <= high_mc, "wrong_price", (low_mc, high_mc), price_mc)


def check_energy(energy_wh: int, low_wh: int = 0) -> None:
    """Raises Refused `wrong_volume` unless low <= energy <= ENERGY_WH."""
    check(low_wh <= energy_wh <= ENERGY_WH, "wrong_volume", (low_wh, ENERGY_WH), energy_wh)


def shares(whole: int, weights: Sequence[int], ties: Sequence[int] | Sequence[bytes]) -> list[int]:
    """Returns `whole` (>= 0) shared out in proportion to `weights` (> 0 in sum) by largest remainder.

    Equal remainders go by `ties`, the smaller first; the sum of the shares is `whole`, and none is farther than
    one unit from its exact part.
    """
    total = sum(weights)
    if whole < 0 or total <= 0 or min(weights) < 0:
        raise ValueError("a whole and weights that are not negative, their sum above 0")
    parts = [divmod(whole * weight, total) for weight in weights]
    result = [part for part, _ in parts]
    left = whole - sum(result)
    if left:
        for index in sorted(range(len(parts)), key=lambda at: (-parts[at][1], ties[at]))[:left]:
            result[index] += 1
    return result
