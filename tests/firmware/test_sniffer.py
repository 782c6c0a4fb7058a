"""What leaves an agent and every command that touches a bus, byte by byte: functions 3, 4, 20 and 43/14, nothing else.

The matrix of faults (test_faults.py) has the same tap on its lines.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.clock import open_clock
from firmware import modbus
from firmware.board import linux
from firmware.crypto.openssl import OpenSSLSigner
from gateway.dispatch import pull
from sim_hardware.bus import PtyBus, TcpBus
from sim_hardware.config import BusConfig, SimConfig
from sim_hardware.faults import Fault
from sim_hardware.frames import crc16
from sim_hardware.security_device import Device
from tests.dispatch.plant import KIND
from tests.firmware.live import free_port
from tests.firmware.served import NOON_MS, Running
from tests.firmware.sniffer import Sniffer, functions_of
from tests.firmware.world import Chain
from tests.sim_hardware.bench import HandClock, meter, play

ROOT = Path(__file__).resolve().parents[2]
RUN_S = 7.0
FAULTS = ("no_answer", "wrong_crc", "slow_drip", "echo", "short", "exception", "none")


def rtu(pdu: bytes) -> bytes:
    body = b"\x01" + pdu
    return body + crc16(body)


def tcp(pdu: bytes) -> bytes:
    return b"\x00\x07\x00\x00" + (len(pdu) + 1).to_bytes(2, "big") + b"\x01" + pdu


def test_the_tap_sees_what_it_must() -> None:
    """Each reading request passes; a write, a longer or a cut frame, a stray byte and another subcode do not."""
    good = [modbus.read_registers(3, 0, 2), modbus.read_registers(4, 7, 1), modbus.read_file(1, 0, 5),
            modbus.read_identity(1)]
    for frame, is_rtu in ((rtu, True), (tcp, False)):
        assert functions_of(b"".join(map(frame, good)), rtu=is_rtu) == [3, 4, 20, 43]
        for pdu in (bytes.fromhex("0600010001"), bytes.fromhex("100001000102abcd"), bytes.fromhex("0500 01ff00"),
                    bytes.fromhex("2b0d0100"), good[0] + b"\x00", b"\x11", bytes.fromhex("150706000100000001")):
            with pytest.raises(AssertionError):
                functions_of(frame(good[0]) + frame(pdu), rtu=is_rtu)
        for stream in (frame(good[0])[:-1], frame(good[0]) + b"\x00", b"\xff" + frame(good[0])):
            with pytest.raises(AssertionError):
                functions_of(stream, rtu=is_rtu)


class Scene:
    """Meters on three kinds of line, a tap on each, and an agent's folder that reads them through the taps."""

    def __init__(self, folder: Path) -> None:
        self.sim = Running(SimConfig((
            BusConfig((meter(1, 1, "sdm120"), meter(2, 2, "sunspec_203")), tcp=("127.0.0.1", 0)),
            BusConfig((meter(3, 3, "sdm630"), meter(4, 4, "em24")), pty=str(folder / "line"), baud=19200),
            BusConfig((meter(5, 5, "b23"),), rtu_tcp=("127.0.0.1", 0), baud=19200)), seed=7, step_s=60),
            HandClock(NOON_MS, speed=20))
        facts = self.sim.facts
        self.taps = [Sniffer("tcp://" + facts[0]["tcp"]), Sniffer(facts[1]["pty"]),
                     Sniffer("rtu+tcp://" + facts[2]["rtu_tcp"])]
        self.folder = folder / "agent"
        self.folder.mkdir()
        OpenSSLSigner.from_scalar(hashlib.sha256(b"test agent sniffed").digest()).save(self.folder / "signing.key")
        (self.folder / "genesis.cbor").write_bytes(Chain(created_s=int(time.time()) - 60).genesis)
        text = f'area = "home"\nbrokers = ["mqtt://127.0.0.1:{free_port()}"]\ninterval_s = 2\ndetails_every_s = 2\n'
        for tap, rows in zip(self.taps, ((("sdm120", 1),), (("sdm630", 3), ("em24", 4)), (("b23", 5),))):
            text += f'[[bus]]\nport = "{tap.port}"\nbaud = 19200\nparity = "N"\ngap_ms = 2\nanswer_ms = 100\n'
            for name, unit in rows:
                text += f'[[bus.meter]]\npoint = {unit}\nunit = {unit}\ntype = "{name}"\n'
        (self.folder / "meter.toml").write_text(text)

    def count(self) -> int:
        """How many requests have passed; every one of them only reads."""
        found = [tap.functions() for tap in self.taps]
        assert {code for codes in found for code in codes} <= {3, 4, 20, 43}
        return sum(map(len, found))

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", "deploy.cli", *words], cwd=ROOT, capture_output=True, text=True,
                              timeout=120)

    def close(self) -> None:
        for tap in self.taps:
            tap.close()
        self.sim.close()


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    one = Scene(tmp_path)
    yield one
    one.close()


