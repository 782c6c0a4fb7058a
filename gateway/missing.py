"""Makes whole what a replica lacks beside the votes: readings of proposed seals, blocks, readings and certificates.

Peers are asked in turn and none is believed: readings must be those that the seal's hash names, a block must follow
ours and carry its certificate, a certificate must be one of our own header. What is lacking for blocks that are
executed already is noted in a small file, so that it is asked for again after a restart.
"""

import asyncio
import json
import logging
import os
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

from firmware.crypto.openssl import verify_digest
from firmware.wire import certificate as certificate_codec
from firmware.wire import header as header_codec
from firmware.wire.errors import Refused, check
from gateway.consensus.types import Behind, Certified, Head
from gateway.exchange import BLOCKS_ASKED, Exchange
from gateway.ingest import verify
from gateway.ledger import block

logger = logging.getLogger("gridseal.missing")

GRACE_S = 0.02  # an envelope that all brokers carry arrives by itself a moment later
ASK_S = 0.25  # until another peer is asked for readings of a proposal
BLOCK_ASK_S = 1.0  # the same for readings of a block, which nobody waits for
IDLE_S = 5.0  # between two looks for certificates that a power cut lost
CONTRADICTION = "contradiction"  # a reason of the closed list
ROUNDS = 3  # of all holders, before catching up is given up (the replica asks again)
BLOCKS_NOTED = 100_000  # blocks whose readings are lacking: a month without this replica; beyond, `check` finds them


class Keeper(Protocol):
    """The part of ingest that stores what was fetched."""

    async def keep_fetched(self, envelopes: Iterable[bytes], wanted: Iterable[bytes]) -> set[bytes]: ...


