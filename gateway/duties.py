"""Makes a replica's duties happen in the other rooms: judged by ingest, executed by the ledger, sent to the peers."""

import logging
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from firmware.wire import certificate as certificate_codec
from firmware.wire import header as header_codec
from firmware.wire.errors import Refused
from gateway.boots import Boots
from gateway.consensus.types import Behind, Certified, Check, Decision, Ended, Executed, Head, Item, Send
from gateway.devices import Devices
from gateway.driver import Driver
from gateway.exchange import Exchange
from gateway.ingest import verify
from gateway.ingest.ingest import Ingest, Offer
from gateway.ledger.ledger import Ledger, Outcome
from gateway.missing import CONTRADICTION, Missing
from gateway.starts import Starts
from gateway.statefetch import Side, StateFetch
from gateway.stores import Stores
from gateway.transport import CONSENSUS, Transport

logger = logging.getLogger("gridseal.node")

ACCEPTED, MARKED = 0, 256  # result codes (contracts)
LACKING = "readings_missing"
SIDE = "transfer.part"  # in the data folder: buckets of a state on its way


class Again(Exception):
    """The ledger stands elsewhere, or another set of validators decides: the replica begins again from its folder."""


class Done(NamedTuple):
    """A decision that is executed."""

    n: int
    heads: tuple[Head, ...]
    state_root: bytes
    deadline_s: int | None
    outcome: Outcome
    is_ending: bool = False  # the state after it names another set


