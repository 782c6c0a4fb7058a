"""Makes the file that proves a block header and how many light nodes co-signed it; checks it offline.

`[1, "gridseal-header", chain id, header, certificate, meta, meta path, witnessing]`, deterministic CBOR. Witnessing:
`[area, bucket, path, [[witness message, bucket, path], ...]]`: first the state's bucket with the area's number of
light nodes (n), then, by kid, each signature with the bucket that holds its agent's record, all under the state root
that this same header names. So k and n need no gateway: n cannot be made smaller, and nobody counts twice, who was not
enrolled, or was revoked. Every byte is checked: a flipped bit is refused.
"""

from collections import namedtuple

from firmware.wire import cbor, certificate, cose, epochs, genesis, header, merkle, state, topics, witness
from firmware.wire.errors import check
from firmware.wire.shape import check_fields, check_list

VERSION = 1
NAME = "gridseal-header"
SIGNATURES = 1000  # in one file: some 900 bytes each with bucket and path
FILE_BYTES = 1024 * 1024

HeaderFile = namedtuple("HeaderFile", (
    "version", "name", "chain_id", "header", "certificate", "meta", "meta_path", "witnessing"))
Witnessing = namedtuple("Witnessing", ("area", "bucket", "path", "signatures"))  # signatures: of CoSignature
CoSignature = namedtuple("CoSignature", ("message", "bucket", "path"))
# What a witnessing proves: kids of those who co-signed, and of how many; `area` is whose light nodes they are.
Counted = namedtuple("Counted", ("area", "kids", "n"))
Report = namedtuple("Report", ("top", "meta", "certificate", "counted", "members", "speed"))


def encode(found, handovers=()):
    """Returns the file's bytes; handovers: those up to the block's epoch, none where that is 0."""
    fields = list(found[:7]) + [witnessing_fields(found.witnessing)]
    return cbor.encode(fields + [list(handovers)] if handovers else fields)


def decode(data):
    """Returns the HeaderFile; Refused `oversize`, `malformed`, `wrong_version`."""
    return split(data)[0]


def split(data):
    """Returns (HeaderFile, handovers as bytes); refuses as `decode`."""
    check(len(data) <= FILE_BYTES, "oversize", FILE_BYTES, len(data))
    fields = cbor.decode(data)
    handovers = ()
    if isinstance(fields, list) and len(fields) == 9:
        handovers = epochs.read_list(fields.pop())
    check_fields(fields, ("u", "t", "b32", "b80", "b", "b", "l", "l"))
    check(fields[0] == VERSION and fields[1] == NAME, "wrong_version", NAME, fields[1])
    check_list(fields[6], "b32")
    return HeaderFile(*(fields[:7] + [read_witnessing(fields[7])])), handovers


def check_file(data, genesis_bytes, verify_digest):
    """Returns a Report of what the file proves under the trusted genesis; Refused with the reason otherwise."""
    found, handovers = split(data)
    chain = genesis.decode(genesis_bytes)
    chain_id = genesis.chain_id(genesis_bytes)
    check(found.chain_id == chain_id, "wrong_chain", chain_id, found.chain_id)
    meta = check_meta(found.header, found.meta, found.meta_path, chain, chain_id)
    members = epochs.set_of(meta, chain.members, handovers, chain.channels, chain_id, verify_digest)
    voted = certificate.decode(found.certificate)
    certificate.check_certificate(voted, found.header, members, meta.epoch, meta.channel, chain_id, verify_digest)
    counted = check_witnessing(found.witnessing, found.header, meta, chain_id, verify_digest)
    return Report(header.decode(found.header), meta, voted, counted, members, chain.speed)


def check_meta(header_bytes, meta_bytes, meta_path, chain, chain_id):
    """Returns the Meta that is leaf 0 of the header's block and of this chain; chain: the decoded Genesis. Whose set it
    is, epochs.set_of says."""
    top = header.decode(header_bytes)
    meta = header.decode_meta(meta_bytes)
    check(meta.chain_id == chain_id, "wrong_chain", chain_id, meta.chain_id)
    check(meta.height == top.height, "wrong_height", top.height, meta.height)
    check(meta.channel in chain.channels, "wrong_channel", chain.channels, meta.channel)
    merkle.check_path(merkle.leaf_hash(meta_bytes), 0, meta.count + 1, meta_path, top.root)
    return meta


