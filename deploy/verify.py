"""`gridseal verify`: checks a proof, seal, header or bill offline, against the genesis alone; says what it proves.

Exit 0 good, 1 bad (with the reason), 2 unreadable. No network, no other file, no configuration.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from pathlib import Path

from deploy import bill
from firmware.crypto.openssl import verify_digest
from firmware.wire import certificate, genesis, headerfile, proof, witness
from firmware.wire.errors import Refused
from firmware.wire.headerfile import Counted
from gateway.market import bill as bill_codec
from gateway.market import billing

# by kind of file; a larger one is something else
FILE_BYTES = {"proof": proof.PROOF_BYTES, "seal": proof.PROOF_BYTES, "header": headerfile.FILE_BYTES,
              "bill": bill_codec.BILL_BYTES}
MARKS = ("clock not synchronised", "clock implausible", "register fell", "register jumped", "late",
         "firmware not certified", "heights lost before it")
SHOWN = 8  # kids in one line
UNREADABLE = ("malformed", "oversize", "too_deep", "unreadable")


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("verify", help="check a proof, a seal, a header or a bill, offline",
                                 description=__doc__)
    kinds = parser.add_subparsers(dest="kind", required=True)
    for kind, purpose in (("proof", "one reading, down to its bytes"), ("seal", "one seal in its block"),
                          ("header", "one block header, its certificate, and who co-signed it"),
                          ("bill", "an account's bill, from register readings to the total")):
        one = kinds.add_parser(kind, help=purpose,
                               epilog=f"example: gridseal verify {kind} FILE --trust genesis.cbor")
        one.add_argument("file", type=Path)
        one.add_argument("--trust", type=Path, required=True, metavar="GENESIS", help="the genesis file you trust")
        one.add_argument("--witnesses", type=int, default=0, metavar="K",
                         help="demand that at least K light nodes have co-signed the block's header")
        if kind == "bill":
            one.add_argument("--all", action="store_true", help="print every line")
        one.add_argument("--json", action="store_true", help="one JSON object instead of text")
        one.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Checks one file; returns the exit code."""
    try:
        genesis_bytes = read_bounded(args.trust, genesis.GENESIS_BYTES)
        genesis.decode(genesis_bytes)
        data = read_bounded(args.file, FILE_BYTES[args.kind])
    except OSError as error:
        return _say(args, 2, {"reason": "unreadable"}, f"unreadable: {error}")
    except Refused as error:
        return _say(args, 2, {"reason": "unreadable"}, f"unreadable: {error}")
    try:
        values, lines = _check(args, data, genesis_bytes)
    except Refused as error:
        code = 2 if error.reason in UNREADABLE else 1
        return _say(args, code, {"reason": error.reason}, f"{'unreadable' if code == 2 else 'BAD'}: {error}")
    return _say(args, 0, values, "\n".join(lines))


def _check(args: argparse.Namespace, data: bytes, genesis_bytes: bytes) -> tuple[dict[str, object], list[str]]:
    kind, needed = args.kind, args.witnesses
    if kind == "header":
        return _check_header(data, genesis_bytes, needed)
    if kind == "bill":
        return _check_bill(data, genesis_bytes, needed, args.all)
    wanted = proof.OF_READING if kind == "proof" else proof.OF_SEAL
    found = proof.decode(data).name
    if found != wanted:
        raise Refused("wrong_version", wanted, found)
    report = proof.check_proof(data, genesis_bytes, verify_digest)
    values, lines = _witness_facts(report.counted, needed)
    return {**_report_values(report), **values}, _report_lines(report) + lines


def _check_header(data: bytes, genesis_bytes: bytes, needed: int) -> tuple[dict[str, object], list[str]]:
    """A header file, or a header message as it was on the broker, which proves no witness."""
    if _is_message(data):
        top, voted = headerfile.check_message(data, genesis_bytes, verify_digest)
        members, speed, counted = len(genesis.decode(genesis_bytes).members), genesis.decode(genesis_bytes).speed, None
    else:
        report = headerfile.check_file(data, genesis_bytes, verify_digest)
        top, voted, counted = report.top, report.certificate, report.counted
        members, speed = len(report.members), report.speed
    values, lines = _witness_facts(counted, needed)
    signers = len(voted.signers)
    return ({"height": top.height, "time_s": top.time_s, "signers": signers, **values},
            ["good: a certified header", *_trust_lines(top.height, top.time_s, signers, members, speed), *lines])


