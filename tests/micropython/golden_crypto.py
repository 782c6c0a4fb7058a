"""Prints keys, signatures and verdicts from fixed numbers, the same lines in every interpreter."""

import hashlib

from firmware.crypto import p256
from firmware.crypto.signer import SoftwareSigner


def line(name, value):
    print(name, value.hex() if isinstance(value, bytes) else value)


def blind(length):
    return b"\x5a" * length


SCALARS = [1, 2, 3, 0xFFFFFFFF, 1 << 52, (1 << 255) + 1, p256.N - 2, p256.N - 1]
for i in range(8):
    SCALARS.append(int.from_bytes(hashlib.sha256(b"key %d" % i).digest(), "big") % p256.N)
line("table", hashlib.sha256(p256.make_table(p256.G65)).digest())
for scalar in SCALARS:
    d32 = scalar.to_bytes(32, "big")
    signer = SoftwareSigner(d32)
    public65 = signer.public_key()
    line("public", public65)
    h32 = hashlib.sha256(public65).digest()
    sig64 = signer.sign_digest(h32)
    line("signature", sig64)
    line("blinded", SoftwareSigner(d32, blind).sign_digest(h32) == sig64)
    line("verified", p256.verify_digest(public65, h32, sig64))
    line("by table", p256.verify_digest(public65, h32, sig64, p256.make_table(public65)))
    for position in (0, 31, 32, 63):
        bad = bytearray(sig64)
        bad[position] ^= 1
        line("one bit off", p256.verify_digest(public65, h32, bytes(bad)))
for h in (0, p256.N - 1, p256.N, (1 << 256) - 1):
    h32 = h.to_bytes(32, "big")
    sig64 = SoftwareSigner(SCALARS[-1].to_bytes(32, "big")).sign_digest(h32)
    line("extreme digest", sig64)
    line("verified", p256.verify_digest(public65, h32, sig64))
for bad_key in (b"", b"\x04" * 65, public65[:64], b"\x02" + public65[1:], public65[:64] + b"\x00"):
    line("bad key", p256.verify_digest(bad_key, h32, sig64))
for number, modulus in ((1, p256.P), (2, p256.N), (p256.N - 1, p256.N), (12345, 7919)):
    line("inverse", p256.invert(number, modulus))
