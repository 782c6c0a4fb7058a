"""Other people's masters agree with the agent: libmodbus and pymodbus word for word, mbpoll and pysunspec2 by value.

The same simulated meters, the same moment; what `meter read` says is compared with what the others were told.
"""

from __future__ import annotations

import asyncio
import importlib
import re
import subprocess
import tomllib
from collections.abc import Iterator

import pytest

from deploy import meter_scan
from firmware import bus, config, meters, modbus, own
from firmware.board import linux
from firmware.board.linux_bus import open_port
from firmware.decode import entries_of
from firmware.tables import Meter
from sim_hardware.meters import TYPES
from tests import needs
from tests.firmware.served import NOON_MS, ON_PTY, Served
from tests.sim_hardware.bench import meter
from tests.sim_hardware.libmodbus import LibModbus

EVERY = [*meters.TYPES, *(name for name in TYPES if name.startswith("sunspec"))]
UNIT = {name: 1 + index for index, name in enumerate(EVERY)}
LINES = ("tcp", "pty")
# What pysunspec2 calls the points of a model, and our labels; a thousandth of its unit or, for these, a whole one.
POINTS = {"W": "active_power_total", "Hz": "frequency", "WH": "energy_active_export_total",
          "TotWhImp": "energy_active_import_total", "TotWhExp": "energy_active_export_total",
          "TotWhInj": "energy_active_export_total", "TotWhAbs": "energy_active_import_total",
          "PhVphA": "voltage_l1", "VL1": "voltage_l1", "SoC": "state_of_charge"}
WHOLE = ("W", "WH", "TotWhImp", "TotWhExp", "TotWhInj", "TotWhAbs")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    on_tcp, on_pty = (tuple(meter(base + unit, unit, name, "generated:prosumer") for name, unit in UNIT.items())
                      for base in (0, ON_PTY))
    one = Served(tmp_path_factory.mktemp("others"), NOON_MS, on_tcp, on_pty)
    yield one
    one.close()


def table_of(served: Served, name: str, line: str) -> Meter:
    """A shipped table, or for a SunSpec device the one that `meter scan` makes."""
    if not name.startswith("sunspec"):
        return meters.load(name)
    found = meter_scan.find(served.ports[line], [UNIT[name]], [(9600, "N")], lambda text: None, 1)
    _, files = meter_scan.snippet(served.ports[line], found, 1)
    file, text = next(iter(files.items()))
    return own.make(file.removesuffix(".toml"), tomllib.loads(text))


def agent_reads(served: Served, name: str, line: str) -> list[bus.Exchange]:
    """What an agent's own poll of every quantity brings."""
    table = table_of(served, name, line)
    port = open_port(config.Bus(served.ports[line], 9600, "N", 0, 2000, ()))
    try:
        return bus.poll(port, UNIT[name], modbus.plan(table.fields, table.max_registers, table.max_hole), 2, 2000)
    finally:
        port.close()


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("name", EVERY)
def test_libmodbus_is_told_the_same_words(served: Served, name: str, line: str) -> None:
    """Each of the agent's own requests, asked again by the C library."""
    exchanges = agent_reads(served, name, line)
    assert exchanges and not [one.reason for one in exchanges if one.reason]
    host, _, number = served.ports["tcp"].removeprefix("tcp://").rpartition(":")
    master = LibModbus(tcp=(host, int(number))) if line == "tcp" else LibModbus(line=served.ports["pty"])
    with master:
        for one in exchanges:
            assert master.read(UNIT[name], *one.request) == one.words, one.request


