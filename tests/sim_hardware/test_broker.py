"""The broker that misbehaves, in front of a real Mosquitto, between real paho clients: each kind, and the command."""

from __future__ import annotations

import asyncio
import contextlib
import json
import queue
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from sim_hardware.broker import packets
from sim_hardware.broker.proxy import Proxy
from sim_hardware.broker.rules import KINDS, parse_rule
from sim_hardware.errors import SimError
from tests.firmware.live import ROOT, broker, free_port

WAIT_S = 10.0


@pytest.fixture(scope="module")
def mosquitto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    port = free_port()
    with broker(tmp_path_factory.mktemp("broker"), port):
        yield port


class Running:
    """A proxy in a thread of its own."""

    def __init__(self, port: int, *rules: str) -> None:
        self.proxy = Proxy(("127.0.0.1", 0), ("127.0.0.1", port), [parse_rule(text) for text in rules])
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._ready.wait(WAIT_S)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self.port = int(self._loop.run_until_complete(self.proxy.start()).rpartition(":")[2])
        self._ready.set()
        self._loop.run_forever()
        self._loop.run_until_complete(self.proxy.stop())
        self._loop.close()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(WAIT_S)


class Client:
    """A paho client: what it got, which of its messages were acknowledged, whether it stands."""

    def __init__(self, port: int, topic: str = "", version: MQTTProtocolVersion = MQTTProtocolVersion.MQTTv311,
                 wait_s: float = WAIT_S) -> None:
        self.got: queue.Queue[bytes] = queue.Queue()
        self.acked = 0
        self.lost = threading.Event()
        self._stands = threading.Event()
        self.client = paho.Client(CallbackAPIVersion.VERSION2, protocol=version, reconnect_on_failure=False)
        self.client.on_message = lambda _client, _data, message: self.got.put(bytes(message.payload))
        self.client.on_disconnect = lambda *_: self.lost.set()
        self.client.on_publish = self._on_publish
        self.client.on_subscribe = lambda *_: self._stands.set()
        self.client.on_connect = lambda client, *_: client.subscribe(topic, 1) if topic else self._stands.set()
        self.client.connect("127.0.0.1", port, keepalive=60)
        self.client.loop_start()
        assert self._stands.wait(wait_s)

    def _on_publish(self, *_: object) -> None:
        self.acked += 1

    def send(self, topic: str, *payloads: bytes) -> None:
        for payload in payloads:
            self.client.publish(topic, payload, 1)

    def take(self, count: int) -> list[bytes]:
        return [self.got.get(timeout=WAIT_S) for _ in range(count)]

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


Make = Callable[..., tuple[Client, Client, Running]]


@pytest.fixture(params=[MQTTProtocolVersion.MQTTv311, MQTTProtocolVersion.MQTTv5], ids=["3.1.1", "5"])
def pair(request: pytest.FixtureRequest, mosquitto: int) -> Iterator[Make]:
    """make(rules) -> a publisher behind the proxy, a subscriber beside it, the proxy."""
    things: list[Any] = []

    def make(*rules: str, subscriber_behind: bool = False) -> tuple[Client, Client, Running]:
        running = Running(mosquitto, *rules)
        things.append(running)
        topic = f"test/{time.monotonic_ns()}"
        subscriber = Client(running.port if subscriber_behind else mosquitto, topic, request.param)
        publisher = Client(running.port, "", request.param)
        publisher.topic = topic  # type: ignore[attr-defined]
        things.extend((subscriber, publisher))
        return publisher, subscriber, running

    yield make
    for thing in reversed(things):
        thing.close()


def wait_for(is_true: Callable[[], object]) -> None:
    end = time.monotonic() + WAIT_S
    while not is_true():
        assert time.monotonic() < end
        time.sleep(0.01)


def send(client: Client, count: int) -> None:
    client.send(client.topic, *[b"%04d" % number for number in range(count)])  # type: ignore[attr-defined]


def test_without_rules_everything_passes(pair: Make) -> None:
    publisher, subscriber, running = pair()
    send(publisher, 300)
    assert subscriber.take(300) == [b"%04d" % number for number in range(300)]
    wait_for(lambda: publisher.acked == 300)
    assert running.proxy.counts["up"] == 300 and running.proxy.counts["connections"] == 1


