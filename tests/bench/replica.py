"""Makes one whole replica, as `gateway run` does, that answers questions about its speed and its disk.

    python -m tests.bench.replica REPLICA_FOLDER [CLOCK_FOLDER]

One JSON line for each line of input: `ready` when all peers are connected, `listen` when the brokers are; `load FILE
RATE SECONDS AT` gives the file's transactions to ingest, GROUP at a time and RATE times a second from the monotonic
time AT on, and tells how long each group took; `io` what the kernel counts as written; `stop` ends in order, and tells
that once more.
"""

import asyncio
import json
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cbor2

from deploy.clock import open_clock
from gateway.config import load_gateway
from gateway.consensus.types import Decision
from gateway.duties import Done, Duties
from gateway.ingest.ingest import Offer
from gateway.node import Node, bytes_written
from tests.bench.opaque import GROUP

SETTLE_S = 10.0


class Watch:
    """When groups of transactions were given to ingest, and by ingest to consensus, and decided."""

    def __init__(self) -> None:
        self._group_of: dict[bytes, int] = {}
        self._left: dict[int, int] = {}
        self._began: dict[int, float] = {}
        self._offered: dict[int, float] = {}
        self.took_ms: list[float] = []
        self.consensus_ms: list[float] = []
        self.decisions = 0

    def begin(self, group: list[bytes]) -> None:
        number = len(self._began)
        self._group_of.update((data, number) for data in group)
        self._left[number], self._began[number] = len(group), time.perf_counter()

    def offered(self, offers: Sequence[Offer]) -> None:
        now = time.perf_counter()
        for offer in offers:
            group = self._group_of.get(offer.data)
            if group is not None:
                self._offered[group] = now

    def decided(self, decision: Decision) -> None:
        """In the ledger's thread, at the moment at which the decision may be acted upon."""
        now = time.perf_counter()
        self.decisions += 1
        for item in decision.batch.items if decision.batch else ():
            group = self._group_of.pop(item, None)
            if group is not None:
                self._left[group] -= 1
                if not self._left[group]:
                    self.took_ms.append((now - self._began[group]) * 1000)
                    self.consensus_ms.append((now - self._offered.get(group, now)) * 1000)


class WatchedDuties(Duties):
    """The node's duties, looked at on their way."""

    watch = Watch()

    def submit(self, offers: Sequence[Offer]) -> None:
        self.watch.offered(offers)
        super().submit(offers)

    def execute(self, decision: Decision) -> Done:
        self.watch.decided(decision)
        return super().execute(decision)


async def run(home: Path, clock_folder: str | None) -> None:
    import gateway.node
    gateway.node.Duties = WatchedDuties  # type: ignore[misc]
    node = Node(load_gateway(home), open_clock(clock_folder))
    await node.start()
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while (words := (await reader.readline()).decode().split()) and words[0] != "stop":
        answer: dict[str, Any] = {}
        if words[0] == "ready":
            while len(node.transport.connected()) + 1 < len(node.ledger.members):
                await asyncio.sleep(0.05)
        elif words[0] == "listen":
            while not all(link.subscribed for link in node.brokers.links):
                await asyncio.sleep(0.05)
        elif words[0] == "load":
            answer = await _load(node, Path(words[1]), int(words[2]), float(words[3]), float(words[4]))
        shown = node.status()
        answer.update(io=written(), **{name: shown[name] for name in ("view", "height", "seals", "refused", "alarms")})
        print(json.dumps(answer), flush=True)
        for failed in (node.driver.failed, node.ingest.failed):
            if failed.done():
                failed.result()
    await node.stop()
    print(json.dumps({"io": {"all": bytes_written()}}), flush=True)


def written() -> dict[str, int]:
    """Bytes that this process has caused to be written, in all and by its threads' names."""
    found = {"all": bytes_written()}
    for thread in threading.enumerate():
        name = thread.name.partition("_")[0]
        found[name] = found.get(name, 0) + bytes_written(Path(f"/proc/self/task/{thread.native_id}/io"))
    return {name: count for name, count in found.items() if count}


async def _load(node: Node, file: Path, rate: int, seconds: float, at: float) -> dict[str, Any]:
    watch, items = WatchedDuties.watch, cbor2.loads(file.read_bytes())
    groups = [items[start:start + GROUP] for start in range(0, len(items), GROUP)][:round(rate * seconds)]
    before, decisions, cpu_s = len(watch.took_ms), watch.decisions, time.process_time()
    for number, group in enumerate(groups):
        await asyncio.sleep(max(0.0, at + number / rate - time.perf_counter()))
        watch.begin(group)
        node.ingest.submitted(group)
    end = time.perf_counter() + SETTLE_S
    while len(watch.took_ms) - before < len(groups) and time.perf_counter() < end:
        await asyncio.sleep(0.005)
    return {"took_ms": watch.took_ms[before:], "consensus_ms": watch.consensus_ms[before:], "groups": len(groups),
            "decisions": watch.decisions - decisions, "wall_s": time.perf_counter() - at,
            "cpu_s": time.process_time() - cpu_s}


if __name__ == "__main__":
    asyncio.run(run(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else None))
