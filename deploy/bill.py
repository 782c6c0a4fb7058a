"""`gridseal bill export`: writes an account's bill over a month, a day or any slots, with its evidence, to one file.

`gridseal verify bill` checks such a file anywhere, with nothing but the genesis; its format is docs/BILL.md.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import re
from pathlib import Path

from deploy import places
from deploy.places import moment, money
from firmware.crypto.openssl import verify_digest
from firmware.wire.errors import Refused
from gateway.ledger.bills import export_bill, settled_slots
from gateway.ledger.reader import Reader
from gateway.market import billing, records, rules
from gateway.market.billing import Report

DAY_S = 86_400
LINES = 60  # of a printed bill's entries; --all prints every one
_PERIOD = re.compile(r"(\d{4})-(\d{2})(?:-(\d{2}))?")


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("bill", help="export an account's bill with its proofs", description=__doc__)
    actions = parser.add_subparsers(dest="action", required=True)
    export = actions.add_parser("export", help="write the file of one account and period", epilog="example: gridseal "
                                "bill export may.bill --area-folder area --account anna --period 2026-05")
    export.add_argument("file", type=Path, help="where to write it")
    places.add_ledger(export)
    export.add_argument("--account", required=True, metavar="KID|FOLDER", help="whose bill: 16 hex digits, or the "
                        "folder with that person's key")
    add_period(export)
    export.add_argument("--json", action="store_true", help="one JSON object instead of text")
    export.set_defaults(run=_export)


def add_period(parser: argparse.ArgumentParser) -> None:
    """Adds the options that `period_of` reads."""
    parser.add_argument("--period", metavar="YYYY-MM[-DD]", help="a month or a day of the tariff's local time "
                        "(default: everything that is settled)")
    parser.add_argument("--from", type=int, dest="first_s", metavar="UNIX_S", help="instead: the first slot's start")
    parser.add_argument("--to", type=int, dest="end_s", metavar="UNIX_S", help="... and the last one's end")


def _export(args: argparse.Namespace) -> int:
    account = places.kid_of(args.account)
    with contextlib.closing(places.open_ledger(args)) as reader:
        settled = settled_slots(reader)
        first_s, end_s = period_of(reader, args, settled)
        if end_s > settled[1]:
            raise Refused("not_included", f"slots before {moment(settled[1])}, which are settled", moment(end_s))
        data = export_bill(reader, account, max(first_s, settled[0]), end_s)
        genesis = reader.genesis
    report = billing.check_bill(data, genesis, verify_digest)  # nobody gets a file that does not hold
    args.file.write_bytes(data)
    values = {"file": str(args.file), "bytes": len(data), **report_values(report)}
    print(json.dumps(values) if args.json else f"{args.file}: {len(data)} bytes, {money(report.total_mc)} from "
          f"{moment(report.first_s)} to {moment(report.end_s)}; check it anywhere: gridseal verify bill {args.file} "
          "--trust GENESIS")
    return 0


def report_values(report: Report) -> dict[str, object]:
    """What a bill proves, for JSON."""
    qualities = [records.QUALITY_NAMES[one] for one in report.qualities.values()]
    return {
        "account": report.account.hex(), "from_s": report.first_s, "to_s": report.end_s, "total_mc": report.total_mc,
        "balance_before_mc": report.before.balance_mc, "balance_after_mc": report.after.balance_mc,
        "lines": len(report.entries), "points": report.points,
        "by_kind_mc": {name: sum(entry.amount_mc for entry in report.entries if entry.kind == kind)
                       for kind, name in enumerate(records.ENTRY_NAMES)
                       if any(entry.kind == kind for entry in report.entries)},
        "energies": {name: qualities.count(name) for name in sorted(set(qualities))}, "doubts": report.doubts,
        "height": report.height, "signers": report.signers, "members": report.members,
        "witnesses": {"k": report.witnesses, "n": report.light_nodes}, "speed": report.speed}


def report_lines(report: Report, genesis_hash: bytes, is_all: bool = False) -> list[str]:
    """What a bill proves, as the page that a person reads."""
    lines = [f"good: bill of account {report.account.hex()}, {moment(report.first_s)} to {moment(report.end_s)}",
             f"points {', '.join(map(str, report.points)) or 'none'}", ""]
    for entry in report.entries[:len(report.entries) if is_all else LINES]:
        lines.append(_entry_line(entry))
    if len(report.entries) > LINES and not is_all:
        lines.append(f"  ... and {len(report.entries) - LINES} more (--all)")
    lines += ["", f"{len(report.entries)} lines, every one computed again from signed register readings",
              f"balance before  {money(report.before.balance_mc):>18}",
              f"sum of lines    {money(report.total_mc):>18}",
              f"balance after   {money(report.after.balance_mc):>18}",
              f"credit as buyer {_credit(report.after.buyer_sum, report.after.buyer_count)}, "
              f"as seller {_credit(report.after.seller_sum, report.after.seller_count)}"]
    lines += [f"doubt: {text}" for text in report.doubts]
    lines += [f"under block {report.height}, signed by {report.signers} of {report.members} replicas, "
              f"co-signed by {report.witnesses} of {report.light_nodes} light nodes",
              f"genesis {genesis_hash.hex()}"]
    if report.members == 1:
        lines.append("one signer: tamper-evident, not Byzantine")
    if report.speed != 1:
        lines.append(f"a demo chain: its clock ran {report.speed} times faster than time")
    return lines


def _entry_line(entry: records.EntryRecord) -> str:
    at = moment(entry.time_s if entry.slot_s is None else entry.slot_s)
    text = f"  {entry.number:>6}  {at}  {records.ENTRY_NAMES[entry.kind]:<10}"
    if entry.kind == records.TRADE:
        text += (f" {_kwh(entry.used_wh)} used, {_kwh(entry.generated_wh)} generated, {_kwh(entry.matched_wh)} at "
                 f"{money(entry.price or 0)}")
    elif entry.kind == records.SUPPLY:
        text += f" {_kwh(entry.used_wh)} bought, {_kwh(entry.generated_wh)} sold"
    if entry.reference:
        text += f" ({entry.reference})"
    return f"{text:<96} {money(entry.amount_mc):>16}"


def _kwh(energy_wh: int | None) -> str:
    return "?" if energy_wh is None else f"{energy_wh / 1000:.3f} kWh"


def _credit(total: int, count: int) -> str:
    return "none yet" if not count else f"{total // count / 1000:.3f}"


def period_of(reader: Reader, args: argparse.Namespace, settled: tuple[int, int]) -> tuple[int, int]:
    """The (first, end) that the options name, of which `settled` are; ValueError for one that is none."""
    if args.period is None:
        return (settled[0] if args.first_s is None else args.first_s,
                settled[1] if args.end_s is None else args.end_s)
    found = _PERIOD.fullmatch(args.period)
    if found is None or args.first_s is not None or args.end_s is not None:
        raise ValueError("--period: a month (2026-05) or a day (2026-05-17), and then neither --from nor --to")
    year, month, day = int(found[1]), int(found[2]), int(found[3] or 1)
    first = datetime.datetime(year, month, day, tzinfo=datetime.UTC)
    end = (first + datetime.timedelta(days=1) if found[3] else
           first.replace(year=year + month // 12, month=month % 12 + 1))
    data = reader.state_value(records.rules_key("tariff"))
    assert data is not None, "a market has a tariff"
    tariff = rules.read("tariff", records.decode_rules(data)[-1].parameters)
    return _utc(tariff, first), _utc(tariff, end)


def _utc(tariff: rules.Tariff, local: datetime.datetime) -> int:
    """The instant at which the tariff's local clock shows a time (the first of two in autumn)."""
    shown = int(local.timestamp())
    instants = [shown - offset for _, offset in tariff.zone if rules.offset_s(tariff, shown - offset) == offset]
    return min(instants, default=shown - rules.offset_s(tariff, shown))
