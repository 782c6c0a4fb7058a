"""Checks the pure P-256 against OpenSSL's and against itself: same bytes, right verdicts, no exception on bad input."""

import hashlib
import os
import sys
from collections.abc import Iterator
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware.crypto import comb_2k, comb_8k, known, openssl, p256, p256_key
from firmware.crypto.openssl import OpenSSLSigner
from firmware.crypto.signer import SoftwareSigner, generate
from firmware.lightnode import LightNode
from tests.firmware.world import DAY_MS, Chain

SCALARS = st.one_of(st.integers(1, p256.N - 1), st.integers(1, 40), st.integers(p256.N - 40, p256.N - 1),
                    st.integers(0, 255).map(lambda bit: (1 << bit) % p256.N))
DIGESTS = st.one_of(st.binary(min_size=32, max_size=32), st.just(bytes(32)), st.just(b"\xff" * 32),
                    st.just(p256.N.to_bytes(32, "big")))
KEY = SoftwareSigner(hashlib.sha256(b"test key").digest())
DIGEST = hashlib.sha256(b"message").digest()
SIGNATURE = KEY.sign_digest(DIGEST)


@settings(max_examples=200)
@given(SCALARS, DIGESTS, st.integers(1, p256.P - 1))
def test_both_signers_make_the_same_bytes(scalar: int, h32: bytes, blind: int) -> None:
    d32 = scalar.to_bytes(32, "big")
    ours, theirs = SoftwareSigner(d32), OpenSSLSigner.from_scalar(d32)
    blinded = SoftwareSigner(d32, lambda count: blind.to_bytes(32, "big"))
    assert ours.public_key() == theirs.public_key() == blinded.public_key()
    sig64 = ours.sign_digest(h32)
    assert sig64 == theirs.sign_digest(h32) == blinded.sign_digest(h32)
    assert int.from_bytes(sig64[32:], "big") <= openssl.HALF_N
    assert p256.verify_digest(ours.public_key(), h32, sig64) and openssl.verify_digest(ours.public_key(), h32, sig64)


def test_two_hundred_random_keys_and_digests_sign_alike() -> None:
    for _ in range(200):
        theirs = OpenSSLSigner.generate()
        d32 = theirs._private_key.private_numbers().private_value.to_bytes(32, "big")
        ours, h32 = SoftwareSigner(d32, os.urandom), os.urandom(32)
        assert (ours.public_key(), ours.sign_digest(h32)) == (theirs.public_key(), theirs.sign_digest(h32)), d32.hex()


@settings(max_examples=60)
@given(SCALARS, DIGESTS, st.booleans())
def test_all_three_verifiers_agree(scalar: int, h32: bytes, spoil: bool) -> None:
    signer = SoftwareSigner(scalar.to_bytes(32, "big"))
    public65, sig64 = signer.public_key(), signer.sign_digest(h32)
    if spoil:
        h32 = bytes((h32[0] ^ 0x80,)) + h32[1:]
    verdicts = (p256.verify_digest(public65, h32, sig64), openssl.verify_digest(public65, h32, sig64),
                p256.verify_digest(public65, h32, sig64, p256_key.make_table(public65)))
    assert verdicts == (not spoil,) * 3


def test_the_high_s_twin_verifies_too() -> None:
    twin = SIGNATURE[:32] + (p256.N - int.from_bytes(SIGNATURE[32:], "big")).to_bytes(32, "big")
    assert p256.verify_digest(KEY.public_key(), DIGEST, twin) and openssl.verify_digest(KEY.public_key(), DIGEST, twin)


def test_every_bit_of_a_signature_counts() -> None:
    for bit in range(512):
        flipped = bytearray(SIGNATURE)
        flipped[bit >> 3] ^= 1 << (bit & 7)
        assert not openssl.verify_digest(KEY.public_key(), DIGEST, bytes(flipped)), bit
        if bit % 8 == 0:
            assert not p256.verify_digest(KEY.public_key(), DIGEST, bytes(flipped)), bit


