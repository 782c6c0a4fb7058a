"""Acks and headers: nothing is trimmed for less than a proof, and each forgery is refused for its own reason."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from firmware import agent as agent_module
from firmware.crypto.openssl import verify_digest
from firmware.lightnode import LightNode
from firmware.wire import ack as ack_codec
from firmware.wire import certificate, cose, header, merkle
from firmware.wire.errors import Refused
from tests.firmware.world import DAY_MS, Chain, Rig

NOW_S = DAY_MS // 1000 + 60


def published(points: int = 1) -> Rig:
    """A rig with one unacked seal a point at the gateway."""
    rig = Rig(points=points)
    rig.connect()
    rig.turn()
    assert rig.gateway.pending
    return rig


def parts(rig: Rig) -> ack_codec.Ack:
    return ack_codec.decode(rig.gateway.ack(NOW_S))


def give(rig: Rig, ack: ack_codec.Ack | bytes) -> str:
    """Hands an ack over; returns the alarm it raised, "" for none."""
    before = len(rig.alarms)
    data = ack if isinstance(ack, bytes) else ack_codec.encode(ack)
    duties: list[Any] = rig.agent.on_ack(data, NOW_S, rig.wait_ms)
    trims = [duty for duty in duties if isinstance(duty, agent_module.Trim)]
    acks = [duty for duty in duties if isinstance(duty, agent_module.Append)]
    rig.obey(duties)
    text = rig.alarms[-1] if len(rig.alarms) > before else ""
    if text:
        assert not trims and not acks, "trimmed for a forgery"
        assert rig.agent.outbox.items
    return text


def resigned(chain: Chain, ack: ack_codec.Ack, **how: Any) -> ack_codec.Ack:
    return ack._replace(certificate=chain.certify(ack.header, **how))


FORGERIES = {
    "too few signers": ("too_few_signers", lambda rig, ack: resigned(rig.chain, ack, signers=[0, 2])),
    "another chain": ("bad_signature", lambda rig, ack: resigned(rig.chain, ack, chain_id=bytes(32))),
    "another epoch": ("wrong_epoch", lambda rig, ack: resigned(rig.chain, ack, epoch=1)),
    "another channel": ("wrong_channel", lambda rig, ack: resigned(rig.chain, ack, channel="credit")),
    "another cluster": ("bad_signature", lambda rig, ack: resigned(Chain(4, DAY_MS // 1000), ack, chain_id=b"x" * 32)),
    "another header": ("wrong_header", lambda rig, ack: ack._replace(
        certificate=rig.chain.certify(rig.chain.header([b"y"], NOW_S, height=header.decode(ack.header).height)))),
    "another height": ("wrong_height", lambda rig, ack: ack._replace(
        certificate=rig.chain.certify(rig.chain.header([b"y"], NOW_S)))),
    "no such signer": ("unknown_signer", lambda rig, ack: with_signers(rig, ack, (0, 1, 9))),
    "time in the future": ("wrong_time", lambda rig, ack: at_time(rig, ack, NOW_S + 11)),
    "time before the parent's": ("wrong_time", lambda rig, ack: at_time(rig, ack, DAY_MS // 1000 - 3601)),
    "another parent": ("wrong_parent", lambda rig, ack: on_parent(rig, ack)),
    "a proof of another leaf": ("not_included", lambda rig, ack: with_proof(ack, index=0)),
    "a path cut short": ("not_included", lambda rig, ack: with_proof(ack, path=[])),
    "another point": ("not_its_point", lambda rig, ack: with_proof(ack, point=77)),
    "a height never sealed": ("wrong_height", lambda rig, ack: with_proof(ack, height=5)),
    "a stranger's signature": ("bad_signature", lambda rig, ack: with_proof(ack, signature=bytes(63) + b"\x01",
                                                                                     path=[])),
    "not an ack": ("malformed", lambda rig, ack: b"\x80"),
    "nested too deep": ("too_deep", lambda rig, ack: b"\x81" * 30 + b"\x80"),
    "larger than a message": ("oversize", lambda rig, ack: bytes(ack_codec.ACK_BYTES + 1)),
}


def with_signers(rig: Rig, ack: ack_codec.Ack, signers: tuple[int, ...]) -> ack_codec.Ack:
    found = certificate.decode(ack.certificate)
    return ack._replace(certificate=certificate.encode(found._replace(signers=signers)))


def remade(rig: Rig, ack: ack_codec.Ack, **fields: Any) -> ack_codec.Ack:
    changed = header.encode(header.decode(ack.header)._replace(**fields))
    return ack._replace(header=changed, certificate=rig.chain.certify(changed))


def at_time(rig: Rig, ack: ack_codec.Ack, time_s: int) -> ack_codec.Ack:
    return remade(rig, ack, time_s=time_s)


def on_parent(rig: Rig, ack: ack_codec.Ack) -> ack_codec.Ack:
    return remade(rig, ack, previous=hashlib.sha256(b"no parent").digest())


def with_proof(ack: ack_codec.Ack, **fields: Any) -> ack_codec.Ack:
    return ack._replace(proofs=[ack.proofs[0]._replace(**fields)])


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_ack_trims_nothing(name: str) -> None:
    rig = published()
    good = parts(rig)
    reason, forge = FORGERIES[name]
    height = rig.light.height
    assert reason in give(rig, forge(rig, good))
    if reason in ("not_included", "not_its_point", "bad_signature", "wrong_height") and "proof" in name:
        assert rig.light.height == height + 1, "the header was good"
    assert rig.agent.status(0)["bad_acks"] == 1
    assert give(rig, good) == "", "and the good one is still taken"
    assert not rig.agent.outbox.items


def test_one_bad_proof_spoils_no_other() -> None:
    rig = published(points=2)
    good = parts(rig)
    rig.obey(rig.agent.on_ack(ack_codec.encode(good._replace(proofs=[
        good.proofs[0]._replace(index=0), good.proofs[1]])), NOW_S, 0))
    assert [sealed.point for sealed in rig.agent.outbox.items] == [good.proofs[0].point]


def test_every_flipped_bit_of_an_ack_is_refused_or_harmless() -> None:
    """A bit flip may at most turn advice into other advice: it never trims."""
    rig = published()
    data = rig.gateway.ack(NOW_S)
    for bit in range(0, 8 * len(data), 5):
        flipped = bytearray(data)
        flipped[bit >> 3] ^= 1 << (bit & 7)
        rig.obey(rig.agent.on_ack(bytes(flipped), NOW_S, 0))
        assert rig.agent.outbox.items, f"bit {bit} was accepted"
    rig.obey(rig.agent.on_ack(data, NOW_S, 0))
    assert not rig.agent.outbox.items


def test_the_committed_signature_is_the_leafs() -> None:
    """A signer with random nonces signed twice; the block holds the other signature: the proof is built with it."""
    rig = published()
    point, height, leaf = rig.gateway.pending[0]
    payload = cose.parse(leaf).payload
    random_signer = RandomSigner(rig)
    other = cose.sign1(payload, rig.kid, "seal", rig.chain.chain_id, random_signer.sign_digest)
    assert other != leaf
    rig.gateway.pending[0] = (point, height, other)
    good = parts(rig)
    assert "not_included" in give(rig, good)
    signature = cose.parse(other).signature
    assert give(rig, with_proof(good, signature=signature)) == ""
    assert not rig.agent.outbox.items


class RandomSigner:
    """The agent's key with nonces by chance."""

    deterministic = False

    def __init__(self, rig: Rig) -> None:
        self._key = rig.signer._private_key

    def sign_digest(self, digest: bytes) -> bytes:
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec, utils
        r, s = utils.decode_dss_signature(self._key.sign(digest, ec.ECDSA(utils.Prehashed(hashes.SHA256()))))
        return cose.low_s(r.to_bytes(32, "big") + s.to_bytes(32, "big"))


