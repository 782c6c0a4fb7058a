"""Makes evidence and certified files available by their hash: from the ledger's shelf, a folder, or peers.

Peers are asked in turn; nobody is believed, since the hash says whether it is what was asked for.
"""

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Sequence
from pathlib import Path
from typing import Any

from gateway.exchange import Exchange
from gateway.ledger.files import Files

logger = logging.getLogger("gridseal.devices")

ASK_S = 0.25  # until another peer is asked
FOLDER = "certified"  # beside gateway.toml: what a laboratory hands over, one stored preimage a file
FOLDER_FILES = 1024
FILE_BYTES = 1 << 20


class Shelf:
    """All methods in the loop's thread."""

    def __init__(self, files: Files, exchange: Exchange, in_ledger: Callable[..., Awaitable[Any]],
                 connected: Callable[[], Sequence[int]], spawn: Callable[[Coroutine[Any, Any, None], str], None]):
        self._files, self._exchange, self._in_ledger = files, exchange, in_ledger
        self._connected, self._spawn = connected, spawn
        self._wanted: dict[bytes, int] = {}  # hash: how many wait for it
        self._arrived = asyncio.Event()
        exchange.on_files, exchange.files_here = self._take, self.here

    def has(self, name: bytes) -> bool:
        return name in self._files

    async def keep(self, datas: Iterable[bytes]) -> list[bytes]:
        """Makes these durable; returns their hashes."""
        return await self._in_ledger(self._files.put, list(datas))

    async def get(self, name: bytes) -> bytes | None:
        return await self._in_ledger(self._files.get, name) if name in self._files else None

    async def here(self, names: Sequence[bytes]) -> list[bytes]:
        """Those of the files that are here; for peers."""
        found = await self._in_ledger(lambda: [self._files.get(name) for name in names if name in self._files])
        return [data for data in found if data is not None]

    async def fetch(self, names: Collection[bytes], first: int | None, wait_s: float) -> bool:
        """Waits, and asks replica `first` and then others, until all are here; False when they do not come in time."""
        loop = asyncio.get_running_loop()
        end, attempt = loop.time() + wait_s, 0
        for name in names:
            self._wanted[name] = self._wanted.get(name, 0) + 1
        try:
            while lacking := [name for name in names if name not in self._files]:
                peers = list(self._connected())
                if first in peers:
                    peers = [first, *(peer for peer in peers if peer != first)]
                if loop.time() >= end:
                    return False
                if peers:
                    self._exchange.ask_files(peers[attempt % len(peers)], lacking)
                attempt += 1
                self._arrived.clear()
                try:
                    async with asyncio.timeout(min(ASK_S, max(end - loop.time(), 0.001))):
                        await self._arrived.wait()
                except TimeoutError:
                    continue
            return True
        finally:
            for name in names:
                self._wanted[name] -= 1
                if not self._wanted[name]:
                    del self._wanted[name]

    async def take_folder(self, folder: Path, named: Collection[bytes]) -> int:
        """Keeps what lies in a folder and is named; returns how many were new."""
        lacking = [name for name in named if name not in self._files]
        found = await asyncio.to_thread(_read_folder, folder, frozenset(lacking)) if lacking else []
        if found:
            await self.keep(found)
            logger.info("%d certified files taken from %s", len(found), folder)
        return len(found)

    def _take(self, peer: int, datas: list[bytes]) -> None:
        """Files that a peer sent: only what was asked for is kept."""
        good = [data for data in datas if hashlib.sha256(data).digest() in self._wanted]
        if good:
            self._spawn(self._keep_fetched(good), "files")

    async def _keep_fetched(self, datas: list[bytes]) -> None:
        await self.keep(datas)
        self._arrived.set()


def _read_folder(folder: Path, wanted: Collection[bytes]) -> list[bytes]:
    found = []
    try:
        paths = sorted(folder.iterdir())[:FOLDER_FILES]
    except OSError:
        return []  # nothing was handed over yet
    for path in paths:
        try:
            data = path.read_bytes() if path.stat().st_size <= FILE_BYTES else b""
        except OSError as error:
            logger.warning("%s cannot be read: %s", path, error.strerror)
            continue
        if hashlib.sha256(data).digest() in wanted:
            found.append(data)
    return found
