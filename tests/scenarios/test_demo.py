"""The demo as a user types it: exit code, every field of its report, and no process left behind, however it ends."""

from __future__ import annotations

import ast
import contextlib
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from deploy import cli
from deploy.demo import report as report_room
from deploy.demo.world import DAY_START_S
from deploy.supervisor import environment, read_list
from gateway.ledger.reader import Reader
from tests import needs
from tests.house.rooms import imports

ROOT = Path(__file__).parents[2]
WAIT_S = 240.0  # for a demo of an hour, which takes 20 s on a quiet machine

# gateway.md, `demo --json`: name and type; a nested object by its own table
FIELDS = {"readings": {"made": int, "sealed": int, "committed": int, "refused": dict, "marked": dict},
          "blocks": int, "trades": int,
          "settlement": {"sum_mc": int, "turnover_mc": int, "bought_wh": int, "sold_wh": int, "shortfall_wh": int,
                         "surplus_wh": int},
          "witnesses": {"k": int, "n": int, "height": int}, "alarms": list, "seconds": (int, float)}


def command(folder: Path, *words: str) -> list[str]:
    return [sys.executable, "-P", "-m", "deploy.cli", "demo", "--folder", str(folder), "--json", *words]


def run_demo(folder: Path, *words: str) -> dict[str, Any]:
    """The report of a demo that was typed; it must have exited with 0 and printed nothing else."""
    done = subprocess.run(command(folder, *words), env=environment(), capture_output=True, text=True, timeout=WAIT_S)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{last_words(folder)}"
    assert done.stderr == ""
    return dict(json.loads(done.stdout))


def last_words(folder: Path) -> str:
    return "\n".join(f"--- {path.name}\n{path.read_text(errors='replace')[-600:]}"
                     for path in sorted(folder.glob("area/logs/*.log")))


