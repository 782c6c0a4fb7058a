"""Real masters read simulated meters over TCP and over a pseudo-terminal, and the truth file says the same."""

import asyncio
import os
import re
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pymodbus import ModbusException
from pymodbus.client import AsyncModbusSerialClient, AsyncModbusTcpClient

from sim_hardware.config import SimConfig
from sim_hardware.errors import SimError
from sim_hardware.frames import crc16
from sim_hardware.meters import TYPES
from sim_hardware.truth import SMALL_PER_UNIT, decode_row, read_truth, rows_of
from tests import needs
from tests.sim_hardware.bench import (
    MIDNIGHT_MS,
    Bench,
    HandClock,
    RawLine,
    meter,
    play,
    rtu,
    rtu_master,
    running,
    tcp,
    tcp_master,
)

THREE = meter(11, 1, "sdm120"), meter(12, 2, "sdm630", "table4:LA1"), meter(13, 3, "pzem004t")
Master = AsyncModbusTcpClient | AsyncModbusSerialClient


async def read_image(master: Master, unit: int, kind: str) -> dict[int, int]:
    """{address: word} of every span, in reads as long as the meter allows."""
    words: dict[int, int] = {}
    meter_type = TYPES[kind]
    for first, count in meter_type.spans:
        for address in range(first, first + count, meter_type.max_registers):
            part = min(meter_type.max_registers, first + count - address)
            answer = await master.read_input_registers(address, count=part, device_id=unit)
            assert not answer.isError(), answer
            words |= dict(enumerate(answer.registers, address))
    return words


