"""Makes tables of multiples of a public key: a comb for one that comes again, odd multiples for one seen once.

Apart from `p256`, so that a board whose keys all have their combs can drop it again.
"""

from firmware.crypto import p256
from firmware.crypto.p256 import P

G65 = (b"\x04\x6b\x17\xd1\xf2\xe1\x2c\x42\x47\xf8\xbc\xe6\xe5\x63\xa4\x40\xf2\x77\x03\x7d\x81\x2d\xeb\x33\xa0\xf4"
       b"\xa1\x39\x45\xd8\x98\xc2\x96\x4f\xe3\x42\xe2\xfe\x1a\x7f\x9b\x8e\xe7\xeb\x4a\x7c\x0f\x9e\x16\x2b\xce\x33"
       b"\x57\x6b\x31\x5e\xce\xcb\xb6\x40\x68\x37\xbf\x51\xf5")
ROWS = 6  # of a key's comb: 32 points, 2 KiB; 5 rows would be 1 KiB for an eighth more time


def make_table(public65: bytes, rows: int = ROWS, columns: int = 0) -> bytearray:
    """The comb of a key, 2^(rows - 1) points of 64 bytes (x, y).

    Point i is the key plus, for each row j > 0, 2^(j * columns) * key where bit rows - 1 - j of i is set, minus it
    where it is not. rows: 2 to 7; columns: as few as the scalar's 256 bits need, if not given.
    """
    columns = columns or -(-256 // rows)
    x, y = _coordinates(public65)
    z = 1
    out, halves = bytearray(32 << rows), bytearray(128 * (rows - 1))  # before sums leave no room in one piece
    _put(out, 0, x, y)
    units = []
    for at in range(0, len(halves), 128):
        for _ in range(columns):
            x, y, z = p256.double(x, y, z)
        _put(halves, at, x, y)
        units.append(z)
        x2, y2, z2 = p256.double(x, y, z)
        _put(halves, at + 64, x2, y2)
        units.append(z2)
    _make_affine(halves, units)
    x, y = _get(out, 0)
    z = 1
    for at in range(0, len(halves), 128):
        x2, y2 = _get(halves, at)
        x, y, z = p256.add(x, y, z, x2, -y2)
    _put(out, 0, x, y)
    units = [z]
    for at in range(len(halves) - 64, 0, -128):
        x2, y2 = _get(halves, at)
        for i in range(len(units)):
            x, y = _get(out, 64 * i)
            x, y, z = p256.add(x, y, units[i], x2, y2)
            _put(out, 64 * len(units), x, y)
            units.append(z)
    _make_affine(out, units)
    return out


def term(v: int, public65: bytes):
    """v * key as a term of `p256.multiply`: v in non-adjacent form of width 4 over key, 3, 5, 7 times key (Guide to
    Elliptic Curve Cryptography, algorithm 3.36)."""
    digits, table = bytearray(257), bytearray(256)
    x, y = _coordinates(public65)
    x2, y2, unit = p256.double(x, y, 1)
    square = unit * unit % P  # seen with this Z as 1, twice the key is affine: adding does not ask for the curve
    x, y, z = x * square % P, y * (square * unit % P) % P, 1
    units = []
    for at in range(0, 256, 64):
        if at:
            x, y, z = p256.add(x, y, z, x2, y2)
        _put(table, at, x, y)
        units.append(z * unit % P)
    _make_affine(table, units)
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


def _get(table, at):
    return int.from_bytes(table[at:at + 32], "big"), int.from_bytes(table[at + 32:at + 64], "big")


def _put(table, at, x, y):
    """As bytes, because a number that was reduced keeps the room of what it was before, twice as much."""
    table[at:at + 32] = x.to_bytes(32, "big")
    table[at + 32:at + 64] = y.to_bytes(32, "big")


def _make_affine(table, units):
    """Makes X, Y of every 64 bytes x, y; units: their Z, none 0. One inversion for all (Montgomery's trick)."""
    products = [1]
    for z in units:
        products.append(products[-1] * z % P)
    inverse = p256.invert(products.pop(), P)
    for i in range(len(units) - 1, -1, -1):
        z = inverse * products.pop() % P
        inverse = inverse * units[i] % P
        square = z * z % P
        x, y = _get(table, 64 * i)
        _put(table, 64 * i, x * square % P, y * (square * z % P) % P)
