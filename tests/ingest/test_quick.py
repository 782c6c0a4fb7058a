"""The quick expressions take nothing that the plain decoders refuse, read alike, and do take what meters send."""

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from firmware.wire import cbor, cose, merkle, reading, seal
from firmware.wire.errors import Refused
from gateway.ingest import quick
from tests.ingest.parts import CHAIN, START_MS, Agent

AGENT = Agent()
BOUNDARIES = [0, 1, 23, 24, 255, 256, 65535, 65536, 2**32 - 1, 2**32, 2**64 - 1]
unsigned = st.sampled_from(BOUNDARIES) | st.integers(0, 2**64 - 1)
integer = unsigned | st.sampled_from([-number - 1 for number in BOUNDARIES]) | st.integers(-(2**63), -1)
name = st.text("abcdefgh0123456789.-:/_", min_size=1, max_size=30) | st.sampled_from(
    ["1.8.0", "16.7.0", "ms", "raw", "quality", "qualitx", "a.missing", ".missing", "raw1"])


def sloppy(value: object, width: int) -> bytes:
    """CBOR like the house's, but integers' heads are longer than they may be where `width` is not 0."""
    if isinstance(value, int) and width:
        number, major = (value, 0) if value >= 0 else (-1 - value, 0x20)
        size = max(1 << (width - 1), next(size for size in (1, 2, 4, 8) if number < 1 << (8 * size)))
        return bytes((major | 24 + size.bit_length() - 1,)) + number.to_bytes(size, "big")
    return cbor.encode(value)


@st.composite
def payloads(draw: st.DrawFn) -> bytes:
    """A seal's payload: as a sane meter makes it, but for one or two fields."""
    fields: list[object] = [1, AGENT.kid, 7, 1, draw(st.integers(1, 2**40)), 0, bytes(32), bytes(32), 1, START_MS,
                            START_MS + draw(st.integers(0, 70_000)), draw(unsigned | st.none()),
                            draw(unsigned | st.none()), 1, 2, bytes(32), bytes(32)]
    widths = [0] * 17
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, 16))
        odd = st.binary(min_size=30, max_size=33) | st.sampled_from([1, 2, 512, 513])
        fields[at] = draw(unsigned | st.none() | odd)
        widths[at] = draw(st.integers(0, 4))
    return b"\x91" + b"".join(map(sloppy, fields, widths))


def spoil(draw: Callable[..., Any], data: bytes) -> bytes:
    """Some bytes changed, put in or taken away."""
    made = bytearray(data)
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(made) - 1))
        how = draw(st.integers(0, 2))
        if how == 0:
            made[at] = draw(st.integers(0, 255))
        elif how == 1:
            made.insert(at, draw(st.integers(0, 255)))
        elif len(made) > 1:
            del made[at]
    return bytes(made)


def plain_seal(message: bytes) -> tuple[object, ...] | None:
    try:
        signed = cose.parse(message)
        return signed.kid, signed.payload, seal.decode(signed.payload), signed.signature
    except Refused:
        return None


@settings(max_examples=600)
@given(st.data())
def test_seals_read_alike(data: st.DataObject) -> None:
    payload = data.draw(payloads())
    message = cose.assemble(AGENT.kid, payload, bytes(range(1, 65)))
    if data.draw(st.booleans()):
        message = spoil(data.draw, message)
    found = quick.read_seal(message)
    assert found is None or found == plain_seal(message)


@given(payloads())
def test_an_ordinary_seal_needs_no_plain_decoder(payload: bytes) -> None:
    message = cose.assemble(AGENT.kid, payload, bytes(range(1, 65)))
    if len(payload) < 256:
        assert quick.read_seal(message) == plain_seal(message)


def every_byte(message: bytes) -> Iterator[bytes]:
    """Every message that differs in one byte."""
    for at in range(len(message)):
        for byte in {message[at] ^ 1 << bit for bit in range(8)} | {0, 23, 24, 25, 0x58, 0x59, 0xf6, 0xff}:
            yield message[:at] + bytes((byte,)) + message[at + 1:]


