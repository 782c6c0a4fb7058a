"""Makes the result codes of a batch, and the state after it, from the state before it; the same on every replica.

Theory. PBFT orders opaque bytes; what they mean is decided here, once, at execution, by nothing but the state, the
block's context and the bytes. An item is judged by one rule that first checks everything and then writes, so a refusal
leaves nothing half done. Whatever the bytes are, they get a code:

    0            accepted
    1..255       refused, number of a reason (firmware/wire/errors.py); a transaction that its sender really signed
                 still uses up its sequence number, so that it cannot be tried again
    256 + bits   a seal that is taken but marked (context.py)

Before a block's items comes what is due at its time (calendar.py): nothing in it asks who proposed the block.

Only `Refused` is turned into a code: any other exception is a bug, and must stop the replica instead of letting it
continue with a state that its peers may not have. Integers only; nothing depends on the order of a dict or a set.
"""

from collections.abc import Sequence
from typing import NamedTuple

from firmware.wire import cose
from firmware.wire import seal as seal_codec
from firmware.wire import state as state_codec
from firmware.wire.errors import Refused
from gateway.contracts import calendar, seals, transactions, validators
from gateway.contracts.context import BlockContext, CheckSignature, State

_ARRAY_OF_7 = 0x87  # a transaction's payload is a CBOR array of 7, a seal's one of 17: the first byte tells


class Result(NamedTuple):
    """What became of one item. `seal` and `record` (its chain's, after it) only for an accepted seal."""

    code: int
    payload_hash: bytes  # the item's identity; of its bytes where they have no payload
    seal: seal_codec.Seal | None = None
    record: state_codec.ChainRecord | None = None
    is_transaction: bool = False


def apply_block(state: State, context: BlockContext, items: Sequence[bytes],
                check_signature: CheckSignature) -> list[Result]:
    """Does what is due at the block's time, then executes the items in order; never raises for what an item holds."""
    validators.begin_epoch(state, context)
    calendar.advance(state, context)
    return [apply_item(state, context, item, check_signature) for item in items]


def apply_items(state: State, context: BlockContext, items: Sequence[bytes],
                check_signature: CheckSignature) -> list[int]:
    """The result codes of a block."""
    return [result.code for result in apply_block(state, context, items, check_signature)]


def apply_item(state: State, context: BlockContext, item: bytes, check_signature: CheckSignature) -> Result:
    """Executes one item and tells what became of it."""
    try:
        signed = cose.parse(item)
    except Refused as refusal:
        return Result(refusal.number, seal_codec.payload_hash(item))
    payload_hash = seal_codec.payload_hash(signed.payload)
    is_transaction = signed.payload[:1] == bytes((_ARRAY_OF_7,))
    try:
        if is_transaction:
            transactions.apply_transaction(state, context, item, signed, check_signature)
            return Result(0, payload_hash, is_transaction=True)
        taken = seals.apply_seal(state, context, item, signed, payload_hash, check_signature)
        return Result(taken.code, payload_hash, taken.seal, taken.record)
    except Refused as refusal:
        return Result(refusal.number, payload_hash, is_transaction=is_transaction)
