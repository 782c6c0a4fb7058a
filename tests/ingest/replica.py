"""Makes one replica without its PBFT: real ledger, real ingest, real broker; the test says when a block is made."""

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

from firmware.crypto.openssl import OpenSSLSigner, verify_digest
from firmware.wire import ack, certificate, cose, genesis, header, identity, merkle, topics, transaction
from firmware.wire.certificate import Certificate, Member
from gateway.ingest.checker import Domain
from gateway.ingest.ingest import Ingest, Offer, Settings
from gateway.ingest.mqtt import Brokers, Link, Message, TlsFiles
from gateway.ledger.ledger import Ledger
from gateway.ledger.reader import Reader
from tests.ingest.parts import AREA, START_MS, Agent

BOUND_S = 20.0
OPERATOR, MEMBER = 99, 98  # the numbers of their keys


class HandClock:
    """Labels as the test says, waits as they are."""

    speed = 1

    def __init__(self) -> None:
        self.label_ms = START_MS

    def now_ms(self) -> int:
        return self.label_ms

    def monotonic_ms(self) -> int:
        return time.monotonic_ns() // 1_000_000


class Listening(Protocol):
    """A broker that runs."""

    @property
    def url(self) -> str: ...


def make_genesis(agents: Sequence[Agent], operator: Agent, signer: OpenSSLSigner) -> bytes:
    """One replica, an operator, and agents with their points, enrolled from the beginning."""
    members = [Member(identity.kid_of(signer.public_key()), signer.public_key(), bytes(32))]
    rows = []
    for agent, role in [(operator, "operator"), *((agent, "agent") for agent in agents)]:
        asked = transaction.Enrolment(agent.public_key, bytes(32), role, agent.area, "test", "software")
        request = transaction.encode_enrolment(asked, agent.kid, cose.NO_CHAIN, agent.signer.sign_digest)
        points = [] if role == "operator" else [
            transaction.PointEntry(point, agent.area, "trade", 1, 1, bytes(32), "", "", "", None, None)
            for point in agent.points]
        rows.append(transaction.enrol_body(request, operator.kid, points, ""))
    return genesis.encode(genesis.Genesis(("trade",), START_MS // 1000 - 3600, 1, genesis.parameters(), members, rows,
                                          []))


def join(agents: Sequence[Agent]) -> None:
    """Tells agents the chain that `Replica` will make for them, before it is there."""
    data = make_genesis(agents, Agent(OPERATOR), Agent(MEMBER).signer)
    for agent in agents:
        agent.chain = genesis.chain_id(data)


