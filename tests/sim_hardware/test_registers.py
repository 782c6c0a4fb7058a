"""Register maps against the collection of meter maps, frames from outside, and truth rows against exact fractions."""

import json
import math
import struct
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim_hardware.days import open_day
from sim_hardware.frames import crc16, rtu_request
from sim_hardware.meters import ALIASES, TYPES, MeterType, type_called
from sim_hardware.meters.types import DIVISORS
from sim_hardware.model import PointModel
from sim_hardware.truth import SMALL_PER_UNIT, Row, decode_row, round_f32
from tests import needs

MAPS = {name: alias for alias, name in ALIASES.items() if alias.count("-") and alias != "pzem-004t"}
DAY = 20_624                            # 2026-06-20
# Units that a register really holds, as (unit of the collection, how many of it): kW are shown as W times 1000.
HELD: dict[str, tuple[str, int | Fraction]] = {
    "kW": ("W", 1000), "kVA": ("VA", 1000), "kvar": ("var", 1000), "Wh": ("kWh", Fraction(1, 1000)),
    "VAh": ("kVAh", Fraction(1, 1000)), "varh": ("kvarh", Fraction(1, 1000)), "flag": ("", 1)}


def collected(name: str) -> dict:
    path = needs.VECTORS.parent / "meters" / f"{MAPS[name]}.json"
    if not path.exists():
        needs.missing("meter maps", "they stand beside the checkout, in ../shared/data/meters")
    return json.loads(path.read_text())


@pytest.mark.parametrize("name", MAPS)
def test_the_typed_in_map_agrees_with_the_collected_one(name: str) -> None:
    ours, theirs = TYPES[name], collected(name)
    fields = {field.name: field for field in ours.fields}
    wanted = [field for field in theirs["fields"]
              if not field["name"].startswith("cfg_") and not field["name"].endswith("_alt")]
    assert {field["name"] for field in wanted} <= set(fields)
    for field in wanted:
        found = fields[field["name"]]
        form = field["type"] + ("_lsw" if field["word_order"] == "lsw" and field["count"] > 1 else "")
        assert (found.address, found.form, found.words) == (field["address"], form, field["count"]), field
        assert field["fc"] in ours.functions
        unit, factor = HELD.get(found.unit, (found.unit, 1))
        assert unit == ("" if field["unit"] == "flag" else field["unit"]), field
        assert Fraction(str(field["scale"])) == Fraction(factor) / Fraction(found.per_unit), field
        assert found.sign == (-1 if field.get("sign") == "generation positive" else 1), field
    assert ours.max_registers == theirs["limits"]["max_registers_per_read"]
    line = theirs["serial"] or {"baud": None, "parity": None}
    assert line["baud"] in (ours.baud, None) and line["parity"] in (ours.parity, None)
    assert ours.phases == theirs["phases"]
    for address, count in theirs["read_blocks"]:
        if (name, address) in (("b23", 0x5170), ("dtsu666", 0x2000)):
            continue                            # blocks of the collection that reach over the map's end
        assert any(first <= address and address + count <= first + words for first, words in ours.spans), address
    assert type_called(theirs["id"]) is ours


@pytest.mark.parametrize("meter", TYPES.values(), ids=list(TYPES))
def test_fields_stand_in_spans_and_apart(meter: MeterType) -> None:
    readable = [address for first, words in meter.spans for address in range(first, first + words)]
    used = [field.address + word for field in meter.fields for word in range(field.words)]
    assert len(readable) == len(set(readable)) and readable == sorted(readable)
    assert len(used) == len(set(used)) and set(used) <= set(readable)


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("day", ["generated:prosumer", "generated:sun"])
def test_registers_are_the_model_s_values_to_the_last_digit_they_have(name: str, day: str) -> None:
    """Whatever form and scale: what stands in the registers is within one step of what the point really measured."""
    kind = TYPES[name]
    point = PointModel(7, 4, kind.phases, open_day(day, 7, 4), 60, DAY, tariffs=kind.has_tariffs)
    for step in (DAY * 1440 + 30, DAY * 1440 + 700, DAY * 1440 + 1300):
        measured = point.values(step)
        shown = decode_row(Row(4, 0, 1, name, kind.image(0, measured).hex()))
        values = kind.prepare(measured) if kind.prepare else measured
        assert set(shown) == {field.name for field in kind.fields}
        for field in kind.fields:
            exact = Fraction(values[field.name]) * SMALL_PER_UNIT[field.unit] / DIVISORS[field.unit]
            one = SMALL_PER_UNIT[field.unit] / Fraction(field.per_unit)
            if field.form.startswith("u"):
                exact = field.sign * abs(exact)                     # such a register has no sign to show
            if field.form == "f32":
                one = abs(exact) / 2**23
            assert abs(shown[field.name] - exact) <= one + 1, (field.name, shown[field.name], float(exact))


