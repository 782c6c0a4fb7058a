"""Checks that the shipped combs of the base point are those that would be made, and what a multiplication costs."""

from types import ModuleType

import pytest

from firmware.crypto import comb_2k, comb_8k, p256, p256_key
from firmware.crypto.openssl import OpenSSLSigner
from tests.crypto import speed


@pytest.mark.parametrize("comb", [comb_2k, comb_8k], ids=["2k", "8k"])
def test_the_shipped_tables_are_the_ones_made_from_g(comb: ModuleType) -> None:
    steps = -(-256 // (comb.ROWS * comb.BLOCKS))
    made = b""
    for block in range(comb.BLOCKS):
        point = OpenSSLSigner.from_scalar((1 << block * steps).to_bytes(32, "big")).public_key()
        made += p256_key.make_table(point, comb.ROWS, comb.BLOCKS * steps)
    assert comb.TABLE == made
    assert len(comb.TABLE) == {comb_2k: 2048, comb_8k: 8192}[comb]


@pytest.mark.parametrize(("comb", "most"), [(comb_2k, 720), (comb_8k, 502)], ids=["2k", "8k"])
def test_a_multiplication_takes_so_many_reductions_whatever_the_scalar(comb: ModuleType, most: int) -> None:
    # firmware.md grants 900 to a table of 2 KiB and 600 to one of 8; no digit is 0, so every scalar takes the same.
    try:
        assert set(speed.reductions(comb)) == {most}
    finally:
        p256.use_comb(comb_2k)
