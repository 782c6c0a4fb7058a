"""`meter scan` finds simulated meters with nothing but reading requests; `meter types` and docs/METERS.md are true."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from deploy import meter_scan, meter_types
from firmware import bus, config, meters, modbus, scan
from firmware.board import linux, linux_bus
from sim_hardware.config import BusConfig, SimConfig
from sim_hardware.meters import TYPES
from sim_hardware.simulator import Simulator
from tests.sim_hardware.bench import MIDNIGHT_MS, HandClock, meter

ROOT = Path(__file__).resolve().parents[2]
NOON_MS = MIDNIGHT_MS + 12 * 3_600_000
TOP = 'area = "home"\nbrokers = ["mqtts://broker.example:8883"]\n'
UNITS = {name: 1 + index for index, name in enumerate(TYPES)}
STRANGER = replace(TYPES["pzem004t"], fields=(), prepare=None, identity={0: "Nobody", 1: "N1", 2: "1"})


class Running:
    """A simulator in a thread."""

    def __init__(self, settings: SimConfig) -> None:
        self._settings = settings
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        self.ready = asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(20)

    async def _start(self) -> dict[str, object]:
        self.simulator = Simulator(self._settings, HandClock(NOON_MS, speed=600))
        return await self.simulator.start()

    def tcp(self) -> str:
        buses = self.ready["buses"]
        assert isinstance(buses, list)
        return "tcp://" + buses[0]["tcp"]

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self.simulator.close(), self._loop).result(20)
        self._loop.call_soon_threadsafe(self._loop.stop)


@pytest.fixture(scope="module")
def everything() -> Iterator[Running]:
    """One of each type, and one that nobody knows, behind one TCP port."""
    placed = [meter(unit, unit, name, "generated:prosumer") for name, unit in UNITS.items()]
    placed.append(replace(placed[0], point=99, unit=99, type=STRANGER))
    one = Running(SimConfig((BusConfig(tuple(placed), tcp=("127.0.0.1", 0)),), seed=7, step_s=60))
    yield one
    one.close()


@pytest.fixture
def port(everything: Running) -> Iterator[linux_bus.Port]:
    line = linux_bus.open_port(config.Bus(everything.tcp(), 9600, "N", 0, 1000, ()))
    line.open()
    yield line
    line.close()


@pytest.mark.parametrize("name", meters.TYPES)
def test_each_type_is_recognised(port: linux_bus.Port, name: str) -> None:
    found = scan.identify(port, UNITS[name], None)
    assert found.types == (name,) and found.device is None
    if meters.load(name).number is not None:
        assert found.number.lstrip("SN").isdigit()


@pytest.mark.parametrize("name", meters.TYPES)
def test_without_43_14_registers_alone_tell(port: linux_bus.Port, name: str) -> None:
    """Most real meters do not speak 43/14; only twins with the very same registers cannot be told apart."""
    points = {other: scan.points_of(port, UNITS[name], meters.load(other), "") for other in meters.TYPES}
    best = {other for other in points if points[other] == max(points.values())}
    twins = {"sdm120": "sdm230"}  # all that the one has, the other has too
    assert best == {name} or (name in twins and best == {twins[name]}), points


def test_a_single_phase_b21_is_read_by_the_same_table(everything: Running, port: linux_bus.Port) -> None:
    """What it has not got is missing for that reason; the rest has values."""
    assert scan.identify(port, UNITS["b21"], None).types == ("b23",)
    rows = linux.meter_read(everything.tcp(), "b23", UNITS["b21"])
    lacking = {row.label for row in rows if row.missing == "not_implemented"}
    assert {row.label for row in rows if row.missing} == lacking and len(lacking) == 20
    assert all(label.endswith(("_l2", "_l3", "_l12", "_l23", "_l31", "_n")) for label in lacking)


def test_twins_are_named_together() -> None:
    """Without 43/14 an SDM120 and an SDM230 look the same, and the snippet says so."""
    mute = replace(TYPES["sdm120"], identity={0: "?", 1: "?", 2: "?"})
    one = Running(SimConfig((BusConfig((replace(meter(1, 1, "sdm120"), type=mute),), tcp=("127.0.0.1", 0)),), seed=7,
                            step_s=60))
    line = linux_bus.open_port(config.Bus(one.tcp(), 9600, "N", 0, 1000, ()))
    try:
        found = scan.identify(line, 1, None)
    finally:
        line.close()
        one.close()
    assert found.types == ("sdm120", "sdm230")
    text, _ = meter_scan.snippet("tcp://10.0.0.5:502", [found], 1)
    assert 'type = "sdm120"  # or sdm230' in text and config.load(tomllib.loads(TOP + text))
    assert "look at the label" in meter_scan.describe(found)[1]


@pytest.mark.parametrize("name", [name for name in TYPES if name.startswith("sunspec")])
def test_sunspec_devices_become_files_that_load(port: linux_bus.Port, tmp_path: Path, name: str) -> None:
    found = scan.identify(port, UNITS[name], None)
    assert found.types == () and found.device is not None and found.number.startswith("SN")
    text, files = meter_scan.snippet("tcp://10.0.0.5:502", [found], 7)
    for file, content in files.items():
        (tmp_path / file).write_text(content)
    (tmp_path / "meter.toml").write_text(TOP + text)
    places = config.places(linux.load_config(tmp_path)[0])
    assert [place.point for place in places] == list(range(7, 7 + len(files)))
    labels = {field.label for field in places[0].meter.fields}
    assert ("state_of_charge" in labels) == (name in ("sunspec_103", "sunspec_701"))


def test_an_inverter_with_a_meter_is_two_files() -> None:
    device = scan.sunspec.Device(40000, "Acme", "Hybrid", "1", "5", ((103, 40070), (802, 40122), (203, 40190)), ())
    found = scan.Finding(None, 1, (), device, "", "5", 0)
    text, files = meter_scan.snippet("tcp://10.0.0.5:502", [found], 1)
    assert sorted(files) == ["sunspec-1-103.toml", "sunspec-1-203.toml"] and "802" in files["sunspec-1-103.toml"]
    assert text.count("unit = 1") == 2


def test_a_stranger_and_nobody(port: linux_bus.Port) -> None:
    found = scan.identify(port, 99, None)
    assert found.types == () and found.device is None and found.product == "Nobody N1 1"
    assert "unknown type" in meter_scan.describe(found)[0]
    assert scan.present(port, [97, 98, 99], answer_ms=100) == [99]
    assert meter_scan.snippet("tcp://h:1", [found], 1) == ("", {})


class Sniffer:
    """A port that keeps what goes out."""

    def __init__(self, port: linux_bus.Port) -> None:
        self._port, self.sent = port, []  # type: linux_bus.Port, list[bytes]

    def write(self, data: bytes) -> None:
        self.sent.append(data)
        self._port.write(data)

    def __getattr__(self, name: str) -> object:
        return getattr(self._port, name)


def test_nothing_but_reading_leaves(port: linux_bus.Port) -> None:
    sniffer = Sniffer(port)
    for unit in (UNITS["sdm630"], UNITS["sunspec_103"], 99):
        scan.present(sniffer, [unit])
        scan.identify(sniffer, unit, None)
    functions = {data[modbus.MBAP_BYTES] for data in sniffer.sent}
    assert functions == {3, 4, 43} and len(sniffer.sent) > 60
    assert all(modbus.is_reading(data[modbus.MBAP_BYTES:]) for data in sniffer.sent)


def serial(folder: Path, name: str, unit: int, baud: int, parity: str) -> Running:
    one = meter(1, unit, name)
    return Running(SimConfig((BusConfig((one,), pty=str(folder / "line"), baud=baud, parity=parity, strict=True),),
                             seed=7, step_s=60))


def test_baud_rate_and_unit_of_a_serial_line(tmp_path: Path) -> None:
    running = serial(tmp_path, "sdm120", 3, 2400, "N")
    said: list[str] = []
    try:
        found = meter_scan.find(str(tmp_path / "line"), [1, 2, 3], [(9600, "N"), (9600, "E"), (2400, "N")], said.append,
                                gap_ms=5)
    finally:
        running.close()
    assert [(one.line, one.unit, one.types) for one in found] == [((2400, "N"), 3, ("sdm120",))]
    assert said == ["9600 baud, 8N1 ...", "9600 baud, 8E1 ...", "2400 baud, 8N1 ..."]
    text, files = meter_scan.snippet("/dev/ttyUSB0", found, 4)
    settings = config.load(tomllib.loads(TOP + text))
    assert files == {} and (settings.buses[0].baud, settings.buses[0].parity) == (2400, "N")
    assert config.places(settings)[0][:3] == (4, 0, 3) and found[0].number in meter_scan.describe(found[0])[0]


def test_parity_of_a_serial_line(tmp_path: Path) -> None:
    """A pty has no parity, so the wire here lets through what has the right one, and noise for the rest."""
    running = serial(tmp_path, "we514", 1, 9600, "E")
    ours, theirs = pty.openpty()

    def wire(line: config.Bus) -> linux_bus.Port:
        right = (line.baud, line.parity) == (9600, "E")
        return linux_bus.SerialPort(str(tmp_path / "line") if right else os.ttyname(theirs), line.baud, "N", 5)
    try:
        found = meter_scan.find("wire", [1], [(9600, "N"), (19200, "E"), (9600, "E")], lambda text: None, 5, wire)
    finally:
        running.close()
        os.close(ours)
        os.close(theirs)
    assert [(one.line, one.types) for one in found] == [((9600, "E"), ("we514",))]


def command(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-P", "-m", "deploy.cli", "meter", *words], cwd=ROOT, capture_output=True,
                          text=True, timeout=60, env={**os.environ, "PYTHONPATH": str(ROOT)})


def test_the_command_prints_what_can_be_pasted(everything: Running, tmp_path: Path) -> None:
    units = f"{UNITS['sdm630']},{UNITS['b23']},{UNITS['sunspec_203']}"
    done = command("scan", everything.tcp(), "--units", units, "--folder", str(tmp_path), "--point", "3")
    assert done.returncode == 0, done.stderr
    assert "Eastron SDM630-Modbus (sdm630), serial number 2" in done.stdout and "models 203 at 40075" in done.stdout
    text = done.stdout[done.stdout.index("# for meter.toml"):done.stdout.index("# sunspec-")]
    (tmp_path / "meter.toml").write_text(TOP + text)
    places = config.places(linux.load_config(tmp_path)[0])
    assert [(place.point, place.meter.type) for place in places] == [
        (3, "sdm630"), (4, "b23"), (5, f"sunspec-{UNITS['sunspec_203']}")]
    found = json.loads(command("scan", everything.tcp(), "--units", units, "--json", "--point", "3").stdout)
    assert found["snippet"] == text[len("# for meter.toml\n"):].rstrip("\n") + "\n"
    read = command("read", everything.tcp(), "--type", str(next(tmp_path.glob("sunspec-*.toml"))), "--unit",
                   str(UNITS["sunspec_203"]), "--json")
    assert read.returncode == 0 and {row["label"]: row["value"] for row in json.loads(read.stdout)}[
        "energy_active_import_total"] > 0


def test_the_command_says_what_is_wrong(everything: Running) -> None:
    done = command("scan", everything.tcp(), "--units", "97-98")
    assert done.returncode == 1 and "nothing answers" in done.stderr
    done = command("scan", everything.tcp(), "--units", "1-")
    assert done.returncode == 2 and "expected numbers" in done.stderr
    for text in ("", "x", "1-300", "-1"):
        with pytest.raises(ValueError, match="--units"):
            meter_scan.units_of(text)
    assert meter_scan.units_of("1-3,100") == [1, 2, 3, 100]
    assert command("read", everything.tcp(), "--type", "sdm121").returncode == 2


def test_types_names_every_table() -> None:
    done = command("types")
    assert done.returncode == 0 and all(f"{name} " in done.stdout for name in meters.TYPES)
    assert [one["type"] for one in json.loads(command("types", "--json").stdout)["types"]] == list(meters.TYPES)


def test_the_page_is_made_from_the_tables() -> None:
    assert meter_types.page() == (ROOT / "docs" / "METERS.md").read_text(), \
        "./gridseal meter types --page > docs/METERS.md"


def test_the_page_s_own_meter_file_works(tmp_path: Path) -> None:
    page = meter_types.page()
    for text in page.split("```toml\n")[1:]:
        (tmp_path / "mine.toml").write_text(text[:text.index("```")])
        assert linux.load_table(tmp_path / "mine.toml").type == "mine"


def test_a_unit_that_stops_answering_is_no_type() -> None:
    class Dead:
        framing = modbus.TCP
        baud, gap_ms = 0, 0

        def clear(self) -> None: ...

        def write(self, data: bytes) -> None: ...

        def read(self, count: int, wait_ms: int) -> bytes:
            return b""

        def mark(self) -> int:
            return 0

        def since_ms(self, mark: int) -> int:
            return 0
    found = scan.identify(Dead(), 1, None, answer_ms=1)
    assert found.types == () and found.device is None
    assert bus.poll(Dead(), 1, [(3, 0, 1)], 1, 1)[0].reason == "no_answer"
