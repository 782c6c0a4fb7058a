"""Makes an area as `gateway init` does, with agents enrolled from the beginning, its broker and its meters."""

import socket
import ssl
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from paho.mqtt import client as paho

from deploy import broker, certificates, provision
from firmware.wire import cose, genesis, transaction
from tests.ingest.parts import AREA, START_MS, Agent
from tests.node.cluster import until

PUBLISHING_S = 60.0


class Area(NamedTuple):
    folder: Path
    chain_id: bytes
    agents: Sequence[Agent]
    broker_url: str


def make_area(folder: Path, replicas: int, agents: Sequence[Agent], created_s: int = START_MS // 1000 - 3600,
              parameters: dict[str, int] | None = None, speed: int = 1) -> Area:
    """An area whose genesis enrols `agents`; they know its chain then, and have TLS certificates (`meter-KID`)."""
    provision.make_area(folder, provision.Plan(AREA, replicas, 1, created_s, speed, parameters or {},
                                               free_ports=True))
    path = folder / "genesis.cbor"
    found = genesis.decode(path.read_bytes())
    owner = bytes(8)
    data = genesis.encode(found._replace(enrolments=[*found.enrolments, *(_row(agent, owner) for agent in agents)]))
    path.write_bytes(data)
    ca_key, ca = certificates.load_ca(folder / "ca")
    for agent in agents:
        agent.chain = genesis.chain_id(data)
        key = certificates.generate_key()
        home = meter_home(folder, agent)
        home.mkdir()
        certificates.write_secret(home / "tls.key", certificates.key_pem(key))
        leaf = certificates.issue(ca_key, ca, key.public_key(), agent.kid.hex())
        (home / "tls.crt").write_bytes(certificates.pem(leaf))
    return Area(folder, genesis.chain_id(data), agents, (folder / "broker-0" / "address").read_text().strip())


def meter_home(folder: Path, agent: Agent) -> Path:
    """Where an agent's TLS files lie."""
    return folder / f"meter-{agent.kid.hex()}"


def replica_home(area: Area, index: int) -> Path:
    """Where a replica's configuration and keys lie."""
    return area.folder / f"replica-{index}"


@contextmanager
def running_broker(area: Area) -> Iterator[int]:
    """The area's own broker (Mosquitto with TLS and its access list): its process id."""
    with open(area.folder / "broker.log", "ab") as log:
        process = subprocess.Popen(broker.program(area.folder / "broker-0").command, stdin=subprocess.DEVNULL,
                                   stdout=log, stderr=log)
    try:
        address = urlsplit(area.broker_url)
        until("broker", lambda: _is_open(address.hostname or "", address.port or 0))
        yield process.pid
    finally:
        process.terminate()
        process.wait(10)


class Meter:
    """An agent's connection to the area's broker, or to the one of that URL."""

    def __init__(self, area: Area, agent: Agent, url: str = ""):
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2, agent.kid.hex())
        self._client.max_inflight_messages_set(1000)
        home = meter_home(area.folder, agent)
        address = urlsplit(url or area.broker_url)
        if address.scheme == "mqtts":
            self._client.tls_set(str(area.folder / "ca" / "ca.crt"), str(home / "tls.crt"), str(home / "tls.key"),
                                 tls_version=ssl.PROTOCOL_TLS_CLIENT)
        self._client.connect(address.hostname or "", address.port or 0)
        self._client.loop_start()
        self._waiting: list[paho.MQTTMessageInfo] = []

    def publish(self, topic: str, data: bytes) -> None:
        """QoS 1."""
        self._waiting.append(self._client.publish(topic, data, qos=1))

    def settle(self) -> None:
        """Returns when the broker has everything."""
        end = time.monotonic() + PUBLISHING_S
        for info in self._waiting:
            info.wait_for_publish(max(0.001, end - time.monotonic()))
            assert info.is_published(), "the broker did not take a message"
        self._waiting.clear()

    def stop(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def _row(agent: Agent, owner: bytes) -> list[object]:
    """The genesis' row that enrols an agent with its points."""
    asked = transaction.Enrolment(agent.public_key, bytes(32), "agent", AREA, "bench", "software")
    request = transaction.encode_enrolment(asked, agent.kid, cose.NO_CHAIN, agent.signer.sign_digest)
    points = [transaction.PointEntry(point, AREA, "trade", 1, 1, bytes(32), "", "", "", None, None)
              for point in agent.points]
    row: list[object] = transaction.enrol_body(request, owner, points, "")
    return row


def _is_open(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), 1).close()
        return True
    except OSError:
        return False
