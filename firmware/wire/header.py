"""Makes the 80-byte block header and leaf 0 of a block (the meta), from what execution found; and reads both."""

import hashlib
import struct
from collections import namedtuple

try:
    from micropython import const
except ImportError:
    def const(value):
        return value

from firmware.wire import cbor
from firmware.wire.errors import Refused, check
from firmware.wire.shape import check_fields

_HEADER_BYTES = const(80)
VERSION = 1
_FORMAT = ">I32s32sIII"

Header = namedtuple("Header", ("version", "previous", "root", "time_s", "view", "height"))
Meta = namedtuple("Meta", (
    "version", "channel", "chain_id", "epoch", "height", "count", "results_hash", "state_root",
    "set_hash", "next_set_hash", "next_set", "parameters_hash"))
_META_KINDS = ("u", "t", "b32", "u", "u", "u", "b32", "b32", "b32", "b32", "l?", "b32")


def encode(header):
    """Returns the 80 bytes (big-endian); ValueError for a field that does not fit."""
    for number in (header.version, header.time_s, header.view, header.height):
        if not 0 <= number < 0x100000000:  # MicroPython's struct would cut it silently
            raise ValueError("not 32 bits: %r" % number)
    if len(header.previous) != 32 or len(header.root) != 32:
        raise ValueError("hashes of 32 bytes")
    return struct.pack(_FORMAT, *header)


def decode(data):
    """Returns the Header of exactly 80 bytes of a known version; Refused `malformed` or `wrong_version`."""
    if len(data) != _HEADER_BYTES:
        raise Refused("malformed", _HEADER_BYTES, len(data))
    header = Header(*struct.unpack(_FORMAT, data))
    if header.version != VERSION:
        raise Refused("wrong_version", VERSION, header.version)
    return header


def hash_of(data):
    """Returns SHA-256, once, over the 80 bytes."""
    return hashlib.sha256(data).digest()


def encode_meta(meta):
    """Returns leaf 0: a CBOR array of the 12 fields of ledger.md."""
    return cbor.encode(list(meta))


def decode_meta(data):
    """Returns the Meta; Refused `malformed` or `wrong_version`."""
    fields = cbor.decode(data)
    check_fields(fields, _META_KINDS)
    meta = Meta(*fields)
    check(meta.version == VERSION, "wrong_version", VERSION, meta.version)
    return meta


def results_hash(results):
    """Returns SHA-256 of the CBOR list of result codes."""
    return hashlib.sha256(cbor.encode(list(results))).digest()
