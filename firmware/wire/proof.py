"""Makes the proof file of one reading, or of a whole seal, and checks it offline against nothing but the genesis.

Bottom up: the reading is a leaf of its seal; the seal is a leaf of a block and its result code says that it was taken;
the block's meta names the state in which the agent's key was enrolled for the point; the header is certified by q
replicas of the genesis' set. Where light nodes co-signed that header, their signatures are in it (headerfile.py). Every
byte of the file is checked: a flipped bit is refused.
"""

from collections import namedtuple

from firmware.wire import cbor, certificate, cose, epochs, genesis, header, headerfile, merkle, seal, state
from firmware.wire import reading as reading_codec
from firmware.wire.errors import check
from firmware.wire.shape import check_fields, check_list

VERSION = 1
PROOF_BYTES = 256 * 1024
OF_READING = "gridseal-proof"  # the file's name for itself
OF_SEAL = "gridseal-seal"  # the same without a reading: empty bytes, index 0, no path
WITNESSES = 64  # in a proof file, some 900 bytes each; a header file holds them all
MARKED = 256  # result codes from here on are 256 + mark bits; below, 0 is good and the rest are reasons

Proof = namedtuple("Proof", (
    "version", "name", "chain_id",
    "reading", "reading_index", "reading_path",  # bytes, leaf of the seal, [32 bytes]
    "seal", "seal_index", "seal_size", "seal_path",  # COSE bytes, leaf of the block
    "meta", "meta_path", "results",  # leaf 0, its path, every result code of the block
    "bucket", "bucket_path",  # [[key, value], ...] of the state's bucket with the agent's record, 12 hashes
    "header", "certificate", "witnesses"))  # witnesses: a headerfile.Witnessing, or () where nobody co-signed
_KINDS = ("u", "t", "b32", "b", "u", "l", "b", "u", "u", "l", "b", "l", "l", "l", "l", "b80", "b", "l")

Report = namedtuple("Report", ("reading", "seal", "agent", "meta", "height", "time_s", "marks", "signers", "members",
                               "speed", "counted"))  # counted: a headerfile.Counted, or None


def encode(proof, handovers=()):
    """Returns the file's bytes: one deterministic CBOR array; handovers (epochs.py): those up to the block's epoch, at
    the end, none where that is 0."""
    fields = list(proof)
    fields[13] = [list(pair) for pair in proof.bucket]
    fields[17] = headerfile.witnessing_fields(proof.witnesses) if proof.witnesses else []
    return cbor.encode(fields + [list(handovers)] if handovers else fields)


def without_reading(data):
    """Returns the proof of the whole seal, from the bytes of one of its readings' proofs."""
    found, handovers = split(data)
    fields = list(found)
    fields[1] = OF_SEAL
    fields[3], fields[4], fields[5] = b"", 0, []
    return encode(Proof(*fields), handovers)


def decode(data):
    """Returns the Proof; Refused `oversize`, `malformed`, `wrong_version`."""
    return split(data)[0]


def split(data):
    """Returns (Proof, handovers as bytes); refuses as `decode`."""
    check(len(data) <= PROOF_BYTES, "oversize", PROOF_BYTES, len(data))
    fields = cbor.decode(data)
    handovers = ()
    if isinstance(fields, list) and len(fields) == len(_KINDS) + 1:
        handovers = epochs.read_list(fields.pop())
    check_fields(fields, _KINDS)
    check(fields[0] == VERSION and fields[1] in (OF_READING, OF_SEAL), "wrong_version", OF_READING, fields[1])
    for index in (5, 9, 11, 14):
        check_list(fields[index], "b32")
    check_list(fields[12], "u")
    for pair in fields[13]:
        check_fields(pair, ("b", "b"))
    if fields[17]:
        fields[17] = headerfile.read_witnessing(fields[17])
        count = len(fields[17].signatures)
        check(0 < count <= WITNESSES, "malformed", WITNESSES, count)  # nothing is written in one way only
    return Proof(*fields), handovers