def test_the_pzem_s_published_frame() -> None:
    """Values of the frame that ESPHome and Tasmota quote make that frame."""
    values = {"voltage_l1": 225_700, "current_l1": 108, "active_power_l1": 24_400, "frequency": 50_000,
              "energy_active_sum_total": 38 * 3_600_000, "power_factor_l1": 10**6}
    image = TYPES["pzem004t"].image(0, values)
    body = bytes.fromhex("010414") + image.spans[0][1]
    assert (body + crc16(body)).hex(" ").upper() == (
        "01 04 14 08 D1 00 6C 00 00 00 F4 00 00 00 26 00 00 01 F4 00 64 00 00 51 34")
    assert decode_row(Row(1, 0, 1, "pzem004t", image.hex())) == {
        "voltage_l1": 225_700, "current_l1": 108, "active_power_l1": 24, "energy_active_import_total": 38,
        "frequency": 50_000, "power_factor_l1": 1000, "alarm_power": 0}


def test_the_pzem_has_no_sign_and_starts_again_after_9999_kwh() -> None:
    values = {"voltage_l1": 230_000, "current_l1": 110_000, "active_power_l1": -25_000_000, "frequency": 50_000,
              "energy_active_sum_total": 10_070_000 * 3_600_000, "power_factor_l1": -980_000}
    image = TYPES["pzem004t"].image(0, values)
    assert image.read(3, 2) == [250_000 & 0xFFFF, 250_000 >> 16]
    assert image.read(5, 2) == [70_000 & 0xFFFF, 70_000 >> 16]
    assert image.read(8, 2) == [98, 0xFFFF]


def test_an_eastron_s_floats_and_holes() -> None:
    values = dict.fromkeys([field.name for field in TYPES["sdm120"].fields], 0)
    values |= {"voltage_l1": 230_500, "active_power_l1": -1_234_567, "energy_active_import_total": 1_234_500_000_000}
    image = TYPES["sdm120"].image(60_000, values)
    words = image.read(0, 80)
    assert words is not None and words[2:6] == [0, 0, 0, 0]
    assert struct.unpack(">f", struct.pack(">HH", *words[0:2]))[0] == 230.5
    assert struct.unpack(">f", struct.pack(">HH", *words[12:14]))[0] == struct.unpack(">f", struct.pack(">f", -1234.567)
                                                                                     )[0]
    assert struct.unpack(">f", struct.pack(">HH", *words[0x48:0x4A]))[0] == struct.unpack(">f", struct.pack(
        ">f", 342.9166666666667))[0]
    assert image.read(79, 2) is None and image.read(0x155, 2) is None and image.read(0x156, 4) == [0, 0, 0, 0]
    assert image.read(65_535, 2) is None


def test_holding_registers() -> None:
    assert TYPES["sdm630"].holding_spans(3, 0x0102_0304) == ((0xFC00, bytes.fromhex("01020304")),)
    assert TYPES["pzem004t"].holding_spans(9, 1) == ((1, bytes.fromhex("59d80009")),)


def test_crc_vectors() -> None:
    path = needs.vectors("modbus/crc_and_wordorder.json")
    for vector in json.loads(path.read_text())["crc16"]:
        data = bytes.fromhex(vector["data"])
        assert crc16(data).hex() == vector["crc_wire"]
        if len(data) >= 2:
            assert rtu_request(data + crc16(data)) is not None


@given(st.binary(min_size=2, max_size=40), st.integers(0, 335), st.integers(1, 255))
def test_a_broken_frame_is_no_request(data: bytes, place: int, change: int) -> None:
    frame = data + crc16(data)
    assert rtu_request(frame) == (frame, frame[:1], frame[0], frame[1:-2])
    broken = bytearray(frame)
    broken[place % len(frame)] ^= change
    assert rtu_request(bytes(broken)) is None


@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 1000]))
def test_floats_are_rounded_exactly(bits: int, factor: int) -> None:
    """Against Fraction and Python's round, which is half to even."""
    value = struct.unpack(">f", bits.to_bytes(4, "big"))[0]
    if math.isfinite(value):
        assert round_f32(bits, factor) == round(Fraction(value) * factor)


def test_halves_go_to_even() -> None:
    for value, whole in ((0.5, 0), (1.5, 2), (2.5, 2), (-0.5, 0), (-1.5, -2), (-2.5, -2), (2.5000002, 3)):
        assert round_f32(int.from_bytes(struct.pack(">f", value), "big"), 1) == whole


def test_nothing_of_ours_is_imported() -> None:
    """The whole point of a second map; tests/house holds the same for every room."""
    for file in Path(__file__).parents[2].joinpath("sim_hardware").rglob("*.py"):
        text = file.read_text()
        for room in ("firmware", "gateway", "deploy", "tests"):
            assert f"import {room}" not in text and f"from {room}" not in text, file
