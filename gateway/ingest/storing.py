"""Makes few durable writes of many small batches: what is to be written waits a little for more where little comes."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from gateway.ingest.mqtt import Token
from gateway.ingest.sides import Offer
from gateway.ingest.verify import VerifiedSeal

WAITING = 4  # batches checked and not yet written; more would only use memory
# A write of one envelope costs as many bytes on the disk as one of five: where few arrive, a write waits for more.
# Seals wait 30 s for their block anyway. Real time; where labels run faster, by so much less.
LINGER_S = 0.3
LINGER_SEALS = 64  # so many are worth a write at once


class Batch(NamedTuple):
    """What is to be made durable, and what follows."""

    seals: list[VerifiedSeal]
    tokens: list[Token]
    offers: list[Offer]

    @property
    def size(self) -> int:
        return len(self.seals) + len(self.tokens) + len(self.offers)

    @property
    def is_patient(self) -> bool:
        """Tells whether it may wait: new seals alone. A transaction may not, nor seals that are durable already."""
        return bool(self.seals) and all(offer.kind == "seal" for offer in self.offers)


class Storing:
    """What waits for the ledger; all methods in the loop's thread. `write` makes batches durable, in their order."""

    def __init__(self, write: Callable[[Sequence[Batch]], Awaitable[None]], speed: int):
        self._write, self._linger_s = write, LINGER_S / speed
        self._waiting: deque[Batch] = deque()
        self._is_urgent = False
        self._news, self._room = asyncio.Event(), asyncio.Event()

    def put(self, batch: Batch) -> None:
        """Takes a batch; small ones become one."""
        if not any(batch):
            return
        last = self._waiting[-1] if self._waiting else None
        if last is not None and last.size + batch.size <= LINGER_SEALS:
            last.seals.extend(batch.seals)
            last.tokens.extend(batch.tokens)
            last.offers.extend(batch.offers)
        else:
            self._waiting.append(batch)
        self._is_urgent = self._is_urgent or not batch.is_patient
        self._news.set()

    async def has_room(self) -> None:
        """Returns when not too much waits."""
        while len(self._waiting) > WAITING:
            self._room.clear()
            await self._room.wait()

    async def run(self) -> None:
        """Writes all that waits at once, for ever."""
        while True:
            await self._news.wait()
            self._news.clear()
            if self._waiting:
                await self._linger()
            while self._waiting:  # behind a write nobody waits: what has come meanwhile is more than a few
                batches = list(self._waiting)
                self._waiting.clear()
                self._is_urgent = False
                self._room.set()
                await self._write(batches)

    async def _linger(self) -> None:
        """Waits for more seals, unless there are many or something urgent waits behind them: all that came before that
        goes along, so that nothing is offered before its write."""
        loop = asyncio.get_running_loop()
        end_s = loop.time() + self._linger_s
        while not self._is_urgent and sum(len(batch.seals) for batch in self._waiting) < LINGER_SEALS:
            left_s = end_s - loop.time()
            if left_s <= 0:
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await self._news.wait()
            self._news.clear()
