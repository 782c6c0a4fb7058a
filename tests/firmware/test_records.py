"""Journal records: readings and seals come back byte for byte, and are small."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware import envelopes, facts, meters, reading_records, records
from firmware.journal import room
from firmware.wire import seal as seal_codec
from firmware.wire.errors import Refused
from firmware.wire.reading import Entry, Reading, encode

KID = bytes(range(8))
MISSING = st.sampled_from(reading_records.REASONS + ("exception_1", "exception_2", "exception_11", "exception_127"))
VALUES = st.one_of(st.integers(-2**63, 2**63 - 1), st.integers(-300, 300))


@st.composite
def readings(draw: st.DrawFn) -> tuple[Reading, str, str]:
    name = draw(st.sampled_from(meters.TYPES))
    group = draw(st.sampled_from([one for one in (meters.BILLING, meters.OTHER)
                                  if meters.fields_of(meters.load(name), one)]))
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
    record = reading_records.encode_reading(reading, name, group)
    found = reading_records.decode_reading(KID, record, meters.load)
    assert found == reading
    assert encode(found) == encode(reading)
    assert records.point_and_time(record) == (reading.point, reading.time_ms, group == meters.BILLING)


NUMBERS = st.integers(0, 2**40)


@st.composite
def seals(draw: st.DrawFn) -> tuple[records.SealRecord, int]:
    """A seal's record and its own number."""
    count, others, gap = draw(st.integers(1, 512)), draw(st.integers(0, 3000)), draw(st.integers(0, 300))
    first_seq, boot = draw(NUMBERS), draw(NUMBERS)
    lost = draw(st.one_of(st.just(0), NUMBERS))
    flags = draw(st.integers(0, 255)) | (seal_codec.HEIGHTS_LOST if lost else 0)
    span = count - 1 + others
    return records.SealRecord(draw(NUMBERS), draw(NUMBERS), lost, draw(st.integers(0, 3)), flags, boot,
                              draw(st.integers(0, boot)), first_seq, span, count,
                              draw(st.binary(min_size=32, max_size=32))), first_seq + span + 1 + gap


@given(seals())
def test_seals_come_back(made: tuple[records.SealRecord, int]) -> None:
    seal, seq = made
    assert records.decode_seal(records.encode_seal(seal, seq), seq) == seal


def test_a_loss_is_not_written_without_its_flag() -> None:
    with pytest.raises(ValueError):
        records.encode_seal(records.SealRecord(7, 9, 2, 1, 2, 3, 3, 50, 0, 1, bytes(32)), 51)


@given(st.lists(NUMBERS, min_size=5, max_size=5), st.binary(min_size=32, max_size=32))
def test_heads_and_the_like_come_back(numbers: list[int], previous: bytes) -> None:
    values: list = [*numbers, previous]
    head = records.Head(*values)
    assert facts.decode_head(records.encode_head(head)) == head
    assert facts.decode_ack(records.encode_ack(*numbers[:2])) == numbers[:2]
    assert facts.decode_epoch(facts.encode_epoch(*numbers[:2])) == numbers[:2]
    assert facts.decode_boot(records.encode_boot(numbers[0])) == numbers[0]
    entry = records.encode_configuration(numbers[0], previous, bytes(32))
    assert facts.decode_configuration(entry) == (numbers[0], previous, bytes(32))


@given(st.binary(max_size=120))
def test_damaged_records_are_refused_and_crash_nothing(noise: bytes) -> None:
    for decode in (lambda data: reading_records.decode_reading(KID, data, meters.load),
                   lambda data: records.decode_seal(data, 7), facts.decode_head, facts.decode_ack,
                   facts.decode_epoch, facts.decode_boot, facts.decode_configuration, records.point_and_time):
        try:
            decode(noise)
        except Refused as refused:
            assert refused.reason == "damaged"


USUAL = {"1.8.0": 20_000_000, "2.8.0": 4_000_000, "W": 4321, "Wh": 20_000_000, "mV": 231_900, "mA": 9_870, "VA": 4400,
         "var": -830, "varh": 900_000, "VAh": 30_000_000, "/1000": 982, None: 49_987}  # a house at 20 MWh


