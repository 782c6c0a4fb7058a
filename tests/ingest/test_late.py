"""Seals that a block takes while their readings are still being written here: they are not proposed a second time."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from firmware.wire.reasons import REASONS
from firmware.wire.seal import decode_envelope
from gateway.ingest import verify
from tests.ingest.broker import Mosquitto
from tests.ingest.parts import Agent
from tests.ingest.replica import Device, Replica, join, until


@pytest.fixture
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    made = Mosquitto(tmp_path_factory.mktemp("broker")).start()
    yield made
    made.stop()


def test_block_is_quicker_than_the_disk(tmp_path: Path, broker: Mosquitto) -> None:
    """Found by killing replicas (seed 13): seals of 21 blocks ago were proposed, their agents told off."""
    agent = Agent(1, (7, 8))
    join([agent])

    async def main() -> None:
        async with Replica(tmp_path / "data", broker, [agent]) as replica, Device(agent, replica) as device:
            is_free = threading.Event()
            replica.pool.submit(is_free.wait, 20)
            try:
                taken, other = agent.next(), agent.next(8)
                device.send(taken)
                device.send(other)
                await until(lambda: replica.ingest.chains.counts() == (2, 0))
                leaf = decode_envelope(taken)[0]
                replica.ingest.executed("trade", 1, [leaf], [0])  # the others' votes were quicker
            finally:
                is_free.set()
            await until(lambda: replica.brokers.status()[0]["undone"] == 0 and len(replica.offers) == 1)
            assert [offer.request for offer in replica.offers.values()] == [other]
            assert not replica.ingest.has_readings(verify.item_key(leaf))
            assert replica.ingest.has_readings(verify.item_key(decode_envelope(other)[0]))
    asyncio.run(main())


def test_primary_repeats_a_seal(tmp_path: Path, broker: Mosquitto) -> None:
    """In a later block: no refusal of its agent, and when the agent asks again, it is acked as ever."""
    agent = Agent(1, (7, 8))
    join([agent])

    async def main() -> None:
        async with Replica(tmp_path / "data", broker, [agent]) as replica, Device(agent, replica) as device:
            envelopes = [agent.next() for _ in range(3)]
            leaves = [decode_envelope(data)[0] for data in envelopes]
            for data in envelopes:
                device.send(data)
                await until(lambda: len(replica.offers) == 1)
                await replica.block()
            await until(lambda: device.acked() == 3)
            codes = await replica.block(*leaves)
            assert [REASONS[code] for code in codes] == ["wrong_height", "wrong_height", "duplicate"]
            assert replica.refused() == {} and replica.ingest.replays == 3
            device.inbox.clear()
            device.send(envelopes[0])
            await until(lambda: device.acked() == 3)
            assert all(not found.refused for found in device.acks())
    asyncio.run(main())


def test_a_fork_in_a_block_is_no_repetition(tmp_path: Path, broker: Mosquitto) -> None:
    agent = Agent(1, (7, 8))
    join([agent])

    async def main() -> None:
        async with Replica(tmp_path / "data", broker, [agent]) as replica, Device(agent, replica) as device:
            first = agent.next()
            device.send(first)
            await until(lambda: len(replica.offers) == 1)
            await replica.block()
            fields = verify.seal_of(decode_envelope(first)[0])
            assert fields is not None
            readings = decode_envelope(first)[1]
            twin = decode_envelope(agent.envelope(fields._replace(boot=99), readings))[0]
            await replica.block(twin)
            assert sum(replica.refused().values()) == 1
    asyncio.run(main())
