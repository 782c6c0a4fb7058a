"""Checks that the shipped comb of the base point is the one that would be made."""

from firmware.crypto import p256, p256_g


def test_the_shipped_table_is_the_one_made_from_g() -> None:
    assert p256_g.TABLE == p256.make_table(p256.G65)
