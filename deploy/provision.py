"""Makes an area's folder from a few choices: CA, operator and recovery key, brokers, replicas, genesis.

Nothing in it has a default secret: every key is made here, for this area, and read by its owner only.
"""

from __future__ import annotations

import contextlib
import random
import socket
from pathlib import Path
from typing import Any, NamedTuple

from deploy import certificates, mosquitto
from firmware.crypto.openssl import OpenSSLSigner
from firmware.wire import certificate, cose, genesis, identity, topics, transaction

REPLICA_PORT, API_PORT, BROKER_PORT = 7100, 7200, 8883
QUIET_PORTS = (20_000, 32_000)  # below what Linux takes for outgoing connections and for port 0 (32,768 and above)
REPLICAS = 64
HOSTS = ("localhost", "127.0.0.1")


class Plan(NamedTuple):
    """What `gateway init` is told. Ports: the first of each kind, or None for free ones on this machine."""

    area: str = "home"
    replicas: int = 1
    brokers: int = 1
    created_s: int = 0  # label time of the genesis, Unix seconds
    speed: int = 1
    parameters: dict[str, int] = {}
    host: str = "127.0.0.1"
    hosts: tuple[str, ...] = ()  # further names under which brokers are reached
    plain_broker: bool = False  # an embedded broker on loopback: no TLS, no access list
    free_ports: bool = False
    ack_interval_s: int = 10


class Identity(NamedTuple):
    """A signing key and a TLS key with its certificate, in a folder."""

    signer: OpenSSLSigner
    kid: bytes
    tls_hash: bytes


def make_area(folder: Path, plan: Plan) -> bytes:
    """Makes `folder` (which must be empty or absent) and returns the chain id.

    ValueError for an impossible plan, FileExistsError when there is something already.
    """
    if not topics.is_area(plan.area):
        raise ValueError(f"an area is 1 to 32 of a-z, 0-9 and '-', not {plan.area!r}")
    if not 1 <= plan.replicas <= REPLICAS or not 1 <= plan.brokers <= plan.replicas:
        raise ValueError(f"1 to {REPLICAS} replicas and at most one broker each")
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty; an area is made once")
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    ca_key, ca = certificates.make_ca(plan.area)
    _fresh(folder / "ca")
    certificates.write_secret(folder / "ca" / "ca.key", certificates.key_pem(ca_key))
    (folder / "ca" / "ca.crt").write_bytes(certificates.pem(ca))
    people = [_make_person(folder / role, role, plan.area, ca_key, ca) for role in ("operator", "recovery")]
    replicas = [make_identity(folder / f"replica-{index}", ca_key, ca, HOSTS + (plan.host,))
                for index in range(plan.replicas)]
    replicas = _sort_replicas(folder, replicas)
    data = _make_genesis(plan, replicas, people)
    (folder / "genesis.cbor").write_bytes(data)
    chain_id = genesis.chain_id(data)
    (folder / "genesis.txt").write_text(f"{chain_id.hex()}\n")
    _write_configuration(folder, plan, [replica.kid for replica in replicas], people[0][1], ca_key, ca)
    return chain_id


def make_identity(folder: Path, ca_key: certificates.ec.EllipticCurvePrivateKey, ca: certificates.x509.Certificate,
                  hosts: tuple[str, ...] = ()) -> Identity:
    """Makes signing.key, tls.key and tls.crt (common name = kid) in a new folder."""
    _fresh(folder)
    signer = OpenSSLSigner.generate()
    signer.save(folder / "signing.key")
    kid = identity.kid_of(signer.public_key())
    tls_key = certificates.generate_key()
    certificates.write_secret(folder / "tls.key", certificates.key_pem(tls_key))
    leaf = certificates.issue(ca_key, ca, tls_key.public_key(), kid.hex(), hosts)
    (folder / "tls.crt").write_bytes(certificates.pem(leaf))
    return Identity(signer, kid, certificates.spki_hash(tls_key.public_key()))


def free_ports(count: int) -> list[int]:
    """Returns distinct ports on loopback that nobody listens on just now, and that the system gives nobody by itself:
    a port from its own range may be gone before its owner has started."""
    chance = random.SystemRandom()
    with contextlib.ExitStack() as held:
        ports: list[int] = []
        while len(ports) < count:
            listener = held.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                listener.bind(("127.0.0.1", chance.randrange(*QUIET_PORTS)))
                ports.append(int(listener.getsockname()[1]))
        return ports


