"""Makes the set of promises that a votes file holds from its records, and the promises that a message needs.

Names: ("pre-prepare" | "prepare", v, n, digest); ("commit", v, n, digest) = the prepared certificate is there;
("batch", digest); ("view-change" | "new-view", v, hash of the payload); ("checkpoint", n, value); ("header", height,
hash); ("stable", n); ("floor", height): no header vote up to there. The records' layout is the one of
`gateway/consensus/durable.py`.
"""

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

from firmware.wire import cbor
from firmware.wire import header as wire_header
from gateway.consensus import durable
from tests.cluster.ledger import CHANNEL, Block
from tests.cluster.speech import NULL, Said, hear_signed, payload_of

Promise = tuple[Any, ...]


def of(said: Said) -> list[Promise]:
    """What has to be on disk before this message leaves (pbft.md 3.11)."""
    slot = (said.type, said.view, said.n, said.digest)
    if said.type in ("pre-prepare", "prepare"):
        return [slot] if said.digest == NULL else [slot, ("batch", said.digest)]
    if said.type == "commit":
        return [slot]
    if said.type in ("view-change", "new-view"):
        return [(said.type, said.view, hashlib.sha256(said.payload).digest())]
    if said.type == "checkpoint":
        return [(said.type, said.n, said.body)]
    if said.type == "header":
        return [(said.type, said.n, said.digest)]
    return []


def read(records: Iterable[bytes]) -> Iterator[Promise]:
    """The promises in some records."""
    for record in records:
        kind, *fields = cbor.decode(record)
        if kind == durable.ACCEPTED:
            yield from _accepted(*fields)
        elif kind == durable.PREPARED:
            yield from _prepared(fields[1], fields[2])
        elif kind == durable.ACTIVE:
            yield from _active(fields[0])
        elif kind == durable.STABLE:
            yield from _message(fields[0][0], "stable")
            for message in fields[0]:
                yield from _message(message, "checkpoint")
        elif kind == durable.FLOORS:
            yield from (("floor", height) for _, height in fields[0])
        elif kind == durable.HEADER_VOTE:
            said = hear_signed("header", payload_of(fields[0]))
            if said is not None:
                yield ("header", said.n, said.digest)
        elif kind in (durable.CHECKPOINT, durable.STOPPED):
            yield from _message(fields[0], None)


def votes_in(records: Iterable[bytes]) -> Iterator[Said]:
    """The own votes in some records: an honest vote counts from the moment at which its disk holds it."""
    for record in records:
        kind, *fields = cbor.decode(record)
        if kind == durable.STABLE:  # the own CHECKPOINT may be in the proof alone, if it was the last one needed
            yield from filter(None, (hear_signed("pbft", payload_of(one)) for one in fields[0]))
            continue
        if kind in (durable.ACCEPTED, durable.PREPARED):
            message = fields[2]
        elif kind in (durable.HEADER_VOTE, durable.CHECKPOINT):
            message = fields[0]
        else:
            continue
        said = hear_signed("header" if kind == durable.HEADER_VOTE else "pbft", payload_of(message or b""))
        if said is not None:
            yield said


def _accepted(pre_prepare: bytes, batch: bytes | None, prepare: bytes | None) -> Iterator[Promise]:
    said = hear_signed("pbft", payload_of(pre_prepare))
    if said is not None:
        yield ("pre-prepare", said.view, said.n, said.digest)
        yield ("prepare", said.view, said.n, said.digest)
    if batch is not None:
        yield ("batch", hashlib.sha256(batch).digest())


def _prepared(prepares: list[bytes], commit: bytes | None) -> Iterator[Promise]:
    """q - 1 PREPAREs and the own COMMIT; a lone replica has no PREPAREs."""
    for message in [*prepares[:1], *([commit] if commit else [])]:
        said = hear_signed("pbft", payload_of(message))
        if said is not None:
            yield ("commit", said.view, said.n, said.digest)


def _active(new_view: bytes) -> Iterator[Promise]:
    payload = payload_of(new_view)
    said = hear_signed("pbft", payload)
    if said is None:
        return
    yield ("new-view", said.view, hashlib.sha256(payload).digest())
    for element in said.body[1]:
        told = hear_signed("pbft", payload_of(element))
        if told is not None:
            yield ("pre-prepare", told.view, told.n, told.digest)
            yield ("prepare", told.view, told.n, told.digest)


def _message(message: bytes, name: str | None) -> Iterator[Promise]:
    payload = payload_of(message)
    said = hear_signed("pbft", payload)
    if said is None:
        return
    if name == "stable":
        yield ("stable", said.n)
    elif said.type == "checkpoint":
        yield ("checkpoint", said.n, said.body)
    else:
        yield (said.type, said.view, hashlib.sha256(payload).digest())


def digest_of_block(block: Block) -> bytes:
    """D of the batch that a block was made from."""
    header = wire_header.decode(block.header)
    return hashlib.sha256(cbor.encode([CHANNEL, header.view, header.time_s, list(block.items)])).digest()
