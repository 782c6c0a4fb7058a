"""Makes the figure of a decision's time: n processes on loopback over TLS, votes durable before sending.

    python -m tests.node.latency [--replicas 4] [--items 100] [--rate 100] [--seconds 5] [--json]

Each process has the real Replica, driver, votes file and transport; items are opaque bytes (nothing to verify) and
execution is a hash, so that what is measured is agreement alone (performance.md row 7). The time runs at the primary
from offering a batch's items to the decision; beside it stands the disk's own fsync, taken in the same run.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from deploy import provision
from deploy.clock import SystemClock
from firmware.crypto.openssl import OpenSSLSigner, verify_digest
from firmware.wire import genesis
from gateway.connection import tls_contexts
from gateway.consensus.keys import CoseKeys
from gateway.consensus.replica import Replica
from gateway.consensus.types import Behind, Certified, Check, Decision, Executed, Head, Item, Now, Settings
from gateway.driver import Driver
from gateway.ledger.votes import VoteLog
from gateway.node import SWITCH_S
from gateway.transport import CONSENSUS, Mesh, Transport

ITEM_BYTES = 250  # a seal's message has some 330, an order 200
WARM_UP = 50  # decisions that do not count: connections, caches, the interpreter's own
FSYNCS = 100
SETTLE_S = 30.0


class Result(NamedTuple):
    """Times in ms. fsync: of the disk alone, median of FSYNCS; late: decisions that were offered behind time."""

    decisions: int
    p50_ms: float
    p99_ms: float
    fsync_ms: float
    rate: float
    cpu_s: float  # of all processes together
    seconds: float


class Done(NamedTuple):
    n: int
    heads: tuple[Head, ...]
    state_root: bytes


class Opaque:
    """Rooms of a replica whose items mean nothing: every batch is good, the state is a hash of all batches."""

    def __init__(self) -> None:
        self.transport: Transport
        self.driver: Driver
        self.decided: dict[bytes, float] = {}  # an item's key: when
        self._state, self._height = bytes(32), 0

    def send(self, to: int | None, data: bytes) -> None:
        self.transport.send(to, CONSENSUS, data)

    async def judge(self, check: Check) -> str | None:
        return None

    def execute(self, decision: Decision) -> Done:
        now = time.perf_counter()
        if decision.batch is None:
            return Done(decision.n, (), self._state)
        self._height += 1
        for leaf in decision.batch.items:
            self.decided[leaf[:32]] = now
            self._state = sha256(self._state + leaf).digest()
        return Done(decision.n, (Head("trade", self._height, sha256(self._state).digest()),), self._state)

    def executed(self, outcome: Done) -> None:
        pass

    def compacted(self) -> None:
        pass

    def certify(self, certified: Certified) -> None:
        pass

    def certified(self, certified: Certified) -> None:
        pass

    def submitted(self, requests: Sequence[bytes]) -> None:
        pass

    async def catch_up(self, behind: Behind) -> Executed | None:
        return None


def measure(replicas: int = 4, items: int = 100, rate: float = 100, seconds: float = 5) -> Result:
    """Runs the processes and returns what the primary saw."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "area"
        provision.make_area(folder, provision.Plan("bench", replicas, 1, int(time.time()), free_ports=True,
                                                   plain_broker=True))
        command = [sys.executable, "-m", "tests.node.latency", "--child", str(folder), "--items", str(items),
                   "--rate", str(rate), "--seconds", str(seconds), "--index"]
        root = Path(__file__).resolve().parents[2]
        others = [subprocess.Popen([*command, str(index)], cwd=root, stdin=subprocess.PIPE)
                  for index in range(1, replicas)]
        started = time.perf_counter()
        try:
            primary = subprocess.run([*command, "0"], cwd=root, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL,
                                     timeout=seconds + 2 * SETTLE_S, check=True)
        finally:
            for process in others:
                process.kill()
                process.wait()
        found = json.loads(primary.stdout)
        usage = os.times()
        return Result(**found, cpu_s=usage.children_user + usage.children_system,
                      seconds=time.perf_counter() - started)


