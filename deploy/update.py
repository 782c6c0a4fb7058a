"""`gridseal update`: a new version of the agent for boards and Pis: make it, sign it offline, roll it out, see it run.

A package is one file: a manifest that lists every file with its SHA-256, and the files. The operator signs the manifest
on a machine that needs no network; a board takes nothing that is not signed for its area, and nothing older than what
it has run (docs/update.md).
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import firmware
from deploy import update_send
from deploy.flash import agent as board_agent
from deploy.flash.errors import FlashError
from firmware import boot, meters, romfs, update
from firmware.board import linux, linux_slots
from firmware.crypto.openssl import OpenSSLSigner, verify_digest
from firmware.wire import cbor, cose, genesis, identity
from firmware.wire.errors import Refused
from firmware.wire.shape import check_fields

FORMAT = "gridseal-update"
VERSION = 1
BOARD = "esp32-4m"  # firmware/board/esp32.py
LINUX = "linux"
PACKAGE_BYTES = 4 << 20
COUNTERS = 0xFFFFFFFF
SIGNING_BYTES = 90  # what COSE adds to a payload, at most


class Package(NamedTuple):
    """manifest: the COSE message, or the payload alone before it is signed; data: the files, one after the other."""

    manifest: bytes
    data: bytes

    @property
    def is_signed(self) -> bool:
        return self.manifest[:1] == b"\xd2"

    @property
    def payload(self) -> bytes:
        return cose.parse(self.manifest).payload if self.is_signed else self.manifest

    @property
    def stream(self) -> bytes:
        """What a slot holds behind its index."""
        return self.manifest + self.data


class Contents(NamedTuple):
    model: str
    counter: int
    rows: list[list[Any]]  # [name, size, SHA-256]

    @property
    def measurement(self) -> bytes:
        """What every seal of an agent with this version carries."""
        return hashlib.sha256(cbor.encode(self.rows)).digest()


def make_package(files: list[tuple[str, bytes]], model: str, counter: int) -> Package:
    """An unsigned package of (name below firmware/, bytes)."""
    files = sorted(files)
    payload = update.encode_manifest(model, counter, board_agent.rows_of(files))
    if model != LINUX:
        board_agent.slot_image(payload + bytes(SIGNING_BYTES), files)  # too large for a slot: FlashError
    return Package(payload, b"".join(data for _, data in files))


def sign_package(package: Package, signer: OpenSSLSigner, chain_id: bytes) -> Package:
    kid = identity.kid_of(signer.public_key())
    return Package(cose.sign1(package.payload, kid, "update", chain_id, signer.sign_digest), package.data)


def slot_image(package: Package) -> bytes:
    """A board's slot with this signed package: what flashing writes, and what an update leaves."""
    rows = [(update.MANIFEST, len(package.manifest)), *((row[0], row[1]) for row in contents(package).rows)]
    return (romfs.index(rows) + package.stream).ljust(romfs.size_of(rows), b"\0")


def contents(package: Package) -> Contents:
    """What the manifest says, its signature aside; Refused `malformed`."""
    fields = cbor.decode(package.payload)
    check_fields(fields, ("u", "t", "u", "l"))
    for row in fields[3]:
        check_fields(row, ("t", "u", "b32"))
    return Contents(fields[1], fields[2], fields[3])


def check_package(package: Package, genesis_bytes: bytes) -> update.Manifest:
    """The manifest as an agent of this area takes it; Refused as there. Its files' hashes too."""
    manifest = update.Manifest(package.manifest, genesis.chain_id(genesis_bytes), update.keys_of(genesis_bytes),
                               verify_digest)
    if manifest.size != len(package.stream):
        raise Refused("wrong_digest", manifest.size, len(package.stream))
    at = 0
    for name, size, digest in manifest.rows():
        if hashlib.sha256(package.data[at:at + size]).digest() != digest:
            raise Refused("wrong_digest", digest, name)
        at += size
    return manifest


