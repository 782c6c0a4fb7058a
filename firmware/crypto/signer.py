"""Makes signatures for an agent from a private scalar, behind the interface that every signer of ours has.

    public_key() -> 65 bytes          0x04, x, y
    sign_digest(h32) -> 64 bytes      r || s over a SHA-256 digest; ValueError for another length
    deterministic: bool               same digest, same bytes; a secure element draws its nonces: False

A secure element may give s in either half (wire/cose.py writes the low one), take its time, and raise OSError.
`SoftwareSigner` is for boards without one; where OpenSSL is at hand, `openssl.OpenSSLSigner` replaces it. Both are
deterministic and give s <= n/2. What each protects against, and what not: docs/signing.md.
"""

import hashlib

from firmware.crypto import p256
from firmware.crypto.p256 import N, P


def generate(random_bytes) -> bytes:
    """A private scalar, 32 bytes, out of random_bytes(32); asked again (chance 2^-32) while not in 1..n-1."""
    while True:
        d32 = bytes(random_bytes(32))
        if len(d32) != 32:
            raise ValueError("random_bytes(32) gives 32 bytes")
        if 0 < int.from_bytes(d32, "big") < N:
            return d32


class SoftwareSigner:
    """Signs digests with a private scalar (32 bytes) held in memory.

    random_bytes: a function n -> n bytes (`os.urandom`) that blinds the arithmetic; without it nothing is blinded.
    """

    deterministic = True

    def __init__(self, d32: bytes, random_bytes=None):
        self._d = int.from_bytes(d32, "big")
        if len(d32) != 32 or not 0 < self._d < N:
            raise ValueError("a private scalar is 32 bytes, 1..n-1")
        self._random_bytes = random_bytes
        x, y, z = self._multiply(self._d)
        self._public65 = b"\x04" + (x * z * z % P).to_bytes(32, "big") + (y * (z * z * z % P) % P).to_bytes(32, "big")

    def public_key(self) -> bytes:
        return self._public65

    def sign_digest(self, h32: bytes) -> bytes:
        """r || s; the nonce is RFC 6979's (section 3.2), the first of its candidates but for a chance of 2^-32."""
        if len(h32) != 32:
            raise ValueError("a digest has 32 bytes, not %d" % len(h32))
        h = int.from_bytes(h32, "big") % N
        seed = self._d.to_bytes(32, "big") + h.to_bytes(32, "big")
        value, key = b"\x01" * 32, b"\x00" * 32
        for step in (b"\x00", b"\x01"):
            key = _hmac(key, value + step + seed)
            value = _hmac(key, value)
        while True:
            value = _hmac(key, value)
            k = int.from_bytes(value, "big")
            if 0 < k < N:
                x, _, z = self._multiply(k)
                r = x * z * z % P % N
                s = p256.invert(k, N) * (h + r * self._d) % N
                if r and s:
                    if s > N >> 1:
                        s = N - s
                    return r.to_bytes(32, "big") + s.to_bytes(32, "big")
            key = _hmac(key, value + b"\x00")
            value = _hmac(key, value)

    def _multiply(self, k):
        """(X, Y, 1/Z) of k * G; the first Z is 128 random bits: a longer one would only cost time."""
        blind = 0
        if self._random_bytes is not None:
            blind = int.from_bytes(self._random_bytes(16), "big")
        x, y, z = p256.multiply(p256.base_terms(k), blind or 1)
        return x, y, p256.invert(z, P)


def _hmac(key32: bytes, message: bytes) -> bytes:
    """HMAC-SHA-256 (RFC 2104) with a key of 32 bytes; boards have no module `hmac`."""
    key = int.from_bytes(key32, "big")
    for pad in (b"\x36", b"\x5c"):
        padded = (key ^ int.from_bytes(pad * 32, "big")).to_bytes(32, "big") + pad * 32
        message = hashlib.sha256(padded + message).digest()
    return message
