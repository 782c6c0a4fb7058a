"""`gridseal gateway join`: one replica more, or another in the place of a lost one, under load (docs/replicas.md).

Makes the newcomer's folder with keys of its own, and offers it a seat in the `peers.json` of every replica whose folder
is in the area's: that is where each operator says yes. The newcomer fetches what the others have, as an observer; when
it is level, q members send their wills, and from the next checkpoint on it votes.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import sys
import time
from pathlib import Path
from typing import Any

from deploy import certificates, mosquitto, provision
from deploy.supervisor import read_list
from firmware.crypto.openssl import OpenSSLSigner
from firmware.wire import genesis, identity, validators
from gateway.config import GatewayConfig, load_gateway
from gateway.seats import PEERS

WAIT_S = 600.0  # for the newcomer to be level and seated; a month of readings is fetched in less
LOOK_S = 0.5


def add_parser(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Adds `join` to the actions of `gateway`."""
    join = actions.add_parser("join", help="one replica more, or one in the place of another",
                              epilog="example: gridseal gateway join area --instead replica-2")
    join.add_argument("folder", type=Path, help="the area's folder, with its CA")
    join.add_argument("--instead", metavar="REPLICA", help="whose seat it takes: a folder's name or a kid")
    join.add_argument("--host", default="127.0.0.1", help="address where it listens")
    join.add_argument("--free-ports", action="store_true", help="take free ports instead of the next ones")
    join.add_argument("--transfer-after", type=int, metavar="BLOCKS",
                      help="lacking more blocks than this it fetches the state alone, and keeps blocks from there on")
    join.add_argument("--no-wait", action="store_true", help="do not wait until it has its seat")
    join.set_defaults(run=_join)
    return join


def make_newcomer(folder: Path, instead: str | None = None, host: str = "127.0.0.1", free_ports: bool = False,
                  transfer_after: int | None = None) -> Path:
    """Makes the folder of one replica more and offers it a seat at all replicas whose folders are here; returns it.

    ValueError where `instead` names nobody; FileNotFoundError where the folder holds no area."""
    folder = folder.resolve()
    homes = _homes(folder)
    configs = {home: load_gateway(home) for home in homes}
    old = _kid_of(folder, instead) if instead else None
    chain_id = genesis.chain_id((folder / "genesis.cbor").read_bytes())
    home = folder / f"replica-{1 + max(int(one.name.rpartition('-')[2]) for one in homes)}"
    ca_key, ca = certificates.load_ca(folder / "ca")
    made = provision.make_identity(home, ca_key, ca, (*provision.HOSTS, host))
    listen, api = _addresses(configs, host, free_ports)
    _write_configuration(home, configs[homes[0]], listen, api, transfer_after)
    request = validators.encode_request(made.signer.public_key(), made.tls_hash, chain_id, made.signer.sign_digest)
    addresses = {_kid_in(one): config.listen for one, config in configs.items()}
    own = {"address": listen, "request": None, "instead": None}
    _put_peers(home, {**{kid: {"address": address} for kid, address in addresses.items()}, made.kid.hex(): own})
    offer = {"address": listen, "request": bytes(request).hex(), "instead": None if old is None else old.hex()}
    for one in homes:
        _put_peers(one, {made.kid.hex(): offer})
    _let_in(folder, configs[homes[0]].area)
    return home


def _homes(folder: Path) -> list[Path]:
    found = sorted((path.parent for path in folder.glob("replica-*/gateway.toml")),
                   key=lambda path: int(path.name.rpartition("-")[2]))
    if not found or not (folder / "ca" / "ca.key").exists():
        raise FileNotFoundError(f"{folder} is no area with its CA; gridseal gateway init makes one")
    return found


def _kid_in(home: Path) -> str:
    return bytes(identity.kid_of(OpenSSLSigner.load(home / "signing.key").public_key())).hex()


def _kid_of(folder: Path, name: str) -> bytes:
    """The kid of a replica by its folder's name, or as it is written."""
    if (folder / name / "signing.key").exists():
        return bytes.fromhex(_kid_in(folder / name))
    if re.fullmatch(r"[0-9a-f]{16}", name) is None:
        raise ValueError(f"neither a replica of {folder} nor a kid of 16 hexadecimal digits: {name}")
    return bytes.fromhex(name)


