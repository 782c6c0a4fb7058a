"""Makes one will of two: who has already sent the body of a transaction that takes effect when a second sends it too.

A COSE_Sign1 has one signer, so each of two sends the same body (transactions.md); what it says takes effect with the
second. A body may wait for ever, so a sender's waiting bodies are counted, and the oldest makes room.
"""

import hashlib

from firmware.wire import cbor
from firmware.wire.transaction import Transaction
from gateway.contracts.context import State
from gateway.market.records import consent_key, consents_key

WAITING = 64  # bodies of one sender that wait for the other: more than a bank's day, less than a flood


def first_of(store: State, found: Transaction) -> bytes | None:
    """The kid that has sent this body before, or None."""
    data = store.get(_key(found))
    return None if data is None else cbor.decode(data)[0]


def note(store: State, found: Transaction, side: bytes | None = None) -> None:
    """Keeps the sender's will until the other's comes; `side`: the account that the sender signs for."""
    key, kid = _key(found), found.sender if side is None else side
    waiting = [other for other in _waiting(store, kid) if store.get(other) is not None]
    for other in waiting[:max(0, len(waiting) - WAITING + 1)]:
        store.delete(other)
    store.put(key, cbor.encode([kid]))
    store.put(consents_key(kid), cbor.encode([*waiting[-WAITING + 1:], key]))


def drop(store: State, found: Transaction) -> None:
    """The body took effect: the same may be wanted again."""
    first = first_of(store, found)
    if first is None:
        return
    key = _key(found)
    store.delete(key)
    left = [other for other in _waiting(store, first) if other != key]
    if left:
        store.put(consents_key(first), cbor.encode(left))
    else:
        store.delete(consents_key(first))


def _key(found: Transaction) -> bytes:
    return consent_key(hashlib.sha256(cbor.encode([found.type, found.body])).digest())


def _waiting(store: State, kid: bytes) -> list[bytes]:
    data = store.get(consents_key(kid))
    return [] if data is None else cbor.decode(data)
