"""Makes the payload of a transaction and the bodies of the types in use, from named fields; reads them strictly.

A transaction is a COSE_Sign1 of kind `tx` with `[1, type, sender kid, sequence, valid until, channel, body]`. Its first
fields tell it from a seal's payload: field 1 is a number here and a kid there.
"""

from collections import namedtuple

from firmware.wire import cbor, cose, identity, topics
from firmware.wire.errors import Refused, check
from firmware.wire.shape import check_fields, is_integer

VERSION = 1
TRANSACTION_BYTES = 16 * 1024
TYPES = (
    None, "enrol", "revoke", "leave", "replace meter", "replace agent", "deposit", "top-up", "withdraw", "rule set",
    "order", "cancel", "commit", "reveal", "offer", "counter", "accept", "reference price", "allocation", "correction",
    "certify", "endorse", "device report", "objection", "assessment signature", "model version", "validator change",
    "anchor", "evidence", "audit")  # numbered by place; new ones at the end
ENROL, REVOKE, REPLACE_METER, REPLACE_AGENT, CORRECTION = 1, 2, 4, 5, 19
ROLES = ("agent", "operator", "recovery", "grid", "participant", "laboratory", "manufacturer", "regulator",
         "dispatcher", "plant", "auditor")
PROTECTIONS = ("software", "encrypted", "element")
POINTS = 256  # of one agent: a bus has 247 units

Transaction = namedtuple("Transaction", (
    "version", "type", "sender", "sequence", "valid_until_s", "channel", "body"))
Enrolment = namedtuple("Enrolment", ("public_key", "tls_hash", "role", "area", "model", "key_protection"))
PointEntry = namedtuple("PointEntry", (
    "point", "area", "channel", "ratio_num", "ratio_den", "register_map", "maker", "model", "serial",
    "start_import_wh", "start_export_wh"))
EnrolBody = namedtuple("EnrolBody", ("request", "owner", "points", "note"))
# Registers in Wh, null where the meter has none; the old meter's last and the new one's first.
ReplaceMeter = namedtuple("ReplaceMeter", (
    "point", "old_import_wh", "old_export_wh", "maker", "model", "serial", "start_import_wh", "start_export_wh"))
# A slot's energy as it should be, Wh; null: stays. quality: measured, interpolated, substituted, missing (0-3).
Correction = namedtuple("Correction", ("point", "slot_s", "import_wh", "export_wh", "quality", "reason", "evidence"))
_POINT_KINDS = ("u", "t", "t", "u", "u", "b32", "t", "t", "t", "u?", "u?")


def encode(transaction):
    """Returns the payload's bytes; body is a list (see the encoders of bodies below)."""
    return cbor.encode(list(transaction))


def decode(payload):
    """Returns the Transaction, its body a decoded list; Refused `oversize`, `malformed`, `wrong_version`."""
    check(len(payload) <= TRANSACTION_BYTES, "oversize", TRANSACTION_BYTES, len(payload))
    fields = cbor.decode(payload)
    check_fields(fields, ("u", "u", "b8", "u", "u", "t", "l"))
    check(fields[0] == VERSION, "wrong_version", VERSION, fields[0])
    return Transaction(*fields)


def is_transaction(payload):
    """Tells whether a decoded payload is a transaction's rather than a seal's."""
    return isinstance(payload, list) and len(payload) == 7 and is_integer(payload[1])


def encode_enrolment(enrolment, kid, chain_id, sign_digest):
    """Returns the enrol COSE: the new key's own signature over what it asks for (proof of possession)."""
    payload = cbor.encode([identity.encode_cose_key(enrolment.public_key), bytes(enrolment.tls_hash), enrolment.role,
                           enrolment.area, enrolment.model, enrolment.key_protection])
    return cose.sign1(payload, kid, "enrol", chain_id, sign_digest)


def decode_enrolment(message, chain_id, verify_digest):
    """Returns (kid, Enrolment); Refused unless the new key signed it itself for this chain."""
    signed = cose.parse(message)
    fields = cbor.decode(signed.payload)
    check_fields(fields, ("b", "b32", "t", "t", "t", "t"))
    enrolment = Enrolment(identity.decode_cose_key(fields[0]), *fields[1:])
    kid = identity.kid_of(enrolment.public_key)
    check(signed.kid == kid, "wrong_key", kid, signed.kid)
    check(enrolment.role in ROLES, "malformed", "a role", enrolment.role)
    check(topics.is_area(enrolment.area), "malformed", "an area", enrolment.area)
    check(enrolment.key_protection in PROTECTIONS, "malformed", "a protection", enrolment.key_protection)
    cose.check(signed, "enrol", chain_id, enrolment.public_key, verify_digest)
    return kid, enrolment


def enrol_body(request, owner, points, note):
    """Returns the body of type 1: request = the enrol COSE, owner = a kid, points = [PointEntry, ...], note = text."""
    return [bytes(request), bytes(owner), [list(entry) for entry in points], note]


def decode_enrol_body(body):
    """Returns the EnrolBody of a decoded list; Refused `malformed`."""
    check_fields(body, ("b", "b8", "l", "t"))
    check(len(body[2]) <= POINTS, "malformed", POINTS, len(body[2]))
    return EnrolBody(body[0], body[1], [decode_point(row) for row in body[2]], body[3])


def decode_point(row):
    """Returns the PointEntry of a decoded list; Refused `malformed`."""
    check_fields(row, _POINT_KINDS)
    entry = PointEntry(*row)
    check(entry.point < 0x100000000, "malformed", "32 bits", entry.point)
    check(entry.ratio_num > 0 and entry.ratio_den > 0, "malformed", "a ratio above 0", entry.ratio_num)
    check(topics.is_area(entry.area), "malformed", "an area", entry.area)
    return entry


def decode_revoke_body(body):
    """Returns (kid, reason text) of type 2; Refused `malformed`."""
    check_fields(body, ("b8", "t"))
    return body[0], body[1]


def decode_replace_agent_body(body):
    """Returns (old kid, enrol COSE) of type 5; Refused `malformed`."""
    check_fields(body, ("b8", "b"))
    return body[0], body[1]


def decode_replace_meter_body(body):
    """Returns the ReplaceMeter of type 4; Refused `malformed`."""
    check_fields(body, ("u", "u?", "u?", "t", "t", "t", "u?", "u?"))
    check(body[0] < 0x100000000, "malformed", "32 bits", body[0])
    return ReplaceMeter(*body)


def decode_correction_body(body):
    """Returns the Correction of type 19; Refused `malformed`."""
    check_fields(body, ("u", "u", "u?", "u?", "u", "t", "b32"))
    check(body[0] < 0x100000000 and body[1] < 1 << 40, "malformed", "a point, a slot's start", body[:2])
    check(body[4] < 4, "malformed", "a quality", body[4])
    return Correction(*body)


def check_sender(signed, transaction):
    """Raises Refused `wrong_key` unless the message's kid is the payload's sender."""
    if signed.kid != transaction.sender:
        raise Refused("wrong_key", transaction.sender, signed.kid)


def check_points(points):
    """Raises Refused `duplicate` when a list of PointEntry names a point twice."""
    numbers = [entry.point for entry in points]
    numbers.sort()
    for at in range(1, len(numbers)):
        if numbers[at] == numbers[at - 1]:
            raise Refused("duplicate", "each point once", numbers[at])
