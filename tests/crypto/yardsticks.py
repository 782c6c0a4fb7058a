"""Makes signatures the slow ways, for `speed.py` to compare with: runs in MicroPython and CPython alike.

Both are the product's signer with one thing replaced, the multiplication of the base point: `naive` adds
affine points with an inversion each, `jacobian` is double-and-add in the product's own coordinates and formulas (7
reductions for a doubling, 10 for an addition). What they cost over the product's is what its combs are worth.
"""

from firmware.crypto import p256

P = p256.P
GX = 0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296
GY = 0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5


def sign(signer, h32, multiply):
    """The signature of a SoftwareSigner, with `naive` or `jacobian` in the place of the product's multiplication."""
    def slowly(terms: list, blind: int = 1):
        return multiply(terms[0])

    base_terms, ours = p256.base_terms, p256.multiply
    p256.base_terms, p256.multiply = lambda k: [k], slowly
    try:
        return signer.sign_digest(h32)
    finally:
        p256.base_terms, p256.multiply = base_terms, ours


def naive(k):
    """k * G, by the rule of chord and tangent as it stands in a textbook (SEC 1 section 2.2.1)."""
    x = y = 0
    for bit in range(255, -1, -1):
        if x or y:
            slope = (3 * x * x - 3) * p256.invert(2 * y, P) % P
            x, y = _third(slope, x, y, x)
        if k >> bit & 1:
            if x or y:
                x, y = _third((GY - y) * p256.invert(GX - x, P) % P, x, y, GX)
            else:
                x, y = GX, GY
    return x, y, 1


def jacobian(k):
    """k * G, a doubling for each bit and an addition for each that is set."""
    x = y = z = 0
    for bit in range(255, -1, -1):
        if z:
            x, y, z = p256.double(x, y, z)
        if k >> bit & 1:
            x, y, z = p256.add(x, y, z, GX, GY)
    return x, y, z


def _third(slope, x, y, x2):
    """The sum of two points on a line of that slope."""
    x3 = (slope * slope - x - x2) % P
    return x3, (slope * (x - x3) - y) % P
