"""Prints every format of firmware/wire, made from fixed numbers and taken apart again, alike in every interpreter.

One reading's life: signed, sealed, enveloped, in a block, certified, proved; then each thing damaged, and the reason.
"""

import hashlib

from firmware.crypto import p256
from firmware.crypto.signer import SoftwareSigner
from firmware.wire import (
    ack,
    cbor,
    certificate,
    cose,
    genesis,
    header,
    identity,
    merkle,
    proof,
    reading,
    seal,
    state,
    topics,
    transaction,
)
from firmware.wire.errors import Refused


def line(name, value):
    print(name, value.hex() if isinstance(value, (bytes, bytearray)) else value)


def refusal(decode, *values):
    try:
        decode(*values)
        return "taken"
    except Refused as refused:
        return refused.reason


def damages(name, decode, data, *more):
    """One bit in each of 24 places flipped, then cut short, then made longer: the reason for each."""
    reasons = []
    for step in range(24):
        damaged = bytearray(data)
        at = step * (len(data) - 1) // 23
        damaged[at] ^= 1 << (step & 7)
        reasons.append(refusal(decode, bytes(damaged), *more))
    line(name + " damaged", ",".join(reasons))
    line(name + " cut", refusal(decode, data[:-1], *more))
    line(name + " longer", refusal(decode, data + b"\x00", *more))


def signer_of(name):
    return SoftwareSigner(hashlib.sha256(name.encode()).digest())


# CBOR: numbers at every edge of a head's length, and values from a small generator.
for number in (0, 1, 23, 24, 255, 256, 65535, 65536, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32, (1 << 62),
               (1 << 63) - 1, (1 << 64) - 1):
    line("integers", cbor.encode([number, -1 - number]))
    line("back", cbor.decode(cbor.encode([number, -1 - number])) == [number, -1 - number])
bad_values: tuple = (1 << 64, -1 - (1 << 64), {24: 0}, {"a": 0}, {True: 0}, {-25: 0}, {0}, [[[[[[[[[]]]]]]]]])
for bad in bad_values:
    try:
        cbor.encode(bad)
        line("bad value", "taken")
    except ValueError:
        line("bad value", "refused")
seed = 1


def chance(below):
    global seed
    seed = (seed * 1103515245 + 12345) % (1 << 31)
    return (seed >> 8) % below


def any_value(depth):
    kind = chance(9 if depth else 7)
    if kind == 0:
        return chance(1 << 16) << chance(40)
    if kind == 1:
        return -1 - (chance(1 << 16) << chance(40))
    if kind == 2:
        return bytes([chance(256) for _ in range(chance(40))])
    if kind == 3:
        return "".join([chr((65, 0xE9, 0x6C34, 0x1F50C)[chance(4)]) for _ in range(chance(30))])
    if kind == 4:
        return None
    if kind == 5:
        return True
    if kind == 6:
        return False
    if kind == 7:
        return [any_value(depth - 1) for _ in range(chance(6))]
    made = {}
    for _ in range(chance(6)):
        key = chance(48) - 24
        made[key] = any_value(depth - 1)
    return made


for _ in range(60):
    value = any_value(4)
    data = cbor.encode(value)
    line("value", data)
    line("back", cbor.encode(cbor.decode(data)) == data)
    if data:
        damaged = bytearray(data)
        damaged[chance(len(data))] ^= 1 << chance(8)
        line("value damaged", refusal(cbor.decode, bytes(damaged)))

# Identities and the genesis.
agent, operator = signer_of("agent"), signer_of("operator")
kid = identity.kid_of(agent.public_key())
line("cose key", identity.encode_cose_key(agent.public_key()))
line("thumbprint", identity.thumbprint(agent.public_key()))
replicas = [signer_of("replica %d" % number) for number in range(4)]
members = certificate.decode_members(certificate.member_lists([
    certificate.Member(identity.kid_of(one.public_key()), one.public_key(), hashlib.sha256(one.public_key()).digest())
    for one in replicas]))
