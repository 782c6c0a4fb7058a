"""Checks a board's link to its brokers in MicroPython: it comes back, changes over, and is rid of what is no broker."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest

from tests.firmware.live import broker, free_port, wait_for
from tests.micropython.interpreter import HERE, VERSIONS, command, stock

TOPIC = "gridseal/1/home/0123456789abcdef/"
SECONDS = 30


class Board:
    """The link's process; `lines` are what it says, as they come."""

    def __init__(self, interpreter: Path, urls: list[str]) -> None:
        self.child = subprocess.Popen(command(interpreter, HERE / "scripts" / "link.py", str(SECONDS), *urls),
                                      stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.lines: list[str] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def wait(self, text: str, count: int = 1) -> None:
        wait_for(lambda: sum(text in line for line in self.lines) >= count, f"{text} in {self.lines}", 20)

    def end(self) -> int:
        code = self.child.wait(20)
        self._thread.join(5)
        return code

    def _read(self) -> None:
        assert self.child.stdout is not None
        for line in self.child.stdout:
            self.lines.append(line.rstrip())


@pytest.fixture(params=VERSIONS)
def start(request: pytest.FixtureRequest) -> Iterator[Callable[[list[str]], Board]]:
    interpreter = stock(request.param)
    made: list[Board] = []

    def make(urls: list[str]) -> Board:
        made.append(Board(interpreter, urls))
        return made[-1]

    yield make
    for one in made:
        one.child.kill()
        one.child.wait()


@contextlib.contextmanager
def listener(answer: bytes) -> Iterator[str]:
    """Something that is no broker: it takes connections, and says one thing to each."""
    taken: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    taken.append(server.accept()[0])
                    taken[-1].sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        yield f"mqtt://127.0.0.1:{server.getsockname()[1]}"
    for one in taken:
        one.close()


def say(port: int, *payloads: bytes) -> None:
    """Publishes to the board's ack topic."""
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
    client.connect("127.0.0.1", port)
    client.loop_start()
    for payload in payloads:
        client.publish(TOPIC + "ack", payload, 1).wait_for_publish(10)
    client.disconnect()
    client.loop_stop()


def test_a_broker_that_was_away_is_found_again(tmp_path: Path, start: Callable[[list[str]], Board]) -> None:
    port = free_port()
    with broker(tmp_path, port) as first:
        board = start([f"mqtt://127.0.0.1:{port}"])
        board.wait("event ('published', 1)")
        first.kill()
        first.wait()
        board.wait("event ('disconnected',)")
        board.wait("cannot be reached")
    with broker(tmp_path, port):
        board.wait("event ('published', 2)")
        say(port, bytes(5000), b"after it", b"stop")
        assert board.end() == 0
    assert [line.partition(" ")[2] for line in board.lines if line.startswith("event")] == [
        "('connected', 0)", "('published', 1)", "('disconnected',)", "('connected', 0)", "('published', 2)",
        f"('message', '{TOPIC}ack', b'after it')", f"('message', '{TOPIC}ack', b'stop')"]
    assert sum("too large for this board" in line for line in board.lines) == 1
    assert sum("cannot be reached" in line for line in board.lines) == 1, "not the same line at every try"
    assert board.lines[-1] == "end [('disconnected',)]"


def test_what_is_no_broker_is_left_for_the_next(tmp_path: Path, start: Callable[[list[str]], Board]) -> None:
    """A dead port, a server of something else, a broker that refuses; then a real one."""
    port = free_port()
    with (broker(tmp_path, port), listener(b"HTTP/1.1 400 Bad Request\r\n\r\n") as other,
          listener(b"\x20\x02\x00\x05") as refusing):
        board = start([f"mqtt://127.0.0.1:{free_port()}", other, refusing, f"mqtt://127.0.0.1:{port}"])
        board.wait("event ('published', 1)")
        say(port, b"stop")
        assert board.end() == 0
    text = "\n".join(board.lines)
    assert "breaks the protocol" in text and "refused: not authorised" in text and "cannot be reached" in text
    assert text.count("('connected', 3)") == 1


def test_a_broker_is_left_on_demand(tmp_path: Path, start: Callable[[list[str]], Board]) -> None:
    """The outbox asks for it when nobody acks; without another the same one is met again, and no will was published."""
    port = free_port()
    heard: list[str] = []
    with broker(tmp_path, port):
        watcher = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
        watcher.on_message = lambda _client, _data, message: heard.append(message.topic.rpartition("/")[2])
        watcher.connect("127.0.0.1", port)
        watcher.subscribe(TOPIC + "#")
        watcher.loop_start()
        board = start([f"mqtt://127.0.0.1:{port}"])
        board.wait("event ('published', 1)")
        say(port, b"change")
        board.wait("event ('published', 2)")
        say(port, b"stop")
        assert board.end() == 0
        wait_for(lambda: heard.count("ack") == 2, "what was said")
        watcher.loop_stop()
    assert any("left for the next" in line for line in board.lines)
    assert heard.count("envelope") == 2 and "death" not in heard
