"""`gridseal market correct`, also as `meter correct`: makes a correction of one point's energy in one slot.

Before a slot is final the energy given is settled in place of the measured one; after it, the slot is settled again and
the differences are entered. Nothing that stands on chain is edited. The evidence is any file; its SHA-256 goes there,
zeros without one.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path

from deploy import enroll, places
from deploy.clock import open_clock
from deploy.operator import Person
from firmware.wire import transaction
from gateway.contracts.settlement import REASON_LENGTH
from gateway.market import records
from gateway.market.amounts import ENERGY_WH

QUALITIES = records.QUALITY_NAMES[:3]
NO_EVIDENCE = bytes(32)


def add_parser(actions: argparse._SubParsersAction[argparse.ArgumentParser], group: str = "meter") -> None:
    """Adds `correct` to the words of a group: it is about a meter's reading and about a market's slot."""
    parser = actions.add_parser(
        "correct", help="another energy for a point in a slot that is over (operator or dispatcher)",
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"example: gridseal {group} correct 7 --slot 2026-10-25T01:00Z --import 412 --reason 'read on site' "
        "--evidence photo.jpg --area-folder area")
    parser.add_argument("point", type=int, help="the metering point's number")
    parser.add_argument("--slot", type=places.slot_s, required=True, metavar="TIME",
                        help="its start: 2026-10-25T01:00Z, or Unix seconds")
    parser.add_argument("--import", dest="import_wh", type=_energy_wh, metavar="WH",
                        help="what it imported (default: stays)")
    parser.add_argument("--export", dest="export_wh", type=_energy_wh, metavar="WH",
                        help="what it exported (default: stays)")
    parser.add_argument("--missing", action="store_true", help="instead: nobody knows (before final: takes a "
                        "correction back)")
    parser.add_argument("--quality", choices=QUALITIES, default=QUALITIES[2],
                        help="how it is known (default substituted)")
    parser.add_argument("--reason", required=True, help="stands in the entries of all it concerns")
    parser.add_argument("--evidence", type=Path, metavar="FILE", help="what proves it")
    who = parser.add_mutually_exclusive_group(required=True)
    who.add_argument("--area-folder", type=Path, metavar="DIR", help="made by gateway init: the operator sends it")
    who.add_argument("--person", type=Path, metavar="FOLDER", help="the dispatcher whose folder this is sends it")
    places.add_usual(parser)
    parser.set_defaults(run=_run)


def _energy_wh(text: str) -> int:
    if not text.isdecimal() or int(text) > ENERGY_WH:
        raise argparse.ArgumentTypeError(f"Wh of one slot, 0 to {ENERGY_WH}, not {text!r}")
    return int(text)


def _run(args: argparse.Namespace) -> int:
    is_given = args.import_wh is not None or args.export_wh is not None
    if is_given is args.missing:
        raise ValueError("--import WH and/or --export WH, or --missing alone")
    if not 0 < len(args.reason) <= REASON_LENGTH:
        raise ValueError(f"--reason: one to {REASON_LENGTH} characters, not {len(args.reason)}")
    quality = records.MISSING if args.missing else QUALITIES.index(args.quality)
    evidence = hashlib.sha256(args.evidence.read_bytes()).digest() if args.evidence else NO_EVIDENCE
    body = [args.point, args.slot, args.import_wh, args.export_wh, quality, args.reason, evidence]
    transaction.decode_correction_body(body)
    if args.area_folder:
        person, area = Person(args.area_folder), enroll.area_name(args.area_folder)
        brokers = enroll.area_brokers(args.area_folder)
    else:
        person = Person.open(args.person)
        area, brokers = person.area, person.brokers
    length_s = person.genesis.parameters["slot_s"]
    if args.slot % length_s:
        raise ValueError(f"a slot begins at a multiple of {length_s} s, {args.slot} does not")
    outcome = person.submit(area, person.sign(transaction.CORRECTION, body, open_clock(args.clock)), brokers)
    if args.json:
        print(json.dumps({"point": args.point, "slot": args.slot, "height": outcome.height, "code": outcome.code,
                          "result": outcome.reason, "evidence": evidence.hex() if args.evidence else None}))
    else:
        is_good = outcome.code == 0
        print(f"point {args.point}, slot {places.moment(args.slot)}: "
              f"{'corrected' if is_good else 'refused: ' + outcome.reason} (block {outcome.height})",
              file=sys.stdout if is_good else sys.stderr)
    return 0 if outcome.code == 0 else 1
