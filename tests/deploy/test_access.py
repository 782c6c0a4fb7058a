"""Who may write and read what on the area's Mosquitto, tried with real certificates: the prefix of one's own kid, the
chain's topics to read, nothing else."""

from __future__ import annotations

import queue
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

from deploy import broker, certificates, cli
from firmware.wire import topics
from tests import needs

AREA = "home"
A, B = bytes(range(8)), bytes(range(8, 16))
BOUND_S = 10.0


class Person:
    """A client with a certificate: what it was sent, and which subscriptions the broker granted."""

    def __init__(self, address: tuple[str, int], ca: Path, certificate: Path, key: Path, name: str) -> None:
        self.inbox: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id=name)
        context = ssl.create_default_context(cafile=str(ca))
        context.load_cert_chain(certificate, key)
        self._client.tls_set_context(context)
        self._client.on_connect = lambda *words: self._done.put(words[3])
        self._client.on_subscribe = lambda *words: self._done.put(words[3])
        self._client.on_message = lambda _client, _data, message: self.inbox.put(message.topic)
        self._client.on_publish = lambda *words: self._done.put(words[2])
        self._client.connect(*address)
        self._client.loop_start()
        self._done.get(timeout=BOUND_S)

    def may_read(self, topic: str) -> bool:
        self._client.subscribe(topic, 1)
        reasons = self._done.get(timeout=BOUND_S)
        assert isinstance(reasons, list)
        return not reasons[0].is_failure

    def write(self, topic: str) -> None:
        """Returns when the broker has acknowledged it, which it does for what it drops as well."""
        self._client.publish(topic, b"x", qos=1)
        self._done.get(timeout=BOUND_S)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


class Place:
    """An area's own broker, as `gateway init` sets it up."""

    def __init__(self, folder: Path) -> None:
        needs.program("mosquitto")
        self.folder = folder / "area"
        assert cli.main(["gateway", "init", str(self.folder), "--area", AREA, "--free-ports"]) == 0
        home = self.folder / "broker-0"
        host, port = (home / "address").read_text().strip().removeprefix("mqtts://").split(":")
        self.address = host, int(port)
        with open(folder / "broker.log", "wb") as log:
            self._process = subprocess.Popen(broker.program(home).command, stdout=log, stderr=log)
        end = time.monotonic() + BOUND_S
        while True:
            try:
                socket.create_connection(self.address, 1).close()
                break
            except OSError:
                assert time.monotonic() < end, (folder / "broker.log").read_text()
                time.sleep(0.05)
        self.ca = certificates.load_ca(self.folder / "ca")
        self.people: list[Person] = []

    def agent(self, kid: bytes) -> Person:
        key = certificates.generate_key()
        folder = self.folder / kid.hex()
        folder.mkdir()
        certificates.write_secret(folder / "key", certificates.key_pem(key))
        (folder / "crt").write_bytes(certificates.pem(certificates.issue(*self.ca, key.public_key(), kid.hex())))
        return self._person(folder / "crt", folder / "key", kid.hex())

    def replica(self) -> Person:
        home = self.folder / "replica-0"
        return self._person(home / "tls.crt", home / "tls.key", "replica")

    def _person(self, certificate: Path, key: Path, name: str) -> Person:
        made = Person(self.address, self.folder / "ca" / "ca.crt", certificate, key, name)
        self.people.append(made)
        return made

    def close(self) -> None:
        for person in self.people:
            person.close()
        self._process.terminate()
        self._process.wait(10)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.close()


def test_an_agent_reads_its_own_answers_and_the_chains_headers(place: Place) -> None:
    agent = place.agent(A)
    readable = [topics.agent_topic(AREA, A, kind) for kind in topics.AGENT_READS]
    readable.append(topics.chain_header(AREA, "trade"))
    forbidden = [topics.agent_topic(AREA, B, kind) for kind in topics.AGENT_READS + topics.AGENT_WRITES]
    forbidden += ["#", "+/#", "$SYS/#", f"gridseal/1/{AREA}/+/ack", f"gridseal/1/{AREA}/#", "gridseal/1/south/chain/#",
                  f"gridseal/1/{AREA}/live/#"]
    assert [topic for topic in readable if not agent.may_read(topic)] == []
    replica = place.replica()
    for topic in forbidden:  # Mosquitto may grant a subscription and deliver nothing
        agent.may_read(topic)
    for kind in topics.AGENT_READS:
        for kid in (B, A):
            replica.write(topics.agent_topic(AREA, kid, kind))
    replica.write(f"gridseal/1/{AREA}/live/1")
    replica.write(topics.chain_header(AREA, "trade"))
    got = set()
    while (topic := agent.inbox.get(timeout=BOUND_S)) != topics.chain_header(AREA, "trade"):
        got.add(topic)
    assert got == {topics.agent_topic(AREA, A, kind) for kind in topics.AGENT_READS}


def test_an_agent_writes_under_its_own_kid_only(place: Place) -> None:
    replica = place.replica()
    for kind in topics.AGENT_WRITES:
        assert replica.may_read(topics.all_agents(AREA, kind))
    assert replica.may_read(f"gridseal/1/{AREA}/chain/#")
    agent = place.agent(A)
    own = [topics.agent_topic(AREA, A, kind) for kind in topics.AGENT_WRITES]
    for topic in ([topics.agent_topic(AREA, B, kind) for kind in topics.AGENT_WRITES]
                  + [topics.chain_header(AREA, "trade"), f"gridseal/1/south/{A.hex()}/witness",
                     f"gridseal/1/{AREA}/chain/trade/epoch/1", f"gridseal/1/{AREA}/{A.hex()}/witness/more"] + own):
        agent.write(topic)
    got = [replica.inbox.get(timeout=BOUND_S) for _ in own]
    assert got == own, "nothing of what came before them, and witness is among them"
    assert topics.agent_topic(AREA, A, "witness") in got
