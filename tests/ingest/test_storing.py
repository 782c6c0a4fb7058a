"""Checks how long what is to be written waits: for company when little comes, not at all when much does."""

import asyncio
import time
from typing import Any

import pytest

from gateway.ingest.sides import Offer
from gateway.ingest.storing import LINGER_S, LINGER_SEALS, WAITING, Batch, Storing

WAIT_S = 10
SLACK_S = 0.1  # of a clock that the loop rounds


class Disk:
    """What was written, and when; each write takes as long as the gate is shut."""

    def __init__(self):
        self.writes: list[tuple[float, int, int]] = []  # when, batches, seals
        self.gate = asyncio.Event()
        self.gate.set()
        self.news = asyncio.Event()

    async def write(self, batches):
        self.writes.append((time.monotonic(), len(batches), sum(len(one.seals) for one in batches)))
        self.news.set()
        await self.gate.wait()

    async def until(self, count):
        while len(self.writes) < count:
            self.news.clear()
            await asyncio.wait_for(self.news.wait(), WAIT_S)


def batch(seals, kind="seal"):
    things: list[Any] = [object()] * seals  # what is in it is nobody's business here
    return Batch([*things], [*things], [Offer(b"k", kind, b"", b"", b"")])


async def _with(script, speed=1):
    disk = Disk()
    storing = Storing(disk.write, speed)
    task = asyncio.create_task(storing.run())
    began = time.monotonic()
    try:
        await script(storing, disk, began)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def test_few_wait_for_more():
    async def script(storing, disk, began):
        for _ in range(3):
            storing.put(batch(1))
            await asyncio.sleep(LINGER_S / 10)
        await disk.until(1)
        when, batches, seals = disk.writes[0]
        assert seals == 3 and batches == 1 and when - began >= LINGER_S - SLACK_S

    asyncio.run(_with(script))


@pytest.mark.parametrize("urgent", [batch(1, "tx"), batch(0), batch(LINGER_SEALS)], ids=["tx", "durable", "many"])
def test_what_is_urgent_takes_along_what_waits(urgent):
    async def script(storing, disk, began):
        storing.put(batch(1))
        await asyncio.sleep(LINGER_S / 10)
        storing.put(urgent)
        await disk.until(1)
        when, _, seals = disk.writes[0]
        assert seals == 1 + len(urgent.seals) and when - began < LINGER_S - SLACK_S

    asyncio.run(_with(script))


def test_behind_a_write_nobody_waits():
    async def script(storing, disk, began):
        disk.gate.clear()
        storing.put(batch(LINGER_SEALS))
        await disk.until(1)
        storing.put(batch(1))
        disk.gate.set()
        opened = time.monotonic()
        await disk.until(2)
        assert disk.writes[1][2] == 1 and disk.writes[1][0] - opened < LINGER_S - SLACK_S

    asyncio.run(_with(script))


def test_labels_that_run_fast_wait_less():
    async def script(storing, disk, began):
        storing.put(batch(1))
        await disk.until(1)
        assert disk.writes[0][0] - began < LINGER_S - SLACK_S

    asyncio.run(_with(script, 60))


def test_too_much_makes_who_checks_wait():
    async def script(storing, disk, began):
        disk.gate.clear()
        storing.put(batch(LINGER_SEALS))
        await disk.until(1)
        for _ in range(WAITING + 1):
            storing.put(batch(LINGER_SEALS))
        room = asyncio.create_task(storing.has_room())
        await asyncio.sleep(0)
        assert not room.done()
        disk.gate.set()
        await asyncio.wait_for(room, WAIT_S)

    asyncio.run(_with(script))
