"""Checks OpenSSL's signer: strict DER both ways, key files, the bound on kept keys, and python-ecdsa as an oracle."""

import hashlib
import os
import stat
from pathlib import Path

import ecdsa
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from hypothesis import given
from hypothesis import strategies as st

from firmware.crypto import openssl
from firmware.crypto.openssl import OpenSSLSigner

NUMBERS = st.one_of(st.integers(0, (1 << 256) - 1), st.integers(0, 256),
                    st.integers(0, 31).flatmap(lambda size: st.integers(0, (1 << 8 * size + 8) - 1)))
DIGEST = hashlib.sha256(b"message").digest()


@given(NUMBERS, NUMBERS)
def test_der_is_what_cryptography_writes_and_reads(r: int, s: int) -> None:
    sig64 = r.to_bytes(32, "big") + s.to_bytes(32, "big")
    der = openssl.encode_der(sig64)
    assert der == encode_dss_signature(r, s) and decode_dss_signature(der) == (r, s)
    assert openssl.decode_der(der) == sig64


@given(st.binary(max_size=80))
def test_only_the_one_encoding_is_read(data: bytes) -> None:
    sig64 = openssl.decode_der(data)
    assert sig64 is None or openssl.encode_der(sig64) == data


@given(NUMBERS, NUMBERS, st.integers(0, 71), st.integers(1, 255))
def test_a_changed_byte_is_refused_or_another_signature(r: int, s: int, position: int, change: int) -> None:
    der = bytearray(openssl.encode_der(r.to_bytes(32, "big") + s.to_bytes(32, "big")))
    der[position % len(der)] ^= change
    sig64 = openssl.decode_der(bytes(der))
    assert sig64 is None or openssl.encode_der(sig64) == bytes(der)


@pytest.mark.parametrize("text", [
    "", "30", "3000", "3006020101", "3006020101020101ff", "3007020101020101", "300602010102", "3106020101020101",
    "3006030101020101", "300702020001020101", "3006020180020101", "30060201ff020101", "308106020101020101",
    "30050200020101", "30060200020200", "3006027f01020101", "30060201010201",
], ids=str)
def test_what_is_not_strict_der_is_none(text: str) -> None:
    der = bytes.fromhex(text)
    assert openssl.decode_der(der) is None
    assert openssl.verify_der(OpenSSLSigner.generate().public_key(), DIGEST, der) is False


def test_a_stranger_verifies_our_signature_and_we_his() -> None:
    signer = OpenSSLSigner.generate()
    stranger = ecdsa.VerifyingKey.from_string(signer.public_key()[1:], curve=ecdsa.NIST256p)
    assert stranger.verify_digest(signer.sign_digest(DIGEST), DIGEST)
    his = ecdsa.SigningKey.generate(curve=ecdsa.NIST256p)
    public65 = b"\x04" + his.get_verifying_key().to_string()
    assert openssl.verify_digest(public65, DIGEST, his.sign_digest(DIGEST))
    d32 = his.to_string()
    assert OpenSSLSigner.from_scalar(d32).public_key() == public65
    theirs = his.sign_digest_deterministic(DIGEST, hashfunc=hashlib.sha256,
                                           sigencode=ecdsa.util.sigencode_string_canonize)
    assert OpenSSLSigner.from_scalar(d32).sign_digest(DIGEST) == theirs


def test_a_key_file_is_private_never_overwritten_and_gives_the_key_back(tmp_path: Path) -> None:
    signer, path = OpenSSLSigner.generate(), tmp_path / "signing.key"
    signer.save(path)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert OpenSSLSigner.load(path).sign_digest(DIGEST) == signer.sign_digest(DIGEST)
    with pytest.raises(FileExistsError):
        OpenSSLSigner.generate().save(path)
    assert OpenSSLSigner.load(path).public_key() == signer.public_key()


def test_an_encrypted_key_needs_its_password(tmp_path: Path) -> None:
    signer, path = OpenSSLSigner.generate(), tmp_path / "signing.key"
    signer.save(path, b"pass word")
    assert b"ENCRYPTED" in path.read_bytes()
    assert OpenSSLSigner.load(path, b"pass word").public_key() == signer.public_key()
    for password in (None, b"another"):
        with pytest.raises((ValueError, TypeError)):
            OpenSSLSigner.load(path, password)


def test_a_key_of_another_curve_or_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="P-256"):
        OpenSSLSigner(ec.generate_private_key(ec.SECP384R1()))
    with pytest.raises(ValueError):
        OpenSSLSigner.from_pem(b"-----BEGIN NONSENSE-----")


def test_kept_keys_are_bounded() -> None:
    assert openssl._verifier.cache_info().maxsize == openssl.KEY_CACHE_COUNT
    before = openssl._verifier.cache_info().currsize
    for number in range(50):
        assert not openssl.verify_digest(b"\x04" + number.to_bytes(64, "big"), DIGEST, b"\x01" * 64)
    assert openssl._verifier.cache_info().currsize == before  # what is no key is not kept
