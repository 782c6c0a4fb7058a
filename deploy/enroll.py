"""`gridseal enroll`: makes agents and people known to an area, from their own signed request to a transaction.

The key is made where it stays. A request is signed by it and names the TLS key and the role; approval is a transaction
of the operator plus the certificate for the broker. What was not approved is refused everywhere. A role other than
"agent" (a laboratory, a participant, the grid) gets a folder that `Person.open` reads.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import sys
from pathlib import Path

import cbor2

from deploy import certificates, places
from deploy.clock import open_clock
from deploy.meter_file import set_epoch
from deploy.operator import IDENTITY, Outcome, Person
from firmware import config, meters
from firmware.board import linux
from firmware.config import BadConfig
from firmware.crypto.openssl import OpenSSLSigner, verify_digest
from firmware.tables import Meter
from firmware.wire import genesis, identity, transaction
from firmware.wire.errors import Refused

REQUEST_BYTES = 16 * 1024
REQUESTED = tuple(role for role in transaction.ROLES if role not in ("operator", "recovery"))  # those: gateway init
PROTECTION = "software"  # a key in a file of a Pi or a board: verifiers print it
_METER = """# a meter agent of gridseal; `gridseal meter check {folder}` tells what it would do
area = "{area}"
genesis = "genesis.cbor"
data = "data"                 # journal and trusted header; must survive a power cut
brokers = {brokers}
interval_s = {interval}               # seconds between readings, aligned to the clock
seal_every_s = {interval}             # seconds of readings under one signature; 900 saves bandwidth
signing_key = "signing.key"
tls_cert = "tls.crt"
tls_key = "tls.key"
ca = "ca.crt"
"""
_BUS = """
[[bus]]
port = "{port}"               # a serial device, or tcp://host:502
{serial}
[[bus.meter]]
point = {point}
unit = {unit}
type = "{type}"
"""


_PERSON = """# somebody of a gridseal area, made by gridseal enroll request
role = "{role}"
area = "{area}"
brokers = {brokers}
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("enroll", help="devices and people: request, approve, revoke, list",
                                 description=__doc__)
    actions = parser.add_subparsers(dest="action", required=True)
    request = actions.add_parser("request", help="make a device's or person's keys and its signed request",
                                 epilog="examples: gridseal enroll request meter-1 --area-folder area --point 1 "
                                 "--port /dev/ttyUSB0 --type sdm120; gridseal enroll request lab --area-folder area "
                                 "--role laboratory")
    request.add_argument("folder", type=Path, help="the agent's or person's own folder; made here")
    request.add_argument("--role", choices=REQUESTED, default="agent", help="what it asks to be (default agent)")
    request.add_argument("--area-folder", type=Path, metavar="DIR", help="take genesis and brokers from this area")
    request.add_argument("--genesis", type=Path, help="the genesis file, where the area's folder is elsewhere")
    request.add_argument("--area", help="the area's name (with --genesis)")
    request.add_argument("--broker", action="append", default=[], help="mqtts://host:port (with --genesis)")
    request.add_argument("--model", default="agent", help="what the device is, for people")
    request.add_argument("--point", type=int, help="write a meter.toml for one meter: its metering point")
    request.add_argument("--port", default="/dev/ttyUSB0", help="... its bus: a serial device or tcp://host:port")
    request.add_argument("--type", default="sdm120", help="... its type")
    request.add_argument("--unit", type=int, default=1, help="... its Modbus unit")
    request.add_argument("--baud", type=int, help="... the bus' speed, where it is not the meter's default")
    request.add_argument("--interval", type=int, default=60, metavar="SECONDS", help="... between readings")
    request.set_defaults(run=_request)
    approve = actions.add_parser("approve", help="enrol a requested device or person (operator)",
                                 epilog="examples: gridseal enroll approve meter-1 --area-folder area --point 1; "
                                 "gridseal enroll approve lab --area-folder area --role laboratory")
    approve.add_argument("request", type=Path, help="the device's or person's folder, or its request.cbor")
    approve.add_argument("--role", choices=REQUESTED, default="agent",
                         help="what it is to be; a request that asks for another role is refused (default agent)")
    approve.add_argument("--owner", metavar="KID|FOLDER", help="whose points these are: a participant (default: the "
                         "operator)")
    approve.add_argument("--point", action="append", default=[], metavar="NUMBER[:RATIO]",
                         help="a metering point it serves, with its CT/VT ratio if it has one, as 7:200/5; repeat")
    approve.add_argument("--maker", default="", help="the meter's maker (default: by its type in the meter.toml)")
    approve.add_argument("--model", default="", help="the meter's model (default: by its type in the meter.toml)")
    approve.add_argument("--serial", default="", help="the meter's serial number")
    approve.add_argument("--note", default="")
    approve.set_defaults(run=_approve)
    replace = actions.add_parser(
        "replace", help="give a device's points to a new key (operator)",
        description="For a device that was lost or broken, and for one that has lost its journal: it cannot go on with "
        "its chain of seals, even with its old key. The new key takes over where the old one's seals end, so that no "
        "kWh is lost or counted twice.",
        epilog="example: gridseal enroll replace 8d3f0a1b2c4d5e6f meter-2 --area-folder area")
    replace.add_argument("kid", help="the old device: 16 hexadecimal digits")
    replace.add_argument("request", type=Path, help="the new device's folder, or its request.cbor")
    replace.set_defaults(run=_replace)
    revoke = actions.add_parser("revoke", help="refuse a device from now on (operator)",
                                epilog="example: gridseal enroll revoke 8d3f0a1b2c4d5e6f --area-folder area")
    revoke.add_argument("kid", help="16 hexadecimal digits")
    revoke.add_argument("--reason", default="")
    revoke.set_defaults(run=_revoke)
    listing = actions.add_parser("list", help="who is enrolled", epilog="example: gridseal enroll list "
                                 "--area-folder area --json")
    listing.set_defaults(run=_list)
    for action in (approve, replace, revoke, listing):
        action.add_argument("--area-folder", type=Path, required=True, metavar="DIR", help="made by gateway init")
    for action in (request, approve, replace, revoke, listing):
        action.add_argument("--clock", help=argparse.SUPPRESS)
        action.add_argument("--json", action="store_true", help="one JSON object instead of text")


