"""Makes the pairs of a proven checkpoint's state from what peers give, over a side file that outlives the process.

All peers are asked at once, each one question at a time; one that lies is named and banned (`transfer.Transfer`), one
that is silent costs its own share of the time. What came is in the side file before it counts, and the state is built
from that file alone: what is taken over is what the disk has.
"""

import asyncio
import logging
import os
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

from firmware.wire.errors import Refused
from gateway.consensus.types import Behind
from gateway.exchange import Exchange
from gateway.ledger.snapshot import check_headers
from gateway.transfer import Transfer, leaf_of

logger = logging.getLogger("gridseal.statefetch")

SILENT = 3  # questions in a row without an answer: that peer is left out
PAUSE_S = 0.05  # while others have all that is left
SIDE_BYTES = 1 << 30  # a state of some millions of records; a larger file is of nobody's making here
_LENGTH = struct.Struct(">I")


class Side:
    """Buckets on disk, each behind its length; a torn end is cut by whoever reads."""

    def __init__(self, path: Path):
        self._path = path

    def load(self) -> dict[bytes, bytes]:
        """The buckets by their leaf hash, whatever state they are of; what is no bucket harms nobody."""
        if not self._path.exists() or self._path.stat().st_size > SIDE_BYTES:
            self.drop()
            return {}
        data, at = self._path.read_bytes(), 0
        found: dict[bytes, bytes] = {}
        while at + _LENGTH.size <= len(data):
            end = at + _LENGTH.size + _LENGTH.unpack_from(data, at)[0]
            if end > len(data):
                break
            bucket = data[at + _LENGTH.size:end]
            found[leaf_of(bucket)] = bucket
            at = end
        if at < len(data):
            os.truncate(self._path, at)
        return found

    def append(self, buckets: Sequence[bytes], is_last: bool = False) -> None:
        """Writes; the last one makes all durable."""
        with open(self._path, "ab") as file:
            file.write(b"".join(_LENGTH.pack(len(bucket)) + bucket for bucket in buckets))
            if is_last:
                file.flush()
                os.fsync(file.fileno())

    def drop(self) -> None:
        """It is in the ledger now."""
        self._path.unlink(missing_ok=True)


class StateFetch:
    """One checkpoint's state on its way over an exchange."""

    def __init__(self, exchange: Exchange, behind: Behind, side: Side, alarm: Callable[[str], None]):
        self._exchange, self._behind, self._side, self._alarm = exchange, behind, side, alarm
        self.headers: list[tuple[str, bytes]] = []
        self._transfer: Transfer

    async def fetch(self, peers: Sequence[int]) -> list[tuple[bytes, bytes]] | None:
        """All pairs, `headers` beside them; None when the peers do not give them."""
        known = await asyncio.to_thread(self._side.load)
        self._transfer = Transfer(self._behind.state_root, peers, known)
        await asyncio.gather(*(self._ask_all(peer) for peer in peers))
        for peer, reason in self._transfer.banned.items():
            self._alarm(f"replica {peer} gave a false state of n {self._behind.n}: {reason}")
        if not self._transfer.is_complete or not self.headers:
            return None
        await asyncio.to_thread(self._side.append, [], True)
        stored = await asyncio.to_thread(self._side.load)
        for index, data in self._transfer.pieces.items():
            if leaf_of(data) not in stored:
                logger.error("bucket %d is not in the side file", index)
                return None
        return await asyncio.to_thread(self._transfer.pairs)

    @property
    def fetched(self) -> int:
        """Buckets here by now."""
        return len(self._transfer.pieces)

    async def _ask_all(self, peer: int) -> None:
        """Everything that one peer is asked."""
        transfer, n, silent = self._transfer, self._behind.n, 0
        if not await self._ask_leaves(peer):
            return
        while not transfer.is_complete and peer not in transfer.banned and silent < SILENT:
            wanted = transfer.ask(peer)
            if not wanted:
                await asyncio.sleep(PAUSE_S)
                continue
            rows = await self._exchange.buckets(peer, n, wanted)
            if not rows:
                transfer.give_up(peer)
                silent += 1
                continue
            silent = 0
            good = transfer.take_buckets(peer, rows)
            await asyncio.to_thread(self._side.append, good)

    async def _ask_leaves(self, peer: int) -> bool:
        """Whether a peer has this state at all."""
        found = await self._exchange.state(peer, self._behind.n)
        if found is None or not found[0]:
            return False
        leaves, headers = found
        try:
            check_headers(headers, self._behind.heads)
        except Refused as refused:
            self._transfer.ban(peer, refused.reason)
            return False
        self._transfer.take_leaves(peer, leaves)
        if peer in self._transfer.banned:
            return False
        self.headers = headers
        return True
