"""Makes and checks P-256 signatures (r || s, 64 bytes) with OpenSSL, through the package `cryptography`; CPython only.

The same interface and, for the same key and digest, the same bytes as `signer.SoftwareSigner`: RFC 6979 nonces,
s <= n/2. OpenSSL wants DER (X.690), the wire carries r || s: the two conversions are written out here, strict, because
a lenient reader would give one signature many encodings.
"""

import os
from collections.abc import Callable
from functools import lru_cache

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils

from firmware.crypto.p256 import N

# Loaded public keys kept at hand: loading costs a tenth of a verification. 4,096 x 2.4 KB (both measured) = 10 MB at
# most, four times the meters that one gateway is planned for.
KEY_CACHE_COUNT = 4096
KEY_FILE_MODE = 0o600
HALF_N = N >> 1

_CURVE = ec.SECP256R1()
_PREHASHED = utils.Prehashed(hashes.SHA256())
_VERIFY = ec.ECDSA(_PREHASHED)
_SIGN = ec.ECDSA(_PREHASHED, deterministic_signing=True)
# The length byte of a SEQUENCE of two INTEGERs, by the total of their bytes: 6..70, always short form.
_SEQUENCE = tuple(bytes((0x30, length)) for length in range(71))


def encode_der(sig64: bytes) -> bytes:
    """r || s (64 bytes) as DER `SEQUENCE {INTEGER r, INTEGER s}`, the only encoding DER allows."""
    r, s = sig64[:32], sig64[32:]
    if r[0] > 0x7F:
        r = b"\x02\x21\x00" + r
    elif r[0] or r[1] > 0x7F:
        r = b"\x02\x20" + r
    else:
        r = _encode_short(r)
    if s[0] > 0x7F:
        body = r + b"\x02\x21\x00" + s
    elif s[0] or s[1] > 0x7F:
        body = r + b"\x02\x20" + s
    else:
        body = r + _encode_short(s)
    return _SEQUENCE[len(body)] + body


def decode_der(der: bytes) -> bytes | None:
    """r || s out of DER, or None where the bytes are not exactly what `encode_der` would write."""
    if len(der) < 8 or len(der) > 72 or der[0] != 0x30 or der[1] != len(der) - 2 or der[2] != 2:
        return None
    end = 4 + der[3]
    if end + 2 >= len(der) or der[end] != 2 or end + 2 + der[end + 1] != len(der):
        return None
    r, s = der[4:end].lstrip(b"\0"), der[end + 2:].lstrip(b"\0")
    if len(r) > 32 or len(s) > 32:
        return None
    sig64 = r.rjust(32, b"\0") + s.rjust(32, b"\0")
    return sig64 if encode_der(sig64) == der else None


def verify_digest(public65: bytes, h32: bytes, sig64: bytes) -> bool:
    """True when sig64 signs h32 under the uncompressed point public65; False for anything else, of any length."""
    if len(sig64) != 64 or len(h32) != 32:
        return False
    try:
        _verifier(public65)(encode_der(sig64), h32, _VERIFY)
    except (InvalidSignature, ValueError):
        return False
    return True


def verify_der(public65: bytes, h32: bytes, der: bytes) -> bool:
    """The same for a signature in DER."""
    sig64 = decode_der(der)
    return sig64 is not None and verify_digest(public65, h32, sig64)


class OpenSSLSigner:
    """Signs digests with a key held by OpenSSL."""

    deterministic = True

    def __init__(self, private_key: ec.EllipticCurvePrivateKey):
        if not isinstance(private_key, ec.EllipticCurvePrivateKey) or private_key.curve.name != _CURVE.name:
            raise ValueError("a signing key is a P-256 key")
        self._private_key = private_key
        self._public65 = private_key.public_key().public_bytes(
            serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)

    @classmethod
    def generate(cls) -> "OpenSSLSigner":
        """A new key from the system's random numbers."""
        return cls(ec.generate_private_key(_CURVE))

    @classmethod
    def from_scalar(cls, d32: bytes) -> "OpenSSLSigner":
        """The key of a raw private scalar, 32 bytes big-endian, 1..n-1."""
        if len(d32) != 32:
            raise ValueError("a private scalar has 32 bytes, not %d" % len(d32))
        return cls(ec.derive_private_key(int.from_bytes(d32, "big"), _CURVE))

    @classmethod
    def from_pem(cls, pem: bytes, password: bytes | None = None) -> "OpenSSLSigner":
        """The key in a PEM text (PKCS 8 or SEC 1)."""
        return cls(serialization.load_pem_private_key(pem, password))  # type: ignore[arg-type]

    @classmethod
    def from_der(cls, der: bytes, password: bytes | None = None) -> "OpenSSLSigner":
        """The key in a DER structure (PKCS 8 or SEC 1)."""
        return cls(serialization.load_der_private_key(der, password))  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: str | os.PathLike[str], password: bytes | None = None) -> "OpenSSLSigner":
        """The key in a PEM file."""
        with open(path, "rb") as file:
            return cls.from_pem(file.read(), password)

    def pem(self, password: bytes | None = None) -> bytes:
        """The private key as PKCS 8 PEM, encrypted when a password is given."""
        protection = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
        return self._private_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection)

    def save(self, path: str | os.PathLike[str], password: bytes | None = None) -> None:
        """Writes the key to a new file that only its owner may read; an existing file is never overwritten."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, KEY_FILE_MODE)
        with os.fdopen(descriptor, "wb") as file:
            file.write(self.pem(password))
            file.flush()
            os.fsync(file.fileno())

    def public_key(self) -> bytes:
        """The public point, uncompressed: 0x04, x, y; 65 bytes."""
        return self._public65

    def sign_digest(self, h32: bytes) -> bytes:
        """r || s over a SHA-256 digest, s <= n/2 (`wire.md`, Who signs what)."""
        if len(h32) != 32:
            raise ValueError("a digest has 32 bytes, not %d" % len(h32))
        sig64 = decode_der(self._private_key.sign(h32, _SIGN))
        assert sig64 is not None, "OpenSSL writes strict DER"
        s = int.from_bytes(sig64[32:], "big")
        return sig64 if s <= HALF_N else sig64[:32] + (N - s).to_bytes(32, "big")


def _encode_short(number: bytes) -> bytes:
    """A DER INTEGER for a number with leading zero bytes; zero itself is one zero byte."""
    number = number.lstrip(b"\0") or b"\0"
    if number[0] > 0x7F:
        number = b"\0" + number
    return bytes((2, len(number))) + number


@lru_cache(KEY_CACHE_COUNT)
def _verifier(public65: bytes) -> Callable[[bytes, bytes, ec.ECDSA], None]:
    """The bound `verify` of a loaded key; raises ValueError for what is not an uncompressed point on the curve."""
    if len(public65) != 65 or public65[0] != 4:
        raise ValueError("a public key is 65 bytes: 0x04, x, y")
    return ec.EllipticCurvePublicKey.from_encoded_point(_CURVE, public65).verify