def make_request(folder: Path, genesis_bytes: bytes, area: str, model: str, role: str = "agent") -> bytes:
    """Makes keys, request and genesis copy in `folder` (which may hold a meter.toml already); returns the kid.

    FileExistsError when there is a key already: it is never overwritten.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    signer = OpenSSLSigner.generate()
    signer.save(folder / "signing.key")
    kid = identity.kid_of(signer.public_key())
    tls_key = certificates.generate_key()
    certificates.write_secret(folder / "tls.key", certificates.key_pem(tls_key))
    asked = transaction.Enrolment(signer.public_key(), certificates.spki_hash(tls_key.public_key()), role, area,
                                  model, PROTECTION)
    message = transaction.encode_enrolment(asked, kid, genesis.chain_id(genesis_bytes), signer.sign_digest)
    request = cbor2.dumps([message, certificates.make_request(tls_key, kid.hex())])
    (folder / "request.cbor").write_bytes(request)
    (folder / "genesis.cbor").write_bytes(genesis_bytes)
    (folder / "data").mkdir(exist_ok=True)
    return kid


def make_person(folder: Path, genesis_bytes: bytes, area: str, role: str, brokers: list[str]) -> bytes:
    """Makes the folder of a person of that role, to be approved, and then opened by `Person.open`; returns the kid."""
    kid = make_request(folder, genesis_bytes, area, "person", role)
    (folder / IDENTITY).write_text(_PERSON.format(role=role, area=area, brokers=_quoted(brokers)))
    return kid


def approve_request(person: Person, request: bytes, points: list[transaction.PointEntry], note: str,
                    brokers: list[str], clock_folder: str | None = None, role: str = "agent",
                    owner: bytes | None = None) -> tuple[bytes, bytes, Outcome]:
    """Enrols a device or a person; returns its kid, its TLS certificate (PEM) and the chain's outcome.

    owner: the kid whose points they are; the operator's own without one. Refused when the request does not hold or
    asks for another role; NoAnswer when no gateway answers.
    """
    message, tls_key, kid, asked = read_request(person, request, role)
    body = transaction.enrol_body(message, owner or person.kid, points, note)
    signed = person.sign(transaction.ENROL, body, open_clock(clock_folder))
    outcome = person.submit(asked.area, signed, brokers)
    return kid, _certificate(person, tls_key, kid), outcome


def replace_request(person: Person, old_kid: bytes, request: bytes, brokers: list[str],
                    clock_folder: str | None = None) -> tuple[bytes, bytes, Outcome]:
    """Puts a new key in a device's place; returns what `approve_request` does."""
    message, tls_key, kid, asked = read_request(person, request, "agent")
    signed = person.sign(transaction.REPLACE_AGENT, [old_kid, message], open_clock(clock_folder))
    outcome = person.submit(asked.area, signed, brokers)
    return kid, _certificate(person, tls_key, kid), outcome