def _fresh(folder: Path) -> None:
    folder.mkdir(parents=True, mode=0o700)


def _make_person(folder: Path, role: str, area: str, ca_key: certificates.ec.EllipticCurvePrivateKey,
                 ca: certificates.x509.Certificate) -> list[Any]:
    made = make_identity(folder, ca_key, ca)
    asked = transaction.Enrolment(made.signer.public_key(), made.tls_hash, role, area, "person", "software")
    message = transaction.encode_enrolment(asked, made.kid, cose.NO_CHAIN, made.signer.sign_digest)
    return transaction.enrol_body(message, made.kid, [], role)


def _sort_replicas(folder: Path, replicas: list[Identity]) -> list[Identity]:
    """Renames the folders so that replica-K is member K: a member's id is its place among the sorted kids."""
    order = sorted(range(len(replicas)), key=lambda index: replicas[index].kid)
    for index in range(len(replicas)):
        (folder / f"replica-{index}").rename(folder / f"unsorted-{index}")
    for place, index in enumerate(order):
        (folder / f"unsorted-{index}").rename(folder / f"replica-{place}")
    return [replicas[index] for index in order]


def _make_genesis(plan: Plan, replicas: list[Identity], people: list[list[Any]]) -> bytes:
    members = [certificate.Member(made.kid, made.signer.public_key(), made.tls_hash) for made in replicas]
    return genesis.encode(genesis.Genesis(("trade",), plan.created_s, plan.speed, genesis.parameters(plan.parameters),
                                          members, people, []))


def _write_configuration(folder: Path, plan: Plan, kids: list[bytes], operator: bytes,
                         ca_key: certificates.ec.EllipticCurvePrivateKey, ca: certificates.x509.Certificate) -> None:
    listens, apis, brokers = _addresses(plan)
    scheme = "mqtt" if plan.plain_broker else "mqtts"
    urls = [f"{scheme}://{address}" for address in brokers]
    for index in range(plan.brokers):
        home = folder / f"broker-{index}"
        _fresh(home)
        (home / "address").write_text(urls[index] + "\n")
        if plan.plain_broker:
            continue
        key = certificates.generate_key()
        certificates.write_secret(home / "broker.key", certificates.key_pem(key))
        leaf = certificates.issue(ca_key, ca, key.public_key(), "broker", HOSTS + (plan.host,) + plan.hosts)
        (home / "broker.crt").write_bytes(certificates.pem(leaf))
        (home / "acl").write_text(mosquitto.access_list(plan.area, kids, (operator,)))
        (home / "mosquitto.conf").write_text(
            mosquitto.configuration(home, brokers[index], folder / "ca" / "ca.crt"))
    for index in range(plan.replicas):
        own = urls[index % len(urls):] + urls[:index % len(urls)]  # its own broker first
        (folder / f"replica-{index}" / "gateway.toml").write_text(f"""# made by gridseal gateway init
genesis = "../genesis.cbor"
data = "data"                # ledger, votes; move it to another disk if you like
area = "{plan.area}"
listen = "{listens[index]}"  # the other replicas connect here, TLS with both certificates
api = "{apis[index]}"     # page and status, for this machine only
peers = {_list(listens)}
brokers = {_list(own)}
signing_key = "signing.key"
tls_cert = "tls.crt"
tls_key = "tls.key"
ca = "../ca/ca.crt"
ack_interval_s = {plan.ack_interval_s}          # at most one ack per meter agent in this time
""")
        (folder / f"replica-{index}" / "data").mkdir(mode=0o700)


def _addresses(plan: Plan) -> tuple[list[str], list[str], list[str]]:
    """Returns the replicas' addresses for each other, those of their pages (this machine only), and the brokers'."""
    counts = (plan.replicas, plan.replicas, plan.brokers)
    firsts = (REPLICA_PORT, API_PORT, BROKER_PORT)
    ports = [first + index for first, count in zip(firsts, counts, strict=True) for index in range(count)]
    if plan.free_ports:
        ports = free_ports(len(ports))
    split = plan.replicas * 2
    return ([f"{plan.host}:{port}" for port in ports[:plan.replicas]],
            [f"127.0.0.1:{port}" for port in ports[plan.replicas:split]],
            [f"{plan.host}:{port}" for port in ports[split:]])


def _list(texts: list[str]) -> str:
    return "[" + ", ".join(f'"{text}"' for text in texts) + "]"