async def run_one(folder: Path, index: int, items: int, rate: float, seconds: float) -> dict[str, float]:
    """One replica; the primary offers batches and times them."""
    sys.setswitchinterval(SWITCH_S)
    home, clock, rooms = folder / f"replica-{index}", SystemClock(), Opaque()
    data = (folder / "genesis.cbor").read_bytes()
    chain = genesis.decode(data)
    replicas = len(chain.members)
    settings = Settings(0, chain.members, index, genesis.chain_id(data), chain.parameters)
    keys = CoseKeys(OpenSSLSigner.load(home / "signing.key"), chain.members, settings.chain_id, verify_digest)
    votes = VoteLog(home / "data" / "votes.log")
    head = Head("trade", 0, sha256(genesis.header_zero(data, "trade")).digest())
    replica = Replica(settings, keys, lambda leaf: leaf[:32], Executed(0, bytes(32), [head], chain.created_s),
                      votes.load(), now=Now(clock.now_ms(), clock.monotonic_ms()))
    rooms.driver = Driver(replica, votes, rooms, clock, 0)
    addresses = [_address(folder, one) for one in range(replicas)]
    mesh = Mesh(index, [member.tls_hash for member in chain.members], addresses, chain.parameters["frame_bytes"])
    rooms.transport = Transport(mesh, tls_contexts(home / "tls.crt", home / "tls.key", folder / "ca" / "ca.crt"),
                                lambda peer, kind, body: rooms.driver.receive(body))  # type: ignore[arg-type]
    await rooms.transport.start(addresses[index])
    rooms.driver.start()
    if index:
        await rooms.driver.failed  # until it is killed
    while len(rooms.transport.connected()) < replicas - 1:
        await asyncio.sleep(0.05)
    times = await _offer(rooms, items, rate, seconds)
    result = {"decisions": len(times), "p50_ms": 1000 * statistics.median(times),
              "p99_ms": 1000 * statistics.quantiles(times, n=100)[98], "fsync_ms": _fsync_ms(home),
              "rate": len(times) / seconds}
    await rooms.driver.stop()
    await rooms.transport.close()
    return result


async def _offer(rooms: Opaque, items: int, rate: float, seconds: float) -> list[float]:
    """Offers a batch every 1/rate s; times from each offer's due moment, so that a stall is not hidden."""
    loop = asyncio.get_running_loop()
    total = WARM_UP + int(rate * seconds)
    due: dict[bytes, float] = {}
    start = loop.time() + 0.1
    offset = time.perf_counter() - loop.time()
    for number in range(total):
        moment = start + number / rate
        await asyncio.sleep(max(0.0, moment - loop.time()))
        batch = []
        for at in range(items):
            leaf = sha256(b"%d %d" % (number, at)).digest().ljust(ITEM_BYTES, b"\0")
            batch.append(Item(leaf[:32], "tx", leaf, leaf))
        due[batch[-1].key] = max(moment, loop.time() - 0.001) + offset  # making the items is not the product's time
        rooms.driver.submit(batch)
    limit = loop.time() + SETTLE_S
    while any(key not in rooms.decided for key in due) and loop.time() < limit:
        await asyncio.sleep(0.01)
    return [rooms.decided[key] - moment for key, moment in list(due.items())[WARM_UP:]]


def _fsync_ms(home: Path) -> float:
    """The disk's own: a frame of a vote's size appended and synchronised."""
    times = []
    with open(home / "data" / "fsync", "wb", buffering=0) as file:
        for _ in range(FSYNCS):
            begun = time.perf_counter()
            file.write(bytes(1024))
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - begun)
    return 1000 * statistics.median(times)


def _address(folder: Path, index: int) -> str:
    from gateway.config import load_gateway
    return load_gateway(folder / f"replica-{index}").listen


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.node.latency", description=__doc__.splitlines()[0])
    parser.add_argument("--replicas", type=int, default=4)
    parser.add_argument("--items", type=int, default=100)
    parser.add_argument("--rate", type=float, default=100)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--index", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(asyncio.run(run_one(args.child, args.index, args.items, args.rate, args.seconds))))
        return 0
    found = measure(args.replicas, args.items, args.rate, args.seconds)
    if args.json:
        print(json.dumps(found._asdict()))
    else:
        print(f"{found.decisions} decisions of {args.items} items: p50 {found.p50_ms:.2f} ms, "
              f"p99 {found.p99_ms:.2f} ms; fsync {found.fsync_ms:.2f} ms; {found.rate:.0f}/s; "
              f"floor {4 * found.fsync_ms + 4:.1f} / 15, aim {3 * found.fsync_ms + 2:.1f} / 6")
    return 0


if __name__ == "__main__":
    sys.exit(main())
