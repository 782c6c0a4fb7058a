"""The gateway's side of a broker, against a real Mosquitto: nothing is acknowledged early, nothing is lost."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

from gateway.ingest import mqtt
from gateway.ingest.mqtt import Brokers, Link, Message, parse_url
from tests.ingest.broker import Mosquitto

BOUND_S = 20.0


class RealClock:
    def monotonic_ms(self) -> int:
        return time.monotonic_ns() // 1_000_000


class Inbox:
    """What a link has handed over, with a wait that has a bound."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.batches = 0
        self._news = threading.Condition()

    def take(self, batch: list[Message]) -> None:
        with self._news:
            self.messages += batch
            self.batches += 1
            self._news.notify_all()

    def wait(self, is_enough: Callable[[list[Message]], bool]) -> list[Message]:
        with self._news:
            assert self._news.wait_for(lambda: is_enough(self.messages), BOUND_S), len(self.messages)
            return list(self.messages)

    def payloads(self, count: int) -> list[bytes]:
        return [message.payload for message in self.wait(lambda messages: len(messages) >= count)]


def link(broker: Mosquitto, inbox: Inbox, subscriptions: list[str], version: int = 4) -> Link:
    made = Link(0, broker.url, "gateway-0", subscriptions, inbox.take, clock=RealClock(), chance=random.Random(1),
                version=version)
    made.start()
    return made


def until(is_so: Callable[[], bool]) -> None:
    limit = time.monotonic() + BOUND_S
    while not is_so():
        assert time.monotonic() < limit
        time.sleep(0.01)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    made = Mosquitto(tmp_path).start()
    yield made
    made.stop()


@pytest.fixture
def meter(broker: Mosquitto) -> Iterator[paho.Client]:
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id="meter")
    client.reconnect_delay_set(1, 1)
    client.connect("127.0.0.1", broker.port)
    client.loop_start()
    yield client
    client.disconnect()
    client.loop_stop()


@pytest.mark.parametrize("version", [4, 5])
def test_puback_only_after_done(broker: Mosquitto, meter: paho.Client, version: int) -> None:
    inbox = Inbox()
    first = link(broker, inbox, ["a/+/envelope"], version)
    until(lambda: first.subscribed)
    for number in range(5):
        meter.publish("a/1/envelope", b"%d" % number, qos=1).wait_for_publish(BOUND_S)
    messages = inbox.wait(lambda all: len(all) == 5)
    kept = {b"1", b"3"}
    first.done([message.token for message in messages if message.payload not in kept])
    until(lambda: first.status()["undone"] == len(kept))
    first.stop()
    again = Inbox()
    second = link(broker, again, ["a/+/envelope"], version)
    assert set(again.payloads(2)) == kept
    second.done([message.token for message in again.messages])
    second.stop()
    assert len(again.messages) == 2


def test_an_orderly_stop_acknowledges_what_is_done(broker: Mosquitto, meter: paho.Client) -> None:
    inbox = Inbox()
    first = link(broker, inbox, ["a/+/envelope"])
    until(lambda: first.subscribed)
    for number in range(50):
        meter.publish("a/1/envelope", b"%d" % number, qos=1)
    seen = 0
    while seen < 50:
        fresh = inbox.wait(lambda all: len(all) > seen)[seen:]  # noqa: B023
        seen += len(fresh)
        first.done([message.token for message in fresh])
    first.stop()
    again = Inbox()
    second = link(broker, again, ["a/+/envelope"])
    until(lambda: second.subscribed)
    meter.publish("a/1/envelope", b"after", qos=1)
    assert again.payloads(1) == [b"after"]
    second.stop()


def test_token_of_an_old_connection_acknowledges_nothing(broker: Mosquitto, meter: paho.Client) -> None:
    inbox = Inbox()
    here = link(broker, inbox, ["a/+/envelope"])
    until(lambda: here.subscribed)
    meter.publish("a/1/envelope", b"one", qos=1).wait_for_publish(BOUND_S)
    inbox.payloads(1)
    broker.stop()
    until(lambda: not here.connected)
    broker.start()
    until(lambda: here.subscribed)
    messages = inbox.wait(lambda all: len(all) == 2)
    assert [message.payload for message in messages] == [b"one", b"one"]
    assert messages[0].token.connection != messages[1].token.connection
    here.done([messages[0].token])
    until(lambda: here.status()["undone"] == 1)
    here.stop()
    again = Inbox()
    other = link(broker, again, ["a/+/envelope"])
    assert again.payloads(1) == [b"one"]
    other.stop()


def test_a_broker_that_stops_and_comes_back_loses_nothing(broker: Mosquitto, meter: paho.Client) -> None:
    inbox = Inbox()
    here = link(broker, inbox, ["a/+/envelope"])
    until(lambda: here.subscribed)
    sent = []
    for number in range(60):
        sent.append(b"%d" % number)
        meter.publish("a/1/envelope", sent[-1], qos=1)
        if number in (20, 40):
            broker.stop()
            until(lambda: not here.connected)
            broker.start()
    done: set[bytes] = set()
    seen = 0
    limit = time.monotonic() + BOUND_S
    while done != set(sent):
        assert time.monotonic() < limit, set(sent) - done
        fresh = inbox.messages[seen:]
        seen += len(fresh)
        here.done([message.token for message in fresh])
        done |= {message.payload for message in fresh}
        time.sleep(0.005)
    here.stop()


