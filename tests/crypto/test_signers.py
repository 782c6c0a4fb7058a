"""Checks that every signer keeps the interface's promises: software, OpenSSL and the double of a secure element."""

import hashlib
import os
from pathlib import Path

import pytest

from firmware.crypto import openssl, p256
from firmware.wire import ack as ack_codec
from firmware.wire import cose
from tests.crypto import signers
from tests.crypto.signers import D32, ElementDouble
from tests.firmware.world import Gateway, Rig
from tests.micropython.interpreter import Run, run

SCRIPT = Path(signers.__file__)
KINDS = ("software", "openssl", "element")


def lines(kind: str) -> list[str]:
    return list(signers.examine(*signers.make(kind)))


@pytest.mark.parametrize("kind", KINDS)
def test_a_signer_keeps_the_interfaces_promises(kind: str) -> None:
    found = lines(kind)
    assert not [line for line in found[:-1] if "False" in line or "were signed" in line], "\n".join(found)
    assert found[-1] == f"deterministic {kind != 'element'}" and len(found) == 23
    assert found[:-1] == lines("software")[:-1]


@pytest.mark.parametrize("kind", ["software", "element"])
def test_the_same_in_every_micropython(kind: str, micropython: Run) -> None:
    for done in (micropython(SCRIPT, kind), run("1.29", SCRIPT, kind)):
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.splitlines() == lines(kind)


def test_the_shared_test_can_fail() -> None:
    class Stuck(ElementDouble):
        """Says that it draws its nonces, and does not: what would give its key away over two digests."""

        def sign_digest(self, h32: bytes) -> bytes:
            self._random_bytes = lambda length: hashlib.sha256(b"always the same").digest()
            return super().sign_digest(h32)

    found = list(signers.examine(Stuck(D32, os.urandom), p256.verify_digest))
    assert "as it says of itself False" in found


def test_the_double_fails_like_a_thing_on_a_wire_and_then_goes_on() -> None:
    double, h32 = ElementDouble(D32, os.urandom, failures=1), hashlib.sha256(b"digest").digest()
    with pytest.raises(OSError, match="no answer"):
        double.sign_digest(h32)
    assert openssl.verify_digest(double.public_key(), h32, double.sign_digest(h32))


def test_the_double_gives_both_halves_of_s() -> None:
    double = ElementDouble(D32, os.urandom)
    h32 = hashlib.sha256(b"digest").digest()
    halves = {int.from_bytes(double.sign_digest(h32)[32:], "big") <= openssl.HALF_N for _ in range(60)}
    assert halves == {True, False}, "chance of one half alone: 2^-59"


class NamingGateway(Gateway):
    """Says in its acks which signature is in the block, as the product's does."""

    def ack(self, time_s: int) -> bytes:
        leaves = [leaf for _, _, leaf in self.pending]
        ack = ack_codec.decode(super().ack(time_s))
        named = [proof._replace(signature=cose.parse(leaf).signature) for proof, leaf in zip(ack.proofs, leaves)]
        return ack_codec.encode(ack._replace(proofs=named))


def test_an_agent_with_random_nonces_lives_through_power_cuts() -> None:
    """The same payload is signed again with another signature; the ledger took the first, and the ack covers it."""
    rig = Rig(points=2)
    rig.signer = ElementDouble(hashlib.sha256(b"test agent 0").digest(), os.urandom)  # type: ignore[assignment]
    rig.gateway = NamingGateway(rig.chain, rig.signer.public_key())
    for _ in range(3):
        rig.boot()
        rig.connect()
        rig.minutes(3)  # published and never acked: after the cut they are signed and sent again
    rig.minutes(4, ack_every=1)
    assert rig.gateway.doubles == 0 and len(rig.gateway.readings) >= 2 * 13
    assert not rig.agent.outbox.items and rig.agent.counts["bad_acks"] == 0