def test_advice_alone_trims_nothing() -> None:
    rig = published()
    advice = ack_codec.Ack(b"", b"", [], [ack_codec.Refusal(1, 1, "not_enrolled")], [ack_codec.Wanted(1, 1, 10**9)])
    rig.obey(rig.agent.on_ack(ack_codec.encode(advice), NOW_S, 0))
    assert rig.agent.outbox.items and rig.journal.trimmed == 0
    assert rig.agent.status(0)["refused"] == 1 and "enroll approve" in rig.agent.last_error
    many = [ack_codec.Refusal(1, height, "fork") for height in range(1, 40)]
    before = len(rig.alarms)
    rig.obey(rig.agent.on_ack(ack_codec.encode(ack_codec.Ack(b"", b"", [], many, [])), NOW_S, 0))
    assert len(rig.alarms) == before + 1


def test_two_certificates_for_one_height_stop_the_node_for_good() -> None:
    rig = published()
    good = parts(rig)
    other = rig.chain.header([b"another truth"], NOW_S, previous=header.decode(good.header).previous,
                             height=header.decode(good.header).height)
    rig.light.accept(other, rig.chain.certify(other), NOW_S)
    assert "contradiction" in " ".join(
        duty.text for duty in rig.agent.on_ack(ack_codec.encode(good), NOW_S, 0)
        if isinstance(duty, agent_module.Alarm)).lower() or rig.light.contradiction
    assert rig.light.contradiction is not None
    assert {pair[0] for pair in rig.light.contradiction} == {good.header, other}
    again = LightNode(rig.chain.genesis, verify_digest, rig.light.save())
    assert again.contradiction == rig.light.contradiction
    following = rig.chain.header([b"z"], NOW_S)
    with pytest.raises(Refused, match="contradiction"):
        again.accept(following, rig.chain.certify(following), NOW_S)
    assert rig.agent.outbox.items


