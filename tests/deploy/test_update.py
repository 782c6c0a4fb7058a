"""Checks `gridseal update` by command, on a Pi's agent with slots: made, signed, installed, sent, gone back from."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy import certificates, update_send
from deploy import update as packages
from firmware import boot
from firmware.board import linux_slots
from firmware.crypto.openssl import OpenSSLSigner
from firmware.wire import identity, seal
from tests.firmware.live import process, wait_for
from tests.micropython.boards import AREA, Surrounding, check_chain
from tests.node.cluster import ENVIRONMENT

pytestmark = pytest.mark.slow
CRASH = "raise ValueError('this version crashes at its start')\n"


def gridseal(*words: str | Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-P", "-m", "deploy.cli", *map(str, words)], env=ENVIRONMENT,
                          capture_output=True, text=True, timeout=120)


class Pi:
    """A Linux agent's folder in an area whose broker and meter run; its packages."""

    def __init__(self, folder: Path) -> None:
        self.surrounding = Surrounding(folder, ["pi"]).start()
        self.home = folder / "pi"
        (self.home / "data").mkdir(parents=True)
        signer = OpenSSLSigner.generate()
        signer.save(self.home / "signing.key")
        self.kid = identity.kid_of(signer.public_key())
        area = self.surrounding.area
        tls = certificates.generate_key()
        (self.home / "tls.key").write_bytes(certificates.key_pem(tls))
        leaf = certificates.issue(*certificates.load_ca(area / "ca"), tls.public_key(), self.kid.hex())
        (self.home / "tls.crt").write_bytes(certificates.pem(leaf))
        for name, source in (("genesis.cbor", "genesis.cbor"), ("ca.crt", "ca/ca.crt")):
            (self.home / name).write_bytes((area / source).read_bytes())
        (self.home / "meter.toml").write_text(
            f'area = "{AREA}"\nbrokers = ["{self.surrounding.url}"]\ninterval_s = 1\nseal_every_s = 1\n'
            f'details_every_s = 0\njournal_kib = 256\n[[bus]]\nport = "rtu+tcp://{self.surrounding.lines[0]}"\n'
            'answer_ms = 250\n[[bus.meter]]\npoint = 1\nunit = 1\ntype = "sdm120"\n')
        self.first = folder / "5.update"
        assert gridseal("update", "make", self.first, "--model", "linux", "--counter", "5").returncode == 0
        self.sign(self.first)

    def sign(self, path: Path) -> None:
        area = self.surrounding.area
        done = gridseal("update", "sign", path, "--key", area / "operator" / "signing.key", "--genesis",
                        area / "genesis.cbor")
        assert done.returncode == 0, done.stderr

    def variant(self, counter: int, text: str) -> Path:
        """The first package with another firmware/__init__.py, signed."""
        package = packages.read(self.first)
        files, at = [], 0
        for name, size, _ in packages.contents(package).rows:
            files.append((name, package.data[at:at + size]))
            at += size
        files = [(name, text.encode() if name == "firmware/__init__.py" else data) for name, data in files]
        path = self.surrounding.folder / f"{counter}.update"
        packages.write(path, packages.make_package(files, "linux", counter))
        self.sign(path)
        return path

    def send(self, path: Path) -> "subprocess.CompletedProcess[str]":
        return gridseal("update", "send", path, "--area-folder", self.surrounding.area, "--agent", self.kid.hex(),
                        "--json")

    def measurement(self, path: Path) -> bytes:
        return packages.contents(packages.read(path)).measurement

    def wait_for_seals_of(self, path: Path) -> None:
        count = len(self.surrounding.seals(self.kid))
        wanted = self.measurement(path)
        wait_for(lambda: any(one.seal.measurement == wanted for one in self.surrounding.seals(self.kid)[count:]),
                 f"a seal of {path.name}", 60)


@pytest.fixture(scope="module")
def pi(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pi]:
    made = Pi(tmp_path_factory.mktemp("pi"))
    yield made
    made.surrounding.close()


