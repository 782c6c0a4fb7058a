"""Checks the boards' MQTT client: against a real Mosquitto, against any bytes, and against any cut of the stream."""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware import mqtt
from firmware.wire.errors import Refused
from tests.firmware.live import broker, free_port

TOPIC = "gridseal/1/home/0123456789abcdef/"
WAIT_S = 15


class Session:
    """A client on a socket: the part of a board's link that does I/O, at its shortest."""

    def __init__(self, port: int, name: str = "0123456789abcdef", limit: int = mqtt.PACKET_BYTES,
                 keepalive_ms: int = mqtt.KEEPALIVE_MS, subscriptions: tuple[str, ...] = (TOPIC + "ack",)) -> None:
        self.client = mqtt.Client(name, list(subscriptions), (TOPIC + "death", b"gone"), limit, keepalive_ms)
        self.events: list[tuple[Any, ...]] = []
        self._port = port
        self.socket = socket.socket()

    def open(self) -> Session:
        self.socket = socket.create_connection(("127.0.0.1", self._port), WAIT_S)
        self.client.open(now_ms())
        self.events = self.until(lambda event: event == ("up",))[:-1] + self.events  # what waited comes before it
        return self

    def publish(self, topic: str, payload: bytes, token: Any) -> None:
        self.client.publish(topic, payload, token, now_ms())
        self.flush()

    def flush(self) -> None:
        for piece in self.client.take():
            self.socket.sendall(piece)

    def leave(self) -> None:
        """Says goodbye, and waits until the broker has heard it and all before."""
        self.client.goodbye(now_ms())
        self.flush()
        while self.socket.recv(4096):
            pass
        self.socket.close()

    def until(self, is_it: Callable[[tuple[Any, ...]], bool], wait_s: float = WAIT_S) -> list[tuple[Any, ...]]:
        """Works until such an event came; returns all events since the last call."""
        end = time.monotonic() + wait_s
        while True:
            for index, event in enumerate(self.events):
                if is_it(event):
                    found, self.events = self.events[:index + 1], self.events[index + 1:]
                    return found
            assert time.monotonic() < end, f"only {self.events}"
            self.step(0.05)

    def step(self, wait_s: float) -> None:
        self.flush()
        if select.select([self.socket], [], [], wait_s)[0]:
            data = self.socket.recv(977)
            assert data, "the broker has closed"
            self.events += self.client.receive(data, now_ms())
        self.events += self.client.tick(now_ms())


def now_ms() -> int:
    return time.monotonic_ns() // 1_000_000


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    number = free_port()
    with broker(tmp_path_factory.mktemp("mqtt"), number):
        yield number


def published(event: tuple[Any, ...]) -> bool:
    return event[0] == "published"


def test_many_in_flight_come_back_each_once_and_whole(port: int) -> None:
    """A second session hears what the first publishes: topics, bytes and order are as sent, up to the limit."""
    hears = Session(port, "hearer", subscriptions=(TOPIC + "envelope",)).open()
    one = Session(port).open()
    sent = [os.urandom(size) for size in (0, 1, 100, 127, 128, 16300, 16384, 60000, 65400)] * 3
    for number, payload in enumerate(sent):
        one.publish(TOPIC + "envelope", payload, number)
    assert one.client.in_flight() == len(sent)
    tokens: list[int] = []
    while len(tokens) < len(sent):
        tokens += [event[1] for event in one.until(published)]
    assert sorted(tokens) == list(range(len(sent))) and one.client.in_flight() == 0
    heard: list[bytes] = []
    while len(heard) < len(sent):
        heard += [event[2] for event in hears.until(lambda event: event[0] == "message")]
    assert heard == sent


def test_more_than_the_standard_or_the_broker_allows_is_wrong_use(port: int) -> None:
    one = Session(port).open()
    with pytest.raises(ValueError):
        one.publish(TOPIC + "envelope", bytes(mqtt.PACKET_BYTES), 0)
    for number in range(mqtt.WINDOW):
        one.publish(TOPIC + "envelope", b"x", number)
    with pytest.raises(ValueError):
        one.publish(TOPIC + "envelope", b"x", mqtt.WINDOW)
    one.until(lambda event: event == ("published", mqtt.WINDOW - 1))
    one.client.close()
    with pytest.raises(ValueError):
        one.publish(TOPIC + "envelope", b"x", 0)


