"""`gridseal market`: orders and bids by hand, the trader, and a block's clearings computed again from a ledger.

recompute: exit 0 the same byte for byte, 1 not (with the difference), 2 unreadable: no ledger, no such block.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import sys
from pathlib import Path

from deploy import meter_correct, places, poca
from deploy.trading import report, show, trade, wishes
from firmware.wire.reasons import REASONS
from firmware.wire.trading import FLOWS, SCALES
from gateway.ledger import recompute
from gateway.ledger.damage import Damaged
from gateway.ledger.reader import Reader
from gateway.ledger.recompute import Recomputed
from gateway.market.records import BookResult, ClearingRecord, TradeRecord

GOOD, BAD, UNREADABLE = 0, 1, 2


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("market", help="the area's market", description=__doc__)
    kinds = parser.add_subparsers(dest="kind", required=True)
    wishes.add_parsers(kinds)
    trade.add_parser(kinds)
    show.add_parser(kinds)
    meter_correct.add_parser(kinds, "market")
    report.add_parser(kinds)
    poca.add_parser(kinds)
    one = kinds.add_parser("recompute", help="a block's clearings again, from the state before it",
                           epilog="example: gridseal market recompute 120 --data area/r0/data")
    one.add_argument("height", type=int, help="of the block that cleared")
    one.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="a replica's data folder")
    places.add_usual(one)
    one.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Computes one block's clearings; returns the exit code."""
    try:
        with contextlib.closing(Reader.open(args.data)) as reader:
            found = recompute.clearings_of(reader, args.height)
    except (FileNotFoundError, ValueError) as error:
        return _say(args, UNREADABLE, f"unreadable: {error}", [])
    except Damaged as error:
        return _say(args, BAD, f"BAD: {error}", [])
    if not found:
        return _say(args, GOOD, f"block {args.height} cleared no slot", [])
    is_good = all(one.is_equal for one in found)
    slots = f"{len(found)} slot{'s' if len(found) > 1 else ''} of block {args.height}"
    return _say(args, GOOD if is_good else BAD,
                f"good: {slots}, recomputed byte for byte" if is_good else f"BAD: {slots}, not what the ledger says",
                found)


def _say(args: argparse.Namespace, code: int, text: str, found: list[Recomputed]) -> int:
    if args.json:
        print(json.dumps({"verdict": ("good", "bad", "unreadable")[code], "text": text,
                          "slots": [_slot_values(one) for one in found]}))
        return code
    print(text, file=sys.stdout if code == GOOD else sys.stderr)
    for one in found:
        print("\n".join(_slot_lines(one)))
    return code


def _slot_values(one: Recomputed) -> dict[str, object]:
    record = one.record
    return {"slot_s": record.slot_s, "is_equal": one.is_equal, "beacon": record.beacon.hex(),
            "books": [{**book._asdict(), "refused": [[order.hex(), REASONS[reason]] for order, reason in book.refused]}
                      for book in record.books],
            "trades": [{name: value.hex() if isinstance(value, bytes) else value
                        for name, value in trade._asdict().items()} for trade in record.trades]}


def _slot_lines(one: Recomputed) -> list[str]:
    record = one.record
    lines = [f"slot {_utc(record.slot_s)}: {'the same' if one.is_equal else 'NOT THE SAME'}, cleared at "
             f"{_utc(record.time_s)} in block {record.height}, {_rules(record)}"]
    lines += ["  " + _book_line(book) for book in record.books]
    lines += ["  " + _trade_line(trade) for trade in record.trades]
    return lines


def _rules(record: ClearingRecord) -> str:
    return (f"rules: market {record.market_version}, tariff {record.tariff_version}, vee {record.vee_version}, "
            f"credit {record.credit_version}")


def _book_line(book: BookResult) -> str:
    price = "each at its own price" if book.price is None else f"at {book.price} mc/kWh"
    reference = "" if book.reference_price is None else f", reference {book.reference_price}"
    refused = "".join(f"; {order.hex()[:16]} {REASONS[reason]}" for order, reason in book.refused)
    return (f"book {SCALES[book.scale]} {FLOWS[book.flow]} form {book.form}: {book.orders} orders, "
            f"{book.wh} Wh {price}{reference}{refused}")


def _trade_line(trade: TradeRecord) -> str:
    return (f"trade {trade.number}: point {trade.seller_point} to point {trade.buyer_point}, {trade.wh} Wh at "
            f"{trade.price} mc/kWh")


def _utc(time_s: int) -> str:
    return datetime.datetime.fromtimestamp(time_s, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
