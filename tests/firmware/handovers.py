"""Makes a chain whose validators change, and what a liar could say about it: for light nodes on any interpreter.

A step is (operation, data, data, what the node is to say); operations: `accept` header and certificate, `follow` a
handover, `restart` from the saved state.
"""

from __future__ import annotations

import hashlib
from typing import Any

from firmware.crypto.openssl import OpenSSLSigner
from firmware.wire import cbor, certificate, cose, epochs, header, identity
from tests.firmware.world import DAY_MS, Chain

NOW_S = DAY_MS // 1000
Step = tuple[str, bytes, bytes, str]


def signer_of(name: str) -> OpenSSLSigner:
    return OpenSSLSigner.from_scalar(hashlib.sha256(b"test member " + name.encode()).digest())


class ChangingChain(Chain):
    """A chain that can hand over to another set."""

    def __init__(self) -> None:
        super().__init__()
        self.epoch = 0

    def block(self, time_s: int = 0) -> bytes:
        """The next header, which becomes the tip."""
        height = header.decode(self.tip).height + 1
        self.tip = self.header([b"leaf %d" % height], time_s or NOW_S - 3600 + 60 * height)
        return self.tip

    def proof(self, top: bytes, **how: Any) -> bytes:
        return self.certify(top, epoch=how.pop("epoch", self.epoch), **how)

    def others(self, count: int = 1) -> list[OpenSSLSigner]:
        """The signers of a next set: `count` of the first are replaced, in the order of their kids."""
        made = self.signers[count:] + [signer_of(f"{self.epoch} {at}") for at in range(count)]
        return sorted(made, key=lambda one: identity.kid_of(one.public_key()))

    def members_of(self, signers: list[OpenSSLSigner]) -> list[certificate.Member]:
        kids = {one.public_key(): identity.kid_of(one.public_key()) for one in signers}
        return [certificate.Member(kids[one.public_key()], one.public_key(), bytes(32)) for one in signers]

    def handover(self, signers: list[OpenSSLSigner], certify: dict[str, Any] | None = None, time_s: int = 0,
                 **changes: Any) -> epochs.Handover:
        """The block after the tip, which names the next set; `changes` to its meta; not the tip yet."""
        height = header.decode(self.tip).height + 1
        rows = certificate.member_lists(self.members_of(signers))
        meta = header.Meta(1, "trade", self.chain_id, self.epoch, height, 0, bytes(32), bytes(32),
                           certificate.set_hash(self.members), certificate.set_hash(self.members_of(signers)), rows,
                           bytes(32))._replace(**changes)
        leaf = header.encode_meta(meta)
        top = self.header([leaf], time_s or NOW_S - 3600 + 60 * height)
        return epochs.Handover(top, self.proof(top, **(certify or {})), leaf, [])

    def change(self, found: epochs.Handover, signers: list[OpenSSLSigner]) -> None:
        """The handover is the chain's: from here on the others sign."""
        self.tip = found.header
        self.signers, self.members = signers, self.members_of(signers)
        self.epoch += 1


def recoded(data: bytes, field: int, value: Any) -> bytes:
    fields = cbor.decode(data)
    fields[field] = value
    return cbor.encode(fields)


def false_handovers(chain: ChangingChain) -> list[Step]:
    """What does not make a light node of `chain` believe in another set."""
    next_ones, two = chain.others(), chain.others(2)
    own = certificate.member_lists(chain.members_of(next_ones))
    good = chain.handover(next_ones)
    said = [
        (chain.handover(next_ones, {"signers": [0, 1]}), "too_few_signers"),
        (chain.handover(next_ones, {"chain_id": bytes(32)}), "bad_signature"),
        (chain.handover(next_ones, {"channel": "credit"}), "wrong_channel"),
        (chain.handover(next_ones, {"epoch": chain.epoch + 1}), "wrong_epoch"),
        (chain.handover(next_ones, channel="credit"), "wrong_channel"),
        (chain.handover(next_ones, chain_id=bytes(32)), "wrong_chain"),
        (chain.handover(next_ones, epoch=chain.epoch + 1), "wrong_epoch"),
        (chain.handover(next_ones, height=99), "wrong_height"),
        (chain.handover(next_ones, set_hash=bytes(32)), "wrong_set"),
        (chain.handover(next_ones, next_set=None), "wrong_set"),
        (chain.handover(next_ones, next_set_hash=bytes(32)), "wrong_set"),
        (chain.handover(next_ones, next_set=own[::-1]), "wrong_set"),
        (chain.handover(two), "wrong_set"),  # of four, one may change at a time
        (chain.handover(chain.signers), "wrong_set"),
        (good._replace(meta=recoded(good.meta, 6, b"\x01" * 32)), "not_included"),
        (good._replace(meta_path=[bytes(32)]), "not_included"),
        (good._replace(certificate=self_made(chain, good.header, next_ones)), "bad_signature"),
        (good._replace(certificate=recoded(good.certificate, 6, [])), "malformed"),
        (chain.handover(next_ones, time_s=NOW_S + 3600), "wrong_time"),
        (chain.handover(next_ones, time_s=1), "wrong_time"),
    ]
    steps = [("follow", epochs.encode(found), b"", reason) for found, reason in said]
    return [*steps, ("follow", epochs.encode(good)[:-1], b"", "malformed")]


