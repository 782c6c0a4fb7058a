"""Makes and checks ECDSA signatures on P-256 from integers and SHA-256 alone; the same file on MicroPython and CPython.

Theory. A point is kept as (X, Y, Z) with x = X/Z^2, y = Y/Z^3 (Jacobian; Z = 0 is the point at infinity), so that
adding needs no inversion. k*P for a known P uses a comb (Lim and Lee, CRYPTO '94): the 260 bits of k are five rows of
52, and one column, a number of five bits, picks one of 31 points made beforehand; 52 doublings and at most 52
additions do it all. A key without such a table is multiplied in width-4 non-adjacent form (Guide to ECC, algorithm
3.36), G's columns joining its last 52 doublings. Nonces are those of RFC 6979: no random number is needed, so none
can be bad.

Python's integers do not take constant time, and nothing here does. `blind` (a random first Z) unties the sizes of
intermediate values from k; it is no answer to somebody with a probe on the board. A secure element behind the same
interface (`signer.py`) is.
"""

import hashlib

from firmware.crypto.p256_g import TABLE

# SEC 2 section 2.4.2: prime of the field, order of the group, constant b; a = -3.
P = 0xFFFFFFFF00000001000000000000000000000000FFFFFFFFFFFFFFFFFFFFFFFF
N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
B = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
G65 = (b"\x04\x6b\x17\xd1\xf2\xe1\x2c\x42\x47\xf8\xbc\xe6\xe5\x63\xa4\x40\xf2\x77\x03\x7d\x81\x2d\xeb\x33\xa0\xf4"
       b"\xa1\x39\x45\xd8\x98\xc2\x96\x4f\xe3\x42\xe2\xfe\x1a\x7f\x9b\x8e\xe7\xeb\x4a\x7c\x0f\x9e\x16\x2b\xce\x33"
       b"\x57\x6b\x31\x5e\xce\xcb\xb6\x40\x68\x37\xbf\x51\xf5")
HALF_N = N >> 1

ROWS = 5  # of a comb: 31 points, 1,984 bytes, what a board holds in RAM; 6 rows would be 4 KiB for a fifth less time
COLUMNS = 52  # 5 * 52 = 260 bits >= 256
_HALF_ROW = 26  # half a row fits MicroPython's small integers (31 bits), which cost no heap
_DIGITS = 257  # of a scalar in non-adjacent form, one more than its bits
_HALF_MASK = (1 << _HALF_ROW) - 1


def generate(random_bytes) -> bytes:
    """A private scalar, 32 bytes, out of random_bytes(32); asked again (chance 2^-32) while not in 1..n-1."""
    while True:
        d32 = bytes(random_bytes(32))
        if len(d32) != 32:
            raise ValueError("random_bytes(32) gives 32 bytes")
        if 0 < int.from_bytes(d32, "big") < N:
            return d32


def public_key(d32: bytes, blind: int = 1) -> bytes:
    """The point of a private scalar, uncompressed (SEC 1 section 2.3.3): 0x04, x, y; 65 bytes."""
    x, y = _affine([_multiply_g(_scalar(d32), blind)])[0]
    return b"\x04" + x.to_bytes(32, "big") + y.to_bytes(32, "big")


def sign_digest(d32: bytes, h32: bytes, blind: int = 1) -> bytes:
    """r || s (64 bytes) over a SHA-256 digest; RFC 6979 nonce, s <= n/2. blind: any number in 1..P-1, best a random
    one; the signature does not depend on it."""
    d = _scalar(d32)
    if len(h32) != 32:
        raise ValueError("a digest has 32 bytes, not %d" % len(h32))
    h = int.from_bytes(h32, "big") % N
    nonces = _nonces(d, h)
    while True:
        k = next(nonces)
        x, _, z = _multiply_g(k, blind)
        z_inverse = invert(z, P)
        r = x * z_inverse * z_inverse % P % N
        s = invert(k, N) * (h + r * d) % N
        if r and s:
            if s > HALF_N:
                s = N - s
            return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def verify_digest(public65: bytes, h32: bytes, sig64: bytes, table: bytes = b"") -> bool:
    """True when sig64 signs h32 under public65; False for anything else, of any length. table: `make_table(public65)`
    of a key that is seen often; it halves the time and is not checked against the key."""
    if len(sig64) != 64 or len(h32) != 32 or not is_public_key(public65):
        return False
    r = int.from_bytes(sig64[:32], "big")
    s = int.from_bytes(sig64[32:], "big")
    if not (0 < r < N and 0 < s < N):
        return False
    w = invert(s, N)
    u = int.from_bytes(h32, "big") * w % N
    v = r * w % N
    x, _, z = _multiply_g_and_table(u, v, table) if table else _multiply_g_and_key(u, v, public65)
    if not z:
        return False
    zz = z * z % P
    # x mod n = r without an inversion: X/Z^2 is r, or r + n where that is still below P.
    return r * zz % P == x or (r + N < P and (r + N) * zz % P == x)