def write(path: Path, package: Package) -> None:
    path.write_bytes(cbor.encode([VERSION, FORMAT, package.manifest, package.data]))


def read(path: Path) -> Package:
    """The package of a file; ValueError when it is none."""
    data = path.read_bytes()
    try:
        if len(data) > PACKAGE_BYTES:
            raise ValueError(f"{path}: more than {PACKAGE_BYTES} bytes")
        fields = cbor.decode(data)
        check_fields(fields, ("u", "t", "b", "b"))
    except Refused as error:
        raise ValueError(f"{path} is no update package ({error})") from error
    if fields[0] != VERSION or fields[1] != FORMAT:
        raise ValueError(f"{path} is no update package of version {VERSION}")
    return Package(fields[2], fields[3])


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("update", help="a new version of the agent: make, sign, send", description=__doc__)
    actions = parser.add_subparsers(dest="action", required=True)
    make = actions.add_parser("make", help="make an unsigned package from this installation",
                              epilog="example: gridseal update make agent-7.update --model esp32-4m --counter 7")
    make.add_argument("package", type=Path, help="the file to write")
    make.add_argument("--model", required=True, help=f"what it is for: {LINUX}, or a board's as gridseal flash names "
                      f"it ({BOARD}, esp32s3-8m)")
    make.add_argument("--counter", type=int, required=True, help="higher than every version before: it never falls")
    make.add_argument("--types", nargs="*", metavar="TYPE", help="a board's: meter types to put in, for a slot has "
                      "no room for all (default: all)")
    make.set_defaults(run=_make)
    sign = actions.add_parser("sign", help="sign a package with the operator's key; needs no network",
                              epilog="example: gridseal update sign agent-7.update --key operator/signing.key "
                              "--genesis genesis.cbor")
    sign.add_argument("package", type=Path)
    sign.add_argument("--key", type=Path, required=True, help="signing.key of the operator, or the recovery key")
    sign.add_argument("--genesis", type=Path, required=True, help="the area's genesis.cbor: a package is for one area")
    sign.set_defaults(run=_sign)
    show = actions.add_parser("show", help="what is in a package, and whether its signature holds",
                              epilog="example: gridseal update show agent-7.update --genesis genesis.cbor")
    show.add_argument("package", type=Path)
    show.add_argument("--genesis", type=Path, help="check signature and files, as an agent does")
    show.add_argument("--json", action="store_true", help="one JSON object instead of text")
    show.set_defaults(run=_show)
    install = actions.add_parser("install", help="put a signed package on an agent of this machine, from a file",
                                 description="Into the slot that does not run; `gridseal meter run` starts it. The "
                                 "first one makes the slots, and from then on updates come over MQTT too.",
                                 epilog="example: gridseal update install agent agent-7.update")
    install.add_argument("folder", type=Path, help="the agent's folder, with meter.toml")
    install.add_argument("package", type=Path)
    install.set_defaults(run=_install)
    status = actions.add_parser("status", help="which firmware each agent's newest seal was made by",
                                epilog="example: gridseal update status agent-7.update --area-folder area")
    status.add_argument("package", type=Path, nargs="?", help="tell who runs this one")
    status.add_argument("--area-folder", type=Path, required=True, metavar="DIR", help="made by gateway init")
    status.add_argument("--json", action="store_true", help="one JSON object instead of text")
    status.set_defaults(run=_status)
    update_send.add_parser(actions)


def _make(args: argparse.Namespace) -> int:
    if not 0 < args.counter <= COUNTERS:
        raise ValueError(f"--counter: 1 to {COUNTERS}, not {args.counter}")
    if args.model == LINUX:
        root = Path(firmware.__file__).parent
        files = [(path.relative_to(root.parent).as_posix(), path.read_bytes()) for path in sorted(root.rglob("*.py"))]
    else:
        files = _board_files(args.types if args.types is not None else list(meters.TYPES))
    try:
        package = make_package(files, args.model, args.counter)
    except FlashError as error:
        raise ValueError(str(error)) from error
    write(args.package, package)
    print(f"{args.package}: {args.model}, version {args.counter}, {len(files)} files, {len(package.data)} bytes; not "
          "signed yet: gridseal update sign")
    return 0


