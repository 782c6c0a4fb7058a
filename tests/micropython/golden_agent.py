"""Prints what an agent does in ten minutes with three meters, an outage of the link, an ack and a restart.

The whole way in one process: Modbus frames over a port that answers here, decoding, journal on a flash that only
programs and erases, seals, envelopes, an ack with its certificate, trimming; alike in every interpreter.
"""

import hashlib

from firmware import agent, bus, journal, lightnode, meters, modbus
from firmware.crypto import p256
from firmware.crypto.signer import SoftwareSigner
from firmware.wire import ack, certificate, cose, genesis, header, identity, merkle, seal

SECTOR, SECTORS = 4096, 8
START_MS = 1700000000000


def line(name, value):
    print(name, value.hex() if isinstance(value, (bytes, bytearray)) else value)


def with_crc(frame):
    crc = modbus.crc16(frame)
    return frame + bytes((crc & 0xFF, crc >> 8))


class Flash:
    """NOR flash by MicroPython's block protocol: programming only clears bits."""

    def __init__(self):
        self.data = bytearray(b"\xff" * (SECTOR * SECTORS))
        self.erased = 0

    def readblocks(self, block, buffer, offset=0):
        at = block * SECTOR + offset
        for i in range(len(buffer)):
            buffer[i] = self.data[at + i]

    def writeblocks(self, block, buffer, offset=0):
        at = block * SECTOR + offset
        for i in range(len(buffer)):
            self.data[at + i] &= buffer[i]

    def ioctl(self, operation, argument):
        if operation == 4:
            return SECTORS
        if operation == 5:
            return SECTOR
        if operation == 6:
            self.erased += 1
            for i in range(argument * SECTOR, (argument + 1) * SECTOR):
                self.data[i] = 0xFF
        return 0


class Port:
    """A line with meters on it, RTU; unit 9 never answers. A register's word depends on the poll and its address."""

    framing = "rtu"
    baud = gap_ms = 0

    def __init__(self):
        self.poll = 0
        self.answer = b""

    def clear(self):
        self.answer = b""

    def write(self, data):
        unit, function = data[0], data[1]
        if unit == 9:
            return
        address, count = data[2] << 8 | data[3], data[4] << 8 | data[5]
        if unit == 3 and self.poll == 4:
            self.answer = with_crc(bytes((unit, function | 0x80, 4)))
            return
        words = b""
        for at in range(address, address + count):
            words += ((0x4348 if at % 2 == 0 else self.poll * 977 + at) & 0xFFFF).to_bytes(2, "big")
        self.answer = with_crc(bytes((unit, function, 2 * count)) + words)

    def read(self, count, wait_ms):
        piece, self.answer = self.answer[:count], self.answer[count:]
        return piece

    def pause(self, wait_ms):
        pass

    def mark(self):
        return 0

    def since_ms(self, mark):
        return 0


def signer_of(name):
    return SoftwareSigner(hashlib.sha256(name.encode()).digest())


signer = signer_of("agent")
kid = identity.kid_of(signer.public_key())
replicas = [signer_of("replica %d" % number) for number in range(4)]
members = certificate.decode_members(certificate.member_lists([
    certificate.Member(identity.kid_of(one.public_key()), one.public_key(), bytes(32)) for one in replicas]))
