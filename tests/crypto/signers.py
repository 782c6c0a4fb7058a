"""Prints what a signer, whichever stands behind the interface, owes its callers: one script, in MicroPython too.

    signers.py software|element|openssl

`element` is the double of a secure element (an ATECC608, say): it draws its nonces, so that the same digest never has
the same signature twice, does not care which half s is in, and can fail like a thing on a wire.
"""

import hashlib
import os
import sys

from firmware.crypto import p256
from firmware.crypto.signer import SoftwareSigner, generate
from firmware.wire import cose

D32 = hashlib.sha256(b"test key").digest()


class ElementDouble:
    """A signer with random nonces. `failures`: how many times it does not answer before it does."""

    deterministic = False

    def __init__(self, d32, random_bytes, failures=0):
        self._d = int.from_bytes(d32, "big")
        self._public65 = SoftwareSigner(d32).public_key()
        self._random_bytes = random_bytes
        self.failures = failures

    def public_key(self):
        return self._public65

    def sign_digest(self, h32):
        if len(h32) != 32:
            raise ValueError("a digest has 32 bytes, not %d" % len(h32))
        if self.failures:
            self.failures -= 1
            raise OSError("no answer from the secure element")
        while True:
            k32 = generate(self._random_bytes)
            r = int.from_bytes(SoftwareSigner(k32).public_key()[1:33], "big") % p256.N
            s = p256.invert(int.from_bytes(k32, "big"), p256.N) * (int.from_bytes(h32, "big") + r * self._d) % p256.N
            if r and s:
                return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def make(kind):
    if kind == "software":
        return SoftwareSigner(D32, os.urandom), p256.verify_digest
    if kind == "element":
        return ElementDouble(D32, os.urandom), p256.verify_digest
    from firmware.crypto import openssl

    return openssl.OpenSSLSigner.from_scalar(D32), openssl.verify_digest


def examine(signer, verify_digest):
    """Lines of what was found; the same for every signer of this key but for the last."""
    public65 = signer.public_key()
    yield "key " + public65.hex() + " %d" % len(public65)
    yield "point on the curve %s" % p256.is_public_key(public65)
    first = []
    for i in range(8):
        h32 = hashlib.sha256(b"digest %d" % i).digest()
        sig64 = signer.sign_digest(h32)
        first.append(sig64)
        other = hashlib.sha256(h32).digest()
        yield "signature of 64 bytes %s, verified %s, pure %s, not another digest's %s" % (
            isinstance(sig64, bytes) and len(sig64) == 64, verify_digest(public65, h32, sig64),
            p256.verify_digest(public65, h32, sig64), not verify_digest(public65, other, sig64))
        message = cose.sign1(b"payload %d" % i, bytes(8), "seal", bytes(32), signer.sign_digest)
        signed = cose.parse(message)
        cose.check(signed, "seal", bytes(32), public65, verify_digest)
        yield "message with the low s %s" % cose.is_low_s(signed.signature)
    for bad in (b"", bytes(31), bytes(33)):
        try:
            signer.sign_digest(bad)
            yield "%d bytes were signed" % len(bad)
        except ValueError:
            yield "%d bytes are no digest" % len(bad)
    again = [signer.sign_digest(hashlib.sha256(b"digest %d" % i).digest()) for i in range(8)]
    yield "as it says of itself %s" % (len([i for i in range(8) if first[i] == again[i]])
                                       == (8 if signer.deterministic else 0))
    yield "deterministic %s" % signer.deterministic


if __name__ == "__main__":
    for line in examine(*make(sys.argv[1])):
        print(line)
