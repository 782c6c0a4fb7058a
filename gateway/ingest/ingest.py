"""Makes items to be ordered from what brokers and peers bring: checked, put in order, durable, then acknowledged.

The way of a message, all in the loop's thread but where said:

    offer (a broker's thread) -> inbox -> route by topic -> check (threads, 64 at a time: verifying leaves the
    interpreter's lock) -> chains: next, held, known, fork -> put_envelopes (the ledger's thread, one synchronised write
    for all that waits) -> PUBACK to the broker, offers to consensus

Checking the next messages overlaps with writing the last ones. What blocks hold comes back by `executed` and
`certified`, and the desk answers the agents. A message never stops the others: it is counted and forgotten.
"""

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from firmware.crypto import openssl
from firmware.wire import topics
from firmware.wire.errors import Refused
from firmware.wire.reasons import REASONS
from firmware.wire.seal import Seal, encode_envelope
from firmware.wire.state import PointRecord
from gateway.ingest import verify
from gateway.ingest.answers import make_answer
from gateway.ingest.chains import Chains, Moved, Verdict
from gateway.ingest.checker import Checker, Domain, Job, Known, Result
from gateway.ingest.counters import (
    PEERS,
    UNKNOWN,
    Evidence,
    Flagged,
    Refusals,
    Taken,
    decode_evidence,
    encode_evidence,
    is_accepted,
)
from gateway.ingest.desk import Desk, SealEntry, TransactionEntry
from gateway.ingest.evidence import EvidenceFile
from gateway.ingest.mqtt import BATCH_MESSAGES, Message, Token
from gateway.ingest.pulse import Pulse
from gateway.ingest.router import Router
from gateway.ingest.sides import Clock, Offer, Post, Registry, Store
from gateway.ingest.storing import Batch, Storing
from gateway.ingest.verify import VerifiedSeal, VerifiedTransaction, VerifyDigest
from gateway.ingest.witnesses import Witnesses
from gateway.ingest.witnesses import encode_evidence as encode_foreign

logger = logging.getLogger("gridseal.ingest")
_new = tuple.__new__  # a named tuple without the call between

PEER_REQUESTS = 4096  # submitted by peers and not yet looked at; they are sent again
REFUSED_IN_BLOCKS = 4096  # payloads that a block refused: not ordered again while the registry stays as it is
TRANSACTIONS = 4096  # under way
DUTIES = 16  # answers made in one visit to the ledger's thread: some milliseconds
FOREIGN = "witness-evidence.cbor"  # headers that light nodes were shown and that are not ours


class Settings(NamedTuple):
    """What is fixed for one replica."""

    domain: Domain
    replica: int  # its index
    replicas: int
    ack_interval_ms: int = 10_000


class _Checking(NamedTuple):
    """What the checking threads have in hand."""

    tokens: list[Token]
    jobs: list[Job]
    results: "asyncio.Task[list[Result]]"


