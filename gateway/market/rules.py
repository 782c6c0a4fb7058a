"""Makes named values of a rule set's parameters (transaction type 9) and tells what they say for a slot.

A rule set is a versioned list of values in the order below; new ones go to the end, with a default. It comes into force
at a future height and is never edited: a slot keeps the versions that held at its gate (records.ClearingRecord).
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from firmware.wire import cbor
from firmware.wire.errors import Refused, check
from firmware.wire.shape import check_fields, is_kind
from gateway.market.amounts import ENERGY_WH, PRICE_MC

NAMES = ("market", "tariff", "vee", "credit")
MECHANISMS = ("knn", "blind")
HOUR_S = 3600
DEPOSIT_MAX_MC = 10**12  # like prices and energies (amounts.py) bounded, so that no sum passes what CBOR can hold
OPEN_ORDERS_MAX = 4096
OPEN_MAX_S = 31 * 86400  # a gate that moves by so much makes the calendar clear a month of slots at once
FINAL_MAX_S = 366 * 86400

# Every field has a default: its kind is its type (text, unsigned, list). Lists are never changed in place.


class Market(NamedTuple):
    """Seconds are label time before the slot's start."""

    mechanism: str = "knn"
    open_s: int = 86400  # orders for a slot are taken from so long before it ...
    gate_s: int = 300  # ... until so long before it; cleared by the first block at or after the gate
    commit_open_s: int = 900
    commit_close_s: int = 600  # commits end and reveals begin
    price_min: int = 0  # mc per kWh
    price_max: int = 200000
    wh_min: int = 1
    wh_max: int = 100_000_000
    open_orders: int = 96  # of one owner, commits counted in: four days of hours
    commit_deposit_mc: int = 100000
    price_weight: int = 1  # of the pairing's distance (papers.md 000, KNN)
    quantity_weight: int = 1
    price_scale: int = 100000
    quantity_scale: int = 100000


class Tariff(NamedTuple):
    """Prices in mc per kWh."""

    zone: list[list[int]] = [[0, 0]]  # [[UTC instant, offset s], ...] rising: local time without a zone database
    periods: list[list[int]] = [[0, 24, 61500]]  # [[first local hour, hour after the last, retail price], ...]: a day
    buyback: int = 41000
    wheeling: int = 2000
    subsidy: int = 0  # 000 eqs. 3, 6, 8: thousandths of kWh per currency unit; 0 = none


class Vee(NamedTuple):
    """Seconds are label time after the slot's end."""

    provisional_s: int = 3600
    final_s: int = 86400
    rollovers: list[list] = []  # [[model, Wh at which its registers begin again], ...]


class Credit(NamedTuple):
    """Scores in thousandths of a point."""

    prior: int = 100000  # before the first score
    natural_alpha: int = 0  # thousandths (004 eq. 12), for sellers of weather-driven energy forms
    natural_forms: list[int] = []


Rules = Market | Tariff | Vee | Credit
_TYPES: dict[str, type[Rules]] = {"market": Market, "tariff": Tariff, "vee": Vee, "credit": Credit}


def _kind(default: Any) -> str:
    return {str: "t", int: "u", list: "l"}[type(default)]


_FIELDS = {name: [(field, _kind(default), default) for field, default in made._field_defaults.items()]
           for name, made in _TYPES.items()}


def make(name: str, changes: Mapping[str, Any] | None = None) -> list:
    """Returns a rule set's parameters as they travel: defaults with `changes`; ValueError for an unknown name."""
    values = {field: default for field, _, default in _FIELDS[name]}
    for field, value in (changes or {}).items():
        if field not in values:
            raise ValueError("no parameter " + field + " of " + name)
        values[field] = value
    return [_plain(values[field]) for field, _, _ in _FIELDS[name]]


