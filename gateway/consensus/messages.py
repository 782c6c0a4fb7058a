"""Makes the payloads of PBFT's messages from values, and values from payloads: strict, bounded, one form each.

A payload is `[type, epoch, fields ..., sender]` inside a COSE_Sign1 of kind `pbft` (wire.md). What travels between
replicas is a frame, told apart by its first byte:

    p  COSE                     any message
    b  CBOR [COSE, batch]       a PRE-PREPARE with its batch beside it (the signed digest proves the batch)
    h  COSE of kind `header`    a HEADER-VOTE
"""

import hashlib
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

from firmware.wire import cbor
from firmware.wire.errors import check
from firmware.wire.shape import check_fields, check_list
from gateway.consensus.types import Batch, Head

PRE_PREPARE, PREPARE, COMMIT, CHECKPOINT, VIEW_CHANGE, NEW_VIEW, FETCH, DATA, STATUS, SUBMIT = range(1, 11)
NULL_DIGEST = hashlib.sha256(b"\xf6").digest()  # pbft.md 3.6: the digest of nothing, ordered where nobody prepared
WANTED = 32  # open heights named in one STATUS; who has given a vote there sends it again
STATUS_SLOTS = 16  # slots of a STATUS: twice the usual depth
SUBMIT_BYTES = 256 * 1024  # requests of one SUBMIT; one envelope has at most 60 KiB
VOTE_BYTES = 512  # a PRE-PREPARE, PREPARE or COMMIT has about 150

_new = tuple.__new__  # a named tuple without the call between

# An unsigned integer below 2^32 in its shortest form; a vote: [type, epoch, view, n, digest, sender].
_NUMBER = rb"([\x00-\x17]|\x18[\x18-\xff]|\x19(?!\x00)..|\x1a(?!\x00\x00)....)"
_VOTE = re.compile(rb"\x86([\x01-\x03])" + 3 * _NUMBER + rb"\x58\x20(.{32})" + _NUMBER, re.DOTALL)


class Vote(NamedTuple):
    """PRE-PREPARE (the primary's, here without its batch), PREPARE or COMMIT."""

    type: int
    view: int
    n: int
    digest: bytes
    sender: int


class Checkpoint(NamedTuple):
    n: int
    state_root: bytes
    heads: tuple[Head, ...]
    sender: int


class Prepared(NamedTuple):
    """A certificate that (view, n, digest) prepared: the PRE-PREPARE and q-1 PREPAREs, in rising order of senders."""

    pre_prepare: bytes
    prepares: tuple[bytes, ...]


class ViewChange(NamedTuple):
    view: int
    low: int
    proof: tuple[bytes, ...]  # q CHECKPOINTs for `low`, in rising order of senders; none for 0
    prepared: tuple[Prepared, ...]  # by rising n
    sender: int


class NewView(NamedTuple):
    view: int
    view_changes: tuple[bytes, ...]  # V, in rising order of senders
    pre_prepares: tuple[bytes, ...]  # O, by rising n
    sender: int


class Fetch(NamedTuple):
    digest: bytes
    sender: int


class Data(NamedTuple):
    """A batch, or COMMITs that prove a decision, or both."""

    batch: bytes | None
    commits: tuple[bytes, ...]
    sender: int


class SlotStatus(NamedTuple):
    """What the sender of a STATUS holds of slot n in its view; the sets are bit masks of ids."""

    n: int
    has_batch: bool
    has_pre_prepare: bool
    prepares: int
    commits: int


class Status(NamedTuple):
    view: int
    is_active: bool
    low: int
    decided: int
    round: int  # counts this sender's STATUSes: who helps beside the primary goes by it
    view_changes: int  # mask: whose VIEW-CHANGE for `view` it holds
    slots: tuple[SlotStatus, ...]
    wanted: tuple[tuple[str, int], ...]  # (channel, height) of blocks that were executed and lack header votes
    sender: int


class Submit(NamedTuple):
    requests: tuple[bytes, ...]
    sender: int


Message = Vote | Checkpoint | ViewChange | NewView | Fetch | Data | Status | Submit


def encode_batch(batch: Batch) -> bytes:
    parts = [cbor.encode([batch.channel, batch.view, batch.time_s, []])[:-1], cbor.head(4, len(batch.items))]
    for item in batch.items:
        parts.append(_bytes_head(len(item)))
        parts.append(item)
    return b"".join(parts)


def decode_batch(data: bytes) -> Batch:
    """Raises Refused `malformed` unless `data` is a batch (what is in it is judged elsewhere)."""
    items = _split_items(data)
    fields: list = cbor.decode(data) if items is None else items
    check_fields(fields, ("t", "u", "u", "l"))
    if items is None:
        check_list(fields[3], "b")
    check(fields[2] < 1 << 32, "malformed", "seconds of 32 bits", fields[2])  # the header's field, until 2106
    return Batch(fields[0], fields[1], fields[2], tuple(fields[3]))


