"""Polls over real lines: pymodbus' server on TCP and a pseudo-terminal, faults, drips, and what the wire carried."""

from __future__ import annotations

import contextlib
import os
import pty
import socket
import struct
import threading
import time
import tty
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware import bus, config, meters, modbus
from firmware.board import linux
from firmware.board.linux_bus import Port, SerialPort, TcpPort, open_port
from firmware.decode import entries_of
from tests.firmware.live import Day, fault, simulator

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
unit = 3
type = "sdm630"
"""


class Lines:
    """Where the simulated meters are."""

    def __init__(self, folder: Path, facts: dict[str, object]) -> None:
        buses = facts["buses"]
        assert isinstance(buses, list)
        self.tcp = "tcp://" + buses[0]["tcp"]
        self.pty = buses[1]["pty"]
        self.control = str(facts["control"])


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lines]:
    folder = tmp_path_factory.mktemp("bus")
    day = Day(folder, ())
    with simulator(folder, day.folder, SIM.format(folder=folder)) as facts:
        yield Lines(folder, facts)
    day.close()


def poll(port: str, unit: int, name: str, attempts: int = 1) -> list[bus.Exchange]:
    table = meters.load(name)
    line = open_port(config.Bus(port, 9600, "N", 0, 300, ()))
    try:
        return bus.poll(line, unit, modbus.plan(table.fields, table.max_registers, table.max_hole), attempts, 300)
    finally:
        line.close()


def test_every_value_of_every_meter_over_tcp_and_pty(lines: Lines) -> None:
    for port, unit, name in ((lines.tcp, 1, "sdm120"), (lines.tcp, 2, "pzem004t"), (lines.pty, 3, "sdm630")):
        rows = linux.meter_read(port, name, unit, 9600)
        assert len(rows) == len(meters.load(name).fields)
        assert not [row.label for row in rows if row.missing]
        volts = next(row for row in rows if row.label == "voltage_l1")
        assert volts.value is not None and 180_000 < volts.value < 260_000
        assert all(len(row.words) == next(f.count for f in meters.load(name).fields if f.label == row.label)
                   for row in rows)


@pytest.mark.parametrize(("text", "reason"), [
    ("no_answer", "no_answer"), ("exception 4", "exception_4"), ("late 400", "no_answer")])
def test_faults_have_their_reasons(lines: Lines, text: str, reason: str) -> None:
    with fault(lines.control, f"1 {text}"):
        assert {exchange.reason for exchange in poll(lines.tcp, 1, "sdm120")} == {reason}
    time.sleep(0.45)  # a late answer is on its way; the next poll must not take it
    assert {exchange.reason for exchange in poll(lines.tcp, 1, "sdm120")} == {None}


def test_a_wrong_crc_on_the_serial_line(lines: Lines) -> None:
    with fault(lines.control, "3 wrong_crc"):
        exchanges = poll(lines.pty, 3, "sdm630", attempts=2)
    assert {exchange.reason for exchange in exchanges} == {"crc"}
    assert len(exchanges) == 2 * len({exchange.request for exchange in exchanges}), "each was tried twice"


def test_a_unit_that_nobody_has_costs_one_request(lines: Lines) -> None:
    start = time.monotonic()
    exchanges = poll(lines.tcp, 9, "sdm120")
    assert [exchange.reason for exchange in exchanges] == ["no_answer"]
    assert time.monotonic() - start < 1.0


class Other:
    """The other end of a line, answering by hand; `seen` is everything that was sent to it."""

    def __init__(self, framing: str, answer_parts: list[tuple[float, bytes]]) -> None:
        self.seen = b""
        self._parts = answer_parts
        if framing == modbus.TCP:
            listener = socket.create_server(("127.0.0.1", 0))
            self.port: Port = TcpPort("127.0.0.1", listener.getsockname()[1], 0)
            self.port.open()
            self._file = listener.accept()[0].detach()
            listener.close()
        else:
            self._file, name = pty.openpty()
            tty.setraw(self._file)
            self.port = SerialPort(os.ttyname(name), 19200, "N", 0)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self.seen += os.read(self._file, 300)
        for pause_s, data in self._parts:
            time.sleep(pause_s)
            with contextlib.suppress(BrokenPipeError):  # the line was closed over the babble
                os.write(self._file, data)

    def close(self) -> None:
        self._thread.join(5)
        self.port.close()
        os.close(self._file)


def answer_to_one_read() -> bytes:
    body = bytes((1, 4, 4)) + struct.pack(">f", 5.0)
    return body + struct.pack("<H", modbus.crc16(body))


def test_an_answer_in_pieces_is_taken() -> None:
    whole = answer_to_one_read()
    other = Other(modbus.RTU, [(0.02, whole[:2]), (0.02, whole[2:6]), (0.02, whole[6:])])
    found = bus.poll(other.port, 1, [(4, 0, 2)], 1, 300)
    other.close()
    assert found[0].words == list(struct.unpack(">HH", struct.pack(">f", 5.0)))
    assert found[0].answer == whole and found[0].frame == other.seen


@pytest.mark.parametrize("framing", [modbus.RTU, modbus.TCP])
def test_a_slow_drip_ends_at_the_deadline(framing: str) -> None:
    """One byte every 100 ms for ever: the poll is over after its budget, not after the last byte."""
    other = Other(framing, [(0.1, b"\x01")] * 12)
    start = time.monotonic()
    found = bus.poll(other.port, 1, [(4, 0, 2)], 1, 200)
    took = time.monotonic() - start
    other.close()
    assert found[0].reason == "length" and took < 0.6


def test_babble_is_cut_off() -> None:
    other = Other(modbus.RTU, [(0.0, b"\xff" * 900)])
    found = bus.poll(other.port, 1, [(4, 0, 2)], 1, 200)
    other.close()
    assert found[0].words is None and len(found[0].answer) < 600


def test_a_closed_line_is_a_fault_and_opens_again() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    number = listener.getsockname()[1]
    port = TcpPort("127.0.0.1", number, 0)
    port.open()
    listener.accept()[0].close()
    listener.close()
    assert bus.poll(port, 1, [(4, 0, 2)], 1, 200)[0].reason == "port"
    assert bus.poll(port, 1, [(4, 0, 2)], 1, 200)[0].reason == "port"
    listener = socket.create_server(("127.0.0.1", number))
    end = time.monotonic() + 5
    while time.monotonic() < end and not is_open(port):
        time.sleep(0.05)
    assert is_open(port)
    port.close()
    listener.close()


def is_open(port: TcpPort) -> bool:
    try:
        port.open()
    except OSError:
        return False
    return True


def test_a_late_answer_is_not_taken_for_the_next_ones() -> None:
    """Bytes that were already there before the request are dropped."""
    late = answer_to_one_read()
    other = Other(modbus.RTU, [])
    other.port.open()
    os.write(other._file, late)
    time.sleep(0.05)
    found = bus.poll(other.port, 1, [(4, 0, 2)], 1, 150)
    other.close()
    assert found[0].reason == "no_answer"


def test_only_reading_codes_were_seen_on_the_wire() -> None:
    """Whatever unit, table and fault: what comes out of a port begins with function 3 or 4."""
    for name in meters.TYPES:
        table = meters.load(name)
        requests = modbus.plan(table.fields, table.max_registers, table.max_hole)
        for request in requests:
            other = Other(modbus.RTU, [])
            bus.poll(other.port, 1, [request], 1, 60)
            other.close()
            assert other.seen[1] in (3, 4) and len(other.seen) == 8


def test_the_gap_is_kept_between_requests() -> None:
    whole = answer_to_one_read()
    other = Other(modbus.RTU, [(0.0, whole)])
    other.port.gap_ms = 150
    bus.poll(other.port, 1, [(4, 0, 2)], 1, 200)
    start = time.monotonic()
    other.port.clear()
    assert 0.1 < time.monotonic() - start < 0.4
    other.close()


def test_a_person_is_told_the_unit_of_what_has_none() -> None:
    assert [linux.unit_of(label) for label in ("frequency", "phase_angle_l1", "temperature_inverter", "status")] == [
        "mHz", "mdeg", "mCel", ""]


def test_values_of_the_pzem_match_its_registers(lines: Lines) -> None:
    table = meters.load("pzem004t")
    exchanges = poll(lines.tcp, 2, "pzem004t")
    requests = modbus.plan(table.fields, table.max_registers, table.max_hole)
    registers = bus.registers_of(exchanges, requests)
    entries, quality = entries_of(table.fields, registers)
    values = {entry.name: entry.value for entry in entries}
    assert values["32.7.0"] == 100 * registers[4, 0]
    assert values["1.8.0"] == registers[4, 5] + 65536 * registers[4, 6]
    assert quality == 0


class Slow:
    """A line in its own time: an answer comes `late_ms` after its request, or never; registers hold their address."""

    framing = modbus.RTU
    baud = 9600

    def __init__(self, late_ms: list[int], gap_ms: int = 5) -> None:
        self.gap_ms, self.now_ms, self.asked = gap_ms, 0, 0
        self._late_ms = late_ms  # of one request after the other, again and again; -1: never
        self._coming: list[tuple[int, bytes]] = []

    def clear(self) -> None:
        self.now_ms += self.gap_ms
        self._coming = [(at_ms, data) for at_ms, data in self._coming if at_ms > self.now_ms]

    def write(self, frame: bytes) -> None:
        late_ms = self._late_ms[self.asked % len(self._late_ms)]
        self.asked += 1
        first, count = struct.unpack(">HH", frame[2:6])
        body = bytes((frame[0], frame[1], 2 * count)) + struct.pack(f">{count}H", *range(first, first + count))
        if late_ms >= 0:
            self._coming.append((self.now_ms + late_ms, body + struct.pack("<H", modbus.crc16(body))))

    def read(self, count: int, wait_ms: int) -> bytes:
        end_ms, data = self.now_ms + wait_ms, b""
        self._coming.sort(key=lambda one: one[0])
        while len(data) < count and self._coming and self._coming[0][0] <= end_ms:
            at_ms, rest = self._coming.pop(0)
            self.now_ms = max(self.now_ms, at_ms)
            data += rest[:count - len(data)]
            if len(rest) > count:
                self._coming.insert(0, (at_ms, rest[count:]))
        if len(data) < count:
            self.now_ms = end_ms
        return data

    def pause(self, wait_ms: int) -> None:
        self.now_ms += wait_ms

    def mark(self) -> int:
        return self.now_ms

    def since_ms(self, mark: int) -> int:
        return self.now_ms - mark


@given(st.lists(st.integers(-1, 1500), min_size=1, max_size=5), st.integers(30, 600), st.integers(0, 4000),
       st.integers(1, 3))
def test_a_late_answer_is_never_another_register_s(late_ms: list[int], answer_ms: int, budget_ms: int, attempts: int
                                                   ) -> None:
    """Same unit, same function, same length: nothing tells one answer from the next. And the poll ends in time."""
    line = Slow(late_ms)
    requests = [(4, first, 2) for first in (0, 100, 200, 300)]
    exchanges = bus.poll(line, 1, requests, attempts, answer_ms, 0, budget_ms)
    for one in exchanges:
        assert one.words in (None, [one.request[1], one.request[1] + 1]), (one, late_ms)
    if budget_ms:
        usual_ms = sum(modbus.usual_ms(2, line.baud, line.gap_ms, bus.REPLY_MS) for _ in requests)
        assert line.now_ms <= usual_ms + budget_ms + line.gap_ms
    assert {exchange.reason for exchange in exchanges} <= {None, "no_answer", "length"}


def test_the_budget_ends_a_poll_and_says_so() -> None:
    """Each answer is good and slow: what is not asked any more is missing with a reason, what was read stands."""
    requests = [(4, 100 * number, 2) for number in range(10)]
    slow = Slow([400])
    found = bus.poll(slow, 1, requests, 2, 500, 0, 1000)
    registers = bus.registers_of(found, requests)
    assert 0 < len(found) < 10 and registers[4, 0] == 0 and registers[4, 900] in ("no_answer", "not_asked")
    quick = Slow([40])
    assert len(bus.poll(quick, 1, requests, 2, 500, 0, 100)) == 10, "a healthy meter never feels it"
    lazy = Slow([40], gap_ms=1000)
    assert [one.reason for one in bus.poll(lazy, 1, requests[:1], 2, 500, 0, 100)] == [None], "silence is no delay"
    dead = Slow([-1])
    assert [one.reason for one in bus.poll(dead, 1, requests, 2, 500, 0, 3000)] == ["no_answer"] * 2
    assert [one.reason for one in bus.poll(Slow([-1]), 1, requests[:1], 2, 500, 0, 200)] == ["no_answer"], "no time"


def test_registers_all_ones_are_no_values() -> None:
    exchange = bus.Exchange((4, 0, 2), b"q", b"a", [0xFFFF, 0xFFFF], None)
    assert bus.registers_of([exchange], [(4, 0, 2)]) == {(4, 0): "not_implemented", (4, 1): "not_implemented"}
    exchange = bus.Exchange((4, 0, 2), b"q", b"a", [0xFFFF, 0xFFFE], None)
    assert bus.registers_of([exchange], [(4, 0, 2)]) == {(4, 0): 0xFFFF, (4, 1): 0xFFFE}
