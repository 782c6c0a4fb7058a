"""Makes items as clients would: a client, a rising sequence number, some bytes; and reads them back from requests."""

import hashlib
from collections.abc import Sequence
from random import Random

from firmware.wire import cbor
from firmware.wire.errors import Refused
from gateway.consensus.types import Item

CLIENTS = 5
CHANGE = "change"  # an item that names the machines of the next epoch
BAD = "bad"  # marks what no honest ingest would have taken: only liars put it into batches


def identify(item: bytes) -> bytes:
    """The key of an item: hash of its bytes."""
    return hashlib.sha256(item).digest()


def make_item(chance: Random, sequence: int, transaction_share: float) -> Item:
    kind = "tx" if chance.random() < transaction_share else "seal"
    padding = chance.randbytes(chance.choice((4, 40, 300)))
    return _item(cbor.encode([kind, chance.randrange(CLIENTS), sequence, padding]))


def make_bad_item(chance: Random) -> bytes:
    return cbor.encode([BAD, 0, 0, chance.randbytes(4)])


def make_change(sequence: int, members: Sequence[int]) -> Item:
    return _item(cbor.encode([CHANGE, 0, sequence, list(members)]))


def wanted_set(data: bytes) -> tuple[int, ...] | None:
    """The machines that an item names, None for any other item."""
    try:
        fields = cbor.decode(data)
    except Refused:
        return None
    is_change = isinstance(fields, list) and len(fields) == 4 and fields[0] == CHANGE and isinstance(fields[3], list)
    return tuple(fields[3]) if is_change else None


def is_good(data: bytes) -> bool:
    """What a real driver finds out by checking signatures."""
    try:
        fields = cbor.decode(data)
    except Refused:
        return False
    return isinstance(fields, list) and len(fields) == 4 and fields[0] in ("tx", "seal", CHANGE) and (
        fields[1] in range(CLIENTS))


def item_of_request(request: bytes) -> Item | None:
    """The item that a SUBMIT carries, if it is one that ingest would take."""
    data = request[len(b"request"):]
    if not request.startswith(b"request") or not is_good(data):
        return None
    return _item(data)


def _item(data: bytes) -> Item:
    kind, client, _, _ = cbor.decode(data)
    return Item(identify(data), "tx" if kind == CHANGE else kind, data, b"request" + data, bytes([client]))