by_key = {one.public_key(): one for one in replicas}
request = transaction.encode_enrolment(
    transaction.Enrolment(agent.public_key(), bytes(32), "agent", "area-1", "model 7", "software"),
    kid, cose.NO_CHAIN, agent.sign_digest)
line("enrolment", request)
entry = transaction.PointEntry(7, "area-1", "trade", 1, 1, bytes(32), "Eastron", "SDM120", "12345678", 0, None)
rules = genesis.parameters({"late_s": 7200})
genesis_bytes = genesis.encode(genesis.Genesis(
    ("trade",), 1700000000, 600, rules, members, [[request, kid, [list(entry)], "a note"]], []))
chain_id = genesis.chain_id(genesis_bytes)
line("genesis", genesis_bytes)
line("chain id", chain_id)
line("genesis again", genesis.encode(genesis.decode(genesis_bytes)) == genesis_bytes)
header_zero = genesis.header_zero(genesis_bytes, "trade")
line("header zero", header_zero)
damages("genesis", genesis.decode, genesis_bytes)
damages("enrolment", transaction.decode_enrolment, request, cose.NO_CHAIN, p256.verify_digest)

# Readings, a seal over them, the envelope.
readings = []
for minute in range(5):
    entries = (reading.Entry("1.8.0", "Wh", 1234567 + 17 * minute, None), reading.Entry("2.8.0", None, None, "timeout"),
               reading.Entry("16.7.0", "W", -1020 + minute, None), reading.Entry("x.frequency", None, 50010, None))
    readings.append(reading.encode(reading.Reading(
        kid, 7, 1700000000123 + 60000 * minute, entries, reading.CLOCK_SYNCHRONISED, hashlib.sha256(b"raw").digest())))
    line("reading", readings[-1])
    line("reading again", reading.encode(reading.decode(readings[-1])) == readings[-1])
damages("reading", reading.decode, readings[0])
fields = seal.Seal(seal.VERSION, kid, 7, 1, 1, 0, seal.FIRST_PREVIOUS, merkle.root(readings), len(readings),
                   1700000000123, 1700000240123, 1234635, None, 3, seal.SLOT_B | 2, bytes(32), b"\x11" * 32)
payload = seal.encode(fields)
sealed = cose.sign1(payload, kid, "seal", chain_id, agent.sign_digest)
line("seal", sealed)
line("payload hash", seal.payload_hash(payload))
envelope = seal.encode_envelope(sealed, readings)
line("envelope", hashlib.sha256(envelope).digest())
seal.check_readings(seal.decode(payload), seal.decode_envelope(envelope)[1])
line("readings swapped", refusal(seal.check_readings, fields, [readings[1], readings[0]] + readings[2:]))
damages("seal payload", seal.decode, payload)
damages("seal message", cose.parse, sealed)
damages("envelope", seal.decode_envelope, envelope)
s = int.from_bytes(sealed[-32:], "big")
high = sealed[:-32] + (cose.ORDER - s).to_bytes(32, "big")
line("normalised", cose.normalise(high) == sealed and not cose.is_low_s(cose.parse(high).signature))
for kind in cose.KINDS:
    line("digest " + kind, cose.digest(payload, kind, chain_id))
    line("as " + kind, refusal(cose.check, cose.parse(sealed), kind, chain_id, agent.public_key(), p256.verify_digest))

# A transaction.
revocation = transaction.encode(transaction.Transaction(
    transaction.VERSION, transaction.REVOKE, identity.kid_of(operator.public_key()), 9, 1700000600, "trade",
    [kid, "stolen"]))
line("transaction", cose.sign1(revocation, identity.kid_of(operator.public_key()), "tx", chain_id,
                               operator.sign_digest))
line("transaction again", transaction.encode(transaction.decode(revocation)) == revocation)
damages("transaction", transaction.decode, revocation)

# The state, a block with the seal as its third leaf, the certificate.
agent_record = state.encode_record(state.AgentRecord(
    agent.public_key(), "agent", "area-1", "model 7", "software", bytes(32), kid, [7], 0, None, None))
