"""Witnesses among real processes: broker, a gateway of one replica, two agents; from the header topic to a file that
proves 2 of 2, with agents that are killed again and again."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from firmware.crypto.openssl import verify_digest
from firmware.trust import decode_trust
from firmware.wire import header, headerfile
from gateway.ledger.reader import Reader
from tests import needs

ROOT = Path(__file__).parents[2]
BOUND_S = 60.0
INTERVAL_S = 3
# A block every second though nothing happens, a witness interval of three.
RULES = ("--set", "heartbeat_s=1", "--set", f"witness_interval_s={INTERVAL_S}")


class Area:
    """An area in a folder, run by the commands that a user types."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", "deploy.cli", *words], cwd=self.folder, env=self.environment(),
                              capture_output=True, text=True, timeout=BOUND_S * 2)

    def good(self, *words: str) -> str:
        done = self.command(*words)
        assert done.returncode == 0, f"{words}\n{done.stdout}{done.stderr}\n{self.logs()}"
        return done.stdout

    def start(self, name: str, *words: str) -> None:
        with open(self.folder / f"{name}.log", "ab") as log:
            self.processes[name] = subprocess.Popen([sys.executable, "-m", "deploy.cli", *words], cwd=self.folder,
                                                    env=self.environment(), stdout=log, stderr=log)

    def end(self, name: str, number: int = signal.SIGTERM) -> None:
        process = self.processes.pop(name)
        process.send_signal(number)
        process.wait(20)

    def environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(ROOT)}

    def logs(self) -> str:
        return "\n".join(f"--- {path.name}\n{path.read_text(errors='replace')[-2000:]}"
                         for path in sorted(self.folder.rglob("*.log")))

    def status(self) -> dict[str, Any]:
        shown: dict[str, Any] = json.loads(self.good("gateway", "status", "area/replica-0", "--json"))["replicas"][0]
        return shown

    def wait(self, is_so: Any, what: str) -> None:
        end = time.monotonic() + BOUND_S
        while not is_so():
            assert time.monotonic() < end, f"{what}\n{self.logs()}"
            time.sleep(0.1)

    def reader(self) -> Any:
        return contextlib.closing(Reader.open(self.folder / "area" / "replica-0" / "data"))


@pytest.fixture
def area(tmp_path: Path) -> Iterator[Area]:
    needs.program("mosquitto")
    made = Area(tmp_path)
    try:
        made.good("gateway", "init", "area", "--area", "home", "--free-ports", *RULES)
        made.start("gateway", "gateway", "run", "area")
        made.wait(lambda: "the area runs" in made.logs(), "the area does not run")
        for number in (1, 2):  # their meters are dead: a light node witnesses all the same
            made.good("enroll", "request", f"agent-{number}", "--area-folder", "area", "--point", str(number),
                      "--port", "tcp://127.0.0.1:9", "--type", "sdm120")
            made.good("enroll", "approve", f"agent-{number}", "--area-folder", "area", "--point", str(number))
            made.start(f"agent-{number}", "meter", "run", f"agent-{number}")
        yield made
    finally:
        for name in list(made.processes)[::-1]:
            made.end(name)


@pytest.mark.slow
def test_two_of_two_whoever_is_killed(area: Area) -> None:
    trust = ("--trust", "area/genesis.cbor")
    area.good("proof", "export", "first", "--area-folder", "area", "--header", "witnessed", "--witnesses", "2",
              "--wait", str(BOUND_S))
    said = area.good("verify", "header", "first", *trust, "--witnesses", "2")
    assert "2 of 2 light nodes co-signed" in said and "one signer: tamper-evident" in said
    refused = area.command("verify", "header", "first", *trust, "--witnesses", "3")
    assert refused.returncode == 1 and "too_few_signers" in refused.stderr

    chance = random.Random(3)
    for _ in range(6):  # at any moment: between the saved intent and the signature as well
        name = f"agent-{chance.randrange(1, 3)}"
        time.sleep(chance.uniform(0, 1.5))
        area.end(name, signal.SIGKILL)
        area.start(name, "meter", "run", name)

    with area.reader() as reader:
        before = reader.newest_witnessed()[0]

    def is_whole_again() -> bool:
        with area.reader() as reader:
            return any(found["k"] == found["n"] == 2 and found["height"] > before
                       for found in reader.witness_counts("home"))
    area.wait(is_whole_again, "no header has both signatures any more")

    with area.reader() as reader:
        counts = reader.witness_counts("home")
        heights = [found["height"] for found in counts]
        times = [header.decode(reader.header("trade", height)).time_s for height in heights]
    status = area.status()
    assert status["refused"] == {} and status["alarms"] == [], "never a header that is not the replica's"
    assert status["witnesses"]["n"] == 2 and status["witnesses"]["k"] >= 1
    # One signature of an agent in an interval: with two agents at most two headers of each were signed.
    by_interval = [time_s // INTERVAL_S for time_s in times]
    assert max(by_interval.count(interval) for interval in by_interval) <= 2

    best = str(next(found["height"] for found in counts if found["k"] == 2))
    area.good("proof", "export", "best", "--area-folder", "area", "--header", best)
    report = headerfile.check_file((area.folder / "best").read_bytes(),
                                   (area.folder / "area" / "genesis.cbor").read_bytes(), verify_digest)
    assert (len(report.counted.kids), report.counted.n) == (2, 2)
    files = ("first", "best", "agent-1/data/trust.cbor", "agent-2/data/trust.cbor")
    assert "nothing found" in area.good("audit", *files, *trust)
    saved = decode_trust((area.folder / "agent-1" / "data" / "trust.cbor").read_bytes())
    assert saved.witnessed is not None and saved.contradiction is None
