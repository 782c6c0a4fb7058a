"""The header file: k of n counted from the file alone, and every forged or flipped one refused for its own reason."""

import random
from typing import Any

import pytest

from firmware.crypto.openssl import verify_digest
from firmware.wire import cbor, certificate, cose, headerfile, merkle, proof, state, witness
from firmware.wire.errors import Refused
from firmware.wire.headerfile import CoSignature, HeaderFile
from tests.wire import build


class World:
    """A chain whose state counts two light nodes, `agent` and `other`, and knows three more that must not count."""

    def __init__(self) -> None:
        self.chain = build.Chain()
        chain = self.chain
        self.odd = {name: build.test_key(name) for name in ("revoked", "auditor", "south")}
        for name, signer in self.odd.items():
            role, area = "auditor" if name == "auditor" else "agent", "south" if name == "south" else "home"
            record = state.AgentRecord(signer.public_key(), role, area, "pi", "software", bytes(32), bytes(8), [], 1,
                                       4 if name == "revoked" else None, None)
            chain.pairs[state.agent_key(chain.kid_of(signer))] = state.encode_record(record)
        build.count_light_nodes(chain, 2)
        self.items = build.three_readings(chain.kid_of(chain.agent))
        self.sealed = chain.sign_seal(build.make_seal(chain.kid_of(chain.agent), 7, 4, bytes(32), self.items),
                                      chain.agent)
        self.good = build.header_file(chain, self.sealed, (chain.agent, chain.other))

    def row(self, signer: Any, message: bytes | None = None) -> CoSignature:
        """A row for a signer, with a message of its own or another one."""
        found = build.header_file(self.chain, self.sealed, (signer,)).witnessing.signatures[0]
        return found if message is None else found._replace(message=message)

    def sign(self, signer: Any, top: bytes | None = None, channel: str = "trade", chain_id: bytes | None = None,
             kid: bytes | None = None) -> bytes:
        return witness.sign(kid or self.chain.kid_of(signer), channel, top or self.good.header,
                            chain_id or self.chain.chain_id, signer.sign_digest)

    def with_rows(self, *rows: CoSignature) -> HeaderFile:
        return self.good._replace(witnessing=self.good.witnessing._replace(signatures=list(rows)))

    def reason(self, made: HeaderFile) -> str:
        with pytest.raises(Refused) as caught:
            headerfile.check_file(headerfile.encode(made), self.chain.genesis, verify_digest)
        return caught.value.reason


@pytest.fixture(scope="module")
def world() -> World:
    return World()


def test_k_of_n(world: World) -> None:
    for signers in ((world.chain.agent, world.chain.other), (world.chain.other,), ()):
        made = build.header_file(world.chain, world.sealed, signers)
        data = headerfile.encode(made)
        assert headerfile.encode(headerfile.decode(data)) == data
        report = headerfile.check_file(data, world.chain.genesis, verify_digest)
        assert report.counted == ("home", sorted(world.chain.kid_of(signer) for signer in signers), 2)
        assert (report.top.height, len(report.certificate.signers), len(report.members)) == (5, 3, 4)


def test_every_flipped_bit_is_refused(world: World) -> None:
    data = headerfile.encode(world.good)
    for bit in range(len(data) * 8):
        changed = bytearray(data)
        changed[bit >> 3] ^= 1 << (bit & 7)
        with pytest.raises(Refused):
            headerfile.check_file(bytes(changed), world.chain.genesis, verify_digest)


def test_a_proof_with_witnesses_is_counted_and_refused_with_any_bit_flipped(world: World) -> None:
    made = world.chain.prove(world.sealed, world.items, results=(256 + 17, 0), witnesses=world.good.witnessing)
    data = proof.encode(made)
    assert proof.encode(proof.decode(data)) == data
    report = proof.check_proof(data, world.chain.genesis, verify_digest)
    assert (len(report.counted.kids), report.counted.n) == (2, 2)
    whole = proof.check_proof(proof.without_reading(data), world.chain.genesis, verify_digest)
    assert whole.counted == report.counted
    generator = random.Random(7)
    for bit in generator.sample(range(len(data) * 8), 4000):
        changed = bytearray(data)
        changed[bit >> 3] ^= 1 << (bit & 7)
        with pytest.raises(Refused):
            proof.check_proof(bytes(changed), world.chain.genesis, verify_digest)
    empty = world.good.witnessing._replace(signatures=[])
    with pytest.raises(Refused, match="malformed"):
        proof.check_proof(proof.encode(made._replace(witnesses=empty)), world.chain.genesis, verify_digest)
    many = world.good.witnessing._replace(signatures=world.good.witnessing.signatures * 40)
    with pytest.raises(Refused, match="malformed"):
        proof.decode(proof.encode(made._replace(witnesses=many)))
    other = build.Chain(name="one")
    other.pairs.update(world.chain.pairs)
    build.count_light_nodes(other, 2, "south")
    foreign = build.header_file(other, world.sealed, (world.chain.agent,), "south").witnessing
    assert foreign.area == "south"
    with pytest.raises(Refused, match="wrong_area"):
        proof.check_proof(proof.encode(made._replace(witnesses=foreign)), world.chain.genesis, verify_digest)


