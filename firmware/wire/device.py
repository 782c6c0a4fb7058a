"""Makes digests, certificates, reports and evidence of security and stability control devices, as bytes and from bytes.

A laboratory certifies three digests, each over what the bytes are for: their role, the model and, for settings, the
device (dispatch.md). The preimage of a digest is what is stored, so that a store by hash knows a certified file by its
digest. A report says what the gateway of a plant found; its evidence is the bytes that it pulled, and travels beside
the chain: whoever votes for the report makes the digests again from it.
"""

import hashlib
from collections import namedtuple

from firmware.wire import cbor, merkle
from firmware.wire.errors import check
from firmware.wire.shape import check_fields

CERTIFY, ENDORSE, REPORT = 20, 21, 22  # types of transactions (transactions.md)
SOFTWARE, STRATEGY, SETTINGS, SERIAL = 1, 2, 3, 4  # roles of a device's files
ITEMS = ("model", "software", "strategy", "settings", "serial", "files")  # what a report is about; 1..4 are roles
MATCH, MISMATCH, NOT_CURRENT, UNKNOWN_DEVICE, NO_DATA = OUTCOMES = (
    "MATCH", "MISMATCH", "NOT_CURRENT", "UNKNOWN_DEVICE", "NO_DATA")
KINDS = ("value", "truncated", "swapped", "other version", "other device", "other model", "twin", "missing", "extra")
ENDORSERS = ("manufacturer", "regulator")
NAME_BYTES = 64  # of a model or a version
INTERVAL_S = 86_400  # longest between two checks of a device
SIDES = 2  # a device and its A/B twin
FILES = 16  # of one side: four belong there, more is an error that has been seen by then
FILE_BYTES = 512 * 1024
EVIDENCE_BYTES = 2 * 1024 * 1024  # a quarter of the largest frame between replicas
_TITLE, _EVIDENCE_TITLE, VERSION = "gridseal-device", "gridseal-evidence", 1
_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789-"

Certify = namedtuple("Certify", ("model", "version", "device", "software", "strategy", "settings"))
Report = namedtuple("Report", (
    "device", "digests", "outcome", "kind", "time_s", "evidence", "item", "offset", "identity", "edition",
    "interval_s"))
# sides: [Side or None where nobody answered]; Side: objects = [vendor, product code, revision] or None, files = [[role,
# file number, bytes], ...]
Evidence = namedtuple("Evidence", ("device", "model", "sides"))
Side = namedtuple("Side", ("objects", "files"))


def preimage(role, model, device, data):
    """Returns the bytes whose SHA-256 is the digest; the device counts for settings only."""
    return cbor.encode([_TITLE, role, model, device if role == SETTINGS else None, bytes(data)])


def digest_of(role, model, device, data):
    return hashlib.sha256(preimage(role, model, device, data)).digest()


def certified_bytes(stored):
    """Returns the file's bytes of a stored preimage; Refused `malformed`."""
    fields = cbor.decode(stored)
    check_fields(fields, ("t", "u", "t", "t?", "b"))
    check(fields[0] == _TITLE and SOFTWARE <= fields[1] <= SETTINGS, "malformed", _TITLE, fields[0])
    return fields[4]


def root_of(digests):
    """Returns the RFC 9162 root over the three digests; one that is null is an empty leaf."""
    return merkle.root([digest or b"" for digest in digests])


def decode_certify(body):
    """Returns the Certify of type 20; Refused `malformed`. Without a device it certifies the model's software and
    strategy alone, and has no settings."""
    check_fields(body, ("t", "t", "t?", "b32", "b32", "b32?"))
    found = Certify(*body)
    check(is_text(found.model) and is_text(found.version), "malformed", NAME_BYTES, found.model)
    check((found.device is None) == (found.settings is None), "malformed", found.device, found.settings)
    check(found.device is None or is_device(found.device), "malformed", "a device's name", found.device)
    return found


def certify_hash(body):
    """Returns the name by which a certify body is endorsed."""
    return hashlib.sha256(cbor.encode(body)).digest()


def decode_endorse(body):
    """Returns (hash of the certify body, role) of type 21; Refused `malformed`."""
    check_fields(body, ("b32", "t"))
    check(body[1] in ENDORSERS, "malformed", "manufacturer or regulator", body[1])
    return body[0], body[1]


def report_body(report):
    """Returns the body of type 22."""
    return [list(value) if isinstance(value, (list, tuple)) else value for value in report]


