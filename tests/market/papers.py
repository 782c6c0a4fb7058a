"""Carries figures of the credit paper (004), Table 2, in whole units, and reads the published tables where they are.

Energy in kWh, prices in tenths of a fen (10^-3 yuan, 100 mc), money in 10^-1 yuan, as the paper prints them.
"""

import csv
from typing import NamedTuple

from tests import needs


class Row(NamedTuple):
    """One trade of Table 2: what was agreed and measured, then the print."""

    price: int                  # 10^-3 yuan per kWh
    agreed: int
    used: int
    generated: int
    buyer: int                  # 10^-1 yuan
    seller: int
    grid: int
    buyer_score: int            # points
    seller_score: int


RETAIL_MC, BUYBACK_MC, WHEELING_MC = 61_500, 41_000, 2_000     # 0.615, 0.41 and 0.02 yuan per kWh (papers.md, 004)
TABLE_2 = (
    Row(550, 200, 220, 200, 1263, 1100, 163, 100, 100),
    Row(560, 200, 200, 200, 1160, 1120, 40, 100, 100),
    Row(540, 200, 180, 200, 1008, 1054, -46, 90, 100),
    Row(540, 200, 250, 250, 1400, 1350, 50, 100, 100),
    Row(560, 200, 180, 180, 1044, 1008, 36, 90, 90),
    Row(550, 200, 190, 190, 1083, 1045, 38, 95, 90),
    Row(540, 200, 240, 220, 1359, 1188, 171, 90, 85),
)


def published(name: str) -> list[dict[str, str]]:
    """The rows of a table as published, from the data that lies beside the checkout; skips the test without it."""
    path = needs.VECTORS.parent / "papers" / name
    if not path.exists():
        needs.missing("the papers' tables", "../shared/data/papers beside the checkout")
    with path.open() as file:
        return list(csv.DictReader(file))
