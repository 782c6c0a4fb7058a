"""Makes answers from the ledger for peers, pages and checks, beside the thread in which it executes.

A `Reader` is a database connection of its own; each has one thread. What is in no block yet lies with the ledger's own
thread, and is asked there.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from firmware.wire import ack
from firmware.wire import reading as reading_codec
from firmware.wire.errors import Refused
from gateway.api import views
from gateway.ingest import verify
from gateway.ingest.ingest import Ingest
from gateway.ledger.ledger import Ledger, Outcome
from gateway.ledger.proofs import prove_items
from gateway.ledger.reader import Reader
from gateway.market import records
from gateway.market import views as market_views

T = TypeVar("T")

ACCEPTED, MARKED = 0, 256  # result codes (contracts)
REFRESHED = 64  # points whose newest reading is looked up for one status; the rest comes with the next


class ReaderThread:
    """A reader and the thread that uses it."""

    def __init__(self, folder: Path, name: str):
        self._pool = ThreadPoolExecutor(1, name)
        self._reader = Reader.open(folder)

    async def ask(self, question: Callable[[Reader], T]) -> T:
        """Runs a question in the thread, on a ledger that stands still meanwhile."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._answer, question)

    def _answer(self, question: Callable[[Reader], T]) -> T:
        with self._reader.reading():
            return question(self._reader)

    def close(self) -> None:
        """Waits for the question under way."""
        self._pool.shutdown()
        self._reader.close()


class Stores:
    """The questions of peers (`exchange.Store`) and pages (part of `api.app.Source`)."""

    ingest: Ingest
    in_ledger: Callable[..., Awaitable[Any]]

    def __init__(self, ledger: Ledger, folder: Path):
        self._ledger = ledger
        self.own = Reader.open(folder)  # for the loop's thread: single records
        self._peers, self._pages = ReaderThread(folder, "peers"), ReaderThread(folder, "pages")
        self._points: dict[int, views.Point] = {}
        self._changed: dict[int, tuple[str, int, int]] = {}  # point: place of its newest seal, not looked up yet
        for data in self.own.newest_readings().values():
            self._show(reading_codec.decode(data))

    def join(self, ingest: Ingest, in_ledger: Callable[..., Awaitable[Any]]) -> None:
        """Who is asked for what is in no block yet."""
        self.ingest, self.in_ledger = ingest, in_ledger

    def close(self) -> None:
        """Ends the threads."""
        self._peers.close()
        self._pages.close()
        self.own.close()

    # for peers

    async def blocks(self, channel: str, first: int, count: int, max_bytes: int) -> list[tuple[bytes, bytes]]:
        if channel not in self._ledger.channels:
            return []
        return await self._peers.ask(lambda reader: reader.blocks(channel, first, count, max_bytes))

    async def envelopes_in(self, channel: str, height: int) -> list[bytes]:
        if channel not in self._ledger.channels:
            return []
        found = await self._peers.ask(lambda reader: reader.envelopes_in(channel, height))
        return [envelope for envelope in found if envelope is not None]

    async def pending_envelopes(self, hashes: Sequence[bytes]) -> list[bytes]:
        here = [one for one in hashes if self.ingest.has_readings(one)]
        if not here:
            return []
        found = await self.in_ledger(lambda: [self._ledger.envelope_of(one) for one in here])
        return [envelope for envelope in found if envelope is not None]

    # for pages

    async def block(self, channel: str, height: int) -> dict[str, Any] | None:
        return None if channel not in self._ledger.channels else await self._pages.ask(
            lambda reader: _block(reader, channel, height))

    async def transaction(self, payload_hash: bytes) -> dict[str, Any] | None:
        return await self._pages.ask(lambda reader: _transaction(reader, payload_hash))

    async def market(self, slot_s: int | None) -> dict[str, Any] | None:
        return await self._pages.ask(lambda reader: market_views.market(
            reader.state_value, reader.height(), reader.parameters["slot_s"], slot_s))

    async def settlement(self, slot_s: int | None) -> dict[str, Any] | None:
        return await self._pages.ask(lambda reader: market_views.settlement(
            reader.state_value, reader.height(), reader.parameters["slot_s"], _accounts(reader), slot_s))

    async def accounts(self) -> dict[str, Any]:
        return await self._pages.ask(lambda reader: market_views.accounts(
            reader.state_value, reader.height(), _accounts(reader)))

    async def of_state(self, question: Callable[[Callable[[bytes], bytes | None]], T]) -> T:
        """What a question about the newest block's state comes to."""
        return await self._pages.ask(lambda reader: question(reader.state_value))

    def executed(self, outcome: Outcome) -> None:
        """Notes where the newest reading of each point stands."""
        if outcome.channel is None or outcome.height is None:
            return
        for index, (leaf, code) in enumerate(zip(outcome.items, outcome.results), 1):
            found = verify.seal_of(leaf) if code == ACCEPTED or code >= MARKED else None
            if found is not None:
                self._changed[found.point] = (outcome.channel, outcome.height, index)

    def points(self) -> list[views.Point]:
        """The newest committed reading of every point."""
        for point in list(self._changed)[:REFRESHED]:
            found = self.own.seal_at(*self._changed.pop(point))
            if found is not None and found.readings:
                self._show(reading_codec.decode(found.readings[-1]), found.seal.height)
        return list(self._points.values())

    def _show(self, taken: reading_codec.Reading, height: int = 0) -> None:
        if not height:
            record = self.own.chain(taken.kid, taken.point)
            height = record.height if record else 0
        known = self._points.get(taken.point)
        if known is None or known.time_ms <= taken.time_ms:
            self._points[taken.point] = views.point_of(taken, height)


def _accounts(reader: Reader) -> Iterator[bytes]:
    return (data for _, data in reader.state_with(records.ACCOUNT))


def _block(reader: Reader, channel: str, height: int) -> dict[str, Any] | None:
    whole = reader.whole(channel, height)
    return None if whole is None else views.block(whole.header, whole.meta, whole.leaves, whole.results,
                                                  reader.certificate(channel, height))


def _transaction(reader: Reader, payload_hash: bytes) -> dict[str, Any] | None:
    place = reader.transaction_place(payload_hash) or reader.place_of(payload_hash)
    if place is None:
        return None
    channel, height, index = place
    whole = reader.whole(channel, height)
    assert whole is not None, "a place of the ledger's own"
    shown = {"channel": channel, "block": height, **views.item(whole.leaves[index - 1], whole.results[index - 1])}
    try:
        proof = prove_items(reader, channel, height, [index])
    except Refused:
        return {**shown, "certified": False}
    item = proof.items[0]
    receipt = ack.Receipt(proof.header, proof.certificate, proof.meta, proof.meta_path, proof.results, [
        ack.ItemProof(payload_hash, item.leaf[-64:], index, item.size, item.path)])
    return {**shown, "certified": True, "receipt": ack.encode_receipt(receipt).hex(),
            "inclusion": views.inclusion(item.leaf, index, item.size, item.path)}


