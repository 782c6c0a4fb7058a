"""Makes a running area for tests: broker, replica processes with TLS, an operator, and meters that publish seals."""

import hashlib
import json
import os
import queue
import resource
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from paho.mqtt import client as paho

from deploy import broker, enroll, mosquitto, provision
from deploy.clock import SystemClock
from deploy.operator import Outcome, Person
from firmware.crypto.openssl import OpenSSLSigner
from firmware.wire import ack, cose, genesis, merkle, reading, seal, topics, transaction
from gateway.ledger.ledger import Ledger
from gateway.ledger.reader import Reader

AREA = "home"
CLOCK = SystemClock()
START_S = 60  # of four processes on two busy cores
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}  # where it is not installed
# Seals at once instead of after half a minute, and small windows, so that little traffic reaches far.
QUICK = {"wait_seal_ms": 100, "checkpoint_interval": 4, "log_window": 8, "timeout_ms": 1500, "view_change_ms": 1500}


def until(what: str, is_so: Callable[[], Any], wait_s: float = 30) -> Any:
    """The first true answer; AssertionError with the last one after `wait_s`."""
    end = time.monotonic() + wait_s
    while True:
        found = is_so()
        if found:
            return found
        assert time.monotonic() < end, f"{what}: still {found!r} after {wait_s} s"
        time.sleep(0.05)


class Cluster:
    """An area in a folder."""

    def __init__(self, folder: Path, n: int, parameters: dict[str, int] | None = None, host: str = "127.0.0.1"):
        self.folder, self.n = folder, n
        self.chain_id = provision.make_area(folder, provision.Plan(
            AREA, n, 1, int(time.time()) - 3600, parameters=parameters or QUICK, host=host, free_ports=True,
            ack_interval_s=1, plain_broker=mosquitto.find() is None))
        self.genesis = genesis.decode((folder / "genesis.cbor").read_bytes())
        self.broker_url = (folder / "broker-0" / "address").read_text().strip()
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        self._broker: subprocess.Popen[bytes] | None = None
        self.meters: list[Meter] = []
        self._operator: Person | None = None

    # processes

    def start(self) -> "Cluster":
        """Broker and all replicas, ready."""
        self.start_broker()
        for index in range(self.n):
            self.start_replica(index)
        for index in range(self.n):
            self.wait_ready(index)
        return self

    def start_broker(self) -> None:
        command = broker.program(self.folder / "broker-0").command
        self._broker = self._run(command, "broker")
        address = urlsplit(self.broker_url)
        until("broker", lambda: _is_open(address.hostname, address.port), START_S)

    def stop_broker(self) -> None:
        assert self._broker is not None
        self._broker.terminate()
        self._broker.wait(10)

    def start_replica(self, index: int, file_bytes: int | None = None) -> None:
        """file_bytes: no file of this process may become larger; its disk is full, as it were."""
        command = [sys.executable, "-P", "-m", "deploy.cli", "gateway", "run", str(self.home(index))]
        self.processes[index] = self._run(command, f"replica-{index}", file_bytes)

    def kill(self, index: int) -> None:
        """kill -9."""
        self.processes[index].kill()
        self.processes[index].wait(10)

    def end(self, index: int) -> int:
        """SIGTERM; the exit code."""
        self.processes[index].send_signal(signal.SIGTERM)
        return self.processes[index].wait(20)

    def wait_ready(self, index: int, wait_s: float = START_S) -> None:
        """Until it answers, hears its broker and takes part."""
        def is_ready() -> bool:
            assert self.processes[index].poll() is None, self.log(index)
            try:
                return self.get(index, "/readyz")[0] == 200 and all(
                    one["connected"] for one in self.status(index)["brokers"])
            except OSError:
                return False
        until(f"replica {index} ready", is_ready, wait_s)

    def stop(self) -> None:
        for meter in self.meters:
            meter.stop()
        for process in self.processes.values():
            if process.poll() is None:
                process.kill()
                process.wait(10)
        if self._broker is not None and self._broker.poll() is None:
            self.stop_broker()

    # what they say

    def home(self, index: int) -> Path:
        return self.folder / f"replica-{index}"

    def log(self, index: int) -> str:
        return (self.folder / f"replica-{index}.log").read_text()[-3000:]

    def answers(self, index: int) -> bool:
        """Is there anybody?"""
        try:
            return self.get(index, "/livez")[0] == 200
        except OSError:
            return False

    def get(self, index: int, path: str, headers: dict[str, str] | None = None) -> tuple[int, bytes, Any]:
        """(code, body, headers) of a GET."""
        run = json.loads((self.home(index) / "data" / "run.json").read_text())
        request = urllib.request.Request(f"http://{run['api']}{path}", headers=headers or {})
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, answer.read(), answer.headers
        except urllib.error.HTTPError as error:
            return error.code, error.read(), error.headers

    def status(self, index: int) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.get(index, "/api/status")[1])
        return found

    def wait_seals(self, count: int, wait_s: float = 30) -> None:
        """Until every running replica has committed so many seals, certified, under equal headers."""
        def are_equal() -> Any:
            try:
                shown = [self.status(index) for index in self.running()]
            except OSError:
                return False  # one is still starting
            stands = {(one["height"], one["header_hash"], one["state_root"]) for one in shown}
            return len(stands) == 1 and all(
                one["seals"] == count and one["certified_height"] == one["height"] for one in shown)
        try:
            until(f"{count} seals", are_equal, wait_s)
        except AssertionError as error:
            facts = [{key: self.status(index)[key] for key in (
                "index", "n", "view", "active", "height", "certified_height", "seals", "pending", "alarms", "refused",
                "consensus_refused", "low")} for index in self.running()]
            raise AssertionError(f"{error}: {facts}") from error

    def running(self) -> list[int]:
        return [index for index, process in self.processes.items() if process.poll() is None]

    def ledger(self, index: int) -> Reader:
        """A reader of a replica's folder."""
        return Reader.open(self.home(index) / "data")

    def check_ledgers(self) -> None:
        """After `stop`: every ledger is whole, executed again from the genesis, and all of them agree."""
        heads = set()
        for index in range(self.n):
            ledger = Ledger.open(self.home(index) / "data")
            ledger.check()
            heads.add(ledger.position()[1:2] + tuple(ledger.position()[2]))
            ledger.close()
        assert len(heads) == 1

    # people and meters

    def submit(self, kind: int, body: list[Any]) -> Outcome:
        if self._operator is None:
            self._operator = Person(self.folder)
        return self._operator.submit(AREA, self._operator.sign(kind, body, CLOCK), [self.broker_url])

    def enrol(self, *points: int) -> "Meter":
        """A new meter agent, enrolled for these points, connected."""
        home = self.folder / f"meter-{len(self.meters)}"
        enroll.make_request(home, (self.folder / "genesis.cbor").read_bytes(), AREA, "test")
        entries = [transaction.PointEntry(point, AREA, "trade", 1, 1, bytes(32), "", "", "", None, None)
                   for point in points]
        _, leaf, outcome = enroll.approve_request(Person(self.folder), (home / "request.cbor").read_bytes(), entries,
                                                  "", [self.broker_url])
        assert outcome.code == 0, outcome
        (home / "tls.crt").write_bytes(leaf)
        meter = Meter(self, home, points)
        self.meters.append(meter)
        return meter

    def _run(self, command: list[str], name: str, file_bytes: int | None = None) -> "subprocess.Popen[bytes]":
        def limit() -> None:
            if file_bytes is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
        with open(self.folder / f"{name}.log", "ab") as log:
            return subprocess.Popen(command, env=ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                    preexec_fn=limit)


