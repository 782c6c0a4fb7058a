"""Makes the seal over a bid that its owner opens later, and the beacon that orders equals, from opened bids.

Source: 003's blind auction; market.md (offers), transactions.md types 12 and 13; security.md, T60 and T61. The
commitment binds chain, bidder, slot, price and volume under a nonce of 128 bits, so that a copied one cannot be opened
by its thief (another kid) and nobody can try all prices. The chain's deterministic CBOR is what is hashed:

    SHA-256(CBOR ["gridseal-bid", 1, chain id, kid, slot, price, Wh, nonce])

The beacon is SHA-256 over the slot's revealed nonces in sorted order, each 16 bytes. Without a reveal there is none
here: the caller takes the hash of the first header at or after the gate (market.md).
"""

import hashlib
from collections.abc import Iterable

from firmware.wire import cbor
from firmware.wire.errors import check
from gateway.market.amounts import check_energy, check_price

NAME, VERSION = "gridseal-bid", 1
NONCE_BYTES = 16


def commitment(chain_id: bytes, kid: bytes, slot_s: int, price_mc: int, energy_wh: int, nonce: bytes) -> bytes:
    """Returns the 32 bytes that type 12 carries; Refused `wrong_price`, `wrong_volume`, `malformed` (nonce)."""
    check_price(price_mc)
    check_energy(energy_wh, 1)
    check(len(nonce) == NONCE_BYTES, "malformed", NONCE_BYTES, len(nonce))
    return hashlib.sha256(cbor.encode([NAME, VERSION, chain_id, kid, slot_s, price_mc, energy_wh, nonce])).digest()


def check_reveal(committed: bytes, chain_id: bytes, kid: bytes, slot_s: int, price_mc: int, energy_wh: int,
                 nonce: bytes) -> None:
    """Raises Refused `wrong_digest` unless these values are what was committed; and as `commitment`."""
    found = commitment(chain_id, kid, slot_s, price_mc, energy_wh, nonce)
    check(found == committed, "wrong_digest", committed, found)


def beacon_of(nonces: Iterable[bytes]) -> bytes | None:
    """Returns the beacon of a slot's revealed nonces, None when there are none."""
    revealed = sorted(nonces)
    return hashlib.sha256(b"".join(revealed)).digest() if revealed else None
