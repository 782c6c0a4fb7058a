"""Prints an agent's whole life, byte for byte alike in every interpreter: polls, journal, envelopes, ack, restart.

Runs in MicroPython too, so it is written in what both understand; keys are test keys.
"""

import hashlib
import struct

from firmware import agent as duties
from firmware import bus, config, meters, modbus
from firmware.agent import Agent
from firmware.crypto import p256
from firmware.crypto.signer import SoftwareSigner
from firmware.journal import Journal
from firmware.lightnode import LightNode
from firmware.wire import ack, certificate, cose, genesis, header, identity, merkle, seal

DAY_MS = 1767225600000
MINUTE_MS = 60000


class Flash:
    """NOR flash in memory."""

    def __init__(self, count, size):
        self.data = [bytearray(b"\xff" * size) for _ in range(count)]
        self.size = size

    def readblocks(self, block, buffer, offset=0):
        buffer[:] = self.data[block][offset:offset + len(buffer)]

    def writeblocks(self, block, data, offset=0):
        for index in range(len(data)):
            self.data[block][offset + index] &= data[index]

    def ioctl(self, operation, argument):
        if operation == 6:
            self.data[argument] = bytearray(b"\xff" * self.size)
        return {4: len(self.data), 5: self.size}.get(operation, 0)

    def digest(self):
        hasher = hashlib.sha256()
        for sector in self.data:
            hasher.update(sector)
        return hasher.digest().hex()


def poll(read, label_ms, silent):
    """What a bus worker gives back, through real frames; registers depend on time and address."""
    exchanges = []
    for function, address, count in read.requests:
        pdu = modbus.read_registers(function, address, count)
        frame = modbus.frame("rtu", read.unit, pdu)
        if read.point == silent:
            return [bus.Exchange((function, address, count), frame, b"", None, "no_answer")]
        answer = bytearray((read.unit, function, 2 * count))
        for at in range(address, address + count):
            high = 0x4400 + at + label_ms // MINUTE_MS % 50  # small floats: 0x44.. is 512 and more
            answer.extend(struct.pack(">H", high if at % 2 == 0 else 0x1234))
        answer.extend(struct.pack("<H", modbus.crc16(answer)))
        found = modbus.answer_pdu("rtu", frame, bytes(answer))
        exchanges.append(bus.Exchange((function, address, count), frame, bytes(answer),
                                      modbus.words_of(pdu, found), None))
    return exchanges


