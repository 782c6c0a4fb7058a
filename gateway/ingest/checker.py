"""Makes verdicts on messages and batches in a few threads, 64 at a time: verifying leaves the interpreter's lock.

The threads see the registry through a cache that the loop's thread fills: whoever is not in it comes back, is looked
up, and is checked again. What was verified once is remembered, so that a batch and its execution cost no signature that
this replica has seen before.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Container, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from firmware.wire.errors import Refused
from firmware.wire.seal import Seal
from firmware.wire.state import AgentRecord
from gateway.ingest import verify
from gateway.ingest.verify import OpenedSeal, OpenedTransaction, VerifiedSeal, VerifiedTransaction, VerifyDigest

CHUNK = 64  # messages per task of the pool: chunks of one are slower than no pool (performance.md)
THREADS = 2  # the verifying ones; a Pi has four cores, consensus and ledger want two of them
CACHED_RECORDS = 8192  # kids looked up; unknown ones fill it too, so it is emptied when full
VERIFIED = 65_536  # signatures known to be good: as many items as consensus holds


class Domain(NamedTuple):
    """What signatures and topics are checked against."""

    area: str
    chain_id: bytes
    parameters: Mapping[str, int]  # firmware.wire.genesis.PARAMETERS
    channels: tuple[str, ...] = ("trade",)
    members: Mapping[bytes, AgentRecord] = {}  # replicas by kid: they sign transactions and are in no registry


class Job(NamedTuple):
    """A message to be checked. topic None: from a peer, or from this replica's own interface; who: to be counted when
    it is refused."""

    data: bytes
    topic: str | None
    is_envelope: bool
    who: str


class Known(NamedTuple):
    """A payload that is under way already: not verified again."""

    seal: Seal


class NotCached(Exception):
    """The registry has to be asked about this kid first, in the loop's thread."""

    def __init__(self, kid: bytes):
        super().__init__()
        self.kid = kid


class Cache:
    """What the threads see of the registry."""

    def __init__(self) -> None:
        self.records: dict[bytes, AgentRecord | None] = {}

    def agent(self, kid: bytes) -> AgentRecord | None:
        try:
            return self.records[kid]
        except KeyError:
            raise NotCached(kid) from None


Result = VerifiedSeal | VerifiedTransaction | Known | Refused


