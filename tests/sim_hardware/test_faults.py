"""Faults as a master feels them, switched over the control port while the simulator runs."""

import asyncio
import json
from pathlib import Path

import pytest
from pymodbus import ModbusException

from sim_hardware.config import BusConfig
from sim_hardware.errors import SimError
from sim_hardware.frames import crc16
from tests.sim_hardware.bench import HandClock, RawLine, meter, play, rtu, running, tcp, tcp_master

READ_VOLTAGE = bytes.fromhex("0400000002")
TWO = meter(1, 1), meter(2, 2, "pzem004t")


def test_faults_over_tcp() -> None:
    async def scene() -> None:
        async with running(tcp(*TWO), HandClock()) as bench, tcp_master(bench.address, 1) as master:
            async def outcome(unit: int) -> str:
                loop = asyncio.get_running_loop()
                begin = loop.time()
                try:
                    answer = await master.read_input_registers(0, count=2, device_id=unit)
                except ModbusException:
                    return "silence"
                if answer.isError():
                    return f"exception {answer.exception_code}"
                return "late" if loop.time() - begin > 0.3 else "good"

            for fault, expected in (("none", "good"), ("no_answer", "silence"), ("late 300", "late"),
                                    ("late 1200", "silence"), ("exception 6", "exception 6"), ("none", "good")):
                assert await bench.control(f"fault 1 {fault}") == "ok"
                assert await outcome(1) == expected, fault
                await asyncio.sleep(0.4 if fault == "late 1200" else 0)      # let the late answer pass by
                assert await outcome(2) == "good", "only the faulty unit is faulty"
    play(scene())


def test_faults_on_the_wire(tmp_path: Path) -> None:
    """On RTU: a wrong checksum over right data, and an answer that comes after the next request was made."""
    async def scene() -> None:
        async with running(rtu(tmp_path / "line", *TWO), HandClock(speed=100)) as bench:
            line = RawLine(str(tmp_path / "line"))
            try:
                line.send(1, READ_VOLTAGE)
                good = await line.read(9)
                assert crc16(good[:-2]) == good[-2:]
                assert await bench.control("fault 1 wrong_crc") == "ok"
                line.send(1, READ_VOLTAGE)
                bad = await line.read(9)
                assert bad[:-2] == good[:-2] and crc16(bad[:-2]) != bad[-2:]
                assert await bench.control("fault 1 late 800") == "ok"
                line.send(1, READ_VOLTAGE)
                assert await line.read(1, 0.1) == b""
                line.send(2, READ_VOLTAGE)
                answers = await line.read(18)
                assert answers[0] == 2 and answers[9:] == good, "unit 2 answered in time, unit 1 into the silence after"
                assert await bench.control("fault 1 exception 4") == "ok"
                line.send(1, READ_VOLTAGE)
                refused = await line.read(5)
                assert refused[:3] == bytes((1, 0x84, 4)) and crc16(refused[:-2]) == refused[-2:]
            finally:
                line.close()
    play(scene())


def test_faults_from_the_configuration(tmp_path: Path) -> None:
    async def scene() -> None:
        config = tcp(meter(1, 1, fault="exception", value=2), meter(2, 2, fault="no_answer"))
        async with running(config, HandClock()) as bench, tcp_master(bench.address, 0.2) as master:
            assert (await master.read_input_registers(0, count=2, device_id=1)).exception_code == 2
            with pytest.raises(ModbusException):
                await master.read_input_registers(0, count=2, device_id=2)
    play(scene())


def test_the_control_port() -> None:
    async def scene() -> None:
        config = tcp(*TWO)
        second = BusConfig((meter(3, 1, "sdm630"),), tcp=("127.0.0.1", 0))
        config = type(config)(**{**config.__dict__, "buses": (*config.buses, second)})
        async with running(config, HandClock()) as bench:
            units = json.loads(await bench.control("units"))
            assert [(unit["bus"], unit["unit"], unit["point"], unit["type"]) for unit in units] == [
                (0, 1, 1, "sdm120"), (0, 2, 2, "pzem004t"), (1, 1, 3, "sdm630")]
            assert (await bench.control("fault 1 none")).startswith("error"), "unit 1 stands on two buses"
            assert await bench.control("fault 1:1 late 700") == "ok"
            assert await bench.control("fault point:2 exception 11") == "ok"
            assert [unit["fault"] for unit in json.loads(await bench.control("units"))] == [
                "none", "exception 11", "late 700"]
            for line in ("fault 9 none", "fault 2 wrong_crc", "fault 2 drip", "fault", "", "quit", "fault point:x none",
                         "fault 5:1 none"):
                assert (await bench.control(line)).startswith("error"), line
            assert "no_answer" in await bench.control("help")
            host, _, port = bench.ready["control"].rpartition(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(b"x" * 5000)
            assert await asyncio.wait_for(reader.read(), 5) == b"", "an endless line ends its connection"
            writer.close()
            assert json.loads(await bench.control("units"))
    play(scene())


def test_control_stays_on_loopback() -> None:
    async def scene() -> None:
        for host in ("0.0.0.0", "192.0.2.1", "example"):
            with pytest.raises(SimError):
                async with running(tcp(*TWO, control=(host, 0)), HandClock()):
                    pass
    play(scene())