def test_drop_and_swallow(pair: Make) -> None:
    """What is lost is lost; whether the sender believes that it arrived is the difference between the two."""
    publisher, subscriber, running = pair("drop up every 4 times 2", "swallow up every 3 times 1")
    send(publisher, 12)
    assert subscriber.take(9) == [b"%04d" % number for number in range(12) if number not in (3, 2, 7)]
    wait_for(lambda: publisher.acked == 10)
    assert [rule.applied for rule in running.proxy.rules] == [2, 1]
    assert subscriber.got.empty()


def test_duplicate(pair: Make) -> None:
    publisher, subscriber, _ = pair("duplicate 2 up every 2")
    send(publisher, 4)
    assert sorted(subscriber.take(8)) == [b"0000", b"0001", b"0001", b"0001", b"0002", b"0003", b"0003", b"0003"]


def test_duplicate_on_the_way_down(pair: Make) -> None:
    publisher, subscriber, _ = pair("duplicate down topic test/+", subscriber_behind=True)
    send(publisher, 3)
    assert sorted(subscriber.take(6)) == sorted(2 * [b"0000", b"0001", b"0002"])


def test_reorder(pair: Make) -> None:
    publisher, subscriber, _ = pair("reorder 2 up times 1")
    send(publisher, 4)
    assert subscriber.take(4) == [b"0001", b"0002", b"0000", b"0003"]


def test_rewrite(pair: Make) -> None:
    """One bit of the content and nothing else; where, the seed says."""
    publisher, subscriber, _ = pair("rewrite up every 2")
    send(publisher, 4)
    found = subscriber.take(4)
    for number, payload in enumerate(found):
        sent = b"%04d" % number
        assert sum((a ^ b).bit_count() for a, b in zip(payload, sent)) == number % 2 and len(payload) == 4


def test_replay(pair: Make) -> None:
    publisher, subscriber, _ = pair("replay 200 up times 1")
    send(publisher, 3)
    assert subscriber.take(4) == [b"0000", b"0001", b"0002", b"0000"]
    wait_for(lambda: publisher.acked == 3)


def test_delay_keeps_the_order(pair: Make) -> None:
    publisher, subscriber, running = pair()
    running.proxy.rules.append(parse_rule("delay 400 up times 1"))
    begun = time.monotonic()
    send(publisher, 3)
    assert subscriber.take(3) == [b"0000", b"0001", b"0002"]
    assert 0.4 <= time.monotonic() - begun < 5


def test_half_close(pair: Make) -> None:
    """The broker is told that the client has ended, and lets it go."""
    publisher, _, running = pair()
    running.proxy.rules.append(parse_rule("half-close up"))
    send(publisher, 1)
    assert publisher.lost.wait(WAIT_S)


def test_close_and_stall(pair: Make) -> None:
    publisher, subscriber, running = pair("stall up topic test/# every 2")
    send(publisher, 3)
    assert subscriber.take(1) == [b"0000"]
    wait_for(lambda: running.proxy.rules[0].applied == 1)
    assert not publisher.lost.is_set() and subscriber.got.empty()
    running.proxy.rules.append(parse_rule("close down"))
    other = Client.__new__(Client)
    with contextlib.suppress(AssertionError, OSError):
        other.__init__(running.port, wait_s=0.5)  # type: ignore[misc]  # reset as soon as the broker says a word
    wait_for(lambda: running.proxy.rules[1].applied >= 1)
    other.client.loop_stop()


def test_tls_passes_as_it_is(tmp_path: Path) -> None:
    """A handshake cannot be looked into: rules about messages leave it alone, those about the line hold."""
    seen: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        def answer() -> None:
            peer, _ = server.accept()
            with peer:
                seen.append(peer.recv(4096))

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        running = Running(server.getsockname()[1], "drop", "rewrite")
        try:
            with socket.create_connection(("127.0.0.1", running.port), timeout=WAIT_S) as client:
                with contextlib.suppress(ssl.SSLError, OSError):
                    ssl.create_default_context().wrap_socket(client, server_hostname="localhost")
            thread.join(WAIT_S)
            assert seen and seen[0][0] == 0x16 and running.proxy.counts["opaque"] == 1
        finally:
            running.close()


