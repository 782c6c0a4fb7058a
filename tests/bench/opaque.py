"""Makes one replica that orders opaque items: real consensus, votes file, peers and driver; no ledger, no meters.

    python -m tests.bench.opaque REPLICA_FOLDER

Answers one JSON line for each line of input: `ready` when all peers are connected; `load RATE SECONDS` submits so many
groups of GROUP items a second here and tells how long each group took to be decided; `cpu`; `stop`.
"""

import asyncio
import hashlib
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

from deploy.clock import SystemClock
from firmware.crypto.openssl import OpenSSLSigner, verify_digest
from firmware.wire import genesis as genesis_codec
from gateway.config import load_gateway
from gateway.connection import tls_contexts
from gateway.consensus.keys import CoseKeys
from gateway.consensus.replica import Replica
from gateway.consensus.types import (
    Behind,
    Certified,
    Check,
    Decision,
    Ended,
    Executed,
    Head,
    Item,
    Now,
    Send,
    Settings,
)
from gateway.driver import Driver
from gateway.ledger.votes import VoteLog
from gateway.transport import CONSENSUS, Mesh, Transport

GROUP = 100  # items submitted together (performance.md, row 7)
ITEM_BYTES = 240  # a signed transaction with a small body
CHANNEL = "trade"
SETTLE_S = 10.0


class Done(NamedTuple):
    n: int
    heads: tuple[Head, ...]
    state_root: bytes
    deadline_s: int | None = None
    is_ending: bool = False


class Rooms:
    """What the driver asks for, where any bytes are good and executing them is one hash."""

    transport: Transport

    def __init__(self, start: Head):
        self.head, self.decisions = start, 0
        self.waiting: dict[bytes, int] = {}  # item: the group it came with
        self.left: dict[int, int] = {}  # group: items that are not decided
        self.submitted_at: dict[int, float] = {}
        self.took_ms: list[float] = []

    def send_all(self, sends: Sequence[Send]) -> None:
        self.transport.send_all(CONSENSUS, sends)

    def judge(self, check: Check) -> str | None:
        return None

    def execute(self, decision: Decision) -> Done:
        """In the ledger's thread, at the moment at which the decision may be acted upon."""
        now, items = time.perf_counter(), decision.batch.items if decision.batch else ()
        for item in items:
            group = self.waiting.pop(item, None)
            if group is not None:
                self.left[group] -= 1
                if not self.left[group]:
                    self.took_ms.append((now - self.submitted_at[group]) * 1000)
        self.decisions += 1
        if decision.batch is None:
            return Done(decision.n, (), self.head.header_hash)
        link = hashlib.sha256(self.head.header_hash + b"".join(items)).digest()
        self.head = Head(CHANNEL, self.head.height + 1, link)
        return Done(decision.n, (self.head,), link)

    def compacted(self) -> None:
        return

    async def end_epoch(self, ended: Ended) -> None:
        raise AssertionError("no set changes here")

    def executed(self, outcome: Any) -> None:
        return

    def certify(self, certified: Certified) -> None:
        return

    def certified(self, certified: Certified) -> None:
        return

    def submitted(self, requests: Sequence[bytes]) -> None:
        return

    async def catch_up(self, behind: Behind) -> Executed | None:
        raise AssertionError("a replica of a measurement fell behind")

    def lost_certificates(self) -> Sequence[Head]:
        return ()


async def run(home: Path) -> None:
    config, clock = load_gateway(home), SystemClock()
    data = config.genesis.read_bytes()
    genesis, chain_id = genesis_codec.decode(data), genesis_codec.chain_id(data)
    signer = OpenSSLSigner.load(config.signing_key)
    index = [member.public_key for member in genesis.members].index(signer.public_key())
    start = Head(CHANNEL, 0, hashlib.sha256(genesis_codec.header_zero(data, CHANNEL)).digest())
    rooms = Rooms(start)
    config.data.mkdir(exist_ok=True)
    votes = VoteLog(config.data / "votes.log")
    now = Now(clock.now_ms(), clock.monotonic_ms())
    replica = Replica(Settings(0, genesis.members, index, chain_id, genesis.parameters),
                      CoseKeys(signer, genesis.members, chain_id, verify_digest),
                      lambda item: hashlib.sha256(item).digest(), Executed(0, start.header_hash, [start]), now=now)
    driver = Driver(replica, votes, rooms, clock, 0)
    mesh = Mesh(index, [member.tls_hash for member in genesis.members], config.peers, genesis.parameters["frame_bytes"])
    transport = rooms.transport = Transport(mesh, tls_contexts(config.tls_cert, config.tls_key, config.ca),
                                            lambda peer, kind, body: driver.receive(cast(bytes, body)))
    driver.at_end = transport.at_end
    await transport.start(config.listen)
    driver.start()
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while (words := (await reader.readline()).split()) and words[0] != b"stop":
        answer: dict[str, Any] = {}
        if words[0] == b"ready":
            while len(transport.connected()) + 1 < len(genesis.members):
                await asyncio.sleep(0.05)
        elif words[0] == b"load":
            answer = await _load(driver, rooms, int(words[1]), float(words[2]))
        answer.update(view=replica.view, cpu_s=time.process_time(), commits=driver.commits, alarms=list(driver.alarms))
        print(json.dumps(answer), flush=True)
        if driver.failed.done():
            driver.failed.result()
    await driver.stop()
    await transport.close()
    votes.close()


async def _load(driver: Driver, rooms: Rooms, rate: int, seconds: float) -> dict[str, Any]:
    """Submits groups at an even pace, never waiting for any, and waits for the end."""
    groups, making_s = [], time.process_time()
    for _ in range(round(rate * seconds)):
        datas = [os.urandom(ITEM_BYTES) for _ in range(GROUP)]
        groups.append([Item(hashlib.sha256(data).digest(), "tx", data, data) for data in datas])
    making_s = time.process_time() - making_s
    before, decisions = len(rooms.took_ms), rooms.decisions
    began = time.perf_counter()
    for number, items in enumerate(groups):
        await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
        group = len(rooms.submitted_at)
        rooms.waiting.update((item.data, group) for item in items)
        rooms.left[group], rooms.submitted_at[group] = len(items), time.perf_counter()
        driver.submit(items)
    end = time.perf_counter() + SETTLE_S
    while len(rooms.took_ms) - before < len(groups) and time.perf_counter() < end:
        await asyncio.sleep(0.005)
    return {"took_ms": rooms.took_ms[before:], "groups": len(groups), "decisions": rooms.decisions - decisions,
            "wall_s": time.perf_counter() - began, "making_s": making_s}


if __name__ == "__main__":
    asyncio.run(run(Path(sys.argv[1])))