@pytest.mark.parametrize("verify", [p256.verify_digest, openssl.verify_digest], ids=["pure", "openssl"])
@given(st.binary(max_size=80), st.binary(max_size=40), st.binary(max_size=80))
@settings(max_examples=100)
def test_bad_input_of_any_length_is_false(verify, key: bytes, digest: bytes, signature: bytes) -> None:
    assert verify(key, DIGEST, SIGNATURE) is False
    assert verify(KEY.public_key(), digest, SIGNATURE) is False
    assert verify(KEY.public_key(), DIGEST, signature) is False
    assert verify(KEY.public_key(), DIGEST, SIGNATURE) is True


@pytest.mark.parametrize("verify", [p256.verify_digest, openssl.verify_digest], ids=["pure", "openssl"])
def test_numbers_out_of_range_are_false(verify) -> None:
    r, s = SIGNATURE[:32], SIGNATURE[32:]
    for bad in (0, p256.N, p256.N + 1, p256.P, (1 << 256) - 1):
        assert verify(KEY.public_key(), DIGEST, bad.to_bytes(32, "big") + s) is False
        assert verify(KEY.public_key(), DIGEST, r + bad.to_bytes(32, "big")) is False


def test_public_keys_are_points_on_the_curve() -> None:
    good = KEY.public_key()
    assert p256.is_public_key(good)
    x, y = good[1:33], good[33:]
    minus_y = (p256.P - int.from_bytes(y, "big")).to_bytes(32, "big")
    assert p256.is_public_key(b"\x04" + x + minus_y)
    for bad in (b"", good[:64], good + b"\0", b"\x05" + good[1:], b"\x04" + y + x, b"\x04" + bytes(64),
                b"\x04" + (int.from_bytes(x, "big") + p256.P >> 1).to_bytes(32, "big") + y, b"\x04" + b"\xff" * 64):
        assert not p256.is_public_key(bad)
        with pytest.raises(ValueError, match="a public key is"):
            p256_key.make_table(bad)


def test_only_the_uncompressed_form_below_the_prime_is_a_key() -> None:
    # OpenSSL itself takes compressed (02, 03) and hybrid (06, 07) points; one key must not have several names.
    good = KEY.public_key()
    sign = good[64] & 1
    for other in (bytes((2 + sign,)) + good[1:33], bytes((6 + sign,)) + good[1:]):
        assert not p256.is_public_key(other)
        assert not p256.verify_digest(other, DIGEST, SIGNATURE) and not openssl.verify_digest(other, DIGEST, SIGNATURE)
    # A point whose x is small enough to be written as x + p as well (x < 2^256 - p).
    x, y = _first_point(1)
    point = x.to_bytes(32, "big") + y.to_bytes(32, "big")
    assert p256.is_public_key(b"\x04" + point)
    assert not p256.is_public_key(b"\x04" + (x + p256.P).to_bytes(32, "big") + y.to_bytes(32, "big"))


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, p256.P - 1), st.booleans())
def test_points_add_also_where_they_are_equal_or_opposite(i: int, j: int, z: int, opposite: bool) -> None:
    def affine(scalar: int) -> tuple[int, int]:
        point = OpenSSLSigner.from_scalar((scalar % p256.N).to_bytes(32, "big")).public_key()
        return int.from_bytes(point[1:33], "big"), int.from_bytes(point[33:], "big")

    x, y = affine(i)
    j = -j if opposite else j
    found = p256.add(x * z * z % p256.P, y * z * z * z % p256.P, z, *affine(j))
    assert found[2] == 0 if i + j == 0 else _affine(*found) == affine(i + j)
    assert p256.add(0, 0, 0, *affine(j)) == (*affine(j), 1)


def test_a_verdict_at_infinity_is_false() -> None:
    # u*G + v*Q = 0 where h = -r*d: the sum has no x. The signer of a chosen digest can make it, so it must not pass.
    d = 5
    public65 = SoftwareSigner(d.to_bytes(32, "big")).public_key()
    r = 7
    h32 = (-r * d % p256.N).to_bytes(32, "big")
    sig64 = r.to_bytes(32, "big") + (9).to_bytes(32, "big")
    assert p256.verify_digest(public65, h32, sig64) is False
    assert p256.verify_digest(public65, h32, sig64, p256_key.make_table(public65)) is False