def read_request(person: Person, request: bytes, role: str
                 ) -> tuple[bytes, certificates.ec.EllipticCurvePublicKey, bytes, transaction.Enrolment]:
    """Returns (enrol COSE, TLS key, kid, Enrolment) of a request's bytes; Refused when it does not hold."""
    if len(request) > REQUEST_BYTES:
        raise Refused("oversize", REQUEST_BYTES, len(request))
    try:
        message, asked_certificate = cbor2.loads(request)
        tls_key = certificates.load_request(asked_certificate)
    except (cbor2.CBORDecodeError, ValueError, TypeError) as error:
        raise Refused("malformed", "a request of gridseal enroll request", str(error)) from error
    kid, asked = transaction.decode_enrolment(message, person.chain_id, verify_digest)
    if asked.tls_hash != certificates.spki_hash(tls_key):
        raise Refused("wrong_key", asked.tls_hash, certificates.spki_hash(tls_key))
    if asked.role != role:  # a person must say it: nobody becomes a laboratory by an inattentive approval
        raise Refused("not_permitted", role, asked.role)
    return message, tls_key, kid, asked


def _certificate(person: Person, tls_key: certificates.ec.EllipticCurvePublicKey, kid: bytes) -> bytes:
    return certificates.pem(certificates.issue(*certificates.load_ca(person.folder / "ca"), tls_key, kid.hex()))


def area_brokers(area_folder: Path) -> list[str]:
    """Returns the addresses of an area's brokers, as `gateway init` wrote them."""
    return [path.read_text().strip() for path in sorted(area_folder.glob("broker-*/address"))]


def area_name(area_folder: Path) -> str:
    """Returns the area's name from its first replica's configuration."""
    from gateway.config import load_gateway
    return load_gateway(area_folder / "replica-0").area


def _request(args: argparse.Namespace) -> int:
    if args.area_folder:
        source, area, brokers = args.area_folder / "genesis.cbor", area_name(args.area_folder), area_brokers(
            args.area_folder)
    elif args.genesis and args.area:
        source, area, brokers = args.genesis, args.area, args.broker
    else:
        print("gridseal enroll request: name the area: --area-folder DIR, or --genesis FILE --area NAME",
              file=sys.stderr)
        return 2
    genesis_bytes = source.read_bytes()
    genesis.decode(genesis_bytes)
    if args.role == "agent":
        kid = make_request(args.folder, genesis_bytes, area, args.model)
        option = f"--point {args.point or 'N'}"
    elif args.point is not None:
        raise ValueError(f"--point: an agent serves points, a {args.role} does not")
    else:
        kid = make_person(args.folder, genesis_bytes, area, args.role, brokers)
        option = f"--role {args.role}"
    if args.point is not None and not (args.folder / "meter.toml").exists():
        _write_meter(args, area, brokers)
    _say(args, {"kid": kid.hex(), "role": args.role, "request": str(args.folder / "request.cbor")},
         f"keys made; {'device' if args.role == 'agent' else args.role} {kid.hex()}\n"
         f"send {args.folder / 'request.cbor'} to the operator, who types:\n"
         f"  gridseal enroll approve {args.folder} --area-folder DIR {option}")
    return 0


def _write_meter(args: argparse.Namespace, area: str, brokers: list[str]) -> None:
    serial = f"baud = {args.baud}\n" if args.baud else ""
    text = _METER.format(folder=args.folder, area=area, brokers=_quoted(brokers), interval=args.interval)
    text += _BUS.format(port=args.port, serial=serial, point=args.point, unit=args.unit, type=args.type)
    (args.folder / "meter.toml").write_text(text)


def _quoted(brokers: list[str]) -> str:
    return "[" + ", ".join(f'"{url}"' for url in brokers) + "]"


def _approve(args: argparse.Namespace) -> int:
    path = args.request / "request.cbor" if args.request.is_dir() else args.request
    area = area_name(args.area_folder)
    tables = _tables_of(path.parent)
    points = [_point_entry(args, area, text, tables) for text in args.point]
    person = Person(args.area_folder)
    kid, leaf, outcome = approve_request(person, path.read_bytes(), points, args.note, area_brokers(args.area_folder),
                                         args.clock, args.role,
                                         places.kid_of(args.owner) if args.owner else None)
    if outcome.code == 0:
        _put_certificate(args, path.parent, leaf)
    return _tell(args, outcome, kid, "enrolled; certificate written to " + str(path.parent / "tls.crt"))


def _put_certificate(args: argparse.Namespace, folder: Path, leaf: bytes) -> None:
    (folder / "tls.crt").write_bytes(leaf)
    shutil.copy(args.area_folder / "ca" / "ca.crt", folder / "ca.crt")


