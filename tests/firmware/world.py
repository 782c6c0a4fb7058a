"""Makes what an agent's tests need around it: flash that can lose power, a small honest gateway, time by hand.

The gateway speaks the real formats with real keys: it checks envelopes as strictly as wire.md says, orders them in
blocks, and acks with certificates of q members.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from typing import Any

from firmware import agent as agent_module
from firmware import bus, meters, modbus
from firmware.agent import Agent, Place, Settings
from firmware.crypto.openssl import OpenSSLSigner, verify_digest
from firmware.journal import Journal
from firmware.lightnode import LightNode
from firmware.wire import ack as ack_codec
from firmware.wire import certificate, cose, genesis, header, identity, merkle, seal, topics
from firmware.wire import reading as reading_codec
from tests.firmware.nor import Flash

DAY_MS = 1_767_225_600_000  # 2026-01-01 00:00 UTC
SILENCE_MS = 60_000


class Chain:
    """A genesis of n members and the power to sign for them."""

    def __init__(self, members: int = 4, created_s: int = DAY_MS // 1000 - 3600, **parameters: int) -> None:
        signers = [OpenSSLSigner.from_scalar(hashlib.sha256(b"test member %d" % k).digest()) for k in range(members)]
        signers.sort(key=lambda signer: identity.kid_of(signer.public_key()))
        self.signers = signers
        self.members = [certificate.Member(identity.kid_of(s.public_key()), s.public_key(), bytes(32)) for s in signers]
        self.genesis = genesis.encode(genesis.Genesis(
            ("trade",), created_s, 1, genesis.parameters(parameters), self.members, [], []))
        self.chain_id = genesis.chain_id(self.genesis)
        self.tip = genesis.header_zero(self.genesis, "trade")

    def header(self, leaves: list[bytes], time_s: int, previous: bytes | None = None,
               height: int | None = None) -> bytes:
        tip = header.decode(self.tip)
        return header.encode(header.Header(
            1, header.hash_of(self.tip) if previous is None else previous, merkle.root(leaves), time_s, 0,
            tip.height + 1 if height is None else height))

    def certify(self, header_bytes: bytes, signers: list[int] | None = None, channel: str = "trade", epoch: int = 0,
                chain_id: bytes | None = None) -> bytes:
        height, header_hash = header.decode(header_bytes).height, header.hash_of(header_bytes)
        chosen = list(range(certificate.quorum(len(self.members)))) if signers is None else signers
        digest = cose.digest(certificate.vote_payload(epoch, channel, height, header_hash), "header",
                             chain_id or self.chain_id)
        return certificate.encode(certificate.Certificate(
            epoch, channel, height, header_hash, tuple(chosen),
            tuple(self.signers[k].sign_digest(digest) for k in chosen)))


class Gateway:
    """An honest gateway of one agent: what it has taken is in `readings`; heights of a point are strictly in order."""

    def __init__(self, chain: Chain, public_key: bytes) -> None:
        self.chain = chain
        self.public_key = public_key
        self.readings: dict[tuple[int, int], reading_codec.Reading] = {}
        self.tips: dict[int, tuple[int, bytes]] = {}
        self.payloads: dict[tuple[int, int], bytes] = {}
        self.seals: list[seal.Seal] = []
        self.pending: list[tuple[int, int, bytes]] = []
        self.wanted: dict[int, ack_codec.Wanted] = {}
        self.held: dict[tuple[int, int], tuple[str, bytes]] = {}
        self.doubles = 0

    def take(self, topic: str, data: bytes) -> None:
        area, kid, kind = topics.parse(topic)
        assert kind == "envelope" and area == "home"
        message, readings = seal.decode_envelope(data)
        signed = cose.parse(message)
        assert signed.kid == kid == identity.kid_of(self.public_key)
        cose.check(signed, "seal", self.chain.chain_id, self.public_key, verify_digest)
        found = seal.decode(signed.payload)
        place = (found.point, found.height)
        assert self.payloads.setdefault(place, signed.payload) == signed.payload, f"two payloads for {place}"
        last, previous = self.tips.get(found.point, (0, seal.FIRST_PREVIOUS))
        if found.height <= last:
            self.pending.append((found.point, found.height, cose.normalise(message)))
            return
        if found.height != last + 1 + found.lost:
            self.wanted[found.point] = ack_codec.Wanted(found.point, last + 1, found.height - 1)
            self.held[place] = (topic, data)
            return
        assert found.previous == (bytes(32) if found.lost else previous)
        for item in seal.check_readings(found, readings):
            if (item.point, item.time_ms) in self.readings:
                self.doubles += 1
            self.readings[item.point, item.time_ms] = item
        self.tips[found.point] = (found.height, seal.payload_hash(signed.payload))
        self.seals.append(found)
        self.pending.append((found.point, found.height, cose.normalise(message)))
        self.wanted.pop(found.point, None)
        following = self.held.pop((found.point, found.height + 1), None)
        if following:
            self.take(*following)

    def ack(self, time_s: int) -> bytes:
        """Puts what is pending into a block and returns its ack (advice only, when nothing is)."""
        advice = list(self.wanted.values())
        self.wanted = {}
        if not self.pending:
            return ack_codec.encode(ack_codec.Ack(b"", b"", [], [], advice))
        leaves = [b"meta"] + [leaf for _, _, leaf in self.pending]
        hashes = [merkle.leaf_hash(leaf) for leaf in leaves]
        self.chain.tip = self.chain.header(leaves, time_s)
        proofs = [ack_codec.SealProof(point, height, None, index + 1, len(leaves), merkle.path(hashes, index + 1))
                  for index, (point, height, _) in enumerate(self.pending)]
        self.pending = []
        return ack_codec.encode(ack_codec.Ack(self.chain.tip, self.chain.certify(self.chain.tip), proofs, [], advice))


class Meter:
    """Registers of an SDM120 that depend on time alone, answered through real frames."""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.is_silent = False

    def words(self, address: int, count: int, label_ms: int) -> list[int]:
        minutes = (label_ms - DAY_MS) // 60_000
        values = {12: 500.0 + self.seed, 72: 100 + minutes / 64 + self.seed, 74: self.seed / 8}
        image: list[int] = []
        for at in range(0, 400, 2):
            image += struct.unpack(">HH", struct.pack(">f", values.get(at, 1.0)))
        return image[address:address + count]

    def poll(self, read: Any, label_ms: int) -> list[bus.Exchange]:
        exchanges = []
        for function, address, count in read.requests:
            pdu = modbus.read_registers(function, address, count)
            frame = modbus.frame("rtu", read.unit, pdu)
            if self.is_silent:
                return [bus.Exchange((function, address, count), frame, b"", None, "no_answer")]
            words = self.words(address, count, label_ms)
            answer = bytes((read.unit, function, 2 * count)) + struct.pack(f">{count}H", *words)
            answer += struct.pack("<H", modbus.crc16(answer))
            got = modbus.words_of(pdu, modbus.answer_pdu("rtu", frame, answer))
            exchanges.append(bus.Exchange((function, address, count), frame, answer, got, None))
        return exchanges


class Rig:
    """One agent with its flash, meters and (when `connected`) gateway, moved on by hand."""

    def __init__(self, points: int = 2, flash: Flash | None = None, chain: Chain | None = None, seed: int = 0,
                 **changes: Any) -> None:
        self.flash = flash or Flash()
        self.chain = chain or Chain()
        self.signer = OpenSSLSigner.from_scalar(hashlib.sha256(b"test agent %d" % seed).digest())
        self.kid = identity.kid_of(self.signer.public_key())
        self.gateway = Gateway(self.chain, self.signer.public_key())
        self.meters = {point: Meter(point) for point in range(1, points + 1)}
        places = tuple(Place(point, 0, point, meters.load("sdm120"), 1) for point in self.meters)
        given = {"interval_ms": 60_000, "seal_every_ms": 60_000, "details_ms": 0, "silence_ms": SILENCE_MS,
                 "window": 8, "outbox_limit": 64, **changes}
        self.settings = Settings(self.kid, "home", places, given["interval_ms"], given["seal_every_ms"],
                                 given["details_ms"], given["silence_ms"], given["window"], given["outbox_limit"],
                                 bytes(32), hashlib.sha256(b"configuration").digest())
        self.label_ms = DAY_MS
        self.wait_ms = 0
        self.trust: bytes | None = None
        self.alarms: list[str] = []
        self.progress: list[int] = []
        self.reads: list[Any] = []
        self.changes = 0
        self.sent: list[tuple[int, int]] = []
        self.truth: dict[tuple[int, int], int] = {}
        self.is_dropping = False
        self.is_synchronised = True
        self.on_duty: Callable[[Any], None] = lambda duty: None
        self.boot()

    def boot(self) -> None:
        """Starts the agent anew from its flash, as after a power cut."""
        self.light = LightNode(self.chain.genesis, verify_digest, self.trust)
        self.journal = Journal(self.flash)
        self.agent = Agent(self.settings, self.light, self.journal, self.signer, verify_digest, self.label_ms)
        self.reads = []

    def connect(self, broker: int = 0) -> None:
        self.obey(self.agent.on_connected(broker))

    def turn(self) -> None:
        """One turn of the loop, polls answered at once."""
        self.obey(self.agent.tick(self.label_ms, self.wait_ms))
        while self.reads:
            read = self.reads.pop(0)
            exchanges = self.meters[read.point].poll(read, self.label_ms) if read.attempts else []
            quality = 2 if self.is_synchronised else 0
            self.obey(self.agent.on_words(read, self.label_ms, quality, exchanges, self.label_ms, self.wait_ms))
            self.obey(self.agent.tick(self.label_ms, self.wait_ms))

    def obey(self, duties: list[Any]) -> None:
        for duty in duties:
            self.on_duty(duty)
            if isinstance(duty, agent_module.Append):
                assert self.journal.append(duty.kind, duty.payload) == duty.seq
            elif isinstance(duty, agent_module.Sync):
                self.journal.sync()
            elif isinstance(duty, agent_module.Publish):
                self._publish(duty)
            elif isinstance(duty, agent_module.Read):
                self.reads.append(duty)
            elif isinstance(duty, agent_module.Trim):
                self.journal.trim(duty.seq)
            elif isinstance(duty, agent_module.Alarm):
                self.alarms.append(duty.text)
            elif isinstance(duty, agent_module.Progress):
                self.progress.append(duty.label_ms)
            elif isinstance(duty, agent_module.SaveTrust):
                self.trust = duty.data
            elif isinstance(duty, agent_module.ChangeBroker):
                self.changes += 1

    def minutes(self, count: int, ack_every: int = 0) -> None:
        """Lets that many minutes pass (of label and of wait); the gateway acks every `ack_every` of them."""
        for minute in range(count):
            self.turn()
            if ack_every and minute % ack_every == ack_every - 1:
                self.ack()
            self.label_ms += 60_000
            self.wait_ms += 60_000

    def ack(self) -> None:
        time_s = max(self.label_ms // 1000, header.decode(self.chain.tip).time_s)
        now_s = self.label_ms // 1000 if self.is_synchronised else None
        self.obey(self.agent.on_ack(self.gateway.ack(time_s), now_s, self.wait_ms))
        self.turn()

    def _publish(self, duty: Any) -> None:
        made = self.agent.envelope(duty.point, duty.height)
        if made is None:
            return
        self.sent.append((duty.point, duty.height))
        if not self.is_dropping:
            self.gateway.take(*made)
            self.obey(self.agent.on_published(duty.point, duty.height))
