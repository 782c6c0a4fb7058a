"""`gridseal market order|cancel|commit|reveal`: one participant's wish for one slot, by hand.

A commit's price, energy and nonce are kept in the participant's folder until the reveal, readable by its owner only.
"""

from __future__ import annotations

import argparse
import json
import secrets
import sys
from pathlib import Path
from typing import Any

from deploy import places
from deploy.clock import open_clock
from deploy.operator import Outcome, Person
from deploy.trading.notes import Note, Notes, Step
from deploy.trading.trader import order_id
from firmware.wire import trading
from firmware.wire.trading import FLOWS, SCALES, SIDES
from gateway.market import commitment


def add_parsers(kinds: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the four words to those of `gridseal market`."""
    order = kinds.add_parser("order", help="an open order for a slot", epilog="example: gridseal market order anna "
                             "--slot 2026-06-20T08:00Z --side buy --wh 4000 --price 0.45 --point 7")
    order.add_argument("--side", choices=SIDES, required=True)
    order.add_argument("--point", type=int, required=True, help="the metering point, one of its own")
    order.add_argument("--scale", choices=SCALES, default=SCALES[0], help="(default day-ahead)")
    order.add_argument("--flow", choices=FLOWS, default=FLOWS[0], help="G makes, U uses, C is the grid (default GU)")
    order.add_argument("--form", type=int, default=0, help="energy form, 0 to 255 (default 0)")
    order.set_defaults(run=_order)
    cancel = kinds.add_parser("cancel", help="take an open order back", epilog="example: gridseal market cancel anna "
                              + "0f1e2d3c" * 8)
    cancel.set_defaults(run=_cancel)
    commit = kinds.add_parser("commit", help="a sealed bid to buy (under blind)", epilog="example: gridseal market "
                              "commit anna --slot 2026-06-20T08:00Z --wh 4000 --price 0.45")
    commit.set_defaults(run=_commit)
    reveal = kinds.add_parser("reveal", help="open the sealed bid", epilog="example: gridseal market reveal anna "
                              "--slot 2026-06-20T08:00Z")
    reveal.set_defaults(run=_reveal)
    for word in (order, cancel, commit, reveal):
        word.add_argument("folder", type=Path, help="the participant's, made by enroll request --role participant")
        if word is cancel:
            word.add_argument("id", help="64 hexadecimal digits, as order printed them")
        else:
            word.add_argument("--slot", type=places.slot_s, required=True, metavar="TIME",
                              help="its start: 2026-06-20T08:00Z, or Unix seconds")
        if word in (order, commit):
            word.add_argument("--wh", type=int, required=True, help="energy, Wh")
            word.add_argument("--price", type=places.amount_mc, required=True, help="currency units per kWh, as 0.45")
        places.add_usual(word)


def _order(args: argparse.Namespace) -> int:
    body = trading.order_body(trading.Order(args.slot, SCALES.index(args.scale), SIDES.index(args.side),
                                            FLOWS.index(args.flow), args.form, args.price, args.wh, args.point))
    trading.decode_order_body(body)
    person, message = _signed(args, trading.ORDER, body)
    return _tell(args, _send(person, message), {"slot_s": args.slot, "id": order_id(message)},
                 f"order {order_id(message)}")


def _cancel(args: argparse.Namespace) -> int:
    try:
        wanted = bytes.fromhex(args.id)
    except ValueError:
        wanted = b""
    if len(wanted) != 32:
        raise ValueError(f"an order is the 64 hexadecimal digits that order printed, not {args.id!r}")
    person, message = _signed(args, trading.CANCEL, trading.cancel_body(wanted))
    return _tell(args, _send(person, message), {"id": args.id}, f"order {args.id} cancelled")


def _commit(args: argparse.Namespace) -> int:
    person = Person.open(args.folder)
    notes = Notes(person.home)
    with notes.alone():
        return _commit_alone(args, person, notes)


def _commit_alone(args: argparse.Namespace, person: Person, notes: Notes) -> int:
    note = notes.find(args.slot)
    if note is not None and "commit" in note.steps and note.steps["commit"].code in (None, 0):
        step = note.steps["commit"]  # the same again: its receipt may be all that is missing
        if (note.wh, note.price_mc) != (args.wh, args.price):
            raise ValueError(f"for {places.moment(args.slot)} there is a bid already: {note.wh} Wh at "
                             f"{places.money(note.price_mc)}")
    else:
        note = Note(args.slot, "buy", args.wh, args.price, secrets.token_bytes(trading.NONCE_BYTES))
        sealed = commitment.commitment(person.chain_id, person.kid, args.slot, args.price, args.wh, note.nonce or b"")
        step = Step(person.sign(trading.COMMIT, trading.commit_body(args.slot, sealed), open_clock(args.clock)))
    return _send_noted(args, person, notes, note, "commit", step, "sealed bid")


def _reveal(args: argparse.Namespace) -> int:
    person = Person.open(args.folder)
    notes = Notes(person.home)
    with notes.alone():
        return _reveal_alone(args, person, notes)


def _reveal_alone(args: argparse.Namespace, person: Person, notes: Notes) -> int:
    note = notes.find(args.slot)
    if note is None or note.nonce is None:
        raise ValueError(f"{notes.folder} knows no sealed bid for {places.moment(args.slot)}")
    step = note.steps.get("reveal")
    if step is None or step.code not in (None, 0):
        body = trading.reveal_body(args.slot, note.price_mc, note.wh, note.nonce)
        step = Step(person.sign(trading.REVEAL, body, open_clock(args.clock)))
    return _send_noted(args, person, notes, note, "reveal", step, "revealed bid")


def _send_noted(args: argparse.Namespace, person: Person, notes: Notes, note: Note, name: str, step: Step,
                what: str) -> int:
    """The message is on disk before it leaves, and its outcome after."""
    note.steps[name] = step
    notes.keep(note)
    outcome = _send(person, step.message)
    step.height, step.code = outcome
    notes.keep(note)
    first = note.steps["commit"].message if "commit" in note.steps else step.message
    return _tell(args, outcome, {"slot_s": note.slot_s, "id": order_id(first)}, f"{what} {order_id(first)}")


def _signed(args: argparse.Namespace, kind: int, body: list[Any]) -> tuple[Person, bytes]:
    person = Person.open(args.folder)
    return person, person.sign(kind, body, open_clock(args.clock))


def _send(person: Person, message: bytes) -> Outcome:
    return person.submit(person.area, message, person.brokers)


def _tell(args: argparse.Namespace, outcome: Outcome, values: dict[str, Any], good: str) -> int:
    if args.json:
        print(json.dumps({**values, "height": outcome.height, "code": outcome.code, "result": outcome.reason}))
    elif outcome.code == 0:
        print(f"{good} (block {outcome.height})")
    else:
        print(f"refused: {outcome.reason} (block {outcome.height})", file=sys.stderr)
    return 0 if outcome.code == 0 else 1