def digest_of(batch: bytes) -> bytes:
    """D: SHA-256 of an encoded batch."""
    return hashlib.sha256(batch).digest()


def encode(message: Message, epoch: int) -> bytes:
    """The payload that is signed."""
    sender = message.sender
    if isinstance(message, Vote):
        return b"".join((b"\x86", _uint(message.type), _uint(epoch), _uint(message.view), _uint(message.n),
                         _bytes_head(len(message.digest)), message.digest, _uint(sender)))
    if isinstance(message, Checkpoint):
        return cbor.encode([CHECKPOINT, epoch, message.n, message.state_root, [list(h) for h in message.heads], sender])
    if isinstance(message, ViewChange):
        prepared = [[p.pre_prepare, list(p.prepares)] for p in message.prepared]
        return cbor.encode([VIEW_CHANGE, epoch, message.view, message.low, list(message.proof), prepared, sender])
    if isinstance(message, NewView):
        return cbor.encode([
            NEW_VIEW, epoch, message.view, list(message.view_changes), list(message.pre_prepares), sender])
    if isinstance(message, Fetch):
        return cbor.encode([FETCH, epoch, message.digest, sender])
    if isinstance(message, Data):
        return cbor.encode([DATA, epoch, message.batch, list(message.commits), sender])
    if isinstance(message, Submit):
        return cbor.encode([SUBMIT, epoch, list(message.requests), sender])
    return _encode_status(message, epoch)


def decode(payload: bytes, epoch: int, size: int) -> Message:
    """The message of a payload in an epoch of `size` members; raises Refused `malformed`, `unknown_type`,
    `wrong_epoch` or `unknown_signer`. Nothing here says that its sender signed it. Votes, nine of ten messages, are
    read in a fifth of the time; what is not quite one goes the slow way, which has the last word."""
    match = _VOTE.fullmatch(payload)
    if match is not None:
        kind, vote_epoch, view, n, digest, member = match.groups()
        sender = _number(member)
        if sender < size and _number(vote_epoch) == epoch:
            return _new(Vote, (kind[0], _number(view), _number(n), digest, sender))
    fields = cbor.decode(payload)
    check(isinstance(fields, list) and len(fields) >= 4, "malformed", "a message", None)
    kind = fields[0]
    check(isinstance(kind, int) and kind in _DECODERS, "unknown_type", "a type of 1 to 10", kind)
    check(fields[1] == epoch, "wrong_epoch", epoch, fields[1])
    sender = fields[-1]
    check(isinstance(sender, int) and not isinstance(sender, bool), "malformed", "a sender", sender)
    check(0 <= sender < size, "unknown_signer", size, sender)
    kinds, build = _DECODERS[kind]
    check_fields(fields, ("u", "u", *kinds, "u"))
    return build(fields, size)


def encode_heads(heads: Sequence[Head]) -> bytes:
    return cbor.encode([list(head) for head in heads])


def frame(message: bytes, batch: bytes | None = None) -> bytes:
    """What is sent for a signed message."""
    if batch is None:
        return b"p" + message
    return b"b" + cbor.encode([message, batch])


def open_frame(data: bytes) -> tuple[bytes, bytes | None]:
    """(signed message, batch beside it or None) of a frame of kind p or b; raises Refused `malformed`."""
    if data[:1] == b"p":
        return data[1:], None
    check(data[:1] == b"b", "malformed", "a frame of kind p, b or h", data[:1])
    fields = cbor.decode(data[1:])
    check_fields(fields, ("b", "b"))
    return fields[0], fields[1]


@lru_cache(1024)  # items of one kind have few lengths
def _bytes_head(size: int) -> bytes:
    return bytes(cbor.head(2, size))


@lru_cache(1024)  # a decision's number is written a dozen times
def _uint(number: int) -> bytes:
    return bytes(cbor.head(0, number))


def _split_items(data: bytes) -> list | None:
    """The four fields of a batch whose items have 24..65,535 bytes, as nearly all have, in a tenth of the time that the
    plain decoder takes; None for anything else, and then that one has the last word."""
    if data[:1] != b"\x84":
        return None
    fields: list = []
    at = 1
    for _ in range(3):
        value, at = cbor.decode_from(data, at)
        fields.append(value)
    size = len(data)
    if at >= size:
        return None
    head = data[at]
    if 0x80 <= head < 0x98:
        count, at = head & 31, at + 1
    elif head == 0x98 and at + 1 < size and data[at + 1] > 23:
        count, at = data[at + 1], at + 2
    elif head == 0x99 and at + 2 < size and data[at + 1]:
        count, at = data[at + 1] << 8 | data[at + 2], at + 3
    else:
        return None
    items = []
    for _ in range(count):
        if at + 2 >= size:
            return None
        kind, first = data[at], data[at + 1]
        if kind == 0x58 and first > 23:
            start = at + 2
            at = start + first
        elif kind == 0x59 and first:
            start = at + 3
            at = start + (first << 8 | data[at + 2])
        else:
            return None
        items.append(data[start:at])
    if at != size:
        return None
    fields.append(items)
    return fields