def is_public_key(public65: bytes) -> bool:
    """Is it an uncompressed point on the curve? (Cofactor 1: every such point has order n.)"""
    if len(public65) != 65 or public65[0] != 4:
        return False
    x = int.from_bytes(public65[1:33], "big")
    y = int.from_bytes(public65[33:], "big")
    return x < P and y < P and (y * y - x * x * x + 3 * x - B) % P == 0


def check_public_key(public65: bytes) -> None:
    """Raises ValueError when it is no uncompressed point on the curve."""
    if not is_public_key(public65):
        raise ValueError("a public key is 65 bytes: 0x04, x, y of a point on P-256")


def make_table(public65: bytes) -> bytes:
    """The comb of a key: 31 points of 64 bytes (x, y); point i, counted from 1, is the sum of 2^(52 j) * key over the
    bits j of i."""
    check_public_key(public65)
    x, y = int.from_bytes(public65[1:33], "big"), int.from_bytes(public65[33:], "big")
    z = 1
    rows = []
    for row in range(ROWS):
        rows.append((x, y, z))
        if row < ROWS - 1:
            for _ in range(COLUMNS):
                x, y, z = _double(x, y, z)
    sums = [(0, 0, 0)]
    for x2, y2 in _affine(rows):
        for i in range(len(sums)):
            x, y, z = sums[i]
            sums.append(_add(x, y, z, x2, y2))
    return b"".join([x.to_bytes(32, "big") + y.to_bytes(32, "big") for x, y in _affine(sums[1:])])


def invert(a: int, modulus: int) -> int:
    """1/a modulo a prime, by extended Euclid: `pow(a, -1, m)` is silently 0 on MicroPython."""
    a %= modulus
    if not a:
        raise ValueError("0 has no inverse")
    low, high, x, y = a, modulus, 1, 0
    while low > 1:
        quotient = high // low
        low, high = high - quotient * low, low
        x, y = y - quotient * x, x
    return x % modulus


def _scalar(d32: bytes) -> int:
    if len(d32) != 32:
        raise ValueError("a private scalar has 32 bytes, not %d" % len(d32))
    d = int.from_bytes(d32, "big")
    if not 0 < d < N:
        raise ValueError("a private scalar is in 1..n-1")
    return d


def _hmac(key32: bytes, message: bytes) -> bytes:
    """HMAC-SHA-256 (RFC 2104) with a key of 32 bytes; boards have no module `hmac`."""
    inner = hashlib.sha256(bytes([b ^ 0x36 for b in key32]) + b"\x36" * 32 + message).digest()
    return hashlib.sha256(bytes([b ^ 0x5C for b in key32]) + b"\x5c" * 32 + inner).digest()


def _nonces(d: int, h: int):
    """RFC 6979 section 3.2: the candidates for k, in order; the first serves but for a chance of 2^-32."""
    seed = d.to_bytes(32, "big") + h.to_bytes(32, "big")
    value, key = b"\x01" * 32, b"\x00" * 32
    for step in (b"\x00", b"\x01"):
        key = _hmac(key, value + step + seed)
        value = _hmac(key, value)
    while True:
        value = _hmac(key, value)
        k = int.from_bytes(value, "big")
        if 0 < k < N:
            yield k
        key = _hmac(key, value + b"\x00")
        value = _hmac(key, value)


def _double(x, y, z):
    """2 * (x, y, z): seven reductions (dbl-2001-b of the Explicit-Formulas Database)."""
    delta = z * z % P
    gamma = y * y % P
    beta = x * gamma % P
    alpha = 3 * (x - delta) * (x + delta) % P
    x3 = (alpha * alpha - 8 * beta) % P
    return x3, (alpha * (4 * beta - x3) - 8 * gamma * gamma) % P, 2 * y * z % P