@pytest.mark.parametrize("large", [False, True])
def test_seals_with_any_byte_changed(large: bool) -> None:
    made = AGENT.seal(7, 2, bytes(32), [AGENT.reading(7, START_MS)])
    if large:
        made = made._replace(height=70_000, lost=300, import_wh=None, boot=2**33, flags=24)
    for message in every_byte(cose.assemble(AGENT.kid, seal.encode(made), bytes(range(1, 65)))):
        found = quick.read_seal(message)
        assert found is None or found == plain_seal(message)


def judged_whole(data: bytes) -> tuple[object, ...] | None:
    """What the plain decoders make of an envelope, its readings' content checked, whatever their root."""
    try:
        message, readings = seal.decode_envelope(data)
        signed = cose.parse(message)
        made = seal.decode(signed.payload)
        seal.check_readings(made._replace(root=merkle.root(readings)), readings)
        return message, signed.kid, signed.payload, made, signed.signature, readings
    except Refused:
        return None


@pytest.mark.parametrize("boot", [3, 2**40])
def test_single_envelopes_with_any_byte_changed(boot: int) -> None:
    good = Agent().next(boot=boot)
    assert quick.read_single(good) == judged_whole(good) is not None
    taken = 0
    for data in every_byte(good):
        found = quick.read_single(data)
        if found is not None:
            taken += 1
            assert found == judged_whole(data)
    assert taken > 1000, "most bytes are hashes and a signature, which are for others to judge"
    for data in (good[:-1], good + b"\0", good[1:], b"", b"\x82\x59", b"\x82\x59\0\0\0", good[:300]):
        assert quick.read_single(data) is None


@settings(max_examples=600)
@given(st.data())
def test_single_envelopes_judged_alike(data: st.DataObject) -> None:
    pack = data.draw(packs())
    message = cose.assemble(AGENT.kid, data.draw(payloads()), bytes(range(1, 65)))
    made = spoil(data.draw, seal.encode_envelope(message, [pack]))
    found = quick.read_single(made)
    assert found is None or found == judged_whole(made)


def test_seals_that_do_not_fit_their_single_reading_are_left_to_the_plain_decoder() -> None:
    taken = AGENT.reading(7, START_MS + 300)
    good = AGENT.seal(7, 2, bytes(32), [taken])
    assert quick.read_single(AGENT.envelope(good, [taken])) is not None
    for changes in ({"count": 2}, {"point": 8}, {"kid": bytes(8)}, {"first_ms": START_MS},
                    {"first_ms": START_MS, "last_ms": START_MS}, {"last_ms": START_MS + 301}, {"height": 0},
                    {"lost": 2}, {"version": 2}):
        assert quick.read_single(AGENT.envelope(good._replace(**changes), [taken])) is None, changes
    two = AGENT.seal(7, 2, bytes(32), [taken, AGENT.reading(7, START_MS + 900)])
    assert quick.read_single(AGENT.envelope(two, [taken, AGENT.reading(7, START_MS + 900)])) is None


def test_a_wrong_size_of_the_message_is_no_way_in() -> None:
    """The size is also where the reading's head is looked for: here a wrong one finds a byte that looks like it."""
    head = 0x86  # base, three entries, quality, raw
    taken = reading.decode(AGENT.reading(7, START_MS))
    data = reading.encode(taken._replace(raw=bytes([head]) * 32))
    good = AGENT.envelope(AGENT.seal(7, 2, bytes(32), [data]), [data])
    assert quick.read_single(good) == judged_whole(good) is not None
    size = good[2] << 8 | good[3]
    made = good[:2] + (len(good) - 7 - 5).to_bytes(2, "big") + good[4:]
    assert made[7 + len(good) - 12] == head == good[7 + size]
    assert judged_whole(made) is None
    assert quick.read_single(made) is None


def test_readings_with_any_byte_changed() -> None:
    good = AGENT.reading(7, START_MS + 300, 70_000, -500)
    made = AGENT.seal(7, 2, bytes(32), [good])
    for data in every_byte(good):
        if quick.are_readings_of(made, [data]):
            seal.check_readings(made._replace(root=merkle.root([data])), [data])


def test_envelopes_with_any_byte_changed() -> None:
    for message in every_byte(seal.encode_envelope(bytes(300), [bytes(24), bytes(256), bytes(70)])):
        found = quick.split_envelope(message)
        if found is not None:
            assert found == seal.decode_envelope(message)


