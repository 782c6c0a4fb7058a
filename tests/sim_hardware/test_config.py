"""TOML configuration: what a good file means, and that every mistake is named with file, line and key."""

from datetime import date
from fractions import Fraction
from pathlib import Path

import pytest

from sim_hardware.config import FaultWindow, load_config
from sim_hardware.errors import REASONS, SimError
from sim_hardware.faults import KINDS, Fault, heard_at, parse_fault, spoil
from sim_hardware.frames import Answer, crc16, rtu_request

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
    ('tcp = "127.0.0.1:5020"', 'tcp = "a:1"\npty = "b"', 9, "one of tcp, pty, rtu_tcp"),
    ('tcp = "127.0.0.1:5020"', "", 8, "one of tcp, pty, rtu_tcp"),
    ('tcp = "127.0.0.1:5020"', 'tcp = "a:1"\nbaud = 9600', 10, "no line settings"),
    ("unit = 2", "unit = 248", 18, "bus[0].meter[1].unit 1..247"),
    ("unit = 2", "", 16, "the key unit"),
    ("unit = 2", "unit = 1", None, "each unit once"),
    ("point = 2", "point = 3", None, "each point once"),
    ('type = "sdm630"', 'type = "sdm72"', 28, "sdm120, sdm630, pzem004t"),
    ("scale = 0.1", "scale = 0", 15, "scale"),
    ("scale = 0.1", "scale = nan", 15, "scale"),
    ('fault = "late 800"', 'fault = "wrong_crc"', 20, "RTU frames"),
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
    request = rtu_request(with_crc("010400000001"))
    assert request is not None

    def spoilt(kind: str, value: int = 0, every: int = 1, turn: int = 1) -> Answer:
        return spoil(Fault(kind, value, every), request, answer, turn, rtu=True)
    assert spoilt("none") == Answer(answer) and spoilt("late", 5) == Answer(answer, 5)
    assert spoilt("no_answer").data == b"" and spoilt("reset").is_reset and spoilt("slow_drip", 7).drip_ms == 7
    wrong = spoilt("wrong_crc").data
    assert wrong[:-2] == answer[:-2] and wrong[-2:] != answer[-2:]
    assert [spoilt("wrong_crc", 0, 3, turn).data == answer for turn in range(1, 7)] == [True, True, False] * 2
    assert spoilt("exception", 6).data == with_crc("018406")
    assert spoilt("wrong_unit").data == with_crc("0204020000") and spoilt("wrong_function").data == with_crc(
        "0103020000")
    assert spoilt("all_ones").data == with_crc("010402ffff") and spoilt("nan").data == with_crc("0104027fc0")
    assert spoilt("fewer").data == with_crc("010400")
    long = spoilt("long", 2).data
    assert long[:3] == bytes.fromhex("010406") and long == with_crc(long[:-2].hex()) and len(long) == 11
    assert spoilt("short", 3).data == answer[:-3]
    before, after = spoilt("stray_before", 4).data, spoilt("stray_after", 4).data
    assert before[4:] == answer == after[:-4] and len(before) == len(after) == len(answer) + 4
    assert spoilt("echo").data == request.frame + answer
    mixed = spoilt("collision").data
    assert mixed[:2] == answer[:2] and all(one != other for one, other in zip(mixed[2:], answer[2:]))
    assert spoilt("baud_mismatch", 9600).data == answer, "no mismatch at the line's own speed"
    assert spoilt("baud_mismatch", 4800).data not in (b"", answer)


def test_what_is_heard_at_another_speed() -> None:
    """At half the speed each bit is heard twice: 0 10101010 1 as 0 01100110 (0) and, half a bit on, (0) 10011001 1."""
    assert heard_at(b"\x55", 4800, 9600) == bytes((0b01100110, 0b10011001))
    assert heard_at(b"\xff\x00", 9600, 9600) == b"\xff\x00"
    assert len(heard_at(bytes(range(256)), 19200, 9600)) < 200 < 300 < len(heard_at(bytes(range(256)), 2400, 9600))


def with_crc(body: str) -> bytes:
    return bytes.fromhex(body) + crc16(bytes.fromhex(body))


def test_faults_by_name() -> None:
    for text in ("none", "late 800", "exception 6", "wrong_crc", "no_answer every 3", "slow_drip 20 every 2"):
        assert str(parse_fault(text, rtu=True)) == text
    for kind, row in KINDS.items():
        text = f"{kind} {row.low}" if row.value else kind
        fits = [(rtu, network) for rtu, network in ((True, False), (True, True), (False, True))
                if is_taken(text, rtu, network)]
        assert len(fits) == {"any": 3, "rtu": 2, "network": 2, "tcp": 1}[row.where], kind
    with pytest.raises(ValueError):
        SimError("weather", "")
    assert all(REASONS.values())


def is_taken(text: str, rtu: bool, network: bool) -> bool:
    try:
        parse_fault(text, rtu=rtu, network=network)
    except SimError:
        return False
    return True


FAULTS = """
[[fault]]
point = 3
fault = "wrong_crc every 2"
from_s = 60
until_s = 120
[[fault]]
point = 1
fault = "reset"
"""


def test_a_file_of_faults(tmp_path: Path) -> None:
    (tmp_path / "faults.toml").write_text(FAULTS)
    config = load(tmp_path, 'faults = "faults.toml"\n' + GOOD)
    assert config.faults == (FaultWindow(3, Fault("wrong_crc", 0, 2), 60, 120), FaultWindow(1, Fault("reset"), 0, None))
    for old, new, where in (("point = 3", "point = 9", "line 3: fault[0].point"), ("until_s = 120", "until_s = 60",
                            "line 6: fault[0].until_s"), ('"reset"', '"wrong_crc"', "line 9: fault[1].fault"),
                            ("from_s", "fron_s", "nearest: from_s")):
        (tmp_path / "faults.toml").write_text(FAULTS.replace(old, new))
        with pytest.raises(SimError) as caught:
            load(tmp_path, 'faults = "faults.toml"\n' + GOOD)
        assert where in caught.value.detail, caught.value.detail