def _add(x, y, z, x2, y2):
    """(x, y, z) + (x2, y2), the second affine and never infinity: ten reductions."""
    if not z:
        return x2, y2, 1
    zz = z * z % P
    h = x2 * zz % P - x
    r = y2 * (z * zz % P) % P - y
    if not h:
        return (0, 0, 0) if r else _double(x, y, z)
    hh = h * h % P
    hhh = h * hh % P
    v = x * hh % P
    x3 = (r * r - hhh - 2 * v) % P
    return x3, (r * (v - x3) - y * hhh) % P, z * h % P


def _affine(points) -> list:
    """[(x, y), ...] of points not at infinity, with one inversion for all (Montgomery's trick)."""
    products = [1]
    for _, _, z in points:
        products.append(products[-1] * z % P)
    inverse = invert(products[-1], P)
    result = []
    for i in range(len(points) - 1, -1, -1):
        x, y, z = points[i]
        z_inverse = inverse * products[i] % P
        inverse = inverse * z % P
        square = z_inverse * z_inverse % P
        result.append((x * square % P, y * (square * z_inverse % P) % P))
    result.reverse()
    return result


def _columns(k: int) -> bytearray:
    """The columns of a scalar as a comb reads them, the highest first: 52 numbers of five bits."""
    digits = bytearray(COLUMNS)
    i = 0
    for low in (_HALF_ROW, 0):
        rows = [(k >> (row * COLUMNS + low)) & _HALF_MASK for row in range(ROWS)]
        for column in range(_HALF_ROW - 1, -1, -1):
            digit = 0
            for row in range(ROWS - 1, -1, -1):
                digit = digit << 1 | (rows[row] >> column) & 1
            digits[i] = digit
            i += 1
    return digits


def _entry(table: bytes, i: int):
    start = (i - 1) * 64
    return int.from_bytes(table[start:start + 32], "big"), int.from_bytes(table[start + 32:start + 64], "big")


def _multiply_g(k: int, blind: int):
    """k * G for k in 1..n-1; the first point enters with Z = blind."""
    if not blind % P:
        raise ValueError("blind is a number in 1..P-1")
    x = y = z = 0
    for digit in _columns(k):
        if z:
            x, y, z = _double(x, y, z)
        if digit:
            x2, y2 = _entry(TABLE, digit)
            if z:
                x, y, z = _add(x, y, z, x2, y2)
            else:
                square = blind * blind % P
                x, y, z = x2 * square % P, y2 * (square * blind % P) % P, blind % P
    return x, y, z


def _multiply_g_and_table(u: int, v: int, table: bytes):
    """u * G + v * Q, Q given by its comb."""
    v_columns = _columns(v)
    x = y = z = 0
    i = 0
    for digit in _columns(u):
        if z:
            x, y, z = _double(x, y, z)
        if digit:
            x2, y2 = _entry(TABLE, digit)
            x, y, z = _add(x, y, z, x2, y2)
        if v_columns[i]:
            x2, y2 = _entry(table, v_columns[i])
            x, y, z = _add(x, y, z, x2, y2)
        i += 1
    return x, y, z


def _multiply_g_and_key(u: int, v: int, public65: bytes):
    """u * G + v * Q for a Q never seen before: v in non-adjacent form of width 4 over Q, 3Q, 5Q, 7Q."""
    qx, qy = int.from_bytes(public65[1:33], "big"), int.from_bytes(public65[33:], "big")
    twice_x, twice_y = _affine([_double(qx, qy, 1)])[0]
    odd = [(qx, qy, 1)]
    for _ in range(3):
        x, y, z = odd[-1]
        odd.append(_add(x, y, z, twice_x, twice_y))
    multiples = _affine(odd)
    digits = bytearray(_DIGITS)  # 8 above their value: a list would take eight times the RAM while it grows
    count = 0
    while v:
        digit = 0
        if v & 1:
            digit = v & 15
            if digit > 8:
                digit -= 16
            v -= digit
        digits[count] = digit + 8
        count += 1
        v >>= 1
    columns = _columns(u)
    x = y = z = 0
    for i in range(max(count, COLUMNS) - 1, -1, -1):
        if z:
            x, y, z = _double(x, y, z)
        digit = digits[i] - 8 if i < count else 0
        if digit:
            x2, y2 = multiples[abs(digit) >> 1]
            x, y, z = _add(x, y, z, x2, y2 if digit > 0 else P - y2)
        if i < COLUMNS and columns[COLUMNS - 1 - i]:
            x2, y2 = _entry(TABLE, columns[COLUMNS - 1 - i])
            x, y, z = _add(x, y, z, x2, y2)
    return x, y, z
