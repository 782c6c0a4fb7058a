"""Makes the bytes of acks, receipts, headers and live readings from the desk's duties and the ledger's books."""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from firmware.wire import ack, topics, witness
from firmware.wire import reading as reading_codec
from firmware.wire.ack import Ack, ItemProof, Receipt, SealProof
from firmware.wire.cose import SIGNATURE_BYTES
from firmware.wire.errors import Refused
from gateway.ingest.desk import AckDuty, Duty, HeaderDuty, LiveDuty, ReceiptDuty

UNNAMED = {"14.7.0": "mHz"}  # what SenML has no unit for
LIVE_QUALITIES = ("unknown", "informative", "synchronised", "relative")  # of the clock, by the quality's low bits


class Answer(NamedTuple):
    """One message to publish. newest_only: a later one of this topic may replace it while a broker is away."""

    topic: str
    payload: bytes
    is_retained: bool
    newest_only: bool


class Count(NamedTuple):
    """k of the area's n light nodes have signed the header of `height`; zeros while none has."""

    height: int
    k: int
    n: int


NONE_SIGNED = Count(0, 0, 0)


class Books(Protocol):
    """The ledger, as far as answers need it (`gateway.ledger`); used in the ledger's thread."""

    def header(self, channel: str, height: int) -> bytes | None: ...

    def certificate(self, channel: str, height: int) -> bytes | None: ...

    def seal_at(self, channel: str, height: int, index: int) -> Any: ...

    def prove_items(self, channel: str, height: int, indexes: Sequence[int]) -> Any: ...


def make_answer(duty: Duty, books: Books, area: str, channel: str = "trade",
                count: Count = NONE_SIGNED) -> Answer | None:
    """The message for a duty; None while its block's certificate is not here (somebody else has it and publishes)."""
    try:
        if isinstance(duty, AckDuty):
            return Answer(topics.agent_topic(area, duty.kid, "ack"), _make_ack(duty, books, channel), False, True)
        if isinstance(duty, ReceiptDuty):
            topic = topics.agent_topic(area, duty.kid, "reply")
            return Answer(topic, _make_receipt(duty, books, channel), False, False)
        if isinstance(duty, HeaderDuty):
            header = _make_header(duty, books, channel, count)
            return None if header is None else Answer(topics.chain_header(area, channel), header, duty.is_newest,
                                                      not duty.is_candidate)
        live = _make_live(duty, books, channel)
        return None if live is None else Answer(topics.live(area, duty.entry.point), live, True, True)
    except Refused:
        return None


def read_live(payload: bytes) -> int:
    """The block of a live reading; Refused `malformed`."""
    try:
        block = json.loads(payload)["block"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Refused("malformed", "a live reading", str(error)) from error
    if type(block) is not int:
        raise Refused("malformed", "a block", None)
    return block


def _make_ack(duty: AckDuty, books: Books, channel: str) -> bytes:
    if duty.block is None:
        return ack.encode(Ack(b"", b"", [], duty.refused, duty.wanted))
    proof = books.prove_items(channel, duty.block, [entry.leaf for entry in duty.entries])
    proofs = [SealProof(entry.point, entry.height, item.leaf[-SIGNATURE_BYTES:], entry.leaf, item.size, item.path)
              for entry, item in zip(duty.entries, proof.items, strict=True)]
    return ack.encode(Ack(proof.header, proof.certificate, proofs, duty.refused, duty.wanted))


def _make_receipt(duty: ReceiptDuty, books: Books, channel: str) -> bytes:
    proof = books.prove_items(channel, duty.block, [entry.leaf for entry in duty.entries])
    items = [ItemProof(entry.payload_hash, item.leaf[-SIGNATURE_BYTES:], entry.leaf, item.size, item.path)
             for entry, item in zip(duty.entries, proof.items, strict=True)]
    return ack.encode_receipt(Receipt(proof.header, proof.certificate, proof.meta, proof.meta_path, proof.results,
                                      items))


def _make_header(duty: HeaderDuty, books: Books, channel: str, count: Count) -> bytes | None:
    header, certificate = books.header(channel, duty.block), books.certificate(channel, duty.block)
    if header is None or certificate is None:
        return None
    return witness.encode_header_message(header, certificate, *count)


def _make_live(duty: LiveDuty, books: Books, channel: str) -> bytes | None:
    found = books.seal_at(channel, duty.block, duty.entry.leaf)
    if found is None or not found.readings:
        return None
    taken = reading_codec.decode(found.readings[-1])
    values = {entry.name: {"value": entry.value, "unit": entry.unit or UNNAMED.get(entry.name, "")}
              if entry.missing is None else {"missing": entry.missing} for entry in taken.entries}
    shown = {"point": taken.point, "agent": taken.kid.hex(), "time_ms": taken.time_ms, "height": found.seal.height,
             "block": duty.block, "clock": LIVE_QUALITIES[taken.quality & reading_codec.CLOCK_BITS],
             "estimated": bool(taken.quality & reading_codec.ESTIMATED),
             "stale": bool(taken.quality & reading_codec.STALE),
             "implausible": bool(taken.quality & reading_codec.IMPLAUSIBLE), "marks": max(0, found.code - 256),
             "values": values}
    return json.dumps(shown, separators=(",", ":")).encode()