class Ingest:
    """All methods in the loop's thread but `offer`, `broker_changed` and `checker.check_signature`.

    in_ledger(function, *arguments) runs a function in the ledger's thread; submit takes offers, forget keys that need
    no ordering any more. evidence: a file that outlives the process.
    """

    def __init__(self, settings: Settings, registry: Registry, ledger: Store, clock: Clock, *,
                 in_ledger: Callable[..., Awaitable[Any]], submit: Callable[[Sequence[Offer]], None],
                 forget: Callable[[Sequence[bytes]], None], verify_digest: VerifyDigest = openssl.verify_digest,
                 evidence: Path | None = None, alarm: Callable[[str], None] = logger.error):
        self._domain, self._registry, self._ledger, self._clock = settings.domain, registry, ledger, clock
        self._in_ledger, self._submit, self._forget = in_ledger, submit, forget
        self._evidence = EvidenceFile(evidence)
        self._foreign = EvidenceFile(evidence and evidence.with_name(FOREIGN))
        self._alarm = alarm
        self._loop = asyncio.get_running_loop()
        self._post: Post | None = None
        self._inbox: deque[Message] = deque()
        self._requests: deque[bytes] = deque(maxlen=PEER_REQUESTS)
        self._news, self._pulse = asyncio.Event(), Pulse()
        self._storing = Storing(self._store, clock.speed)
        self._points: dict[int, PointRecord | None] = {}
        self.chains = Chains(registry.chain, self._hash_at)
        self.checker = Checker(settings.domain, registry.agent, self.chains.pending_hashes, verify_digest)
        self.desk = Desk(settings.replica, settings.replicas, settings.ack_interval_ms)
        self._durable: set[bytes] = set()  # payload hashes whose readings are here, not yet in a block
        self._transactions: OrderedDict[bytes, None] = OrderedDict()
        self._refused_in_blocks: OrderedDict[bytes, str] = OrderedDict()
        self.refusals, self.flagged, self.taken = Refusals(), Flagged(), Taken()
        channel = settings.domain.channels[0]
        self.witnesses = Witnesses(
            settings.domain, self.checker.agent, lambda height: registry.header(channel, height),
            lambda height, kid: registry.witness(channel, height, kid) is not None,
            lambda: registry.light_nodes(settings.domain.area), verify_digest, self._keep_foreign)
        self._router = Router(settings.domain, self.desk, self.refusals, self.checker.agent, self.witnesses.take)
        self.certified_height = self.replays = 0
        self._tasks: list[asyncio.Task[None]] = []
        self.failed: asyncio.Future[None] = self._loop.create_future()
        # Whoever has to look at what a transaction speaks of holds it, and brings it again by `submitted`, or never.
        self.hold: Callable[[VerifiedTransaction], bool] = lambda found: False

    # Life.

    def subscriptions(self) -> list[str]:
        """What a replica listens to: all of its agents (also kinds that nobody knows, to count them), and what the
        other replicas publish."""
        area = self._domain.area
        return [f"{topics.PREFIX}/{area}/+/+", topics.chain_header(area, "+")]

    async def start(self, post: Post) -> None:
        """Takes up what was pending when the process ended, and begins to work."""
        self._post = post
        for found in decode_evidence(self._evidence.read()):
            self.flagged.add(found)
        self.witnesses.begin(*self._registry.newest_witnessed(self._domain.channels[0]), self._foreign.read())
        pending = iter(await self._in_ledger(self._ledger.pending_envelopes))
        while some := await self._in_ledger(lambda: list(islice(pending, BATCH_MESSAGES))):
            for found in some:
                self._durable.add(found.payload_hash)
                self._put_in_order(VerifiedSeal(*found), PEERS, batch := Batch([], [], []))
                self._submit(batch.offers)
        for work, name in ((self._check_all(), "check"), (self._storing.run(), "store"),
                           (self._answer_all(), "answer")):
            task = self._loop.create_task(work, name=f"ingest {name}")
            task.add_done_callback(self._ended)
            self._tasks.append(task)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.checker.stop()

    # What comes in.

    def offer(self, batch: list[Message]) -> None:
        """A broker's messages; any thread. How many may wait is bounded by the link (`mqtt.UNDONE_MESSAGES`)."""
        self._loop.call_soon_threadsafe(self._arrive, batch)

    def broker_changed(self, number: int, is_connected: bool) -> None:
        """A broker is back or gone; any thread."""
        if is_connected:
            self._loop.call_soon_threadsafe(self.desk.outage_over)

    def submitted(self, requests: Sequence[bytes]) -> None:
        """Envelopes and transactions that peers hand on: they take the same way."""
        self._requests.extend(requests)
        self._news.set()

    async def submit_transaction(self, data: bytes) -> bytes:
        """A transaction from this replica's own interface: its payload hash, or Refused."""
        found = (await self.checker.check([Job(data, None, False, UNKNOWN)], self._now_s()))[0]
        if isinstance(found, VerifiedTransaction):
            offers: list[Offer] = []
            self._take_transaction(found, data, offers)
            self._submit(offers)
            return found.payload_hash
        assert isinstance(found, Refused)
        self.refusals.count(UNKNOWN, found.reason)
        raise found

    def on_alarm(self, take: Callable[[str, bytes], None]) -> None:
        """Who hears of the alarms that replicas publish: take(name, payload)."""
        self._router.seen_alarm = take

    # What consensus asks.

    async def check_batch(self, leaves: Sequence[bytes]) -> tuple[str | None, list[bytes]]:
        """(reason why a proposed batch is bad, or None; payload hashes of the seals whose readings are not here)."""
        return await self.checker.check_batch(leaves, self.has_readings)

    def has_readings(self, payload_hash: bytes) -> bool:
        """Are the readings of a seal that is in no block yet durable here?"""
        return payload_hash in self._durable

    async def keep_fetched(self, envelopes: Iterable[bytes], wanted: Iterable[bytes]) -> set[bytes]:
        """Makes the readings durable that peers sent for `wanted` payload hashes; returns those that were good."""
        good, hashes = [], set(wanted)
        for data in envelopes:
            try:
                found = verify.check_fetched(data)
            except Refused as refused:
                self.refusals.count(PEERS, refused.reason)
                continue
            if found.payload_hash in hashes:
                good.append(found)
        if good:
            await self._in_ledger(self._ledger.put_envelopes, good)
            self._durable.update(found.payload_hash for found in good if not self._is_in_block(found.seal))
        return {found.payload_hash for found in good}

    # What blocks say.

    def executed(self, channel: str, height: int, leaves: Sequence[bytes], results: Sequence[int],
                 header: bytes | None = None) -> None:
        """A block was executed here, in order of heights; also when it was caught up with."""
        seals, transactions, batch = [], [], Batch([], [], [])
        for index, (leaf, code) in enumerate(zip(leaves, results, strict=True), 1):
            key = verify.item_key(leaf)
            self.checker.forget(key)
            self._durable.discard(key)
            try:
                found, sender = verify.seal_of(leaf), verify.read_leaf(leaf)[1]
            except Refused:
                continue  # a block may hold anything that a dishonest primary got through; it has its code
            if found is None:
                self._transactions.pop(key, None)
                transactions.append(TransactionEntry(sender, key, index))
                if code == 0 and verify.may_change_registry(leaf):
                    self._registry_changed()
            elif is_accepted(code):
                seals.append(SealEntry(found.kid, found.point, found.height, index))
                self.taken.count(found, code)
                self._follow(self.chains.committed(found.kid, found.point, found.height, key), batch)
            elif self.chains.committed_hash(found.kid, found.point, found.height) == key:
                self.replays += 1  # proposed again although it is committed: the agent has done nothing wrong
            else:
                self._refused_by_block(found, key, REASONS[code] if code < len(REASONS) else "not_accepted", batch)
        if channel == self._domain.channels[0]:
            header = header or self._registry.header(channel, height)
            is_candidate = header is not None and self.witnesses.is_candidate(height, header)
            self.desk.executed(height, seals, transactions, is_candidate)
            for kid, refused in self.witnesses.executed(height, header) if header is not None else ():
                self.refusals.count(kid.hex(), refused.reason)
        self._storing.put(batch)

    def certified(self, channel: str, height: int) -> None:
        """The certificate of a block is stored here."""
        if channel == self._domain.channels[0]:
            self.certified_height = max(self.certified_height, height)
            self.desk.certified(height, self._clock.monotonic_ms())
            self._pulse.soon()  # senders wait for their receipts

    def status(self) -> dict[str, Any]:
        """Counters, safe to show."""
        (pending, held), taken = self.chains.counts(), self.taken
        return {"readings": taken.readings, "seals": taken.seals, "newest_ms": taken.newest_ms,
                "refused": dict(self.refusals.by_reason),
                "refused_by_agent": {who: dict(counts) for who, counts in self.refusals.by_agent.items()},
                "marked": dict(taken.marked), "replays": self.replays, "flagged": self.flagged.kids(),
                "pending": pending, "held": held, "unanswered": self.desk.waiting(),
                "witnesses": self.witnesses.count()._asdict(),
                "inbox": len(self._inbox) + len(self._requests),
                "brokers": self._post.status() if self._post else []}

    # Checking.

    def _arrive(self, batch: list[Message]) -> None:
        self._inbox.extend(batch)
        self._news.set()

    async def _check_all(self) -> None:
        """One batch is with the checking threads while the one before is put in order."""
        ahead: _Checking | None = None
        while True:
            if self._inbox or self._requests:
                begun = self._begin()
                if ahead is not None:
                    await self._finish(ahead)
                ahead = begun
            elif ahead is not None:
                await self._finish(ahead)
                ahead = None
            else:
                self._news.clear()
                await self._news.wait()

    def _begin(self) -> _Checking:
        messages = [self._inbox.popleft() for _ in range(min(len(self._inbox), BATCH_MESSAGES))]
        now_ms = self._clock.monotonic_ms()
        jobs = [job for message in messages if (job := self._router.route(message, now_ms)) is not None]
        requests = [self._requests.popleft() for _ in range(min(len(self._requests), BATCH_MESSAGES))]
        jobs += [Job(data, None, data[:1] == b"\x82", PEERS) for data in requests]
        results = self._loop.create_task(self.checker.check(jobs, self._now_s()))
        return _Checking([message.token for message in messages], jobs, results)

    async def _finish(self, checking: _Checking) -> None:
        batch = Batch([], checking.tokens, [])
        results = await checking.results
        with self._registry.reading():
            for job, result in zip(checking.jobs, results, strict=True):
                self._take(job, result, batch)
        self._storing.put(batch)
        await self._storing.has_room()

    # Placing.

    def _take(self, job: Job, result: Result, batch: Batch) -> None:
        if isinstance(result, VerifiedSeal):
            self._put_in_order(result, job.who, batch)
        elif isinstance(result, VerifiedTransaction):
            self._take_transaction(result, job.data, batch.offers)
        elif isinstance(result, Known):
            self.replays += 1
        else:
            assert isinstance(result, Refused)
            self.refusals.count(job.who, result.reason)

    def _put_in_order(self, found: VerifiedSeal, who: str, batch: Batch) -> None:
        seal = found.seal
        try:
            self._check_point(found)
        except Refused as refused:
            self._refuse(who, seal, refused.reason)
            return
        placed = self.chains.place(found)
        if placed.verdict is Verdict.COMMITTED:
            self._ack_again(seal)
        elif placed.verdict is Verdict.PENDING:
            self.replays += 1
        elif placed.refusal is not None:
            self._refuse(who, seal, placed.refusal.reason)
            if placed.refusal.reason == "fork":
                self._keep_evidence(Evidence(seal.kid, seal.point, seal.height, placed.refusal.expected, found.leaf))
        else:
            batch.seals.append(found)
            self.checker.remember(found.payload_hash, found.leaf, seal.kid)
        self._offer(placed.ready, batch)
        if placed.turned_away:
            self._follow(Moved((), (), placed.turned_away), batch)
        if placed.wanted is not None or self.desk.is_wanted(seal.kid, seal.point):
            self.desk.want(seal.kid, seal.point, placed.wanted, self._clock.monotonic_ms())

    def _check_point(self, found: VerifiedSeal) -> None:
        """What execution would refuse is not worth ordering; the registry may change, so nothing is held against it."""
        seal = found.seal
        if found.payload_hash in self._refused_in_blocks:
            raise Refused(self._refused_in_blocks[found.payload_hash], None, found.payload_hash)
        point = self._points.get(seal.point)
        if point is None and seal.point not in self._points:
            point = self._points[seal.point] = self._registry.point(seal.point)
        if point is None:
            raise Refused("unknown_point", None, seal.point)
        if point.agent != seal.kid:
            raise Refused("not_its_point", point.agent, seal.kid)
        if point.channel not in self._domain.channels:
            raise Refused("wrong_channel", self._domain.channels, point.channel)
        if point.meter_epoch < seal.meter_epoch:  # one of the meter before may have been on its way
            raise Refused("wrong_meter_epoch", point.meter_epoch, seal.meter_epoch)

    def _offer(self, ready: Sequence[VerifiedSeal], batch: Batch) -> None:
        for leaf, _, payload_hash, seal, readings, envelope in ready:
            request = envelope or encode_envelope(leaf, readings)
            batch.offers.append(_new(Offer, (payload_hash, "seal", leaf, request, seal.kid)))

    def _follow(self, moved: Moved, batch: Batch) -> None:
        """Offers what is in order now and gives up what can never be."""
        self._offer(moved.ready, batch)
        for found, refused in moved.turned_away:
            self._refuse(found.seal.kid.hex(), found.seal, refused.reason)
        if moved.given_up:
            self._forget(moved.given_up)

    def _take_transaction(self, found: VerifiedTransaction, data: bytes, offers: list[Offer]) -> None:
        """Under way already: nothing; in a block: its receipt again; else it is offered. It is not made durable: its
        sender repeats it until it has the receipt."""
        key, sender = found.payload_hash, found.transaction.sender
        if key in self._transactions:
            self.replays += 1
            return
        place = self._registry.transaction_place(key)
        if place is not None:
            self.replays += 1
            self.desk.receipt_again(place[1], TransactionEntry(sender, key, place[2]), self._clock.monotonic_ms())
            return
        if len(self._transactions) >= TRANSACTIONS:
            self.refusals.count(sender.hex(), "busy")
            return
        if self.hold(found):
            return
        self._transactions[key] = None
        self.checker.remember(key, found.leaf, sender)
        offers.append(Offer(key, "tx", found.leaf, found.leaf, sender))

    def _ack_again(self, seal: Seal) -> None:
        """The newest committed seal of its chain is acked again, and with it this one."""
        self.replays += 1
        if self.desk.is_due(seal.kid, seal.point):
            return
        record = self._registry.chain(seal.kid, seal.point)
        place = self._registry.seal_place(seal.kid, seal.point, record.height) if record else None
        if record is not None and place is not None and place[0] <= self.certified_height:
            entry = SealEntry(seal.kid, seal.point, record.height, place[1])
            self.desk.again(place[0], entry, self._clock.monotonic_ms())

    def _refuse(self, who: str, seal: Seal, reason: str) -> None:
        """Its signature held, so the agent itself is told."""
        self.refusals.count(seal.kid.hex() if who == PEERS else who, reason)
        self.desk.refuse(seal.kid, seal.point, seal.height, reason, self._clock.monotonic_ms())

    def _keep_evidence(self, found: Evidence) -> None:
        if self.flagged.add(found):
            logger.error("agent %s signed two seals for height %d of point %d; the first stands", found.kid.hex(),
                         found.height, found.point)
            self._evidence.append(encode_evidence(found))

    def _keep_foreign(self, message: bytes, text: str) -> None:
        self._alarm(text)
        self._foreign.append(encode_foreign(message))

    # Storing.

    async def _keep_witnesses(self) -> None:
        """Makes the light nodes' signatures durable that were checked by now; then they count."""
        signatures = self.witnesses.fetch()
        if signatures:
            await self._in_ledger(self._ledger.put_witnesses, signatures)
            self.witnesses.stored(signatures)
            self.desk.recounted()

    async def _store(self, batches: Sequence[Batch]) -> None:
        """Makes batches durable, then acknowledges and offers what is in them."""
        await self._keep_witnesses()
        seals = [found for batch in batches for found in batch.seals]
        if seals:
            try:
                await self._in_ledger(self._ledger.put_envelopes, seals)
                self._durable.update(found.payload_hash for found in seals if not self._is_in_block(found.seal))
            except Refused as refused:  # busy: too much is pending; the agents, not acked, send it again
                for found in seals:
                    self._refuse(found.seal.kid.hex(), found.seal, refused.reason)
                    self.chains.forget(found)
        if self._post is not None:
            self._post.done([token for batch in batches for token in batch.tokens])
        # Some may be lost, and while the disk was busy a block may have taken others: those need no ordering any more.
        offers = [offer for batch in batches for offer in batch.offers
                  if offer.key in self.chains.pending_hashes or offer.key in self._transactions]
        if offers:
            self._submit(offers)

    # Blocks.

    def _refused_by_block(self, seal: Seal, key: bytes, reason: str, batch: Batch) -> None:
        self._refuse(seal.kid.hex() if self.checker.agent(seal.kid) else UNKNOWN, seal, reason)
        self._refused_in_blocks[key] = reason
        if len(self._refused_in_blocks) > REFUSED_IN_BLOCKS:
            self._refused_in_blocks.popitem(last=False)
        self._follow(self.chains.dropped(seal.kid, seal.point, seal.height, key), batch)

    def _registry_changed(self) -> None:
        self.checker.registry_changed()
        self._points.clear()
        self._refused_in_blocks.clear()

    # Answering.

    async def _answer_all(self) -> None:
        while True:
            await self._pulse.turn()
            await self._keep_witnesses()  # those whose block came after them
            is_heard = self._post is not None and self._post.is_heard  # else what is due waits: nobody would get it
            duties = self.desk.tick(self._clock.monotonic_ms()) if is_heard else []
            for at in range(0, len(duties), DUTIES):
                some = duties[at:at + DUTIES]
                count = self.witnesses.count()
                for answer in await self._in_ledger(lambda some=some, count=count: [
                        make_answer(duty, self._ledger, self._domain.area, self._domain.channels[0], count)
                        for duty in some]):
                    if answer is not None and self._post is not None:
                        self._post.publish(answer.topic, answer.payload, retain=answer.is_retained,
                                           newest_only=answer.newest_only)

    # Small things.

    def _is_in_block(self, seal: Seal) -> bool:
        return self.chains.is_committed(seal.kid, seal.point, seal.height)

    def _now_s(self) -> int:
        return self._clock.now_ms() // 1000

    def _hash_at(self, kid: bytes, point: int, height: int) -> bytes | None:
        """The payload hash of a committed seal, None where its height was declared lost."""
        place = self._registry.seal_place(kid, point, height)
        found = self._registry.seal_at(self._domain.channels[0], *place) if place else None
        return verify.item_key(found.leaf) if found is not None else None

    def _ended(self, task: "asyncio.Task[None]") -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None and not self.failed.done():
            self.failed.set_exception(error)