def _encode_status(message: Status, epoch: int) -> bytes:
    slots = [[s.n, s.has_batch, s.has_pre_prepare, _bytes_of(s.prepares), _bytes_of(s.commits)] for s in message.slots]
    return cbor.encode([
        STATUS, epoch, message.view, message.is_active, message.low, message.decided, message.round,
        _bytes_of(message.view_changes), slots, [list(pair) for pair in message.wanted], message.sender])


def _number(head: bytes) -> int:
    return head[0] if len(head) == 1 else int.from_bytes(head[1:], "big")


def _bytes_of(mask: int) -> bytes:
    return mask.to_bytes((mask.bit_length() + 7) >> 3, "little")


def _mask_of(data: bytes, size: int) -> int:
    mask = int.from_bytes(data, "little")
    check(mask < 1 << size and (not data or data[-1] != 0), "malformed", "a mask of %d ids" % size, data)
    return mask


def _vote(fields: list, size: int) -> Vote:
    return Vote(fields[0], fields[2], fields[3], fields[4], fields[5])


def _checkpoint(fields: list, size: int) -> Checkpoint:
    check_list(fields[4], "l")
    heads = []
    for head in fields[4]:
        check_fields(head, ("t", "u", "b32"))
        heads.append(Head(*head))
    names = [head.channel for head in heads]
    check(names == sorted(set(names)), "malformed", "channels that rise", names)
    return Checkpoint(fields[2], fields[3], tuple(heads), fields[5])


def _view_change(fields: list, size: int) -> ViewChange:
    check_list(fields[4], "b")
    check_list(fields[5], "l")
    prepared = []
    for row in fields[5]:
        check_fields(row, ("b", "l"))
        check_list(row[1], "b")
        prepared.append(Prepared(row[0], tuple(row[1])))
    return ViewChange(fields[2], fields[3], tuple(fields[4]), tuple(prepared), fields[6])


def _new_view(fields: list, size: int) -> NewView:
    check_list(fields[3], "b")
    check_list(fields[4], "b")
    return NewView(fields[2], tuple(fields[3]), tuple(fields[4]), fields[5])


def _fetch(fields: list, size: int) -> Fetch:
    return Fetch(fields[2], fields[3])


def _data(fields: list, size: int) -> Data:
    check_list(fields[3], "b")
    check(len(fields[3]) <= size, "malformed", size, len(fields[3]))
    return Data(fields[2], tuple(fields[3]), fields[4])


def _status(fields: list, size: int) -> Status:
    check(isinstance(fields[3], bool), "malformed", "a boolean", fields[3])
    check(len(fields[8]) <= STATUS_SLOTS, "oversize", STATUS_SLOTS, len(fields[8]))
    slots = []
    for row in fields[8]:
        check_fields(row, ("u", "*", "*", "b", "b"))
        check(isinstance(row[1], bool) and isinstance(row[2], bool), "malformed", "booleans", row[1:3])
        slots.append(SlotStatus(row[0], row[1], row[2], _mask_of(row[3], size), _mask_of(row[4], size)))
    check(len(fields[9]) <= WANTED, "oversize", WANTED, len(fields[9]))
    wanted = []
    for row in fields[9]:
        check_fields(row, ("t", "u"))
        wanted.append((row[0], row[1]))
    return Status(fields[2], fields[3], fields[4], fields[5], fields[6], _mask_of(fields[7], size),
                  tuple(slots), tuple(wanted), fields[10])


def _submit(fields: list, size: int) -> Submit:
    check_list(fields[2], "b")
    return Submit(tuple(fields[2]), fields[3])


_DECODERS: dict[int, tuple[tuple[str, ...], Callable[[list, int], Message]]] = {
    PRE_PREPARE: (("u", "u", "b32"), _vote),
    PREPARE: (("u", "u", "b32"), _vote),
    COMMIT: (("u", "u", "b32"), _vote),
    CHECKPOINT: (("u", "b32", "l"), _checkpoint),
    VIEW_CHANGE: (("u", "u", "l", "l"), _view_change),
    NEW_VIEW: (("u", "l", "l"), _new_view),
    FETCH: (("b32",), _fetch),
    DATA: (("b?", "l"), _data),
    STATUS: (("u", "*", "u", "u", "u", "b", "l", "l"), _status),
    SUBMIT: (("l",), _submit),
}
