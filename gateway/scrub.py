"""Makes sure that what is on the disk still is what was written: reads every record in turn, and mends what is damaged.

Cards and disks forget bytes that nobody reads. A pass goes through all tables, a few hundred records at a time, from a
reader of its own; a record that its checksum betrays is named, made again by the ledger (repair.py), with a peer's
block where that is needed, and said to people either way. What cannot be made again stays refused, never guessed.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, NamedTuple, Protocol, TypeVar

from firmware.wire.errors import Refused
from gateway.ledger import repair
from gateway.ledger.damage import Damaged
from gateway.ledger.ledger import Ledger
from gateway.ledger.reader import Reader
from gateway.ledger.store import NAMED, NUMBERED, Key

logger = logging.getLogger("gridseal.scrub")

T = TypeVar("T")

SLICE = 256  # records read at a time
PAUSE_S = 0.2  # between two slices: a million records take a quarter of an hour, and nobody notices
ROUNDS = 2  # of all peers, before a record has to wait for the next pass
KEPT = 16  # newest words for people


class Asked(Protocol):
    """As `stores.ReaderThread`."""

    async def ask(self, question: Callable[[Reader], T]) -> T: ...


class Slice(NamedTuple):
    """What was read: how many records, from where to go on (None: the table is through), and what was damaged."""

    records: int
    onward: Key | None
    damaged: Damaged | None


class Scrub:
    """All methods in the loop's thread. blocks(peer, channel, height, 1): as `Exchange.blocks`."""

    def __init__(self, reader: Asked, ledger: Ledger, in_ledger: Callable[..., Awaitable[Any]],
                 blocks: Callable[[int, str, int, int], Awaitable[list[tuple[bytes, bytes]]]],
                 connected: Callable[[], Iterable[int]], lacks: Callable[[str, int], None],
                 alarm: Callable[[str], None]):
        self._reader, self._ledger, self._in_ledger = reader, ledger, in_ledger
        self._blocks, self._connected, self._lacks, self._alarm = blocks, connected, lacks, alarm
        self.passes = self.records = self.repaired = 0
        self.damaged: dict[str, str] = {}  # place of what could not be made again: why
        self.told: deque[str] = deque(maxlen=KEPT)

    def status(self) -> dict[str, Any]:
        return {"passes": self.passes, "records": self.records, "repaired": self.repaired,
                "damaged": sorted(self.damaged), "told": list(self.told)}

    async def run(self, every_s: float, pause_s: float = PAUSE_S) -> None:
        """For ever: a pass, and a rest of `every_s`."""
        while True:
            await asyncio.sleep(every_s)
            self.damaged.clear()
            for table in (*NUMBERED, *NAMED):
                await self._pass(table, pause_s)
            self.passes += 1

    async def _pass(self, table: str, pause_s: float) -> None:
        onward: Key | None = None
        while True:
            found = await self._reader.ask(lambda reader: read_slice(reader, table, onward))  # noqa: B023
            self.records += found.records
            if found.damaged is not None:
                await self._mend(found.damaged)
            if found.onward is None:
                return
            onward = found.onward
            await asyncio.sleep(pause_s)

    async def _mend(self, damaged: Damaged) -> None:
        logger.error("%s", damaged)
        try:
            how = await self._repair(damaged.table, damaged.key) if damaged.key is not None else ""
        except Refused as refused:  # another record that the way back needs is damaged, too
            how, why = "", str(refused)
        else:
            why = "nobody here can make it again"
        if how:
            self.repaired += 1
            self._tell(f"{damaged.where}: damaged on the disk, made again from {how}")
        else:
            self.damaged[damaged.where] = why
            self._tell(f"{damaged.where}: damaged on the disk, and not made again: {why}")

    async def _repair(self, table: str, key: Key) -> str:
        """From where it was made again; "" where it was not."""
        place = await self._in_ledger(repair.block_of, self._ledger, table, key)
        if place is None:
            return "what is here" if await self._in_ledger(repair.from_here, self._ledger, table, key) else ""
        channel, height = place
        for peer in [peer for _ in range(ROUNDS) for peer in self._connected()]:
            for data, certificate in (await self._blocks(peer, channel, height, 1))[:1]:
                try:
                    await self._in_ledger(self._with_block, table, key, channel, height, data, certificate)
                except Refused as refused:
                    logger.error("replica %d's block %s %d is of no use: %s", peer, channel, height, refused)
                    continue
                if table == "envelopes":
                    self._lacks(channel, height)
                return f"replica {peer}"
        return ""

    def _with_block(self, table: str, key: Key, channel: str, height: int, data: bytes, certificate: bytes) -> None:
        """In the ledger's thread."""
        if table == "certificates":
            repair.certificate(self._ledger, channel, height, certificate)
        elif table == "envelopes":
            assert isinstance(key, int)
            repair.leaves(self._ledger, channel, height, key, data)
        else:
            repair.whole_block(self._ledger, channel, height, data)

    def _tell(self, text: str) -> None:
        self.told.append(text)
        self._alarm(text)


def read_slice(reader: Reader, table: str, first: Key | None) -> Slice:
    """The next records of a table from a key on, as far as they are whole."""
    count = 0
    try:
        for key, _ in reader.store.scan(table, first):
            count += 1
            if count == SLICE:
                return Slice(count, _behind(key), None)
    except Damaged as damaged:
        # without a key it is the file itself: the rest of this table cannot be read
        return Slice(count, None if damaged.key is None else _behind(damaged.key), damaged)
    return Slice(count, None, None)


def _behind(key: Key) -> Key:
    """The next key there can be."""
    return key + 1 if isinstance(key, int) else key + b"\0"