def test_each_forged_witness_has_its_reason(world: World) -> None:
    chain = world.chain
    stranger = build.test_key("stranger")
    of_agent = chain.bucket(state.agent_key(chain.kid_of(chain.agent)))
    later = bytearray(world.good.header)
    later[40] ^= 1
    raised = bytearray(world.sign(chain.agent))
    raised[-32:] = (cose.ORDER - int.from_bytes(raised[-32:], "big")).to_bytes(32, "big")
    own = world.row(chain.agent)
    assert {name: world.reason(world.with_rows(row)) for name, row in {
        "another's signature": own._replace(message=world.sign(chain.other, kid=chain.kid_of(chain.agent))),
        "a stranger": world.row(stranger),
        "a stranger beside a true record": world.row(stranger)._replace(bucket=of_agent),
        "revoked": world.row(world.odd["revoked"]),
        "no light node": world.row(world.odd["auditor"]),
        "another area's": world.row(world.odd["south"]),
        "another chain": own._replace(message=world.sign(chain.agent, chain_id=bytes(32))),
        "another header": own._replace(message=world.sign(chain.agent, bytes(later))),
        "another channel": own._replace(message=world.sign(chain.agent, channel="credit")),
        "the other half's s": own._replace(message=bytes(raised)),
        "another record": own._replace(bucket=[(of_agent[0][0], cbor.encode([1]))]),
        "no record": own._replace(bucket=[]),
        "cut": own._replace(message=own.message[:-1]),
    }.items()} == {
        "another's signature": "bad_signature", "a stranger": "not_enrolled",
        "a stranger beside a true record": "wrong_state", "revoked": "revoked", "no light node": "not_permitted",
        "another area's": "wrong_area", "another chain": "bad_signature", "another header": "wrong_header",
        "another channel": "wrong_channel", "the other half's s": "high_s", "another record": "not_included",
        "no record": "not_included", "cut": "malformed"}


def test_nobody_counts_twice_and_n_is_the_states(world: World) -> None:
    both = world.good.witnessing.signatures
    assert world.reason(world.with_rows(both[0], both[0])) == "duplicate_signer"
    assert world.reason(world.with_rows(both[1], both[0])) == "duplicate_signer"
    tree = world.chain.state_tree()
    smaller = world.good.witnessing._replace(bucket=[(state.light_key("home"), cbor.encode(1))])
    assert world.reason(world.good._replace(witnessing=smaller)) == "not_included"
    nowhere = state.light_key("nowhere")
    empty = headerfile.Witnessing("nowhere", world.chain.bucket(nowhere),
                                  merkle.path(tree, state.bucket_of(nowhere)), [])
    report = headerfile.check_file(headerfile.encode(world.good._replace(witnessing=empty)), world.chain.genesis,
                                   verify_digest)
    assert report.counted == ("nowhere", [], 0), "an area without an entry has no light nodes: that is proven as well"
    few = World()
    build.count_light_nodes(few.chain, 1)  # a state that contradicts itself
    made = build.header_file(few.chain, few.sealed, (few.chain.agent, few.chain.other))
    assert few.reason(made) == "wrong_count"


def test_what_is_around_the_signatures(world: World) -> None:
    good, chain = world.good, world.chain
    other = build.Chain(name="two")
    few = certificate.encode(chain.certify(good.header, (0, 1)))
    assert world.reason(good._replace(chain_id=other.chain_id)) == "wrong_chain"
    assert world.reason(good._replace(certificate=few)) == "too_few_signers"
    assert world.reason(good._replace(meta_path=good.meta_path[:-1])) == "not_included"
    assert world.reason(good._replace(name="gridseal-proof")) == "wrong_version"
    assert world.reason(good._replace(witnessing=good.witnessing._replace(area="No Area"))) == "malformed"
    swapped = good.witnessing._replace(bucket=[(b"b", b""), (b"a", b"")])
    assert world.reason(good._replace(witnessing=swapped)) == "malformed"
    with pytest.raises(Refused, match="oversize"):
        headerfile.decode(bytes(headerfile.FILE_BYTES + 1))
    for data in (b"", headerfile.encode(good)[:-1], headerfile.encode(good) + b"\0"):
        with pytest.raises(Refused, match="malformed"):
            headerfile.decode(data)
