"""`gridseal meter correct`: makes a correction of one point's energy in one slot, with its reason and its evidence.

Before a slot is final the energy given is settled in place of the measured one; after it, the slot is settled again and
the differences are entered. Nothing that stands on chain is edited. The evidence is any file; its SHA-256 goes there.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

from deploy import enroll, places
from deploy.clock import open_clock
from deploy.operator import Person
from firmware.wire import transaction
from gateway.market import records

QUALITIES = records.QUALITY_NAMES[:3]


def add_parser(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = actions.add_parser(
        "correct", help="another energy for a point in a slot that is over (operator or dispatcher)",
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example: gridseal meter correct 7 --slot 2026-10-25T01:00Z --import 412 --reason 'read on site' "
        "--evidence photo.jpg --area-folder area")
    parser.add_argument("point", type=int, help="the metering point's number")
    parser.add_argument("--slot", type=places.slot_s, required=True, metavar="TIME",
                        help="its start: 2026-10-25T01:00Z, or Unix seconds")
    parser.add_argument("--import", dest="import_wh", type=int, metavar="WH", help="what it imported (default: stays)")
    parser.add_argument("--export", dest="export_wh", type=int, metavar="WH", help="what it exported (default: stays)")
    parser.add_argument("--missing", action="store_true", help="instead: nobody knows (before final: takes a "
                        "correction back)")
    parser.add_argument("--quality", choices=QUALITIES, default=QUALITIES[2],
                        help="how it is known (default substituted)")
    parser.add_argument("--reason", required=True, help="stands in the entries of all it concerns")
    parser.add_argument("--evidence", type=Path, required=True, metavar="FILE", help="what proves it")
    who = parser.add_mutually_exclusive_group(required=True)
    who.add_argument("--area-folder", type=Path, metavar="DIR", help="made by gateway init: the operator sends it")
    who.add_argument("--person", type=Path, metavar="FOLDER", help="the dispatcher whose folder this is sends it")
    places.add_usual(parser)
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    is_given = args.import_wh is not None or args.export_wh is not None
    if is_given is args.missing:
        raise ValueError("--import WH and/or --export WH, or --missing alone")
    quality = records.MISSING if args.missing else QUALITIES.index(args.quality)
    evidence = hashlib.sha256(args.evidence.read_bytes()).digest()
    body = [args.point, args.slot, args.import_wh, args.export_wh, quality, args.reason, evidence]
    transaction.decode_correction_body(body)
    if args.area_folder:
        person, area = Person(args.area_folder), enroll.area_name(args.area_folder)
        brokers = enroll.area_brokers(args.area_folder)
    else:
        person = Person.open(args.person)
        area, brokers = person.area, person.brokers
    outcome = person.submit(area, person.sign(transaction.CORRECTION, body, open_clock(args.clock)), brokers)
    if args.json:
        print(json.dumps({"point": args.point, "slot": args.slot, "height": outcome.height, "code": outcome.code,
                          "result": outcome.reason, "evidence": evidence.hex()}))
    else:
        print(f"point {args.point}, slot {places.moment(args.slot)}: "
              f"{'corrected' if outcome.code == 0 else 'refused: ' + outcome.reason} (block {outcome.height})")
    return 0 if outcome.code == 0 else 1