by_key = {one.public_key(): one for one in replicas}
genesis_bytes = genesis.encode(genesis.Genesis(("trade",), START_MS // 1000, 1, genesis.parameters(), members, [], []))
chain_id = genesis.chain_id(genesis_bytes)
for name in meters.TYPES:
    line("map " + name, meters.map_hash(meters.load(name)))

flash, port = Flash(), Port()
sent: dict = {}


def started(state=None):
    store = journal.Journal(flash)
    light = lightnode.LightNode(genesis_bytes, p256.verify_digest, state)
    places = (agent.Place(1, 0, 3, meters.load("sdm120"), 1), agent.Place(2, 0, 4, meters.load("pzem004t"), 1),
              agent.Place(3, 0, 9, meters.load("sdm630"), 1))
    settings = agent.Settings(kid, "area-1", places, 60000, 120000, 300000, 60000, 20, 64, b"\x01" * 32, b"\x02" * 32)
    return store, agent.Agent(settings, light, store, signer, p256.verify_digest, START_MS)


def obey(duties, label_ms):
    """Does each duty, left to right, the next call only after the last: polls and what they bring come at the end."""
    reads = []
    published = []
    for duty in duties:
        kind = type(duty).__name__
        if kind == "Read":
            reads.append(duty)
        elif kind == "Append":
            line("append", (store.append(duty.kind, duty.payload) == duty.seq, duty.kind, duty.payload.hex()))
        elif kind == "Sync":
            store.sync()
        elif kind == "Publish":
            topic, data = one.envelope(duty.point, duty.height)
            line("publish", (topic, hashlib.sha256(data).digest().hex()))
            message, readings = seal.decode_envelope(data)
            fields = seal.decode(cose.parse(message).payload)
            seal.check_readings(fields, readings)
            cose.check(cose.parse(message), "seal", chain_id, signer.public_key(), p256.verify_digest)
            sent[(duty.point, duty.height)] = message
            published.append(duty)
        elif kind == "Trim":
            store.trim(duty.seq)
            line("trim", duty.seq)
        else:
            line(kind, [value.hex() if isinstance(value, bytes) else value for value in duty])
    for duty in published:
        obey(one.on_published(duty.point, duty.height), label_ms)
    for duty in reads:
        exchanges = []
        if duty.attempts:
            exchanges = bus.poll(port, duty.unit, duty.requests, duty.attempts, 100)
        for exchange in exchanges:
            line("exchange", (exchange.request, exchange.frame.hex(), exchange.reason))
        obey(one.on_words(duty, label_ms + 7, 2, exchanges, label_ms + 9, label_ms), label_ms)


def ack_of(point, height):
    """What a gateway answers: a block with the seal in it, signed by three of four."""
    leaves = [b"meta", sent[(point, height)], b"another"]
    hashes = [merkle.leaf_hash(leaf) for leaf in leaves]
    top = header.encode(header.Header(header.VERSION, header.hash_of(genesis.header_zero(genesis_bytes, "trade")),
                                      merkle.root(leaves), START_MS // 1000 + 400, 0, 1))
    vote = cose.digest(certificate.vote_payload(0, "trade", 1, header.hash_of(top)), "header", chain_id)
    signatures = tuple([by_key[member.public_key].sign_digest(vote) for member in members[:3]])
    voted = certificate.encode(certificate.Certificate(0, "trade", 1, header.hash_of(top), (0, 1, 2), signatures))
    proof = ack.SealProof(point, height, None, 1, 3, merkle.path(hashes, 1))
    return ack.encode(ack.Ack(top, voted, [proof], [], []))


store, one = started()
for minute in range(10):
    label_ms = START_MS + 60000 * minute
    port.poll = minute
    if minute == 1:
        obey(one.on_connected(0), label_ms)
    if minute == 5:
        obey(one.on_disconnected(), label_ms)
    if minute == 7:
        line("flash", hashlib.sha256(flash.data).digest())
        store, one = started(one.light.save())  # a restart: all that counts is in the journal
        obey(one.on_connected(0), label_ms)
    for _ in range(12):
        obey(one.tick(label_ms, label_ms), label_ms)
    if minute == 8:
        newest = max([height for point, height in sent if point == 1])
        obey(one.on_ack(ack_of(1, newest), label_ms // 1000, label_ms), label_ms)
        obey(one.on_ack(ack_of(1, newest)[:-1], label_ms // 1000, label_ms), label_ms)
status = one.status(label_ms)
for name in sorted(status):
    line(name, status[name])
line("erased", flash.erased)
line("flash", hashlib.sha256(flash.data).digest())