@st.composite
def packs(draw: st.DrawFn) -> bytes:
    """A pack's CBOR: well made, but for one or two of its parts."""
    base: dict[int, object] = {-1: 26, -2: f"urn:dev:os:32473-{AGENT.kid.hex()}:7:", -3: START_MS // 1000, 0: "ms",
                               1: "ms", 2: draw(st.integers(0, 999))}
    entry: dict[int, object] = {0: "1.8.0", 1: "Wh", 2: draw(integer)}
    quality: dict[int, object] = {0: "quality", 2: 2}
    raw: dict[int, object] = {0: "raw", 8: bytes(32)}
    for _ in range(draw(st.integers(0, 2))):
        defect = draw(st.integers(0, 8))
        if defect == 0:
            base[draw(st.sampled_from([-1, -3, 2]))] = draw(integer)
        elif defect == 1:
            base[-2] = draw(st.sampled_from([f"urn:dev:os:32473-{AGENT.kid.hex()}:07:", "x", f"{base[-2]}:",
                                             f"urn:dev:os:32473-{AGENT.kid.hex().upper()}:7:"]))
        elif defect == 2:
            base[draw(st.sampled_from([0, 1]))] = "s"
        elif defect == 3:
            entry[0] = draw(name)
        elif defect == 4:
            entry[1] = draw(st.sampled_from(["Wh", "W", "/1000", "mA", "VAh", "kWh", "", "Whh"]))
        elif defect == 5:
            entry[2] = draw(st.none() | st.text(max_size=3) | st.booleans())
        elif defect == 6:
            entry = {0: draw(name), 3: draw(st.text(max_size=20))}
        elif defect == 7:
            quality[draw(st.sampled_from([0, 2]))] = draw(integer | name)
        else:
            raw[draw(st.sampled_from([0, 8]))] = draw(name | st.binary(min_size=31, max_size=33))
    without_unit = {label: value for label, value in entry.items() if label != 1}
    return cbor.encode([base, entry, *draw(st.sampled_from([[], [without_unit], [entry]])), quality, raw])


def pack_by_hand(name: bytes = b"\x651.8.0", value: bytes = b"\x05", milliseconds: bytes = b"\x07",
                 quality: bytes = b"\x02") -> bytes:
    """A reading's bytes, with some of them as given."""
    good = AGENT.reading(7, START_MS)
    base = good[1:good.index(b"\xa3")].replace(b"\x02\x00\x20", b"\x02" + milliseconds + b"\x20")
    tail = good[good.index(b"\xa2\x00\x67quality"):].replace(b"\x02\x02", b"\x02" + quality, 1)
    return b"\x84" + base + b"\xa3\x00" + name + b"\x01\x62Wh\x02" + value + tail


LONG_NUMBERS = [b"\x18\x05", b"\x19\x00\x50", b"\x1a\x00\x00\x50\x50", b"\x1b\x00\x00\x00\x00\x50\x50\x50\x50"]
BAD_PACKS = [pack_by_hand(name=bytes((0x60 + len(text),)) + text)
             for text in (b"ms", b"raw", b"quality", b"x.missing", b".missing", b"a b", b"\xc3\xa4")]
BAD_PACKS += [pack_by_hand(name=b"\x641.8.0"), pack_by_hand(name=b"\x661.8.0"), pack_by_hand(name=b"\x78\x051.8.0")]
BAD_PACKS += [pack_by_hand(value=number) for number in LONG_NUMBERS]
BAD_PACKS += [pack_by_hand(value=bytes((number[0] | 0x20,)) + number[1:]) for number in LONG_NUMBERS]
BAD_PACKS += [pack_by_hand(quality=number) for number in [*LONG_NUMBERS, b"\x21"]]
BAD_PACKS += [pack_by_hand(milliseconds=number) for number in [*LONG_NUMBERS, b"\x19\x03\xe8", b"\x20"]]


@pytest.mark.parametrize("data", BAD_PACKS, ids=[data.hex()[90:150] for data in BAD_PACKS])
def test_what_no_pack_may_have(data: bytes) -> None:
    time_ms = START_MS + (1000 if b"\x19\x03\xe8" in data else 7)
    made = AGENT.seal(7, 1, bytes(32), [AGENT.reading(7, time_ms)], root=merkle.root([data]))
    with pytest.raises(Refused):
        seal.check_readings(made, [data])
    assert not quick.are_readings_of(made, [data])


