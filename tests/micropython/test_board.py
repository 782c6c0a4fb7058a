"""Checks the ESP32's board in the real MicroPython: time, Wi-Fi, UART, key, watchdog, light, safe mode, no encryption.

All but the pins: tests/micropython/lib has `machine`, `network`, `esp32` and `ntptime` with faults that can be set.
"""

import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy import update as packages
from deploy.flash import agent, layout
from deploy.operator import Person
from deploy.update_send import Courier
from firmware import boot, update
from firmware.board import esp32_light
from firmware.board.micro_link import parse_url
from firmware.crypto.openssl import OpenSSLSigner, verify_digest
from firmware.wire import genesis, transaction
from tests.firmware.live import broker, free_port
from tests.firmware.world import Chain
from tests.micropython.boards import AREA, MODEL, OVER, RESET, TIMES, Board, Surrounding, check_chain
from tests.micropython.interpreter import ROOT, Run, stock

PARTS = ROOT / "tests" / "micropython" / "scripts" / "esp32_parts.py"


def lines(micropython: Run, *words: str, **mounts: object) -> list[str]:
    done = micropython(PARTS, *words, **mounts)  # type: ignore[arg-type]
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    return [line for line in done.stdout.splitlines() if not line.startswith("log ")]


def test_time_is_what_most_servers_say_and_nothing_proven_contradicts(micropython: Run) -> None:
    """Quality 0, 1, 2 is U, I, S; behind it how far the clock is off. The chip's epoch is 2000."""
    assert lines(micropython, "time") == [
        "epoch 2000 946684800 946684800", "power-on 0 True", "asked without a network 0", "nobody answers 0",
        "two of three lie about the past 0 -853315200", "one of three lies 2 0", "chip 0 (2027, 1, 15)",
        "all lie, first round 1 0", "second round 1 0", "the truth again 2 0", "earlier than a signed header 1 0",
        "a day without an answer 1 0", "ticks wrap True", "after a restart 1"]


def test_wifi_goes_from_network_to_network_with_pauses(micropython: Run) -> None:
    """Five minutes without one: tries get rarer. A wrong password is not for ever, a lost network comes back."""
    found = lines(micropython, "wifi")
    assert found.pop(0) == "absent False 16"
    assert found == ["wrong password False", "there True", "gone False", "another True one", "no networks False"]


def test_the_watchdog_is_fed_by_progress_only(micropython: Run) -> None:
    assert lines(micropython, "watch") == [
        "due soon True wifi", "late by half a minute True", "late, but a poll has ended True",
        "late, and no poll ends False", "polls under way for ever False"]


def test_the_light_shows_what_the_page_says(micropython: Run) -> None:
    found = lines(micropython, "light")
    assert found[-1] == "meter good None"
    page = (ROOT / "docs" / "board.md").read_text()
    table = dict(re.findall(r"^\| `(\w+)` \| `([#.]{16})` \|", page, re.M))
    assert table == dict(line.split() for line in found[:-1]) and set(table) == set(esp32_light.PATTERNS)


def test_the_key_is_made_on_the_board_and_stays_there(tmp_path: Path, micropython: Run) -> None:
    chain = Chain()
    (tmp_path / "genesis.cbor").write_bytes(chain.genesis)
    message, is_same, size, leaks = lines(micropython, "enrol", mounts={tmp_path: "/board"})[0].split()
    kid, asked = transaction.decode_enrolment(bytes.fromhex(message), genesis.chain_id(chain.genesis), verify_digest)
    assert (asked.role, asked.area, asked.model, asked.key_protection) == ("agent", "home", "esp32", "software")
    assert asked.tls_hash == bytes(range(32)) and (is_same, size, leaks) == ("True", "32", "False")


def test_encryption_is_left_out_on_private_networks_only_and_only_where_the_settings_say_so() -> None:
    for url in ("mqtt://192.168.1.7:1883", "mqtt://10.0.0.2:1883", "mqtt://172.16.0.9:1883", "mqtt://hub.local:1883"):
        assert parse_url(url, True)[0] is False
        with pytest.raises(ValueError, match="without encryption"):
            parse_url(url)
    for url in ("mqtt://8.8.8.8:1883", "mqtt://172.32.0.1:1883", "mqtt://example.org:1883", "mqtt://10.0.0.2.a.org:1"):
        with pytest.raises(ValueError, match="without encryption"):
            parse_url(url, True)


class Scene:
    """An area with one board, and a signed package of this firmware."""

    def __init__(self, folder: Path) -> None:
        self.surrounding = Surrounding(folder, ["one", "two"]).start()
        self.signer = OpenSSLSigner.load(self.surrounding.area / "operator" / "signing.key")
        self.files = agent.build(["sdm120"])
        self.package = self.make(1)

    def make(self, counter: int) -> packages.Package:
        return packages.sign_package(packages.make_package(self.files, MODEL, counter), self.signer,
                                     self.surrounding.chain_id)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    made = Scene(tmp_path_factory.mktemp("board"))
    yield made
    made.surrounding.close()


