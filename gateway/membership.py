"""Makes a replica's seat move on: lets in who is offered one, sends the members' will, follows the others' epochs.

Once a second, beside the consensus. A member reads `peers.json` (seats.py): who is offered a seat there may connect;
once it is level with the members, this one's will is sent, and again until the change is in force. An observer says
how far it is. Everybody asks one peer after the other for proofs of checkpoints that it may have missed: an epoch
that ended while a replica was away is over for it too.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from firmware.crypto.openssl import verify_digest
from firmware.wire import epochs, validators
from firmware.wire.errors import Refused
from gateway.boots import RolledBack
from gateway.driver import Clock, Driver
from gateway.exchange import Exchange
from gateway.ledger.ledger import Ledger
from gateway.member import Member
from gateway.seats import PEERS, Offer, Seat, next_set, offers_of, read_peers
from gateway.starts import YES, Starts
from gateway.transport import GREETED, HELLO, LEVEL, Transport

logger = logging.getLogger("gridseal.membership")

LOOK_S = 1.0
ASK_EVERY, ASK_OBSERVING = 5, 1  # looks between two questions for a proof, of a member and of an observer
PUBLISH_EVERY = 600  # looks: the brokers keep them, but a broker may lose what it keeps
LEVEL_S = 5.0  # an observer that said so longer ago may be behind
WILL_S = 5.0  # between two wills of the same member


class Membership:
    """One replica's; `run` for ever."""

    def __init__(self, home: Path, seat: Seat, ledger: Ledger, member: Member, clock: Clock, listen: str,
                 starts: Starts):
        self._starts = starts
        self._home, self._seat, self._ledger, self._member = home, seat, ledger, member
        self._clock, self._listen = clock, listen
        self._levels: dict[int, float] = {}  # observer's number: when it was level
        self._offers: list[Offer] = []
        self._read_ns = 0
        self._sent_s = -WILL_S
        self._turn = 0

    def join(self, driver: Driver, exchange: Exchange, transport: Transport, replica: Any,
             submit: Callable[[bytes], Awaitable[bytes]], publish: Callable[[int, bytes], None]) -> None:
        """Brings the rooms that are asked and told; publish: an epoch's handover, for light nodes."""
        self._publish = publish
        self._driver, self._exchange, self._transport = driver, exchange, transport
        self._replica, self._submit = replica, submit
        exchange.on_level = self._heard_level
        exchange.on_hello = self._heard_hello
        exchange.on_greeted = self._heard_greeted
        exchange.proof_here = self._proof_here
        exchange.epochs_here = self._handovers

    @property
    def offers(self) -> list[Offer]:
        """Seats that are offered and were never taken: a key that has left does not come back."""
        seated = {row[0] for epoch in self._ledger.epochs for row in epoch.rows}
        return [offer for offer in self._offers
                if offer.member.kid not in seated and next_set(self._seat.members, offer) is not None]

    async def run(self) -> None:
        """For ever."""
        await self._keep_handovers()
        while True:
            if self._turn % PUBLISH_EVERY == 0:
                self._publish_handovers()
            await self._look()
            await asyncio.sleep(LOOK_S)

    async def _look(self) -> None:
        self._turn += 1
        if self._seat.index is not None:
            self._transport.send(None, HELLO, [self._starts.boots, self._starts.nonce, self._ledger.stand().n])
        if self._seat.index is not None:
            self._read_offers()
            for offer in self.offers:
                place = await self._transport.admit(offer.member.tls_hash, self._listen)
                if self._is_level(place):
                    await self._send_will(offer)
        else:  # whether that is level, each member judges by its own stable checkpoint
            self._transport.send(None, LEVEL, [self._replica.last_executed])
        if self._turn % (ASK_OBSERVING if self._seat.index is None else ASK_EVERY) == 0:
            await self._ask()

    # starts

    def _heard_hello(self, peer: int, boots: int, nonce: bytes, n: int) -> None:
        verdict, why = self._starts.hear(peer, boots, nonce, n, asyncio.get_running_loop().time())
        if verdict != YES:
            logger.error("replica %d is not heard: %s", peer, why)
        self._transport.send(peer, GREETED, [nonce, verdict, why])

    def _heard_greeted(self, peer: int, nonce: bytes, verdict: int, why: str) -> None:
        try:
            if self._starts.answered(peer, nonce, verdict, why):
                logger.info("start %d is admitted", self._starts.boots)
        except RolledBack as copied:
            self._driver.fail(copied)

    def _read_offers(self) -> None:
        try:
            changed_ns = (self._home / PEERS).stat().st_mtime_ns
        except FileNotFoundError:
            return
        if changed_ns != self._read_ns:
            self._read_ns = changed_ns
            self._offers = offers_of(read_peers(self._home), self._ledger.chain_id)

    def _heard_level(self, peer: int, n: int) -> None:
        if n >= self._replica.low:
            self._levels[peer] = asyncio.get_running_loop().time()

    def _is_level(self, place: int) -> bool:
        now_s = asyncio.get_running_loop().time()
        return now_s - self._levels.get(place, -LEVEL_S) < LEVEL_S and now_s - self._sent_s >= WILL_S

    async def _send_will(self, offer: Offer) -> None:
        """This member's part of a change: the others' operators have to want the same."""
        wanted = next_set(self._seat.members, offer)
        if wanted is None or self._ledger.is_ending(self._seat.epoch):
            return
        self._sent_s = asyncio.get_running_loop().time()
        body = validators.encode_body(wanted, [offer.request])
        try:
            await self._submit(self._member.sign(validators.CHANGE, body, self._clock.now_ms() // 1000))
            logger.warning("will sent: a seat for %s", offer.member.kid.hex())
        except Refused as refused:
            logger.error("the will for %s is not taken: %s", offer.member.kid.hex(), refused)

    # epochs

    async def _ask(self) -> None:
        """One peer, for a checkpoint of our epoch that we may have missed."""
        peers = self._transport.connected()
        if not peers:
            return
        peer = peers[self._turn % len(peers)]
        low = self._replica.low if self._seat.index is not None or self._replica.stable_proof else 0
        for message in await self._exchange.proof(peer, self._seat.epoch, low):
            self._driver.receive(b"p" + message)
        await self._keep_handovers(peer)

    def _publish_handovers(self) -> None:
        """All of them: a light node may have slept through several epochs."""
        for epoch in self._ledger.epochs[1:]:
            if epoch.handover:
                self._publish(epoch.number, epoch.handover)

    def _proof_here(self, epoch: int, n: int) -> tuple[bytes, ...]:
        """For a peer: what ended its epoch, or our newest checkpoint above its n."""
        if epoch < self._seat.epoch:
            return self._ledger.epochs[epoch + 1].proof
        if self._driver.is_waiting_for_disk:
            return ()  # our own CHECKPOINT may be among what is not written: it is asked for again
        proof: tuple[bytes, ...] = self._replica.stable_proof
        return proof if epoch == self._seat.epoch and self._replica.low > n else ()

    def _handovers(self, first: int) -> list[bytes]:
        found = []
        for epoch in self._ledger.epochs[max(first, 1):]:
            if not epoch.handover:
                break
            found.append(epoch.handover)
        return found

    async def _keep_handovers(self, peer: int | None = None) -> None:
        """From our own blocks, or where those are not here, from a peer."""
        lacking = [epoch.number for epoch in self._ledger.epochs[1:] if not epoch.handover]
        if not lacking:
            return
        await self._driver.in_ledger(self._ledger.keep_handovers)
        self._publish_handovers()
        if peer is None or self._ledger.epochs[lacking[0]].handover:
            return
        for data in (await self._exchange.epochs(peer, lacking[0]))[:1]:
            try:
                top, _ = epochs.check_handover(
                    epochs.decode(data), self._ledger.members_of(lacking[0] - 1), lacking[0] - 1,
                    self._ledger.channels, self._ledger.chain_id, verify_digest)
            except Refused as refused:
                logger.error("replica %d gave a false handover: %s", peer, refused)
                return
            logger.info("handover of epoch %d in block %d, from replica %d", lacking[0], top.height, peer)
            await self._driver.in_ledger(self._ledger.put_handover, lacking[0], data)
