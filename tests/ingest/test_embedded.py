"""Ingest on the demo's embedded broker: the same way through, also when that broker forgets everything on a restart."""

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy import broker as deploy_broker
from tests import needs
from tests.ingest.parts import Agent
from tests.ingest.replica import Device, Replica, join, until

ROOT = Path(__file__).resolve().parents[2]
START_S = 30


class Embedded:
    """The embedded broker as a process, on a free port of this machine."""

    def __init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"mqtt://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen([sys.executable, "-P", "-m", "deploy.broker", self.url],
                                         env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL,
                                         stderr=subprocess.DEVNULL)
        limit = time.monotonic() + START_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                assert time.monotonic() < limit and self._process.poll() is None, "the embedded broker did not start"
                time.sleep(0.05)

    def stop(self) -> None:
        self._process.kill()
        self._process.wait(10)


@pytest.fixture
def embedded() -> Iterator[Embedded]:
    if not deploy_broker.has_embedded():
        needs.missing("amqtt", "pip install amqtt")
    made = Embedded()
    yield made
    made.stop()


def test_the_same_way_through_the_embedded_broker(tmp_path: Path, embedded: Embedded) -> None:
    agent = Agent(1, (7, 8))
    join([agent])

    async def main() -> None:
        async with Replica(tmp_path / "data", embedded, [agent]) as replica, Device(agent, replica) as device:
            for _ in range(20):
                device.send(agent.next(7))
                device.send(agent.next(8))
            device.send(b"junk")
            await until(lambda: len(replica.offers) == 40 and replica.refused(agent) == {"malformed": 1})
            await until(lambda: replica.brokers.status()[0]["undone"] == 0)
            await replica.block()
            await until(lambda: (device.acked(7), device.acked(8)) == (20, 20))
            lost, kept = agent.next(7), agent.next(7)
            embedded.stop()
            await until(lambda: not replica.brokers.links[0].connected)
            embedded.start()
            await until(lambda: replica.brokers.links[0].subscribed and device.link.subscribed)
            device.send(kept)
            await until(lambda: any(found.wanted == [(7, 21, 21)] for found in device.acks()))
            device.send(lost)
            await until(lambda: len(replica.offers) == 2)
            await replica.block()
            await until(lambda: device.acked(7) == 22)
    asyncio.run(main())
