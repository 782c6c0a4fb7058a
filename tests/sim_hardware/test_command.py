"""`sim meter` as a process: ready line, kill -9 and restart, mistakes in options, and README.md's own lines."""

import argparse
import contextlib
import json
import os
import re
import shlex
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sim_hardware.command import add_arguments, config_of
from sim_hardware.config import load_config
from sim_hardware.truth import read_truth, rows_of
from tests import needs
from tests.sim_hardware.bench import DAY_MS, MIDNIGHT_MS, HandClock, play, running

HOUSE = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HOUSE), os.environ.get("PYTHONPATH", "")])}
README = (HOUSE / "sim_hardware" / "README.md").read_text()


@contextlib.contextmanager
def simulator(*arguments: str, folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A running process and the first line it printed."""
    process = subprocess.Popen([sys.executable, "-m", "tests.sim_hardware.alone", *arguments], cwd=folder, text=True,
                               env=ENVIRONMENT, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE)
    watchdog = threading.Timer(30, process.kill)
    watchdog.start()
    try:
        assert process.stdout is not None
        yield process, process.stdout.readline()
    finally:
        process.kill()
        process.communicate()
        watchdog.cancel()


def rest_of_greeting(process: subprocess.Popen[str]) -> str:
    """What it says to a person after the first line."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("stop with"):
            break
    return "".join(lines)


def read_words(port: int, unit: int, address: int, count: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port), 5) as line:
        line.sendall(struct.pack(">HHHBBHH", 1, 0, 6, unit, 4, address, count))
        answer = b""
        while len(answer) < 9 + 2 * count:
            part = line.recv(1000)
            assert part, answer
            answer += part
        return answer[9:]


def test_kill_and_restart_lose_and_change_nothing(tmp_path: Path) -> None:
    """Ten kills at speed 6000: every answer a master got is in the truth, and one run through tells the same."""
    options = ["--tcp", "127.0.0.1:0", "--truth", "truth.csv", "--step", "60", "--seed", "7", "--type", "sdm630",
               "--day", "generated:prosumer", "--point", "9", "--json"]
    seen: set[str] = set()
    for start in range(10):
        clock = ["--speed", "6000", "--from-ms", str(MIDNIGHT_MS + start * 3_600_000)]
        with simulator(*options, *clock, folder=tmp_path) as (process, line):
            port = int(json.loads(line)["buses"][0]["tcp"].rpartition(":")[2])
            for _ in range(25):
                seen.add(read_words(port, 1, 0, 80).hex())
            process.send_signal(signal.SIGKILL)
            process.wait(10)
    rows = list(rows_of(tmp_path / "truth.csv"))
    shown = {row.registers.split()[0].removeprefix("0000:") for row in rows}
    assert len(seen) >= 10 and seen <= shown
    assert [row.time_ms for row in rows] == sorted({row.time_ms for row in rows})
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    config = config_of(parser.parse_args(options))

    async def run_through() -> None:
        clock = HandClock()
        async with running(replace(config, truth=tmp_path / "whole.csv"), clock) as bench:
            clock.time_ms = rows[-1].time_ms
            bench.simulator.advance()
    play(run_through())
    whole = {row.time_ms: row for row in rows_of(tmp_path / "whole.csv")}
    assert all(whole[row.time_ms] == row for row in rows)


def test_it_ends_well_on_a_signal(tmp_path: Path) -> None:
    with simulator("--pty", "./meter", "--unit", "3", folder=tmp_path) as (process, line):
        assert line.startswith("Modbus RTU on meter, 2400 baud, 8N1, real line timing")
        assert (tmp_path / "meter").is_symlink()
        output = rest_of_greeting(process)
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=10)[1] == "" and process.returncode == 0
        assert "mbpoll -m rtu -b 2400 -P none -a 3" in output and "Eastron SDM120-Modbus" in output
    assert not (tmp_path / "meter").is_symlink()


def test_speed_is_told(tmp_path: Path) -> None:
    with simulator("--pty", "", "--speed", "60", "--truth", "t.csv", "--control", "127.0.0.1:0",
                   folder=tmp_path) as (process, line):
        assert "line timing divided by 60" in line
        output = rest_of_greeting(process)
        assert "60 times faster" in output and "t.csv" in output and "control: 127.0.0.1:" in output


