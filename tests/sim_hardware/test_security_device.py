"""The simulated security and stability control device, read by pymodbus' own master and by hand-made frames."""

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pymodbus.client import AsyncModbusTcpClient
from pymodbus.pdu.file_message import FileRecord

from sim_hardware import device_command
from sim_hardware.bus import PtyBus, TcpBus
from sim_hardware.device_control import DeviceControl
from sim_hardware.errors import SimError
from sim_hardware.security_device import (
    FILE_REGISTERS,
    SERIAL,
    SETTINGS,
    SOFTWARE,
    STRATEGY,
    Device,
    Kind,
    factory_files,
)
from tests.sim_hardware.bench import HandClock, play, rtu_master, tcp_master

KIND = Kind(7, "ssc-100", "2.0", "bay-1")
ROOT = Path(__file__).parents[2]


async def read_file(client: Any, unit: int, number: int, length: int) -> bytes:
    """A file as the map says: 120 registers a read, on in file n + 10 after 20,000 bytes."""
    data = b""
    while len(data) < length:
        part, at = divmod(len(data), 20_000)
        count = min(FILE_REGISTERS * 2, 20_000 - at, length - len(data) + (length - len(data)) % 2)
        answer = await client.read_file_record([FileRecord(file_number=number + 10 * part, record_number=at // 2,
                                                           record_length=count)], device_id=unit)
        assert not answer.isError(), answer
        data += answer.records[0].record_data
    return data[:length]


async def read_all(client: Any, unit: int) -> list[tuple[int, int, bytes]]:
    count = (await client.read_holding_registers(0, count=1, device_id=unit)).registers[0]
    words = (await client.read_holding_registers(1, count=4 * count, device_id=unit)).registers
    rows = [words[at:at + 4] for at in range(0, len(words), 4)]
    return [(role, number, await read_file(client, unit, number, high << 16 | low)) for role, number, high, low in rows]


@contextlib.asynccontextmanager
async def served(device: Device) -> AsyncIterator[AsyncModbusTcpClient]:
    bus = TcpBus(device, lambda: None, "127.0.0.1", 0)
    facts = await bus.start()
    host, _, port = str(facts["tcp"]).rpartition(":")
    try:
        async with tcp_master((host, int(port)), 0.5) as client:
            yield client
    finally:
        await bus.stop()


def test_files_and_identity_over_tcp() -> None:
    async def scene() -> None:
        device = Device(KIND, 3, has_twin=True, rtu=False)
        async with served(device) as client:
            for unit in (3, 4):
                found: Any = await client.read_device_information(read_code=1, device_id=unit)
                assert found.information == {0: b"gridseal simulator", 1: b"ssc-100", 2: b"2.0"}
                assert await read_all(client, unit) == [tuple(file) for file in factory_files(KIND)]
            assert len(factory_files(KIND)[0].data) > 20_000, "the image goes on in another file"
            for file, record, count in ((1, 0, 121), (9, 0, 1), (1, 9999, 2), (11, 2001, 1), (4, 0, 4)):
                answer = await client.read_file_record([FileRecord(file_number=file, record_number=record,
                                                                   record_length=2 * count)], device_id=3)
                assert answer.isError(), (file, record, count)
            assert (await client.read_holding_registers(0, count=18, device_id=3)).isError()
            assert (await client.read_input_registers(0, count=1, device_id=3)).isError()
            assert (await client.write_register(0, 1, device_id=3)).isError()
    play(scene())


def test_files_over_a_serial_line(tmp_path: Path) -> None:
    async def scene() -> None:
        device = Device(KIND._replace(software_bytes=301), 9, has_twin=False, rtu=True)
        bus = PtyBus(device, lambda: None, str(tmp_path / "line"), 115200, "N", HandClock())
        await bus.start()
        try:
            async with rtu_master(str(tmp_path / "line"), 115200) as client:
                assert [data for _, _, data in await read_all(client, 9)] == [
                    file.data for file in factory_files(device.kind)]
        finally:
            await bus.stop()
    play(scene())