def test_r_above_the_field_minus_the_order_is_found_by_its_second_candidate() -> None:
    # A nonce whose x lies in n..p-1 gives r = x - n. None is known by search (chance 2^-32 each), but a point with such
    # an x is: solve for y, take it as R, and choose a key and digest for it: Q = (s*R - h*G) / r.
    x, y = _first_point(p256.N + 1)
    assert p256.N < x < p256.P
    r, s, h = x - p256.N, 1, 1
    point = b"\x04" + x.to_bytes(32, "big") + y.to_bytes(32, "big")
    inverse = p256.invert(r, p256.N)
    terms = [*p256.base_terms(-h * inverse % p256.N), p256_key.term(s * inverse % p256.N, point)]
    qx, qy = _affine(*p256.multiply(terms))
    public65 = b"\x04" + qx.to_bytes(32, "big") + qy.to_bytes(32, "big")
    sig64, h32 = r.to_bytes(32, "big") + s.to_bytes(32, "big"), h.to_bytes(32, "big")
    assert p256.verify_digest(public65, h32, sig64) and openssl.verify_digest(public65, h32, sig64)


@pytest.fixture(params=[comb_2k, comb_8k], ids=["2k", "8k"])
def comb(request: pytest.FixtureRequest) -> Iterator[ModuleType]:
    p256.use_comb(request.param)
    yield request.param
    p256.use_comb(comb_2k)


