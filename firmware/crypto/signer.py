"""Makes signatures for an agent from a private scalar, behind the interface that every signer of ours has.

    public_key() -> 65 bytes          0x04, x, y
    sign_digest(h32) -> 64 bytes      r || s over a SHA-256 digest; ValueError for another length
    deterministic: bool               same digest, same bytes; a secure element draws its nonces: False

A secure element may give s in either half (wire/cose.py writes the low one), take its time, and raise OSError.
`SoftwareSigner` is for boards without one; where OpenSSL is at hand, `openssl.OpenSSLSigner` replaces it. Both are
deterministic and give s <= n/2. What each protects against, and what not: docs/signing.md.
"""

try:
    from micropython import const
except ImportError:
    def const(value):
        return value

from firmware.crypto import p256

_BLIND_BYTES = const(16)  # a random first Z of 128 bits is enough to break the tie; a longer one only costs time


class SoftwareSigner:
    """Signs digests with a private scalar (32 bytes) held in memory.

    random_bytes: a function n -> n bytes (`os.urandom`) that blinds the arithmetic; without it nothing is blinded.
    """

    deterministic = True

    def __init__(self, d32: bytes, random_bytes=None):
        self._d32 = bytes(d32)
        self._random_bytes = random_bytes
        self._public65 = p256.public_key(self._d32, self._blind())

    def public_key(self) -> bytes:
        return self._public65

    def sign_digest(self, h32: bytes) -> bytes:
        return p256.sign_digest(self._d32, h32, self._blind())

    def _blind(self) -> int:
        if self._random_bytes is None:
            return 1
        return int.from_bytes(self._random_bytes(_BLIND_BYTES), "big") or 1
