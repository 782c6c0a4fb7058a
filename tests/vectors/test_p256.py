"""Checks both implementations of P-256 with Wycheproof's files, whole, and RFC 6979's."""

import pytest

from firmware.crypto import openssl, p256, p256_key
from firmware.crypto.openssl import OpenSSLSigner
from firmware.crypto.signer import SoftwareSigner
from tests.vectors import cases


@pytest.mark.parametrize("verify", [p256.verify_digest, openssl.verify_digest], ids=["pure", "openssl"])
def test_wycheproof_raw(verify) -> None:
    vectors = cases.wycheproof(cases.WYCHEPROOF_RAW)
    wrong = [case.name for case in vectors if verify(case.public65, case.h32, case.signature) is not case.is_good]
    assert not wrong and len(vectors) == 262


def test_wycheproof_raw_with_the_keys_own_table() -> None:
    tables: dict[bytes, bytearray] = {}
    for case in cases.wycheproof(cases.WYCHEPROOF_RAW):
        if case.public65 not in tables:
            tables[case.public65] = p256_key.make_table(case.public65)
        verdict = p256.verify_digest(case.public65, case.h32, case.signature, tables[case.public65])
        assert verdict is case.is_good, case.name


def test_wycheproof_der() -> None:
    vectors = cases.wycheproof(cases.WYCHEPROOF_DER)
    wrong = [case.name for case in vectors
             if openssl.verify_der(case.public65, case.h32, case.signature) is not case.is_good]
    assert not wrong and len(vectors) == 484


def test_rfc6979() -> None:
    for case in cases.rfc6979():
        low_s = min(case.s, p256.N - case.s)
        for signer in (SoftwareSigner(case.d32), OpenSSLSigner.from_scalar(case.d32)):
            assert signer.public_key() == case.public65
            sig64 = signer.sign_digest(case.h32)
            assert (int.from_bytes(sig64[:32], "big"), int.from_bytes(sig64[32:], "big")) == (case.r, low_s)