def _check_bill(data: bytes, genesis_bytes: bytes, needed: int, is_all: bool) -> tuple[dict[str, object], list[str]]:
    found = billing.check_bill(data, genesis_bytes, verify_digest)
    if found.witnesses < needed:
        raise Refused("too_few_signers", f"{needed} light nodes", found.witnesses)
    return bill.report_values(found), bill.report_lines(found, genesis.chain_id(genesis_bytes), is_all)


def _is_message(data: bytes) -> bool:
    try:
        witness.decode_header_message(data)
    except Refused:
        return False
    return True


def _witness_facts(counted: Counted | None, needed: int) -> tuple[dict[str, object], list[str]]:
    """What light nodes have co-signed, for JSON and for people; Refused `too_few_signers` when that is not enough."""
    k = 0 if counted is None else len(counted.kids)
    if k < needed:
        raise Refused("too_few_signers", f"{needed} light nodes", k)
    if counted is None:
        return {"witnesses": None}, []
    names = [kid.hex() for kid in counted.kids]
    return ({"witnesses": {"k": k, "n": counted.n, "area": counted.area, "kids": names}},
            [f"{k} of {counted.n} light nodes co-signed" + (f": {', '.join(names)}" if 0 < k <= SHOWN else "")])


def _report_values(report: proof.Report) -> dict[str, object]:
    values: dict[str, object] = {
        "kid": report.seal.kid.hex(), "point": report.seal.point, "seal_height": report.seal.height,
        "height": report.height, "time_s": report.time_s, "signers": report.signers, "members": report.members,
        "marks": mark_names(report.marks), "key_protection": report.agent.key_protection, "speed": report.speed}
    if report.reading is not None:
        values["time_ms"] = report.reading.time_ms
        values["values"] = {entry.name: entry.value for entry in report.reading.entries}
    return values


def _report_lines(report: proof.Report) -> list[str]:
    fields = report.seal
    lines = [f"good: point {fields.point}, agent {fields.kid.hex()} (key protection: {report.agent.key_protection})"]
    if report.reading is not None:
        lines.append(f"read at {time_text(report.reading.time_ms)}")
        for entry in report.reading.entries:
            shown = f"missing ({entry.missing})" if entry.missing else f"{entry.value} {entry.unit or ''}".rstrip()
            lines.append(f"  {entry.name:<12} {shown}")
    lines.append(f"under seal {fields.height} of {fields.count} readings, "
                 f"{time_text(fields.first_ms)} to {time_text(fields.last_ms)}")
    if report.marks:
        lines.append("marked: " + ", ".join(mark_names(report.marks)))
    return lines + _trust_lines(report.height, report.time_s, report.signers, report.members, report.speed)


def _trust_lines(height: int, time_s: int, signers: int, members: int, speed: int) -> list[str]:
    lines = [f"in block {height} of {time_text(time_s * 1000)}, signed by {signers} of {members} replicas "
             f"(quorum {certificate.quorum(members)})"]
    if members == 1:
        lines.append("one signer: tamper-evident, not Byzantine")
    if speed != 1:
        lines.append(f"a demo chain: its clock ran {speed} times faster than time")
    return lines


def mark_names(marks: int) -> list[str]:
    """Returns the names of the mark bits of a result code (code - 256)."""
    return [name for bit, name in enumerate(MARKS) if marks >> bit & 1]


def time_text(milliseconds: int) -> str:
    """RFC 3339 in UTC with milliseconds."""
    seconds, rest = divmod(milliseconds, 1000)
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{rest:03d}Z"


def read_bounded(path: Path, limit: int) -> bytes:
    """A file's bytes; Refused `oversize` for more than any file of that kind has."""
    with open(path, "rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise Refused("oversize", limit, "more")
    return data


def _say(args: argparse.Namespace, code: int, values: dict[str, object], text: str) -> int:
    if args.json:
        print(json.dumps({"verdict": ("good", "bad", "unreadable")[code], **values}))
    else:
        print(text, file=sys.stderr if code else sys.stdout)
    return code