class Meter:
    """An agent that publishes envelopes over the broker with its own key and certificate, and keeps the acks."""

    def __init__(self, cluster: Cluster, home: Path, points: tuple[int, ...]):
        self.points, self._chain_id = points, cluster.chain_id
        self.signer = OpenSSLSigner.load(home / "signing.key")
        self.kid = provision.identity.kid_of(self.signer.public_key())
        self.readings: dict[int, list[bytes]] = {point: [] for point in points}
        self.acks: queue.Queue[ack.Ack] = queue.Queue()
        self._tips: dict[int, tuple[int, bytes]] = {}
        self._time_ms = CLOCK.now_ms() - 1_000_000
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2, self.kid.hex())
        self._client.on_message = lambda client, data, message: self.acks.put(ack.decode(message.payload))
        self._client.on_connect = lambda client, *rest: client.subscribe(topics.agent_topic(AREA, self.kid, "ack"), 1)
        address = urlsplit(cluster.broker_url)
        if address.scheme == "mqtts":
            self._client.tls_set(str(cluster.folder / "ca" / "ca.crt"), str(home / "tls.crt"), str(home / "tls.key"),
                                 tls_version=ssl.PROTOCOL_TLS_CLIENT)
        self._client.reconnect_delay_set(1, 1)
        self._client.connect(address.hostname or "", address.port or 0)
        self._client.loop_start()

    def seal(self, point: int) -> bytes:
        """The next envelope of a point: one reading under one seal."""
        height, previous = self._tips.get(point, (0, bytes(32)))
        height += 1
        self._time_ms += 1000
        entries = (reading.Entry("1.8.0", "Wh", 1000 + height, None), reading.Entry("2.8.0", "Wh", 0, None),
                   reading.Entry("16.7.0", "W", 230 + point, None))
        taken = reading.encode(reading.Reading(self.kid, point, self._time_ms, entries, 2,
                                               hashlib.sha256(b"frames").digest()))
        payload = seal.encode(seal.Seal(1, self.kid, point, 1, height, 0, previous, merkle.root([taken]), 1,
                                        self._time_ms, self._time_ms, 1000 + height, 0, 1, 2, bytes(32), bytes(32)))
        self._tips[point] = height, seal.payload_hash(payload)
        self.readings[point].append(taken)
        return seal.encode_envelope(cose.sign1(payload, self.kid, "seal", self._chain_id, self.signer.sign_digest),
                                    [taken])

    def publish(self, count: int = 1) -> None:
        """So many envelopes of every point."""
        for _ in range(count):
            for point in self.points:
                self.send(self.seal(point))

    def send(self, envelope: bytes) -> None:
        self._client.publish(topics.agent_topic(AREA, self.kid, "envelope"), envelope, qos=1)

    def stop(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def committed(reader: Reader, meter: Meter, point: int) -> list[bytes | None]:
    """A point's committed readings in the order of their seals; None where a seal's readings are not there."""
    found = []
    for one in reader.seals(meter.kid, point):
        found.append(one.readings[0] if one.readings else None)
    return found[::-1]


def _is_open(host: str | None, port: int | None) -> bool:
    try:
        socket.create_connection((host or "", port or 0), 1).close()
        return True
    except OSError:
        return False


