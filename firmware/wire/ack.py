"""Makes acks (for an agent's seals) and receipts (for a sender's transactions) from a certified block; reads both.

An ack proves that the named seals stand in a block that q replicas signed, and with each all seals of that point
below it, since they execute in order. Refusals and wanted ranges ride along as advice: they trim nothing.
"""

from collections import namedtuple

from firmware.wire import cbor
from firmware.wire.errors import check
from firmware.wire.shape import check_fields, check_list

VERSION = 1
ACK_BYTES = 60 * 1024

Ack = namedtuple("Ack", ("header", "certificate", "proofs", "refused", "wanted"))
SealProof = namedtuple("SealProof", ("point", "height", "signature", "index", "size", "path"))
Refusal = namedtuple("Refusal", ("point", "height", "reason"))
Wanted = namedtuple("Wanted", ("point", "first", "last"))
Receipt = namedtuple("Receipt", ("header", "certificate", "meta", "meta_path", "results", "items"))
ItemProof = namedtuple("ItemProof", ("payload_hash", "signature", "index", "size", "path"))


def encode(ack):
    """Returns `[1, header, certificate, [proof...], [refusal...], [wanted...]]`.

    header: 80 bytes, certificate: bytes; both empty when nothing is acked (advice only). proof: SealProof, signature
    the committed one or None where it is deterministic; refusal: Refusal; wanted: Wanted, both ends included.
    """
    return cbor.encode([VERSION, ack.header, ack.certificate, [list(p) for p in ack.proofs],
                        [list(r) for r in ack.refused], [list(w) for w in ack.wanted]])


def decode(data):
    """Returns the Ack; Refused `oversize` or `malformed`. What it claims is unchecked (lightnode does that)."""
    check(len(data) <= ACK_BYTES, "oversize", ACK_BYTES, len(data))
    fields = cbor.decode(data)
    check_fields(fields, ("u", "b", "b", "l", "l", "l"))
    check(fields[0] == VERSION, "wrong_version", VERSION, fields[0])
    check(len(fields[1]) in (0, 80) and bool(fields[1]) == bool(fields[2]), "malformed", "a header", len(fields[1]))
    check(bool(fields[1]) or not fields[3], "malformed", "a header for the proofs", len(fields[3]))
    for row in fields[3]:
        check_fields(row, ("u", "u", "b64?", "u", "u", "l"))
        check_list(row[5], "b32")
    for row in fields[4]:
        check_fields(row, ("u", "u", "t"))
    for row in fields[5]:
        check_fields(row, ("u", "u", "u"))
    return Ack(fields[1], fields[2], [SealProof(*row) for row in fields[3]],
               [Refusal(*row) for row in fields[4]], [Wanted(*row) for row in fields[5]])


def encode_receipt(receipt):
    """Returns `[1, header, certificate, meta, [path], [result code], [item proof...]]`."""
    return cbor.encode([VERSION, receipt.header, receipt.certificate, receipt.meta, list(receipt.meta_path),
                        list(receipt.results), [list(item) for item in receipt.items]])


def decode_receipt(data):
    """Returns the Receipt; Refused `oversize` or `malformed`."""
    check(len(data) <= ACK_BYTES, "oversize", ACK_BYTES, len(data))
    fields = cbor.decode(data)
    check_fields(fields, ("u", "b80", "b", "b", "l", "l", "l"))
    check(fields[0] == VERSION, "wrong_version", VERSION, fields[0])
    check_list(fields[4], "b32")
    check_list(fields[5], "u")
    for row in fields[6]:
        check_fields(row, ("b32", "b64", "u", "u", "l"))
        check_list(row[4], "b32")
    return Receipt(fields[1], fields[2], fields[3], fields[4], fields[5], [ItemProof(*row) for row in fields[6]])