def test_packet_ids_go_round_and_leave_out_what_is_in_flight(port: int) -> None:
    one = Session(port).open()
    one.client.publish(TOPIC + "envelope", b"", "held", now_ms())
    held = one.client.take()
    one.client._id = 0xFFFE
    for token in range(3):
        one.client.publish(TOPIC + "envelope", b"", token, now_ms())
    ids = [bytes(piece)[-2:].hex() for piece in one.client.take()]
    assert (bytes(held[0])[-2:].hex(), ids) == ("0002", ["ffff", "0003", "0004"])


def test_what_came_while_we_were_away_waits_for_us(port: int) -> None:
    """The session is kept: an ack published meanwhile is delivered after the next CONNECT."""
    name = "away"
    Session(port, name).open().leave()
    other = Session(port, "other").open()
    other.publish(TOPIC + "ack", b"an ack", 1)
    other.until(published)
    assert ("message", TOPIC + "ack", b"an ack") in Session(port, name).open().until(lambda e: e[0] == "message")


def test_the_will_is_published_only_for_a_connection_that_broke(port: int) -> None:
    watcher = Session(port, "watcher", subscriptions=(TOPIC + "death", TOPIC + "birth")).open()
    Session(port, "polite").open().leave()
    Session(port, "marker").open().publish(TOPIC + "birth", b"", 0)
    assert watcher.until(lambda event: event[0] == "message")[0][1] == TOPIC + "birth"
    Session(port, "mortal").open().socket.close()
    assert watcher.until(lambda event: event[0] == "message") == [("message", TOPIC + "death", b"gone")]


def test_a_message_over_the_limit_is_skipped_for_good(port: int) -> None:
    """It is answered, so that the broker does not send it again, and what follows is heard."""
    topic = (TOPIC + "config",)
    one = Session(port, "small", limit=1000, subscriptions=topic).open()
    other = Session(port, "large").open()
    for payload in (bytes(5000), b"after", bytes(950), bytes(970)):
        other.publish(topic[0], payload, 0)
    events = one.until(lambda event: event[0] == "skipped" and event[2] < 2000)
    assert [event[0] for event in events] == ["skipped", "message", "message", "skipped"]
    assert events[0][2] > 5000 and events[1][2] == b"after" and events[2][2] == bytes(950)
    one.leave()
    again = Session(port, "small", limit=1000, subscriptions=topic).open()
    other.publish(topic[0], b"the last", 0)
    assert again.until(lambda event: event[0] == "message") == [("message", topic[0], b"the last")]


def test_pings_keep_a_quiet_connection(port: int) -> None:
    """The broker would close after one and a half of 2 s; here a ping goes out each second and is answered."""
    one = Session(port, "quiet", keepalive_ms=2000, subscriptions=(TOPIC + "update",)).open()
    end = time.monotonic() + 3.1
    while time.monotonic() < end:
        one.step(0.05)
    assert not one.events
    one.publish(TOPIC + "envelope", b"", "alive")
    assert one.until(published) == [("published", "alive")]


def test_a_silent_broker_is_left() -> None:
    """A listener that takes the connection and says nothing: the client gives up by itself."""
    client = mqtt.Client("x", ["a"], ("b", b""))
    client.open(5)
    assert client.next_ms() == 5 + mqtt.ANSWER_MS
    assert client.tick(5 + mqtt.ANSWER_MS - 1) == []
    assert client.tick(5 + mqtt.ANSWER_MS) == [("down", "the broker is silent")]
    assert client.next_ms() is None and not client.is_up()


def test_pings_go_out_after_half_the_time_the_broker_allows() -> None:
    """Nothing sent, or nothing heard: either is a reason; an unanswered one ends the connection."""
    client = mqtt.Client("x", ["a"], ("b", b""), keepalive_ms=8000)
    client.open(0)
    client.receive(UP, 100)
    client.take()
    assert client.next_ms() == 4100 and client.tick(4099) == [] and client.take() == []
    client.publish("t", b"", 1, 4000)
    assert client.tick(4100) == [] and client.take()[1:] == [b"\xc0\0"], "it speaks and hears nothing"
    client.receive(b"\xd0\0\x40\2\0\2", 5000)
    assert client.next_ms() == 8100
    client.receive(answer(0x30, b"\0\1a"), 8000)
    assert client.tick(8100) == [] and client.take() == [b"\xc0\0"], "it hears and says nothing"
    assert client.tick(8100 + mqtt.ANSWER_MS) == [("down", "the broker is silent")]


