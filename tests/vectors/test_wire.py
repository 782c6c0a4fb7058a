"""Checks the codec, COSE and trees of firmware/wire with the vectors of their standards."""

import hashlib

import cbor2
import pytest

from firmware.crypto import openssl, p256
from firmware.wire import cbor, cose, merkle
from firmware.wire.errors import Refused
from tests.vectors import cases


def test_cbor_appendices() -> None:
    accepted = 0
    for data, is_ours in cases.cbor():
        if is_ours:
            value = cbor.decode(data)
            assert value == cbor2.loads(data) and cbor.encode(value) == data, data.hex()
            accepted += 1
        else:
            with pytest.raises(Refused) as refusal:
                cbor.decode(data)
            assert refusal.value.reason in ("malformed", "too_deep"), data.hex()
    assert accepted == 34  # of appendix A, counted by hand


def test_merkle_hashes_and_roots() -> None:
    content = cases.load(cases.HASHER)
    for vector in content["hasher"]:
        made = {"empty_root": lambda vector: merkle.root([]),
                "leaf": lambda vector: merkle.leaf_hash(bytes.fromhex(vector["data"])),
                "node": lambda vector: merkle.node_hash(bytes.fromhex(vector["left"]), bytes.fromhex(vector["right"]))}
        assert made[vector["op"]](vector).hex() == vector["want"]
    leaves = [bytes.fromhex(leaf) for leaf in content["reference_leaves_hex"]]
    for size, root in enumerate(content["roots_hex_size_1_to_8"], 1):
        assert merkle.root(leaves[:size]).hex() == root
        hashes = [merkle.leaf_hash(leaf) for leaf in leaves[:size]]
        for index in range(size):
            merkle.check_path(hashes[index], index, size, merkle.path(hashes, index), bytes.fromhex(root))


def test_merkle_inclusion() -> None:
    vectors = cases.inclusion()
    for case in vectors:
        try:
            merkle.check_path(case.leaf_hash, case.at, case.size, case.path, case.root)
            verdict = True
        except Refused as refusal:
            assert refusal.reason == "not_included"
            verdict = False
        assert verdict is case.is_good, case.name
    assert len(vectors) == 98


def test_cose_form() -> None:
    for case in cases.cose():
        if case.has_our_form:
            signed = cose.parse(case.message)
            assert (signed.kid, signed.signature) == (b"kid of 8", case.signature), case.name
            assert cose.assemble(*signed) == cose.normalise(case.message)
        else:
            with pytest.raises(Refused, match="malformed"):
                cose.parse(case.message)


@pytest.mark.parametrize("verify", [p256.verify_digest, openssl.verify_digest], ids=["pure", "openssl"])
def test_cose_signatures(verify) -> None:
    for case in cases.cose():
        if case.public65 is not None:
            h32 = hashlib.sha256(case.to_be_signed).digest()
            assert verify(case.public65, h32, case.signature) is case.is_signed, case.name


def test_what_we_sign_is_the_sig_structure_of_the_vectors() -> None:
    # The vectors have other external data than ours; the structure around it is the same.
    chain_id = bytes(range(32))
    for kind in cose.KINDS:
        for payload in (b"", b"This is the content.", bytes(300), bytes(70_000)):
            external = cbor2.dumps(["gridseal", 1, chain_id, kind])
            structure = cbor2.dumps(["Signature1", b"\xa1\x01\x26", external, payload])
            assert cose.digest(payload, kind, chain_id) == hashlib.sha256(structure).digest()
    for case in cases.cose():
        if case.has_our_form:
            signed = cose.parse(case.message)
            structure = cbor.encode(["Signature1", b"\xa1\x01\x26", case.external, signed.payload])
            assert structure == case.to_be_signed, case.name
