"""Prints keys, signatures and verdicts from fixed numbers, the same lines in every interpreter."""

import hashlib

from firmware.crypto import comb_2k, comb_8k, p256, p256_key
from firmware.crypto.known import KnownKeys
from firmware.crypto.signer import SoftwareSigner


def line(name, value):
    print(name, value.hex() if isinstance(value, bytes) else value)


def blind(length):
    return b"\x5a" * length


SCALARS = [1, 2, 3, 0xFFFFFFFF, 1 << 52, (1 << 255) + 1, p256.N - 2, p256.N - 1]
for i in range(8):
    SCALARS.append(int.from_bytes(hashlib.sha256(b"key %d" % i).digest(), "big") % p256.N)
line("table", hashlib.sha256(p256_key.make_table(p256_key.G65)).digest())
known = KnownKeys(3)
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
    line("by table", p256.verify_digest(public65, h32, sig64, p256_key.make_table(public65)))
    line("known", known.verify_digest(public65, h32, sig64))
    for position in (0, 31, 32, 63):
        bad = bytearray(sig64)
        bad[position] ^= 1
        line("one bit off", p256.verify_digest(public65, h32, bytes(bad)))
        line("known, one bit off", known.verify_digest(public65, h32, bytes(bad)))
    p256.use_comb(comb_8k)
    line("large comb", SoftwareSigner(d32).public_key() + signer.sign_digest(h32))
    line("verified", p256.verify_digest(public65, h32, sig64))
    p256.use_comb(comb_2k)
for h in (0, p256.N - 1, p256.N, (1 << 256) - 1):
    h32 = h.to_bytes(32, "big")
    sig64 = SoftwareSigner(SCALARS[-1].to_bytes(32, "big")).sign_digest(h32)
    line("extreme digest", sig64)
    line("verified", p256.verify_digest(public65, h32, sig64))
for u in (0, 1, 2, p256.N - 1):  # sums that meet equal and opposite points on their way
    for v in (1, 2, 3, p256.N - 1, p256.N - 2):
        terms = p256.base_terms(u) + [p256_key.term(v, p256_key.G65)]
        line("sum", str(p256.multiply(terms)))
for bad_key in (b"", b"\x04" * 65, public65[:64], b"\x02" + public65[1:], public65[:64] + b"\x00"):
    line("bad key", p256.verify_digest(bad_key, h32, sig64))
for number, modulus in ((1, p256.P), (2, p256.N), (p256.N - 1, p256.N), (12345, 7919)):
    line("inverse", p256.invert(number, modulus))
