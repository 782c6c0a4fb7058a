"""Makes the records of the votes log from promises, and the promises from the records: pbft.md 3.11 line by line.

    kind  written before                          holds
    1     PRE-PREPARE, PREPARE                    the PRE-PREPARE, the batch where no record has it yet, the own PREPARE
    2     COMMIT                                  n, the q-1 PREPAREs (of the PRE-PREPARE in record 1), the own COMMIT
    3     HEADER-VOTE                             the vote, the only one ever for its height
    4     CHECKPOINT                              the own CHECKPOINT
    5     VIEW-CHANGE                             the own VIEW-CHANGE with P as sent: state VIEW_CHANGE of that view
    6     PREPARE after NEW-VIEW                  the NEW-VIEW with V and O: state ACTIVE in that view
    7     deleting below h                        the q CHECKPOINTs that prove h
    8     forgetting header votes                 per channel the height up to which none is given any more
    9     the first vote of an epoch              its number; none: epoch 0

A vote's record never repeats the batch. At a stable checkpoint the whole log is replaced by what still counts.
"""

from collections.abc import Sequence
from typing import NamedTuple

from firmware.wire import cbor
from firmware.wire.errors import Refused
from firmware.wire.shape import check_fields
from gateway.consensus.messages import Prepared

ACCEPTED, PREPARED, HEADER_VOTE, CHECKPOINT, STOPPED, ACTIVE, STABLE, FLOORS, EPOCH = range(1, 10)

_KINDS = {
    ACCEPTED: ("b", "b?", "b?"),
    PREPARED: ("u", "l", "b?"),
    HEADER_VOTE: ("b",),
    CHECKPOINT: ("b",),
    STOPPED: ("b",),
    ACTIVE: ("b",),
    STABLE: ("l",),
    FLOORS: ("l",),
    EPOCH: ("u",),
}


class Record(NamedTuple):
    kind: int
    fields: tuple


def accepted(pre_prepare: bytes, batch: bytes | None, prepare: bytes | None) -> bytes:
    return cbor.encode([ACCEPTED, pre_prepare, batch, prepare])


def prepared(n: int, proof: Prepared, commit: bytes | None) -> bytes:
    return cbor.encode([PREPARED, n, list(proof.prepares), commit])


def header_vote(vote: bytes) -> bytes:
    return cbor.encode([HEADER_VOTE, vote])


def checkpoint(message: bytes) -> bytes:
    return cbor.encode([CHECKPOINT, message])


def stopped(view_change: bytes) -> bytes:
    return cbor.encode([STOPPED, view_change])


def active(new_view: bytes) -> bytes:
    return cbor.encode([ACTIVE, new_view])


def stable(proof: Sequence[bytes]) -> bytes:
    return cbor.encode([STABLE, list(proof)])


def proof(messages: Sequence[bytes]) -> bytes:
    """The q CHECKPOINTs of a proof as one value."""
    return cbor.encode(list(messages))


def floors(heights: Sequence[tuple[str, int]]) -> bytes:
    return cbor.encode([FLOORS, [list(pair) for pair in heights]])


def epoch(number: int) -> bytes:
    return cbor.encode([EPOCH, number])


def epoch_of(records: Sequence[bytes]) -> int:
    """The epoch that a votes log is of: its first record tells, where it is not 0."""
    found = [record.fields[0] for record in read(records[:1]) if record.kind == EPOCH]
    return found[0] if found else 0


def read(records: Sequence[bytes]) -> list[Record]:
    """The records in their order; ValueError with the place for one that no program of ours wrote."""
    out = []
    for place, record in enumerate(records):
        try:
            fields = cbor.decode(record)
            if not isinstance(fields, list) or not fields or fields[0] not in _KINDS:
                raise ValueError("record %d of the votes log is of no known kind" % place)
            check_fields(fields, ("u", *_KINDS[fields[0]]))
        except Refused as refused:
            raise ValueError("record %d of the votes log: %s" % (place, refused)) from refused
        out.append(Record(fields[0], tuple(fields[1:])))
    return out