class Story:
    def __init__(self):
        scalars = [hashlib.sha256(b"test member %d" % number).digest() for number in range(4)]
        self.members = [SoftwareSigner(scalar) for scalar in scalars]
        self.members.sort(key=lambda signer: identity.kid_of(signer.public_key()))
        rows = [certificate.Member(identity.kid_of(signer.public_key()), signer.public_key(), bytes(32))
                for signer in self.members]
        self.genesis = genesis.encode(genesis.Genesis(
            ("trade",), DAY_MS // 1000 - 60, 1, genesis.parameters(), rows, [], []))
        self.tip = genesis.header_zero(self.genesis, "trade")
        self.signer = SoftwareSigner(hashlib.sha256(b"test agent").digest())
        self.kid = identity.kid_of(self.signer.public_key())
        self.config = config.load({
            "area": "home", "brokers": ["mqtts://broker:8883"], "seal_every_s": 300, "details_every_s": 900,
            "bus": [{"port": "uart1", "meter": [{"point": 1, "unit": 1, "type": "sdm120"},
                                                {"point": 2, "unit": 2, "type": "sdm630"}]}]})
        self.flash = Flash(6, 2048)
        self.label_ms = DAY_MS
        self.pending = []
        self.trust = None
        self.silent = 0
        self.boot()

    def boot(self):
        chosen = self.config
        settings = duties.Settings(
            self.kid, "home", config.places(chosen), chosen.interval_s * 1000, chosen.seal_every_s * 1000,
            chosen.details_every_s * 1000, chosen.silence_s * 1000, chosen.window, 64, bytes(32), chosen.hash)
        self.light = LightNode(self.genesis, p256.verify_digest, self.trust)
        self.journal = Journal(self.flash)
        self.agent = Agent(settings, self.light, self.journal, self.signer, p256.verify_digest, self.label_ms)

    def obey(self, todo):
        for duty in todo:
            kind = type(duty)
            if kind is duties.Append:
                if self.journal.append(duty.kind, duty.payload) != duty.seq:
                    raise ValueError("record number")
            elif kind is duties.Read:
                exchanges = poll(duty, self.label_ms, self.silent) if duty.attempts else []
                self.reads.append((duty, exchanges))
            elif kind is duties.Publish:
                made = self.agent.envelope(duty.point, duty.height)
                message, readings = seal.decode_envelope(made[1])
                print("published", duty.point, duty.height, len(made[1]), hashlib.sha256(made[1]).digest().hex())
                seal.check_readings(seal.decode(cose.parse(message).payload), readings)
                self.pending.append((duty.point, duty.height, message))
                self.published.append((duty.point, duty.height))
            elif kind is duties.Trim:
                self.journal.trim(duty.seq)
            elif kind is duties.SaveTrust:
                self.trust = duty.data
            elif kind is duties.Alarm:
                print("alarm", duty.text)
            elif kind is duties.Progress:
                print("done", duty.label_ms)

    def turn(self):
        self.reads: list = []
        self.published: list = []
        self.obey(self.agent.tick(self.label_ms, self.label_ms - DAY_MS))
        for duty, exchanges in self.reads:
            self.obey(self.agent.on_words(duty, self.label_ms, 2, exchanges, self.label_ms, self.label_ms - DAY_MS))
        self.obey(self.agent.tick(self.label_ms, self.label_ms - DAY_MS))
        for point, height in self.published:
            self.obey(self.agent.on_published(point, height))

    def ack(self):
        leaves = [b"meta"] + [leaf for _, _, leaf in self.pending]
        hashes = [merkle.leaf_hash(leaf) for leaf in leaves]
        below = header.decode(self.tip)
        self.tip = header.encode(header.Header(1, header.hash_of(self.tip), merkle.root(leaves),
                                               self.label_ms // 1000, 0, below.height + 1))
        digest = cose.digest(certificate.vote_payload(0, "trade", below.height + 1, header.hash_of(self.tip)),
                             "header", self.light.chain_id)
        proof = certificate.encode(certificate.Certificate(
            0, "trade", below.height + 1, header.hash_of(self.tip), (0, 1, 3),
            tuple([self.members[number].sign_digest(digest) for number in (0, 1, 3)])))
        proofs = []
        for index in range(len(self.pending)):
            point, height, _ = self.pending[index]
            proofs.append(ack.SealProof(point, height, None, index + 1, len(leaves), merkle.path(hashes, index + 1)))
        self.pending = []
        data = ack.encode(ack.Ack(self.tip, proof, proofs, [], []))
        self.obey(self.agent.on_ack(data[:-1], self.label_ms // 1000, 0))
        self.obey(self.agent.on_ack(data, self.label_ms // 1000, 0))
        print("acked", self.agent.status(0)["heights"], self.journal.trimmed, self.journal.next_seq)

    def minutes(self, count):
        for _ in range(2 * count):
            self.turn()
            self.label_ms += MINUTE_MS // 2


def main():
    for name in meters.TYPES:
        print(name, meters.map_hash(meters.load(name)).hex())
    story = Story()
    print("configuration", story.config.hash.hex(), "kid", story.kid.hex())
    story.obey(story.agent.on_connected(0))
    story.minutes(11)
    story.ack()
    print("flash", story.flash.digest())
    story.silent = 2
    story.obey(story.agent.on_disconnected())
    story.minutes(7)
    story.boot()
    story.obey(story.agent.on_connected(0))
    story.minutes(6)
    story.silent = 0
    story.ack()
    story.minutes(20)
    story.ack()
    print("flash", story.flash.digest())
    print("trust", story.light.height, hashlib.sha256(story.light.save()).digest().hex())
    try:
        config.load({"area": "home", "broker": []})
    except config.BadConfig as error:
        print(error)


main()
