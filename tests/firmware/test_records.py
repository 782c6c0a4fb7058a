"""Journal records: readings and seals come back byte for byte, and are small."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware import meters, records
from firmware.wire import seal as seal_codec
from firmware.wire.errors import Refused
from firmware.wire.reading import Entry, Reading, encode

KID = bytes(range(8))
MISSING = st.sampled_from(records.REASONS + ("exception_1", "exception_2", "exception_11", "exception_127"))
VALUES = st.one_of(st.integers(-2**63, 2**63 - 1), st.integers(-300, 300))


@st.composite
def readings(draw: st.DrawFn) -> tuple[Reading, str, str]:
    name = draw(st.sampled_from(meters.TYPES))
    group = draw(st.sampled_from([one for one in records.GROUPS if meters.fields_of(meters.load(name), one)]))
    entries = []
    for field in meters.fields_of(meters.load(name), group):
        reason = draw(st.one_of(st.none(), MISSING))
        entries.append(Entry(field.name, None, None, reason) if reason else
                       Entry(field.name, field.unit, draw(VALUES), None))
    return Reading(KID, draw(st.integers(0, 2**32 - 1)), draw(st.integers(0, 2**47)), tuple(entries),
                   draw(st.integers(0, 31)), draw(st.binary(min_size=32, max_size=32))), name, group


@given(readings())
def test_a_reading_comes_back_byte_for_byte(made: tuple[Reading, str, str]) -> None:
    reading, name, group = made
    record = records.encode_reading(reading, name, group)
    found = records.decode_reading(KID, record, meters.load)
    assert found == reading
    assert encode(found) == encode(reading)
    assert records.point_and_time(record) == (reading.point, reading.time_ms, group == meters.BILLING)


NUMBERS = st.integers(0, 2**40)


@given(st.lists(NUMBERS, min_size=10, max_size=10), st.binary(min_size=32, max_size=32))
def test_seals_and_heads_come_back(numbers: list[int], previous: bytes) -> None:
    values: list = [*numbers, previous]
    seal = records.SealRecord(*values)
    assert records.decode_seal(records.encode_seal(seal)) == seal
    values = [*numbers[:5], previous]
    head = records.Head(*values)
    assert records.decode_head(records.encode_head(head)) == head
    assert records.decode_ack(records.encode_ack(*numbers[:2])) == numbers[:2]
    assert records.decode_boot(records.encode_boot(numbers[0])) == numbers[0]
    entry = records.encode_configuration(numbers[0], previous, bytes(32))
    assert records.decode_configuration(entry) == (numbers[0], previous, bytes(32))


@given(st.binary(max_size=120))
def test_damaged_records_are_refused_and_crash_nothing(noise: bytes) -> None:
    for decode in (lambda data: records.decode_reading(KID, data, meters.load), records.decode_seal,
                   records.decode_head, records.decode_ack, records.decode_boot):
        try:
            decode(noise)
        except Refused as refused:
            assert refused.reason == "damaged"


def test_sizes() -> None:
    """With the 16 bytes of a record's header: firmware.md's aims, and how far the format is from the second."""
    entries = [Entry(field.name, field.unit, value, None) for field, value in zip(
        meters.fields_of(meters.load("sdm120"), meters.BILLING), (1830, 20_000_000, 0))]
    billing = records.encode_reading(Reading(KID, 7, 1_780_000_000_000, tuple(entries), 2, bytes(32)), "sdm120",
                                     meters.BILLING)
    assert 16 + -(-len(billing) // 16) * 16 <= 64
    seal = records.encode_seal(records.SealRecord(7, 500_000, 0, 1, 2, 300, 2, 1_500_000, 0, 1, bytes(32)))
    assert 16 + -(-len(seal) // 16) * 16 <= 64


def test_a_seal_is_a_function_of_its_record_and_readings() -> None:
    table = meters.load("sdm120")
    entries = tuple(Entry(field.name, field.unit, 5, None) for field in meters.fields_of(table, meters.BILLING))
    made = [Reading(KID, 7, 1000 + n, entries, 2, hashlib.sha256(b"%d" % n).digest()) for n in range(3)]
    pairs = [(reading, encode(reading)) for reading in made]
    record = records.SealRecord(7, 9, 0, 1, 2, 3, 1, 50, 4, 3, bytes(32))
    payload = records.seal_payload(KID, record, pairs, (b"m" * 32, b"c" * 32))
    seal = seal_codec.decode(payload)
    assert (seal.kid, seal.point, seal.height, seal.boot, seal.count) == (KID, 7, 9, 3, 3)
    assert (seal.first_ms, seal.last_ms, seal.import_wh, seal.export_wh) == (1000, 1002, 5, 5)
    assert (seal.measurement, seal.configuration) == (b"m" * 32, b"c" * 32)
    seal_codec.check_readings(seal, [data for _, data in pairs])
    unread = tuple(Entry(e.name, None, None, "no_answer") if e.name == "1.8.0" else e for e in entries)
    pairs[2] = (Reading(KID, 7, 1002, unread, 2, bytes(32)), pairs[2][1])
    assert seal_codec.decode(records.seal_payload(KID, record, pairs, (bytes(32), bytes(32)))).import_wh is None


def test_unknown_numbers_are_damage() -> None:
    reading = Reading(KID, 7, 1000, tuple(Entry(f.name, None, None, "nan") for f in meters.fields_of(
        meters.load("pzem004t"), meters.BILLING)), 2, bytes(32))
    record = bytearray(records.encode_reading(reading, "pzem004t", meters.BILLING))
    record[1] = 127 << 1
    with pytest.raises(Refused, match="damaged"):
        records.decode_reading(KID, bytes(record), meters.load)