class Replica:
    """`async with Replica(folder, broker, agents)`; `block()` orders what was offered."""

    def __init__(self, folder: Path, broker: Listening, agents: Sequence[Agent], ack_interval_ms: int = 200):
        self.folder, self.broker, self.clock = folder, broker, HandClock()
        self.signer, self.operator = Agent(MEMBER).signer, Agent(OPERATOR)
        self.genesis = make_genesis(agents, self.operator, self.signer)
        self.chain_id = genesis.chain_id(self.genesis)
        self.operator.chain = self.chain_id
        assert all(agent.chain == self.chain_id for agent in agents)
        self.offers: dict[bytes, Offer] = {}
        self.forgotten: list[bytes] = []
        self.ack_interval_ms = ack_interval_ms
        self.tls: TlsFiles | None = None

    async def __aenter__(self) -> "Replica":
        self.pool = ThreadPoolExecutor(1)
        self.folder.mkdir(exist_ok=True)
        self.ledger = await self.in_ledger(lambda: Ledger.open(self.folder, self.genesis))
        self.reader = Reader.open(self.folder)
        domain = Domain(AREA, self.chain_id, genesis.parameters())
        self.ingest = Ingest(Settings(domain, 0, 1, self.ack_interval_ms), self.reader, self.ledger, self.clock,
                             in_ledger=self.in_ledger, submit=self.submit, forget=self.forgotten.extend,
                             evidence=self.folder / "evidence.cbor")
        self.brokers = Brokers([self.broker.url], "gateway", self.ingest.subscriptions(), self.ingest.offer,
                               clock=self.clock, chance=random.Random(5), on_state=self.ingest.broker_changed)
        await self.ingest.start(self.brokers)
        self.brokers.start()
        await until(lambda: self.brokers.links[0].subscribed)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.ingest.stop()
        await asyncio.to_thread(self.brokers.stop)
        await self.in_ledger(self.ledger.close)
        self.reader.close()
        self.pool.shutdown()
        if self.ingest.failed.done():
            self.ingest.failed.result()

    async def in_ledger(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self.pool, function, *arguments)

    def submit(self, offers: Sequence[Offer]) -> None:
        self.offers.update((offer.key, offer) for offer in offers)

    async def block(self, *more: bytes, time_s: int = 0) -> list[int]:
        """A block of everything offered (and `more` leaves), executed and certified: the result codes."""
        items = [offer.data for offer in self.offers.values()] + list(more)
        self.offers.clear()
        n = self.ledger.position()[0] + 1
        batch = ("trade", 0, time_s or self.clock.now_ms() // 1000, items)
        made = await self.in_ledger(self.ledger.execute, n, batch)
        self.ingest.executed("trade", made.height, made.items, made.results)
        vote = cose.digest(certificate.vote_payload(0, "trade", made.height, made.header_hash), "header", self.chain_id)
        proof = certificate.encode(Certificate(0, "trade", made.height, made.header_hash, (0,),
                                               (self.signer.sign_digest(vote),)))
        await self.in_ledger(self.ledger.put_certificate, "trade", made.height, proof)
        self.ingest.certified("trade", made.height)
        return list(made.results)

    def refused(self, agent: Agent | None = None) -> dict[str, int]:
        status = self.ingest.status()
        if agent is None:
            return dict(status["refused"])
        return dict(status["refused_by_agent"].get(agent.kid.hex(), {}))


class Device:
    """An agent's side of the broker: publishes, and keeps the acks and replies that come."""

    def __init__(self, agent: Agent, replica: Replica):
        self.agent, self._replica = agent, replica
        self.inbox: deque[Message] = deque()
        self._brokers = Brokers([replica.broker.url], agent.kid.hex(),
                                [agent.topic("ack"), agent.topic("reply"), f"{topics.PREFIX}/{AREA}/live/+",
                                 topics.chain_header(AREA, "+")],
                                self._take, clock=replica.clock, chance=random.Random(6))

    @property
    def link(self) -> Link:
        return self._brokers.links[0]

    async def __aenter__(self) -> "Device":
        self._brokers.start()
        await until(lambda: self.link.subscribed)
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self._brokers.stop)

    def send(self, data: bytes, kind: str = "envelope", topic: str = "") -> None:
        self._brokers.publish(topic or self.agent.topic(kind), data, newest_only=False)

    def acks(self) -> list[ack.Ack]:
        return [ack.decode(message.payload) for message in self.inbox if message.topic == self.agent.topic("ack")]

    def acked(self, point: int = 7) -> int:
        """The highest height of a point that an ack proves."""
        return max((proof.height for found in self.acks() for proof in found.proofs if proof.point == point), default=0)

    def receipts(self) -> list[ack.Receipt]:
        return [ack.decode_receipt(message.payload) for message in self.inbox
                if message.topic == self.agent.topic("reply")]

    def _take(self, batch: list[Message]) -> None:
        self.inbox.extend(batch)
        self._brokers.done([message.token for message in batch])


async def until(is_so: Callable[[], bool]) -> None:
    """Waits for something that happens in another thread or on the broker, within a bound."""
    limit = time.monotonic() + BOUND_S
    while not is_so():
        assert time.monotonic() < limit, "it did not happen"
        await asyncio.sleep(0.01)


def check_ack(found: ack.Ack, replica: Replica) -> None:
    """What an agent checks before it trims: certificate and inclusion."""
    members = genesis.decode(replica.genesis).members
    certificate.check_certificate(certificate.decode(found.certificate), found.header, members, 0, "trade",
                                  replica.chain_id, verify_digest)
    root = header.decode(found.header).root
    for proof in found.proofs:
        place = replica.reader.seal_at("trade", header.decode(found.header).height, proof.index)
        assert place is not None and place.leaf[-64:] == proof.signature
        assert (place.seal.point, place.seal.height) == (proof.point, proof.height)
        merkle.check_path(merkle.leaf_hash(place.leaf), proof.index, proof.size, proof.path, root)