def test_after_goodbye_there_is_nothing_more() -> None:
    client = mqtt.Client("x", ["a"], ("b", b""))
    client.open(0)
    client.receive(UP, 0)
    client.take()
    client.goodbye(0)
    assert client.take() == [b"\xe0\0"] and not client.is_up() and client.next_ms() is None
    assert client.receive(answer(0x30, b"\0\1a"), 0) == [] and client.tick(10**6) == []
    with pytest.raises(ValueError):
        client.publish("t", b"", 1, 0)


@pytest.mark.parametrize(("before", "frame"), [
    ("", b"\x30\3\0\1a"), ("", b"\x90\3\0\1\1"), ("", b"\xd0\0"), ("", b"\x40\2\0\2"), ("", b"\x20\2\2\0"),
    ("", b"\x20\2\0\6"), ("", b"\x20\3"), ("", b"\x21\2"), ("", b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    ("connack", b"\x20\2\0\0"), ("connack", b"\x90\3\0\2\1"), ("connack", b"\x90\3\0\1\2"),
    ("connack", b"\x90\4"), ("connack", b"\xd0\0"), ("up", b"\x90\3\0\1\1"), ("up", b"\xd0\0"),
    ("up", b"\x40\2\0\7"), ("up", b"\x50\2\0\2"), ("up", b"\x62\2\0\2"), ("up", b"\xb0\2\0\1"),
    ("up", b"\x10\0"), ("up", b"\0\0"), ("up", b"\xf0\0"), ("up", b"\xe0\0"), ("up", b"\x34\5\0\1a\0\1"),
    ("up", b"\x36\5\0\1a\0\1"), ("up", b"\x38\3\0\1a"), ("up", b"\x32\5\0\1a\0\0"), ("up", b"\x32\4\0\1a\0"),
    ("up", b"\x30\2\0\0"), ("up", b"\x30\1\0"), ("up", b"\x30\3\0\2a"), ("up", b"\x30\3\0\1+"),
    ("up", b"\x30\3\0\1#"), ("up", b"\x30\3\0\1\0"), ("up", b"\x30\3\0\1\xff"), ("up", b"\x30\xff\xff\xff\xff"),
])
def test_what_no_broker_sends_is_refused_at_once(before: str, frame: bytes) -> None:
    client = mqtt.Client("x", ["a"], ("b", b""), 300)
    client.open(0)
    client.receive({"": b"", "connack": UP[:4], "up": UP}[before], 0)
    client.publish("t", b"", 1, 0) if before == "up" else None
    with pytest.raises(Refused) as refused:
        client.receive(frame, 0)
    assert refused.value.reason == "malformed"


def test_the_limit_is_exact_and_only_messages_are_skipped() -> None:
    client = mqtt.Client("x", ["a"], ("b", b""), 300)
    client.open(0)
    client.receive(UP, 0)
    whole, over = answer(0x30, b"\0\1a" + bytes(294)), answer(0x30, b"\0\1a" + bytes(295))
    assert (len(whole), len(over)) == (300, 301)
    assert client.receive(whole + over, 0) == [("message", "a", bytes(294)), ("skipped", "a", 298)]
    client = mqtt.Client("x", [str(number) for number in range(400)], ("b", b""), 300)
    client.open(0)
    client.receive(UP[:4], 0)
    with pytest.raises(Refused, match="oversize"):
        client.receive(answer(0x90, b"\0\1" + b"\1" * 400), 0)


def answer(first: int, body: bytes) -> bytes:
    return bytes([first]) + mqtt._length(len(body)) + body


UP = answer(0x20, b"\0\0") + answer(0x90, b"\0\1\1")
PACKETS = st.one_of(
    st.builds(lambda topic, payload: answer(0x30, mqtt._text(topic) + payload), st.sampled_from(["a", "b/ü"]),
              st.binary(max_size=300)),
    st.builds(lambda number, payload: answer(0x32, b"\0\1a" + number.to_bytes(2, "big") + payload),
              st.integers(1, 0xFFFF), st.binary(max_size=700)))


@given(st.lists(PACKETS, max_size=8), st.lists(st.integers(1, 400), min_size=1, max_size=6))
def test_the_stream_may_be_cut_anywhere(packets: list[bytes], cuts: list[int]) -> None:
    whole, pieces = (mqtt.Client("x", ["a"], ("b", b""), 400) for _ in range(2))
    stream = UP + b"".join(packets)
    for client in (whole, pieces):
        client.open(0)
        client.take()
    expected = whole.receive(stream, 0)
    found: list[tuple[Any, ...]] = []
    at = turn = 0
    while at < len(stream):
        step = cuts[turn % len(cuts)]
        found += pieces.receive(stream[at:at + step], 0)
        at, turn = at + step, turn + 1
    assert found == expected and len(found) == 1 + len(packets)
    assert pieces.take() == whole.take()


@given(st.binary(max_size=200), st.sampled_from([b"", UP[:4], UP]), st.integers(1, 50))
def test_any_bytes_are_taken_or_refused(data: bytes, before: bytes, cut: int) -> None:
    """Nothing but Refused comes out, and nothing is held that is larger than the limit and one piece."""
    client = mqtt.Client("x", ["a"], ("b", b""), 300)
    client.open(0)
    client.receive(before, 0)
    client.publish("t", b"", 1, 0) if client.is_up() else None
    try:
        for at in range(0, len(data), cut):
            for event in client.receive(data[at:at + cut], 0):
                assert event[0] in ("up", "published", "message", "skipped", "down")
            assert len(client._received) <= 300 + cut + 5
    except Refused as refused:
        assert refused.reason in ("malformed", "oversize")


@given(st.data())
def test_a_single_changed_byte_of_a_head_is_seen_or_harmless(data: st.DataObject) -> None:
    """PUBACKs decide what the outbox believes: none is taken for a packet that was not in flight."""
    client = mqtt.Client("x", ["a"], ("b", b""), 300)
    client.open(0)
    client.receive(UP, 0)
    for token in range(3):
        client.publish("t", b"", token, 0)
    frame = bytearray(answer(0x40, b"\0\2"))
    frame[data.draw(st.integers(0, 3))] = data.draw(st.integers(0, 255))
    try:
        events = client.receive(bytes(frame), 0)
    except Refused:
        return
    assert events in ([], [("published", 0)], [("published", 1)], [("published", 2)])


def test_the_size_of_a_claim_costs_nothing() -> None:
    client = mqtt.Client("x", ["a"], ("b", b""), 300)
    client.open(0)
    client.receive(UP, 0)
    client.take()
    assert client.receive(b"\x32\xff\xff\xff\x7f\0\1a\0\7" + bytes(500), 0) == [("skipped", "a", (1 << 28) - 1)]
    assert client.take() == [b"\x40\x02\0\7"]
    for _ in range(100):
        assert client.receive(bytes(4096), 0) == []
    assert client._received == b""


def test_brokers_are_tried_in_turn_with_pauses_that_double() -> None:
    retry = mqtt.Retry(2)
    pauses = []
    now = 0
    for turn in range(9):
        retry.ended(now, 0 if turn % 2 else 255)
        pauses.append(retry.at_ms - now)
        now = retry.at_ms
        assert retry.index == (turn + 1) % 2
    assert pauses == [500, 500, 2000, 2000, 8000, 8000, 30000, 15000, 30000]
    retry.stood()
    retry.ended(now, 255)
    assert retry.at_ms - now == 500


def test_a_broker_that_stops_is_noticed(tmp_path: Path) -> None:
    number = free_port()
    with broker(tmp_path, number) as child:
        one = Session(number).open()
        one.publish(TOPIC + "envelope", b"", 1)
        one.until(published)
        child.terminate()
        child.wait(10)
        with pytest.raises((AssertionError, OSError)):
            one.until(lambda event: False, 5)
