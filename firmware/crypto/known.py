"""Makes verdicts on signatures of a few keys that sign again and again, such as the replicas', by a comb for each key.

A comb more than halves the time of a verification. It takes 2 KiB of RAM and, once, two thirds of the time of a
verification without one; where there is no room for it, the key is verified without.
"""

import sys

from firmware.crypto import p256

ENOUGH_BYTES = 48 * 1024  # what is to stay free on a board whose light node's keys get combs
COMB_BYTES = 2048
_MAKER = "p256_key"


def equip(light, free_bytes):
    """Gives a light node combs for its members' keys, if a board with so much free has room for them."""
    if free_bytes >= ENOUGH_BYTES + COMB_BYTES * len(light.keys):
        light.verify_digest = KnownKeys(len(light.keys)).verify_digest


class KnownKeys:
    """`verify_digest` as p256's. Keys get combs until there are `count`: hand it the keys of a known set only."""

    def __init__(self, count):
        self._count = count
        self._combs: dict = {}

    def verify_digest(self, public65, h32, sig64):
        """True when sig64 signs h32 under public65; False for anything else."""
        comb = self._combs.get(public65, b"")
        if not comb and len(self._combs) < self._count and p256.is_public_key(public65):
            comb = self._add_comb(public65)
        return p256.verify_digest(public65, h32, sig64, comb)

    def _add_comb(self, public65):
        from firmware.crypto import p256_key

        comb = bytearray()
        try:
            comb = self._combs[public65] = p256_key.make_table(public65)
        except MemoryError:
            self._count = 0
        # What made it is not needed again: a board has its RAM back.
        package = sys.modules["firmware.crypto"]
        if sys.modules.pop("firmware.crypto." + _MAKER, None) is getattr(package, _MAKER, None) is not None:
            delattr(package, _MAKER)
        return comb