@pytest.mark.parametrize(("options", "word"), [
    (["--type", "sdm72"], "sdm120, sdm630, pzem004t"),
    (["--unit", "0"], "1..247"),
    (["--tcp", "5020"], "HOST:PORT"),
    (["--step", "7"], "divides a day"),
    (["--scale", "much"], "--scale"),
    (["--scale", "nan"], "--scale"),
    (["--fault", "wrong_crc"], "RTU frames"),
    (["--pty", "x", "--baud", "300"], "--baud"),
    (["--day", "table4:LA9"], "table4:LA1"),
    (["--installed", "2999-01-01"], "installed"),
    (["--config", "nowhere.toml"], "nowhere.toml"),
    (["--tcp", "127.0.0.1:0", "--pty", "x"], "not allowed"),
])
def test_mistakes_end_with_2_and_a_sentence(tmp_path: Path, options: list[str], word: str) -> None:
    process = subprocess.run([sys.executable, "-m", "tests.sim_hardware.alone", *options], cwd=tmp_path, timeout=30,
                             env=ENVIRONMENT, capture_output=True, text=True)
    assert process.returncode == 2 and word in process.stderr and "Traceback" not in process.stderr
    assert process.stdout == ""


def shell_blocks() -> list[list[str]]:
    return [block.strip().splitlines() for block in re.findall(r"```sh\n(.*?)```", README, re.S)]


@pytest.mark.parametrize("block", [block for block in shell_blocks() if len(block) == 2], ids=["tcp", "rtu"])
def test_the_readme_s_mbpoll_lines(tmp_path: Path, block: list[str]) -> None:
    """As written, but for the port, which is taken free."""
    needs.program("mbpoll")
    sim, poll = (shlex.split(line) for line in block)
    assert sim[:3] == ["gridseal", "sim", "meter"] and poll[0] == "mbpoll"
    sim = ["127.0.0.1:0" if word == "127.0.0.1:5020" else word for word in sim[3:]]
    with simulator(*sim, "--json", folder=tmp_path) as (_, line):
        port = json.loads(line)["buses"][0].get("tcp", ":").rpartition(":")[2]
        poll = [port if word == "5020" else word for word in poll]
        process = subprocess.run([needs.program("mbpoll"), *poll[1:]], cwd=tmp_path, capture_output=True, timeout=20)
        output = process.stdout.decode(errors="replace")
        assert process.returncode == 0, output
        values = [float(value) for value in re.findall(r"^\[\d+\]:\s+(\S+)", output, re.M)]
    assert len(values) == 1 and 220 < values[0] < 236 or len(values) == 2 and 19 < values[0] < 200


def test_the_readme_s_file_and_row(tmp_path: Path) -> None:
    text, = [one for one in re.findall(r"```toml\n(.*?)```", README, re.S) if "[[bus]]" in one]
    (tmp_path / "meters.toml").write_text(text)
    assert [len(bus.meters) for bus in load_config(tmp_path / "meters.toml").buses] == [2, 1]
    (tmp_path / "meters.toml").write_text(text.replace(":5020", ":0"))
    with simulator("--config", "meters.toml", "--json", "--from-ms", str(1_795_132_800_000 + DAY_MS),
                   folder=tmp_path) as (_, line):
        ready = json.loads(line)
        assert ready["ready"] and [list(bus)[0] for bus in ready["buses"]] == ["tcp", "pty"] and ready["control"]
    assert {row.point for row in rows_of(tmp_path / "truth.csv")} == {1, 2, 3}
    csv_blocks = re.findall(r"```csv\n(.*?)```", README, re.S)
    (tmp_path / "row.csv").write_text(csv_blocks[1])
    row, = read_truth(tmp_path / "row.csv").values()
    assert 220_000 < row["voltage_l1"] < 236_000 and row["frequency"] == 50_000
    (tmp_path / "day.csv").write_text(csv_blocks[0])
    with simulator("--day", "csv:day.csv", "--json", folder=tmp_path) as (_, line):
        assert json.loads(line)["ready"]