class Duties:
    """See `driver.Rooms`. Whoever makes one brings driver, ingest, transport and devices before the first duty."""

    driver: Driver
    ingest: Ingest
    transport: Transport
    devices: Devices
    starts: Starts

    def __init__(self, ledger: Ledger, stores: Stores, data: Path, boots: Boots, transfer_after: int, epoch: int = 0):
        self._ledger, self._boots, self._transfer_after = ledger, boots, transfer_after
        self.epoch, self._members = epoch, ledger.members_of(epoch)
        self._side = Side(data / SIDE)
        self.exchange = Exchange(self._send_frame, stores, ledger.parameters["frame_bytes"], self._envelopes)
        self.exchange.state_here = lambda n: ledger.snapshots.get(n)
        self._notes = data / "readings.json"
        self.stores = stores

    def join(self, driver: Driver, ingest: Ingest, transport: Transport) -> None:
        """Brings the rooms together."""
        self.driver, self.ingest, self.transport = driver, ingest, transport
        driver.at_end = transport.at_end
        self.missing = Missing(self.exchange, self._ledger, ingest, driver.in_ledger, transport.connected, self._notes)
        self.stores.join(ingest, driver.in_ledger)

    # what driver.Rooms asks for

    def send_all(self, sends: Sequence[Send]) -> None:
        if not self.starts.is_admitted:
            return  # perhaps there is another process with this key: what counts is said again
        self.transport.send_all(CONSENSUS, sends)

    def judge(self, check: Check) -> str | None | Awaitable[str | None]:
        """At once where every item has been seen here, as nearly always: all replicas hear the same brokers."""
        items = check.batch.items
        found = self.ingest.checker.inspect(items, self.ingest.has_readings)
        if isinstance(found, str):
            return found
        if found.claims or found.missing or self.devices.reports.concerns(items):
            return self._judge(check)
        return None if check.batch.channel in self._ledger.channels else "wrong_channel"

    async def _judge(self, check: Check) -> str | None:
        reason, lacking = await self.ingest.check_batch(check.batch.items)
        if reason is None and check.batch.channel not in self._ledger.channels:
            reason = "wrong_channel"
        if reason is None and lacking:
            primary = check.batch.view % len(self._members)
            wait_s = self._ledger.parameters["timeout_ms"] / 1000
            if not await self.missing.fetch_proposed(
                    lacking, lambda: self._not_here(check.batch.items, lacking), primary, wait_s):
                reason = LACKING
        if reason is None:
            reason = await self.devices.reports.check(check.batch.items, check.batch.view % len(self._members))
        return reason

    def execute(self, decision: Decision) -> Done:
        outcome = self._ledger.execute(decision.n, decision.batch)
        heads: tuple[Head, ...] = ()
        if outcome.channel is not None and outcome.height is not None and outcome.header_hash is not None:
            heads = (Head(outcome.channel, outcome.height, outcome.header_hash),)
        return Done(decision.n, heads, outcome.state_root, self._ledger.deadline_s(), outcome,
                    self._ledger.is_ending(self.epoch))

    def executed(self, done: Done) -> None:
        self._tell(done.outcome)

    def compacted(self) -> None:
        self._boots.reach(self._ledger.stand().n)

    def certify(self, certified: Certified) -> None:
        self._ledger.put_certificate(certified.channel, certified.height, certified.certificate)

    def certified(self, certified: Certified) -> None:
        self.ingest.certified(certified.channel, certified.height)

    def submitted(self, requests: Sequence[bytes]) -> None:
        self.ingest.submitted(requests)

    async def catch_up(self, behind: Behind) -> Executed | None:
        stand = self._ledger.stand()
        heights = {channel: height for channel, height, _ in stand.heads}
        lacking = sum(head.height - heights[head.channel] for head in behind.heads)
        logger.warning("behind: at n %d, the others' checkpoint is %d, %d blocks on", stand.n, behind.n, lacking)
        if lacking > self._transfer_after:
            await self._take_state(behind)  # does not come back when it was taken
        try:
            blocks = await self.missing.fetch_blocks(
                behind._replace(holders=self._holders(behind)), [Head(*head) for head in stand.heads])
        except Refused as refused:
            if refused.reason == CONTRADICTION:
                self.driver.stop_voting(f"our own newest block differs from what a quorum has signed: {refused}")
            else:
                logger.error("a replica sent blocks that do not lead to the proven head: %s", refused)
            return None
        if blocks is None:
            logger.error("no replica gives the blocks up to n %d", behind.n)
            return None
        try:
            outcomes = await self.driver.in_ledger(self._ledger.install, behind.n, blocks,
                                                   [tuple(head) for head in behind.heads], behind.state_root)
        except Refused as refused:
            self.driver.stop_voting(f"blocks that lead to the proven head do not come out here: {refused}")
            return None
        lost = {(head.channel, head.height) for head in await self.driver.in_ledger(self.lost_certificates)}
        for outcome in outcomes:
            self._tell(outcome)
            if (outcome.channel, outcome.height) not in lost:
                self.ingest.certified(outcome.channel, outcome.height)
        logger.warning("caught up to n %d with %d blocks", behind.n, len(outcomes))
        stand = self._ledger.stand()
        return Executed(stand.n, stand.state_root, [Head(*head) for head in stand.heads], stand.time_s,
                        self._ledger.deadline_s(), self._ledger.is_ending(self.epoch))

    def _holders(self, behind: Behind) -> list[int]:
        """Who may be asked: those who said that they are there; in an epoch that is over they may be gone, so all."""
        return list(dict.fromkeys([*behind.holders, *self.transport.connected()]))

    async def end_epoch(self, ended: Ended) -> None:
        logger.warning("epoch %d ends with n %d", self.epoch, ended.n)
        await self.driver.in_ledger(self._ledger.prove_epoch, self.epoch + 1, ended.proof)
        raise Again(f"epoch {self.epoch + 1} begins after n {ended.n}")

    async def _take_state(self, behind: Behind) -> None:
        """The state alone, bucket by bucket; the replica then begins again at it. Raises Again."""
        fetching = StateFetch(self.exchange, behind, self._side, self.driver.alarm)
        pairs = await fetching.fetch(self.transport.connected())
        if pairs is None:
            logger.error("no replica gives the state of n %d", behind.n)
            return
        await self.driver.in_ledger(self._ledger.install_state, behind.n, fetching.headers,
                                    [tuple(head) for head in behind.heads], behind.state_root, pairs)
        self._side.drop()
        logger.warning("took over the state of n %d: %d buckets, %d records", behind.n, fetching.fetched, len(pairs))
        raise Again(f"the state of n {behind.n} was taken over")

    # what others bring

    def framed(self, peer: int, kind: int, body: object) -> None:
        """A frame of a peer."""
        if kind != CONSENSUS:
            self.exchange.framed(peer, kind, body)
        elif isinstance(body, bytes):
            if self.starts.is_admitted:
                self.driver.receive(body)
        else:
            self.exchange.refused["malformed"] += 1

    def submit(self, offers: Sequence[Offer]) -> None:
        """Ingest's offers, to be ordered."""
        self.driver.submit([Item(*offer) for offer in offers])

    def check_signature(self, item: bytes, kind: str, public_key: bytes) -> bool:
        """For execution: ingest remembers what it has verified."""
        return self.ingest.checker.check_signature(item, kind, public_key)

    def lost_certificates(self) -> list[Head]:
        """Blocks whose certificate is not here, for `vote_again`; in the ledger's thread."""
        found = []
        for channel in self._ledger.channels:
            for height in self._ledger.uncertified(channel):
                header = self._ledger.header(channel, height)
                assert header is not None, "a height of the ledger's own"
                if self._ledger.epoch_at(channel, height) == self.epoch:
                    found.append(Head(channel, height, header_codec.hash_of(header)))
        return found

    def quorum(self) -> int:
        """How many replicas decide."""
        return certificate_codec.quorum(len(self._members))

    def _not_here(self, leaves: Sequence[bytes], hashes: Sequence[bytes]) -> list[bytes]:
        """Those of the payload hashes whose readings are still lacking. A batch may hold seals that a block has already
        (its primary has not seen that block yet): execution passes over them, nobody needs their readings, and a batch
        is never refused for state."""
        wanted, found = {one for one in hashes if not self.ingest.has_readings(one)}, []
        for leaf in leaves:
            payload_hash = verify.item_key(leaf)
            if payload_hash in wanted:
                fields = verify.seal_of(leaf)
                chain = self.stores.own.chain(fields.kid, fields.point) if fields else None
                if fields is not None and (chain is None or fields.height > chain.height):
                    found.append(payload_hash)
        return found

    def _tell(self, outcome: Outcome) -> None:
        """Ingest and whoever fetches readings hear of a block."""
        if outcome.height is None or outcome.channel is None:
            return
        # blocks that were fetched went past the replica's pool: it must not propose their items again
        self.driver.forget([verify.item_key(leaf) for leaf in outcome.items])
        for leaf, code in zip(outcome.items, outcome.results):
            if (code == ACCEPTED or code >= MARKED) and not self.ingest.has_readings(verify.item_key(leaf)):
                if verify.seal_of(leaf) is not None:
                    self.missing.lacks(outcome.channel, outcome.height)
                    break
        self.ingest.executed(outcome.channel, outcome.height, outcome.items, outcome.results, outcome.header)
        self.stores.executed(outcome)
        self.devices.executed(outcome)

    def _send_frame(self, to: int, kind: int, body: object) -> None:
        self.transport.send(to, kind, body)

    def _envelopes(self, peer: int, envelopes: list[bytes]) -> Any:
        self.driver.spawn(self.missing.take(envelopes), "envelopes")
