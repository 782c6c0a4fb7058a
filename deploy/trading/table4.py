"""The trading day of the paper 003: what its three enterprises expect to use, its prices, and the bids that it prints.

Source: 003, Tables 3 and 4 (papers.md, 003). Hours are local there; the demo plays hour 0 at 00:00 UTC. What is really
used, and the microgrid's residual, drive the simulated meters and stand with them (sim_hardware/days/table4.py).
Table 3 prints the peak and the valley price the wrong way round: Table 4 follows only from these (defect 1). Of the 72
printed bids one, 22:00 LA1, is a typing error for 0.558 (defect 3).
"""

from deploy.trading.quotes import order_price
from sim_hardware.days.table4 import HOURS_10WH

BUYERS = ("LA1", "LA2", "LA3")
SELLER = "MG"
FEED_IN_MC = 38_000                                     # 0.38 yuan per kWh: also the microgrid's lowest price
VALLEY_MC, NORMAL_MC, PEAK_MC = 42_500, 72_500, 102_500
# (first hour, hour after the last, retail price): a tariff's periods as a rule set carries them
PERIODS = ((0, 7, VALLEY_MC), (7, 8, NORMAL_MC), (8, 11, PEAK_MC), (11, 18, NORMAL_MC), (18, 23, PEAK_MC),
           (23, 24, VALLEY_MC))
MISPRINTED = (22, "LA1")

# hour: LA1, LA2, LA3 expected, 10 Wh (the printed kWh times 100); their printed bids, 10^-3 yuan per kWh
_HOURS = (
    ((1_821, 2_971, 1_405), (390, 398, 388)),    # 00:00
    ((1_676, 2_930, 1_365), (390, 398, 388)),    # 01:00
    ((1_579, 2_920, 1_292), (389, 399, 388)),    # 02:00
    ((1_567, 2_883, 1_244), (389, 399, 387)),    # 03:00
    ((1_414, 2_875, 1_243), (389, 400, 388)),    # 04:00
    ((1_396, 2_829, 1_346), (389, 399, 388)),    # 05:00
    ((1_732, 2_771, 1_799), (389, 396, 390)),    # 06:00
    ((1_717, 2_740, 2_551), (444, 487, 479)),    # 07:00
    ((1_970, 3_310, 6_440), (460, 519, 679)),    # 08:00
    ((4_325, 4_361, 8_652), (502, 503, 647)),    # 09:00
    ((4_421, 4_568, 9_587), (496, 500, 657)),    # 10:00
    ((4_054, 4_819, 9_946), (436, 447, 533)),    # 11:00
    ((2_775, 5_135, 9_161), (421, 460, 535)),    # 12:00
    ((3_297, 4_811, 9_299), (428, 453, 535)),    # 13:00
    ((3_727, 4_813, 9_498), (433, 450, 532)),    # 14:00
    ((4_441, 4_839, 8_715), (444, 451, 518)),    # 15:00
    ((4_045, 4_730, 8_033), (443, 454, 515)),    # 16:00
    ((2_690, 4_658, 5_135), (436, 482, 494)),    # 17:00
    ((2_754, 3_652, 3_408), (518, 570, 556)),    # 18:00
    ((2_808, 3_311, 2_993), (534, 565, 545)),    # 19:00
    ((2_762, 3_216, 2_871), (536, 565, 543)),    # 20:00
    ((2_705, 3_117, 1_719), (562, 594, 490)),    # 21:00
    ((2_528, 3_040, 1_625), (580, 600, 489)),    # 22:00
    ((2_163, 2_988, 1_470), (391, 397, 387)),    # 23:00
)


def retail_mc(hour: int) -> int:
    """The retail price of an hour, mc per kWh."""
    return next(price for first, end, price in PERIODS if first <= hour < end)


def expected_wh(hour: int) -> dict[str, int]:
    """Each buyer's published expected volume, Wh: the volume of its order."""
    return {name: value * 10 for name, value in zip(BUYERS, _HOURS[hour][0])}


def printed_mc(hour: int) -> dict[str, int]:
    """Each buyer's bid as printed, mc per kWh."""
    return {name: value * 100 for name, value in zip(BUYERS, _HOURS[hour][1])}


def bids_mc(hour: int) -> dict[str, int]:
    """Each buyer's bid by eq. (5), mc per kWh."""
    volumes = expected_wh(hour)
    return {name: order_price(wh, sum(volumes.values()), retail_mc(hour), FEED_IN_MC) for name, wh in volumes.items()}


def actual_wh(hour: int) -> dict[str, int]:
    """What each buyer really uses, Wh."""
    return {name: value * 10 for name, value in zip(BUYERS, HOURS_10WH[hour])}


def residual_wh(hour: int) -> int:
    """What the microgrid has left to sell, Wh."""
    return HOURS_10WH[hour][3] * 10
