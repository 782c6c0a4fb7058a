"""Makes a simulated month of the demo's market, settled by the real contracts, and the bill of one of its buyers.

Three enterprises buy of one microgrid by the figures of paper 003, Table 4 (energies in Wh, prices by the bids as
printed): every hour of the month an order of each, a seal of each point every quarter of an hour. Nothing is drawn.
"""

from pathlib import Path
from typing import NamedTuple

from firmware.wire import trading
from gateway.ledger.bills import export_bill
from gateway.ledger.reader import Reader
from tests.contracts.settling import Area
from tests.ledger.world import key

OWNERS = {1: "LA1", 2: "LA2", 3: "LA3", 4: "MG"}
SEAL_S = 900
ASK = 38000  # of the microgrid: what the grid would pay it (mc per kWh)
TOP_UP_HOURS, TOP_UP_MC = 240, 10**9
# By hour: bids (mc per kWh), expected and actual energy of LA1 to LA3 and the microgrid's residual (10 Wh), of eight
# hours of Table 4 (hours 0, 3, 6, 9, 12, 15, 18, 21).
HOURS = (
    ((39000, 39800, 38800), (1821, 2971, 1405), (3636, 4058, 1510), 16050),
    ((38900, 39900, 38700), (1567, 2883, 1244), (3816, 4684, 1320), 14550),
    ((38900, 39600, 39000), (1732, 2771, 1799), (2772, 4046, 1830), 14180),
    ((50200, 50300, 64700), (4325, 4361, 8652), (7212, 5639, 11440), 9730),
    ((42100, 46000, 53500), (2775, 5135, 9161), (6756, 6126, 17130), 6970),
    ((44400, 45100, 51800), (4441, 4839, 8715), (8688, 6270, 16730), 6170),
    ((51800, 57000, 55600), (2754, 3652, 3408), (3720, 4911, 3490), 9240),
    ((56200, 59400, 49000), (2705, 3117, 1719), (2760, 5312, 1870), 12400),
)


class Month(NamedTuple):
    """A settled area, its bill and what it takes to check it."""

    area: Area
    bill: bytes
    genesis: bytes
    account: bytes


def make_area(folder: Path | None, hours: int) -> Area:
    """The area with so many slots, all final and certified."""
    area = Area(folder, points=(1, 2, 3, 4), owners=OWNERS, replicas=4,
                parameters={"point_max_w": 250_000})  # the microgrid has 160 kW
    first_s, quarters = area.first_s, area.slot_s // SEAL_S
    _put_orders(area, 0)
    area.block()
    area.border_seals(first_s)
    area.block(first_s + 20)
    for done in range(1, hours * quarters + 1):
        at, quarter = divmod(done - 1, quarters)
        _, _, actual, residual = HOURS[at % len(HOURS)]
        for number in range(3):
            area.totals[number + 1][0] += _part(actual[number], quarter)
        area.totals[4][1] += _part(residual, quarter)
        area.border_seals(first_s + done * SEAL_S)
        if quarter == quarters - 2:
            _put_orders(area, at + 1)
        if not quarter and not at % TOP_UP_HOURS:
            _top_up(area, at)
        assert set(area.block(first_s + done * SEAL_S + 20)) == {"accepted"}
    area.finish(first_s + (hours - 1) * area.slot_s)
    area.certify()
    return area


def make_month(folder: Path | None = None, hours: int = 30 * 24, name: str = "LA1") -> Month:
    """An area and the bill of one of its accounts over all of its slots."""
    area = make_area(folder, hours)
    area.ledger.close()
    reader = Reader.open(area.folder)
    try:
        data = export_bill(reader, key(name).kid, area.first_s, area.first_s + hours * area.slot_s)
    finally:
        reader.close()
    return Month(area, data, area.genesis, key(name).kid)


def _put_orders(area: Area, at: int) -> None:
    """Queues the four orders for the slot of that number."""
    bids, expected, _, residual = HOURS[at % len(HOURS)]
    slot_s = area.first_s + at * area.slot_s
    area.order(slot_s, 1, 4, ASK, 10 * residual)
    for number in range(3):
        area.order(slot_s, 0, number + 1, bids[number], 10 * expected[number])


def _top_up(area: Area, at: int) -> None:
    """Queues a payment of every buyer to its account: by the grid and by the owner."""
    for number in range(3):
        name = OWNERS[number + 1]
        body = trading.money_body(key(name).kid, TOP_UP_MC, f"bank {at}")
        for sender in ("grid", name):
            area.add(trading.TOP_UP, body, sender)


def _part(tens: int, quarter: int) -> int:
    """The Wh of a quarter of an hour (0 to 3) of so many 10 Wh."""
    return 10 * tens * (quarter + 1) // 4 - 10 * tens * quarter // 4