def read(name: str, parameters: Sequence) -> Any:
    """Returns the Market, Tariff, Vee or Credit of a list of parameters; Refused `malformed`."""
    check(name in _FIELDS, "malformed", NAMES, name)
    fields = _FIELDS[name]
    check(len(parameters) <= len(fields), "malformed", len(fields), len(parameters))
    values = []
    for index, (field, kind, default) in enumerate(fields):
        value = parameters[index] if index < len(parameters) else _plain(default)
        check(is_kind(value, kind), "malformed", field, value)
        values.append(value)
    rules = _TYPES[name](*values)
    _CHECKS[name](rules)
    return rules


def digest(parameters: Sequence) -> bytes:
    """Returns SHA-256 of the parameters' CBOR, as the transaction names it."""
    return hashlib.sha256(cbor.encode(parameters)).digest()


def offset_s(tariff: Tariff, time_s: int) -> int:
    """Returns local time minus UTC at an instant, by the rule set's own table."""
    found = tariff.zone[0][1]
    for instant, offset in tariff.zone:
        if instant <= time_s:
            found = offset
    return found


def retail_price(tariff: Tariff, slot_s: int) -> int:
    """Returns the retail price of the period that a slot begins in, mc per kWh."""
    hour = (slot_s + offset_s(tariff, slot_s)) // HOUR_S % 24
    for first, end, price in tariff.periods:
        if first <= hour < end:
            return price
    raise Refused("malformed", "a period for every hour", hour)


def _check_market(rules: Market) -> None:
    check(rules.mechanism in MECHANISMS, "malformed", MECHANISMS, rules.mechanism)
    is_ordered = rules.open_s >= rules.commit_open_s > rules.commit_close_s > rules.gate_s
    check(is_ordered, "malformed", "open >= commit open > commit close > gate", rules.gate_s)
    check(rules.open_s <= OPEN_MAX_S, "malformed", OPEN_MAX_S, rules.open_s)
    check(rules.price_min <= rules.price_max <= PRICE_MC, "malformed", rules.price_max, rules.price_min)
    check(0 < rules.wh_min <= rules.wh_max <= ENERGY_WH, "malformed", rules.wh_max, rules.wh_min)
    check(rules.commit_deposit_mc <= DEPOSIT_MAX_MC, "malformed", DEPOSIT_MAX_MC, rules.commit_deposit_mc)
    check(0 < rules.open_orders <= OPEN_ORDERS_MAX, "malformed", OPEN_ORDERS_MAX, rules.open_orders)
    check(rules.price_scale > 0 and rules.quantity_scale > 0, "malformed", "scales above 0", rules.price_scale)


def _check_tariff(rules: Tariff) -> None:
    check(bool(rules.zone), "malformed", "an offset", None)
    for row in rules.zone:
        check_fields(row, ("u", "i"))
    check(rules.zone == sorted(rules.zone), "malformed", "rising instants", rules.zone)
    prices = [rules.buyback, rules.wheeling]
    for row in rules.periods:
        check_fields(row, ("u", "u", "u"))
        prices.append(row[2])
    check(max(prices) <= PRICE_MC, "malformed", PRICE_MC, max(prices))
    covered = 0
    for first, end, _price in sorted(rules.periods):
        check(first == covered and end > first, "malformed", covered, first)
        covered = end
    check(covered == 24, "malformed", 24, covered)


def _check_vee(rules: Vee) -> None:
    is_ordered = FINAL_MAX_S >= rules.final_s >= rules.provisional_s > 0
    check(is_ordered, "malformed", "a year >= final >= provisional > 0", rules.final_s)
    for row in rules.rollovers:
        check_fields(row, ("t", "u"))


def _check_credit(rules: Credit) -> None:
    check(rules.prior <= 100000, "malformed", 100000, rules.prior)
    check(rules.natural_alpha < 300, "malformed", 300, rules.natural_alpha)  # 004: 0 < alpha < 0.3
    for form in rules.natural_forms:
        check(is_kind(form, "u"), "malformed", "an energy form", form)


_CHECKS: dict[str, Callable[[Any], None]] = {
    "market": _check_market, "tariff": _check_tariff, "vee": _check_vee, "credit": _check_credit}


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
