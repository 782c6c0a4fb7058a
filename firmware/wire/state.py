"""Makes the bytes of the replicated state: keys, records, 4,096 buckets and the root over them; and checks a bucket.

The state is a map of byte strings. A key's bucket is the first 12 bits of its hash; a bucket's digest is the hash of
its sorted pairs; the state root is the Merkle root of the digests, so that one bucket and twelve hashes prove an entry.
"""

import hashlib
import struct
from collections import namedtuple

from firmware.wire import cbor, merkle
from firmware.wire.errors import check
from firmware.wire.shape import check_fields, check_list, is_kind

BUCKETS = 4096
BUCKET_PATH = 12

AgentRecord = namedtuple("AgentRecord", (
    "public_key", "role", "area", "model", "key_protection", "tls_hash", "owner", "points",
    "enrolled_height", "revoked_height", "replaced_by"))
PointRecord = namedtuple("PointRecord", (
    "point", "area", "channel", "ratio_num", "ratio_den", "register_map", "maker", "model", "serial",
    "start_import_wh", "start_export_wh", "agent", "owner", "meter_epoch"))
ChainRecord = namedtuple("ChainRecord", (
    "height", "payload_hash", "meter_epoch", "last_ms", "import_wh", "export_wh", "boot", "lost", "marked"))
_AGENT_KINDS = ("b65", "t", "t", "t", "t", "b32", "b8", "l", "u", "u?", "b8?")
_POINT_KINDS = ("u", "t", "t", "u", "u", "b32", "t", "t", "t", "u?", "u?", "b8", "b8", "u")
_CHAIN_KINDS = ("u", "b32", "u", "u", "u?", "u?", "u", "u", "u")


def agent_key(kid):
    return b"agent/" + bytes(kid)


def point_key(point):
    return b"point/" + struct.pack(">I", point)


def chain_key(kid, point):
    """Returns the key of a chain of seals: heights run per (kid, point)."""
    return b"chain/" + bytes(kid) + struct.pack(">I", point)


def sequence_key(kid):
    """Returns the key of a sender's last transaction sequence (a CBOR integer)."""
    return b"sequence/" + bytes(kid)


def light_key(area):
    """Returns the key of an area's number of light nodes (a CBOR integer): the n of "k of n witnesses"."""
    return b"light/" + area.encode()


def is_light(agent):
    """Tells whether an AgentRecord is of a light node, one that may witness headers."""
    return agent.role == "agent" and agent.revoked_height is None


def decode_count(data):
    """Returns the integer of a count's entry; 0 for None, where there is no entry."""
    if data is None:
        return 0
    count = cbor.decode(data)
    check(is_kind(count, "u"), "malformed", "a count", count)
    return count


def encode_record(record):
    """Returns the CBOR of an AgentRecord, PointRecord or ChainRecord."""
    return cbor.encode(list(record))


def decode_agent(data):
    fields = cbor.decode(data)
    check_fields(fields, _AGENT_KINDS)
    check_list(fields[7], "u")
    return AgentRecord(*fields)


def decode_point(data):
    fields = cbor.decode(data)
    check_fields(fields, _POINT_KINDS)
    return PointRecord(*fields)


def decode_chain(data):
    fields = cbor.decode(data)
    check_fields(fields, _CHAIN_KINDS)
    return ChainRecord(*fields)


def replica_record(kid, public_key, area):
    """Returns the AgentRecord of a member of the validator set, which stands in no state: it signs transactions of its
    own with the role "replica", and serves no points."""
    return AgentRecord(public_key, "replica", area, "", "", bytes(32), kid, [], 0, None, None)


def bucket_of(key):
    """Returns the bucket of a key, 0..4095: the first 12 bits of its SHA-256."""
    digest = hashlib.sha256(key).digest()
    return digest[0] << 4 | digest[1] >> 4


def bucket_digest(pairs):
    """Returns SHA-256 of the CBOR of a bucket's pairs (key, value), sorted by key."""
    return hashlib.sha256(cbor.encode([list(pair) for pair in sorted(pairs)])).digest()


def check_bucket(pairs, index, path, state_root):
    """Raises Refused `wrong_state` or `not_included` unless the pairs are bucket `index` of the state of that root."""
    check(0 <= index < BUCKETS and len(path) == BUCKET_PATH, "wrong_state", BUCKETS, index)
    for pair in pairs:
        check(bucket_of(pair[0]) == index, "wrong_state", index, pair[0])
    merkle.check_path(merkle.leaf_hash(bucket_digest(pairs)), index, BUCKETS, path, state_root)