def check_fields(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    for name, kind in wanted.items():
        if isinstance(kind, dict):
            check_fields(found[name], kind)
        else:
            assert isinstance(found[name], kind), (name, found[name])


def check_report(report: dict[str, Any], points: int, hours: int, replicas: int) -> None:
    """What the issue wants of a report: the ledger is the truth, the replicas are equal, certified and provable."""
    check_fields(report, FIELDS)
    readings = points * (hours * 60 + 1)
    assert report["readings"] == {"made": readings, "sealed": readings, "committed": readings, "refused": {},
                                  "marked": {}}
    truth = report["truth"]
    assert truth["equal"] and truth["rows"] == readings and truth["compared"] > readings * 3
    assert (truth["missing"], truth["double"], truth["altered"], truth["unknown"]) == (0, 0, 0, 0)
    held = report["replicas"]
    assert held["count"] == replicas and held["headers_equal"] and held["uncertified"] == 0
    assert held["certificates"] == held["height"] * replicas > 0
    assert report["proofs"] == {"tried": 3, "good": 3}
    assert report["good"] and report["settled"]
    assert 0 < report["witnesses"]["k"] == report["witnesses"]["n"]


def processes_of(folder: Path) -> list[list[str]]:
    """Command lines of this machine's processes that name the folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode(errors="replace").split("\0")[:-1]
        except OSError:
            continue  # it has just ended
        if any(str(folder) in word for word in words):
            found.append(words)
    return found


def check_market(report: dict[str, Any], hours: int) -> None:
    """What issue and papers want of the market's day: slots from 01:00 on, the last one that ended is settled."""
    sums = report["settlement"]
    assert report["clearings"] == hours and report["trades"] >= hours
    assert sums["sum_mc"] == 0 and sums["turnover_mc"] > 0 and sums["bought_wh"] == sums["sold_wh"] > 0
    assert report["slots"]["settled"] == hours - 1 and report["slots"]["even"]
    assert report["energies"]["equal"] and report["energies"]["worst_wh"] <= 1 and not report["energies"]["missing"]
    assert report["energies"]["paper"] == {"compared": 4 * (hours - 1), "worst_wh": 0}
    assert report["bids"] == {"cells": 3 * hours, "equal": 3 * hours, "differing": []}
    assert report["bill"]["verdict"] == "good" and report["bill"]["lines"] == hours - 1


def check_alarm(report: dict[str, Any]) -> None:
    """The one alteration made one alarm that names it, within an interval of fifteen minutes, and was cleared."""
    assert len(report["alarms"]) == 1
    alarm, done = report["alarms"][0], report["device"]["alteration"]
    assert (alarm["device"], alarm["outcome"], alarm["kind"]) == ("bay-1", "MISMATCH", "value")
    assert (alarm["item"], alarm["offset"]) == (done["file"], done["offset"]) and alarm["cleared"]
    assert 0 <= report["device"]["raised_after_s"] <= 900 and 0 <= report["device"]["cleared_after_s"] <= 900


@pytest.mark.slow
def test_three_hours_of_four_replicas(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the blind auction, whose fills the paper's table determines; then the README's lines on what it left."""
    needs.program("mosquitto")
    report = run_demo(tmp_path / "demo", "--hours", "3", "--mechanism", "blind")
    check_report(report, points=12, hours=3, replicas=4)
    check_market(report, 3)
    assert report["fills"] == {"cells": 9, "equal": 9, "differing": []}
    check_alarm(report)
    assert report["witnesses"]["n"] == 7, "an agent of each trader, three of the village"
    assert not processes_of(tmp_path)
    check_lines_after(tmp_path)
    check_join(tmp_path / "demo")
    proof = tmp_path / "demo" / "reading-1.proof"
    damaged = bytearray(proof.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    proof.write_bytes(damaged)
    trust = ["--trust", str(tmp_path / "demo" / "area" / "genesis.cbor")]
    assert cli.main(["verify", "proof", str(proof), *trust]) == 1


def check_lines_after(folder: Path) -> None:
    """The README's lines on a finished demo's folder."""
    text = (ROOT / "README.md").read_text()
    block = re.search(r"<!-- after-demo -->\n```sh\n(.*?)```", text, re.S)
    assert block, "the README has lost its lines to look into a demo"
    for line in block.group(1).strip().splitlines():
        words = line.split("#")[0].replace("gridseal-demo-1", "demo").split()
        words = [sys.executable, "-m", "deploy.cli", *words[1:]] if words[0] == "./gridseal" else [
            sys.executable, str(ROOT / words[1]), *words[2:]]
        done = subprocess.run(words, cwd=folder, env=environment(), capture_output=True, text=True, timeout=60)
        assert done.returncode == 0 and done.stdout, f"{line}\n{done.stdout}{done.stderr}"


def check_join(folder: Path) -> None:
    """The join with the truth finds a row too many, a row too few and a register that is another."""
    path = folder / "meters-tcp-truth.csv"
    truth, last_ms = path.read_text(), (DAY_START_S + 3600) * 1000
    rows = truth.splitlines()
    at = next(index for index, row in enumerate(rows) if ",sdm630," in row)
    place = rows[at].index("0000:") + 5 + 4 * 0x48  # SDM630: imported energy, kWh, a float in two registers
    lacking, changed, more = rows.copy(), rows.copy(), rows.copy()
    del lacking[at]
    changed[at] = rows[at][:place] + "447a0000" + rows[at][place + 8:]  # 1,000.0
    more.append("99" + rows[at][rows[at].index(","):])
    with contextlib.closing(Reader.open(folder / "area" / "replica-3" / "data")) as reader:
        for lines, difference in ((rows, ""), (lacking, "unknown"), (changed, "altered"), (more, "missing")):
            path.write_text("\n".join(lines) + "\n")
            joined = report_room.join(reader, [path, folder / "meters-rtu-truth.csv"], last_ms)
            assert joined.is_equal == (difference == ""), difference
            assert not difference or getattr(joined, difference) >= 1, (difference, joined)
    path.write_text(truth)


@pytest.mark.slow
def test_without_a_broker_of_the_system(tmp_path: Path) -> None:
    pytest.importorskip("amqtt", reason=f"{needs.MISSING}amqtt (pip install 'gridseal[demo]')")
    report = run_demo(tmp_path / "demo", "--hours", "2", "--embedded-broker", "--meters", "6", "--no-tamper")
    check_report(report, points=6, hours=2, replicas=4)
    check_market(report, 2)
    assert report["alarms"] == [] and report["device"]["reports"] > 0
    assert not processes_of(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_keeps_running_until_it_is_ended(tmp_path: Path, number: signal.Signals) -> None:
    """One replica, three agents; after the report all is up, made of commands only, and one signal ends all of it."""
    needs.program("mosquitto")
    folder = tmp_path / "demo"
    words = command(folder, "--hours", "1", "--meters", "3", "--replicas", "1", "--mechanism", "none",
                    "--keep-running")
    with subprocess.Popen(words, env=environment(), stdout=subprocess.PIPE, text=True) as playing:
        try:
            assert playing.stdout is not None
            check_report(json.loads(playing.stdout.readline()), points=3, hours=1, replicas=1)
            rows = read_list(folder / "area")
            kinds = sorted(row["kind"] for row in rows)
            assert kinds == ["agent", "agent", "agent", "broker", "meter", "meter", "replica"]
            for row in rows:
                assert is_typed_command(row["command"]), row
            assert len(processes_of(folder)) >= 1 + len(rows)
            playing.send_signal(number)
            assert playing.wait(60) == 0
        finally:
            playing.kill()
    assert not processes_of(folder)
    assert read_list(folder / "area") == []


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 130), (signal.SIGKILL, -9)])
def test_ended_in_the_middle(tmp_path: Path, number: signal.Signals, code: int) -> None:
    """Even by kill -9, which lets nobody clean up: the kernel tells the children."""
    needs.program("mosquitto")
    folder = tmp_path / "demo"
    words = command(folder, "--hours", "24", "--meters", "3", "--replicas", "1", "--mechanism", "none")
    with subprocess.Popen(words, env=environment(), stdout=subprocess.PIPE, text=True) as playing:
        try:
            wait_until(lambda: len(read_list(folder / "area")) == 7)
            playing.send_signal(number)
            assert playing.wait(60) == code
        finally:
            playing.kill()
    wait_until(lambda: not processes_of(folder))


def is_typed_command(words: list[str]) -> bool:
    """Something a person could have typed: a `gridseal` command, or the system's broker."""
    if words[1:4] == ["-P", "-m", "deploy.cli"]:
        return words[4] in cli.COMMANDS
    return Path(words[0]).name == "mosquitto"


def wait_until(is_so: Any) -> None:
    end = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


def test_one_path() -> None:
    """The demo has no way of its own through the house: it types commands, keeps the clock, reads ledger and truth."""
    allowed = ("deploy", "gateway.ledger.reader", "gateway.market.records", "sim_hardware.truth", "firmware.wire",
               "firmware.crypto.openssl.verify_digest")
    seen = set()
    for path in sorted((ROOT / "deploy" / "demo").glob("*.py")):
        for line, name in imports(ast.parse(path.read_text())):
            if name.split(".")[0] in ("deploy", "firmware", "gateway", "sim_hardware", "tests"):
                assert any(name == one or name.startswith(one + ".") for one in allowed), f"{path.name}:{line} {name}"
                seen.add(name)
    assert {"deploy.cli", "deploy.gateway.area_programs", "deploy.supervisor.gridseal"} <= seen
