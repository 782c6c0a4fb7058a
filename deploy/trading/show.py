"""`gridseal market show`: a slot's orders and bids, clearing, trades and settlement, from a replica's ledger.

The same views as the page's and the API's, and besides every open order with its id, as the ledger has it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from typing import Any

from deploy import places
from firmware.wire.trading import FLOWS, SCALES, SIDES
from gateway.contracts import bids, orders
from gateway.ledger.reader import Reader
from gateway.market import records, views


def add_parser(kinds: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `show` to the words of `gridseal market`."""
    show = kinds.add_parser("show", help="a slot's book, clearing, trades, settlement", epilog="example: gridseal "
                            "market show --slot 2026-06-20T08:00Z --area-folder area")
    show.add_argument("--slot", type=places.slot_s, metavar="TIME", help="its start (default: the next to be cleared)")
    places.add_ledger(show)
    places.add_usual(show)
    show.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prints the slot; 1 when the market has not begun, or knows nothing of it."""
    with contextlib.closing(places.open_ledger(args)) as reader, reader.reading():
        values = slot_values(reader, args.slot)
    if values is None:
        print(f"gridseal market: nothing is known of {places.moment(args.slot)}: before the market, too far ahead or "
              "forgotten", file=sys.stderr)
        return 1
    print(json.dumps(values) if args.json else "\n".join(_lines(values)))
    return 0 if values["is_running"] else 1


def slot_values(reader: Reader, slot_s: int | None) -> dict[str, Any] | None:
    """What the present state says of a slot (views.market), its settlement, and its book; None where it says nothing.
    ValueError for a time at which no slot begins."""
    height, length_s = reader.height(), reader.parameters["slot_s"]
    if slot_s is not None and slot_s % length_s:
        raise ValueError(f"a slot begins at a multiple of {length_s} s, {slot_s} does not")
    found = views.market(reader.state_value, height, length_s, slot_s)
    if found is None:
        return None
    if slot_s is None:
        slot_s = found["open"]["slot_s"] if found["open"] else 0
        found["cleared"] = None  # of the slot before
    stored = [data for _, data in reader.state_with(records.account_key(b""))]
    settled = views.settlement(reader.state_value, height, length_s, stored, slot_s) if found["cleared"] else None
    return {"slot_s": slot_s, **found, "settlement": settled, "book": _book(reader, slot_s)}


def _book(reader: Reader, slot_s: int) -> dict[str, Any]:
    state, opened, sealed = places.View(reader), [], []
    for shard in range(records.SHARDS):
        opened += orders.orders_at(state, records.orders_key(slot_s, shard))
        sealed += bids.bids_at(state, records.bids_key(slot_s, shard))
    opened.sort(key=lambda one: (one.scale, one.flow, one.form, one.side, one.price, one.id))
    return {"orders": [{"id": one.id.hex(), "owner": one.owner.hex(), "point": one.point, "side": SIDES[one.side],
                        "scale": SCALES[one.scale], "flow": FLOWS[one.flow], "form": one.form, "price": one.price,
                        "wh": one.wh} for one in opened],
            "bids": [{"id": one.id.hex(), "owner": one.owner.hex(), "point": one.point,
                      "revealed": one.nonce is not None, "price": one.price, "wh": one.wh} for one in sealed]}


def _lines(values: dict[str, Any]) -> list[str]:
    if not values["is_running"]:
        return ["the market has not begun: it needs a grid account and all four rule sets (gridseal rules publish)"]
    lines, opened, book = [f"slot {places.moment(values['slot_s'])}"], values["open"], values["book"]
    if opened:
        lines.append(f"open: {values['mechanism']}, gate at {places.moment(opened['gate_s'])}, {opened['orders']} "
                     f"orders, {opened['commits']} sealed bids of which {opened['reveals']} are revealed")
    lines += [f"  {one['side']:<4} {one['wh']:>9} Wh at {places.money(one['price'])}  point {one['point']} of "
              f"{one['owner']}  {one['scale']} {one['flow']} form {one['form']}  {one['id']}"
              for one in book["orders"]]
    lines += ["  bid  " + (f"{one['wh']:>9} Wh at {places.money(one['price'])}" if one["revealed"] else "sealed")
              + f"  point {one['point']} of {one['owner']}  {one['id']}" for one in book["bids"]]
    if values["cleared"]:
        lines += _cleared_lines(values["cleared"]) + _settlement_lines(values["settlement"])
    return lines


def _cleared_lines(cleared: dict[str, Any]) -> list[str]:
    lines = [f"cleared by {cleared['mechanism'] or 'rules no longer kept'} in block {cleared['height']}, rules "
             + ", ".join(f"{name} {version}" for name, version in cleared["rules"].items())]
    for one in cleared["books"]:
        price = "each at its own price" if one["price"] is None else f"at {places.money(one['price'])}"
        reference = "" if one["reference_price"] is None else f", reference {places.money(one['reference_price'])}"
        refused = "".join(f"; {row['order'][:16]} {row['reason']}" for row in one["refused"])
        lines.append(f"  book {one['scale']} {one['flow']} form {one['form']}: {one['orders']} orders, {one['wh']} Wh "
                     f"{price}{reference}{refused}")
    return lines + [f"  trade {one['number']}: point {one['seller_point']} to point {one['buyer_point']}, {one['wh']} "
                    f"Wh at {places.money(one['price'])}" for one in cleared["trades"]]


def _settlement_lines(settled: dict[str, Any] | None) -> list[str]:
    if settled is None:
        return ["not settled yet"]
    lines = [f"settlement: {settled['status']} in block {settled['height']}"]
    for one in settled["trades"]:
        if one["matched_wh"] is not None:
            lines.append(f"  trade {one['number']}: used {one['used_wh']}, generated {one['generated_wh']}, matched "
                         f"{one['matched_wh']} Wh; buyer {_money(one['buyer_mc'])}, seller {_money(one['seller_mc'])}")
    for one in settled["points"]:
        lines.append(f"  point {one['point']} of {one['account']}: import {one['import_wh']}, export "
                     f"{one['export_wh']} Wh ({one['quality']}), {_money(one['amount_mc'])}")
    if settled["grid"]:
        lines.append(f"  grid {settled['grid']['account']}: {_money(settled['grid']['amount_mc'])}")
    lines += [f"  corrected: point {one['point']} by {_money(one['amount_mc'])} ({one['reason']})"
              for one in settled["corrections"]]
    return [*lines, f"  sum {_money(settled['sum_mc'])}"] if settled["sum_mc"] is not None else lines


def _money(amount_mc: int | None) -> str:
    return "not known" if amount_mc is None else places.money(amount_mc)
