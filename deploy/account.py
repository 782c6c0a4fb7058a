"""`gridseal account`: money into an account, out of it, aside as a deposit; leaving; and what an account holds.

The ledger's money is bookkeeping: a top-up's reference names what happened outside, at the grid's bank. The account's
owner and the area's grid each sign the same words; the second signature puts them in force. With both folders at hand
both are sent, else each side types its own.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from pathlib import Path
from typing import Any

from deploy import places
from deploy.clock import open_clock
from deploy.operator import Person
from firmware.wire import trading
from gateway.contracts import orders
from gateway.ledger.reader import Reader
from gateway.market import records, views

SIDES = ("owner", "grid")
ENTRIES = 20  # the newest of an account, without --all
_KINDS = {"top-up": (trading.TOP_UP, "money comes in"), "withdraw": (trading.WITHDRAW, "money goes out"),
          "deposit": (trading.DEPOSIT, "a part of the balance is set aside for good")}
_LEAVING = ("Open orders of the points are cancelled. When the last point has left and all slots until then are final, "
            "the deposit is free. Meters, supply and debts stay; the operator's enroll approve brings a point back.")


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("account", help="top-up, withdraw, deposit, leave, show", description=__doc__)
    actions = parser.add_subparsers(dest="action", required=True)
    for word, (_, purpose) in _KINDS.items():
        reference = "" if word == "deposit" else " --reference transfer-17"
        one = actions.add_parser(word, help=purpose, epilog=f"example: gridseal account {word} anna 1500 "
                                 f"--grid retailer{reference}")
        one.add_argument("account", metavar="FOLDER|KID", help="the owner's folder (it signs), or 16 hex digits")
        one.add_argument("amount", type=places.amount_mc, help="currency units, as 1500 or 12.50")
        one.add_argument("--grid", metavar="FOLDER", help="the grid's folder (it signs)")
        one.add_argument("--as", dest="side", choices=SIDES, help="only this side signs, the other one elsewhere")
        if word != "deposit":
            one.add_argument("--reference", required=True, help="what happened outside; both sides write the same")
        places.add_usual(one)
        one.set_defaults(run=_change)
    leave = actions.add_parser("leave", help="leave the market, with all points or with one", description=_LEAVING,
                               epilog="example: gridseal account leave anna --point 7")
    leave.add_argument("folder", type=Path, help="the owner's (it signs)")
    leave.add_argument("--point", type=int, help="only this one (default: all, the account with them)")
    places.add_usual(leave)
    leave.set_defaults(run=_leave)
    show = actions.add_parser("show", help="balance, credit, entries", epilog="example: gridseal account show anna "
                              "--area-folder area --json")
    show.add_argument("account", nargs="?", metavar="FOLDER|KID", help="one account (default: a line for each)")
    show.add_argument("--all", action="store_true", help=f"every entry, not the newest {ENTRIES}")
    places.add_ledger(show)
    places.add_usual(show)
    show.set_defaults(run=_show)


def _change(args: argparse.Namespace) -> int:
    kind, _ = _KINDS[args.action]
    account = places.kid_of(args.account)
    body = (trading.deposit_body(account, args.amount) if args.action == "deposit"
            else trading.money_body(account, args.amount, args.reference))
    signers = _signers(args)
    done: list[dict[str, Any]] = []
    for side, person in signers:
        outcome = person.submit(person.area, person.sign(kind, body, open_clock(args.clock)), person.brokers)
        done.append({"side": side, "kid": person.kid.hex(), "height": outcome.height, "code": outcome.code,
                     "result": outcome.reason})
        if outcome.code and (outcome.reason != "duplicate" or side == signers[-1][0]):
            break  # a duplicate: this side has signed before, now the other one
    is_known = len(done) == 2 or signers[0][1].kid == account and signers[0][1].role == "grid"
    return _tell_change(args, account, done, True if is_known else None)


def _signers(args: argparse.Namespace) -> list[tuple[str, Person]]:
    """Who signs here, by side; ValueError when nobody can."""
    owner = places.person_in(args.account) if args.side != "grid" else None
    grid = Person.open(args.grid) if args.grid and args.side != "owner" else None
    if owner is not None and grid is not None and owner.kid == grid.kid:
        grid = None  # the grid's own account: one signature is both
    found = [(side, person) for side, person in zip(SIDES, (owner, grid), strict=True) if person is not None]
    if not found:
        raise ValueError("nobody to sign: name the owner's folder instead of its kid, or --grid FOLDER")
    return found


def _tell_change(args: argparse.Namespace, account: bytes, done: list[dict[str, Any]],
                 is_whole: bool | None) -> int:
    """is_whole: None where one side's signature does not tell whether it was the first or the second."""
    is_good = done[-1]["code"] == 0
    words = f"{args.action} of {places.money(args.amount)} on {account.hex()}"
    if args.json:
        print(json.dumps({"account": account.hex(), "kind": args.action, "amount_mc": args.amount, "signed": done,
                          "in_force": is_whole if is_good else False}))
    elif not is_good:
        last = done[-1]
        print(f"{words}: {last['side']} refused: {last['result']} (block {last['height']})", file=sys.stderr)
    elif is_whole:
        print(f"{words}: in force (block {done[-1]['height']})")
    else:
        other = SIDES[1 - SIDES.index(done[-1]["side"])]
        print(f"{words}: signed as {done[-1]['side']} (block {done[-1]['height']}); in force when the {other} signs "
              "the same, or was it the second")
    return 0 if is_good else 1