def witnessing_fields(witnessing):
    """Returns the Witnessing as the lists that a file holds."""
    rows = [[row.message, [list(pair) for pair in row.bucket], list(row.path)] for row in witnessing.signatures]
    return [witnessing.area, [list(pair) for pair in witnessing.bucket], list(witnessing.path), rows]


def read_witnessing(fields):
    """Returns the Witnessing of decoded lists; Refused `malformed`."""
    check_fields(fields, ("t", "l", "l", "l"))
    check(topics.is_area(fields[0]), "malformed", "an area", fields[0])
    check(len(fields[3]) <= SIGNATURES, "malformed", SIGNATURES, len(fields[3]))
    _check_bucket_shape(fields[1], fields[2])
    rows = []
    for row in fields[3]:
        check_fields(row, ("b", "l", "l"))
        _check_bucket_shape(row[1], row[2])
        rows.append(CoSignature(*row))
    return Witnessing(fields[0], fields[1], fields[2], rows)


def check_witnessing(witnessing, header_bytes, meta, chain_id, verify_digest):
    """Returns the Counted: light nodes that were enrolled and not revoked in the state of that block, each once.

    meta: that block's, already proven. Refused `wrong_header`, `wrong_channel`, `duplicate_signer`, `not_enrolled`,
    `revoked`, `not_permitted`, `wrong_area`, `high_s`, `bad_signature`, and as state.check_bucket and witness.read.
    """
    key = state.light_key(witnessing.area)
    state.check_bucket(witnessing.bucket, state.bucket_of(key), witnessing.path, meta.state_root)
    n = state.decode_count(_value_of(witnessing.bucket, key))
    kids: list = []
    for row in witnessing.signatures:
        signed, found = witness.read(row.message)
        check(found.header == bytes(header_bytes), "wrong_header", header_bytes, found.header)
        check(found.channel == meta.channel, "wrong_channel", meta.channel, found.channel)
        check(not kids or kids[-1] < found.kid, "duplicate_signer", "kids that rise", found.kid)
        key = state.agent_key(found.kid)
        state.check_bucket(row.bucket, state.bucket_of(key), row.path, meta.state_root)
        record = _value_of(row.bucket, key)
        check(record is not None, "not_enrolled", found.kid, None)
        agent = state.decode_agent(record)
        check(agent.revoked_height is None, "revoked", found.kid, agent.revoked_height)
        check(state.is_light(agent), "not_permitted", "agent", agent.role)
        check(agent.area == witnessing.area, "wrong_area", witnessing.area, agent.area)
        check(cose.is_low_s(signed.signature), "high_s", "the low half", signed.signature)
        cose.check(signed, "witness", chain_id, agent.public_key, verify_digest)
        kids.append(found.kid)
    check(len(kids) <= n, "wrong_count", n, len(kids))
    return Counted(witnessing.area, kids, n)


def check_message(data, genesis_bytes, verify_digest, channel="trade", epoch=0):
    """Returns (Header, Certificate) of a header message as it was on the broker; its count is not proven by it.

    The same checks as a light node makes on a header of the genesis' set; Refused with the reason otherwise.
    """
    found = witness.decode_header_message(data)
    chain = genesis.decode(genesis_bytes)
    voted = certificate.decode(found.certificate)
    certificate.check_certificate(voted, found.header, chain.members, epoch, channel, genesis.chain_id(genesis_bytes),
                                  verify_digest)
    return header.decode(found.header), voted


def _check_bucket_shape(bucket, path):
    last = None
    for pair in bucket:
        check_fields(pair, ("b", "b"))
        check(last is None or last < pair[0], "malformed", "keys that rise", pair[0])
        last = pair[0]
    check_list(path, "b32")


def _value_of(bucket, key):
    for pair in bucket:
        if pair[0] == key:
            return pair[1]
    return None