def test_back_pressure_stops_reading_and_drops_nothing(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker whose window is wider than ours: we stop reading at our limit and go on when something is done."""
    monkeypatch.setattr(mqtt, "UNDONE_MESSAGES", 40)
    monkeypatch.setattr(mqtt, "BATCH_MESSAGES", 10)
    broker = Mosquitto(tmp_path, window=1000).start()
    meter = paho.Client(CallbackAPIVersion.VERSION2, client_id="meter")
    meter.connect("127.0.0.1", broker.port)
    meter.loop_start()
    inbox = Inbox()
    here = link(broker, inbox, ["a/#"])
    try:
        until(lambda: here.subscribed)
        infos = [meter.publish("a/1", b"%d" % number, qos=1) for number in range(300)]
        for info in infos:
            info.wait_for_publish(BOUND_S)
        inbox.payloads(40)
        assert 40 <= here.status()["undone"] == len(inbox.messages) < 50, "the limit, and what the last batch brought"
        seen = 0
        while seen < 300:
            fresh = inbox.wait(lambda all: len(all) > seen)[seen:]  # noqa: B023
            assert len(fresh) < 60
            seen += len(fresh)
            here.done([message.token for message in fresh])
        assert [message.payload for message in inbox.messages] == [b"%d" % number for number in range(300)]
    finally:
        here.stop()
        meter.disconnect()
        meter.loop_stop()
        broker.stop()


def test_a_link_that_does_not_read_notices_that_the_broker_is_gone(
        broker: Mosquitto, meter: paho.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mqtt, "UNDONE_MESSAGES", 3)
    inbox = Inbox()
    here = link(broker, inbox, ["a/#"])
    until(lambda: here.subscribed)
    for number in range(9):
        meter.publish("a/1", b"%d" % number, qos=1)
    inbox.payloads(3)
    broker.stop()
    until(lambda: not here.connected)
    broker.start()
    until(lambda: here.connected)
    done: set[bytes] = set()
    seen, limit = 0, time.monotonic() + BOUND_S
    while done != {b"%d" % number for number in range(9)}:
        assert time.monotonic() < limit, done
        fresh = inbox.messages[seen:]
        seen += len(fresh)
        here.done([message.token for message in fresh])
        done |= {message.payload for message in fresh}
        time.sleep(0.005)
    here.stop()


@pytest.mark.parametrize("is_busy", [False, True])
def test_the_connection_is_kept_alive_busy_or_idle(
        broker: Mosquitto, meter: paho.Client, monkeypatch: pytest.MonkeyPatch, is_busy: bool) -> None:
    """paho sees nothing of the messages that are taken past it, and of the broker's answers to its pings everything."""
    monkeypatch.setattr(mqtt, "KEEPALIVE_S", 1)
    inbox = Inbox()
    here = link(broker, inbox, ["a/+/envelope"])
    until(lambda: here.subscribed)
    seen, end = 0, time.monotonic() + 3.5  # three pings; a broker that hears nothing closes after one and a half
    while time.monotonic() < end:
        if is_busy:
            meter.publish("a/1/envelope", bytes(400), qos=1).wait_for_publish(BOUND_S)
            fresh = inbox.wait(lambda all: len(all) > seen)[seen:]  # noqa: B023
            seen += len(fresh)
            here.done([message.token for message in fresh])
        time.sleep(0.02)
    assert (here.connected, here.connections, here.last_error) == (True, 1, "")
    here.stop()


def test_newest_of_a_topic_waits_for_a_broker_that_is_away(broker: Mosquitto) -> None:
    inbox, listener = Inbox(), Inbox()
    broker.stop()
    here = link(broker, inbox, [])
    for number in range(10):
        here.publish("g/ack", b"%d" % number)
        here.publish("g/reply", b"%d" % number, newest_only=False)
        here.publish("g/header", b"h%d" % number, retain=True)
    broker.start()
    until(lambda: here.status()["published"] == 12)
    other = Link(1, broker.url, "listener", ["g/#"], listener.take, clock=RealClock(), chance=random.Random(2))
    other.start()
    assert listener.payloads(1) == [b"h9"]
    assert listener.messages[0].retained
    here.publish("g/ack", b"now")
    assert listener.payloads(2)[1] == b"now"
    here.stop()
    other.stop()


def test_outgoing_queue_is_bounded(broker: Mosquitto, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mqtt, "OUT_MESSAGES", 5)
    broker.stop()
    here = link(broker, Inbox(), [])
    for number in range(8):
        here.publish(f"g/{number}", b"")
    assert (here.status()["waiting"], here.status()["dropped"]) == (5, 3)
    here.stop()


def test_two_brokers_one_of_them_away(broker: Mosquitto, meter: paho.Client) -> None:
    inbox = Inbox()
    both = Brokers(["mqtt://127.0.0.1:1", broker.url], "gateway", ["a/#"], inbox.take, clock=RealClock(),
                   chance=random.Random(3))
    both.start()
    until(lambda: both.links[1].subscribed)
    both.publish("a/mine", b"echo")
    assert inbox.payloads(1) == [b"echo"]
    assert inbox.messages[0].token.broker == 1
    both.done([inbox.messages[0].token])
    until(lambda: both.links[1].status()["undone"] == 0)
    until(lambda: both.status()[0]["last_error"] != "")
    assert [row["connected"] for row in both.status()] == [False, True]
    both.stop()


def test_urls() -> None:
    assert parse_url("mqtts://gw.example") == ("mqtts", "gw.example", 8883)
    assert parse_url("mqtt://127.0.0.1:1884") == ("mqtt", "127.0.0.1", 1884)
    for bad in ("mqtt://gw.example", "http://127.0.0.1", "mqtts://", "mqtts://h/p", "127.0.0.1:1883"):
        with pytest.raises(ValueError):
            parse_url(bad)
    with pytest.raises(ValueError):
        Link(0, "mqtts://h", "x", [], print, clock=RealClock(), chance=random.Random(0))