class Missing:
    """All that one replica asks its peers for, beside the consensus."""

    def __init__(self, exchange: Exchange, ledger: Any, keeper: Keeper, in_ledger: Callable[..., Awaitable[Any]],
                 connected: Callable[[], Sequence[int]], notes: Path):
        self._exchange, self._ledger, self._keeper, self._in_ledger = exchange, ledger, keeper, in_ledger
        self._connected, self._notes = connected, notes
        self._proposed: dict[bytes, int] = {}  # payload hash: how many checks wait for its readings
        self._committed: set[bytes] = set()  # payload hashes of the block that is being asked for
        self._blocks: OrderedDict[tuple[str, int], None] = OrderedDict()  # whose readings are lacking
        self._arrived, self._has_blocks = asyncio.Event(), asyncio.Event()
        self._turn = 0

    # readings of a proposal

    async def fetch_proposed(self, hashes: Sequence[bytes], lacks: Callable[[], list[bytes]], first: int,
                             wait_s: float) -> bool:
        """Waits, and asks replica `first` and then others, until `lacks` finds none of these readings lacking any more;
        False when they do not come in time."""
        loop = asyncio.get_running_loop()
        end = loop.time() + wait_s
        for payload_hash in hashes:
            self._proposed[payload_hash] = self._proposed.get(payload_hash, 0) + 1
        try:
            pause_s, attempt = GRACE_S, 0
            while lacking := lacks():
                if await self._wait(min(pause_s, end - loop.time())):
                    continue
                if loop.time() >= end:
                    return False
                peers = [first, *(peer for peer in self._connected() if peer != first)]
                self._exchange.ask_envelopes(peers[attempt % len(peers)], lacking)
                pause_s, attempt = ASK_S, attempt + 1
            return True
        finally:
            for payload_hash in hashes:
                self._proposed[payload_hash] -= 1
                if not self._proposed[payload_hash]:
                    del self._proposed[payload_hash]

    async def take(self, envelopes: Sequence[bytes]) -> None:
        """Envelopes that a peer sent: only what was asked for is looked at."""
        try:
            await self._take(envelopes)
        except Refused as refused:  # busy: too much is pending; it is asked for again
            logger.warning("fetched readings not kept: %s", refused)

    async def _take(self, envelopes: Sequence[bytes]) -> None:
        if self._proposed and await self._keeper.keep_fetched(envelopes, list(self._proposed)):
            self._arrived.set()
        if self._committed:
            found = []
            for data in envelopes:
                try:
                    one = verify.check_fetched(data)
                except Refused:
                    continue
                if one.payload_hash in self._committed:
                    found.append(one)
            if found:
                await self._in_ledger(self._ledger.put_envelopes, found)
                self._committed.difference_update(one.payload_hash for one in found)
                self._arrived.set()

    # blocks

    async def fetch_blocks(self, behind: Behind, heads: Sequence[Head]) -> list[tuple[bytes, bytes]] | None:
        """Blocks from our `heads` up to those of `behind`, each checked on arrival; None when no holder gives them.
        A certificate may be lacking: the heads of `behind` are proven, and prove by their links what lies below.

        Refused `contradiction` when a certified block follows another head than ours: then it is ours that is false."""
        pairs: list[tuple[bytes, bytes]] = []
        ours = {head.channel: head for head in heads}
        for target in behind.heads:
            height, previous = ours[target.channel].height, ours[target.channel].header_hash
            failures = 0
            while height < target.height and behind.holders:
                holder = behind.holders[self._turn % len(behind.holders)]
                count = min(BLOCKS_ASKED, target.height - height)
                found = await self._exchange.blocks(holder, target.channel, height + 1, count)
                try:
                    last = await asyncio.to_thread(self._check_blocks, found[:count], target.channel, height, previous,
                                                   ours[target.channel].header_hash)
                except Refused as refused:
                    if refused.reason == CONTRADICTION:
                        raise
                    logger.error("replica %d sent a false block after %s %d: %s", holder, target.channel, height,
                                 refused)
                    found = []
                if not found:
                    self._turn += 1
                    failures += 1
                    if failures >= ROUNDS * len(behind.holders):
                        return None
                    continue
                pairs.extend(found[:count])
                height, previous = last
            if previous != target.header_hash:
                self._turn += 1  # somebody gave blocks without certificates that nobody else has: another next time
                raise Refused("wrong_header", target.header_hash, previous)
        return pairs

    def _check_blocks(self, pairs: Sequence[tuple[bytes, bytes]], channel: str, height: int, previous: bytes,
                      own_hash: bytes) -> tuple[int, bytes]:
        """(height, header hash) of the last; Refused unless each follows, and what certificates there are hold.

        own_hash: of our own newest header; a certified block that should follow it and does not contradicts it."""
        ledger = self._ledger
        for data, certificate in pairs:
            found = block.decode(data)
            fields = header_codec.decode(found.header)
            check(fields.height == height + 1, "wrong_height", height + 1, fields.height)
            if certificate:
                epoch = ledger.epoch_at(channel, fields.height)
                certificate_codec.check_certificate(certificate_codec.decode(certificate), found.header,
                                                    ledger.members_of(epoch), epoch, channel, ledger.chain_id,
                                                    verify_digest)
            is_proof = certificate and previous == own_hash
            check(fields.previous == previous, CONTRADICTION if is_proof else "wrong_parent", previous, fields.previous)
            height, previous = fields.height, header_codec.hash_of(found.header)
        return height, previous

    # readings of blocks

    def lacks(self, channel: str, height: int) -> None:
        """A block was executed without all of its readings."""
        if len(self._blocks) < BLOCKS_NOTED:
            if not self._blocks:
                self._note(channel, height)
            self._blocks[channel, height] = None
            self._has_blocks.set()

    @property
    def blocks_lacking(self) -> int:
        """How many blocks' readings are still to come."""
        return len(self._blocks)

    async def remember(self, top: dict[str, int]) -> None:
        """After a start: looks through the blocks from the note on for readings that are lacking."""
        try:
            noted = json.loads(self._notes.read_text())
        except (OSError, ValueError):
            return
        for channel, first in noted.items() if isinstance(noted, dict) else ():
            for height in range(int(first), top.get(channel, 0) + 1):
                if await self._in_ledger(self._hashes_lacking, channel, height):
                    self.lacks(channel, height)
        if not self._blocks:
            self._notes.unlink(missing_ok=True)

    async def keep_readings(self) -> None:
        """For ever: fetches the readings of blocks, one block at a time."""
        while True:
            if not self._blocks:
                self._has_blocks.clear()
                await self._has_blocks.wait()
            channel, height = next(iter(self._blocks))
            self._committed = set(await self._in_ledger(self._hashes_lacking, channel, height))
            peers = list(self._connected())
            if self._committed and peers:
                self._turn += 1
                self._exchange.ask_readings(peers[self._turn % len(peers)], channel, height)
                while self._committed and await self._wait(BLOCK_ASK_S):
                    pass
            elif self._committed:
                await asyncio.sleep(BLOCK_ASK_S)
            if self._committed:
                self._blocks.move_to_end((channel, height))  # nobody has it just now: the others first
            else:
                del self._blocks[channel, height]
                if not self._blocks:
                    self._notes.unlink(missing_ok=True)

    def _hashes_lacking(self, channel: str, height: int) -> list[bytes]:
        """In the ledger's thread: payload hashes of a block's accepted seals whose readings are not here."""
        found = []
        results = self._ledger.results(channel, height) or ()
        for index in range(1, len(results) + 1):
            one = self._ledger.seal_at(channel, height, index)
            if one is not None and one.readings is None:
                found.append(verify.item_key(one.leaf))
        return found

    def _note(self, channel: str, height: int) -> None:
        """Durable enough: the file outlives the process; a power cut within seconds of it may lose it."""
        temporary = self._notes.with_suffix(".new")
        temporary.write_text(json.dumps({channel: height}))
        os.replace(temporary, self._notes)

    # certificates

    async def keep_certificates(self, channel: str, on_found: Callable[[Certified], None]) -> None:
        """For ever: asks for certificates of our own blocks that got lost."""
        before = -1
        while True:
            await asyncio.sleep(IDLE_S)
            newest = before
            top, heights = await self._in_ledger(lambda: (self._ledger.height(channel),
                                                          self._ledger.uncertified(channel)))
            for height in heights:
                peers = list(self._connected())
                before = top
                if (height > top - 2 and top != newest) or not peers:
                    continue  # the newest ones are on their way
                self._turn += 1
                pairs = await self._exchange.blocks(peers[self._turn % len(peers)], channel, height, 1)
                for data, certificate in pairs[:1]:
                    if not certificate:
                        continue
                    await self._keep_certificate(channel, height, data, certificate, on_found)

    async def _keep_certificate(self, channel: str, height: int, data: bytes, certificate: bytes,
                                on_found: Callable[[Certified], None]) -> None:
        header = await self._in_ledger(self._ledger.header, channel, height)
        try:
            check(block.decode(data).header == header, "wrong_header", header, data[4:84])
            ledger = self._ledger
            epoch = ledger.epoch_at(channel, height)
            certificate_codec.check_certificate(certificate_codec.decode(certificate), header,
                                                ledger.members_of(epoch), epoch, channel, ledger.chain_id,
                                                verify_digest)
        except Refused as refused:
            logger.error("a false certificate for %s %d: %s", channel, height, refused)
            return
        on_found(Certified(channel, height, header_codec.hash_of(header), certificate))

    async def _wait(self, wait_s: float) -> bool:
        """True when something arrived in that time."""
        self._arrived.clear()
        try:
            async with asyncio.timeout(max(wait_s, 0.001)):
                await self._arrived.wait()
        except TimeoutError:
            return False
        return True