def self_made(chain: ChangingChain, top: bytes, signers: list[OpenSSLSigner]) -> bytes:
    """A certificate under the present epoch by others than its set."""
    digest = cose.digest(certificate.vote_payload(chain.epoch, "trade", header.decode(top).height,
                                                  header.hash_of(top)), "header", chain.chain_id)
    return certificate.encode(certificate.Certificate(
        chain.epoch, "trade", header.decode(top).height, header.hash_of(top), (0, 1, 2),
        tuple(one.sign_digest(digest) for one in signers[:3])))


def false_certificates(chain: ChangingChain, old: ChangingChain, top: bytes) -> list[Step]:
    """What does not prove a header above the handover; `old`: the chain before it, with the retired set's keys."""
    good = chain.proof(top)
    signatures = list(certificate.decode(good).signatures)
    height = header.decode(top).height
    said = [
        (old.certify(top, epoch=chain.epoch - 1), "wrong_epoch"),  # the retired set, as it signed while it was in force
        (old.certify(top, epoch=chain.epoch), "bad_signature"),  # and as if it still were
        (recoded(good, 6, [*certificate.decode(old.certify(top, epoch=chain.epoch)).signatures[:1], *signatures[1:]]),
         "bad_signature"),
        (chain.proof(top, epoch=chain.epoch + 1), "wrong_epoch"),
        (chain.proof(top, signers=[0, 2]), "too_few_signers"),
        (chain.proof(top, chain_id=bytes(32)), "bad_signature"),
        (chain.proof(top, channel="credit"), "wrong_channel"),
        (recoded(good, 3, height + 1), "wrong_height"),
        (recoded(good, 4, bytes(32)), "wrong_header"),
        (recoded(recoded(good, 5, b"\x23"), 6, signatures), "unknown_signer"),
        (recoded(good, 6, [*signatures, signatures[0]]), "duplicate_signer"),
        (recoded(good, 6, signatures[::-1]), "bad_signature"),
        (recoded(good, 0, 2), "wrong_version"),
    ]
    return [("accept", top, proof, reason) for proof, reason in said]


def story() -> tuple[bytes, list[Step]]:
    """(genesis, steps): two changes of the set with every lie before and after each, and restarts."""
    chain = ChangingChain()
    steps: list[Step] = []
    late = b""
    for _ in range(2):
        top = chain.block()
        steps.append(("accept", top, chain.proof(top), f"height {header.decode(top).height}, epoch {chain.epoch}"))
        steps += false_handovers(chain)
        signers, old = chain.others(), ChangingChain()
        old.signers, old.members = chain.signers, chain.members
        skipped = chain.block()  # nobody shows it to the node before the change; its ack comes late
        late = chain.proof(skipped)
        found = chain.handover(signers)
        chain.change(found, signers)
        steps.append(("follow", epochs.encode(found), b"",
                      f"height {header.decode(found.header).height}, epoch {chain.epoch}"))
        steps.append(("follow", epochs.encode(found), b"", "wrong_epoch"))  # not twice
        steps.append(("restart", b"", b"", f"height {header.decode(found.header).height}, epoch {chain.epoch}"))
        steps.append(("accept", skipped, late, f"height {header.decode(found.header).height}, epoch {chain.epoch}"))
        top = chain.block()
        steps += false_certificates(chain, old, top)
        steps.append(("accept", top, chain.proof(top), f"height {header.decode(top).height}, epoch {chain.epoch}"))
    return chain.genesis, steps
