"""The agent's configuration: defaults, and errors that name file, line, key and the nearest known one."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from firmware import config
from firmware.board import linux
from firmware.crypto.openssl import OpenSSLSigner

GOOD = """area = "home"
brokers = ["mqtts://broker.example:8883"]
[[bus]]
port = "/dev/ttyUSB0"
[[bus.meter]]
point = 1
unit = 1
type = "sdm120"
[[bus.meter]]
point = 2
unit = 7
type = "sdm630"
[[bus]]
port = "tcp://10.0.0.5:502"
[[bus.meter]]
point = 3
unit = 1
type = "pzem004t"
"""

BAD = {
    "unknown key": ('area = "home"', 'area = "home"\nintervall_s = 60', "meter.toml:2: intervall_s", "'interval_s'"),
    "misspelt key of a meter": ("unit = 7", "unti = 7", "meter.toml:11: bus[0].meter[1].unti", "'unit'"),
    "missing": ('type = "sdm630"\n', "", "bus[0].meter[1].type", "missing"),
    "wrong kind": ("unit = 7", 'unit = "7"', "meter.toml:11: bus[0].meter[1].unit", "whole number from 0 to 255"),
    "true is no number": ("unit = 7", "unit = true", "bus[0].meter[1].unit", "whole number"),
    "out of range": ('area = "home"', 'area = "home"\ninterval_s = 0', "meter.toml:2: interval_s", "1 to 3600"),
    "area": ('area = "home"', 'area = "Home"', "meter.toml:1: area", "a-z"),
    "meter type": ('type = "sdm630"', 'type = "sdm631"', "meter.toml:12: bus[0].meter[1].type", "sdm630"),
    "point twice": ("point = 3", "point = 1", "meter.toml:16: bus[1].meter[0].point", "bus[0].meter[0]"),
    "unit twice": ("unit = 7", "unit = 1", "bus[0].meter[1].unit", "bus[0].meter[0]"),
    "parity": ('port = "/dev/ttyUSB0"', 'port = "/dev/ttyUSB0"\nparity = "X"', "meter.toml:5: bus[0].parity", "'X'"),
    "unit of a serial line": ("unit = 7", "unit = 250", "bus[0].meter[1].unit", "1 to 247"),
    "address without port": ("tcp://10.0.0.5:502", "tcp://10.0.0.5", "bus[1].port", "tcp://HOST:PORT"),
    "no broker": ('["mqtts://broker.example:8883"]', "[]", "meter.toml:2: brokers", "1 to 8"),
    "plain broker elsewhere": ("mqtts://broker", "mqtt://broker", "meter.toml:2: brokers", "only for this machine"),
    "broker without port": (":8883", "", "meter.toml:2: brokers", "HOST:PORT"),
    "not TOML": ('area = "home"', "area home", "meter.toml", "line 1"),
}


def write(folder: Path, text: str) -> Path:
    path = folder / "meter.toml"
    path.write_text(text)
    return path


def test_defaults(tmp_path: Path) -> None:
    found, folder = linux.load_config(write(tmp_path, GOOD))
    assert folder == tmp_path
    assert (found.interval_s, found.seal_every_s, found.genesis, found.data) == (60, 60, "genesis.cbor", "data")
    assert [(bus.baud, bus.parity, bus.gap_ms) for bus in found.buses] == [(2400, "N", 100), (9600, "N", 0)]
    assert [(place.point, place.bus, place.unit, place.meter.type) for place in config.places(found)] == [
        (1, 0, 1, "sdm120"), (2, 0, 7, "sdm630"), (3, 1, 1, "pzem004t")]


@pytest.mark.parametrize("name", BAD)
def test_a_mistake_is_named_with_its_place(name: str, tmp_path: Path) -> None:
    old, new, place, hint = BAD[name]
    assert old in GOOD
    path = write(tmp_path, GOOD.replace(old, new, 1))
    with pytest.raises(config.BadConfig) as error:
        linux.load_config(path)
    assert place in str(error.value) and hint in str(error.value), str(error.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(config.BadConfig, match="meter.toml"):
        linux.load_config(tmp_path)


def test_the_hash_covers_what_shapes_readings_and_nothing_else(tmp_path: Path) -> None:
    def hash_of(text: str) -> bytes:
        return linux.load_config(write(tmp_path, text))[0].hash
    base = hash_of(GOOD)
    assert hash_of(GOOD.replace("home", "home2")) != base
    assert hash_of(GOOD.replace("unit = 7", "unit = 8")) != base
    assert hash_of('interval_s = 30\n' + GOOD) != base
    assert hash_of(GOOD.replace("/dev/ttyUSB0", "/dev/ttyAMA0")) == base
    assert hash_of('data = "elsewhere"\n' + GOOD) == base


def test_check_says_what_it_would_do_and_starts_nothing(tmp_path: Path) -> None:
    write(tmp_path, GOOD.replace("mqtts://broker.example:8883", "mqtt://127.0.0.1:1"))
    signer = OpenSSLSigner.from_scalar(hashlib.sha256(b"test agent").digest())
    signer.save(tmp_path / "signing.key")
    text = "\n".join(linux.check(tmp_path))
    assert "2400 baud, 8N1" in text and "registers 72..75" in text and "point 3: unit 1, Peacefair" in text
    assert "journal: 16777216 bytes, " in text and " days offline (" in text
    assert not (tmp_path / "data").exists()


def test_two_agents_do_not_share_a_folder(tmp_path: Path) -> None:
    from deploy.clock import SystemClock
    path = write(tmp_path, GOOD.replace("mqtts://broker.example:8883", "mqtt://127.0.0.1:1"))
    OpenSSLSigner.from_scalar(hashlib.sha256(b"test agent").digest()).save(tmp_path / "signing.key")
    settings, folder = linux.load_config(path)
    first = linux.LinuxBoard(settings, folder, SystemClock(), lambda line: None)
    with pytest.raises(OSError, match="another agent"):
        linux.LinuxBoard(settings, folder, SystemClock(), lambda line: None)
    first.release()
    linux.LinuxBoard(settings, folder, SystemClock(), lambda line: None).release()
