"""Makes a fleet's folder: its plan, and for each agent what an operator needs to enrol it; reads it again.

    fleet.json              area, chain, brokers, how many agents and points, the seed of all keys
    agent-0001/request.cbor what `gridseal enroll approve` takes; tls.key beside it, tls.crt and ca.crt once approved
    state.json              each point's height and last seal, written when a run ends
"""

import hashlib
import json
from pathlib import Path
from typing import NamedTuple

import cbor2
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from sim_hardware.errors import SimError
from sim_hardware.fleet import wire
from sim_hardware.fleet.fleet import Fleet, Plan

PLAN, STATE, RUNS = "fleet.json", "state.json", "running"


class Home(NamedTuple):
    """A fleet's folder and what is in it."""

    folder: Path
    plan: Plan
    brokers: list[str]

    def agent(self, number: int) -> Path:
        return self.folder / f"agent-{number + 1:04}"

    def points(self, number: int) -> list[int]:
        first = self.plan.first_point + number * self.plan.points
        return list(range(first, first + self.plan.points))


def make(folder: Path, plan: Plan, brokers: list[str]) -> Home:
    """Writes the folder; SimError `config` where there is something already."""
    plan.check()
    if (folder / PLAN).exists():
        raise SimError("config", f"{folder} holds a fleet already")
    home = Home(folder, plan, brokers)
    for number in range(plan.agents):
        place, key = home.agent(number), plan.key(number)
        place.mkdir(parents=True, mode=0o700)
        tls = ec.generate_private_key(ec.SECP256R1())
        public = tls.public_key().public_bytes(serialization.Encoding.DER,
                                               serialization.PublicFormat.SubjectPublicKeyInfo)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, key.kid.hex())])
        asked = x509.CertificateSigningRequestBuilder().subject_name(name).sign(tls, hashes.SHA256())
        message = wire.enrolment(key, hashlib.sha256(public).digest(), plan.area, plan.chain_id)
        (place / "request.cbor").write_bytes(cbor2.dumps([message, asked.public_bytes(serialization.Encoding.DER)]))
        secret = place / "tls.key"
        secret.touch(mode=0o600)
        secret.write_bytes(tls.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                             serialization.NoEncryption()))
    (folder / PLAN).write_text(json.dumps({
        "area": plan.area, "chain_id": plan.chain_id.hex(), "brokers": brokers, "agents": plan.agents,
        "points": plan.points, "first_point": plan.first_point, "seed": plan.seed}, indent=1))
    return home


def load(folder: Path) -> Home:
    """The folder that `make` wrote; SimError `config` otherwise."""
    try:
        found = json.loads((folder / PLAN).read_text())
        plan = Plan(found["area"], bytes.fromhex(found["chain_id"]), found["agents"], found["points"],
                    found["first_point"], found["seed"])
        return Home(folder, plan, list(found["brokers"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SimError("config", f"{folder / PLAN}: expected what `gridseal sim fleet make` wrote: {error}") from error


def begin(home: Home, fleet: Fleet) -> None:
    """Takes the heights of the last run; SimError where that one did not end: its heights are not known."""
    if (home.folder / RUNS).exists():
        raise SimError("config", f"{home.folder}: the last run was killed, so nobody knows its heights, and a second "
                       "seal for a height is a fork: make another fleet (--seed)")
    state = home.folder / STATE
    if state.exists():
        for number, (height, previous, last_ms) in json.loads(state.read_text()).items():
            point = fleet.points[int(number)][1]
            point.height, point.previous, point.last_ms = height, bytes.fromhex(previous), last_ms
    (home.folder / RUNS).touch()


def end(home: Home, fleet: Fleet) -> None:
    """Keeps the heights for the next run."""
    written = home.folder / (STATE + ".new")
    written.write_text(json.dumps({point.number: [point.height, point.previous.hex(), point.last_ms]
                                   for _, point in fleet.points.values()}))
    written.replace(home.folder / STATE)
    (home.folder / RUNS).unlink()
