"""Makes a seal (the small signed header over a batch of one point's readings) and the envelope that carries both.

A seal's identity is the hash of its payload, never the signature's bytes. Heights run per (kid, point); each payload
names the hash of the one before, so that nothing can be taken out of the middle unseen.
"""

import hashlib
from collections import namedtuple

from firmware.wire import cbor, merkle
from firmware.wire import reading as reading_codec
from firmware.wire.errors import Refused, check
from firmware.wire.shape import check_fields, check_list

VERSION = 1
FIRST_PREVIOUS = bytes(32)  # height 1, or the first after a loss
ENVELOPE_BYTES = 60 * 1024  # the broker's limit is 64 KiB; topic and MQTT headers take their part
READINGS = 512  # of 120 bytes at least, more do not fit an envelope

CLOCK_BITS = 3  # flags, bits 0-1: the clock state of reading.py; 4 and 8: the case was opened, in two places
HEIGHTS_LOST = 16
SLOT_B = 32
LATE = 64  # 128: safe mode

Seal = namedtuple("Seal", (
    "version", "kid", "point", "meter_epoch", "height", "lost", "previous", "root", "count",
    "first_ms", "last_ms", "import_wh", "export_wh", "boot", "flags", "measurement", "configuration"))
_KINDS = ("u", "b8", "u", "u", "u", "u", "b32", "b32", "u", "u", "u", "u?", "u?", "u", "u", "b32", "b32")


def encode(seal):
    """Returns the payload: a CBOR array of the 17 fields of wire.md; registers in Wh or None, times in Unix ms."""
    return cbor.encode(list(seal))


def decode(payload):
    """Returns the Seal; Refused `malformed`, `wrong_version`, `wrong_times` or `wrong_count`."""
    fields = cbor.decode(payload)
    check_fields(fields, _KINDS)
    seal = Seal(*fields)
    check(seal.version == VERSION, "wrong_version", VERSION, seal.version)
    check(seal.height > seal.lost, "malformed", "a height above those lost", seal.height)
    check(0 < seal.count <= READINGS, "wrong_count", READINGS, seal.count)
    check(seal.first_ms <= seal.last_ms, "wrong_times", seal.first_ms, seal.last_ms)
    return seal


def payload_hash(payload):
    """Returns the seal's identity: SHA-256 of the payload."""
    return hashlib.sha256(payload).digest()


def encode_envelope(seal_message, readings):
    """Returns `[bstr seal, [bstr reading, ...]]`; ValueError when it is larger than an envelope may be."""
    parts = [cbor.head(4, 2), cbor.head(2, len(seal_message)), seal_message, cbor.head(4, len(readings))]
    for item in readings:
        parts.append(cbor.head(2, len(item)))
        parts.append(item)
    data = b"".join(parts)  # once: a buffer that grows and its copy would want two such pieces of a board's RAM
    if len(data) > ENVELOPE_BYTES:
        raise ValueError("envelope of %d bytes" % len(data))
    return data


def decode_envelope(data):
    """Returns (seal message, [reading bytes]); Refused `oversize` or `malformed`."""
    if len(data) > ENVELOPE_BYTES:
        raise Refused("oversize", ENVELOPE_BYTES, len(data))
    value = cbor.decode(data)
    check_fields(value, ("b", "l"))
    check_list(value[1], "b")
    return value[0], value[1]


def check_readings(seal, readings):
    """Raises Refused unless the readings' bytes are those that `seal` was made over.

    `wrong_count`, `wrong_root`, and for their content `wrong_reading` (another agent's or point's) or `wrong_times`
    (not rising, or not the seal's first and last). Returns the decoded Readings.
    """
    check(len(readings) == seal.count, "wrong_count", seal.count, len(readings))
    found = merkle.root(readings)
    check(found == seal.root, "wrong_root", seal.root, found)
    decoded = [reading_codec.decode(data) for data in readings]
    last_ms = -1
    for item in decoded:
        check(item.kid == seal.kid and item.point == seal.point, "wrong_reading", seal.point, item.point)
        check(item.time_ms > last_ms, "wrong_times", last_ms, item.time_ms)
        last_ms = item.time_ms
    check(decoded[0].time_ms == seal.first_ms, "wrong_times", seal.first_ms, decoded[0].time_ms)
    check(last_ms == seal.last_ms, "wrong_times", seal.last_ms, last_ms)
    return decoded
