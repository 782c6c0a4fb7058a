"""Makes chains to test with: a genesis, identities with keys by name, seals that follow one another, certificates."""

import hashlib
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

from firmware.crypto.openssl import OpenSSLSigner, verify_digest
from firmware.wire import certificate, cose, genesis, header, identity, merkle, reading, seal, transaction
from firmware.wire.reading import Entry, Reading
from firmware.wire.transaction import Enrolment, PointEntry

START_S = 1_767_225_600  # 2026-01-01 00:00 UTC
AREA = "north"


class Key(NamedTuple):
    """A test identity: its key follows from its name, so that golden numbers stay."""

    signer: OpenSSLSigner
    public: bytes
    kid: bytes


@cache
def key(name: str) -> Key:
    signer = OpenSSLSigner.from_scalar(hashlib.sha256(b"gridseal test key " + name.encode()).digest())
    public = signer.public_key()
    return Key(signer, public, identity.kid_of(public))


def point_entry(point: int, area: str = AREA, channel: str = "trade", serial: str | None = None,
                start: int | None = 1000, ratio: tuple[int, int] = (1, 1)) -> PointEntry:
    return PointEntry(point, area, channel, *ratio, bytes(32), "eastron", "sdm120", serial or f"s{point}", start, None)


class Verified(NamedTuple):
    """The fields of ingest's VerifiedSeal."""

    leaf: bytes
    payload: bytes
    payload_hash: bytes
    seal: seal.Seal
    readings: list[bytes]
    envelope: bytes = b""


class World:
    """One chain's keys and genesis, and the makers of everything signed for it."""

    def __init__(self, replicas: int = 4, agents: Sequence[tuple[str, Sequence[int]]] = (("meter", (1,)),),
                 parameters: dict[str, int] | None = None, channels: Sequence[str] = ("trade",)):
        self.member_keys = sorted((key(f"replica {i}") for i in range(replicas)), key=lambda member: member.kid)
        self.members = [certificate.Member(member.kid, member.public, bytes(32)) for member in self.member_keys]
        enrolments = [transaction.enrol_body(self.request("operator", "operator", chain_id=cose.NO_CHAIN),
                                             key("operator").kid, [], "")]
        for name, points in agents:
            enrolments.append(transaction.enrol_body(self.request(name, chain_id=cose.NO_CHAIN), key("owner").kid,
                                                     [point_entry(point) for point in points], ""))
        self.genesis = genesis.encode(genesis.Genesis(
            tuple(channels), START_S, 1, genesis.parameters(parameters), self.members, enrolments, []))
        self.chain_id = genesis.chain_id(self.genesis)
        self.tips: dict[tuple[str, int], tuple[int, bytes]] = {}
        self.sequences: dict[str, int] = {}

    def request(self, name: str, role: str = "agent", area: str = AREA, chain_id: bytes | None = None,
                signer: str | None = None, protection: str = "software") -> bytes:
        """The enrol COSE of a key, signed by itself (or by `signer`)."""
        wanted = Enrolment(key(name).public, hashlib.sha256(name.encode()).digest(), role, area, "pi", protection)
        return transaction.encode_enrolment(wanted, key(name).kid, self.chain_id if chain_id is None else chain_id,
                                            key(signer or name).signer.sign_digest)

    def tx(self, kind: int, body: list, sender: str = "operator", sequence: int | None = None,
           valid_until_s: int = START_S + 10**8, channel: str = "trade", signer: str | None = None) -> bytes:
        """A signed transaction, with the sender's next sequence unless one is given."""
        if sequence is None:
            sequence = self.sequences[sender] = self.sequences.get(sender, 0) + 1
        payload = transaction.encode(transaction.Transaction(
            transaction.VERSION, kind, key(sender).kid, sequence, valid_until_s, channel, body))
        return cose.sign1(payload, key(sender).kid, "tx", self.chain_id, key(signer or sender).signer.sign_digest)

    def enrol(self, name: str, points: Sequence[PointEntry], **tx) -> bytes:
        return self.tx(transaction.ENROL, transaction.enrol_body(self.request(name), key("owner").kid, points, ""),
                       **tx)

    def revoke(self, name: str, **tx) -> bytes:
        return self.tx(transaction.REVOKE, [key(name).kid, "stolen"], **tx)

    def replace(self, old: str, new: str, **tx) -> bytes:
        return self.tx(transaction.REPLACE_AGENT, [key(old).kid, self.request(new)], **tx)

    def seal(self, name: str, point: int, time_ms: int, import_wh: int | None = 1000, /, export_wh: int | None = None,
             readings: int = 1, is_next: bool = True, **changes) -> Verified:
        """The agent's next seal of a point, its last reading at time_ms; changes: fields of Seal, or `signer`."""
        signer = changes.pop("signer", name)
        height, previous = self.tips.get((name, point), (0, seal.FIRST_PREVIOUS))
        lost = changes.get("lost", 0)
        packs = [self.reading(name, point, time_ms - 60_000 * (readings - 1 - i), import_wh) for i in range(readings)]
        found = seal.Seal(
            seal.VERSION, key(name).kid, point, 1, height + 1 + lost, lost, bytes(32) if lost else previous,
            merkle.root(packs), len(packs), time_ms - 60_000 * (readings - 1), time_ms, import_wh, export_wh, 1,
            reading.CLOCK_SYNCHRONISED, bytes(32), bytes(32))._replace(**changes)
        payload = seal.encode(found)
        leaf = cose.sign1(payload, key(name).kid, "seal", self.chain_id, key(signer).signer.sign_digest)
        if is_next:
            self.tips[name, point] = found.height, seal.payload_hash(payload)
        return Verified(leaf, payload, seal.payload_hash(payload), found, packs)

    def reading(self, name: str, point: int, time_ms: int, import_wh: int | None) -> bytes:
        entries = [Entry("1.8.0", "Wh", import_wh, None) if import_wh is not None
                   else Entry("1.8.0", None, None, "no answer"), Entry("16.7.0", "W", 230, None)]
        return reading.encode(Reading(key(name).kid, point, time_ms, tuple(entries), 2, bytes(32)))

    def certificate(self, header_bytes: bytes, channel: str = "trade", signers: Sequence[int] | None = None) -> bytes:
        """A certificate by a quorum of the members, or by those named."""
        if signers is None:
            signers = range(certificate.quorum(len(self.members)))
        height = header.decode(header_bytes).height
        payload = certificate.vote_payload(0, channel, height, header.hash_of(header_bytes))
        digest = cose.digest(payload, "header", self.chain_id)
        signatures = tuple(self.member_keys[i].signer.sign_digest(digest) for i in signers)
        return certificate.encode(certificate.Certificate(0, channel, height, header.hash_of(header_bytes),
                                                          tuple(signers), signatures))


def check_proof(data: bytes, world: World):
    """The product's own verifier, on the world's genesis."""
    from firmware.wire import proof

    return proof.check_proof(data, world.genesis, verify_digest)
