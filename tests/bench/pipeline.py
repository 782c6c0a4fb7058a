"""Makes row 6: what a second core adds to the whole way of a seal, from the broker's door to durable and offered.

The real ingest and ledger in one process, which is bound to one core and to two in turns: the same envelopes, a new
ledger each time. Verifying leaves the interpreter's lock, so its threads are what the second core can take over. By
wall time, so other work on the machine spoils it: the quickest run of each kind counts.
"""

import asyncio
import os
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from deploy.clock import SystemClock
from gateway.driver import SWITCH_S
from gateway.ingest.checker import Domain
from gateway.ingest.ingest import Ingest, Settings
from gateway.ingest.mqtt import BATCH_MESSAGES, Message, Token
from gateway.ingest.sides import Offer
from gateway.ledger.ledger import Ledger
from gateway.ledger.reader import Reader
from tests.bench.material import Traffic, make_traffic
from tests.bench.measure import Floor, Outcome, cores, folder
from tests.ingest.parts import AREA

ENVELOPES = 5000
OWED = Floor(1.5, 1.8)
BOUND_S = 60.0


class Door:
    """The brokers' place: counts what is acknowledged."""

    is_heard = False

    def __init__(self, count: int):
        self.left, self.all_done = count, asyncio.Event()

    def done(self, tokens: Iterable[Token]) -> None:
        self.left -= len(list(tokens))
        if not self.left:
            self.all_done.set()

    def publish(self, topic: str, payload: bytes, *, retain: bool = False, newest_only: bool = True) -> None:
        raise AssertionError("nobody is there")

    def status(self) -> list[dict[str, Any]]:
        return []


def widen(rounds: int, envelopes: int = ENVELOPES) -> list[Outcome]:
    """Row 6."""
    usable = cores()
    if len(usable) < 2:
        return [Outcome("6", False, ["not measured: there is one core only"], {})]
    traffic = make_traffic(envelopes)
    took: dict[int, list[float]] = {1: [], 2: []}
    try:
        for number in range(rounds):
            for width in (1, 2) if number % 2 == 0 else (2, 1):
                os.sched_setaffinity(0, usable[-width:])
                took[width].append(_take_in(traffic))
    finally:
        os.sched_setaffinity(0, usable)
    one_s, two_s = min(took[1]), min(took[2])
    ratio = one_s / two_s
    numbers = {"ratio": ratio, "floor": OWED.floor, "aim": OWED.aim, "one_s": took[1], "two_s": took[2]}
    lines = [f"{ratio:6.2f}    floor {OWED.floor:g}, aim {OWED.aim:g}, limit 2   {envelopes / one_s:,.0f} seals "
             f"a second on one core, {envelopes / two_s:,.0f} on two: broker's door to durable and offered",
             f"       rounds: {' '.join(f'{one / two:.2f}' for one, two in zip(took[1], took[2], strict=True))}"]
    return [Outcome("6", ratio >= OWED.floor, lines, numbers)]


def _take_in(traffic: Traffic) -> float:
    """Seconds of wall time for all envelopes."""
    with folder() as where:
        return asyncio.run(_run(traffic, where))


async def _run(traffic: Traffic, where: Path) -> float:
    sys.setswitchinterval(SWITCH_S)  # as in a replica's process
    ledger = Ledger.open(where, traffic.genesis)
    reader, pool, loop = Reader.open(where), ThreadPoolExecutor(1, "ledger"), asyncio.get_running_loop()
    offered: list[Offer] = []

    async def in_ledger(function: Callable[..., Any], *arguments: Any) -> Any:
        return await loop.run_in_executor(pool, function, *arguments)

    ingest = Ingest(Settings(Domain(AREA, ledger.chain_id, ledger.parameters), 0, 1), reader, ledger, SystemClock(),
                    in_ledger=in_ledger, submit=offered.extend, forget=lambda keys: None)
    door = Door(len(traffic.envelopes))
    await ingest.start(door)
    messages = [Message(topic, data, Token(0, 0, number), False)
                for number, (topic, data) in enumerate(traffic.envelopes)]
    began_s = time.perf_counter()
    for at in range(0, len(messages), BATCH_MESSAGES):
        ingest.offer(messages[at:at + BATCH_MESSAGES])
    await asyncio.wait_for(door.all_done.wait(), BOUND_S)
    took_s = time.perf_counter() - began_s
    await ingest.stop()
    assert len(offered) == len(messages), ingest.refusals.by_reason
    pool.shutdown()
    reader.close()
    ledger.close()
    return took_s