class Checker:
    """All methods in the loop's thread but `check_signature`. under_way: payload hashes of seals that are pending."""

    def __init__(self, domain: Domain, look_up: Callable[[bytes], AgentRecord | None], under_way: Container[bytes],
                 verify_digest: VerifyDigest):
        self._domain, self._look_up, self._under_way, self._verify_digest = domain, look_up, under_way, verify_digest
        self._loop = asyncio.get_running_loop()
        self._pool = ThreadPoolExecutor(THREADS, "verify")
        self._cache = Cache()
        self._verified: OrderedDict[bytes, tuple[bytes, bytes]] = OrderedDict()  # payload hash: leaf, public key
        self._running: set[asyncio.Future[Any]] = set()  # chunks that the threads have in hand

    def stop(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def agent(self, kid: bytes) -> AgentRecord | None:
        """The registry's record, from the cache when it is there."""
        records = self._cache.records
        if kid not in records:
            if len(records) >= CACHED_RECORDS:
                self._cache.records = records = {}
            records[kid] = self._domain.members.get(kid) or self._look_up(kid)
        return records[kid]

    def registry_changed(self) -> None:
        self._cache.records = {}

    async def check(self, jobs: Sequence[Job], now_s: int) -> list[Result]:
        """A result for each job, in their order."""
        found: list[Result | NotCached] = []
        for chunk in await asyncio.gather(*(
                self._run(self._check_chunk, jobs[at:at + CHUNK], now_s) for at in range(0, len(jobs), CHUNK))):
            found += chunk
        late = [at for at, result in enumerate(found) if isinstance(result, NotCached)]
        if late:
            for at in late:
                self.agent(found[at].kid)  # type: ignore[union-attr]
            for at, result in zip(late, await self.check([jobs[at] for at in late], now_s), strict=True):
                found[at] = result
        return found  # type: ignore[return-value]  # none of them is NotCached any more

    async def check_batch(self, leaves: Sequence[bytes],
                          has_readings: Callable[[bytes], bool]) -> tuple[str | None, list[bytes]]:
        """(reason why a proposed batch is bad, or None; payload hashes of the seals whose readings are not here)."""
        inspection = self.inspect(leaves, has_readings)
        if not isinstance(inspection, str) and inspection.claims and self._running:
            # brokers bring the same to all at the same moment: what is being verified is not verified twice
            await asyncio.wait(self._running)
            inspection = self.inspect(leaves, has_readings)
        if isinstance(inspection, str):
            return inspection, []
        verdicts = await asyncio.gather(*(
            self._run(self._are_good, inspection.claims[at:at + CHUNK], inspection.claimed[at:at + CHUNK])
            for at in range(0, len(inspection.claims), CHUNK)))
        return (None if all(verdicts) else "bad_signature"), inspection.missing

    def inspect(self, leaves: Sequence[bytes], has_readings: Callable[[bytes], bool]) -> verify.Inspection | str:
        """What a proposed batch still needs, or the reason why it is bad."""
        try:
            for kid in {verify.kid_of(leaf) for leaf in leaves}:
                self.agent(kid)
            return verify.inspect_batch(leaves, self._cache, self._domain.chain_id, self._domain.parameters,
                                        self._is_verified, has_readings)
        except Refused as refused:
            return refused.reason

    def check_signature(self, item: bytes, kind: str, public_key: bytes) -> bool:
        """For execution, in the ledger's thread: True at once where this replica has verified these very bytes."""
        try:
            found, _, payload, signature = verify.read_leaf(item)
        except Refused:
            return False
        if found != kind:
            return False
        if self._verified.get(verify.item_key(item)) == (item, public_key):
            return True
        return self._verify_digest(public_key, verify.digest(payload, kind, self._domain.chain_id), signature)

    def remember(self, payload_hash: bytes, leaf: bytes, kid: bytes) -> None:
        """This leaf's signature is good."""
        agent = self.agent(kid)
        if agent is not None:
            self._note(payload_hash, leaf, agent.public_key)

    def forget(self, payload_hash: bytes) -> None:
        """It is in a block: nobody will ask again."""
        self._verified.pop(payload_hash, None)

    def _is_verified(self, payload_hash: bytes, leaf: bytes) -> bool:
        known = self._verified.get(payload_hash)
        return known is not None and known[0] == leaf

    def _check_chunk(self, jobs: Sequence[Job], now_s: int) -> list[Result | NotCached]:
        """One of the pool's threads."""
        opened = [self._open(job, now_s) for job in jobs]
        results = finish(opened, self._verify_digest)
        for one, result in zip(opened, results, strict=True):
            if isinstance(one, OpenedTransaction) and isinstance(result, VerifiedTransaction):
                self._note(result.payload_hash, result.leaf, one.claim.public_key)
        return results

    def _open(self, job: Job, now_s: int) -> OpenedSeal | OpenedTransaction | Result | NotCached:
        area, chain_id, channels = self._domain.area, self._domain.chain_id, self._domain.channels
        try:
            if not job.is_envelope:
                request = verify.open_transaction(job.topic, job.data, self._cache, chain_id, area, now_s, channels)
                if self._is_verified(request.payload_hash, request.leaf):  # peers hand on what is overdue, all of them
                    return VerifiedTransaction(*request[:4])
                return request
            opened = verify.open_envelope(job.topic, job.data, self._cache, chain_id, area)
            return Known(opened.seal) if opened.payload_hash in self._under_way else opened
        except (Refused, NotCached) as result:
            return result

    def _are_good(self, claims: Sequence[verify.Claim], claimed: Sequence[tuple[bytes, bytes]]) -> bool:
        """One of the pool's threads."""
        for claim, (payload_hash, leaf) in zip(claims, claimed, strict=True):
            if not self._verify_digest(*claim):
                return False
            self._note(payload_hash, leaf, claim.public_key)
        return True

    def _note(self, payload_hash: bytes, leaf: bytes, public_key: bytes) -> None:
        """This leaf's signature is good under this key; any thread."""
        self._verified[payload_hash] = (leaf, public_key)
        if len(self._verified) > VERIFIED:
            self._verified.popitem(last=False)

    def _run(self, work: Callable[..., Any], *arguments: Any) -> "asyncio.Future[Any]":
        """In one of the pool's threads."""
        running = self._loop.run_in_executor(self._pool, work, *arguments)
        self._running.add(running)
        running.add_done_callback(self._running.discard)
        return running


def finish(found: Sequence[Any], verify_digest: VerifyDigest) -> list[Any]:
    """Verifies all that was opened, and leaves the other results as they are. All are opened first: a verification
    drives the interpreter's own data out of the core's caches, which costs some 0.7 us an envelope."""
    results: list[Any] = []
    for one in found:
        try:
            if isinstance(one, OpenedSeal):
                one = verify.finish_envelope(one, verify_digest)
            elif isinstance(one, OpenedTransaction):
                one = verify.finish_transaction(one, verify_digest)
        except Refused as refused:
            one = refused
        results.append(one)
    return results