def decode_report(body):
    """Returns the Report of type 22; Refused `malformed`. time_s: of the pull; edition: of the certified versions that
    it was judged by; digests null when there were no bytes; interval_s: within which the next report is promised."""
    check_fields(body, ("t", "l?", "t", "t?", "u", "b32", "t?", "u?", "l?", "u", "u"))
    found = Report(*body)
    check(is_device(found.device), "malformed", "a device's name", found.device)
    check(found.outcome in OUTCOMES, "malformed", "an outcome", found.outcome)
    check(found.kind is None or found.kind in KINDS, "malformed", "a kind", found.kind)
    check(found.item is None or found.item in ITEMS, "malformed", "an item", found.item)
    if found.digests is not None:
        check_fields(found.digests, ("b32?", "b32?", "b32?"))
    if found.identity is not None:
        check_fields(found.identity, ("t", "t"))
        check(len(found.identity[0]) <= NAME_BYTES and len(found.identity[1]) <= NAME_BYTES, "malformed", NAME_BYTES,
              found.identity)
    check((found.digests is None) == (found.identity is None), "malformed", found.digests, found.identity)
    check(0 < found.interval_s <= INTERVAL_S, "malformed", INTERVAL_S, found.interval_s)
    return found


def encode_evidence(evidence):
    """Returns the bytes that travel beside the chain."""
    sides = [None if side is None else [None if side.objects is None else list(side.objects),
                                        [list(entry) for entry in side.files]] for side in evidence.sides]
    return cbor.encode([_EVIDENCE_TITLE, VERSION, evidence.device, evidence.model, sides])


def hash_of(evidence_bytes):
    """Returns the name of evidence, as reports carry it."""
    return hashlib.sha256(evidence_bytes).digest()


def decode_evidence(data):
    """Returns the Evidence; Refused `oversize`, `malformed`, `wrong_version`."""
    check(len(data) <= EVIDENCE_BYTES, "oversize", EVIDENCE_BYTES, len(data))
    fields = cbor.decode(data)
    check_fields(fields, ("t", "u", "t", "t", "l"))
    check(fields[0] == _EVIDENCE_TITLE, "malformed", _EVIDENCE_TITLE, fields[0])
    check(fields[1] == VERSION, "wrong_version", VERSION, fields[1])
    check(is_device(fields[2]) and is_text(fields[3]), "malformed", "a device and its model", fields[2])
    check(0 < len(fields[4]) <= SIDES, "malformed", SIDES, len(fields[4]))
    return Evidence(fields[2], fields[3], [_decode_side(side) for side in fields[4]])


def _decode_side(row):
    if row is None:
        return None
    check_fields(row, ("l?", "l"))
    if row[0] is not None:
        check_fields(row[0], ("t", "t", "t"))
    check(len(row[1]) <= FILES, "malformed", FILES, len(row[1]))
    for entry in row[1]:
        check_fields(entry, ("u", "u", "b"))
        check(len(entry[2]) <= FILE_BYTES, "oversize", FILE_BYTES, len(entry[2]))
    return Side(row[0], row[1])


def file_of(side, role):
    """Returns the bytes of a side's file of that role, None when it is missing."""
    for entry in side.files:
        if entry[0] == role:
            return entry[2]
    return None


def has_extra(side):
    """Tells whether a side has a file that is none of the four, or one of them twice."""
    roles = [entry[0] for entry in side.files]
    return len(set(roles)) < len(roles) or any(not SOFTWARE <= role <= SERIAL for role in roles)


def digests_of(evidence, side):
    """Returns the three digests of a side, null where a file is missing."""
    digests = []
    for role in (SOFTWARE, STRATEGY, SETTINGS):
        data = file_of(side, role)
        digests.append(None if data is None else digest_of(role, evidence.model, evidence.device, data))
    return digests


def identity_of(side):
    """Returns [model, device] as a side itself says; "" for what it does not say."""
    model = side.objects[1] if side.objects is not None else ""
    return [model[:NAME_BYTES], serial_text(file_of(side, SERIAL) or b"")]


def serial_text(data):
    """Returns what a serial text says, "" for one that is no name of a device."""
    try:
        text = bytes(data).decode()
    except (UnicodeError, ValueError):
        return ""
    return text if is_device(text) else ""


def is_device(text):
    """Tells whether `text` may name a device: 1 to 32 of a-z, 0-9 and '-' (it stands in topics)."""
    if not 0 < len(text) <= 32:
        return False
    for letter in text:
        if letter not in _LETTERS:
            return False
    return True


def is_text(text):
    """Tells whether `text` may name a model or a version."""
    return 0 < len(text.encode()) <= NAME_BYTES