def test_the_pack_by_hand_is_good_otherwise() -> None:
    data = pack_by_hand()
    made = AGENT.seal(7, 1, bytes(32), [AGENT.reading(7, START_MS + 7)], root=merkle.root([data]))
    seal.check_readings(made, [data])
    assert quick.are_readings_of(made, [data])


def test_strings_with_longer_heads_than_they_need() -> None:
    good = bytes(30)
    for strings in (b"\x58\x17" + bytes(23), b"\x59\x00\x1e" + good, b"\x59\x00\xff" + bytes(255)):
        for data in (b"\x82" + strings + b"\x81\x58\x1e" + good, b"\x82\x58\x1e" + good + b"\x81" + strings):
            assert quick.split_envelope(data) is None
            with pytest.raises(Refused):
                seal.decode_envelope(data)
    assert quick.split_envelope(b"\x82\x58\x1e" + good + b"\x98\x17" + 23 * (b"\x58\x1e" + good)) is None


@settings(max_examples=600)
@given(st.data())
def test_readings_judged_alike(data: st.DataObject) -> None:
    readings = [data.draw(packs()) for _ in range(data.draw(st.integers(1, 3)))]
    if data.draw(st.booleans()):
        readings[-1] = spoil(data.draw, readings[-1])
    first = last = START_MS
    try:
        first, last = reading.decode(readings[0]).time_ms, reading.decode(readings[-1]).time_ms
    except Refused:
        pass
    made = AGENT.seal(7, 1, bytes(32), [AGENT.reading(7, START_MS)], count=len(readings), root=merkle.root(readings),
                      first_ms=first, last_ms=last)
    is_quick = quick.are_readings_of(made, readings)
    try:
        seal.check_readings(made, readings)
        is_plain = True
    except Refused:
        is_plain = False
    assert is_plain or not is_quick


@pytest.mark.parametrize("entries", range(1, 21))
def test_a_meters_reading_needs_no_plain_decoder(entries: int) -> None:
    chance = random.Random(entries)
    records = tuple(reading.Entry(f"{at}.{chance.randrange(10 ** 9)}.0", chance.choice([*reading.UNITS, None]),
                                  chance.choice(BOUNDARIES + [-1, -24, -25, -500, -70000]), None)
                    for at in range(entries))
    readings = [reading.encode(reading.Reading(AGENT.kid, 7, START_MS + 333 * at, records, 3, bytes(32)))
                for at in range(4)]
    made = AGENT.seal(7, 1, bytes(32), readings)
    seal.check_readings(made, readings)
    assert quick.are_readings_of(made, readings)


@given(st.data())
def test_envelopes_split_alike(data: st.DataObject) -> None:
    parts = [data.draw(st.binary(max_size=40) | st.binary(min_size=250, max_size=260)) for _ in range(
        data.draw(st.integers(1, 26)))]
    message = spoil(data.draw, seal.encode_envelope(parts[0], parts[1:]))
    found = quick.split_envelope(message)
    if found is not None:
        assert found == seal.decode_envelope(message)


def test_an_ordinary_envelope_needs_no_plain_decoder() -> None:
    for count in (1, 23, 24, 60):
        assert quick.split_envelope(Agent().next(count=count)) is not None


@given(st.binary(max_size=70_000) | st.binary(max_size=300), st.sampled_from(cose.KINDS))
@example(b"", "seal")
@example(bytes(23), "seal")
@example(bytes(255), "tx")
@example(bytes(256), "tx")
def test_digests_are_equal(payload: bytes, kind: str) -> None:
    assert quick.digest(payload, kind, CHAIN) == cose.digest(payload, kind, CHAIN)


@given(st.integers(0, 2**256 - 1) | st.sampled_from([cose.ORDER >> 1, (cose.ORDER >> 1) + 1]))
def test_low_s_is_judged_alike(s: int) -> None:
    signature = bytes(32) + s.to_bytes(32, "big")
    assert quick.has_low_s(signature) == cose.is_low_s(signature)
