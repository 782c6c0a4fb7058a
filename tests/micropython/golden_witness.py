"""Prints what a light node follows, signs and refuses, byte for byte alike in every interpreter.

Without an agent around it: trust, header messages, witness signatures, a saved and restored state, a contradiction;
then the file that proves 1 of 2.
"""

import hashlib

from firmware.crypto import p256
from firmware.crypto.signer import SoftwareSigner
from firmware.lightnode import LightNode
from firmware.trust import decode_trust
from firmware.wire import certificate, cose, genesis, header, headerfile, identity, merkle, state, witness
from firmware.wire.errors import Refused

START_S = 1700000000


def line(name, value):
    print(name, value.hex() if isinstance(value, (bytes, bytearray)) else value)


def signer(name):
    return SoftwareSigner(hashlib.sha256(b"gridseal test key " + name).digest())


def refusal(work, *values):
    try:
        work(*values)
        return "taken"
    except Refused as refused:
        return refused.reason


class Chain:
    """One replica and the power to certify."""

    def __init__(self):
        self.signer = signer(b"replica")
        key = self.signer.public_key()
        members = [certificate.Member(identity.kid_of(key), key, bytes(32))]
        self.genesis = genesis.encode(genesis.Genesis(("trade",), START_S, 1, genesis.parameters(), members, [], []))
        self.chain_id = genesis.chain_id(self.genesis)
        self.tip = genesis.header_zero(self.genesis, "trade")

    def block(self, time_s, text=b"leaf"):
        tip = header.decode(self.tip)
        root = hashlib.sha256(text).digest()
        return header.encode(header.Header(1, header.hash_of(self.tip), root, time_s, 0, tip.height + 1))

    def certify(self, top):
        height = witness.height_of(top)
        digest = cose.digest(certificate.vote_payload(0, "trade", height, header.hash_of(top)), "header", self.chain_id)
        return certificate.encode(certificate.Certificate(
            0, "trade", height, header.hash_of(top), (0,), (self.signer.sign_digest(digest),)))


def follow(chain, light, meter, kid):
    for step in range(6):
        chain.tip = chain.block(START_S + 500 * (step + 1))
        proof = chain.certify(chain.tip)
        message = witness.encode_header_message(chain.tip, proof, step, 1, 2)
        line("message", hashlib.sha256(message).digest())
        found = witness.decode_header_message(message)
        line("counted", (found.height, found.k, found.n))
        top = light.accept(found.header, found.certificate, START_S + 500 * (step + 1))
        line("height", top.height)
        line("may", light.may_witness(found.header))
        if light.may_witness(found.header):
            light.note_witness(found.header, found.certificate)
            line("trust", light.save())
            signed = witness.sign(kid, "trade", found.header, chain.chain_id, meter.sign_digest)
            line("witness", signed)
            opened, read = witness.read(signed)
            cose.check(opened, "witness", chain.chain_id, meter.public_key(), p256.verify_digest)
            line("read", (read.kid.hex(), read.channel, read.height))


def prove(meter, kid):
    """A block whose state counts two light nodes and knows one of them, and the file of its header."""
    chain = Chain()
    record = state.AgentRecord(meter.public_key(), "agent", "home", "esp32", "software", bytes(32), kid, [7], 1, None,
                               None)
    pairs = {state.agent_key(kid): state.encode_record(record), state.light_key("home"): b"\x02"}
    digests = [merkle.leaf_hash(state.bucket_digest([]))] * state.BUCKETS
    for key in pairs:  # the two lie in different buckets
        digests[state.bucket_of(key)] = merkle.leaf_hash(state.bucket_digest([(key, pairs[key])]))
    set_hash = certificate.set_hash(genesis.decode(chain.genesis).members)
    meta = header.encode_meta(header.Meta(header.VERSION, "trade", chain.chain_id, 0, 1, 0, header.results_hash([]),
                                          merkle.root_of_hashes(digests), set_hash, set_hash, None, bytes(32)))
    top = header.encode(header.Header(1, header.hash_of(chain.tip), merkle.root([meta]), START_S + 60, 0, 1))

    def proven(key):
        return [(key, pairs[key])], merkle.path(digests, state.bucket_of(key))

    message = witness.sign(kid, "trade", top, chain.chain_id, meter.sign_digest)
    count, path = proven(state.light_key("home"))
    known, known_path = proven(state.agent_key(kid))
    found = headerfile.HeaderFile(
        1, headerfile.NAME, chain.chain_id, top, chain.certify(top), meta, [],
        headerfile.Witnessing("home", count, path, [headerfile.CoSignature(message, known, known_path)]))
    data = headerfile.encode(found)
    line("header file", (len(data), hashlib.sha256(data).digest().hex()))
    line("again", headerfile.encode(headerfile.decode(data)) == data)
    report = headerfile.check_file(data, chain.genesis, p256.verify_digest)
    line("counted", (report.counted.area, [one.hex() for one in report.counted.kids], report.counted.n))
    for step in range(24):
        damaged = bytearray(data)
        damaged[step * (len(data) - 1) // 23] ^= 1 << (step & 7)
        line("damaged file %d" % step, refusal(headerfile.check_file, bytes(damaged), chain.genesis,
                                               p256.verify_digest))


def main():
    chain = Chain()
    meter = signer(b"meter")
    kid = identity.kid_of(meter.public_key())
    line("kid", kid)
    light = LightNode(chain.genesis, p256.verify_digest)
    follow(chain, light, meter, kid)
    light = LightNode(chain.genesis, p256.verify_digest, light.save())
    line("again", (light.height, light.may_witness(chain.tip), light.pair_at(6)[0] == chain.tip, light.pair_at(1)))
    good = witness.sign(kid, "trade", chain.tip, chain.chain_id, meter.sign_digest)
    for at in range(0, len(good), 9):
        damaged = bytearray(good)
        damaged[at] ^= 4
        line("damaged %d" % at, refusal(witness.read, bytes(damaged)))
    line("long", refusal(witness.read, bytes(300)))
    state = light.save()
    for at in range(0, len(state), 97):
        line("trust cut at %d" % at, refusal(decode_trust, state[:at]))
    tip = chain.tip
    top = header.decode(tip)
    other = header.encode(header.Header(top.version, top.previous, bytes(32), top.time_s, top.view, top.height))
    line("contradiction", refusal(light.accept, other, chain.certify(other), None))
    line("stopped", refusal(light.accept, tip, chain.certify(tip), None))
    line("silent", light.may_witness(chain.block(START_S + 9000)))
    trust = decode_trust(light.save())
    line("both", [hashlib.sha256(pair[0] + pair[1]).digest().hex() for pair in trust.contradiction])
    prove(meter, kid)


main()