async def check_against_truth(master: Master, path: Path, clock: HandClock) -> None:
    """What the master reads at three moments is what the newest rows of the file say, word for word."""
    for minute in (0, 1, 61):
        clock.time_ms = MIDNIGHT_MS + minute * 60_000 + 59_999
        for unit, (point, kind) in {1: (11, "sdm120"), 2: (12, "sdm630"), 3: (13, "pzem004t")}.items():
            words = await read_image(master, unit, kind)
            row = [row for row in rows_of(path) if row.point == point][-1]
            assert (row.time_ms, row.unit, row.type) == (MIDNIGHT_MS + minute * 60_000, unit, kind)
            shown = {int(address, 16) + index: int(data[4 * index:4 * index + 4], 16)
                     for address, data in (span.split(":") for span in row.registers.split())
                     for index in range(len(data) // 4)}
            assert words == shown


def test_tcp_reads_equal_the_truth(tmp_path: Path) -> None:
    async def scene() -> None:
        clock = HandClock()
        async with running(tcp(*THREE, truth=tmp_path / "truth.csv"), clock) as bench:
            async with tcp_master(bench.address) as master:
                await check_against_truth(master, tmp_path / "truth.csv", clock)
    play(scene())


@pytest.mark.parametrize("parity", ["N", "E"])
def test_rtu_reads_equal_the_truth(tmp_path: Path, parity: str) -> None:
    async def scene() -> None:
        clock = HandClock(speed=600)
        config = rtu(tmp_path / "line", *THREE, parity=parity, truth=tmp_path / "truth.csv")
        async with running(config, clock) as bench:
            assert bench.ready["buses"][0]["timing_divided_by"] == 600
            async with rtu_master(str(tmp_path / "line")) as master:    # pyserial refuses parity on a pty
                await check_against_truth(master, tmp_path / "truth.csv", clock)
        assert not (tmp_path / "line").is_symlink(), "the link goes with the simulator"
    play(scene())


def test_limits_holes_and_functions() -> None:
    async def scene() -> None:
        async with running(tcp(*THREE), HandClock()) as bench, tcp_master(bench.address) as master:
            async def code(unit: int, address: int, count: int) -> int:
                answer = await master.read_input_registers(address, count=count, device_id=unit)
                return answer.exception_code if answer.isError() else 0
            assert await code(1, 0, 80) == 0 and await code(1, 0, 81) == 3
            assert await code(3, 0, 10) == 0 and await code(3, 0, 11) == 3
            assert await code(1, 80, 2) == 2 and await code(1, 79, 2) == 2 and await code(2, 65_530, 6) == 2
            assert (await master.write_register(0, 1, device_id=1)).exception_code == 1
            assert (await master.read_coils(0, count=1, device_id=1)).exception_code == 1
            serials = [await master.read_holding_registers(0xFC00, count=2, device_id=unit) for unit in (1, 2)]
            assert serials[0].registers != serials[1].registers
            assert (await master.read_holding_registers(0, count=2, device_id=1)).exception_code == 2
            assert (await master.read_holding_registers(2, count=1, device_id=3)).registers == [3]
            told: Any
            for unit, maker, product in ((1, b"Eastron", b"SDM120-Modbus"), (3, b"Peacefair", b"PZEM-004T")):
                told = await master.read_device_information(read_code=1, device_id=unit)
                assert (told.information[0], told.information[1]) == (maker, product)
            assert (await master.read_device_information(read_code=4, object_id=9, device_id=1)).exception_code == 2
    play(scene())


def test_an_absent_unit_stays_silent_and_slows_nobody() -> None:
    async def scene() -> None:
        async with running(tcp(*THREE), HandClock()) as bench:
            async with tcp_master(bench.address, 0.2) as lonely, tcp_master(bench.address) as master:
                asking = asyncio.ensure_future(lonely.read_input_registers(0, count=2, device_id=9))
                for _ in range(20):
                    assert not (await master.read_input_registers(0, count=2, device_id=1)).isError()
                with pytest.raises(ModbusException):
                    await asking
    play(scene())


def test_an_answer_is_of_the_moment_the_request_came() -> None:
    """Two steps of the clock between two reads: two images; no step in between: the same words."""
    async def scene() -> None:
        clock = HandClock()
        async with running(tcp(*THREE), clock) as bench, tcp_master(bench.address) as master:
            first = await read_image(master, 2, "sdm630")
            clock.time_ms += 59_999
            assert await read_image(master, 2, "sdm630") == first
            clock.time_ms += 1
            assert await read_image(master, 2, "sdm630") != first
    play(scene())


def test_many_connections_and_pipelined_requests() -> None:
    """Requests sent in one breath are all answered in order; something that is no Modbus ends its connection."""
    async def scene() -> None:
        async with running(tcp(*THREE), HandClock()) as bench:
            reader, writer = await asyncio.open_connection(*bench.address)
            ask = [struct.pack(">HHHBBHH", number, 0, 6, 1 + number % 3, 4, 0, 2) for number in range(30)]
            writer.write(b"".join(ask)[:-3])
            await writer.drain()
            writer.write(ask[-1][-3:])
            for number in range(30):
                answer = await asyncio.wait_for(reader.readexactly(13), 5)
                assert struct.unpack(">HHHBBB", answer[:9]) == (number, 0, 7, 1 + number % 3, 4, 4)
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
            assert await asyncio.wait_for(reader.read(), 5) == b""
            writer.close()
    play(scene())


def test_rtu_takes_the_time_of_the_line(tmp_path: Path) -> None:
    """An answer of 165 bytes at 9600 baud: (8 + 3.5 + 165) characters of 10 bits = 184 ms, a tenth at speed 10."""
    async def seconds(speed: int) -> float:
        loop = asyncio.get_running_loop()
        async with running(rtu(tmp_path / f"line{speed}", *THREE), HandClock(speed=speed)):
            async with rtu_master(str(tmp_path / f"line{speed}")) as master:
                begin = loop.time()
                assert not (await master.read_input_registers(0, count=80, device_id=2)).isError()
                return loop.time() - begin

    async def scene() -> None:
        due_s = (8 + 3.5 + 165) * 10 / 9600
        real = min([await seconds(1) for _ in range(2)])
        assert due_s - 0.01 < real < due_s + 0.15
        assert min([await seconds(10) for _ in range(3)]) < real / 3
    play(scene())


def test_garbage_costs_one_request_only(tmp_path: Path) -> None:
    async def scene() -> None:
        async with running(rtu(tmp_path / "line", *THREE), HandClock(speed=100)):
            line = RawLine(str(tmp_path / "line"))
            try:
                line.write(b"\x00\xff\x13")
                line.send(1, bytes.fromhex("0400000002"))
                assert await line.read(1, 0.15) == b"", "noise and request ran together"
                line.send(1, bytes.fromhex("0400000002"))
                assert len(await line.read(9)) == 9
                line.send(0, bytes.fromhex("0400000002"))
                line.send(9, bytes.fromhex("0400000002"))
                line.send(1, bytes.fromhex("8402"))
                assert await line.read(1, 0.15) == b"", "broadcast, absent unit, an exception answer echoed back"
            finally:
                line.close()
    play(scene())


def test_a_frame_may_come_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence is counted from the last byte, not from the first."""
    monkeypatch.setattr("sim_hardware.bus.GARBAGE_S", 0.3)

    async def scene() -> None:
        async with running(rtu(tmp_path / "line", *THREE), HandClock(speed=100)):
            line = RawLine(str(tmp_path / "line"))
            request = bytes.fromhex("010400000002")
            try:
                for piece in (request[:2], request[2:5], request[5:] + crc16(request)):
                    line.write(piece)
                    await asyncio.sleep(0.18)
                assert len(await line.read(9)) == 9
            finally:
                line.close()
    play(scene())


def test_ports_that_cannot_be_had(tmp_path: Path) -> None:
    async def scene() -> None:
        async with running(tcp(*THREE), HandClock()) as bench:
            taken = replace(tcp(THREE[0]).buses[0], tcp=bench.address)
            with pytest.raises(SimError) as caught:
                async with running(SimConfig((taken,)), HandClock()):
                    pass
            assert caught.value.reason == "listen"
        (tmp_path / "file").write_text("precious")
        with pytest.raises(SimError):
            async with running(rtu(tmp_path / "file", *THREE), HandClock()):
                pass
        assert (tmp_path / "file").read_text() == "precious"
        os.symlink("/dev/pts/9999", tmp_path / "old")
        async with running(rtu(tmp_path / "old", *THREE), HandClock()):
            assert os.path.exists(tmp_path / "old"), "a killed simulator's link is replaced"
    play(scene())


async def mbpoll(*arguments: str) -> dict[int, str]:
    """{reference: value} of what mbpoll prints."""
    process = await asyncio.create_subprocess_exec(needs.program("mbpoll"), *arguments, "-1",
                                                   stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT)
    output = (await asyncio.wait_for(process.communicate(), 20))[0].decode(errors="replace")
    assert process.returncode == 0, output
    return {int(number): value for number, value in re.findall(r"^\[(\d+)\]:\s+(\S+)", output, re.M)}


def check_mbpoll(shown: dict[int, str], truth: dict[str, int]) -> None:
    """mbpoll prints floats with six digits."""
    for field in TYPES["sdm120"].fields[:-2]:
        value = float(shown[field.address])
        small = SMALL_PER_UNIT[field.unit]
        assert abs(value * small - truth[field.name]) <= 0.51 + abs(value * small) * 1e-5, field.name


def truth_now(bench: Bench) -> dict[str, int]:
    sim = bench.simulator.meters[0]
    assert sim.image is not None
    return decode_row(sim.row(sim.image))


def test_mbpoll_reads_the_sdm120_over_tcp(tmp_path: Path) -> None:
    needs.program("mbpoll")

    async def scene() -> None:
        async with running(tcp(meter(1, 5)), HandClock()) as bench:
            shown = await mbpoll("-m", "tcp", "-p", str(bench.address[1]), "-a", "5", "-0", "-r", "0", "-t", "3:float",
                                 "-B", "-c", "40", bench.address[0])
            check_mbpoll(shown, truth_now(bench))
    play(scene())


@pytest.mark.parametrize(("parity", "word"), [("N", "none"), ("E", "even")])
def test_mbpoll_reads_the_sdm120_over_the_pty(tmp_path: Path, parity: str, word: str) -> None:
    needs.program("mbpoll")

    async def scene() -> None:
        config = rtu(tmp_path / "line", meter(1, 5), baud=2400, parity=parity)
        async with running(config, HandClock()) as bench:
            shown = await mbpoll("-m", "rtu", "-b", "2400", "-P", word, "-a", "5", "-0", "-r", "0", "-t", "3:float",
                                 "-B", "-c", "40", "-o", "3", str(tmp_path / "line"))
            check_mbpoll(shown, truth_now(bench))
    play(scene())


def test_truth_in_numbers(tmp_path: Path) -> None:
    """The helper's integers are what the model meant, within what a register can hold."""
    async def scene() -> None:
        clock = HandClock()
        async with running(tcp(*THREE, truth=tmp_path / "truth.csv"), clock) as bench:
            clock.time_ms += 3_600_000
            bench.simulator.advance()
    play(scene())
    truth = read_truth(tmp_path / "truth.csv")
    assert len(truth) == 3 * 61
    start, end = truth[12, MIDNIGHT_MS], truth[12, MIDNIGHT_MS + 3_600_000]
    assert end["energy_active_import_total"] - start["energy_active_import_total"] == 36_360
    assert 49_900 < start["frequency"] < 50_100 and 220_000 < start["voltage_l1"] < 236_000
    assert abs(start["active_power_total"] - 36_360) < 1200
    assert abs(start["power_factor_total"]) <= 1000