def test_what_is_done_to_it() -> None:
    device = Device(KIND, 1, has_twin=True, rtu=False)
    control = DeviceControl(("127.0.0.1", 0), device)
    whole = [file.data for file in factory_files(KIND)]

    def data(side: int = 0) -> dict[int, bytes]:
        return {file.role: file.data for file in device.sides[side].files}

    def after(line: str, side: int = 0) -> dict[int, bytes]:
        assert control.do("repair") == "ok" and control.do(line) == "ok", line
        return data(side)

    changed = after("tamper settings 17")
    assert [at for at in range(len(whole[2])) if changed[SETTINGS][at] != whole[2][at]] == [17]
    assert data(1) == changed
    assert after("twin tamper software 0") == dict(zip((1, 2, 3, 4), whole))
    assert data(1)[SOFTWARE][1:] == whole[0][1:] and data(1)[SOFTWARE] != whole[0]
    swapped = after("swap software strategy")
    assert (swapped[SOFTWARE], swapped[STRATEGY]) == (whole[1], whole[0])
    assert after("truncate settings 100")[SETTINGS] == whole[2][:100]
    old = after("version 1.0")
    assert old[SOFTWARE] != whole[0] and old[STRATEGY] != whole[1] and old[SETTINGS] == whole[2]
    assert after("settings-of bay-2")[SETTINGS] == factory_files(KIND._replace(device="bay-2"))[2].data
    assert after("model ssc-200")[SOFTWARE] == factory_files(KIND._replace(model="ssc-200"))[0].data
    assert after("become bay-9 ssc-200")[SERIAL] == b"bay-9"
    assert STRATEGY not in after("drop strategy") and 5 in after("extra")
    after("install 3.0")
    assert data()[SOFTWARE] == factory_files(KIND._replace(version="3.0"))[0].data
    assert control.do("version 2.0") == control.do("repair") == "ok"
    assert data()[SOFTWARE] == factory_files(KIND._replace(version="3.0"))[0].data, "installed for good"
    for line in ("", "tamper", "tamper serial 99", "tamper settings x", "tamper nothing 1", "swap software",
                 "truncate settings 99999", "become", "shout"):
        assert control.do(line).startswith("error "), line
    assert control.do("drop serial") == "ok" and control.do("tamper serial 0").startswith("error there is no serial")
    with pytest.raises(SimError):
        Device(KIND, 247, has_twin=True, rtu=False)
    alone = DeviceControl(("127.0.0.1", 0), Device(KIND, 247, has_twin=False, rtu=False))
    assert alone.do("twin extra") == "error this device has no twin"


def test_silence_and_its_end() -> None:
    async def scene() -> None:
        device = Device(KIND, 1, has_twin=True, rtu=False)
        control = DeviceControl(("127.0.0.1", 0), device)
        async with served(device) as client:
            assert control.do("twin silent") == "ok"
            assert not (await client.read_holding_registers(0, count=1, device_id=1)).isError()
            with pytest.raises(Exception, match="No response"):
                await client.read_holding_registers(0, count=1, device_id=2)
            assert control.do("repair") == "ok"
            assert not (await client.read_holding_registers(0, count=1, device_id=2)).isError()
    play(scene())


def test_the_command(tmp_path: Path) -> None:
    """Alone, as a process: served, altered over its control port, its files exported."""
    async def say(address: str, line: str) -> str:
        host, _, port = address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(line.encode() + b"\n")
        answer = await asyncio.wait_for(reader.readline(), 5)
        writer.close()
        return answer.decode().strip()

    paths = device_command.export(Kind(1, "ssc-100", "2.0", "bay-1"), tmp_path)
    assert [path.name for path in paths] == ["software.bin", "strategy.bin", "settings.bin"]
    command = [sys.executable, "-P", "-m", "deploy.cli", "sim", "security-device", "--json", "--control", "127.0.0.1:0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT,
                               env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin"})
    try:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        shown = json.loads(asyncio.run(say(ready["control"], "files")))
        assert shown["device"] == "bay-1" and [row["bytes"] for row in shown["sides"][0]][:3] == [
            len(path.read_bytes()) for path in paths]
        assert asyncio.run(say(ready["control"], "tamper software 3")) == "ok"
    finally:
        process.terminate()
        assert process.wait(10) == 0
