"""Makes the market's part of the demo's report from a replica's ledger: bids, fills, energies, money; each checked.

The bids are held against Table 4 as it is printed, the blind auction's fills against a queue of four lines, the settled
energy against the simulators' own registers: none of it uses the market's code.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

from deploy.trading import table4
from firmware.wire import cbor, cose, trading, transaction
from firmware.wire.errors import Refused
from gateway.ledger.reader import Reader
from gateway.market import records
from gateway.market.records import ClearingRecord, EntryRecord, SlotRecord
from sim_hardware.truth import read_truth

HOUR_S = 3600
DAY_HOURS = 24
TOLERANCE_WH = 1  # of a slot's energy and point, against the simulators
EXAMPLES = 5


class Market(NamedTuple):
    """What the ledger holds of the market, by slot."""

    clearings: dict[int, ClearingRecord]
    slots: dict[int, SlotRecord]  # final ones
    entries: dict[bytes, list[EntryRecord]]  # by account


def read_market(reader: Reader) -> Market:
    """Reads every clearing, every settled slot and every entry."""
    clearings = {found.slot_s: found for found in (
        records.decode_clearing(value) for _, value in reader.state_with(records.CLEARING))}
    slots = {found.slot_s: found for found in (
        records.decode_slot(value) for _, value in reader.state_with(b"slot/")) if found.status == records.FINAL}
    entries: dict[bytes, list[EntryRecord]] = {}
    for key, value in reader.state_with(b"entry/"):
        entries.setdefault(key[6:14], []).append(records.decode_entry(value))
    return Market(clearings, slots, entries)


def settlement(market: Market) -> dict[str, int]:
    """Sums over all settled slots; Wh and mc. bought and sold are the matched energy of either side's entries."""
    settled = [entry for rows in market.entries.values() for entry in rows if entry.slot_s is not None]
    found = {"sum_mc": sum(entry.amount_mc for entry in settled), "turnover_mc": 0, "bought_wh": 0, "sold_wh": 0,
             "shortfall_wh": 0, "surplus_wh": 0}
    for kid, rows in market.entries.items():
        for entry in rows:
            if entry.kind != records.TRADE or entry.slot_s is None or entry.trade is None:
                continue
            trade = market.clearings[entry.slot_s].trades[entry.trade]
            matched = entry.matched_wh or 0
            if trade.buyer == kid:
                found["bought_wh"] += matched
                found["turnover_mc"] += round(Fraction(matched * trade.price, 1000))  # a half to the even one
                found["shortfall_wh"] += (entry.used_wh or 0) - matched
            if trade.seller == kid:
                found["sold_wh"] += matched
                found["surplus_wh"] += (entry.generated_wh or 0) - matched
    return found


def is_even(market: Market) -> bool:
    """Tells whether in every settled slot the amounts sum to 0 and as much was sold as was bought."""
    sums: dict[int, int] = {}
    energy: dict[int, int] = {}
    for kid, rows in market.entries.items():
        for entry in rows:
            if entry.slot_s is None:
                continue
            sums[entry.slot_s] = sums.get(entry.slot_s, 0) + entry.amount_mc
            if entry.kind == records.TRADE and entry.trade is not None:
                trade = market.clearings[entry.slot_s].trades[entry.trade]
                signs = (trade.buyer == kid) - (trade.seller == kid)
                energy[entry.slot_s] = energy.get(entry.slot_s, 0) + signs * (entry.matched_wh or 0)
    return not any(sums.values()) and not any(energy.values())


def bids(reader: Reader, buyers: Mapping[str, bytes], day_s: int) -> dict[str, Any]:
    """Holds the buyers' accepted orders and reveals against Table 4: {"cells", "equal", "differing"}.

    A printed bid has three decimals; a bid is equal when it rounds to it."""
    cells = equal = 0
    differing = []
    names = {kid: name for name, kid in buyers.items()}
    for kid, slot_s, price in _offers(reader):
        if kid not in names:
            continue
        hour = (slot_s - day_s) // HOUR_S % DAY_HOURS
        printed = table4.printed_mc(hour)[names[kid]]
        cells += 1
        if (price + 50) // 100 * 100 == printed:
            equal += 1
        else:
            differing.append({"hour": hour, "who": names[kid], "bid_mc": price, "printed_mc": printed})
    return {"cells": cells, "equal": equal, "differing": differing}