def _board_files(types: list[str]) -> list[tuple[str, bytes]]:
    for name in types:
        if name not in meters.TYPES:
            raise ValueError(f"--types: {name!r} is none of {', '.join(meters.TYPES)}")
    try:
        return board_agent.build(types)
    except FlashError as error:
        raise ValueError(str(error)) from error


def _sign(args: argparse.Namespace) -> int:
    data = args.genesis.read_bytes()
    package = sign_package(read(args.package), OpenSSLSigner.load(args.key), genesis.chain_id(data))
    check_package(package, data)
    write(args.package, package)
    print(f"{args.package}: signed by {cose.parse(package.manifest).kid.hex()}")
    return 0


def _show(args: argparse.Namespace) -> int:
    package = read(args.package)
    found = contents(package)
    signer = cose.parse(package.manifest).kid.hex() if package.is_signed else None
    if args.genesis:
        check_package(package, args.genesis.read_bytes())
    values = {"model": found.model, "counter": found.counter, "measurement": found.measurement.hex(), "signer": signer,
              "is_checked": args.genesis is not None, "files": [[name, size] for name, size, _ in found.rows]}
    if args.json:
        print(json.dumps(values))
        return 0
    print(f"{found.model}, version {found.counter}: {len(found.rows)} files, {len(package.data)} bytes\n"
          f"measurement {found.measurement.hex()} (certify this)\n"
          f"{'signed by ' + signer if signer else 'not signed'}"
          f"{'; signature and files hold' if args.genesis else ''}")
    return 0


def _install(args: argparse.Namespace) -> int:
    settings, folder = linux.load_config(args.folder)
    package = read(args.package)
    manifest = check_package(package, (folder / settings.genesis).read_bytes())
    if manifest.model != LINUX:
        raise Refused("not_permitted", LINUX, manifest.model)
    path = str(folder / boot.NAME)
    record = boot.load(path)
    slot = 0 if record is None else record[boot.SLOT] ^ 1
    fresh = boot.fresh(True, False)
    running = 0 if record is None else record[boot.COUNTERS + record[boot.SLOT]]
    update.check_counter(manifest.counter, running, *(record or fresh)[boot.HIGHEST:boot.FAILED + 1])
    session = update.Session(manifest, linux_slots.FolderStore(folder, slot))
    while session.offset is not None:
        session.take(session.offset, package.stream[session.offset:session.offset + session.wanted()])
    session.finish()
    if record is None:  # nothing to go back to: it is what runs
        fresh[boot.COUNTERS] = fresh[boot.HIGHEST] = manifest.counter
        boot.save(path, fresh)
    else:
        boot.switch(record, slot, manifest.counter, boot.BUS | boot.BROKER)
        boot.save(path, record)
    print(f"version {manifest.counter} is in slot {linux_slots.LETTERS[slot]}; restart the agent "
          "(systemctl restart) to run it")
    return 0


def _status(args: argparse.Namespace) -> int:
    wanted = contents(read(args.package)).measurement if args.package else None
    rows = update_send.versions(args.area_folder)
    found = [{"kid": kid.hex(), "measurement": measurement.hex() if measurement else None,
              "runs_it": None if wanted is None else measurement == wanted} for kid, measurement in rows]
    if args.json:
        print(json.dumps({"agents": found}))
        return 0
    for row in found:
        note = "" if row["runs_it"] is None else "  this version" if row["runs_it"] else "  another version"
        print(f"{row['kid']}  {row['measurement'] or 'no seal yet'}{note}")
    if not found:
        print("no agent is enrolled")
    return 0
