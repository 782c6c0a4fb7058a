"""Makes verdicts on ECDSA signatures on P-256, and the sums of points that signing wants, from integers alone.

Theory. A point is kept as (X, Y, Z) with x = X/Z^2, y = Y/Z^3 (Jacobian; Z = 0 is the point at infinity), so that
adding needs no inversion. k*P for a P known beforehand uses a comb (Lim and Lee, CRYPTO '94) with signed digits: k is
first written as a sum of +-2^i over all i, which any number modulo the odd n can be; its bits then stand in rows, and
one column picks a point of the table and a sign. Since no digit is 0 and -point costs nothing, a table of 32 points
does with six rows what 63 did, and every k takes the same doublings and additions. Tables: `comb_2k` for the base
point, `comb_8k` where it stays in flash, `p256_key.make_table` for keys that come again. Other keys are multiplied in
non-adjacent form (`p256_key`), G's columns joining the last doublings.

Python's integers do not take constant time, and nothing here does. `blind` (a random first Z) unties the intermediate
values from k; it is no answer to somebody with a probe on the board (docs/signing.md). A secure element behind the
same interface (`signer.py`) is. The same file runs on MicroPython and CPython.
"""

# SEC 2 section 2.4.2: prime of the field, order of the group, constant b; a = -3.
P = 0xFFFFFFFF00000001000000000000000000000000FFFFFFFFFFFFFFFFFFFFFFFF
N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
B = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B

_base = None  # the base point's comb: what `use_comb` was given, else comb_2k, loaded when it is first needed


def use_comb(comb) -> None:
    """Takes another comb of the base point: a module or object with TABLE, ROWS and BLOCKS, such as comb_8k."""
    global _base
    _base = comb


def verify_digest(public65: bytes, h32: bytes, sig64: bytes, table: bytes | bytearray = b"") -> bool:
    """True when sig64 signs h32 under public65; False for anything else, of any length. table: the key's own from
    `p256_key.make_table`; it halves the time and is not checked against the key."""
    if len(sig64) != 64 or len(h32) != 32 or not is_public_key(public65):
        return False
    r = int.from_bytes(sig64[:32], "big")
    s = int.from_bytes(sig64[32:], "big")
    if not (0 < r < N and 0 < s < N):
        return False
    w = invert(s, N)
    terms = base_terms(int.from_bytes(h32, "big") * w % N)
    v = r * w % N
    if table:
        rows = 2
        while 32 << rows < len(table):
            rows += 1
        terms.append((_digits(v, rows, -(-256 // rows)), table, 0))
    else:
        from firmware.crypto import p256_key

        terms.append(p256_key.term(v, public65))
    x, _, z = multiply(terms)
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


def invert(a: int, modulus: int) -> int:
    """1/a modulo a prime, by extended Euclid: `pow(a, -1, m)` is silently 0 on MicroPython."""
    low, high, x, y = a % modulus, modulus, 1, 0
    if not low:
        raise ValueError("0 has no inverse")
    while low > 1:
        quotient = high // low
        low, high = high - quotient * low, low
        x, y = y - quotient * x, x
    return x % modulus


def double(x, y, z):
    """2 * (x, y, z): seven reductions (dbl-2001-b of the Explicit-Formulas Database)."""
    p = P  # a board finds a local name ten times faster than a global one
    delta = z * z % p
    gamma = y * y % p
    beta = x * gamma % p
    alpha = 3 * (x - delta) * (x + delta) % p
    x = (alpha * alpha - 8 * beta) % p
    return x, (alpha * (4 * beta - x) - 8 * gamma * gamma) % p, 2 * y * z % p


def add(x, y, z, x2, y2):
    """(x, y, z) + (x2, y2), the second affine and never infinity: ten reductions."""
    if not z:
        return x2, y2 % P, 1
    p = P
    zz = z * z % p
    h = x2 * zz % p - x
    r = y2 * (z * zz % p) % p - y
    if not h:
        return (0, 0, 0) if r else double(x, y, z)
    hh = h * h % p
    hhh = h * hh % p
    v = x * hh % p
    x = (r * r - hhh - 2 * v) % p
    return x, (r * (v - x) - y * hhh) % p, z * h % p


def multiply(terms, blind: int = 1):
    """The sum of terms (digits, table, offset of its first point); one doubling for each digit of the longest.

    digits: bytes, the highest first: 0 adds nothing, 1 + twice a point's place in the table adds it, 2 + twice its
    place takes it away. The first point enters with Z = blind.
    """
    if not blind % P:
        raise ValueError("blind is a number in 1..P-1")
    from_bytes = int.from_bytes
    steps = max([len(term[0]) for term in terms])
    begun = [(steps - len(term[0]), term[0], term[1], term[2]) for term in terms]
    x = y = z = 0
    for step in range(steps):
        if z:
            x, y, z = double(x, y, z)
        for first, digits, table, at in begun:
            if step < first or not digits[step - first]:
                continue
            digit = digits[step - first] - 1
            at += digit >> 1 << 6
            x2 = from_bytes(table[at:at + 32], "big")
            y2 = from_bytes(table[at + 32:at + 64], "big")
            if digit & 1:
                y2 = -y2
            if z:
                x, y, z = add(x, y, z, x2, y2)
            else:
                z = blind % P
                square = z * z % P
                x, y = x2 * square % P, y2 * (square * z % P) % P
    return x, y, z


def base_terms(k: int) -> list:
    """The terms of k * G."""
    global _base
    if _base is None:
        from firmware.crypto import comb_2k

        _base = comb_2k
    steps = -(-256 // (_base.ROWS * _base.BLOCKS))
    digits = _digits(k, _base.ROWS, steps * _base.BLOCKS)
    terms = []
    at = len(_base.TABLE)
    for start in range(0, len(digits), steps):  # the highest columns have the last block
        at -= 32 << _base.ROWS
        terms.append((digits[start:start + steps], _base.TABLE, at))
    return terms


def _digits(k: int, rows: int, columns: int) -> bytes:
    """The columns of k modulo n as digits of `multiply`, for a table of 2^(rows - 1) points, 2 to 7 rows.

    With k = 2 e - (2^(rows * columns) - 1), bit i of e says + (1) or - (0) for 2^i. Row 0 is the column's sign, row 1
    the highest bit of the place; below a negative sign the other rows are turned over.
    """
    e = k + (1 << rows * columns) - 1
    if e & 1:
        e += N
    e = (e >> 1) % N
    mask = (1 << columns) - 1
    ones = int.from_bytes(b"\x01" * columns, "big")
    places = minus = 0
    for row in range(rows):
        bits = int.from_bytes(bin(e & mask | mask + 1)[3:].encode(), "big") & ones  # a bit a byte, made by C
        e >>= columns
        if row:
            places = places << 1 | bits ^ minus
        else:
            minus = bits ^ ones
    return ((places << 1 | minus) + ones).to_bytes(columns, "big")
