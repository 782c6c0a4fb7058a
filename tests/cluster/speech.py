"""Makes what a frame says from its bytes, by our own reading of pbft.md 3.2: the judge's ears and the liars' tongue.

Only the numbers of the message types are taken from the code under test. Signatures are not checked here: the judge
knows every payload that was ever signed.
"""

import hashlib
from functools import lru_cache
from typing import Any, NamedTuple

from firmware.wire import cbor, cose
from firmware.wire.errors import Refused
from gateway.consensus import messages

NULL = hashlib.sha256(b"\xf6").digest()  # D of nothing
NAMES = {
    messages.PRE_PREPARE: "pre-prepare", messages.PREPARE: "prepare", messages.COMMIT: "commit",
    messages.CHECKPOINT: "checkpoint", messages.VIEW_CHANGE: "view-change", messages.NEW_VIEW: "new-view",
    messages.FETCH: "fetch", messages.DATA: "data", messages.STATUS: "status", messages.SUBMIT: "submit",
}
VOTES = ("pre-prepare", "prepare", "commit")


class Said(NamedTuple):
    """One signed message. view, n and digest are what its type has of them (a header vote: n = height)."""

    type: str
    sender: int  # -1: a header vote names nobody in its payload
    view: int
    n: int
    digest: bytes
    body: Any
    payload: bytes
    epoch: int = 0

    def __str__(self) -> str:
        digest = "NULL" if self.digest == NULL else self.digest.hex()[:8]
        epoch = f"e {self.epoch} " if self.epoch else ""
        return f"{self.type} by {self.sender} {epoch}v {self.view} n {self.n} {digest}"

    def votes(self) -> list[tuple[tuple[Any, ...], Any]]:
        """(slot, vote): what may be said once only."""
        if self.type in VOTES:
            return [((self.type, self.view, self.n), self.digest)]
        if self.type == "checkpoint":
            return [((self.type, self.n), self.body)]
        if self.type == "header":
            return [((self.type, self.n), self.digest)]
        if self.type == "view-change":
            return [((self.type, self.view), hashlib.sha256(self.payload).digest())]
        if self.type == "new-view":
            own = [((self.type, self.view), hashlib.sha256(self.payload).digest())]
            elements = [hear_signed("pbft", payload_of(message)) for message in self.body[1]]
            return own + [(("pre-prepare", said.view, said.n), said.digest) for said in elements if said]
        return []


def payload_of(message: bytes) -> bytes:
    """The payload of a COSE message; empty when it is none."""
    try:
        return bytes(cose.parse(message).payload)
    except Refused:
        return b""


@lru_cache(maxsize=20_000)
def hear(data: bytes) -> Said | None:
    """What a frame says; None for noise."""
    kind, message = data[:1], data[1:]
    if kind == b"b":
        try:
            message = cbor.decode(message)[0]
        except (Refused, TypeError, IndexError):
            return None
    if kind not in (b"p", b"b", b"h") or not isinstance(message, bytes):
        return None
    return hear_signed("header" if kind == b"h" else "pbft", payload_of(message))


@lru_cache(maxsize=20_000)
def hear_signed(kind: str, payload: bytes) -> Said | None:
    """What a payload says; None for nonsense."""
    try:
        return _read(kind, cbor.decode(payload), payload)
    except (Refused, TypeError, IndexError, ValueError, AttributeError):
        return None


def _read(kind: str, fields: Any, payload: bytes) -> Said | None:
    if kind == "header":
        epoch, _, height, header_hash = fields
        is_vote = _is_number(epoch) and _is_hash(header_hash) and isinstance(height, int)
        return Said("header", -1, 0, height, header_hash, None, payload, epoch) if is_vote else None
    name, sender = NAMES.get(fields[0]), fields[-1]
    epoch = fields[1]
    if name is None or not _is_number(epoch) or not isinstance(sender, int):
        return None
    if name in VOTES:
        is_vote = len(fields) == 6 and _is_hash(fields[4]) and isinstance(fields[2], int) and isinstance(fields[3], int)
        return Said(name, sender, fields[2], fields[3], fields[4], None, payload, epoch) if is_vote else None
    if name == "checkpoint":
        heads = tuple((str(channel), int(height), bytes(head)) for channel, height, head in fields[4])
        if not _is_hash(fields[3]):
            return None
        return Said(name, sender, 0, int(fields[2]), fields[3], (fields[3], heads), payload, epoch)
    if name == "view-change":
        prepared = tuple((bytes(first), tuple(map(bytes, backed))) for first, backed in fields[5])
        body: Any = (tuple(map(bytes, fields[4])), prepared)
        return Said(name, sender, int(fields[2]), int(fields[3]), b"", body, payload, epoch)
    if name == "new-view":
        body = (tuple(map(bytes, fields[3])), tuple(map(bytes, fields[4])))
        return Said(name, sender, int(fields[2]), 0, b"", body, payload, epoch)
    return Said(name, sender, 0, 0, b"", None, payload, epoch)


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_hash(value: Any) -> bool:
    return isinstance(value, bytes) and len(value) == 32
