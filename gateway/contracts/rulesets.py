"""Makes the versions of the market's rule sets from an operator's transactions (type 9), and tells which holds when.

A version comes into force at a future height and is never edited; a slot keeps those that held when it was cleared.
"""

from functools import lru_cache
from typing import Any

from firmware.wire import cbor, trading
from firmware.wire.errors import check
from firmware.wire.transaction import Transaction
from gateway.contracts.context import BlockContext, State
from gateway.market import records, rules
from gateway.market.records import RuleVersion

VERSIONS = 64  # of a rule set, in the state: those that no open slot needs any more make room


def rule_set(store: State, context: BlockContext, found: Transaction) -> None:
    """Type 9: adds a version. Refused `wrong_version` unless it is the next, `backdated` unless it begins after this
    block and not before the version before it, `busy` when every one of the kept versions is still needed."""
    body = trading.decode_rule_set_body(found.body)
    rules.read(body.name, body.parameters)
    kept = list(versions(store, body.name))
    last = kept[-1] if kept else RuleVersion(0, 0, b"", [])
    check(body.version == last.version + 1, "wrong_version", last.version + 1, body.version)
    first = max(context.height + 1, last.valid_from)
    check(body.valid_from >= first, "backdated", first, body.valid_from)
    oldest = _oldest_needed(store, context, body.name)
    while len(kept) >= VERSIONS and kept[0].version < oldest:
        del kept[0]
    check(len(kept) < VERSIONS, "busy", VERSIONS, len(kept))
    kept.append(RuleVersion(body.version, body.valid_from, body.hash, body.parameters))
    store.put(records.rules_key(body.name), records.encode_list(kept))


def versions(store: State, name: str) -> tuple[RuleVersion, ...]:
    """The kept versions of a rule set, rising."""
    data = store.get(records.rules_key(name))
    return () if data is None else _decoded(data)


def in_force(store: State, name: str, height: int) -> RuleVersion | None:
    """The version that holds at a height: the last with valid_from <= height; None before the first."""
    found = None
    for version in versions(store, name):
        if version.valid_from <= height:
            found = version
    return found


def of_version(store: State, name: str, number: int) -> Any:
    """The Market, Tariff, Vee or Credit of a version that an open slot names."""
    for version in versions(store, name):
        if version.version == number:
            return read(name, version)
    raise AssertionError(f"{name} version {number} is needed and not kept")


def read(name: str, version: RuleVersion) -> Any:
    """The Market, Tariff, Vee or Credit of a version."""
    return _read(name, cbor.encode(version.parameters))


def market(store: State, height: int) -> rules.Market:
    """The market's rules at a height; Refused `no_rules` before the first."""
    version = in_force(store, "market", height)
    check(version is not None, "no_rules", "rules of the market", height)
    assert version is not None
    return read("market", version)


def _oldest_needed(store: State, context: BlockContext, name: str) -> int:
    """The number of the oldest version that a slot may still ask for."""
    present = in_force(store, name, context.height)
    oldest = present.version if present else 0
    data = store.get(records.CALENDAR_KEY)
    if data is not None:
        cleared = store.get(records.clearing_key(records.decode_calendar(data).final_s))
        if cleared is not None:
            oldest = min(oldest, getattr(records.decode_clearing(cleared), name + "_version"))
    return oldest


@lru_cache(16)  # four sets, the present and the last
def _decoded(data: bytes) -> tuple[RuleVersion, ...]:
    return tuple(records.decode_rules(data))


@lru_cache(64)
def _read(name: str, parameters: bytes) -> Any:
    return rules.read(name, cbor.decode(parameters))
