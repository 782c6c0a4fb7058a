"""Enrolment by the commands, against a running area: asked, approved, listed, refused the second time, revoked."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cbor2
import pytest

from deploy import cli
from deploy.clock import open_clock
from deploy.operator import Person
from firmware import meters
from firmware.wire import transaction
from gateway.ledger.reader import Reader
from tests import needs

ROOT = Path(__file__).parents[2]
WAIT_S = 60.0


@pytest.fixture(scope="module")
def area(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a running area: one replica, a Mosquitto with certificates and access list."""
    needs.program("mosquitto")
    folder = tmp_path_factory.mktemp("enroll") / "area"
    assert cli.main(["gateway", "init", str(folder), "--free-ports"]) == 0
    log = folder.parent / "run.log"
    with open(log, "wb") as output:
        process = subprocess.Popen([sys.executable, "-P", "-m", "deploy.cli", "gateway", "run", str(folder)],
                                   stdout=output, stderr=output, env={**os.environ, "PYTHONPATH": str(ROOT)})
    try:
        end = time.monotonic() + WAIT_S
        while "the area runs" not in log.read_text():
            assert time.monotonic() < end and process.poll() is None, log.read_text()
            time.sleep(0.1)
        yield folder
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def say(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, Any]:
    """Types one command with --json; gives its exit code and what it printed."""
    code = cli.main([*words, "--json"])
    said = capsys.readouterr()
    return code, json.loads(said.out) if said.out.strip() else said.err


def request(area: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    code, said = say(capsys, "enroll", "request", str(folder), "--area-folder", str(area), "--point", "7")
    assert code == 0
    return str(said["kid"])


def test_a_devices_life(area: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    device, where = tmp_path / "device", ["--area-folder", str(area)]
    kid = request(area, device, capsys)
    assert (device / "signing.key").stat().st_mode & 0o077 == 0
    code, said = say(capsys, "enroll", "approve", str(device), *where, "--point", "7:200/5", "--serial", "A1")
    assert (code, said["result"], said["kid"]) == (0, "accepted", kid)
    assert (device / "tls.crt").exists() and (device / "ca.crt").exists()
    code, said = say(capsys, "enroll", "list", *where)
    mine = [row for row in said["enrolled"] if row["kid"] == kid]
    assert code == 0 and mine[0]["points"] == [7] and mine[0]["revoked_height"] is None
    with contextlib.closing(Reader.open(area / "replica-0" / "data")) as reader:
        point = reader.point(7)
    assert point is not None and (point.ratio_num, point.ratio_den, point.serial) == (200, 5, "A1")
    assert point.maker == "Eastron" and point.register_map == meters.map_hash(meters.load("sdm120"))
    assert {row["role"] for row in said["enrolled"]} == {"operator", "recovery", "agent"}
    code, said = say(capsys, "enroll", "approve", str(device), *where, "--point", "7")
    assert (code, said["result"]) == (1, "already_enrolled")
    code, said = say(capsys, "enroll", "revoke", kid, *where, "--reason", "stolen")
    assert (code, said["result"]) == (0, "accepted")
    code, said = say(capsys, "enroll", "list", *where)
    assert [row for row in said["enrolled"] if row["kid"] == kid][0]["revoked_height"] > 0


def test_a_point_has_one_living_agent(area: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--area-folder", str(area), "--point", "12"]
    for number, result in enumerate(("accepted", "point_taken")):
        request(area, tmp_path / str(number), capsys)
        code, said = say(capsys, "enroll", "approve", str(tmp_path / str(number)), *where)
        assert (code, said["result"]) == (number, result)
    assert not (tmp_path / "1" / "tls.crt").exists(), "no certificate for who was refused"


def test_nonsense(area: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    device, where = tmp_path / "device", ["--area-folder", str(area)]
    request(area, device, capsys)
    code, said = say(capsys, "enroll", "request", str(device), *where)
    assert code == 2 and "signing.key" in said, "a key is never overwritten"
    good = cbor2.loads((device / "request.cbor").read_bytes())
    other = tmp_path / "other"
    request(area, other, capsys)
    stolen = cbor2.loads((other / "request.cbor").read_bytes())
    for content, reason in ((b"", "malformed"), (b"\xff" * 9, "malformed"), (bytes(20_000), "oversize"),
                            (cbor2.dumps([good[0], stolen[1]]), "wrong_key"),
                            (cbor2.dumps([good[0][:-1] + bytes([good[0][-1] ^ 1]), good[1]]), "bad_signature")):
        path = tmp_path / "request.cbor"
        path.write_bytes(content)
        code, said = say(capsys, "enroll", "approve", str(path), *where, "--point", "9")
        assert code == 1 and reason in said, (reason, said)
    for words in (["approve", str(device), "--point", "x"], ["approve", str(device), "--point", "7:0/0/"],
                  ["revoke", "nobody"], ["approve", str(tmp_path / "absent"), "--point", "1"]):
        code, said = say(capsys, "enroll", *words, *where)
        assert code == 2, (words, said)
    code, said = say(capsys, "enroll", "revoke", "00" * 8, *where)
    assert (code, said["result"]) == (1, "not_enrolled")


def test_people_with_a_role(area: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A laboratory has a folder of its own; what it may not do stands in a block with its reason."""
    lab, where = tmp_path / "lab", ["--area-folder", str(area)]
    code, said = say(capsys, "enroll", "request", str(lab), *where, "--role", "laboratory")
    assert (code, said["role"]) == (0, "laboratory")
    with pytest.raises(FileNotFoundError, match="approve"):
        Person.open(lab)
    code, said = say(capsys, "enroll", "approve", str(lab), *where)
    assert code == 1 and "not_permitted" in said, "the operator must say which role it is"
    code, said = say(capsys, "enroll", "approve", str(lab), *where, "--role", "laboratory")
    assert (code, said["result"]) == (0, "accepted")
    code, said = say(capsys, "enroll", "request", str(tmp_path / "x"), *where, "--role", "grid", "--point", "3")
    assert code == 2 and "--point" in said
    person = Person.open(lab)
    with contextlib.closing(Reader.open(area / "replica-0" / "data")) as reader:
        record = reader.agent(person.kid)
    assert record is not None and record.role == person.role == "laboratory"
    signed = person.sign(transaction.REVOKE, [bytes(8), ""], open_clock(None))
    assert person.submit(person.area, signed, person.brokers).reason == "not_permitted"