def _replace(args: argparse.Namespace) -> int:
    path = args.request / "request.cbor" if args.request.is_dir() else args.request
    old_kid = _kid(args.kid, "a device")
    epochs = _epochs(args.area_folder, old_kid)
    kid, leaf, outcome = replace_request(Person(args.area_folder), old_kid, path.read_bytes(),
                                         area_brokers(args.area_folder), args.clock)
    if outcome.code == 0:
        _put_certificate(args, path.parent, leaf)
        _put_epochs(path.parent, epochs)
    return _tell(args, outcome, kid, f"has taken the place of {old_kid.hex()}; certificate written to "
                 f"{path.parent / 'tls.crt'}")


def _epochs(area_folder: Path, kid: bytes) -> dict[int, int]:
    """The meter epochs of a device's points; of none where this machine has no ledger."""
    from gateway.ledger.reader import Reader
    try:
        with contextlib.closing(Reader.open(area_folder / "replica-0" / "data")) as ledger:
            agent = ledger.agent(kid)
            found = [ledger.point(point) for point in agent.points] if agent is not None else []
    except OSError:
        return {}
    return {record.point: record.meter_epoch for record in found if record is not None}


def _put_epochs(folder: Path, epochs: dict[int, int]) -> None:
    """A new device begins with the meter that is on the point now, which need not be its first."""
    if not (folder / linux.CONFIG_NAME).exists():
        return
    for point in _tables_of(folder):
        if epochs.get(point, 1) != 1:
            set_epoch(folder / linux.CONFIG_NAME, point, epochs[point])


def _kid(text: str, what: str) -> bytes:
    try:
        kid = bytes.fromhex(text)
    except ValueError:
        kid = b""
    if len(kid) != 8:
        raise ValueError(f"{what} is 16 hexadecimal digits, not {text!r}")
    return kid


def _tables_of(folder: Path) -> dict[int, Meter]:
    """Returns the meter table of each point in the folder's meter.toml; none where there is no such file."""
    if not (folder / linux.CONFIG_NAME).exists():
        return {}
    try:
        settings, _ = linux.load_config(folder)
    except BadConfig as error:
        raise ValueError(str(error)) from error
    return {place.point: place.meter for place in config.places(settings)}


def _point_entry(args: argparse.Namespace, area: str, text: str,
                 tables: dict[int, Meter]) -> transaction.PointEntry:
    number, _, ratio = text.partition(":")
    numerator, _, denominator = (ratio or "1/1").partition("/")
    try:
        point, over, under = int(number), int(numerator), int(denominator or 1)
    except ValueError as error:
        raise ValueError(f"--point: expected a number, or one with a ratio as 7:200/5, not {text!r}") from error
    table = tables.get(point)
    known = (meters.map_hash(table), table.maker, table.model) if table else (bytes(32), "", "")
    return transaction.PointEntry(point, area, "trade", over, under, known[0], args.maker or known[1],
                                  args.model or known[2], args.serial, None, None)


def _revoke(args: argparse.Namespace) -> int:
    person = Person(args.area_folder)
    kid = _kid(args.kid, "a device")
    signed = person.sign(transaction.REVOKE, [kid, args.reason], open_clock(args.clock))
    outcome = person.submit(area_name(args.area_folder), signed, area_brokers(args.area_folder))
    return _tell(args, outcome, kid, "revoked")


def _list(args: argparse.Namespace) -> int:
    from gateway.ledger.reader import Reader
    rows = []
    with contextlib.closing(Reader.open(args.area_folder / "replica-0" / "data")) as ledger:
        for kid, agent in ledger.agents():
            rows.append({"kid": bytes(kid).hex(), "role": agent.role, "area": agent.area, "points": agent.points,
                         "key_protection": agent.key_protection, "enrolled_height": agent.enrolled_height,
                         "revoked_height": agent.revoked_height})
    lines = [f"{row['kid']}  {row['role']:<10} points {row['points']}  "
             + (f"revoked at {row['revoked_height']}" if row["revoked_height"] is not None else "enrolled")
             for row in rows]
    _say(args, {"enrolled": rows}, "\n".join(lines) or "nobody is enrolled")
    return 0


def _tell(args: argparse.Namespace, outcome: Outcome, kid: bytes, good: str) -> int:
    _say(args, {"kid": kid.hex(), "height": outcome.height, "code": outcome.code, "result": outcome.reason},
         f"{kid.hex()} {good if outcome.code == 0 else 'refused: ' + outcome.reason} (block {outcome.height})")
    return 0 if outcome.code == 0 else 1


def _say(args: argparse.Namespace, values: dict[str, object], text: str) -> None:
    print(json.dumps(values) if args.json else text)