def _leave(args: argparse.Namespace) -> int:
    person = Person.open(args.folder)
    with_all = args.point is None
    body = trading.leave_body(person.kid if with_all else args.point)
    trading.decode_leave_body(body)
    outcome = person.submit(person.area, person.sign(trading.LEAVE, body, open_clock(args.clock)), person.brokers)
    is_good = outcome.code == 0
    if args.json:
        print(json.dumps({"account": person.kid.hex(), "point": args.point, "height": outcome.height,
                          "code": outcome.code, "result": outcome.reason}))
    else:
        who = f"account {person.kid.hex()}" if with_all else f"point {args.point}"
        print(f"{who}: {'has left the market' if is_good else 'refused: ' + outcome.reason} (block {outcome.height})",
              file=sys.stdout if is_good else sys.stderr)
    return 0 if is_good else 1


def _show(args: argparse.Namespace) -> int:
    with contextlib.closing(places.open_ledger(args)) as reader, reader.reading():
        if args.account is None:
            return _show_all(args, reader)
        kid = places.kid_of(args.account)
        stored = reader.state_value(records.account_key(kid))
        if stored is None:
            print(f"no account {kid.hex()} yet: its first top-up makes it", file=sys.stderr)
            return 1
        (account,) = views.accounts(reader.state_value, reader.height(), [stored])["accounts"]
        first = 1 if args.all else max(1, account["entries"] - ENTRIES + 1)
        entries = [_entry(reader, kid, number) for number in range(first, account["entries"] + 1)]
        opened = orders.open_orders(places.View(reader), kid)
    if args.json:
        lines = [{**entry._asdict(), "kind": records.ENTRY_NAMES[entry.kind]} for entry in entries]
        print(json.dumps({**account, "lines": lines,
                          "open": [{**one._asdict(), "id": one.id.hex()} for one in opened]}))
        return 0
    print("\n".join(_lines(account)))
    if account["deposit_free_s"] is not None:
        print(f"left the market: the deposit is free when all slots before {places.moment(account['deposit_free_s'])} "
              "are final")
    for one in opened:
        print(f"open    {places.moment(one.slot_s)} {trading.SIDES[one.side]:<4} point {one.point}  {one.id.hex()}")
    if account["entries"] > len(entries):
        print(f"... {account['entries'] - len(entries)} older entries (--all)")
    for entry in entries:
        print(_entry_line(entry))
    return 0


def _show_all(args: argparse.Namespace, reader: Reader) -> int:
    stored = [data for _, data in reader.state_with(records.account_key(b""))]
    found = views.accounts(reader.state_value, reader.height(), stored)
    if args.json:
        print(json.dumps(found))
        return 0
    for one in found["accounts"]:
        print(f"{one['address']}  {one['role'] or '':<11} balance {places.money(one['balance_mc']):>16}  available "
              f"{places.money(one['available_mc']):>16}  entries {one['entries']}")
    print(f"sum {places.money(found['sum_mc'])}, minted {places.money(found['minted_mc'])}"
          if found["accounts"] else "no account yet")
    return 0


def _entry(reader: Reader, kid: bytes, number: int) -> records.EntryRecord:
    data = reader.state_value(records.entry_key(kid, number))
    assert data is not None, "entries are numbered without a gap"
    return records.decode_entry(data)


def _lines(account: dict[str, Any]) -> list[str]:
    rows = [f"{name:<10} {places.money(account[name + '_mc']):>18}"
            for name in ("balance", "deposit", "held", "available", "spent", "earned")]
    credits = [f"{side} {mean / 1000:.3f} ({account['scores'][side]} scores)"
               for side, mean in account["credit"].items() if mean is not None]
    return [f"account {account['address']}, {account['role'] or 'not enrolled'}, points "
            + (", ".join(map(str, account["points"])) or "none"), *rows, "credit     " + ", ".join(credits)]


def _entry_line(entry: records.EntryRecord) -> str:
    at = entry.time_s if entry.slot_s is None else entry.slot_s
    reference = f"  ({entry.reference})" if entry.reference else ""
    return (f"{entry.number:>6}  {places.moment(at)}  {records.ENTRY_NAMES[entry.kind]:<10} "
            f"{places.money(entry.amount_mc):>18}{reference}")
