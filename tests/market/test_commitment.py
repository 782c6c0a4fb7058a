"""Sealed bids: bound to chain, bidder, slot, price and volume; nobody else can open one, nobody can guess one."""

import hashlib
from typing import Any

import cbor2
import pytest

from firmware.wire.errors import Refused
from gateway.market.amounts import ENERGY_WH, PRICE_MC
from gateway.market.commitment import beacon_of, check_reveal, commitment

BID = (bytes(range(32)), b"bidder 1", 1_790_000_400, 46_000, 19_700, bytes(range(16)))


def test_what_is_hashed() -> None:
    plain = cbor2.dumps(["gridseal-bid", 1, *BID], canonical=True)
    assert commitment(*BID) == hashlib.sha256(plain).digest()
    check_reveal(commitment(*BID), *BID)


def test_every_field_binds() -> None:
    """security.md, T61: a copied commitment cannot be opened by another bidder, on another chain, for another slot."""
    sealed = commitment(*BID)
    for index, other in enumerate((bytes(32), b"bidder 2", 1_790_004_000, 46_001, 19_701, bytes(16))):
        changed: list[Any] = [*BID]
        changed[index] = other
        with pytest.raises(Refused, match="wrong_digest"):
            check_reveal(sealed, *changed)


def test_a_dictionary_over_all_prices_hits_nothing() -> None:
    """T61: who knows all but the nonce and tries every price with nonces of his own."""
    sealed = {commitment(*BID[:5], hashlib.sha256(b"secret %d" % number).digest()[:16]) for number in range(1000)}
    assert len(sealed) == 1000
    tried = {commitment(*BID[:3], price, 19_700, bytes(16)) for price in range(38_000, 48_000)}
    assert not sealed & tried


def test_what_cannot_be_a_bid() -> None:
    cases: tuple[tuple[int, Any, str], ...] = (
        (3, -1, "wrong_price"), (3, PRICE_MC + 1, "wrong_price"), (4, 0, "wrong_volume"),
        (4, ENERGY_WH + 1, "wrong_volume"), (5, bytes(15), "malformed"))
    for index, wrong, reason in cases:
        changed: list[Any] = [*BID]
        changed[index] = wrong
        with pytest.raises(Refused, match=reason):
            commitment(*changed)


def test_the_beacon() -> None:
    nonces = [bytes([number]) * 16 for number in (3, 1, 2)]
    assert beacon_of(nonces) == beacon_of(reversed(nonces)) == hashlib.sha256(b"".join(sorted(nonces))).digest()
    assert beacon_of(nonces[:2]) != beacon_of(nonces) and beacon_of([]) is None
