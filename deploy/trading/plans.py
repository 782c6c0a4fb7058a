"""Makes what a participant wants for a slot, from its plan: the table of paper 003, a CSV file, or fixed rows.

A price that a CSV row leaves out is the default quote: a buyer's by eq. (5) of 003 from its own volume and that of all
(column `all_wh`), a seller's the price at which the grid buys back, which is the least that it should take (eq. 8).
"""

from __future__ import annotations

import csv
from argparse import ArgumentTypeError
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from deploy import places
from deploy.trading import quotes, table4
from gateway.config import ConfigError
from gateway.market.rules import Tariff, retail_price

BUY, SELL = "buy", "sell"
COLUMNS = ("slot", "wh", "price_mc", "all_wh")
_NUMBER = 10**12  # no Wh or price in a file is beyond


class Wish(NamedTuple):
    """So much energy at such a price per kWh."""

    wh: int
    price_mc: int


class Row(NamedTuple):
    """A fixed row: every day from an hour (UTC) until another."""

    from_hour: int
    to_hour: int
    wh: int
    price_mc: int


Plan = Callable[[int, Tariff | None], Wish | None]  # (slot's start, tariff where it is known): None = nothing wanted


def of_table4(name: str) -> tuple[str, Plan]:
    """(side, plan) of LA1, LA2, LA3 or MG; slots of an hour, hour 0 at 00:00 UTC. ValueError for another name."""
    if name == table4.SELLER:
        return SELL, lambda slot_s, _: _wish(table4.residual_wh(_hour(slot_s)), table4.FEED_IN_MC)
    if name not in table4.BUYERS:
        raise ValueError(f"one of {', '.join(table4.BUYERS)}, {table4.SELLER}")
    return BUY, lambda slot_s, _: _wish(table4.expected_wh(_hour(slot_s))[name], table4.bids_mc(_hour(slot_s))[name])


def of_rows(rows: Sequence[Row]) -> Plan:
    """The first row that covers the slot's hour."""
    def wanted(slot_s: int, _tariff: Tariff | None) -> Wish | None:
        for row in rows:
            if row.from_hour <= _hour(slot_s) < row.to_hour:
                return _wish(row.wh, row.price_mc)
        return None
    return wanted


def of_csv(path: Path, side: str) -> Plan:
    """A row for each slot: its start, Wh, price in mc per kWh (or empty), all buyers' Wh (or empty); ConfigError."""
    rows: dict[int, dict[str, int | None]] = {}
    with open(path, newline="") as file:
        reader = csv.DictReader(file)
        for column in reader.fieldnames or ():
            if column not in COLUMNS:
                raise ConfigError(path, 1, column, "columns " + ", ".join(COLUMNS))
        if not {"slot", "wh"} <= set(reader.fieldnames or ()):
            raise ConfigError(path, 1, "", "at least the columns slot and wh")
        for line, row in enumerate(reader, 2):
            try:
                slot_s = places.slot_s(row["slot"] or "")
                rows[slot_s] = {name: _number(row.get(name)) for name in COLUMNS[1:]}
            except (ValueError, ArgumentTypeError) as error:
                raise ConfigError(path, line, "slot", "a slot and whole numbers", str(row)) from error
            if rows[slot_s]["wh"] is None or (
                    side == BUY and rows[slot_s]["price_mc"] is None and rows[slot_s]["all_wh"] is None):
                raise ConfigError(path, line, "wh", "Wh, and for a buyer price_mc or all_wh", str(row))

    def wanted(slot_s: int, tariff: Tariff | None) -> Wish | None:
        row = rows.get(slot_s)
        if row is None or not row["wh"]:
            return None
        price_mc = row["price_mc"]
        if price_mc is None and tariff is None:
            return None  # the default quote needs the tariff in force
        if price_mc is None and tariff is not None:
            price_mc = tariff.buyback if side == SELL else quotes.order_price(
                row["wh"], max(row["wh"], row["all_wh"] or 0), retail_price(tariff, slot_s), tariff.buyback)
        assert price_mc is not None
        return Wish(row["wh"], price_mc)
    return wanted


def _number(text: str | None) -> int | None:
    if text is None or not text.strip():
        return None
    value = int(text)
    if not 0 <= value <= _NUMBER:
        raise ValueError(f"a whole number up to {_NUMBER}")
    return value


def _hour(slot_s: int) -> int:
    return slot_s // 3600 % 24


def _wish(wh: int, price_mc: int) -> Wish | None:
    return Wish(wh, price_mc) if wh else None
