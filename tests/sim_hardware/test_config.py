"""TOML configuration: what a good file means, and that every mistake is named with file, line and key."""

from datetime import date
from fractions import Fraction
from pathlib import Path

import pytest

from sim_hardware.config import load_config
from sim_hardware.errors import REASONS, SimError
from sim_hardware.faults import Fault, parse_fault, spoil

GOOD = """
seed = 7
step_s = 60
truth = "truth.csv"
control = "127.0.0.1:0"
installed = 2026-06-01

[[bus]]
tcp = "127.0.0.1:5020"
[[bus.meter]]
point = 1
unit = 1
type = "sdm120"
day = "table4:LA1"
scale = 0.1
[[bus.meter]]
point = 2
unit = 2
type = "peacefair-pzem-004t-v3"
fault = "late 800"

[[bus]]
pty = "line"
parity = "E"
[[bus.meter]]
point = 3
unit = 1
type = "sdm630"
"""


def load(folder: Path, text: str):
    (folder / "meters.toml").write_text(text)
    return load_config(folder / "meters.toml")


def test_a_good_file(tmp_path: Path) -> None:
    config = load(tmp_path, GOOD)
    assert (config.seed, config.step_s, config.installed) == (7, 60, date(2026, 6, 1))
    assert config.truth == tmp_path / "truth.csv" and config.control == ("127.0.0.1", 0)
    first, second = config.buses
    assert first.tcp == ("127.0.0.1", 5020) and first.pty is None
    assert first.meters[0].scale == Fraction(1, 10) and first.meters[0].day == "table4:LA1"
    assert first.meters[1].type.name == "pzem004t" and first.meters[1].fault == Fault("late", 800)
    assert (second.pty, second.baud, second.parity) == ("line", 9600, "E")


@pytest.mark.parametrize(("old", "new", "line", "words"), [
    ("seed = 7", "sed = 7", 2, "sed nearest seed"),
    ("seed = 7", 'seed = "7"', 2, "seed whole number"),
    ("seed = 7", "seed = true", 2, "seed whole number"),
    ("seed = 7", "seed = = 7", 2, ""),
    ("step_s = 60", "step_s = 7", 3, "divides a day"),
    ("step_s = 60", "step_s = 0", 3, "step_s"),
    ('control = "127.0.0.1:0"', 'control = "127.0.0.1"', 5, "HOST:PORT"),
    ("installed = 2026-06-01", 'installed = "soon"', 6, "date"),
    ('tcp = "127.0.0.1:5020"', 'tcp = "127.0.0.1:70000"', 9, "bus[0].tcp HOST:PORT"),
    ('tcp = "127.0.0.1:5020"', 'tcp = "a:1"\npty = "b"', 9, "either tcp or pty"),
    ('tcp = "127.0.0.1:5020"', "", 8, "neither"),
    ('tcp = "127.0.0.1:5020"', 'tcp = "a:1"\nbaud = 9600', 10, "no line settings"),
    ("unit = 2", "unit = 248", 18, "bus[0].meter[1].unit 1..247"),
    ("unit = 2", "", 16, "the key unit"),
    ("unit = 2", "unit = 1", None, "each unit once"),
    ("point = 2", "point = 3", None, "each point once"),
    ('type = "sdm630"', 'type = "sdm72"', 28, "sdm120, sdm630, pzem004t"),
    ("scale = 0.1", "scale = 0", 15, "scale"),
    ("scale = 0.1", "scale = nan", 15, "scale"),
    ('fault = "late 800"', 'fault = "wrong_crc"', 20, "serial bus"),
    ('fault = "late 800"', 'fault = "later"', 20, "no_answer"),
    ('pty = "line"', 'pty = "line"\nbaud = 300', 24, "baud one of"),
    ('parity = "E"', 'parity = "e"', 24, "parity N, E or O"),
])
def test_a_bad_file_is_named(tmp_path: Path, old: str, new: str, line: int | None, words: str) -> None:
    assert GOOD.count(old) == 1 or old in ("unit = 2",)
    with pytest.raises(SimError) as caught:
        load(tmp_path, GOOD.replace(old, new))
    assert caught.value.reason == "config"
    for word in words.split(" ") if "nearest" in words else [words.split(" ", 1)[-1]]:
        assert word in caught.value.detail, caught.value.detail
    assert line is None or f"line {line}" in caught.value.detail, caught.value.detail


def test_unreadable_files(tmp_path: Path) -> None:
    for text in ("", "[[bus]]\ntcp = 'a:1'\n", "bus = 3"):
        with pytest.raises(SimError):
            load(tmp_path, text)
    with pytest.raises(SimError):
        load_config(tmp_path / "nowhere.toml")
    (tmp_path / "latin.toml").write_bytes(b"# \xff")
    with pytest.raises(SimError):
        load_config(tmp_path / "latin.toml")


@pytest.mark.parametrize("text", ["", "late", "late x", "late 0", "late 60001", "late 5 5", "exception 0",
                                  "exception 256", "none 1", "exception -1", "wrong_crc 1", "drip"])
def test_faults_that_are_none(text: str) -> None:
    with pytest.raises(SimError) as caught:
        parse_fault(text, rtu=True)
    assert caught.value.reason == "fault"


def test_faults_on_bytes() -> None:
    answer = bytes.fromhex("0104020000b930")
    assert spoil(Fault(), answer) == answer == spoil(Fault("late", 5), answer)
    assert spoil(Fault("no_answer"), answer) == b""
    spoilt = spoil(Fault("wrong_crc"), answer)
    assert spoilt[:-2] == answer[:-2] and spoilt[-2:] != answer[-2:]
    for text in ("none", "late 800", "exception 6", "wrong_crc", "no_answer"):
        assert str(parse_fault(text, rtu=True)) == text
    with pytest.raises(ValueError):
        SimError("weather", "")
    assert len(REASONS) == 6