def test_the_uart_drives_the_transceiver_and_takes_its_echo_off(scene: Scene, micropython: Run) -> None:
    found = lines(micropython, "uart", scene.surrounding.lines[0])
    assert found == [
        "BadConfig uart0:tx=1,rx=3", "BadConfig uart1:tx=17", "BadConfig uart1:tx=17,rx=16,re=4",
        "BadConfig uart1:tx=a,rx=1", "BadConfig /dev/ttyUSB0", "echo False [None, None] [0, 1, 0, 1, 0]",
        "echo True [None, None] [0, 1, 0, 1, 0]",
        "uart [('baudrate', 9600), ('bits', 8), ('parity', 0), ('stop', 1), ('tx', 17), ('rx', 16), ('timeout', 0)]",
        "closed closed"]


def test_a_board_that_crashes_again_and_again_is_reachable_in_safe_mode(scene: Scene) -> None:
    """It cannot run: its journal's partition is missing. Five crashes, then network and update without metering; the
    sixth ordinary start after it. A version that is sent meanwhile is taken."""
    board = Board(scene.surrounding, "one", stock("1.27"))
    board.flash(packages.slot_image(scene.package))
    flash = board.home / "flash" / "flash.bin"
    data = bytearray(flash.read_bytes())
    table = layout.make_table([part for part in layout.layout(len(data)) if part.label != "journal"])
    data[layout.TABLE_AT:layout.TABLE_AT + len(table)] = table
    flash.write_bytes(data)
    assert [board.start() for _ in range(6)] == [RESET] * 6
    crash, safe = board.starts[4][1], board.starts[5][1]
    assert "IndexError" in crash and "SAFE MODE" not in crash
    assert "SAFE MODE" in safe and "IndexError" in safe and "connected" in safe
    said = [update.decode_query(payload) for kid, payload in scene.surrounding.said if kid == board.kid]
    assert [one[3] for one in said] == ["safe"] and "IndexError" in said[0][4]
    assert not scene.surrounding.seals(board.kid), "nothing is sealed in safe mode"
    assert (board.record() or [])[boot.TRIES] == boot.CRASHES - 2
    assert board.start() == RESET and "SAFE MODE" not in board.starts[-1][1]
    assert board.start() == RESET and "SAFE MODE" not in board.starts[-1][1]
    package = scene.make(2)
    longer = {**TIMES, "firmware.board.esp32_safe.SAFE_MS": 60000}
    thread = threading.Thread(target=board.start, kwargs={"times": longer})
    area = scene.surrounding.area
    with Courier(Person(area), AREA, [scene.surrounding.url], package.manifest, package.stream, 2) as courier:
        heard: list[str] = []
        thread.start()
        courier.serve([board.kid], heard.append, silent_s=60, trial_s=1, offer_s=0.3)
    thread.join()
    assert heard and "SAFE MODE" in board.starts[-1][1], board.said()
    assert (board.record() or [])[:6] == [1, 1, False, 0, 1, 2]


def test_without_encryption_is_said_in_log_and_status(tmp_path: Path, scene: Scene) -> None:
    """The flagged fallback: the broker is asked for in the clear; seals wait in the journal while none is there."""
    port = free_port()
    board = Board(scene.surrounding, "two", stock("1.23"), more={"brokers": [f"mqtt://127.0.0.1:{port}"],
                                                                "plain_mqtt": True})
    board.flash(packages.slot_image(scene.package))
    with broker(tmp_path, port):
        assert board.start(seconds=13) == OVER
    out = board.starts[0][1]
    assert "MQTT WITHOUT ENCRYPTION" in out and f"mqtt://127.0.0.1:{port}: connected" in out
    status = (board.home / "vfs" / "data" / "status.json").read_text()
    assert f'"without_encryption": ["mqtt://127.0.0.1:{port}"]' in status


def test_outages_of_wifi_and_time_cost_no_reading(scene: Scene) -> None:
    """Power-on without any network: readings are stored with clock state U; with the network they are sent, in order,
    each with its own time."""
    one = Board(scene.surrounding, "two", stock("1.27"), home=scene.surrounding.folder / "again")
    one.flash(packages.slot_image(scene.package))
    assert one.start(seconds=5, networks={}) == OVER and "synchronised" not in one.starts[0][1]
    start_s = time.monotonic()
    assert one.start(seconds=8, epoch=int(time.time()) - 5) == OVER
    found = scene.surrounding.seals(one.kid)
    check_chain(found, scene.surrounding.chain_id)
    states = [payload.seal.flags & 3 for payload in found]
    assert 0 in states and 2 in states and states == sorted(states), states
    assert all(payload.at_s >= start_s for payload in found)
