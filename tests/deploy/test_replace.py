"""A meter and an agent replaced, and a slot corrected, by the commands, against a running area."""

from __future__ import annotations

import contextlib
import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.meter_file import set_epoch
from firmware import config
from firmware.board import linux
from firmware.wire import cbor
from firmware.wire.state import PointRecord
from gateway.ledger.reader import Reader
from tests.deploy import test_enroll
from tests.deploy.test_enroll import ROOT, say

area = test_enroll.area  # a running one, with certificates and access list


@pytest.fixture
def device(area: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A device that serves point 7, approved."""
    folder, where = tmp_path / "device", ["--area-folder", str(area)]
    number = str(abs(hash(tmp_path)) % 10**6)
    assert say(capsys, "enroll", "request", str(folder), *where, "--point", number)[0] == 0
    assert say(capsys, "enroll", "approve", str(folder), *where, "--point", number)[0] == 0
    (folder / "number").write_text(number)
    return folder


@pytest.fixture
def meter() -> Iterator[str]:
    """The address of a simulated meter on Modbus TCP."""
    process = subprocess.Popen([sys.executable, "-m", "deploy.cli", "sim", "meter", "--tcp", "127.0.0.1:0", "--json"],
                               stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert process.stdout is not None
        yield "tcp://" + json.loads(process.stdout.readline())["buses"][0]["tcp"]
    finally:
        process.terminate()
        process.wait(20)


def point(area: Path, device: Path) -> PointRecord:
    with contextlib.closing(Reader.open(area / "replica-0" / "data")) as reader:
        found = reader.point(int((device / "number").read_text()))
    assert found is not None
    return found


def epoch(device: Path) -> int:
    return config.places(linux.load_config(device)[0])[0].meter_epoch


def test_on_two_machines(area: Path, device: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The device signs and makes the file, the operator signs the same; only then the point has the new meter."""
    number, where = (device / "number").read_text(), ["--area-folder", str(area)]
    words = ["meter", "replace", str(device), number]
    code, said = say(capsys, *words, "--old", "104711/5", "--start", "12/0", "--serial", "B2", "--as", "agent")
    assert (code, [will["result"] for will in said["wills"]]) == (0, ["accepted"])
    assert (point(area, device).meter_epoch, epoch(device)) == (1, 2)
    file = device / f"replace-{number}.cbor"
    assert cbor.decode(file.read_bytes()) == [int(number), 104711, 5, "Eastron", "SDM120-Modbus", "B2", 12, 0]
    code, said = say(capsys, "meter", "replace", str(file), number, "--as", "operator", *where)
    assert (code, said["wills"][0]["side"], said["wills"][0]["result"]) == (0, "operator", "accepted")
    found = point(area, device)
    assert (found.meter_epoch, found.serial, found.start_import_wh, found.start_export_wh) == (2, "B2", 12, 0)
    code, said = say(capsys, "meter", "replace", str(file), "1", "--as", "operator", *where)
    assert code == 2 and "is about point" in said


def test_with_both_keys_at_hand_and_the_new_meter_on_the_bus(area: Path, device: Path, meter: str,
                                                             capsys: pytest.CaptureFixture[str]) -> None:
    number, where = (device / "number").read_text(), ["--area-folder", str(area)]
    path = device / "meter.toml"
    path.write_text(path.read_text().replace("/dev/ttyUSB0", meter))
    words = ["meter", "replace", str(device), number]
    code, said = say(capsys, *words, "--old", "900/0", *where)
    assert (code, [will["side"] for will in said["wills"]]) == (0, ["agent", "operator"])
    found = point(area, device)
    assert found.meter_epoch == epoch(device) == 2
    assert found.start_import_wh is not None and found.start_import_wh > 0, "as it was read"
    code, said = say(capsys, *words, "--old", f"{found.start_import_wh - 1}/0", "--start", "0/0", *where)
    assert (code, [will["result"] for will in said["wills"]]) == (1, ["contradiction"]), "it began above that"
    assert epoch(device) == 2


@pytest.mark.parametrize(("words", "text"), [
    (["--old", "7/0"], "--area-folder"),
    (["--as", "agent"], "--old WH/WH"),
    (["--old", "7", "--start", "1/1", "--as", "agent"], "expected WH/WH"),
    (["--old", "7/-1", "--start", "1/1", "--as", "agent"], "expected WH/WH"),
    (["--old", "read", "--as", "agent"], "that is one meter"),
    (["--old", "7/0", "--start", "x/1", "--as", "agent"], "--start"),
])
def test_nonsense(device: Path, words: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = say(capsys, "meter", "replace", str(device), (device / "number").read_text(), *words)
    assert code == 2 and text in said
    code, said = say(capsys, "meter", "replace", str(device), "4711", "--old", "1/1", "--start", "1/1", "--as", "agent")
    assert code == 2 and "has no point" in said


def test_a_new_key_for_the_points_of_an_old_one(area: Path, device: Path, tmp_path: Path,
                                                capsys: pytest.CaptureFixture[str]) -> None:
    """It begins with the meter that is there now; the old key is over."""
    number, where = (device / "number").read_text(), ["--area-folder", str(area)]
    assert say(capsys, "meter", "replace", str(device), number, "--old", "7/0", "--start", "0/0", *where)[0] == 0
    with contextlib.closing(Reader.open(area / "replica-0" / "data")) as reader:
        old = next(kid for kid, agent in reader.agents() if int(number) in agent.points)
    new = tmp_path / "new"
    code, said = say(capsys, "enroll", "request", str(new), *where, "--point", number)
    assert code == 0
    kid = said["kid"]
    code, said = say(capsys, "enroll", "replace", old.hex(), str(new), *where)
    assert (code, said["result"], said["kid"]) == (0, "accepted", kid)
    assert (new / "tls.crt").exists() and (new / "ca.crt").exists()
    assert epoch(new) == 2
    with contextlib.closing(Reader.open(area / "replica-0" / "data")) as reader:
        record, found = reader.agent(old), reader.agent(bytes.fromhex(kid))
    assert record is not None and record.revoked_height is not None and found is not None
    assert found.points == [int(number)] and point(area, device).agent == bytes.fromhex(kid)
    code, said = say(capsys, "enroll", "replace", old.hex(), str(new), *where)
    assert (code, said["result"]) == (1, "revoked")
    code, said = say(capsys, "enroll", "replace", "old", str(new), *where)
    assert code == 2 and "16 hexadecimal digits" in said


def test_an_epoch_is_written_where_it_belongs(tmp_path: Path) -> None:
    """Comments, other points and the rest of the file stay; what cannot be done is said."""
    path = tmp_path / "meter.toml"
    text = ('area = "home"\nbrokers = ["mqtts://localhost:8883"]\n[[bus]]\nport = "/dev/ttyUSB0"\n[[bus.meter]]\n'
            'point = 71   # not 7\nunit = 1\ntype = "sdm120"\n\n[[bus.meter]]\nunit = 2\npoint = 7  # the kitchen\n'
            'type = "sdm120"\nepoch = 1 # of 2024\n')
    path.write_text(text)
    set_epoch(path, 7, 2)
    assert path.read_text() == text.replace("epoch = 1 #", "epoch = 2 #")
    set_epoch(path, 71, 5)
    assert "point = 71   # not 7\nepoch = 5\n" in path.read_text()
    before = path.read_text().replace("point = 7  #", "point = 0x7  #")
    path.write_text(before)
    with pytest.raises(ValueError, match="by hand"):
        set_epoch(path, 7, 3)
    assert path.read_text() == before


def test_a_correction_by_the_operator_and_by_a_dispatcher(area: Path, tmp_path: Path,
                                                          capsys: pytest.CaptureFixture[str]) -> None:
    """Both reach the contracts (which refuse it here: no calendar runs); a device may not send one."""
    evidence, where = tmp_path / "photo", ["--area-folder", str(area)]
    evidence.write_bytes(b"a register")
    words = ["meter", "correct", "7", "--slot", "2026-10-25T01:00Z", "--reason", "on site", "--evidence", str(evidence)]
    code, said = say(capsys, *words, "--import", "412", *where)
    assert (code, said["result"], said["slot"]) == (1, "outside_window", 1792890000)
    assert said["evidence"] == hashlib.sha256(b"a register").hexdigest()
    dispatcher = tmp_path / "dispatcher"
    assert say(capsys, "enroll", "request", str(dispatcher), *where, "--role", "dispatcher")[0] == 0
    assert say(capsys, "enroll", "approve", str(dispatcher), *where, "--role", "dispatcher")[0] == 0
    code, said = say(capsys, *words, "--missing", "--person", str(dispatcher))
    assert (code, said["result"]) == (1, "outside_window")
    for wrong in (["--missing", "--import", "1"], []):
        code, said = say(capsys, *words, *wrong, *where)
        assert code == 2 and "--missing alone" in said
    with pytest.raises(SystemExit) as ended:
        say(capsys, *words, "--export", "-1", *where)
    assert ended.value.code == 2 and "Wh of one slot" in capsys.readouterr().err
