"""Makes named values of a rule set's parameters (transaction type 9) and tells what they say for a slot.

A rule set is a versioned list of values in the order below; new ones go to the end, with a default. It comes into force
at a future height and is never edited: a slot keeps the versions that held at its gate (records.ClearingRecord).
"""

import hashlib
from collections import namedtuple

from firmware.wire import cbor
from firmware.wire.errors import Refused, check
from firmware.wire.shape import check_fields, is_kind

NAMES = ("market", "tariff", "vee", "credit")
MECHANISMS = ("knn", "blind")
HOUR_S = 3600

# (name, kind, default). Seconds are label time before the slot's start unless said.
_MARKET = (
    ("mechanism", "t", "knn"),
    ("open_s", "u", 86400),  # orders for a slot are taken from so long before it ...
    ("gate_s", "u", 300),  # ... until so long before it; cleared by the first block at or after the gate
    ("commit_open_s", "u", 900),
    ("commit_close_s", "u", 600),  # commits end and reveals begin
    ("price_min", "u", 0),  # mc per kWh
    ("price_max", "u", 200000),
    ("wh_min", "u", 1),
    ("wh_max", "u", 100_000_000),
    ("open_orders", "u", 96),  # of one owner, commits counted in: four days of hours
    ("commit_deposit_mc", "u", 100000),
    ("price_weight", "u", 1),  # of the pairing's distance (papers.md 000, KNN)
    ("quantity_weight", "u", 1),
    ("price_scale", "u", 100000),
    ("quantity_scale", "u", 100000),
)
_TARIFF = (
    ("zone", "l", ((0, 0),)),  # [[UTC instant, offset s], ...] rising: local time without a zone database
    ("periods", "l", ((0, 24, 61500),)),  # [[first local hour, hour after the last, retail price], ...] cover the day
    ("buyback", "u", 41000),
    ("wheeling", "u", 2000),
    ("subsidy", "u", 0),  # 000 eqs. 3, 6, 8: thousandths of kWh per currency unit; 0 = none
)
_VEE = (
    ("provisional_s", "u", 3600),  # after the slot's end
    ("final_s", "u", 86400),
    ("rollovers", "l", ()),  # [[model, Wh at which its registers begin again], ...]
)
_CREDIT = (
    ("prior", "u", 100000),  # thousandths of a point, before the first score
    ("natural_alpha", "u", 0),  # thousandths (004 eq. 12), for sellers of weather-driven energy forms
    ("natural_forms", "l", ()),
)
_FIELDS = {"market": _MARKET, "tariff": _TARIFF, "vee": _VEE, "credit": _CREDIT}

Market = namedtuple("Market", [name for name, _, _ in _MARKET])
Tariff = namedtuple("Tariff", [name for name, _, _ in _TARIFF])
Vee = namedtuple("Vee", [name for name, _, _ in _VEE])
Credit = namedtuple("Credit", [name for name, _, _ in _CREDIT])
_TYPES = {"market": Market, "tariff": Tariff, "vee": Vee, "credit": Credit}


def make(name, changes=None):
    """Returns a rule set's parameters as they travel: defaults with `changes`; ValueError for an unknown name."""
    values = {field: default for field, _, default in _FIELDS[name]}
    for field in changes or {}:
        if field not in values:
            raise ValueError("no parameter " + field + " of " + name)
        values[field] = changes[field]
    return [_plain(values[field]) for field, _, _ in _FIELDS[name]]


def read(name, parameters):
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


def digest(parameters):
    """Returns SHA-256 of the parameters' CBOR, as the transaction names it."""
    return hashlib.sha256(cbor.encode(parameters)).digest()


def offset_s(tariff, time_s):
    """Returns local time minus UTC at an instant, by the rule set's own table."""
    found = tariff.zone[0][1]
    for instant, offset in tariff.zone:
        if instant <= time_s:
            found = offset
    return found


def retail_price(tariff, slot_s):
    """Returns the retail price of the period that a slot begins in, mc per kWh."""
    hour = (slot_s + offset_s(tariff, slot_s)) // HOUR_S % 24
    for first, end, price in tariff.periods:
        if first <= hour < end:
            return price
    raise Refused("malformed", "a period for every hour", hour)


def _check_market(rules):
    check(rules.mechanism in MECHANISMS, "malformed", MECHANISMS, rules.mechanism)
    is_ordered = rules.open_s >= rules.commit_open_s > rules.commit_close_s > rules.gate_s
    check(is_ordered, "malformed", "open >= commit open > commit close > gate", rules.gate_s)
    check(rules.price_min <= rules.price_max, "malformed", rules.price_max, rules.price_min)
    check(0 < rules.wh_min <= rules.wh_max, "malformed", rules.wh_max, rules.wh_min)


def _check_tariff(rules):
    check(bool(rules.zone), "malformed", "an offset", None)
    for row in rules.zone:
        check_fields(row, ("u", "i"))
    check(rules.zone == sorted(rules.zone), "malformed", "rising instants", rules.zone)
    covered = 0
    for row in rules.periods:
        check_fields(row, ("u", "u", "u"))
    for first, end, _price in sorted(rules.periods):
        check(first == covered and end > first, "malformed", covered, first)
        covered = end
    check(covered == 24, "malformed", 24, covered)


def _check_vee(rules):
    check(rules.final_s >= rules.provisional_s > 0, "malformed", rules.provisional_s, rules.final_s)
    for row in rules.rollovers:
        check_fields(row, ("t", "u"))


def _check_credit(rules):
    check(rules.prior <= 100000, "malformed", 100000, rules.prior)
    check(rules.natural_alpha < 300, "malformed", 300, rules.natural_alpha)  # 004: 0 < alpha < 0.3
    for form in rules.natural_forms:
        check(is_kind(form, "u"), "malformed", "an energy form", form)


_CHECKS = {"market": _check_market, "tariff": _check_tariff, "vee": _check_vee, "credit": _check_credit}


def _plain(value):
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
