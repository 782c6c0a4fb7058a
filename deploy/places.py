"""Makes what several commands ask for from their arguments: a replica's ledger, a kid, an amount, a price, a slot."""

from __future__ import annotations

import argparse
import datetime
import re
from pathlib import Path

from deploy.operator import Person
from firmware.crypto.openssl import OpenSSLSigner
from firmware.wire import identity
from gateway.ledger.reader import Reader

UNIT_MC = 100_000  # of one currency unit
_MONEY = re.compile(r"([0-9]{1,10})(?:\.([0-9]{1,5}))?\Z")


class View:
    """The state of a ledger that is only looked at, as the contracts ask for it."""

    def __init__(self, reader: Reader) -> None:
        self.get = reader.state_value

    def put(self, key: bytes, value: bytes) -> None:
        raise ValueError("a ledger that is looked at does not change")

    def delete(self, key: bytes) -> None:
        raise ValueError("a ledger that is looked at does not change")


def add_ledger(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """Adds the options that name a replica's ledger on this machine."""
    where = parser.add_mutually_exclusive_group(required=required)
    where.add_argument("--area-folder", type=Path, metavar="DIR", help="made by gateway init: read a replica in it")
    where.add_argument("--data", type=Path, metavar="FOLDER", help="... or this replica's data folder")
    parser.add_argument("--replica", type=int, default=0, help="whose ledger of the area's folder (default 0)")


def add_usual(parser: argparse.ArgumentParser) -> None:
    """Adds --json, and the demo's clock."""
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")
    parser.add_argument("--clock", help=argparse.SUPPRESS)


def open_ledger(args: argparse.Namespace) -> Reader:
    """The ledger that the options name; FileNotFoundError where there is none. Close it."""
    return Reader.open(args.data or args.area_folder / f"replica-{args.replica}" / "data")


def kid_of(text: str) -> bytes:
    """The kid that is written out, or that belongs to the key in a folder; ValueError."""
    if re.fullmatch(r"[0-9a-f]{16}", text):
        return bytes.fromhex(text)
    key = Path(text) / "signing.key"
    if not key.exists():
        raise ValueError(f"neither 16 hexadecimal digits nor a folder with signing.key: {text}")
    return identity.kid_of(OpenSSLSigner.load(key).public_key())


def person_in(text: str) -> Person | None:
    """The person whose folder this is, or None for a kid."""
    return None if re.fullmatch(r"[0-9a-f]{16}", text) else Person.open(Path(text))


def amount_mc(text: str) -> int:
    """Currency units ("1500", "0.38"), or a price of them per kWh, as mc; exact. For argparse."""
    found = _MONEY.match(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"currency units with at most five decimals, as 0.38, not {text!r}")
    return int(found[1]) * UNIT_MC + int((found[2] or "").ljust(5, "0"))


def slot_s(text: str) -> int:
    """A slot's start: Unix seconds, or UTC as 2026-06-20T08:00Z. For argparse."""
    if text.isdecimal():
        return int(text)
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"Unix seconds or a time as 2026-06-20T08:00Z, not {text!r}") from error
    return int(moment.replace(tzinfo=moment.tzinfo or datetime.UTC).timestamp())


def moment(time_s: int) -> str:
    """A time in UTC, for people and for `slot_s`."""
    return f"{datetime.datetime.fromtimestamp(time_s, datetime.UTC):%Y-%m-%dT%H:%MZ}"


def money(value_mc: int) -> str:
    """An amount or a price in currency units, exact."""
    sign = "-" if value_mc < 0 else ""
    return f"{sign}{abs(value_mc) // UNIT_MC:,}.{abs(value_mc) % UNIT_MC:05d}"
