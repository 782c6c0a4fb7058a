"""`gridseal market report`: what an area's operator should look at in a period, from a replica's ledger, read only.

Wash trades: owners that sell round and keep nothing. Concentration: the largest share of each slot's energy. Feeders,
where named: a transformer's meter against the sum of its members', by day, and whose pattern explains the rest best.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import re
from collections import Counter
from typing import Any

from deploy import bill, places
from firmware.wire import cbor
from gateway.contracts import rulesets
from gateway.ledger.bills import settled_slots
from gateway.ledger.reader import Reader
from gateway.market import records, rules, surveillance
from gateway.market.surveillance import IMPORT, Feeder

LINES = 10  # of each list, without --all
_FEEDER = re.compile(r"([0-9]{1,10}):([0-9]{1,10}(?:,[0-9]{1,10})*)\Z")


def add_parser(kinds: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `report` to the words of `gridseal market`."""
    parser = kinds.add_parser("report", help="wash trades, concentration, feeder balances of a period",
                              description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
                              epilog="example: gridseal market report --area-folder area --period 2026-06 --feeder "
                              "21:1,2,3,4")
    places.add_ledger(parser)
    bill.add_period(parser)
    parser.add_argument("--feeder", type=_feeder, action="append", default=[], metavar="POINT:POINT,...",
                        help="a transformer's point and those behind it; may be repeated")
    parser.add_argument("--tolerance", type=int, default=surveillance.TOLERANCE, metavar="THOUSANDTHS",
                        help="a ring: each keeps at most so much of what goes round "
                        f"(default {surveillance.TOLERANCE})")
    parser.add_argument("--all", action="store_true", help=f"every ring and slot, not the first {LINES}")
    places.add_usual(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prints the report; 0, whatever is in it."""
    with contextlib.closing(places.open_ledger(args)) as reader, reader.reading():
        values = report_values(reader, args)
    print(json.dumps(values) if args.json else "\n".join(_lines(values, None if args.all else LINES)))
    return 0


def report_values(reader: Reader, args: argparse.Namespace) -> dict[str, Any]:
    """The report of the settled slots of the period; ValueError where there is none, or for a feeder that is none."""
    settled, length_s = settled_slots(reader), reader.parameters["slot_s"]
    first_s, end_s = bill.period_of(reader, args, settled)
    first_s, end_s = max(-(-first_s // length_s) * length_s, settled[0]), min(end_s, settled[1])
    if first_s >= end_s:
        raise ValueError(f"settled are the slots from {places.moment(settled[0])} to {places.moment(settled[1])}: none "
                         "of this period")
    registered = cbor.decode(reader.state_value(records.POINTS_KEY) or b"\x80")
    for feeder in args.feeder:
        for point in (feeder.point, *feeder.members):
            if point not in registered:
                raise ValueError(f"feeder {feeder.point}: no point {point} is registered")
    version = rulesets.in_force(places.View(reader), "tariff", reader.height() + 1)
    assert version is not None, "a market has a tariff"
    tariff: rules.Tariff = rulesets.read("tariff", version)
    return surveillance.report(reader.state_value, first_s, end_s, length_s, args.feeder, args.tolerance,
                               lambda time_s: rules.offset_s(tariff, time_s))


def _feeder(text: str) -> Feeder:
    found = _FEEDER.match(text)
    points = [] if found is None else [int(found[1]), *map(int, found[2].split(","))]
    if len(points) < 2 or len(set(points)) != len(points):
        raise argparse.ArgumentTypeError(f"the transformer's point, then each member once, as 21:1,2,3, not {text!r}")
    return Feeder(points[0], tuple(points[1:]))


def _lines(values: dict[str, Any], most: int | None) -> list[str]:
    lines = [f"{places.moment(values['first_s'])} to {places.moment(values['end_s'])}: "
             f"{values['slots']} settled slots, {values['trades']} trades, {_kwh(values['wh'])}"]
    return lines + _ring_lines(values["rings"], most) + _share_lines(values["concentration"], most) + _feeder_lines(
        values["feeders"])


def _ring_lines(rings: list[dict[str, Any]], most: int | None) -> list[str]:
    lines = [f"wash trades: {len(rings) or 'no'} ring{'' if len(rings) == 1 else 's'} of owners that sell round"]
    for ring in rings[:most]:
        round_trip = " -> ".join(f"{owner} {_kwh(wh)}" for owner, wh in zip(ring["owners"], ring["flows"], strict=True))
        lines.append(f"  {round_trip} -> {ring['owners'][0]}  {ring['trades']} trades, "
                     f"{_percent(ring['share'])} of all they traded")
    return lines + _more(rings, most)


def _share_lines(found: dict[str, Any], most: int | None) -> list[str]:
    if found["period"] is None:
        return ["concentration: nothing was traded"]
    lines = ["concentration: largest seller and buyer"]
    slots = sorted(found["slots"], key=lambda row: (-max(row["seller_share"], row["buyer_share"]), row["slot_s"]))
    for row in [found["period"], *slots[:most]]:
        when = "whole period" if row["slot_s"] is None else places.moment(row["slot_s"])
        lines.append(f"  {when:<17}  {_kwh(row['wh']):>16}  {row['seller']} {_percent(row['seller_share']):>7}  "
                     f"{row['buyer']} {_percent(row['buyer_share']):>7}")
    return lines + _more(slots, most)


def _feeder_lines(days: list[dict[str, Any]]) -> list[str]:
    lines: list[str] = []
    for feeder in dict.fromkeys(day["feeder"] for day in days):
        mine = [day for day in days if day["feeder"] == feeder]
        lines.append(f"feeder {feeder}: supplied, members' sum, deviation")
        lines += [_day_line(day) for day in mine]
        named = Counter((day["best"]["point"], day["best"]["direction"]) for day in mine
                        if day["best"] and day["best"]["is_named"])
        lines += [f"  point {point} ({direction}): named on {count} of {len(mine)} days"
                  for (point, direction), count in named.most_common()]
    return lines


def _day_line(day: dict[str, Any]) -> str:
    missing = f" ({day['left_out']} left out)" if day["left_out"] else ""
    share = _percent(1000 * day["deviation_wh"] // day["supplied_wh"]) if day["supplied_wh"] else "-"
    date = datetime.datetime.fromtimestamp(day["day_s"], datetime.UTC).date()
    text = (f"  {date}  {day['slots']} slots{missing}  {_kwh(day['supplied_wh'])}  {_kwh(day['members_wh'])}  "
            f"{_kwh(day['deviation_wh'])} ({share})")
    best = day["best"]
    if best is None:
        return text
    too = "little" if (best["share"] > 0) is (best["direction"] == IMPORT) else "much"
    if best["is_named"]:
        return (f"{text}  POINT {best['point']} reports {_percent(abs(best['share']))} too {too} {best['direction']} "
                f"(explains {_percent(best['explained'])})")
    return f"{text}  nobody's pattern explains it (best: point {best['point']}, {_percent(best['explained'])})"


def _more(rows: list[Any], most: int | None) -> list[str]:
    return [f"  ... and {len(rows) - most} more (--all)"] if most is not None and len(rows) > most else []


def _kwh(energy_wh: int) -> str:
    return f"{energy_wh / 1000:,.3f} kWh"


def _percent(thousandths: int) -> str:
    return f"{thousandths / 10:.1f} %"
