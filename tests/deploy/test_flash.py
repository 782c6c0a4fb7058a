"""Checks the parts of `gridseal flash` that need no board: table, MicroPython's file, agent, settings, request."""

from __future__ import annotations

import hashlib
from pathlib import Path

import cbor2
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from deploy import certificates, cli
from deploy.flash import agent, interpreter, layout, on_board, request, settings
from deploy.flash.errors import FlashError
from firmware import config, meters, romfs
from firmware.board import esp32_start
from firmware.crypto.openssl import OpenSSLSigner
from firmware.wire import cbor, genesis, identity, transaction
from sim_hardware.board import partitions
from sim_hardware.board.nor import NorFlash
from tests.deploy.boards import MIB, write_firmware
from tests.house.micropython_lint import ONLY_CPYTHON

METER = """area = "home"
genesis = "genesis.cbor"
data = "data"
signing_key = "signing.key"
journal_kib = 64
brokers = ["mqtts://127.0.0.1:8883", "mqtts://127.0.0.1:8884"]
[[bus]]
port = "uart1:tx=17,rx=16,de=4"
[[bus.meter]]
point = 3
unit = 2
type = "sdm630"
[[bus.meter]]
point = 4
unit = 3
type = "sdm120"
[[bus]]
port = "tcp://192.168.1.9:502"
[[bus.meter]]
point = 5
unit = 1
type = "sdm120"
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    assert cli.main(["gateway", "init", str(tmp_path / "area"), "--free-ports"]) == 0
    folder = tmp_path / "meter-1"
    folder.mkdir()
    (folder / "meter.toml").write_text(METER)
    (folder / "genesis.cbor").write_bytes((tmp_path / "area" / "genesis.cbor").read_bytes())
    return folder


@pytest.mark.parametrize(("mib", "places"), [
    (4, {"ota_1": (0x190000, 0x180000), "romfs": (0x310000, 0x40000), "vfs": (0x350000, 0x18000),
         "journal": (0x368000, 608 << 10)}),
    (8, {"ota_1": (0x280000, 0x270000), "romfs": (0x4F0000, 0x40000), "vfs": (0x530000, 0x18000),
         "journal": (0x548000, 2784 << 10)}),
    (16, {"journal": (0x548000, 10976 << 10)})])
def test_the_table_is_what_a_boot_loader_reads(tmp_path: Path, mib: int, places: dict[str, tuple[int, int]]) -> None:
    parts = layout.layout(mib * MIB)
    flash = NorFlash(tmp_path / "flash", mib * MIB)
    flash.program(layout.TABLE_AT, layout.make_table(parts))
    assert [tuple(part) for part in partitions.read_table(flash)] == [tuple(part) for part in parts]
    flash.close()
    assert {part.label: (part.offset, part.size) for part in parts if part.label in places} == places
    assert sum(places["journal"]) == mib * MIB


@pytest.mark.parametrize(("change", "named"), [
    ({"size": 0x180001}, "ota_0"), ({"offset": 0x9000}, "ota_0"), ({"size": 0x181000}, "ota_1")])
def test_a_table_that_cannot_be_is_refused(change: dict[str, int], named: str) -> None:
    """Half a sector, and overlaps with what lies before and behind; of two that overlap the second is named."""
    parts = layout.layout(4 * MIB)
    bad = parts[3]._replace(**change)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=named):
        layout.make_table([*parts[:3], bad, *parts[4:]])


def test_a_flash_that_is_too_small_is_refused() -> None:
    with pytest.raises(ValueError, match="2 MiB is too small"):
        layout.layout(2 * MIB)


@pytest.mark.parametrize("chip", ["esp32", "esp32-s3", "esp32-c3"])
def test_micropythons_file_is_taken_apart(tmp_path: Path, chip: str) -> None:
    digest = write_firmware(tmp_path / "firmware.bin", chip)
    found = interpreter.read(tmp_path / "firmware.bin", digest.upper())
    data = (tmp_path / "firmware.bin").read_bytes()
    assert found.chip.name.lower() == chip and found.digest == digest
    assert data.startswith(found.bootloader) and data.endswith(found.application)
    assert len(found.bootloader) < 0x7000 and data[0x8000 - found.chip.bootloader_at:][:2] == b"\xaa\x50"


@given(st.data())
def test_a_damaged_file_never_passes(data: st.DataObject) -> None:
    """Whoever gives the hash of a damaged file is told all the same, where the damage lies in an image."""
    import tempfile
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "f.bin"
        write_firmware(path, size=3000)
        found = bytearray(path.read_bytes())
        starts = (0, 0xF000)
        start = data.draw(st.sampled_from(starts))
        at = start + data.draw(st.integers(0, 150))
        found[at] ^= data.draw(st.integers(1, 255))
        path.write_bytes(found)
        if at - start == 23:  # "a hash is appended": without it there is none to check
            return
        with pytest.raises(FlashError):
            interpreter.read(path, hashlib.sha256(found).hexdigest())


def test_the_agents_files_are_those_a_board_needs_and_no_other() -> None:
    names = agent.modules(("sdm120", "b23"))
    files = {name.replace(".", "/").removeprefix("firmware/") + ".py" for name in names}
    assert not files & set(ONLY_CPYTHON) and "firmware.board.sim" not in names
    assert {name for name in names if name.startswith("firmware.meters.")} == {"firmware.meters.sdm120",
                                                                             "firmware.meters.b23"}
    for wanted in ("agent", "main", "board.esp32", "board.esp32_safe", "board.esp32_enrol", "board.tls_key", "update",
                   "crypto.p256", "wire.cose"):
        assert f"firmware.{wanted}" in names, wanted


def test_a_slot_with_three_types_fits_and_reads_back() -> None:
    files = agent.build(("sdm120", "sdm630", "b23"))
    assert files == sorted(files) and all(data[:2] == b"M\x06" for _, data in files)
    assert agent.build(("sdm120", "sdm630", "b23")) == files  # the same bytes each time: nothing is written twice
    assert b"check_readings" not in dict(files)["firmware/wire/seal.mpy"]  # what gateways need stays here
    image = agent.slot_image(b"a manifest", files)
    for count in (10, 11):  # an image has an even length
        rows = [("manifest.cbor", count), *((name, len(data)) for name, data in files)]
        assert len(agent.slot_image(bytes(count), files)) == romfs.size_of(rows)
    assert len(image) <= layout.SLOT_BYTES and image[:3] == romfs.MAGIC
    assert partitions.unpack_romfs(image) == dict(files) | {"manifest.cbor": b"a manifest"}
    with pytest.raises(FlashError, match="a slot 131072"):
        agent.slot_image(bytes(9000), [*files, ("firmware/zzz.mpy", bytes(40_000))])


def test_settings_reach_the_board_as_it_reads_them(home: Path, tmp_path: Path) -> None:
    found = settings.load(home)
    assert found.types == ("sdm120", "sdm630") and not found.is_approved
    assert set(found.files) == {"meter.cbor", "genesis.cbor"}
    board = tmp_path / "board"
    board.mkdir()
    for name, data in found.files.items():
        (board / name).write_bytes(data)
    read = esp32_start.load_config(str(board))
    assert read.hash == found.config.hash
    assert config.places(read) == config.places(found.config)
    assert found.config.journal_kib == 64 != read.journal_kib  # a Pi's stays behind
    (home / "wifi.toml").write_text('[[network]]\nssid = "home"\npassword = "a b"\n[[network]]\nssid = "open"\n')
    (home / "tls.crt").write_text("certificate")
    (home / "ca.crt").write_text("ca")
    found = settings.load(home / "meter.toml")
    assert found.is_approved and found.files["ca.crt"] == b"ca"
    (board / "wifi.cbor").write_bytes(found.files["wifi.cbor"])
    assert esp32_start.networks(str(board)) == [("home", "a b"), ("open", "")]


@pytest.mark.parametrize("text", ["", "[[network]]\npassword = 'x'", "[[network]]\nssid = 5", "network = 3",
                                  "[[network]]\nssid = ''", "[[network]]\nssid = '" + 33 * "x" + "'",
                                  "[[network]]\nssid = 'a'\npassword = '" + 64 * "secret"[:1] + "'", "[[",
                                  9 * "[[network]]\nssid = 'a'\n"])
def test_wifi_that_cannot_be_is_told_without_its_password(home: Path, text: str) -> None:
    (home / "wifi.toml").write_text(text)
    with pytest.raises(FlashError, match="wifi.toml") as caught:
        settings.load(home)
    assert "ssssss" not in str(caught.value)


def test_what_a_board_cannot_have_is_told(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "genesis.cbor").unlink()
    with pytest.raises(FlashError, match="--area-folder"):
        settings.load(home)
    (home / "genesis.cbor").write_bytes(b"\xa0")
    with pytest.raises(FlashError, match="no genesis"):
        settings.load(home)
    (home / "mine.toml").write_text('maker = "m"\nmodel = "n"\n[[field]]\nlabel = "import"\nobis = "1.8.0"\n'
                                    'unit = "Wh"\naddress = 0\nkind = "u32"\nbilling = true\n')
    (home / "meter.toml").write_text(METER.replace('"sdm630"', '"mine"'))
    with pytest.raises(FlashError, match="mine: a meter file of your own works on a Pi"):
        settings.load(home)
    (home / "meter.toml").write_text(METER.replace("interval", "intervall") + "\nintervall_s = 3\n")
    capsys.readouterr()
    assert cli.main(["flash", "nowhere", "--config", str(home)]) == 2
    assert "intervall_s" in capsys.readouterr().err
    assert cli.main(["flash", "nowhere", "--config", str(home), "--firmware", "x"]) == 2
    assert "belong together" in capsys.readouterr().err


class Keys:
    """What a board signs with, on this side of the cable."""

    def __init__(self) -> None:
        self.signer, self.tls = OpenSSLSigner.generate(), ec.generate_private_key(ec.SECP256R1())
        self.tls_signer = OpenSSLSigner.from_scalar(self.tls.private_numbers().private_value.to_bytes(32, "big"))
        self.point = self.tls.public_key().public_bytes(serialization.Encoding.X962,
                                                        serialization.PublicFormat.UncompressedPoint)

    def message(self, genesis_bytes: bytes) -> bytes:
        public = self.signer.public_key()
        asked = transaction.Enrolment(public, certificates.spki_hash(self.tls.public_key()), "agent", "home",
                                      "esp32-4m", "software")
        return bytes(transaction.encode_enrolment(asked, identity.kid_of(public), genesis.chain_id(genesis_bytes),
                                                  self.signer.sign_digest))


def test_the_request_is_one_that_enroll_takes(home: Path) -> None:
    genesis_bytes = (home / "genesis.cbor").read_bytes()
    keys = Keys()
    asked = request.check(keys.point, keys.message(genesis_bytes), genesis_bytes)
    data = request.encode(asked, keys.tls_signer.sign_digest(request.digest_of(asked)))
    message, certificate_request = cbor2.loads(data)
    assert message == keys.message(genesis_bytes) and asked.kid == identity.kid_of(keys.signer.public_key())
    assert certificates.load_request(certificate_request) == keys.tls.public_key()
    built = certificates.make_request(keys.tls, asked.kid.hex())  # OpenSSL's own of the same name, but its signature
    assert certificate_request[:len(request.to_be_signed(asked))][4:] == built[:len(request.to_be_signed(asked))][4:]
    with pytest.raises(FlashError, match="certificate request does not hold"):
        request.encode(asked, keys.signer.sign_digest(request.digest_of(asked)))
    with pytest.raises(FlashError, match="names another TLS key"):
        request.check(Keys().point, keys.message(genesis_bytes), genesis_bytes)
    with pytest.raises(FlashError, match="does not hold"):
        request.check(keys.point, keys.message(genesis_bytes)[:-1] + b"\0", genesis_bytes)
    with pytest.raises(FlashError, match="does not hold"):
        request.check(bytes(65), keys.message(genesis_bytes), genesis_bytes)
    ca_key, ca = certificates.make_ca("home")
    request.check_certificate(certificates.pem(certificates.issue(ca_key, ca, keys.tls.public_key(), "a")), asked)
    with pytest.raises(FlashError, match="another board"):
        request.check_certificate(certificates.pem(certificates.issue(ca_key, ca, Keys().tls.public_key(), "a")), asked)
    with pytest.raises(FlashError, match="no certificate"):
        request.check_certificate(b"-----", asked)
    keys.tls.public_key().verify(keys.tls.sign(b"x", ec.ECDSA(hashes.SHA256())), b"x", ec.ECDSA(hashes.SHA256()))


def test_only_the_marked_line_counts() -> None:
    assert on_board.read('MicroPython says\ngridseal: {"a": 1}\r\nmore\n') == {"a": 1}
    with pytest.raises(FlashError, match="did not answer: Traceback"):
        on_board.read("Traceback\n")
    for code in (on_board.probe(["a'b"]), on_board.enrol("home", "esp32-4m", 1), on_board.sign(bytes(32))):
        compile(code, "board", "exec")


def test_every_type_is_known_by_its_name() -> None:
    for name in meters.TYPES:
        assert f"firmware.meters.{name}" in agent.modules((name,))
    assert cbor.decode(settings.compile_config({"b": 1, "a": "x", "data": "gone"})) == [["a", "x"], ["b", 1]]
