"""Makes agents with real keys, their readings, seals and envelopes, and a registry of them; for the tests of ingest."""

import hashlib
from typing import Any

from firmware.crypto.openssl import OpenSSLSigner
from firmware.wire import cose, identity, merkle, reading, seal, state, topics, transaction
from firmware.wire.seal import Seal

AREA = "home"
CHAIN = hashlib.sha256(b"a chain of these tests").digest()
START_MS = 1_800_000_000_000


class Agent:
    """A device with a key (from a number, so that runs repeat) and some points; makes what it would publish."""

    def __init__(self, number: int = 1, points: tuple[int, ...] = (7,), area: str = AREA):
        self.signer = OpenSSLSigner.from_scalar(number.to_bytes(32, "big"))
        self.public_key = self.signer.public_key()
        self.kid = identity.kid_of(self.public_key)
        self.points, self.area = points, area
        self.chain = CHAIN
        self.tips: dict[int, tuple[int, bytes]] = {}

    def record(self, **changes: Any) -> state.AgentRecord:
        made = state.AgentRecord(self.public_key, "agent", self.area, "test", "software", bytes(32), self.kid,
                                 list(self.points), 1, None, None)
        return made._replace(**changes)

    def topic(self, kind: str = "envelope") -> str:
        return topics.agent_topic(self.area, self.kid, kind)

    def reading(self, point: int, time_ms: int, import_wh: int = 1000, power_w: int = 230) -> bytes:
        entries = (reading.Entry("1.8.0", "Wh", import_wh, None), reading.Entry("2.8.0", "Wh", 0, None),
                   reading.Entry("16.7.0", "W", power_w, None))
        return reading.encode(reading.Reading(self.kid, point, time_ms, entries, 2, hashlib.sha256(b"frames").digest()))

    def seal(self, point: int, height: int, previous: bytes, readings: list[bytes], **changes: Any) -> Seal:
        first, last = reading.decode(readings[0]).time_ms, reading.decode(readings[-1]).time_ms
        made = Seal(1, self.kid, point, 1, height, 0, previous, merkle.root(readings), len(readings), first, last,
                    1000 + height, 0, 1, 2, bytes(32), bytes(32))
        return made._replace(**changes)

    def sign(self, payload: bytes, kind: str = "seal") -> bytes:
        return cose.sign1(payload, self.kid, kind, self.chain, self.signer.sign_digest)

    def envelope(self, made: Seal, readings: list[bytes]) -> bytes:
        return seal.encode_envelope(self.sign(seal.encode(made)), readings)

    def next(self, point: int = 7, count: int = 1, time_ms: int | None = None, **changes: Any) -> bytes:
        """The envelope of this point's next height, its first reading of that minute where no time is given."""
        height, previous = self.tips.get(point, (0, bytes(32)))
        lost = changes.get("lost", 0)
        height += 1 + lost
        first_ms = START_MS + height * 60_000 if time_ms is None else time_ms
        times = [first_ms + 1000 * at for at in range(count)]
        readings = [self.reading(point, time_ms) for time_ms in times]
        made = self.seal(point, height, bytes(32) if lost else previous, readings, **changes)
        self.tips[point] = (height, seal.payload_hash(seal.encode(made)))
        return self.envelope(made, readings)

    def transaction(self, kind: int = 2, sequence: int = 1, valid_until_s: int = 2_000_000_000,
                    **changes: Any) -> bytes:
        made = transaction.Transaction(1, kind, self.kid, sequence, valid_until_s, "trade", [bytes(8), "lost"])
        return self.sign(transaction.encode(made._replace(**changes)), "tx")


class Registry:
    """The committed state, by hand."""

    def __init__(self, *agents: Agent):
        self.records = {agent.kid: agent.record() for agent in agents}

    def agent(self, kid: bytes) -> state.AgentRecord | None:
        return self.records.get(kid)


def raise_s(message: bytes) -> bytes:
    """The same message with the other half's s, which verifies as well."""
    s = int.from_bytes(message[-32:], "big")
    return message[:-32] + (cose.ORDER - s).to_bytes(32, "big")
