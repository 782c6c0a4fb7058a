"""Makes signatures the slow ways, for `speed.py` to compare with: runs in MicroPython and CPython alike.

Both take RFC 6979's nonce as the product does and differ in one thing, the multiplication of the base point: `naive`
adds affine points with an inversion each, `jacobian` is double-and-add in the product's own coordinates and formulas
(7 reductions for a doubling, 10 for an addition). What they cost over the product's is what its combs are worth.
"""

from firmware.crypto import p256

P, N = p256.P, p256.N
GX = 0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296
GY = 0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5


def sign(d, h, multiply):
    """r || s with s <= n/2; multiply: `naive` or `jacobian`."""
    k = next(p256._nonces(d, h))
    r = multiply(k) % N
    s = p256.invert(k, N) * (h + r * d) % N
    return r.to_bytes(32, "big") + min(s, N - s).to_bytes(32, "big")


def naive(k):
    """x of k * G, by the rule of chord and tangent as it stands in a textbook (SEC 1 section 2.2.1)."""
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
    return x


def jacobian(k):
    """x of k * G, a doubling for each bit and an addition for each that is set."""
    x = y = z = 0
    for bit in range(255, -1, -1):
        if z:
            x, y, z = p256.double(x, y, z)
        if k >> bit & 1:
            x, y, z = p256.add(x, y, z, GX, GY)
    z = p256.invert(z, P)
    return x * z * z % P


def _third(slope, x, y, x2):
    """The sum of two points on a line of that slope."""
    x3 = (slope * slope - x - x2) % P
    return x3, (slope * (x - x3) - y) % P