def test_an_agent_with_slots_takes_what_is_good_and_goes_back_from_what_fails(pi: Pi) -> None:
    assert not linux_slots.has_slots(pi.home)
    done = gridseal("update", "install", pi.home, pi.first)
    assert done.returncode == 0 and linux_slots.has_slots(pi.home), done.stderr
    assert gridseal("update", "install", pi.home, pi.first).returncode == 1, "not newer"
    log = pi.surrounding.folder / "agent.log"
    with process([sys.executable, "-P", "-m", "deploy.cli", "meter", "run", str(pi.home)], log):
        pi.wait_for_seals_of(pi.first)
        good = pi.variant(6, "EDITION = 6\n")
        done = pi.send(good)
        assert done.returncode == 0 and json.loads(done.stdout)["agents"] == [[pi.kid.hex(), "confirmed", ""]], (
            done.stdout + done.stderr + log.read_text())
        pi.wait_for_seals_of(good)
        done = pi.send(pi.variant(7, CRASH))
        assert done.returncode == 1 and json.loads(done.stdout)["agents"] == [[pi.kid.hex(), "failed", ""]]
        pi.wait_for_seals_of(good)
        record = boot.load(str(pi.home / boot.NAME))
        assert record is not None and record[:3] == [1, 1, True] and record[4:8] == [7, 6, 6, 7]
    found = pi.surrounding.seals(pi.kid)
    check_chain(found, pi.surrounding.chain_id)
    assert {(one.seal.measurement, one.seal.flags & seal.SLOT_B) for one in found} == {
        (pi.measurement(pi.first), 0), (pi.measurement(good), seal.SLOT_B)}


def test_a_package_that_was_not_signed_or_was_changed_is_not_sent(pi: Pi) -> None:
    unsigned = pi.surrounding.folder / "unsigned.update"
    assert gridseal("update", "make", unsigned, "--model", "linux", "--counter", "9").returncode == 0
    done = pi.send(unsigned)
    assert done.returncode == 2 and "not signed" in done.stderr
    changed = packages.read(pi.first)
    packages.write(unsigned, packages.Package(changed.manifest, changed.data[:-1] + b"x"))
    done = pi.send(unsigned)
    assert done.returncode == 1 and "wrong_digest" in done.stderr
    done = gridseal("update", "show", unsigned, "--genesis", pi.home / "genesis.cbor")
    assert done.returncode == 1 and "wrong_digest" in done.stderr
    unsigned.write_bytes(b"no package")
    assert gridseal("update", "show", unsigned).returncode == 2


def test_a_package_shows_what_seals_will_carry(pi: Pi) -> None:
    done = gridseal("update", "show", pi.first, "--genesis", pi.home / "genesis.cbor", "--json")
    shown = json.loads(done.stdout)
    assert (shown["model"], shown["counter"], shown["is_checked"]) == ("linux", 5, True)
    assert shown["measurement"] == pi.measurement(pi.first).hex()
    assert "signature and files hold" in gridseal("update", "show", pi.first, "--genesis",
                                                  pi.home / "genesis.cbor").stdout


@pytest.mark.parametrize("count, percent, sizes", (
    (0, 10, []), (1, 10, [1]), (2, 10, [1, 1]), (20, 10, [1, 2, 17]), (100, 25, [1, 25, 74]), (3, 100, [1, 2])))
def test_stages_are_one_then_some_then_all(count: int, percent: int, sizes: list[int]) -> None:
    kids = [bytes([number]) * 8 for number in range(count)]
    found = update_send.stages(kids, percent)
    assert [len(part) for part in found] == sizes and [kid for part in found for kid in part] == kids


def test_every_command_shows_an_example() -> None:
    for words in ("make", "sign", "show", "install", "send", "status"):
        done = gridseal("update", words, "--help")
        assert done.returncode == 0 and "example" in done.stdout