def test_what_is_no_mqtt_is_cut_off(mosquitto: int) -> None:
    running = Running(mosquitto)
    try:
        with socket.create_connection(("127.0.0.1", running.port), timeout=WAIT_S) as client:
            client.sendall(b"\x10\xff\xff\xff\xff\xff")
            with contextlib.suppress(ConnectionError):
                assert client.recv(10) == b""
    finally:
        running.close()


@pytest.mark.parametrize("text", ["", "explode", "drop 3", "duplicate 0", "delay x", "drop sideways", "drop every",
                                  "drop every 0", "drop chance 1001", "drop times 0", "drop topic"])
def test_a_rule_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(SimError, match="fault"):
        parse_rule(text)


def test_every_kind_is_a_rule() -> None:
    for kind, facts in KINDS.items():
        assert parse_rule(f"{kind} up topic a/# every 2 times 3").kind == kind
        assert facts[0] == "" or parse_rule(f"{kind} {facts[3]}").number == facts[3]


@given(st.binary(max_size=40), st.text("ab/+", max_size=10), st.integers(0, 2), st.booleans(), st.integers(1, 7))
def test_packets_come_whole_out_of_any_pieces(payload: bytes, topic: str, qos: int, is_5: bool, piece: int) -> None:
    client = paho.Client(CallbackAPIVersion.VERSION2,
                         protocol=MQTTProtocolVersion.MQTTv5 if is_5 else MQTTProtocolVersion.MQTTv311)
    body = len(topic).to_bytes(2, "big") + topic.encode() + (b"\x00\x07" if qos else b"") + (b"\0" if is_5 else b"")
    packet = bytes((0x30 | qos << 1, len(body) + len(payload))) + body + payload
    splitter = packets.Splitter()
    stream = packet + b"\xc0\x00" + packet
    found = [one for at in range(0, len(stream), piece) for one in splitter.take(stream[at:at + piece])]
    assert found == [packet, b"\xc0\x00", packet]
    parts = packets.publish_of(packet, 5 if is_5 else 4)
    assert (parts.topic, parts.qos, packet[parts.payload_at:]) == (topic, qos, payload)
    bare = packets.without_qos(packet, parts)
    again = packets.publish_of(bare, 5 if is_5 else 4)
    assert (again.topic, again.qos, bare[again.payload_at:]) == (topic, 0, payload)
    del client


def test_the_command(mosquitto: int) -> None:
    """Alone, as a stranger starts it: a ready line, rules by the control port, counts in the end."""
    process = subprocess.Popen([sys.executable, "-m", "deploy.cli", "sim", "broker", "--broker",
                                f"127.0.0.1:{mosquitto}", "--control", "127.0.0.1:0", "--rule", "drop up every 2",
                                "--json"], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        subscriber, publisher = Client(mosquitto, "by/hand"), Client(int(ready["listen"].rpartition(":")[2]))
        host, _, port = ready["control"].rpartition(":")
        with socket.create_connection((host, int(port)), timeout=WAIT_S) as link:
            lines = link.makefile("rw")

            def ask(line: str) -> str:
                lines.write(line + "\n")
                lines.flush()
                return lines.readline().strip()

            publisher.send("by/hand", b"1", b"2", b"3")
            assert subscriber.take(2) == [b"1", b"3"]
            assert ask("clear") == "ok" and ask("add nonsense").startswith("error expected one of drop")
            assert ask("add duplicate up") == "ok"
            publisher.send("by/hand", b"4")
            assert subscriber.take(2) == [b"4", b"4"]
            assert json.loads(ask("rules")) == [{"rule": "duplicate up", "asked": 1, "applied": 1}]
            assert json.loads(ask("counts"))["up"] == 4 and "swallow" in ask("help")
            assert ask("what").startswith("error expected add RULE")
            assert ask("close") == "ok" and publisher.lost.wait(WAIT_S)
        subscriber.close()
        publisher.close()
        process.send_signal(signal.SIGTERM)
        assert json.loads(process.stdout.readline())["connections"] == 1
        assert process.wait(WAIT_S) == 0
    finally:
        process.kill()
        process.wait()
