"""The proof file: a true one is good, every flipped bit and every well-made forgery is refused for its own reason."""

import pytest

from firmware.crypto.openssl import verify_digest
from firmware.wire import certificate, cose, header, merkle, proof, seal
from firmware.wire.errors import Refused
from tests.wire import build


def check(chain: build.Chain, made: proof.Proof) -> proof.Report:
    return proof.check_proof(proof.encode(made), chain.genesis, verify_digest)


def reason(chain: build.Chain, made: proof.Proof) -> str:
    with pytest.raises(Refused) as caught:
        check(chain, made)
    return caught.value.reason


@pytest.fixture(scope="module")
def chain() -> build.Chain:
    return build.Chain()


def sealed_by(chain: build.Chain, **changes: object) -> tuple[bytes, list[bytes]]:
    items = build.three_readings(chain.kid_of(chain.agent))
    made = build.make_seal(chain.kid_of(chain.agent), 7, 4, b"\x22" * 32, items)._replace(**changes)
    return chain.sign_seal(made, chain.agent), items


def test_true_proof(chain: build.Chain) -> None:
    sealed, items = sealed_by(chain)
    for which in range(3):
        report = check(chain, chain.prove(sealed, items, which))
        assert report.reading.entries[0].value == 1234 + which
        assert (report.signers, report.members, report.marks) == (3, 4, 0)
    marked = check(chain, chain.prove(sealed, items, results=(256 + 5, 0)))
    assert marked.marks == 5
    of_seal = proof.without_reading(proof.encode(chain.prove(sealed, items)))
    assert proof.check_proof(of_seal, chain.genesis, verify_digest).reading is None


def test_every_flipped_bit_is_refused(chain: build.Chain) -> None:
    sealed, items = sealed_by(chain)
    data = proof.encode(chain.prove(sealed, items, 1))
    for bit in range(len(data) * 8):
        changed = bytearray(data)
        changed[bit >> 3] ^= 1 << (bit & 7)
        with pytest.raises(Refused):
            proof.check_proof(bytes(changed), chain.genesis, verify_digest)


def test_cut_and_lengthened_files(chain: build.Chain) -> None:
    sealed, items = sealed_by(chain)
    data = proof.encode(chain.prove(sealed, items))
    for changed in (b"", data[:-1], data + b"\0", data * 2, bytes(proof.PROOF_BYTES + 1)):
        with pytest.raises(Refused) as caught:
            proof.check_proof(changed, chain.genesis, verify_digest)
        assert caught.value.reason in ("malformed", "oversize")


def test_another_enrolled_key(chain: build.Chain) -> None:
    items = build.three_readings(chain.kid_of(chain.agent))
    made = build.make_seal(chain.kid_of(chain.agent), 7, 4, bytes(32), items)
    assert reason(chain, chain.prove(chain.sign_seal(made, chain.other), items)) == "bad_signature"
    own = build.three_readings(chain.kid_of(chain.other))
    stolen = build.make_seal(chain.kid_of(chain.other), 7, 4, bytes(32), own)
    assert reason(chain, chain.prove(chain.sign_seal(stolen, chain.other), own)) == "not_its_point"


def test_a_key_nobody_enrolled(chain: build.Chain) -> None:
    stranger = build.test_key("stranger")
    items = build.three_readings(chain.kid_of(stranger))
    made = build.make_seal(chain.kid_of(stranger), 7, 4, bytes(32), items)
    assert reason(chain, chain.prove(chain.sign_seal(made, stranger), items)) == "not_enrolled"


def test_another_chain(chain: build.Chain) -> None:
    other = build.Chain(name="two")
    items = build.three_readings(chain.kid_of(chain.agent))
    made = build.make_seal(chain.kid_of(chain.agent), 7, 4, bytes(32), items)
    assert reason(chain, other.prove(other.sign_seal(made, other.agent), items)) == "wrong_chain"
    renamed = other.prove(other.sign_seal(made, other.agent), items)._replace(chain_id=chain.chain_id)
    assert reason(chain, renamed) == "wrong_chain"
    foreign_seal = chain.sign_seal(made, chain.agent, other.chain_id)
    assert reason(chain, chain.prove(foreign_seal, items)) == "bad_signature"


def test_another_point_or_reading(chain: build.Chain) -> None:
    sealed, items = sealed_by(chain)
    made = chain.prove(sealed, items)
    other = build.three_readings(chain.kid_of(chain.agent), 8)
    assert reason(chain, made._replace(reading=other[0])) == "wrong_reading"
    assert reason(chain, made._replace(reading=items[1])) == "not_included"
    assert reason(chain, made._replace(reading_index=1)) == "not_included"
    late = build.reading.encode(build.make_reading(chain.kid_of(chain.agent), 7, 1))
    assert reason(chain, made._replace(reading=late)) == "wrong_times"


