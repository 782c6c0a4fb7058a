"""Faults as a master feels them, switched over the control port while the simulator runs."""

import asyncio
import json
import struct
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from pymodbus import ModbusException

from sim_hardware.config import BusConfig, FaultWindow
from sim_hardware.errors import SimError
from sim_hardware.faults import Fault
from sim_hardware.frames import crc16
from sim_hardware.truth import decode_row, read_truth
from tests.sim_hardware.bench import (
    MIDNIGHT_MS,
    Bench,
    HandClock,
    RawLine,
    meter,
    play,
    rtu,
    running,
    tcp,
    tcp_master,
)

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


def test_drips_resets_and_lines_behind_tcp(tmp_path: Path) -> None:
    """A dripping answer takes its time on every kind of line; a reset ends the connection; RTU comes through TCP."""
    async def scene() -> None:
        loop = asyncio.get_running_loop()
        config = tcp(meter(1, 1))
        config = replace(config, buses=(*config.buses, BusConfig((meter(2, 2),), rtu_tcp=("127.0.0.1", 0), baud=19200),
                                        BusConfig((meter(3, 3),), pty=str(tmp_path / "line"), baud=19200)))
        async with running(config, HandClock(speed=10)) as bench:
            frame = bytes((2,)) + READ_VOLTAGE
            frame += crc16(frame)
            asked = {"tcp": (bench.address, struct.pack(">HHHB", 7, 0, 6, 1) + READ_VOLTAGE, 13),
                     "rtu_tcp": (("127.0.0.1", int(bench.ready["buses"][1]["rtu_tcp"].rpartition(":")[2])), frame, 9)}
            for point, (where, (address, request, length)) in enumerate(asked.items(), 1):
                reader, writer = await asyncio.open_connection(*address)
                writer.write(request)
                good = await asyncio.wait_for(reader.readexactly(length), 2)
                assert await bench.control(f"fault point:{point} slow_drip 10") == "ok"
                begin = loop.time()
                writer.write(request)
                assert await asyncio.wait_for(reader.readexactly(length), 2) == good
                assert 0.9 * 0.01 * (length - 1) < loop.time() - begin < 1, where
                assert await bench.control(f"fault point:{point} reset") == "ok"
                writer.write(request)
                with pytest.raises(ConnectionResetError):
                    await asyncio.wait_for(reader.read(), 2)
                writer.close()
            assert (await bench.control("fault point:1 collision")).startswith("error")
            assert (await bench.control("fault point:2 wrong_transaction")).startswith("error")
            assert (await bench.control("fault point:3 reset")).startswith("error")
            line = RawLine(str(tmp_path / "line"))
            assert await bench.control("fault point:3 slow_drip 10") == "ok"
            line.send(3, READ_VOLTAGE)
            begin = loop.time()
            assert len(await line.read(9)) == 9 and loop.time() - begin > 0.07
            line.close()
    play(scene())


def energy(bench: Bench) -> int:
    one = bench.simulator.meters[0]
    assert one.image is not None
    return decode_row(one.row(one.image))["energy_active_import_total"]


@pytest.mark.parametrize("kind", ["sdm120", "em24", "growatt_tlxh"])
def test_what_happens_in_a_meter(kind: str, tmp_path: Path) -> None:
    """Stuck: words stay, the truth goes on. Counters jump, begin again, pass their end: in image and truth alike."""
    async def scene() -> None:
        clock = HandClock()
        config = tcp(replace(meter(1, 1, kind), scale=Fraction(20)), truth=tmp_path / "truth.csv")
        async with running(config, clock) as bench:
            place = bench.simulator.buses[0].units.places[1]

            def turn() -> int:
                clock.time_ms += 60_000
                bench.simulator.advance()
                return energy(bench)
            before = turn()
            frozen = place.image()
            assert await bench.control("fault 1 stuck") == "ok"
            after = turn()
            assert place.image() is frozen is not bench.simulator.meters[0].image and after > before
            assert await bench.control("fault 1 counter_jump 500") == "ok"
            assert energy(bench) == after, "one step has one image"
            assert 500_000 <= (jumped := turn()) - after < 501_000 and place.image() is not frozen
            assert await bench.control("fault 1 none") == "ok"
            assert 0 < turn() - jumped < 1000, "a counter does not go back by itself"
            assert await bench.control("fault 1 counter_reset") == "ok"
            assert 0 <= turn() < 1000
            assert await bench.control("fault 1 rollover") == "ok"
            high = turn()
            assert high > 900_000_000
            passed = [turn() for _ in range(12)]
            assert min(passed) < 10_000 and passed[-1] < 10_000
        assert len(read_truth(tmp_path / "truth.csv")) >= 18
        if kind == "sdm120":
            with pytest.raises(SimError):
                async with running(config, clock):
                    pass        # a simulator that was started again does not know what was done to its counters
    play(scene())


def test_faults_by_the_clock() -> None:
    async def scene() -> None:
        clock = HandClock()
        windows = (FaultWindow(1, Fault("exception", 4), 60, 120), FaultWindow(2, Fault("no_answer"), 0))
        async with running(tcp(*TWO, faults=windows), clock) as bench, tcp_master(bench.address, 0.2) as master:
            async def code() -> int:
                answer = await master.read_input_registers(0, count=2, device_id=1)
                return answer.exception_code if answer.isError() else 0
            assert await code() == 0
            with pytest.raises(ModbusException):
                await master.read_input_registers(0, count=2, device_id=2)
        async with running(tcp(*TWO, faults=windows), clock) as bench, tcp_master(bench.address) as master:
            for second, wanted in ((59, 0), (60, 4), (119, 4), (120, 0)):
                clock.time_ms = MIDNIGHT_MS + second * 1000
                assert await code() == wanted, second
    play(scene())