bucket = state.bucket_of(state.agent_key(kid))
pairs = [(state.agent_key(kid), agent_record)]
digests = [state.bucket_digest([])] * state.BUCKETS
digests[bucket] = state.bucket_digest(pairs)
bucket_hashes = [merkle.leaf_hash(digest) for digest in digests]
state_root = merkle.root_of_hashes(bucket_hashes)
line("bucket", bucket)
line("state root", state_root)
results = [0, 256 + 4, 5]
meta = header.encode_meta(header.Meta(
    header.VERSION, "trade", chain_id, 0, 1, len(results), header.results_hash(results), state_root,
    certificate.set_hash(members), certificate.set_hash(members), None, genesis.parameters_hash(rules)))
leaves = [meta, b"one", sealed, b"three"]
hashes = [merkle.leaf_hash(leaf) for leaf in leaves]
top = header.encode(header.Header(header.VERSION, header.hash_of(header_zero), merkle.root(leaves), 1700000300, 2, 1))
line("meta", meta)
line("header", top)
line("header again", header.encode(header.decode(top)) == top)
damages("header", header.decode, top)
damages("meta", header.decode_meta, meta)
vote = certificate.vote_payload(0, "trade", 1, header.hash_of(top))
signatures = [by_key[member.public_key].sign_digest(cose.digest(vote, "header", chain_id)) for member in members]
voted = certificate.Certificate(0, "trade", 1, header.hash_of(top), (0, 2, 3),
                                (signatures[0], signatures[2], signatures[3]))
certified = certificate.encode(voted)
line("certificate", certified)
line("set hash", certificate.set_hash(members))
line("checked", refusal(certificate.check_certificate, certificate.decode(certified), top, members, 0, "trade",
                        chain_id, p256.verify_digest))
damages("certificate", certificate.decode, certified)
for size in range(1, 12):
    line("quorum", (size, certificate.faults(size), certificate.quorum(size)))

# Ack, receipt, proof.
path = merkle.path(hashes, 2)
acked = ack.encode(ack.Ack(top, certified, [ack.SealProof(7, 1, None, 2, 4, path)], [ack.Refusal(8, 4, "fork")],
                           [ack.Wanted(9, 3, 6)]))
line("ack", hashlib.sha256(acked).digest())
line("ack again", ack.encode(ack.decode(acked)) == acked)
damages("ack", ack.decode, acked)
receipt = ack.encode_receipt(ack.Receipt(top, certified, meta, merkle.path(hashes, 0), results, [
    ack.ItemProof(seal.payload_hash(payload), sealed[-64:], 2, 4, path)]))
line("receipt", hashlib.sha256(receipt).digest())
damages("receipt", ack.decode_receipt, receipt)
reading_hashes = [merkle.leaf_hash(data) for data in readings]
proved = proof.encode(proof.Proof(
    proof.VERSION, "gridseal-proof", chain_id, readings[3], 3, merkle.path(reading_hashes, 3), sealed, 2, 4, path, meta,
    merkle.path(hashes, 0), [0, 260, 5], pairs, merkle.path(bucket_hashes, bucket), top, certified, []))
line("proof", hashlib.sha256(proved).digest())
report = proof.check_proof(proved, genesis_bytes, p256.verify_digest)
line("report", (report.height, report.time_s, report.marks, report.signers, report.members, report.speed))
damages("proof", proof.check_proof, proved, genesis_bytes, p256.verify_digest)
of_seal = proof.without_reading(proved)
line("proof of the seal", hashlib.sha256(of_seal).digest())
line("checked", refusal(proof.check_proof, of_seal, genesis_bytes, p256.verify_digest))
for kind in topics.AGENT_WRITES + topics.AGENT_READS:
    topic = topics.agent_topic("area-1", kid, kind)
    line("topic", topic)
    line("parsed", topics.parse(topic) == ("area-1", kid, kind))
for topic in ("", "gridseal/1/area-1/+/ack", "gridseal/1/#", "gridseal/2/a/%s/ack" % kid.hex(), "x" * 200):
    line("bad topic", refusal(topics.parse, topic))
