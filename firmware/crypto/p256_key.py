"""Makes tables of multiples of a public key: a comb for one that comes again, odd multiples for one seen once.

Apart from `p256`, so that a board whose keys all have their combs can drop it again.
"""

from firmware.crypto import p256
from firmware.crypto.p256 import P

G65 = (b"\x04\x6b\x17\xd1\xf2\xe1\x2c\x42\x47\xf8\xbc\xe6\xe5\x63\xa4\x40\xf2\x77\x03\x7d\x81\x2d\xeb\x33\xa0\xf4"
       b"\xa1\x39\x45\xd8\x98\xc2\x96\x4f\xe3\x42\xe2\xfe\x1a\x7f\x9b\x8e\xe7\xeb\x4a\x7c\x0f\x9e\x16\x2b\xce\x33"
       b"\x57\x6b\x31\x5e\xce\xcb\xb6\x40\x68\x37\xbf\x51\xf5")
ROWS = 5  # of a key's comb: 16 points, 1 KiB; 6 rows would be 2 KiB for a tenth less time


def make_table(public65: bytes, rows: int = ROWS, columns: int = 0) -> bytearray:
    """The comb of a key, 2^(rows - 1) points of 64 bytes (x, y).

    Point i is the key plus, for each row j > 0, 2^(j * columns) * key where bit rows - 1 - j of i is set, minus it
    where it is not. rows: 2 to 7; columns: as few as the scalar's 256 bits need, if not given.
    """
    columns = columns or -(-256 // rows)
    out, halves = bytearray(32 << rows), bytearray(128 * (rows - 1))  # before sums leave no room in one piece
    x0, y0 = _coordinates(public65)
    x, y, z = x0, y0, 1
    points = []
    for _ in range(1, rows):
        for _ in range(columns):
            x, y, z = p256.double(x, y, z)
        points.append((x, y, z))
        points.append(p256.double(x, y, z))
    _write(halves, points)
    x, y, z = x0, y0, 1
    for at in range(0, len(halves), 128):
        x2, y2 = _point(halves, at)
        x, y, z = p256.add(x, y, z, x2, -y2)
    points = [(x, y, z)]
    for at in range(len(halves) - 64, 0, -128):
        x2, y2 = _point(halves, at)
        for i in range(len(points)):
            x, y, z = points[i]
            points.append(p256.add(x, y, z, x2, y2))
    _write(out, points)
    return out


def term(v: int, public65: bytes):
    """v * key as a term of `p256.multiply`: v in non-adjacent form of width 4 over key, 3, 5, 7 times key (Guide to
    Elliptic Curve Cryptography, algorithm 3.36)."""
    digits, table = bytearray(257), bytearray(256)
    x, y = _coordinates(public65)
    x2, y2, z2 = p256.double(x, y, 1)
    square = z2 * z2 % P  # seen with this Z as the unit, twice the key is affine: adding does not ask for the curve
    x, y, z = x * square % P, y * (square * z2 % P) % P, 1
    points = [(x, y, z2)]
    for _ in range(3):
        x, y, z = p256.add(x, y, z, x2, y2)
        points.append((x, y, z * z2 % P))
    _write(table, points)
    for i in range(256, -1, -1):
        if v & 1:
            digit = v & 15
            if digit < 8:
                v -= digit
                digits[i] = digit  # of a, odd, the place is a >> 1
            else:
                v += 16 - digit
                digits[i] = 17 - digit
        v >>= 1
    return digits, table, 0


def _coordinates(public65: bytes):
    if not p256.is_public_key(public65):
        raise ValueError("a public key is 65 bytes: 0x04, x, y of a point on P-256")
    return int.from_bytes(public65[1:33], "big"), int.from_bytes(public65[33:], "big")


def _point(table, at: int):
    return int.from_bytes(table[at:at + 32], "big"), int.from_bytes(table[at + 32:at + 64], "big")


def _write(out, points):
    """Writes x and y of points not at infinity, 64 bytes each, with one inversion for all (Montgomery's trick)."""
    products = [1]
    for _, _, z in points:
        products.append(products[-1] * z % P)
    inverse = p256.invert(products.pop(), P)
    for i in range(len(points) - 1, -1, -1):
        x, y, z = points[i]
        z_inverse = inverse * products[i] % P
        inverse = inverse * z % P
        square = z_inverse * z_inverse % P
        out[64 * i:64 * i + 32] = (x * square % P).to_bytes(32, "big")
        out[64 * i + 32:64 * i + 64] = (y * (square * z_inverse % P) % P).to_bytes(32, "big")