def _addresses(configs: dict[Path, GatewayConfig], host: str, is_free: bool) -> tuple[str, str]:
    """(listen, api) of the newcomer: the next ports, or free ones."""
    if is_free:
        first, second = provision.free_ports(2)
        return f"{host}:{first}", f"127.0.0.1:{second}"
    taken = [int(config.listen.rpartition(":")[2]) for config in configs.values()]
    shown = [int(config.api.rpartition(":")[2]) for config in configs.values()]
    return f"{host}:{max(taken) + 1}", f"127.0.0.1:{max(shown) + 1}"


def _write_configuration(home: Path, other: GatewayConfig, listen: str, api: str, transfer_after: int | None) -> None:
    def texts(found: Any) -> str:
        return "[" + ", ".join(f'"{one}"' for one in found) + "]"
    (home / "gateway.toml").write_text(f"""# made by gridseal gateway join
genesis = "../genesis.cbor"
data = "data"                # ledger, votes; move it to another disk if you like
area = "{other.area}"
listen = "{listen}"  # the other replicas connect here, TLS with both certificates
api = "{api}"     # page and status, for this machine only
peers = {texts(other.peers)}  # of the genesis; all others are in {PEERS}
brokers = {texts(other.brokers)}
signing_key = "signing.key"
tls_cert = "tls.crt"
tls_key = "tls.key"
ca = "../ca/ca.crt"
ack_interval_s = {other.ack_interval_s}          # at most one ack per meter agent in this time
""" + ("" if transfer_after is None else f"transfer_after = {transfer_after}\n"))
    (home / "data").mkdir(mode=0o700)


def _put_peers(home: Path, rows: dict[str, dict[str, Any]]) -> None:
    """Adds rows to a replica's file, which it reads once a second: replaced as a whole."""
    path = home / PEERS
    known = json.loads(path.read_text()) if path.exists() else {}
    for kid, row in rows.items():
        known[kid] = {**known.get(kid, {}), **row}
    spare = path.with_suffix(".new")
    spare.write_text(json.dumps(known, indent=1) + "\n")
    spare.replace(path)


def _let_in(folder: Path, area: str) -> None:
    """The brokers of this machine learn the replicas' kids: a new access list, and the word to read it."""
    kids = [bytes.fromhex(_kid_in(home)) for home in _homes(folder)]
    operator = identity.kid_of(OpenSSLSigner.load(folder / "operator" / "signing.key").public_key())
    for path in folder.glob("broker-*/acl"):
        path.write_text(mosquitto.access_list(area, kids, (operator,)))
    for row in read_list(folder):
        if row["kind"] == "broker" and row["pid"] and (Path(row["folder"]) / "acl").exists():
            os.kill(row["pid"], signal.SIGHUP)


def _join(args: argparse.Namespace) -> int:
    home = make_newcomer(args.folder, args.instead, args.host, args.free_ports, args.transfer_after)
    kid = _kid_in(home)
    if not args.json:
        print(f"{home.name} with the key {kid} is offered a seat"
              + (f" in the place of {args.instead}" if args.instead else ""))
        print(f"start it: gridseal gateway run {home} (a running gridseal gateway run {args.folder} has started it)",
              flush=True)
    taken = None if args.no_wait else wait_seated(home, WAIT_S, None if args.json else print)
    if args.json:
        print(json.dumps({"folder": str(home), "kid": kid, "epoch": taken}))
    return 0 if args.no_wait or taken is not None else 1


def wait_seated(home: Path, wait_s: float, tell: Any = None) -> int | None:
    """The epoch in which a newcomer has got its seat; None when it has none after `wait_s`."""
    from deploy.gateway import replica_status
    end, said = time.monotonic() + wait_s, ""
    while time.monotonic() < end:
        facts = replica_status(home)
        line = facts.get("silent") or (f"{'member' if facts.get('is_member') else 'observer'} in epoch "
                                       f"{facts.get('epoch')}, height {facts.get('height')}")
        if tell is not None and line != said:
            said = line
            tell(f"{home.name}: {line}", flush=True)
        if facts.get("is_member"):
            return int(facts["epoch"])
        time.sleep(LOOK_S)
    print(f"{home.name} has no seat after {wait_s:.0f} s; it goes on trying as long as it runs", file=sys.stderr)
    return None
