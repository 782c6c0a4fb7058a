"""`gridseal market show`: a slot's book, clearing, trades and settlement, from a replica's ledger."""

from __future__ import annotations

import argparse
import contextlib
import json
from typing import Any

from deploy import places
from firmware.wire.errors import REASONS
from firmware.wire.trading import FLOWS, SCALES, SIDES
from gateway.contracts import accounts, bids, orders, rulesets
from gateway.ledger.reader import Reader
from gateway.market import records, rules

STATES = ("not yet", "provisional", "final")
_MOVED = (records.TRADE, records.SUPPLY, records.BALANCE, records.FORFEIT, records.CORRECTION)


def add_parser(kinds: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `show` to the words of `gridseal market`."""
    show = kinds.add_parser("show", help="a slot's book, clearing, trades, settlement", epilog="example: gridseal "
                            "market show --slot 2026-06-20T08:00Z --area-folder area")
    show.add_argument("--slot", type=places.slot_s, metavar="TIME", help="its start (default: the next to be cleared)")
    places.add_ledger(show)
    places.add_usual(show)
    show.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prints the slot; 1 when the market has not begun."""
    with contextlib.closing(places.open_ledger(args)) as reader, reader.reading():
        values = slot_values(reader, args.slot)
    print(json.dumps(values) if args.json else "\n".join(_lines(values)))
    return 0 if values["calendar"] else 1


def slot_values(reader: Reader, slot_s: int | None) -> dict[str, Any]:
    """Everything that the present state says of a slot."""
    state, length_s = places.View(reader), reader.parameters["slot_s"]
    data = reader.state_value(records.CALENDAR_KEY)
    market = rulesets.in_force(state, "market", reader.height() + 1)
    if data is None or market is None:
        return {"calendar": None, "slot_s": slot_s}
    calendar = records.decode_calendar(data)
    slot_s = calendar.clear_s if slot_s is None else slot_s
    if slot_s % length_s:
        raise ValueError(f"a slot begins at a multiple of {length_s} s, {slot_s} does not")
    found = reader.state_value(records.clearing_key(slot_s))
    clearing = None if found is None else records.decode_clearing(found)
    ruled: rules.Market = rulesets.read("market", market)
    return {
        "calendar": calendar._asdict(), "slot_s": slot_s, "mechanism": ruled.mechanism,
        "gate_s": slot_s - ruled.gate_s, "book": _book(state, slot_s),
        "clearing": None if clearing is None else _clearing(state, clearing),
        "settlement": _settlement(reader, slot_s)}


def _book(state: places.View, slot_s: int) -> dict[str, Any]:
    opened, sealed = [], []
    for shard in range(records.SHARDS):
        opened += orders.orders_at(state, records.orders_key(slot_s, shard))
        sealed += bids.bids_at(state, records.bids_key(slot_s, shard))
    opened.sort(key=lambda one: (one.scale, one.flow, one.form, one.side, one.price))
    return {"orders": [{"id": one.id.hex(), "owner": one.owner.hex(), "point": one.point, "side": SIDES[one.side],
                        "scale": SCALES[one.scale], "flow": FLOWS[one.flow], "form": one.form, "price": one.price,
                        "wh": one.wh} for one in opened],
            "bids": [{"id": one.id.hex(), "owner": one.owner.hex(), "point": one.point,
                      "revealed": one.nonce is not None, "price": one.price, "wh": one.wh} for one in sealed]}


def _clearing(state: places.View, record: records.ClearingRecord) -> dict[str, Any]:
    mechanism = None
    kept = {one.version: one for one in rulesets.versions(state, "market")}
    if record.market_version in kept:
        mechanism = rulesets.read("market", kept[record.market_version]).mechanism
    return {"height": record.height, "time_s": record.time_s, "mechanism": mechanism, "beacon": record.beacon.hex(),
            "versions": {name: getattr(record, name + "_version") for name in rules.NAMES},
            "books": [{**one._asdict(), "scale": SCALES[one.scale], "flow": FLOWS[one.flow],
                       "refused": [[order.hex(), REASONS[reason]] for order, reason in one.refused]}
                      for one in record.books],
            "trades": [{name: value.hex() if isinstance(value, bytes) else value
                        for name, value in one._asdict().items()} for one in record.trades]}


def _settlement(reader: Reader, slot_s: int) -> dict[str, Any]:
    data = reader.state_value(records.slot_key(slot_s))
    slot = None if data is None else records.decode_slot(data)
    rows = []
    for _, value in reader.state_with(records.account_key(b"")):
        account = records.decode_account(value)
        for number in range(account.entries, 0, -1):
            entry = records.decode_entry(reader.state_value(records.entry_key(account.address, number)) or b"")
            if entry.time_s < slot_s - rules.OPEN_MAX_S:  # nothing of a slot before it opens
                break
            if entry.slot_s == slot_s and entry.kind in _MOVED:
                rows.append({**entry._asdict(), "kind": records.ENTRY_NAMES[entry.kind],
                             "account": account.address.hex()})
    rows.sort(key=lambda row: (row["height"], row["account"], row["number"]))
    grid = accounts.grid(places.View(reader))
    return {"state": STATES[slot.status if slot else 0], "height": slot.height if slot else None,
            "energies": [{**one._asdict(), "quality": records.QUALITY_NAMES[one.quality]}
                         for one in (slot.energies if slot else ())],
            "entries": rows, "sum_mc": sum(row["amount_mc"] for row in rows), "grid": grid.hex() if grid else None}


def _lines(values: dict[str, Any]) -> list[str]:
    if not values["calendar"]:
        return ["the market has not begun: it needs a grid account and all four rule sets (gridseal rules publish)"]
    lines = [f"slot {places.moment(values['slot_s'])}"]
    clearing, book = values["clearing"], values["book"]
    if clearing is None:
        lines.append(f"open: {values['mechanism']}, gate at {places.moment(values['gate_s'])}, {len(book['orders'])} "
                     f"orders, {len(book['bids'])} sealed bids")
    lines += [f"  {one['side']:<4} {one['wh']:>9} Wh at {places.money(one['price'])}  point {one['point']} of "
              f"{one['owner']}  {one['scale']} {one['flow']} form {one['form']}  {one['id'][:16]}"
              for one in book["orders"]]
    lines += ["  bid  " + (f"{one['wh']:>9} Wh at {places.money(one['price'])}" if one["revealed"] else "sealed")
              + f"  point {one['point']} of {one['owner']}  {one['id'][:16]}" for one in book["bids"]]
    if clearing is not None:
        lines += _clearing_lines(clearing) + _settlement_lines(values["settlement"])
    return lines


def _clearing_lines(clearing: dict[str, Any]) -> list[str]:
    lines = [f"cleared by {clearing['mechanism'] or 'rules no longer kept'} in block {clearing['height']}, rules "
             + ", ".join(f"{name} {version}" for name, version in clearing["versions"].items())]
    for one in clearing["books"]:
        price = "each at its own price" if one["price"] is None else f"at {places.money(one['price'])}"
        reference = "" if one["reference_price"] is None else f", reference {places.money(one['reference_price'])}"
        refused = "".join(f"; {order[:16]} {reason}" for order, reason in one["refused"])
        lines.append(f"  book {one['scale']} {one['flow']} form {one['form']}: {one['orders']} orders, {one['wh']} Wh "
                     f"{price}{reference}{refused}")
    return lines + [f"  trade {one['number']}: point {one['seller_point']} to point {one['buyer_point']}, {one['wh']} "
                    f"Wh at {places.money(one['price'])}" for one in clearing["trades"]]


def _settlement_lines(settlement: dict[str, Any]) -> list[str]:
    lines = [f"settlement: {settlement['state']}"
             + (f" in block {settlement['height']}" if settlement["height"] is not None else "")]
    for one in settlement["energies"]:
        lines.append(f"  point {one['point']}: import {one['import_wh']}, export {one['export_wh']} Wh "
                     f"({one['quality']})")
    for one in settlement["entries"]:
        name = f" {one['trade']}" if one["trade"] is not None else ""
        who = " (grid)" if one["account"] == settlement["grid"] else ""
        lines.append(f"  {one['account']}{who} {one['kind']}{name}: {places.money(one['amount_mc'])}")
    if settlement["entries"]:
        lines.append(f"  sum {places.money(settlement['sum_mc'])}")
    return lines
