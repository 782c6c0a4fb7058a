"""The plant: its samples tell what its truth says, to somebody who reads nothing else; and the command, by Modbus."""

from __future__ import annotations

import csv
import json
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy import cli
from sim_hardware.errors import SimError
from sim_hardware.plant.model import (
    AGC_S,
    AVC_S,
    CONNECTED,
    DEADBAND_MHZ,
    EVENT_S,
    EXCUSED,
    IN_AGC,
    IN_AVC,
    NAMES,
    NOMINAL_MHZ,
    NOMINAL_MV,
    QUARTER_S,
    Plan,
    Plant,
    Sample,
)
from tests import needs
from tests.firmware.live import ROOT

DAY_S = 1_767_225_600  # 2026-01-01
HOURS = 24


def judged(samples: list[Sample], capacity_w: int) -> dict[str, list[bool | None]]:
    """What an assessor finds in the samples alone, block by block; None: this block shows nothing."""
    by_time = {sample.time_s: sample for sample in samples}
    found: dict[str, list[bool | None]] = {"agc": [], "avc": [], "events": []}
    for start_s in range(samples[0].time_s, samples[-1].time_s, AGC_S):
        first, last = by_time[start_s], by_time[start_s + AGC_S - 1]
        is_calm = all(abs(one.frequency_mhz - NOMINAL_MHZ) <= DEADBAND_MHZ for one in (first, last))
        shows = is_calm and first.status & IN_AGC and abs(first.power_w - last.agc_command_w) > capacity_w // 10
        found["agc"].append(abs(last.power_w - last.agc_command_w) < capacity_w // 50 if shows else None)
    for start_s in range(samples[0].time_s, samples[-1].time_s, AVC_S):
        first, last = by_time[start_s], by_time[start_s + AVC_S - 1]
        shows = first.status & IN_AVC and abs(first.voltage_mv - last.avc_command_mv) > NOMINAL_MV // 200
        found["avc"].append(abs(last.voltage_mv - last.avc_command_mv) < NOMINAL_MV // 500 if shows else None)
    for start_s in range(samples[0].time_s, samples[-1].time_s, EVENT_S):
        found["events"].append(_answers(by_time, start_s, capacity_w))
    return found


def _answers(by_time: dict[int, Sample], start_s: int, capacity_w: int) -> bool | None:
    """Does the plant give at least half of what the droop asks for 20 s into an event that no ramp hides?"""
    begins = next(at for at in range(start_s, start_s + EVENT_S)
                  if abs(by_time[at].frequency_mhz - NOMINAL_MHZ) > DEADBAND_MHZ)
    before, during = by_time.get(begins - 1), by_time[begins + 20]
    if before is None or begins % AGC_S < 125 or begins % AGC_S > AGC_S - 25 or not before.status & IN_AGC:
        return None
    if abs(before.power_w - before.agc_command_w) > capacity_w // 100:
        return None  # a plant that is still under way to its command
    error = during.frequency_mhz - NOMINAL_MHZ
    asked_w = capacity_w * max(0, abs(error) - DEADBAND_MHZ) // 2500
    if asked_w < capacity_w // 80 or not asked_w // 2 < before.power_w < capacity_w - asked_w:
        return None
    given_w = (before.power_w - during.power_w) * (1 if error > 0 else -1)
    return given_w > asked_w * 6 // 10


@pytest.mark.parametrize(("seed", "quality"), [(1, 1000), (2, 600), (3, 0)])
def test_an_assessor_finds_what_was_done_on_purpose(seed: int, quality: int) -> None:
    plant = Plant(Plan(seed, 50_000, quality, quality, quality, 900, 900, 50))
    until_s = DAY_S + HOURS * 3600
    truth: dict[str, Any] = plant.truth(DAY_S, until_s)
    found = judged([plant.sample(at) for at in range(DAY_S, until_s)], 50_000_000)
    for name in ("agc", "avc", "events"):
        shown = [(block, verdict) for block, verdict in zip(truth[name], found[name]) if verdict is not None]
        assert len(shown) >= (8 if name == "events" and quality else 0 if name == "events" else 30), name
        for block, verdict in shown:
            assert verdict is (block["kind"] == "good"), (name, block)
    assert abs(truth["rates"]["agc_followed"] - quality) <= 100
    assert abs(truth["rates"]["avc_qualified"] - quality) <= 130
    assert abs(truth["rates"]["frequency_qualified"] - quality) <= 160


def test_status_and_rates_are_those_of_the_samples() -> None:
    plant = Plant(Plan(agc_service=700, avc_service=800, excused=300))
    until_s = DAY_S + HOURS * 3600
    rates: dict[str, Any] = plant.truth(DAY_S, until_s)["rates"]  # type: ignore[assignment]
    counted = [plant.sample(at).status for at in range(DAY_S, until_s, QUARTER_S)]
    counted = [status for status in counted if not status & EXCUSED]
    assert rates["agc_operation"] == sum(bool(status & IN_AGC) for status in counted) * 1000 // len(counted)
    assert rates["avc_operation"] == sum(bool(status & IN_AVC) for status in counted) * 1000 // len(counted)
    assert all(status & CONNECTED for status in counted)
    nothing: dict[str, Any] = Plant(Plan(excused=1000)).truth(DAY_S, until_s)["rates"]  # type: ignore[assignment]
    assert set(nothing.values()) == {None}, "0 of 0 is no rate"


def test_any_second_is_the_same_in_any_order() -> None:
    forward, backward = Plant(Plan(7)), Plant(Plan(7))
    seconds = range(DAY_S, DAY_S + 7200, 97)
    assert [forward.sample(at) for at in seconds] == [backward.sample(at) for at in reversed(seconds)][::-1]
    assert Plant(Plan(8)).sample(DAY_S) != forward.sample(DAY_S)
    assert all(0 <= forward.sample(at).power_w <= 55_000_000 for at in seconds)


def test_a_change_alters_nothing_that_has_been() -> None:
    plant = Plant(Plan(5, agc_quality=1000))
    now_s = DAY_S + 6 * 3600 + 100
    before = [plant.sample(at) for at in range(DAY_S, now_s, 60)]
    plant.change("agc_quality", 0, now_s)
    assert [plant.sample(at) for at in range(DAY_S, now_s, 60)] == before
    truth: dict[str, Any] = plant.truth(DAY_S, DAY_S + 12 * 3600)
    kinds = [block["kind"] for block in truth["agc"]]
    assert set(kinds[:73]) <= {"good", "out"} and "good" not in kinds[73:]
    for name, value in (("agc_quality", 1001), ("colour", 5)):
        with pytest.raises(SimError):
            plant.change(name, value, now_s)


@pytest.fixture
def served() -> Iterator[tuple[dict[str, Any], subprocess.Popen[str]]]:
    process = subprocess.Popen([sys.executable, "-m", "deploy.cli", "sim", "plant", "--tcp", "127.0.0.1:0", "--control",
                                "127.0.0.1:0", "--json"], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline()), process
    finally:
        process.kill()
        process.wait()


def test_by_modbus_and_control_port(served: tuple[dict[str, Any], subprocess.Popen[str]]) -> None:
    """mbpoll reads what the control port says; other functions and registers are refused."""
    ready, process = served
    port = ready["buses"][0]["tcp"].rpartition(":")[2]
    mbpoll = needs.program("mbpoll")
    done = subprocess.run([mbpoll, "-m", "tcp", "-p", port, "-a", "1", "-0", "-r", "2", "-t", "4:int", "-B", "-c", "8",
                           "-1", "127.0.0.1"], capture_output=True, text=True, timeout=20)
    values = [int(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("[")]
    host, _, control = ready["control"].rpartition(":")
    with socket.create_connection((host, int(control)), timeout=10) as link, link.makefile("rw") as lines:
        def ask(line: str) -> str:
            lines.write(line + "\n")
            lines.flush()
            return lines.readline().strip()

        sample = json.loads(ask("sample"))
        assert values[0] == pytest.approx(sample["frequency_mhz"], abs=160) and values[7] == 50_000_000
        assert values[2] == sample["agc_command_w"] or sample["time_s"] % AGC_S < 3
        assert ask("set agc_quality 100") == "ok" and ask("set agc_quality 2000").startswith("error agc_quality")
        assert "agc_operation" in json.loads(ask("truth 3600"))["rates"]
        assert NAMES[0] in ask("help") and ask("nonsense").startswith("error expected")
    with socket.create_connection(("127.0.0.1", int(port)), timeout=10) as link:
        for pdu, code in ((b"\x04\x00\x00\x00\x02", 1), (b"\x03\x00\x11\x00\x02", 2)):
            link.sendall(struct.pack(">HHHB", 1, 0, len(pdu) + 1, 1) + pdu)
            assert link.recv(64)[7:] == bytes((pdu[0] | 0x80, code))
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0


def test_a_file_of_samples(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["sim", "plant", "--csv", str(tmp_path / "p.csv"), "--truth", str(tmp_path / "p.json"), "--hours", "2",
             "--step", "10", "--agc", "500"]
    assert cli.main(words) == 0
    rows = list(csv.DictReader((tmp_path / "p.csv").open()))
    plant = Plant(Plan(agc_quality=500))
    assert len(rows) == 720 and [int(value) for value in rows[7].values()] == list(plant.sample(DAY_S + 70))
    assert json.loads((tmp_path / "p.json").read_text()) == json.loads(json.dumps(plant.truth(DAY_S, DAY_S + 7200)))
    for more, text in ((["--from", "yesterday"], "--from"), (["--from", "2026-01-01T00:07"], "multiple"),
                       (["--hours", "0"], "--hours"), (["--agc", "1001"], "agc_quality")):
        assert cli.main([*words, *more]) == 2
        assert text in capsys.readouterr().err
