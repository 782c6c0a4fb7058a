"""`gridseal device`: certified versions of control devices, and what their checks have found.

A laboratory certifies three files, a manufacturer and a regulator endorse; then the version is in force. The files
themselves are handed over by hash: they are laid into the folder `certified` of the laboratory and, where the area is
on this machine, of its replicas; one replica that has them is enough, the others ask it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
from pathlib import Path
from typing import Any

from deploy.clock import open_clock
from deploy.gateway import replica_folders
from deploy.operator import Outcome, Person
from firmware.wire import device as codec
from gateway.api import views
from gateway.config import DeviceConfig, load_gateway
from gateway.dispatch.certified import Certified
from gateway.dispatch.judge import judge
from gateway.ledger import files
from gateway.ledger.reader import Reader
from gateway.shelf import FOLDER

FILES = {codec.SOFTWARE: "software.bin", codec.STRATEGY: "strategy.bin", codec.SETTINGS: "settings.bin"}


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("device", help="control devices: certify, endorse, check, history",
                                 description=__doc__)
    actions = parser.add_subparsers(dest="action", required=True)
    certify = actions.add_parser("certify", help="certify a version's three files (laboratory)",
                                 epilog="example: gridseal device certify lab --files files --model ssc-100 "
                                 "--release 2.0 --device bay-1 --area-folder area")
    certify.add_argument("person", type=Path, help="the laboratory's folder, made by enroll request --role laboratory")
    what = certify.add_mutually_exclusive_group(required=True)
    what.add_argument("--files", type=Path, metavar="DIR",
                      help="software.bin, strategy.bin and, for a device, settings.bin")
    what.add_argument("--measurement", metavar="HEX|here",
                      help="a meter agent's firmware instead, for all agents of the model; here: what is installed")
    certify.add_argument("--model", required=True, help="as the device's product code says")
    certify.add_argument("--release", required=True, help="the version, for people")
    certify.add_argument("--device", help="whose settings these are, as its serial text says; without it software and "
                         "strategy alone are certified, for all devices of the model")
    certify.add_argument("--area-folder", type=Path, metavar="DIR",
                         help="hand the files to the replicas of this area; else take them there yourself")
    certify.set_defaults(run=_certify)
    endorse = actions.add_parser("endorse", help="stand up for a certified version (manufacturer, regulator)",
                                 epilog="example: gridseal device endorse maker "
                                 "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0")
    endorse.add_argument("person", type=Path, help="the folder of the manufacturer or the regulator")
    endorse.add_argument("version", help="the 64 hexadecimal digits that certify printed")
    endorse.set_defaults(run=_endorse)
    check = actions.add_parser("check", help="pull a device now and judge it; nothing is sent",
                               epilog="example: gridseal device check area/replica-0 bay-1")
    check.set_defaults(run=_check)
    history = actions.add_parser("history", help="what the checks have found, from a replica's ledger",
                                 epilog="example: gridseal device history area --json")
    history.set_defaults(run=_history)
    for action in (check, history):
        action.add_argument("folder", type=Path, help="a replica's folder, or the area's (its first replica then)")
        action.add_argument("device", nargs="?" if action is history else None, help="the device's name")
    for action in (certify, endorse, check, history):
        action.add_argument("--clock", help=argparse.SUPPRESS)
        action.add_argument("--json", action="store_true", help="one JSON object instead of text")


def certify_files(person: Person, folder: Path, model: str, release: str, device: str | None,
                  handed_to: list[Path]) -> list[Any]:
    """Reads the files, lays their preimages into `certified` of the laboratory and of each folder in `handed_to`, and
    returns the body of type 20. FileNotFoundError when a file is not there."""
    digests: list[bytes | None] = []
    for role, name in FILES.items():
        if role == codec.SETTINGS and device is None:
            digests.append(None)
            continue
        stored = codec.preimage(role, model, device, (folder / name).read_bytes())
        digests.append(codec.hash_of(stored))
        for place in (person.home, *handed_to):
            (place / FOLDER).mkdir(exist_ok=True)
            (place / FOLDER / f"{codec.hash_of(stored).hex()}.cbor").write_bytes(stored)
    body = [model, release, device, *digests]
    codec.decode_certify(body)
    return body


def _certify(args: argparse.Namespace) -> int:
    person = Person.open(args.person)
    places = replica_folders(args.area_folder) if args.area_folder else []
    if args.files is None:
        body = [args.model, args.release, None, _measurement(args.measurement), bytes(32), None]
    else:
        body = certify_files(person, args.files, args.model, args.release, args.device, places)
    version = codec.certify_hash(body)
    outcome = _send(args, person, codec.CERTIFY, body)
    good = (f"certified as {version.hex()}\nthe manufacturer and the regulator now type:\n"
            f"  gridseal device endorse FOLDER {version.hex()}")
    if args.files is not None and not places:
        good += f"\ncopy what lies in {person.home / FOLDER} to the folder {FOLDER} of a replica"
    return _tell(args, outcome, {"version": version.hex(), "root": codec.root_of(body[3:]).hex()}, good)


def _measurement(text: str) -> bytes:
    if text == "here":
        from firmware.board.linux import measure
        return measure()
    try:
        found = bytes.fromhex(text)
    except ValueError:
        found = b""
    if len(found) != 32:
        raise ValueError(f"--measurement: expected 64 hexadecimal digits or 'here', not {text!r}")
    return found


def _endorse(args: argparse.Namespace) -> int:
    person = Person.open(args.person)
    try:
        version = bytes.fromhex(args.version)
    except ValueError:
        version = b""
    if len(version) != 32:
        raise ValueError(f"a version is the 64 hexadecimal digits that certify printed, not {args.version!r}")
    outcome = _send(args, person, codec.ENDORSE, [version, person.role])
    return _tell(args, outcome, {"version": version.hex(), "role": person.role}, f"endorsed as {person.role}")


def _send(args: argparse.Namespace, person: Person, kind: int, body: list[Any]) -> Outcome:
    return person.submit(person.area, person.sign(kind, body, open_clock(args.clock)), person.brokers)


def _check(args: argparse.Namespace) -> int:
    from gateway.dispatch.pull import Target, pull

    home = _home(args.folder)
    config = load_gateway(home)
    device = _configured(config.devices, args.device, home)
    evidence = asyncio.run(pull(Target(device.name, device.model, device.port, device.unit, device.twin, device.baud)))
    with contextlib.closing(Reader.open(config.data)) as reader:
        certified = Certified(reader.state_value)
        found = judge(evidence, certified, lambda name: files.read(reader.store, name))
    values = {"device": device.name, "outcome": found.outcome, "item": found.item, "kind": found.kind,
              "offset": found.offset, "evidence": codec.hash_of(codec.encode_evidence(evidence)).hex()}
    _say(args, values, f"{device.name}: {finding_text(values)}")
    return 0 if found.outcome == codec.MATCH else 1


def _configured(devices: tuple[DeviceConfig, ...], name: str, home: Path) -> DeviceConfig:
    for device in devices:
        if device.name == name:
            return device
    raise ValueError(f"{home} pulls no device {name}: there is no such [[device]] in its gateway.toml")


def _history(args: argparse.Namespace) -> int:
    config = load_gateway(_home(args.folder))
    with contextlib.closing(Reader.open(config.data)) as reader:
        certified = Certified(reader.state_value)
        rows = [views.device(name, certified.settings(name), certified.known(name), certified.report_of(name),
                             certified.model, None)
                for name in certified.registry.devices if args.device in (None, name)]
    if args.device is not None and not rows:
        raise ValueError(f"{args.device} was neither certified nor reported in the area {config.area}")
    lines = []
    for row in rows:
        force = f"version {row['version']} in force" if row["in_force"] else "nothing in force"
        lines.append(f"{row['device']}: {force}, {row['reports']} reports, {'ALARM' if row['alarm'] else 'no alarm'}")
        lines += [f"  {change['time']}  block {change['height']:<6} {finding_text(change)}"
                  for change in row["changes"]]
    _say(args, {"devices": rows}, "\n".join(lines) or "no device was certified or reported")
    return 0


def finding_text(found: dict[str, Any]) -> str:
    """An outcome with what explains it, on one line."""
    text = found["outcome"]
    if found["item"] is not None:
        text += f" of {found['item']}"
    if found["kind"] is not None:
        text += f": {found['kind']}"
    return text + (f" at byte {found['offset']}" if found["offset"] is not None else "")


def _home(folder: Path) -> Path:
    homes = replica_folders(folder)
    if not homes:
        raise FileNotFoundError(f"{folder} is neither an area nor a replica")
    return homes[0]


def _tell(args: argparse.Namespace, outcome: Outcome, values: dict[str, Any], good: str) -> int:
    _say(args, {**values, "height": outcome.height, "code": outcome.code, "result": outcome.reason},
         f"{good if outcome.code == 0 else 'refused: ' + outcome.reason}\n(block {outcome.height})")
    return 0 if outcome.code == 0 else 1


def _say(args: argparse.Namespace, values: dict[str, Any], text: str) -> None:
    print(json.dumps(values) if args.json else text)