def check_proof(data, genesis_bytes, verify_digest):
    """Returns a Report of what the file proves (its reading None for a seal's); Refused with the reason otherwise.

    data: the file; genesis_bytes: the trusted genesis; verify_digest(public key 65, digest 32, signature 64) -> bool.
    """
    proof, handovers = split(data)
    chain = genesis.decode(genesis_bytes)
    chain_id = genesis.chain_id(genesis_bytes)
    check(proof.chain_id == chain_id, "wrong_chain", chain_id, proof.chain_id)
    sealed, fields, reading = _check_reading(proof)
    meta = headerfile.check_meta(proof.header, proof.meta, proof.meta_path, chain, chain_id)
    result = _check_inclusion(proof, meta)
    agent = _check_agent(proof, meta, fields)
    cose.check(sealed, "seal", chain_id, agent.public_key, verify_digest)
    voted = certificate.decode(proof.certificate)
    members = epochs.set_of(meta, chain.members, handovers, chain.channels, chain_id, verify_digest)
    certificate.check_certificate(voted, proof.header, members, meta.epoch, meta.channel, chain_id, verify_digest)
    counted = None
    if proof.witnesses:
        check(proof.witnesses.area == agent.area, "wrong_area", agent.area, proof.witnesses.area)
        counted = headerfile.check_witnessing(proof.witnesses, proof.header, meta, chain_id, verify_digest)
    top = header.decode(proof.header)
    marks = result - MARKED if result >= MARKED else 0
    return Report(reading, fields, agent, meta, top.height, top.time_s, marks, len(voted.signers), len(members),
                  chain.speed, counted)


def _check_reading(proof):
    sealed = cose.parse(proof.seal)
    check(cose.is_low_s(sealed.signature), "high_s", "the low half", sealed.signature)
    fields = seal.decode(sealed.payload)
    check(fields.kid == sealed.kid, "wrong_key", fields.kid, sealed.kid)
    if proof.name == OF_SEAL:
        check(proof.reading == b"" and proof.reading_index == 0 and not proof.reading_path, "malformed", "no reading",
              len(proof.reading))
        return sealed, fields, None
    reading = reading_codec.decode(proof.reading)
    check(reading.kid == fields.kid and reading.point == fields.point, "wrong_reading", fields.point, reading.point)
    check(fields.first_ms <= reading.time_ms <= fields.last_ms, "wrong_times", fields.last_ms, reading.time_ms)
    merkle.check_path(merkle.leaf_hash(proof.reading), proof.reading_index, fields.count, proof.reading_path,
                      fields.root)
    return sealed, fields, reading


def _check_inclusion(proof, meta):
    check(proof.seal_size == meta.count + 1, "wrong_count", meta.count + 1, proof.seal_size)
    check(len(proof.results) == meta.count, "wrong_count", meta.count, len(proof.results))
    found = header.results_hash(proof.results)
    check(found == meta.results_hash, "wrong_digest", meta.results_hash, found)
    check(0 < proof.seal_index <= meta.count, "not_included", meta.count, proof.seal_index)
    merkle.check_path(merkle.leaf_hash(proof.seal), proof.seal_index, proof.seal_size, proof.seal_path,
                      header.decode(proof.header).root)
    result = proof.results[proof.seal_index - 1]
    check(result == 0 or result >= MARKED, "not_accepted", 0, result)
    return result


def _check_agent(proof, meta, fields):
    key = state.agent_key(fields.kid)
    state.check_bucket(proof.bucket, state.bucket_of(key), proof.bucket_path, meta.state_root)
    for pair in proof.bucket:
        if pair[0] == key:
            agent = state.decode_agent(pair[1])
            check(fields.point in agent.points, "not_its_point", agent.points, fields.point)
            return agent
    check(False, "not_enrolled", fields.kid, None)