def test_heights_may_be_skipped_and_filled_in() -> None:
    chain = Chain()
    light = LightNode(chain.genesis, verify_digest)
    made = []
    for number in range(6):
        chain.tip = chain.header([b"%d" % number], NOW_S - 60 + number)
        made.append((chain.tip, chain.certify(chain.tip)))
    light.accept(*made[2], NOW_S)
    assert light.height == 3
    light.accept(*made[5], NOW_S)
    assert light.height == 6
    light.accept(*made[3], NOW_S)  # late: proven all the same, and trust does not go back
    assert light.height == 6
    state = light.save()
    assert LightNode(chain.genesis, verify_digest, state).height == 6
    with pytest.raises(Refused, match="wrong_chain"):
        LightNode(Chain(1).genesis, verify_digest, state)


def test_an_unsynchronised_clock_skips_the_upper_bound_only() -> None:
    chain = Chain()
    light = LightNode(chain.genesis, verify_digest)
    far = chain.header([b"x"], NOW_S + 10**6)
    with pytest.raises(Refused, match="wrong_time"):
        light.accept(far, chain.certify(far), NOW_S)
    assert light.accept(far, chain.certify(far), None).height == 1


def test_every_signer_is_checked() -> None:
    chain = Chain()
    light = LightNode(chain.genesis, verify_digest)
    block = chain.header([b"x"], NOW_S)
    found = certificate.decode(chain.certify(block, [0, 1, 3]))
    for at in range(3):
        signatures = list(found.signatures)
        signatures[at] = signatures[at - 1]
        with pytest.raises(Refused, match="bad_signature"):
            light.accept(block, certificate.encode(found._replace(signatures=tuple(signatures))), NOW_S)
    assert merkle.root([b"x"]) == light.accept(block, certificate.encode(found), NOW_S).root