def test_another_height(chain: build.Chain) -> None:
    sealed, items = sealed_by(chain)
    made = chain.prove(sealed, items)
    top = header.decode(made.header)
    raised = header.encode(top._replace(height=top.height + 1))
    assert reason(chain, made._replace(header=raised)) == "wrong_height"
    moved = certificate.encode(chain.certify(made.header, (0, 1, 2), height=6))
    assert reason(chain, made._replace(certificate=moved)) == "wrong_height"


def test_forged_certificates(chain: build.Chain) -> None:
    sealed, items = sealed_by(chain)
    made = chain.prove(sealed, items)
    good = chain.certify(made.header, (0, 1, 2))

    def with_certificate(changed: certificate.Certificate) -> str:
        return reason(chain, made._replace(certificate=certificate.encode(changed)))

    assert with_certificate(chain.certify(made.header, (0, 1))) == "too_few_signers"
    assert with_certificate(chain.certify(made.header, (0, 1, 2), epoch=1)) == "wrong_epoch"
    assert with_certificate(chain.certify(made.header, (0, 1, 2), channel="credit")) == "wrong_channel"
    assert with_certificate(chain.certify(made.header, (0, 1, 2), chain_id=bytes(32))) == "bad_signature"
    assert with_certificate(good._replace(signers=(0, 1, 3))) == "bad_signature"
    assert with_certificate(good._replace(signers=(0, 1, 4))) == "unknown_signer"
    assert with_certificate(good._replace(signers=(0, 1), signatures=good.signatures[:2] + good.signatures[1:2])
                            ) == "duplicate_signer"
    double = good._replace(signatures=good.signatures[:2] + good.signatures[1:2])
    assert with_certificate(double) == "bad_signature"
    stranger = header.encode(header.decode(made.header)._replace(view=1))
    assert with_certificate(chain.certify(stranger, (0, 1, 2))) == "wrong_header"


def test_one_signer_twice_in_a_decoded_certificate(chain: build.Chain) -> None:
    sealed, items = sealed_by(chain)
    top = chain.prove(sealed, items).header
    twice = chain.certify(top, (0, 1, 1))
    with pytest.raises(Refused) as caught:
        certificate.check_certificate(twice, top, chain.members, 0, "trade", chain.chain_id, verify_digest)
    assert caught.value.reason == "duplicate_signer"


def test_refused_seal_proves_nothing(chain: build.Chain) -> None:
    sealed, items = sealed_by(chain)
    assert reason(chain, chain.prove(sealed, items, results=(17, 0))) == "not_accepted"
    made = chain.prove(sealed, items, results=(17, 0))
    assert reason(chain, made._replace(results=[0, 0])) == "wrong_digest"
    assert reason(chain, made._replace(results=[17, 0, 0])) == "wrong_count"


def test_forged_state(chain: build.Chain) -> None:
    sealed, items = sealed_by(chain)
    made = chain.prove(sealed, items)
    assert reason(chain, made._replace(bucket=[])) == "not_included"
    foreign = [(b"not in this bucket", b"")]
    assert reason(chain, made._replace(bucket=foreign)) in ("wrong_state", "not_included")
    assert reason(chain, made._replace(bucket_path=made.bucket_path[:-1])) == "wrong_state"


def test_another_set_of_replicas(chain: build.Chain) -> None:
    seven = build.Chain(7)
    items = build.three_readings(seven.kid_of(seven.agent))
    made = build.make_seal(seven.kid_of(seven.agent), 7, 4, bytes(32), items)
    proven = seven.prove(seven.sign_seal(made, seven.agent), items, signers=(0, 1, 2, 3, 4))
    assert check(seven, proven).signers == 5
    assert reason(chain, proven) == "wrong_chain"


def test_one_replica(chain: build.Chain) -> None:
    alone = build.Chain(1)
    items = build.three_readings(alone.kid_of(alone.agent))
    made = build.make_seal(alone.kid_of(alone.agent), 7, 1, bytes(32), items)
    proven = alone.prove(alone.sign_seal(made, alone.agent), items, signers=(0,))
    assert (check(alone, proven).signers, check(alone, proven).members) == (1, 1)


def test_quorums() -> None:
    expected = {1: 1, 2: 2, 3: 2, 4: 3, 5: 4, 6: 4, 7: 5, 8: 6, 9: 6, 10: 7, 11: 8, 12: 8, 13: 9}
    assert {n: certificate.quorum(n) for n in expected} == expected


def test_seal_kid_must_be_the_signers(chain: build.Chain) -> None:
    sealed, items = sealed_by(chain)
    signed = cose.parse(sealed)
    renamed = cose.assemble(chain.kid_of(chain.other), signed.payload, signed.signature)
    made = chain.prove(renamed, items)
    assert reason(chain, made) == "wrong_key"
    assert merkle.root(items) == seal.decode(signed.payload).root
