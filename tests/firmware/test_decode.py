"""Decoding: exact against Python's own fractions, the maps that others published, what is missing and why."""

import json
import math
import struct
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware import bus, decode, meters, modbus
from firmware.wire import reading as reading_codec
from tests import needs
from tests.firmware.test_modbus import PZEM_ANSWER, PZEM_REQUEST


def words_of(data: bytes, order: str) -> list[int]:
    words = [data[at] << 8 | data[at + 1] for at in range(0, len(data), 2)]
    return words if order == "msw" else words[::-1]


@given(st.integers(0, 2**32 - 1), st.sampled_from(["msw", "lsw"]))
def test_floats_are_exact(bits: int, order: str) -> None:
    data = struct.pack(">I", bits)
    value = struct.unpack(">f", data)[0]
    found = decode.exact(words_of(data, order), "f32", order)
    if math.isfinite(value):
        assert found is not None and Fraction(*found) == Fraction(value)
    else:
        assert found is None


@given(st.sampled_from(["u16", "s16", "u32", "s32", "u64", "s64"]), st.sampled_from(["msw", "lsw"]), st.data())
def test_integers_are_exact(kind: str, order: str, data: st.DataObject) -> None:
    form = {"16": "h", "32": "i", "64": "q"}[kind[1:]]
    form = ">" + (form.upper() if kind[0] == "u" else form)
    raw = data.draw(st.binary(min_size=int(kind[1:]) // 8, max_size=int(kind[1:]) // 8))
    assert decode.exact(words_of(raw, order), kind, order) == (struct.unpack(form, raw)[0], 1)


@given(st.integers(-2**80, 2**80), st.integers(1, 2**40))
def test_rounding_is_half_to_even(numerator: int, denominator: int) -> None:
    assert decode.scaled(numerator, denominator) == round(Fraction(numerator, denominator))


@pytest.mark.parametrize(("numerator", "denominator", "whole"), [
    (1, 2, 0), (3, 2, 2), (5, 2, 2), (-1, 2, 0), (-3, 2, -2), (-5, 2, -2), (7, 2, 4), (25, 10, 2), (35, 10, 4)])
def test_a_half_goes_to_the_even_neighbour(numerator: int, denominator: int, whole: int) -> None:
    assert decode.scaled(numerator, denominator) == whole


def test_published_word_orders() -> None:
    found = json.loads(needs.vectors("modbus/crc_and_wordorder.json").read_text())["register_word_order"]
    for name, order in (("ABCD", "msw"), ("CDAB", "lsw")):
        words = words_of(bytes.fromhex(found[name]), "msw")
        exact = decode.exact(words, "f32", order)
        assert exact is not None and Fraction(*exact) == Fraction(found["value"])


def test_the_pzem_sample_decodes_to_what_its_source_says() -> None:
    table = meters.load("pzem004t")
    words = modbus.words_of(PZEM_REQUEST[1:-2], modbus.answer_pdu(modbus.RTU, PZEM_REQUEST, PZEM_ANSWER))
    entries, quality = decode.entries_of(table.fields, {(4, at): words[at] for at in range(10)})
    assert {entry.name: (entry.value, entry.unit) for entry in entries} == {
        "32.7.0": (225_700, "mV"), "31.7.0": (108, "mA"), "36.7.0": (24, "W"), "1.8.0": (38, "Wh"),
        "14.7.0": (50_000, None), "33.7.0": (1000, "/1000")}
    assert quality == 0


def entry(value: float | bytes, label: str = "energy_active_import_total") -> tuple[object, object, int]:
    field = next(f for f in meters.load("sdm120").fields if f.label == label)
    data = value if isinstance(value, bytes) else struct.pack(">f", value)
    words = dict(zip([(4, field.address), (4, field.address + 1)], words_of(data, "msw")))
    entries, quality = decode.entries_of((field,), words)
    return entries[0].value, entries[0].missing, quality


def test_what_is_no_value_is_missing_and_never_zero() -> None:
    assert entry(b"\x7f\xc0\x00\x00") == (None, "nan", 0)
    assert entry(b"\x7f\x80\x00\x00") == (None, "nan", 0)
    assert entry(b"\xff\xff\xff\xff") == (None, "nan", 0)
    assert entry(3.4e38) == (None, "implausible", 0)
    assert entry(-1.0) == (None, "implausible", reading_codec.IMPLAUSIBLE)
    assert entry(b"\x80\x00\x00\x00") == (0, None, 0)


def test_implausible_values_are_kept_and_marked() -> None:
    assert entry(1e6, "active_power_l1") == (1_000_000, None, reading_codec.IMPLAUSIBLE)
    assert entry(2e7) == (20_000_000_000, None, reading_codec.IMPLAUSIBLE)
    assert entry(-5000.0, "active_power_l1") == (-5000, None, 0)


def test_a_failed_request_leaves_its_registers_missing_with_the_reason() -> None:
    table = meters.load("sdm120")
    fields = meters.fields_of(table, meters.BILLING)
    requests = modbus.plan(fields, table.max_registers, table.max_hole)
    good = bus.Exchange(requests[0], b"q", b"a", words_of(struct.pack(">f", 5.0), "msw"), None)
    for reason in ("no_answer", "crc", "exception_2"):
        bad = bus.Exchange(requests[1], b"q", b"", None, reason)
        entries, _ = decode.entries_of(fields, bus.registers_of([good, bad], requests))
        assert [(e.value, e.missing) for e in entries] == [(5, None), (None, reason), (None, reason)]
    entries, _ = decode.entries_of(fields, bus.registers_of([bad], requests))
    assert [e.missing for e in entries] == ["exception_2"] * 3
    assert [e.missing for e in decode.entries_of(fields, bus.registers_of([], requests))[0]] == ["not_asked"] * 3


def test_a_table_is_named_by_its_content() -> None:
    table = meters.load("sdm120")
    hashes = {meters.map_hash(meters.load(name)) for name in meters.TYPES}
    assert len(hashes) == len(meters.TYPES)
    assert meters.map_hash(table) == meters.map_hash(meters.load("sdm120"))
    with pytest.raises(ValueError, match="sdm630"):
        meters.load("sdm631")