def fills(market: Market, buyers: Mapping[str, bytes], day_s: int, last_s: int) -> dict[str, Any]:
    """Holds what every buyer got in slots up to last_s against the queue of 003 (papers.md, A3): {"cells", "equal",
    "differing"}."""
    cells = equal = 0
    differing = []
    for slot_s, clearing in sorted(market.clearings.items()):
        if slot_s > last_s:
            break
        hour = (slot_s - day_s) // HOUR_S % DAY_HOURS
        got = {name: sum(trade.wh for trade in clearing.trades if trade.buyer == kid) for name, kid in buyers.items()}
        for name, expected in _queue(hour).items():
            cells += 1
            if got[name] == expected:
                equal += 1
            else:
                differing.append({"hour": hour, "who": name, "wh": got[name], "expected_wh": expected})
    return {"cells": cells, "equal": equal, "differing": differing}


def energies(market: Market, truths: list[Path], ratios: Mapping[int, int]) -> dict[str, Any]:
    """Holds every settled energy against the registers that the simulated meters showed at the slot's borders.

    {"compared", "missing", "worst_wh", "equal", "examples"}; worst: the largest difference of a point and slot."""
    rows = read_truth(*truths)
    compared = missing = worst = 0
    examples: list[str] = []
    for slot_s, slot in sorted(market.slots.items()):
        for energy in slot.energies:
            if energy.quality == records.MISSING:
                missing += 1
                continue
            first, last = (rows.get((energy.point, at * 1000)) for at in (slot_s, slot_s + HOUR_S))
            if first is None or last is None:
                missing += 1
                continue
            for name, found in (("import", energy.import_wh), ("export", energy.export_wh)):
                field = f"energy_active_{name}_total"
                if field not in first:
                    continue
                expected = (last[field] - first[field]) * ratios.get(energy.point, 1)
                compared += 1
                difference = abs((found or 0) - expected)
                if difference > TOLERANCE_WH and len(examples) < EXAMPLES:
                    examples.append(f"point {energy.point}, slot {slot_s}: {name} {found} Wh, not {expected}")
                worst = max(worst, difference)
    return {"compared": compared, "missing": missing, "worst_wh": worst, "equal": worst <= TOLERANCE_WH,
            "examples": examples}


def against_table(market: Market, points: Mapping[str, int], day_s: int) -> dict[str, int]:
    """Holds the settled energies of the paper's participants against the paper's figures: {"compared", "worst_wh"}.

    The simulators' days are these figures, exactly: no register's rounding can hide here."""
    compared = worst = 0
    for slot_s, slot in market.slots.items():
        hour = (slot_s - day_s) // HOUR_S % DAY_HOURS
        expected = {**table4.actual_wh(hour), table4.SELLER: table4.residual_wh(hour)}
        found = {energy.point: energy for energy in slot.energies}
        for name, point in points.items():
            energy = found[point]
            value = energy.export_wh if name == table4.SELLER else energy.import_wh
            worst = max(worst, abs((value or 0) - expected[name]))
            compared += 1
    return {"compared": compared, "worst_wh": worst}


def qualities(market: Market) -> dict[str, int]:
    """How many slot energies carry each mark of VEE."""
    found: dict[str, int] = {}
    for slot in market.slots.values():
        for energy in slot.energies:
            name = records.QUALITY_NAMES[energy.quality]
            found[name] = found.get(name, 0) + 1
    return found


def _queue(hour: int) -> dict[str, int]:
    """The bids from high to low take what is left of the microgrid's residual."""
    left = table4.residual_wh(hour)
    volumes, result = table4.expected_wh(hour), {}
    for name, _ in sorted(table4.printed_mc(hour).items(), key=lambda item: -item[1]):
        result[name] = min(volumes[name], left)
        left -= result[name]
    return result


def _offers(reader: Reader) -> Iterator[tuple[bytes, int, int]]:
    """(sender, slot, price) of every accepted buy order and reveal in the blocks."""
    for height in range(1, reader.height() + 1):
        whole = reader.whole("trade", height)
        if whole is None:
            continue
        for leaf, code in zip(whole.leaves, whole.results, strict=True):
            if code:
                continue
            try:
                payload = cose.parse(leaf).payload
                if not transaction.is_transaction(cbor.decode(payload)):
                    continue
                found = transaction.decode(payload)
                if found.type == trading.ORDER:
                    order = trading.decode_order_body(found.body)
                    if order.side == 0:
                        yield found.sender, order.slot_s, order.price
                elif found.type == trading.REVEAL:
                    reveal = trading.decode_reveal_body(found.body)
                    yield found.sender, reveal.slot_s, reveal.price
            except Refused:
                continue
