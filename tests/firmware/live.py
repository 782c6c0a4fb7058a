"""Makes a live surrounding for an agent process: Mosquitto, simulated meters, a clock at speed, an honest gateway."""

from __future__ import annotations

import contextlib
import hashlib
import json
import queue
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import paho.mqtt.client as mqtt

from deploy.clock import ClockKeeper
from firmware.crypto.openssl import OpenSSLSigner
from firmware.wire import identity, topics
from tests import needs
from tests.firmware.world import DAY_MS, Chain, Gateway

ROOT = Path(__file__).resolve().parents[2]
SPEED = 1200  # twice the demo's: a minute of readings every 50 ms
WAIT_S = 40.0


def wait_for(is_true: Callable[[], bool], what: str, wait_s: float = WAIT_S) -> None:
    """Returns when it is true; fails after the time."""
    end = time.monotonic() + wait_s
    while not is_true():
        assert time.monotonic() < end, f"not in {wait_s} s: {what}"
        time.sleep(0.02)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def process(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A child that is gone in the end."""
    with open(log, "ab") as out:
        child = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT)
        try:
            yield child
        finally:
            child.kill()
            child.wait()


@contextlib.contextmanager
def broker(folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Mosquitto on loopback, without TLS and rights: those are the deployment's tests."""
    program = needs.program("mosquitto")
    path = folder / f"mosquitto-{port}.conf"
    path.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\n")
    with process([program, "-c", str(path)], folder / "mosquitto.log") as child:
        wait_for(lambda: _answers(port), "mosquitto listens")
        yield child


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def simulator(folder: Path, clock_folder: Path, buses: str) -> Iterator[dict[str, Any]]:
    """Simulated meters of a sim.toml text; yields what their ready line says."""
    path = folder / "sim.toml"
    path.write_text(f'seed = 7\nstep_s = 60\ntruth = "{folder}/truth.csv"\ncontrol = "127.0.0.1:0"\n{buses}')
    command = [sys.executable, "-m", "deploy.cli", "sim", "meter", "--config", str(path), "--json", "--clock",
               str(clock_folder)]
    log = folder / "sim.log"
    with process(command, log):
        wait_for(lambda: b"ready" in log.read_bytes(), "the simulator is ready")
        yield json.loads(next(line for line in log.read_text().splitlines() if line.startswith("{")))


@contextlib.contextmanager
def fault(control: str, text: str) -> Iterator[None]:
    """Switches a fault through the simulator's control port: "UNIT FAULT"; off again in the end."""
    _tell(control, f"fault {text}")
    yield
    _tell(control, f"fault {text.split()[0]} none")


def _tell(control: str, line: str) -> None:
    host, _, port = control.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=5) as link:
        link.sendall(line.encode() + b"\n")
        answer = link.makefile().readline()
    assert answer.startswith("ok"), answer


class Day:
    """A clock at SPEED that is moved on by a thread, and held by the agent named "agent"."""

    def __init__(self, folder: Path, names: tuple[str, ...] = ("agent",)) -> None:
        self.folder = folder / "clock"
        self.keeper = ClockKeeper(self.folder, DAY_MS, SPEED, list(names))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def run_until(self, minutes: int, wait_s: float = WAIT_S) -> None:
        """Lets the day go on to so many minutes after midnight and waits for the slowest agent."""
        end_ms = DAY_MS + minutes * 60_000
        self.keeper.run_until(end_ms)
        wait_for(lambda: self.keeper.slowest_ms() >= end_ms, f"minute {minutes}", wait_s)

    def close(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.004):
            self.keeper.step()


class LiveGateway(Gateway):
    """The honest gateway behind brokers: takes envelopes, acks every `ack_s`."""

    def __init__(self, chain: Chain, public_key: bytes, ports: list[int], label_ms: Callable[[], int],
                 ack_s: float = 0.5) -> None:
        super().__init__(chain, public_key)
        self.kid = identity.kid_of(public_key)
        self.errors: list[str] = []
        self.is_acking = True
        self.births = 0
        self._label_ms = label_ms
        self._ack_s = ack_s
        self._inbox: queue.SimpleQueue[tuple[str, bytes]] = queue.SimpleQueue()
        self._clients = [self._connect(port, number) for number, port in enumerate(ports)]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        for client in self._clients:
            client.disconnect()
            client.loop_stop()

    def _connect(self, port: int, number: int) -> mqtt.Client:
        client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=f"gateway-{number}")
        client.on_message = lambda _client, _data, message: self._inbox.put((message.topic, bytes(message.payload)))
        client.on_connect = lambda c, _data, _flags, _reason, _properties: c.subscribe(
            [(topics.all_agents("home", kind), 1) for kind in ("envelope", "birth")])
        client.reconnect_delay_set(1, 1)
        client.connect("127.0.0.1", port)
        client.loop_start()
        return client

    def _run(self) -> None:
        next_ack = time.monotonic() + self._ack_s
        while not self._stop.is_set():
            with contextlib.suppress(queue.Empty):
                topic, payload = self._inbox.get(timeout=0.05)
                try:
                    if topic.endswith("/birth"):
                        self.births += 1
                    else:
                        self.take(topic, payload)
                except Exception as error:  # noqa: BLE001  shown by the test, in its own thread
                    self.errors.append(f"{type(error).__name__}: {error}")
            if time.monotonic() >= next_ack:
                next_ack = time.monotonic() + self._ack_s
                if self.is_acking and (self.pending or self.wanted):
                    data = self.ack(self._label_ms() // 1000)
                    for client in self._clients:
                        client.publish(topics.agent_topic("home", self.kid, "ack"), data, qos=1)


class AgentHome:
    """An agent's folder with a test key, and its process."""

    def __init__(self, folder: Path, chain: Chain, brokers: list[int], text: str, **settings: int) -> None:
        self.folder = folder / "agent"
        self.folder.mkdir()
        self.signer = OpenSSLSigner.from_scalar(hashlib.sha256(b"test agent live").digest())
        self.signer.save(self.folder / "signing.key")
        (self.folder / "genesis.cbor").write_bytes(chain.genesis)
        urls = ", ".join(f'"mqtt://127.0.0.1:{port}"' for port in brokers)
        lines = [f"{name} = {value}" for name, value in
                 {"silence_s": 3, "journal_kib": 1024, "details_every_s": 0, **settings}.items()]
        (self.folder / "meter.toml").write_text("\n".join(
            ['area = "home"', f"brokers = [{urls}]", *lines, text, ""]))
        self.log = folder / "agent.log"
        self._out: IO[bytes] | None = None
        self.child: subprocess.Popen[bytes] | None = None

    def start(self, clock_folder: Path) -> None:
        self._out = open(self.log, "ab")  # noqa: SIM115  closed in kill
        self.child = subprocess.Popen(
            [sys.executable, "-m", "tests.firmware.run_agent", str(self.folder), str(clock_folder), "agent"],
            cwd=ROOT, stdout=self._out, stderr=subprocess.STDOUT)

    def kill(self) -> None:
        if self.child is not None:
            self.child.kill()
            self.child.wait()
            self.child = None
        if self._out is not None:
            self._out.close()
            self._out = None

    def stop(self) -> int:
        """Ends it by SIGTERM; returns the exit code."""
        assert self.child is not None
        self.child.terminate()
        code = self.child.wait(15)
        self.kill()
        return code

    def text(self) -> str:
        return self.log.read_text() if self.log.exists() else ""