SIX = ("1.8.0", "2.8.0", "16.7.0", "36.7.0", "32.7.0", "31.7.0", "14.7.0", "33.7.0")


@pytest.mark.parametrize("name", meters.TYPES)
def test_a_reading_of_six_values_takes_64_bytes(name: str) -> None:
    """firmware.md's aim, header included, on every table: both registers, power, voltage, current, frequency; and what
    is really read together for billing. (The largest: six counters of 20 MWh take 80.)"""
    fields = meters.load(name).fields
    chosen = [field for word in SIX for field in fields if field.name == word][:6]
    for some in (chosen, meters.fields_of(meters.load(name), meters.BILLING)):
        entries = tuple(Entry(field.name, field.unit, USUAL.get(field.name, USUAL[field.unit]), None) for field in some)
        for point in (7, 9_999):
            record = reading_records.encode_reading(Reading(KID, point, 1_780_000_012_345, entries, 2, bytes(32)), name,
                                            meters.BILLING)
            assert room(len(record)) <= 64, [(entry.name, entry.value) for entry in entries]


@pytest.mark.parametrize("point", [7, 99])
@pytest.mark.parametrize(("span", "count"), [(0, 1), (14, 15), (44, 15)])
def test_a_seal_takes_48_bytes(point: int, span: int, count: int) -> None:
    """firmware.md's aim, header included: by the minute or by the slot, one point or three, after 300 boots."""
    seal = records.SealRecord(point, 500_000, 0, 1, 2, 300, 280, 1_500_000, span, count, bytes(32))
    assert room(len(records.encode_seal(seal, 1_500_001 + span))) <= 48


@given(st.integers(-2**47, 2**48))
def test_any_time_comes_back(time_ms: int) -> None:
    """A board whose clock never stood counts from 1970 or 2000; a broken one may say anything."""
    if time_ms < 0:
        time_ms = -time_ms
    entries = tuple(Entry(field.name, field.unit, 5, None) for field in meters.fields_of(
        meters.load("sdm120"), meters.BILLING))
    record = reading_records.encode_reading(Reading(KID, 7, time_ms, entries, 1, bytes(32)), "sdm120", meters.BILLING)
    assert reading_records.decode_reading(KID, record, meters.load).time_ms == time_ms
    assert records.point_and_time(record)[1] == time_ms


def test_a_seal_is_a_function_of_its_record_and_readings() -> None:
    table = meters.load("sdm120")
    entries = tuple(Entry(field.name, field.unit, 5, None) for field in meters.fields_of(table, meters.BILLING))
    made = [Reading(KID, 7, 1000 + n, entries, 2, hashlib.sha256(b"%d" % n).digest()) for n in range(3)]
    pairs = [(reading, encode(reading)) for reading in made]
    record = records.SealRecord(7, 9, 0, 1, 2, 3, 1, 50, 4, 3, bytes(32))
    payload = envelopes.seal_payload(KID, record, pairs, (b"m" * 32, b"c" * 32))
    seal = seal_codec.decode(payload)
    assert (seal.kid, seal.point, seal.height, seal.boot, seal.count) == (KID, 7, 9, 3, 3)
    assert (seal.first_ms, seal.last_ms, seal.import_wh, seal.export_wh) == (1000, 1002, 5, 5)
    assert (seal.measurement, seal.configuration) == (b"m" * 32, b"c" * 32)
    seal_codec.check_readings(seal, [data for _, data in pairs])
    unread = tuple(Entry(e.name, None, None, "no_answer") if e.name == "1.8.0" else e for e in entries)
    pairs[2] = (Reading(KID, 7, 1002, unread, 2, bytes(32)), pairs[2][1])
    assert seal_codec.decode(envelopes.seal_payload(KID, record, pairs, (bytes(32), bytes(32)))).import_wh is None


def test_unknown_numbers_are_damage() -> None:
    reading = Reading(KID, 7, 1_780_000_000_000, tuple(Entry(f.name, None, None, "nan") for f in meters.fields_of(
        meters.load("pzem004t"), meters.BILLING)), 2, bytes(32))
    record = bytearray(reading_records.encode_reading(reading, "pzem004t", meters.BILLING))
    record[7] = 127
    with pytest.raises(Refused, match="damaged"):
        reading_records.decode_reading(KID, bytes(record), meters.load)