def test_a_whole_run_with_faults(scene: Scene) -> None:
    """`meter run`'s own loop, some seconds of it, while the meters misbehave; it reads all of them."""
    end_s = time.monotonic() + RUN_S
    said: list[str] = []
    run = threading.Thread(target=linux.run, args=(scene.folder, open_clock(None, None),
                                                   lambda: time.monotonic() > end_s, said.append))
    run.start()
    for kind in FAULTS:
        for point in (1, 3, 5):
            if point != 1 or kind != "wrong_crc":
                scene.sim.fault(point, Fault(kind, {"slow_drip": 5, "short": 3, "exception": 4}.get(kind, 0)))
        time.sleep(RUN_S / (len(FAULTS) + 1))
    run.join(30)
    assert not run.is_alive()
    status = json.loads((scene.folder / "data" / "status.json").read_text())
    assert status["readings"] >= 20 and scene.count() > 60, said
    assert all(set(tap.functions()) in ({4}, {3, 4}, {3}) for tap in scene.taps)


def test_every_command_that_touches_a_bus(scene: Scene) -> None:
    before = scene.count()
    done = scene.command("meter", "check", str(scene.folder))
    assert done.returncode == 0 and "predicted: " in done.stdout, done.stderr
    assert scene.count() == before == 0, "check touches nothing"
    for tap, name, unit in ((0, "sdm120", 1), (1, "em24", 4), (2, "b23", 5)):
        done = scene.command("meter", "read", scene.taps[tap].port, "--type", name, "--unit", str(unit),
                             "--baud", "19200", "--parity", "N")
        assert done.returncode == 0 and "missing" not in done.stdout.replace("not_implemented", ""), done.stderr
        before, last = scene.count(), before
        assert before > last
    done = scene.command("meter", "scan", scene.taps[0].port, "--units", "1-3", "--json")
    found = json.loads(done.stdout)["meters"]
    assert [one["unit"] for one in found] == [1, 2] and found[1]["sunspec"], done.stderr
    assert set(scene.taps[0].functions()) == {3, 4, 43}
    done = scene.command("meter", "scan", scene.taps[1].port, "--units", "3-4", "--baud", "19200", "--parity", "N")
    assert done.returncode == 0 and "sdm630" in done.stdout and "em24" in done.stdout, done.stderr
    before = scene.count()
    done = scene.command("meter", "replace", str(scene.folder), "3", "--old", "read", "--start", "5/0", "--as", "agent")
    assert done.returncode != 0, "there is no broker"
    assert scene.count() > before and (scene.folder / "replace-3.cbor").exists(), "but the register was read"


def test_a_control_device_is_only_read(tmp_path: Path) -> None:
    """The gateway's pull of software, strategy and settings, by pymodbus' client: 3, 20 and 43/14."""
    async def scene() -> None:
        for is_rtu in (False, True):
            device = Device(KIND._replace(software_bytes=500), 1, has_twin=True, rtu=is_rtu)
            bus = (PtyBus(device, lambda: None, str(tmp_path / "line"), 115200, "N", HandClock()) if is_rtu else
                   TcpBus(device, lambda: None, "127.0.0.1", 0))
            facts = await bus.start()
            tap = Sniffer(str(facts["pty"]) if is_rtu else f"tcp://{facts['tcp']}")
            try:
                evidence = await pull.pull(pull.Target("bay-1", "ssc-100", tap.port, 1, True, 115200))
                assert all(side is not None for side in evidence.sides)
                assert set(tap.functions()) == {3, 20, 43}
            finally:
                await asyncio.to_thread(tap.close)
                await bus.stop()
    play(scene())


def test_frames_are_made_and_sent_in_one_place() -> None:
    """Nothing in firmware or deploy writes to a port but bus.ask, and that writes what modbus.frame let out."""
    found = []
    for path in [*(ROOT / "firmware").rglob("*.py"), *(ROOT / "deploy").rglob("*.py")]:
        found += [path.relative_to(ROOT).as_posix() for text in path.read_text().splitlines() if "port.write(" in text]
    assert found == ["firmware/bus.py"]
    asked = (ROOT / "firmware" / "bus.py").read_text().split("def ask(")[1].split("\ndef ")[0]
    assert "frame = modbus.frame(" in asked and asked.count("write(") == 1