SMALL = (1, 2, 3, 5, p256.N - 1, p256.N - 2, p256.N - 3, (p256.N + 1) // 2, 1 << 43, 1 << 52)


@pytest.mark.parametrize("d", SMALL)
def test_sums_that_meet_on_the_way_are_right_too(comb: ModuleType, d: int) -> None:
    """Q is a small multiple of G, and so are both summands: additions meet equal and opposite points and infinity."""
    public65 = OpenSSLSigner.from_scalar(d.to_bytes(32, "big")).public_key()
    tables = [bytearray(), *(p256_key.make_table(public65, rows) for rows in (3, 5, 6))]
    for u in (0, *SMALL):
        for v in SMALL:
            k = (u + v * d) % p256.N
            r = _x_of(k) % p256.N if k else 7
            s = r * pow(v, -1, p256.N) % p256.N
            h32, sig64 = (u * s % p256.N).to_bytes(32, "big"), r.to_bytes(32, "big") + s.to_bytes(32, "big")
            assert openssl.verify_digest(public65, h32, sig64) is (k != 0)
            for table in tables:
                assert p256.verify_digest(public65, h32, sig64, table) is (k != 0), (u, v, len(table))


@settings(max_examples=100)
@given(SCALARS, DIGESTS, st.integers(1, p256.P - 1))
def test_the_large_comb_signs_alike(scalar: int, h32: bytes, blind: int) -> None:
    d32 = scalar.to_bytes(32, "big")
    p256.use_comb(comb_8k)
    try:
        ours = SoftwareSigner(d32, lambda count: blind.to_bytes(32, "big"))
        found = ours.public_key(), ours.sign_digest(h32)
    finally:
        p256.use_comb(comb_2k)
    signer = OpenSSLSigner.from_scalar(d32)
    assert found == (signer.public_key(), signer.sign_digest(h32))


@given(st.integers(0, p256.N - 1), st.integers(2, 7))
def test_signed_columns_are_the_number(k: int, rows: int) -> None:
    columns = -(-256 // rows)
    total = 0
    for digit in p256._digits(k, rows, columns):
        total *= 2
        sign = 1 if digit & 1 else -1
        total += sign
        for row in range(1, rows):
            bit = digit - 1 >> 1 >> rows - 1 - row & 1
            total += sign * (1 if bit else -1) << row * columns
    assert total % p256.N == k


@given(st.integers(0, p256.N - 1))
def test_the_non_adjacent_form_is_the_number(v: int) -> None:
    digits, table, at = p256_key.term(v, KEY.public_key())
    total, last = 0, -9
    for place, digit in enumerate(digits):
        total *= 2
        if digit:
            total += (1 if digit & 1 else -1) * (digit - 1 | 1)
            assert place - last >= 4, "four digits hold one that is not 0"
            last = place
    assert total == v and len(table) == 4 * 64 and at == 0


def test_keys_get_combs_up_to_a_count_and_only_while_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    chain = Chain(7)
    top = chain.header([b"leaf"], DAY_MS // 1000)
    light = LightNode(chain.genesis, p256.verify_digest)
    enough = known.ENOUGH_BYTES + 7 * known.COMB_BYTES
    known.equip(light, enough - 1)
    assert light.verify_digest is p256.verify_digest, "too little free"
    known.equip(light, enough)
    assert light.accept(top, chain.certify(top), None).height == 1
    combs = light.verify_digest.__self__._combs  # type: ignore[attr-defined]
    assert len(combs) == 5 and {len(comb) for comb in combs.values()} == {known.COMB_BYTES}
    assert "firmware.crypto.p256_key" not in sys.modules, "what makes combs is dropped"

    few = known.KnownKeys(1)
    keys = [OpenSSLSigner.from_scalar(bytes([7]) * 32), OpenSSLSigner.from_scalar(bytes([9]) * 32)]
    for signer in keys * 2:
        assert few.verify_digest(signer.public_key(), DIGEST, signer.sign_digest(DIGEST)) is True
        assert few.verify_digest(signer.public_key(), DIGEST, SIGNATURE) is False
    assert list(few._combs) == [keys[0].public_key()]
    assert few.verify_digest(b"\x04" * 65, DIGEST, SIGNATURE) is False

    def no_room(public65: bytes) -> bytearray:
        raise MemoryError
    full = known.KnownKeys(2)
    from firmware.crypto import p256_key as maker
    monkeypatch.setattr(maker, "make_table", no_room)
    assert full.verify_digest(KEY.public_key(), DIGEST, SIGNATURE) is True
    monkeypatch.undo()
    assert full.verify_digest(KEY.public_key(), DIGEST, SIGNATURE) is True and not full._combs, "asked once"


def test_generate_asks_again_for_a_number_out_of_range() -> None:
    offers = [bytes(32), p256.N.to_bytes(32, "big"), b"\xff" * 32, (p256.N - 1).to_bytes(32, "big")]
    assert generate(lambda length: offers.pop(0)) == (p256.N - 1).to_bytes(32, "big") and not offers
    with pytest.raises(ValueError):
        generate(lambda length: b"short")


def test_wrong_use_is_a_value_error() -> None:
    for scalar in (b"", bytes(32), p256.N.to_bytes(32, "big"), bytes(31), b"\x01" * 33):
        with pytest.raises(ValueError):
            SoftwareSigner(scalar)
        with pytest.raises(ValueError):
            OpenSSLSigner.from_scalar(scalar)
    for signer in (KEY, OpenSSLSigner.generate()):
        with pytest.raises(ValueError, match="a digest has 32 bytes"):
            signer.sign_digest(b"short")
    with pytest.raises(ValueError):
        p256.multiply(p256.base_terms(1), p256.P)
    with pytest.raises(ValueError):
        p256.invert(p256.P, p256.P)


def _affine(x: int, y: int, z: int) -> tuple[int, int]:
    inverse = pow(z, -1, p256.P)
    return x * inverse ** 2 % p256.P, y * inverse ** 3 % p256.P


def _x_of(scalar: int) -> int:
    point = OpenSSLSigner.from_scalar(scalar.to_bytes(32, "big")).public_key()
    return int.from_bytes(point[1:33], "big")


def _first_point(x: int) -> tuple[int, int]:
    """The point with the smallest x from here on."""
    while True:
        square = (x * x * x - 3 * x + p256.B) % p256.P
        y = pow(square, (p256.P + 1) // 4, p256.P)
        if y * y % p256.P == square:
            return x, y
        x += 1
