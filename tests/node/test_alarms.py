"""Alarms: who publishes, what is not said twice, and what is said again."""

import json
from typing import Any

from gateway import alarms
from gateway.alarms import REPEAT_S, TURN_MS, Alarms
from gateway.dispatch.records import DeviceRecord
from gateway.silence import Silence

BAD = {"device": "bay-1", "state": "raised", "outcome": "MISMATCH", "height": 7}
GOOD = {**BAD, "state": "cleared", "outcome": "MATCH", "height": 9}


class HandClock:
    """Both times stand still until a test moves them."""

    def __init__(self) -> None:
        self.label_ms, self.wait_ms = 1_000_000, 0

    def now_ms(self) -> int:
        return self.label_ms

    def monotonic_ms(self) -> int:
        return self.wait_ms


class Board:
    """A broker's retained messages, and replicas that hear them."""

    def __init__(self, replicas: int):
        self.clock = HandClock()
        self.published: list[tuple[str, Any]] = []
        self.replicas = [Alarms("home", index, self.clock, self.publish) for index in range(replicas)]

    def publish(self, topic: str, payload: bytes) -> None:
        self.published.append((topic, json.loads(payload)))
        for one in self.replicas:
            one.seen(topic.rpartition("/")[2], payload)

    def wait(self, wait_ms: int, label_ms: int = 0) -> None:
        self.clock.wait_ms += wait_ms
        self.clock.label_ms += label_ms
        for one in self.replicas:
            one.tick()


def test_whose_report_it_was_speaks_and_the_others_are_silent() -> None:
    board = Board(4)
    for index in (0, 1, 3, 2):
        board.replicas[index].tell("bay-1", BAD, is_ours=index == 3)
    for _ in range(10):
        board.wait(TURN_MS)
    assert board.published == [("gridseal/1/home/alarm/bay-1", BAD)]
    for index in range(4):
        board.replicas[index].tell("bay-1", BAD, is_ours=index == 3)
        assert board.replicas[index].raised() == [BAD]
        board.replicas[index].tell("bay-1", GOOD, is_ours=index == 3)
        assert board.replicas[index].raised() == []
    board.wait(10 * TURN_MS)
    assert [facts["state"] for _, facts in board.published] == ["raised", "cleared"]


def test_another_one_speaks_when_the_first_is_dead() -> None:
    board = Board(3)
    for index in (1, 2):
        board.replicas[index].tell("bay-1", BAD, is_ours=False)
    board.wait(TURN_MS)
    assert not board.published
    for _ in range(5):
        board.wait(TURN_MS)
    assert len(board.published) == 1


def test_what_stands_is_raised_again() -> None:
    board = Board(3)
    for one in board.replicas:
        one.tell("bay-1", BAD, is_ours=one is board.replicas[0])
        one.tell("bay-2", {**GOOD, "device": "bay-2"}, is_ours=one is board.replicas[0])
    del board.published[:]
    board.wait(0, REPEAT_S * 1000 - 1)
    assert not board.published
    board.wait(0, 1)
    for _ in range(5):
        board.wait(TURN_MS)
    assert [facts["device"] for _, facts in board.published] == ["bay-1"], "once, by one; what is over is over"


def test_after_a_restart_what_is_there_is_not_said_again() -> None:
    board = Board(1)
    board.replicas[0].seen("bay-1", json.dumps(BAD, separators=(",", ":")).encode())
    board.replicas[0].tell("bay-1", BAD)
    assert not board.published
    board.replicas[0].tell("bay-1", GOOD)
    assert len(board.published) == 1


def test_words_and_bounds(monkeypatch: Any) -> None:
    monkeypatch.setattr(alarms, "ALARMS", 3)
    board = Board(1)
    board.replicas[0].note("evidence", "a header that is not ours", "2026-06-20T00:00:00Z")
    assert board.published[0][1] == {"alarm": "evidence", "state": "raised", "text": "a header that is not ours",
                                     "since": "2026-06-20T00:00:00Z"}
    for number in range(9):
        board.replicas[0].tell(f"d{number}", BAD)
        board.replicas[0].seen(f"x{number}", b"anything")
    assert len(board.replicas[0].raised()) == 3


def test_a_replica_that_falls_silent(monkeypatch: Any) -> None:
    """Three promises broken and a minute gone: once, and again only after a report came between."""
    clock = HandClock()
    silence = Silence(clock)
    record = DeviceRecord("MATCH", None, None, None, 1000, 1, 5, None, clock.label_ms // 1000 - 10_000, 9, bytes(8),
                          bytes(32), 900, [])

    def wait(seconds: int) -> bool:
        clock.label_ms += seconds * 1000
        clock.wait_ms += seconds * 1000
        return silence.is_news("bay-1", record)

    assert not wait(0) and not wait(2690), "what was before the start is not counted"
    assert wait(20) and not wait(20) and silence.heard("bay-1") and not silence.heard("bay-1")
    record = record._replace(time_s=clock.label_ms // 1000)
    assert not wait(2690) and wait(20)
    silence.heard("bay-1")
    record = record._replace(time_s=clock.label_ms // 1000)
    clock.label_ms += 100_000_000
    clock.wait_ms += 50_000
    assert not silence.is_news("bay-1", record), "a demo's labels run fast"
