"""A person's own meter files: what they give, every mistake named with its place, and the journal's care for them."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware import agent, config, meters, own, reading_records, records
from firmware.board import linux
from firmware.tables import Meter, Special
from firmware.wire.errors import Refused
from tests.firmware.world import Rig

TABLE = """maker = "Acme"
model = "M1"
max_power_w = 20000
function = 4
max_registers = 80
[[field]]
label = "power"
obis = "36.7.0"
unit = "W"
address = 12
kind = "f32"
billing = true
[[field]]
label = "import"
obis = "1.8.0"
unit = "kWh"
address = 72
kind = "f32"
billing = true
[[field]]
label = "volts"
obis = "32.7.0"
unit = "V"
address = 300
kind = "u16"
scale = 0.1
function = 3
none = 0xFFFF
"""
INVERTER = """maker = "Acme"
model = "Sun"
[[sunspec]]
model = 103
address = 40069
[[sunspec]]
model = 802
address = 40200
"""
METER_TOML = """area = "home"
brokers = ["mqtts://broker.example:8883"]
[[bus]]
port = "tcp://10.0.0.5:502"
[[bus.meter]]
point = 1
unit = 1
type = "{}"
[[bus.meter]]
point = 2
unit = {}
type = "{}"
"""

BAD = {
    "unknown key": ('model = "M1"', 'modell = "M1"', "acme.toml:2: modell", "'model'"),
    "unknown key of a field": ("address = 300", "adress = 300", "acme.toml:24: field[2].adress", "'address'"),
    "missing": ('model = "M1"\n', "", "model", "missing"),
    "kind": ('kind = "u16"', 'kind = "u17"', "acme.toml:25: field[2].kind", "u16"),
    "unit": ('unit = "V"', 'unit = "v"', "acme.toml:23: field[2].unit", "mV"),
    "scale": ("scale = 0.1", 'scale = "0.1.2"', "acme.toml:26: field[2].scale", "decimal"),
    "scale of nothing": ("scale = 0.1", "scale = 0", "acme.toml:26: field[2].scale", "not 0"),
    "scale yes": ("scale = 0.1", "scale = true", "acme.toml:26: field[2].scale", "a number"),
    "function": ("function = 3", "function = 6", "acme.toml:27: field[2].function", "0 to 4"),
    "function 1": ("function = 3", "function = 1", "acme.toml:27: field[2].function", "3, 4"),
    "word order": ("function = 4", 'function = 4\nword_order = "abc"', "acme.toml:5: word_order", "msw, lsw"),
    "obis": ('obis = "32.7.0"', 'obis = "1-0:32.7.0"', "acme.toml:22: field[2].obis", "three numbers"),
    "two of one name": ('obis = "32.7.0"', 'obis = "1.8.0"', "field[2].label", "field[1]"),
    "billing": ("billing = true\n", "", "field", "billing = true"),
    "billing maybe": ("billing = true\n[[field]]\nlabel = \"import\"", "billing = 1\n[[field]]\nlabel = \"import\"",
                      "acme.toml:12: field[0].billing", "true or false"),
    "beyond the registers": ("address = 300\nkind = \"u16\"", "address = 65535\nkind = \"u32\"", "field[2].address",
                             "65535"),
    "room": ("max_registers = 80", "max_registers = 1", "acme.toml:5: max_registers", "whole value"),
    "parity": ("function = 4", 'function = 4\nparity = "X"', "acme.toml:5: parity", "N, E, O"),
    "neither": (TABLE[TABLE.index("[[field]]"):], "", "field", "[[sunspec]]"),
    "both": ("[[field]]\nlabel = \"volts\"", "[[sunspec]]\nmodel = 103\naddress = 0\n[[field]]\nlabel = \"volts\"",
             "field", "either"),
    "not TOML": ('maker = "Acme"', "maker Acme", "acme.toml", "line 1"),
}


def write(folder: Path, text: str, name: str = "acme.toml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_a_file_gives_a_table(tmp_path: Path) -> None:
    table = linux.load_table(write(tmp_path, TABLE))
    assert (table.type, table.maker, table.model, table.max_registers) == ("acme", "Acme", "M1", 80)
    power, energy, volts = table.fields
    assert (power.name, power.unit, power.function, power.low, power.high) == ("36.7.0", "W", 4, -20000, 20000)
    assert (energy.name, energy.numerator, energy.denominator, energy.group) == ("1.8.0", 1000, 1, "billing")
    assert (volts.function, volts.numerator, volts.denominator, volts.special) == (3, 100, 1,
                                                                                  Special(0xFFFF, None, None))


@pytest.mark.parametrize("name", BAD)
def test_every_mistake_is_named_with_its_place(tmp_path: Path, name: str) -> None:
    old, new, place, hint = BAD[name]
    text = TABLE.replace(old, new)
    assert text != TABLE
    with pytest.raises(config.BadConfig) as error:
        linux.load_table(write(tmp_path, text))
    assert place in str(error.value) and hint in str(error.value), error.value
    assert str(tmp_path) in str(error.value)


@given(st.recursive(st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5)),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
                        st.sampled_from(["maker", "field", "sunspec", "scale", "number", "unit", "kind"]), inner)))
def test_nothing_crashes_it(values: object) -> None:
    with pytest.raises(config.BadConfig):
        own.make("acme", values)


@pytest.mark.parametrize(("text", "ratio"), [
    ("1", (1, 1)), ("0.01", (1, 100)), ("-0.5", (-5, 10)), (1000, (1000, 1)), (-1, (-1, 1)), ("0", None), ("", None),
    (".5", None), ("1.", None), ("1e3", None), ("--1", None), ("+1", None), ("9" * 16, None)])
def test_scales(text: object, ratio: tuple[int, int] | None) -> None:
    assert own.ratio_of(text) == ratio


def test_names() -> None:
    values = tomllib.loads(TABLE, parse_float=str)
    for name in ("sdm120", "", "Acme", "a/b", "a" * 33):
        with pytest.raises(config.BadConfig):
            own.make(name, values)


def test_meter_toml_finds_the_file_beside_it(tmp_path: Path) -> None:
    write(tmp_path, TABLE)
    write(tmp_path, METER_TOML.format("acme", 2, "sdm120"), "meter.toml")
    settings, _ = linux.load_config(tmp_path)
    places = config.places(settings)
    assert [place.meter.type for place in places] == ["acme", "sdm120"]
    before = settings.hash
    write(tmp_path, TABLE.replace("address = 72", "address = 74"))
    assert linux.load_config(tmp_path)[0].hash != before, "the map is part of the configuration that seals name"
    write(tmp_path, TABLE.replace("address = 72", "adress = 74"))
    with pytest.raises(config.BadConfig, match=r"acme\.toml:\d+: field\[1\]\.adress"):
        linux.load_config(tmp_path)
    (tmp_path / "acme.toml").unlink()
    with pytest.raises(config.BadConfig, match=r"meter\.toml:8: bus\[0\]\.meter\[0\]\.type: .*file of your own"):
        linux.load_config(tmp_path)


def test_only_parts_of_a_sunspec_device_share_a_unit(tmp_path: Path) -> None:
    write(tmp_path, INVERTER, "inverter.toml")
    write(tmp_path, INVERTER.replace("103", "203").replace("802", "713"), "grid.toml")
    write(tmp_path, METER_TOML.format("inverter", 1, "grid"), "meter.toml")
    assert len(config.places(linux.load_config(tmp_path)[0])) == 2
    write(tmp_path, METER_TOML.format("inverter", 1, "sdm120"), "meter.toml")
    with pytest.raises(config.BadConfig, match=r"meter\[1\]\.unit"):
        linux.load_config(tmp_path)


def test_sunspec_models_of_a_file(tmp_path: Path) -> None:
    table = linux.load_table(write(tmp_path, INVERTER, "inverter.toml"))
    by_label = {field.label: field for field in table.fields}
    assert by_label["active_power_total"].special == Special(0x8000, 40069 + 15, (40069, 103))
    assert by_label["state_of_charge"].address == 40211 and by_label["state_of_charge"].unit == "/1000"
    for old, new, hint in (("103", "104", "104"), ("802", "101", "like a model before"), ("802", "70000", "65534")):
        with pytest.raises(config.BadConfig, match=hint):
            linux.load_table(write(tmp_path, INVERTER.replace(old, new), "inverter.toml"))


def rig_with(meter: Meter, **changes: Any) -> Rig:
    rig = Rig(points=1, **changes)
    rig.settings = rig.settings._replace(places=(agent.Place(1, 0, 1, meter, 1),))
    rig.boot()
    return rig


def table_of(text: str) -> Meter:
    return own.make("acme", tomllib.loads(text[:text.index("[[field]]\nlabel = \"volts\"")], parse_float=str))


def test_readings_by_an_own_table_arrive_and_survive_a_restart() -> None:
    rig = rig_with(table_of(TABLE), details_ms=900_000)
    rig.minutes(5)
    rig.boot()
    rig.connect()
    rig.minutes(20, ack_every=2)
    assert len(rig.gateway.readings) == 25, "and no reading of other quantities, of which this table has none"


def test_a_table_that_was_changed_gives_old_words_no_new_meaning() -> None:
    rig = rig_with(table_of(TABLE))
    rig.minutes(5)
    record = next(payload for _, kind, payload in rig.journal.read(0) if kind == records.READING)
    tables = {"acme": table_of(TABLE)}
    assert reading_records.decode_reading(rig.kid, record, tables.__getitem__).entries[1].name == "1.8.0"
    changed = {"acme": table_of(TABLE.replace("address = 72", "address = 74"))}
    with pytest.raises(Refused) as refused:
        reading_records.decode_reading(rig.kid, record, changed.__getitem__)
    assert refused.value.reason == "damaged"
    with pytest.raises(Refused):
        reading_records.decode_reading(rig.kid, record, meters.load)
