"""An agent that has lost its journal and kept its key: what it says, and the documented flow that cures it.

Real parts throughout: a running area with Mosquitto and certificates, a simulated meter, the agent as `gridseal meter
run` starts it, docs/metering.md's two commands.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy import cli
from firmware.wire import seal as seal_codec
from gateway.ledger.reader import Reader
from tests import needs
from tests.deploy.test_enroll import ROOT, WAIT_S, say

POINT = 7
SIM = '[[bus]]\ntcp = "127.0.0.1:0"\n[[bus.meter]]\npoint = 7\nunit = 1\ntype = "sdm120"\n'


@contextlib.contextmanager
def running(log: Path, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """A `gridseal` command in a process of its own, ended as a user ends it."""
    with open(log, "ab") as output:
        process = subprocess.Popen([sys.executable, "-P", "-m", "deploy.cli", *words], stdout=output, stderr=output,
                                   env={**os.environ, "PYTHONPATH": str(ROOT)})
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def wait_for(found: Callable[[], Any], what: str, log: Path) -> Any:
    end = time.monotonic() + WAIT_S
    while True:
        value = found()
        if value:
            return value
        assert time.monotonic() < end, f"{what}: {log.read_text()[-3000:]}"
        time.sleep(0.1)


@pytest.fixture
def area(tmp_path: Path) -> Iterator[Path]:
    """A running area whose blocks and acks come every second."""
    needs.program("mosquitto")
    folder, log = tmp_path / "area", tmp_path / "area.log"
    assert cli.main(["gateway", "init", str(folder), "--free-ports", "--set", "wait_seal_ms=1000", "--ack-interval",
                     "1"]) == 0
    with running(log, "gateway", "run", str(folder)):
        wait_for(lambda: "the area runs" in log.read_text(), "the area", log)
        yield folder


@pytest.fixture
def meter(tmp_path: Path) -> Iterator[str]:
    log = tmp_path / "sim.log"
    (tmp_path / "sim.toml").write_text(SIM)
    with running(log, "sim", "meter", "--config", str(tmp_path / "sim.toml"), "--json"):
        wait_for(lambda: "ready" in log.read_text(), "the meter", log)
        line = next(line for line in log.read_text().splitlines() if line.startswith("{"))
        yield "tcp://" + json.loads(line)["buses"][0]["tcp"]


def seals(area: Path, kid: str) -> list[seal_codec.Seal]:
    with contextlib.closing(Reader.open(area / "replica-0" / "data")) as reader:
        return [found.seal for found in reader.seals(bytes.fromhex(kid), POINT)][::-1]  # they come newest first


def make(folder: Path, area: Path, meter: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Asks for a device that reads that meter every second; returns its kid."""
    code, said = say(capsys, "enroll", "request", str(folder), "--area-folder", str(area), "--point", str(POINT))
    assert code == 0
    path = folder / "meter.toml"
    text = path.read_text().replace("/dev/ttyUSB0", meter).replace("interval_s = 60", "interval_s = 1")
    path.write_text(text.replace("seal_every_s = 60", "seal_every_s = 1"))
    return str(said["kid"])


@pytest.mark.slow
def test_a_lost_journal_with_its_key_kept(area: Path, meter: str, tmp_path: Path,
                                          capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is taken twice and the agent says what to do; a new key goes on where the old one's seals end."""
    where, log = ["--area-folder", str(area)], tmp_path / "agent.log"
    old = make(tmp_path / "agent", area, meter, capsys)
    assert say(capsys, "enroll", "approve", str(tmp_path / "agent"), *where, "--point", str(POINT))[0] == 0
    with running(log, "meter", "run", str(tmp_path / "agent")):
        wait_for(lambda: len(seals(area, old)) >= 4, "the first seals", log)
    known = seals(area, old)
    shutil.rmtree(tmp_path / "agent" / "data")  # the card is new; signing.key was kept elsewhere
    with running(log, "meter", "run", str(tmp_path / "agent")):
        wait_for(lambda: "enroll replace" in log.read_text(), "what to do", log)
    assert "was refused: fork" in log.read_text()
    after = seals(area, old)
    assert [one.height for one in after] == list(range(1, len(after) + 1)) and after[:len(known)] == known

    new = make(tmp_path / "agent-2", area, meter, capsys)
    code, said = say(capsys, "enroll", "replace", old, str(tmp_path / "agent-2"), *where)
    assert (code, said["result"]) == (0, "accepted")
    with running(log, "meter", "run", str(tmp_path / "agent-2")):
        found = wait_for(lambda: seals(area, new)[3:], "the new key's seals", log)
    first = seals(area, new)[0]
    assert first.height == 1 and first.first_ms > after[-1].last_ms, "no reading twice"
    assert first.import_wh is not None and after[-1].import_wh is not None
    assert found[-1].import_wh >= first.import_wh >= after[-1].import_wh, "one register, read on"
    assert seals(area, old) == after, "the old key is over"
