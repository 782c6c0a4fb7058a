"""The agent as a process among real neighbours: simulated meters, Mosquitto, a clock at speed 1200, kill -9.

What the gateway holds in the end is joined with what the simulator wrote down that its meters showed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from firmware import decode, meters, modbus
from firmware.board import linux
from firmware.wire import cbor
from firmware.wire import reading as reading_codec
from sim_hardware.truth import read_truth
from tests.firmware.live import AgentHome, Day, LiveGateway, broker, fault, free_port, simulator, wait_for
from tests.firmware.world import DAY_MS, Chain

MINUTE = 60_000
TYPES = {1: "sdm120", 2: "pzem004t", 3: "sdm630"}
SIM = """
[[bus]]
tcp = "127.0.0.1:0"
[[bus.meter]]
point = 1
unit = 1
type = "sdm120"
[[bus.meter]]
point = 2
unit = 2
type = "pzem004t"
[[bus]]
pty = "{folder}/meter"
baud = 9600
[[bus.meter]]
point = 3
unit = 1
type = "sdm630"
"""
AGENT = """
[[bus]]
port = "tcp://{tcp}"
[[bus.meter]]
point = 1
unit = 1
type = "sdm120"
[[bus.meter]]
point = 2
unit = 2
type = "pzem004t"
[[bus]]
port = "{folder}/meter"
baud = 9600
[[bus.meter]]
point = 3
unit = 1
type = "sdm630"
"""


class Scene:
    """Everything around one agent, and the agent."""

    def __init__(self, folder: Path, brokers: int, **settings: int) -> None:
        self.folder = folder
        self._stack = contextlib.ExitStack()
        self.day = Day(folder)
        self._stack.callback(self.day.close)
        self.chain = Chain(time_ahead_s=1200, late_s=7200)
        self.ports = [free_port() for _ in range(brokers)]
        self.brokers = [self._stack.enter_context(broker(folder, port)) for port in self.ports]
        facts = self._stack.enter_context(simulator(folder, self.day.folder, SIM.format(folder=folder)))
        self.control = facts["control"]
        self.home = AgentHome(folder, self.chain, self.ports,
                              AGENT.format(folder=folder, tcp=facts["buses"][0]["tcp"]), **settings)
        self._stack.callback(self.home.kill)
        self.gateway = LiveGateway(self.chain, self.home.signer.public_key(), self.ports, self.day.keeper.slowest_ms)
        self._stack.callback(self.gateway.close)

    def close(self) -> None:
        self._stack.close()

    def start(self) -> None:
        self.home.start(self.day.folder)

    def wait_acked(self) -> None:
        """All that the agent has sealed is on the chain."""
        def are_equal() -> bool:
            return bool(self.gateway.tips) and not self.gateway.pending and len(self.times(1)) >= len(self.times(2))
        wait_for(are_equal, "acked")

    def times(self, point: int) -> list[int]:
        return sorted(time_ms for who, time_ms in list(self.gateway.readings) if who == point)

    def minutes(self, point: int) -> list[int]:
        return [(time_ms - DAY_MS) // MINUTE for time_ms in self.times(point)]

    def check_truth(self) -> int:
        """Every value the gateway holds is what the meter showed in that minute; returns how many were compared."""
        truth = read_truth(self.folder / "truth.csv")
        compared = 0
        for (point, time_ms), reading in self.gateway.readings.items():
            shown = truth[point, time_ms - time_ms % MINUTE]
            labels = {field.name: field.label for field in meters.load(TYPES[point]).fields}
            for entry in reading.entries:
                if entry.missing is None:
                    assert entry.value == shown[labels[entry.name]], (point, time_ms, entry)
                    compared += 1
        return compared


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Callable[..., Scene]]:
    made: list[Scene] = []

    def make(brokers: int = 1, **settings: int) -> Scene:
        made.append(Scene(tmp_path, brokers, **settings))
        return made[-1]

    yield make
    for one in made:
        errors = one.gateway.errors
        one.close()
        assert not errors, errors


def test_an_ordinary_morning(scene: Callable[..., Scene]) -> None:
    """An hour with details: every minute of each point, once, with what the meter showed; a clean end."""
    one = scene(details_every_s=900)
    one.start()
    one.day.run_until(60)
    wait_for(lambda: all(one.minutes(p)[-1:] == [60] for p in TYPES), "the last reading")
    for point in TYPES:
        billing = [t for t in one.times(point) if reading_codec.value_of(
            one.gateway.readings[point, t], "1.8.0") is not None]
        assert [(t - DAY_MS) // MINUTE for t in billing][-59:] == list(range(2, 61))
    assert one.gateway.doubles == 0
    assert one.check_truth() > 500
    wait_for(lambda: not one.gateway.pending, "all acked")
    assert one.home.stop() == 0
    status = json.loads((one.home.folder / "data" / "status.json").read_text())
    assert status["unacked"] == 0 and status["readings"] > 180 and status["bad_acks"] == 0
    frames = (one.home.folder / "data" / "frames" / "2026-01-01.cbor").read_bytes()
    assert check_frames(frames, one.gateway.readings) > 150
    assert [entry[1] for entry in status["heights"]] == [entry[2] for entry in status["heights"]]


def check_frames(data: bytes, readings: dict[tuple[int, int], reading_codec.Reading]) -> int:
    """The kept frames of a reading hash to what was signed, and replay to its values; returns how many did."""
    at = replayed = 0
    while at < len(data):
        (point, time_ms, frames), at = cbor.decode_from(data, at)
        reading = readings.get((point, time_ms))
        if reading is None:
            continue
        hasher = hashlib.sha256()
        for frame in (part for pair in frames for part in pair):
            hasher.update(len(frame).to_bytes(2, "big") + frame)
        assert hasher.digest() == reading.raw
        registers = {}
        for request, answer in frames:
            framing, cut = (modbus.RTU, slice(1, -2)) if point == 3 else (modbus.TCP, slice(7, None))
            asked = request[cut]
            words = modbus.words_of(asked, modbus.answer_pdu(framing, request, answer))
            for offset, word in enumerate(words):
                registers[asked[0], (asked[1] << 8 | asked[2]) + offset] = word
        group = [f for f in meters.load(TYPES[point]).fields if f.name in {entry.name for entry in reading.entries}]
        assert decode.entries_of(group, registers)[0] == reading.entries
        replayed += 1
    return replayed


def test_kill_9_again_and_again(scene: Callable[..., Scene]) -> None:
    """Killed at four moments of chance: no height with two payloads (the gateway checks each), nothing twice, nothing
    missing, chains without a loss."""
    seed = random.randrange(2**32)
    print("seed", seed)
    chance = random.Random(seed)
    one = scene()
    one.start()
    for stop in (15, 30, 45, 60):
        one.day.keeper.run_until(DAY_MS + stop * MINUTE)
        time.sleep(chance.uniform(0.3, 1.5))
        one.home.kill()
        one.start()
    one.day.run_until(75)
    wait_for(lambda: all(one.minutes(p)[-1:] == [75] for p in TYPES), "the last reading")
    assert one.gateway.doubles == 0
    assert not [found for found in one.gateway.seals if found.lost]
    assert {found.boot for found in one.gateway.seals} <= {1, 2, 3, 4, 5}
    one.check_truth()
    for point in TYPES:
        assert not set(range(2, 76)) - set(one.minutes(point)), "the clock waits for a killed agent"


def test_a_broker_stopped_for_a_while(scene: Callable[..., Scene]) -> None:
    """No broker for most of an hour: every reading of it arrives with its own time, none twice."""
    one = scene()
    one.start()
    one.day.run_until(10)
    wait_for(lambda: one.minutes(1)[-1:] == [10], "before")
    one.brokers[0].terminate()
    one.brokers[0].wait()
    one.day.run_until(60)
    with broker(one.folder, one.ports[0]):
        one.day.run_until(70)
        wait_for(lambda: all(one.minutes(p)[-1:] == [70] for p in TYPES), "after")
        assert all(one.minutes(p)[-69:] == list(range(2, 71)) for p in TYPES)
        assert one.gateway.doubles == 0
        one.check_truth()


def test_changes_over_on_silence_of_acks(scene: Callable[..., Scene]) -> None:
    """The first broker is alive and nobody listens behind it: the agent goes to the second by itself."""
    one = scene(brokers=2, silence_s=1)
    one.gateway._clients[0].disconnect()
    one.start()
    one.day.run_until(30)
    wait_for(lambda: all(one.minutes(p)[-1:] == [30] for p in TYPES), "all of it, by the second broker")
    assert "changing the broker" in one.home.text()
    assert one.gateway.doubles == 0


def test_a_dead_unit_does_not_slow_the_others(scene: Callable[..., Scene]) -> None:
    """Unit 2 dies: its neighbours on the bus and the other bus lose no minute, and it says why it has no value."""
    one = scene()
    one.start()
    one.day.run_until(10)
    with fault(one.control, "2 no_answer"):
        one.day.run_until(40)
    one.day.run_until(41)
    wait_for(lambda: all(one.minutes(p)[-1:] == [41] for p in TYPES), "the last reading")
    for point in (1, 3):
        assert set(range(2, 42)) <= set(one.minutes(point)), "minutes lost through a neighbour"
        values = [reading_codec.value_of(one.gateway.readings[point, t], "1.8.0") for t in one.times(point)]
        assert None not in values
    reasons = {entry.missing for t in one.times(2) if 12 <= (t - DAY_MS) // MINUTE <= 40
               for entry in one.gateway.readings[2, t].entries}
    assert reasons == {"no_answer", "not_asked"}
    assert "unit 2 on bus 0 is silent" in one.home.text()


def test_reading_one_meter_by_hand(scene: Callable[..., Scene]) -> None:
    """`gridseal meter read`'s rows: raw words beside values, on a line nobody else uses just then."""
    one = scene()
    rows = linux.meter_read(str(one.folder / "meter"), "sdm630", 1, 9600)
    energy = next(row for row in rows if row.name == "1.8.0")
    assert energy.unit == "Wh" and len(energy.words) == 2 and energy.value
    with pytest.raises(OSError):
        linux.meter_read(str(one.folder / "no-such-line"), "sdm630", 1)
