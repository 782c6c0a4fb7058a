"""Makes a small true chain by hand (genesis, an enrolled agent, one block, its certificate and proof) for the tests.

Nothing here is taken from the gateway: what it builds agrees with the gateway only if both follow the same pages.
"""

from __future__ import annotations

import hashlib

from firmware.crypto.openssl import OpenSSLSigner
from firmware.wire import (
    cbor,
    certificate,
    cose,
    genesis,
    header,
    headerfile,
    identity,
    merkle,
    proof,
    reading,
    seal,
    state,
    witness,
)

CREATED_S = 1_790_000_000
MINUTE_MS = 60_000


def test_key(name: str) -> OpenSSLSigner:
    """A key that everybody knows: SHA-256 of a name."""
    return OpenSSLSigner.from_scalar(hashlib.sha256(b"gridseal test key " + name.encode()).digest())


test_key.__test__ = False  # type: ignore[attr-defined]


def make_reading(kid: bytes, point: int, time_ms: int, import_wh: int = 1234, quality: int = 2) -> reading.Reading:
    entries = (reading.Entry("1.8.0", "Wh", import_wh, None), reading.Entry("2.8.0", None, None, "no_answer"),
               reading.Entry("16.7.0", "W", -417, None), reading.Entry("14.7.0", None, 50_012, None))
    return reading.Reading(kid, point, time_ms, entries, quality, hashlib.sha256(b"frames %d" % time_ms).digest())


def make_seal(kid: bytes, point: int, height: int, previous: bytes, readings: list[bytes], import_wh: int | None = 1234,
              **changes: object) -> seal.Seal:
    decoded = [reading.decode(data) for data in readings]
    made = seal.Seal(seal.VERSION, kid, point, 1, height, 0, previous, merkle.root(readings), len(readings),
                     decoded[0].time_ms, decoded[-1].time_ms, import_wh, None, 1, 2, bytes(32), bytes(32))
    return made._replace(**changes)


class Chain:
    """n replicas, one agent with points 7 and 8, a second agent with point 9, and blocks made on demand."""

    def __init__(self, replicas: int = 4, name: str = "one") -> None:
        signers = [test_key(f"replica {index}") for index in range(replicas)]
        signers.sort(key=lambda signer: identity.kid_of(signer.public_key()))
        self.replicas = signers
        self.members = [certificate.Member(identity.kid_of(s.public_key()), s.public_key(), bytes(32)) for s in signers]
        self.genesis = genesis.encode(genesis.Genesis(
            ("trade",), CREATED_S, 1, genesis.parameters({"slot_s": 3600 if name == "one" else 900}), self.members, [],
            []))
        self.chain_id = genesis.chain_id(self.genesis)
        self.agent, self.other = test_key("agent"), test_key("other agent")
        self.pairs = {}
        for signer, points in ((self.agent, [7, 8]), (self.other, [9])):
            record = state.AgentRecord(signer.public_key(), "agent", "home", "pi", "software", bytes(32), bytes(8),
                                       points, 1, None, None)
            self.pairs[state.agent_key(self.kid_of(signer))] = state.encode_record(record)

    def kid_of(self, signer: OpenSSLSigner) -> bytes:
        return identity.kid_of(signer.public_key())

    def sign_seal(self, fields: seal.Seal, signer: OpenSSLSigner, chain_id: bytes | None = None) -> bytes:
        return cose.sign1(seal.encode(fields), fields.kid, "seal", chain_id or self.chain_id, signer.sign_digest)

    def state_tree(self) -> list[bytes]:
        buckets: dict[int, list[tuple[bytes, bytes]]] = {}
        for pair in self.pairs.items():
            buckets.setdefault(state.bucket_of(pair[0]), []).append(pair)
        return [merkle.leaf_hash(state.bucket_digest(buckets.get(index, []))) for index in range(state.BUCKETS)]

    def bucket(self, key: bytes) -> list[tuple[bytes, bytes]]:
        wanted = state.bucket_of(key)
        return sorted(pair for pair in self.pairs.items() if state.bucket_of(pair[0]) == wanted)

    def certify(self, header_bytes: bytes, signers: tuple[int, ...], chain_id: bytes | None = None, epoch: int = 0,
                channel: str = "trade", height: int | None = None) -> certificate.Certificate:
        """The certificate of `signers`, optionally for another chain, epoch, channel or height."""
        height = header.decode(header_bytes).height if height is None else height
        digest = cose.digest(certificate.vote_payload(epoch, channel, height, header.hash_of(header_bytes)), "header",
                             chain_id or self.chain_id)
        return certificate.Certificate(epoch, channel, height, header.hash_of(header_bytes), signers,
                                       tuple(self.replicas[index].sign_digest(digest) for index in signers))

    def prove(self, sealed: bytes, readings: list[bytes], which: int = 0, signers: tuple[int, ...] = (0, 1, 2),
              results: tuple[int, ...] = (0, 0), **changes: object) -> proof.Proof:
        """A proof of reading `which` whose seal is leaf 1 of a block of two."""
        tree = self.state_tree()
        kid = cose.parse(sealed).kid
        height = 5
        meta = header.encode_meta(header.Meta(
            1, "trade", self.chain_id, 0, height, 2, header.results_hash(results), merkle.root_of_hashes(tree),
            certificate.set_hash(self.members), certificate.set_hash(self.members), None, bytes(32)))
        leaves = [meta, sealed, b"another leaf"]
        hashes = [merkle.leaf_hash(leaf) for leaf in leaves]
        top = header.encode(header.Header(1, b"\x11" * 32, merkle.root_of_hashes(hashes), CREATED_S + 60, 0, height))
        key = state.agent_key(kid)
        made = proof.Proof(
            1, proof.OF_READING, self.chain_id, readings[which], which,
            merkle.path([merkle.leaf_hash(data) for data in readings], which),
            sealed, 1, 3, merkle.path(hashes, 1), meta, merkle.path(hashes, 0), list(results),
            self.bucket(key), merkle.path(tree, state.bucket_of(key)), top,
            certificate.encode(self.certify(top, signers)), [])
        return made._replace(**changes)


def count_light_nodes(chain: Chain, count: int, area: str = "home") -> None:
    """Puts the area's number of light nodes into the chain's state."""
    chain.pairs[state.light_key(area)] = cbor.encode(count)


def header_file(chain: Chain, sealed: bytes, signers: tuple[OpenSSLSigner, ...], area: str = "home",
                **changes: object) -> headerfile.HeaderFile:
    """The header file of the block that `prove` makes, with the witness signatures of `signers`."""
    made = chain.prove(sealed, three_readings(cose.parse(sealed).kid), results=(256 + 17, 0))
    tree = chain.state_tree()
    rows = []
    for signer in sorted(signers, key=chain.kid_of):
        kid = chain.kid_of(signer)
        key = state.agent_key(kid)
        rows.append(headerfile.CoSignature(
            witness.sign(kid, "trade", made.header, chain.chain_id, signer.sign_digest), chain.bucket(key),
            merkle.path(tree, state.bucket_of(key))))
    key = state.light_key(area)
    counted = headerfile.Witnessing(area, chain.bucket(key), merkle.path(tree, state.bucket_of(key)), rows)
    return headerfile.HeaderFile(1, headerfile.NAME, chain.chain_id, made.header, made.certificate, made.meta,
                                 made.meta_path, counted)._replace(**changes)


def three_readings(kid: bytes, point: int = 7) -> list[bytes]:
    first_ms = CREATED_S * 1000
    return [reading.encode(make_reading(kid, point, first_ms + at * MINUTE_MS, 1234 + at)) for at in range(3)]
