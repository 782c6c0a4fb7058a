"""mbpoll, which knows nothing of us, reads the simulated SDM120 over TCP and over the pty and agrees with the agent.

The registers stand still for the day, so that two readers see the same ones.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import pytest

from tests import needs

ROOT = Path(__file__).parents[2]
DAY_S = "86400"
COMMAND = [sys.executable, "-P", "-m", "deploy.cli"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


@contextmanager
def simulated(*line: str) -> Iterator[dict[str, str]]:
    """A simulated SDM120 on a line; gives the bus of its ready message."""
    command = [*COMMAND, "sim", "meter", "--type", "sdm120", "--step", DAY_S, "--json", *line]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=ENVIRONMENT, text=True)
    try:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["buses"][0]
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)


def agents_values(port: str) -> dict[int, tuple[int, str | None]]:
    """What our agent's own reader makes of every register: {address: (value in the small unit, unit)}."""
    done = subprocess.run([*COMMAND, "meter", "read", port, "--type", "sdm120", "--json"], env=ENVIRONMENT,
                          capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return {row["address"]: (row["value"], row["unit"]) for row in json.loads(done.stdout)}


def mbpolls_value(line: list[str], address: int) -> Fraction:
    """One value as mbpoll prints it (a float, big-endian word order)."""
    done = subprocess.run([needs.program("mbpoll"), *line, "-a", "1", "-0", "-r", str(address), "-t", "3:float", "-B",
                           "-c", "1", "-1"], capture_output=True, text=True, timeout=30)
    found = re.search(rf"^\[{address}\]:\s*(\S+)", done.stdout, re.M)
    assert found, done.stdout + done.stderr
    return Fraction(found.group(1))


@pytest.mark.parametrize("kind", ["tcp", "pty"])
def test_mbpoll_agrees_with_the_agent(kind: str, tmp_path: Path) -> None:
    needs.program("mbpoll")
    line = ["--tcp", "127.0.0.1:0"] if kind == "tcp" else ["--pty", str(tmp_path / "meter"), "--baud", "9600"]
    with simulated(*line) as bus:
        if kind == "tcp":
            host, port = bus["tcp"].split(":")
            ours, theirs = "tcp://" + bus["tcp"], ["-m", "tcp", "-p", port, host]
        else:
            ours, theirs = bus["pty"], ["-m", "rtu", "-b", "9600", "-P", "none", bus["pty"]]
        values = agents_values(ours)
        assert len(values) == 13
        for address, (value, unit) in values.items():
            factor = 1 if unit in ("W", "VA", "var") else 1000  # ours are mV, mA, Wh, varh, mHz and thousandths
            printed = mbpolls_value(theirs, address) * factor
            # mbpoll prints six digits of a float; ours is rounded from all of its bits
            assert abs(printed - value) <= max(Fraction(1, 2), abs(printed) / 100_000), (address, unit)