@pytest.mark.parametrize("name", ["sdm630", "em24", "b23", "dtsu666"])
def test_mbpoll_shows_what_the_agent_reads(served: Served, name: str) -> None:
    """On the serial line, register by register, as hexadecimal words."""
    program = needs.program("mbpoll")
    for row in linux.meter_read(served.ports["pty"], name, UNIT[name], 9600, "N", 2000)[:6]:
        done = subprocess.run(
            [program, "-m", "rtu", "-b", "9600", "-P", "none", "-a", str(UNIT[name]), "-0", "-r", str(row.address),
             "-c", str(len(row.words)), "-t", {3: "4", 4: "3"}[row.function] + ":hex", "-1", "-q", served.ports["pty"]],
            capture_output=True, text=True, timeout=20)
        shown = re.findall(r"^\[\d+\]:\s+0x([0-9A-F]{4})", done.stdout, re.M)
        assert [word.lower() for word in shown] == row.words, (row.label, done.stdout, done.stderr)


@pytest.mark.parametrize("name", [name for name in EVERY if name.startswith("sunspec")])
def test_pysunspec2_s_scan_agrees_with_the_agent(served: Served, name: str) -> None:
    try:
        client = importlib.import_module("sunspec2.modbus.client")
    except ImportError:
        needs.missing("pysunspec2", "pip install pysunspec2")
    table = table_of(served, name, "tcp")
    requests = modbus.plan(table.fields, table.max_registers, table.max_hole)
    entries, _ = entries_of(table.fields, bus.registers_of(agent_reads(served, name, "tcp"), requests))
    mine = {field.label: entry.value for field, entry in zip(table.fields, entries)}
    host, _, number = served.ports["tcp"].removeprefix("tcp://").rpartition(":")
    device = client.SunSpecModbusClientDeviceTCP(slave_id=UNIT[name], ipaddr=host, ipport=int(number))
    compared = 0
    try:
        device.scan()
        for model, found in device.models.items():
            for point, label in POINTS.items():
                one = getattr(found[0], point, None) if isinstance(model, int) and 100 < model < 64000 else None
                if one is None or one.cvalue is None or mine.get(label) is None:
                    continue
                if (point == "SoC") is (model in (713, 802)):
                    sign = -1 if point == "W" and model in (101, 102, 103, 701) else 1  # an inverter gives
                    scale = 1 if point in WHOLE else 10 if point == "SoC" else 1000
                    assert round(sign * one.cvalue * scale) == mine[label], (model, point)
                    compared += 1
    finally:
        device.close()
    assert compared >= 4, "model 1 alone is no scan"


def test_pymodbus_through_the_line_behind_tcp() -> None:
    """RTU frames through TCP: another master and the agent see the same."""
    from pymodbus import FramerType
    from pymodbus.client import AsyncModbusTcpClient

    from sim_hardware.config import BusConfig, SimConfig
    from tests.firmware.served import Running
    from tests.sim_hardware.bench import HandClock

    running = Running(SimConfig((BusConfig((meter(1, 7, "sdm630"),), rtu_tcp=("127.0.0.1", 0), baud=19200),), seed=7,
                                step_s=60), HandClock(NOON_MS, speed=50))
    host, _, number = running.facts[0]["rtu_tcp"].rpartition(":")

    async def ask(first: int, count: int) -> list[int]:
        client = AsyncModbusTcpClient(host, port=int(number), framer=FramerType.RTU, timeout=2, retries=0)
        assert await client.connect()
        try:
            return list((await client.read_input_registers(first, count=count, device_id=7)).registers)
        finally:
            client.close()
    try:
        rows = linux.meter_read(f"rtu+tcp://{host}:{number}", "sdm630", 7, 19200, "N", 1000)
        for row in rows[:10]:
            assert [f"{word:04x}" for word in asyncio.run(ask(row.address, len(row.words)))] == row.words
    finally:
        running.close()


def test_a_machine_without_libmodbus_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.sim_hardware import libmodbus

    monkeypatch.setattr(libmodbus, "NAMES", ("libmodbus-that-nobody-has.so",))
    monkeypatch.setattr("ctypes.util.find_library", lambda name: None)
    with pytest.raises(pytest.skip.Exception, match="missing: libmodbus"):
        libmodbus.library()
