"""Modbus: published frames and CRCs, requests that can only read, every way an answer can be wrong, the planner."""

import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware import meters, modbus
from tests import needs

PZEM_REQUEST = bytes.fromhex("01040000000A700D")  # the sample in ESPHome's pzemac.cpp
PZEM_ANSWER = bytes.fromhex("01041408D1006C000000F400000026000001F4006400005134")


def test_published_crcs() -> None:
    found = json.loads(needs.vectors("modbus/crc_and_wordorder.json").read_text())
    for row in found["crc16"]:
        assert struct.pack("<H", modbus.crc16(bytes.fromhex(row["data"]))).hex() == row["crc_wire"]


def test_frames_of_another_implementation() -> None:
    """pymodbus' own test frames: requests we can build are built alike, RTU and TCP."""
    rows = json.loads(needs.vectors("modbus/pymodbus_frames.json").read_text())["frames"]
    built = 0
    for row in rows:
        pdu, unit = bytes.fromhex(row["pdu"]), row["device_id"]
        framing = {"RTU": modbus.RTU, "SOCKET": modbus.TCP}.get(row["framing"])
        if framing is None or not row["server_side"] or not modbus.is_reading(pdu):
            continue
        if framing == modbus.RTU and not 0 < unit <= modbus.UNITS:
            continue
        assert modbus.frame(framing, unit, pdu, row["transaction_id"]).hex() == row["adu"]
        built += 1
    assert built >= 5


def test_the_pzem_sample() -> None:
    assert modbus.frame(modbus.RTU, 1, modbus.read_registers(4, 0, 10)) == PZEM_REQUEST
    pdu = modbus.answer_pdu(modbus.RTU, PZEM_REQUEST, PZEM_ANSWER)
    assert modbus.words_of(PZEM_REQUEST[1:-2], pdu) == [0x08D1, 0x6C, 0, 0xF4, 0, 0x26, 0, 0x1F4, 0x64, 0]


@given(st.binary(max_size=300))
def test_nothing_but_reading_can_be_framed(pdu: bytes) -> None:
    for framing in (modbus.RTU, modbus.TCP):
        if pdu and pdu[0] in (3, 4, 20, 43) and modbus.is_reading(pdu):
            assert modbus.frame(framing, 1, pdu)
        else:
            with pytest.raises(ValueError):
                modbus.frame(framing, 1, pdu)


@pytest.mark.parametrize("function", [0, 1, 2, 5, 6, 8, 15, 16, 22, 23, 66])
def test_no_request_is_built_for_other_functions(function: int) -> None:
    with pytest.raises(ValueError):
        modbus.read_registers(function, 0, 1)
    for length in (4, 5, 6, 9):
        with pytest.raises(ValueError):
            modbus.frame(modbus.RTU, 1, bytes((function,)) + bytes(length - 1))


def answer_to(framing: str, request: bytes, pdu: bytes) -> bytes:
    if framing == modbus.TCP:
        return request[:4] + struct.pack(">HB", len(pdu) + 1, request[6]) + pdu
    body = request[:1] + pdu
    return body + struct.pack("<H", modbus.crc16(body))


@given(st.sampled_from([modbus.RTU, modbus.TCP]), st.integers(1, 125), st.sampled_from([3, 4]), st.data())
def test_answers_arrive_in_pieces(framing: str, count: int, function: int, data: st.DataObject) -> None:
    """`sift` never asks for more than there is, and reaches 0 exactly at the end."""
    words = data.draw(st.lists(st.integers(0, 65535), min_size=count, max_size=count))
    asked = modbus.read_registers(function, 7, count)
    request = modbus.frame(framing, 9, asked, 77)
    whole = answer_to(framing, request, bytes((function, 2 * count)) + struct.pack(f">{count}H", *words))
    received = b""
    while missing := modbus.sift(framing, request, received)[1]:
        assert len(received) + missing <= len(whole)
        taken = data.draw(st.integers(1, missing))
        received = whole[:len(received) + taken]
    assert received == whole and modbus.sift(framing, request, received) == (0, 0)
    assert modbus.words_of(asked, modbus.answer_pdu(framing, request, received)) == words


def wrong(framing: str, change: str) -> str:
    asked = modbus.read_registers(4, 0, 2)
    request = modbus.frame(framing, 9, asked, 77)
    good = bytes((4, 4, 1, 2, 3, 4))
    answer = answer_to(framing, request, good)
    if change == "crc":
        answer = answer[:-1] + bytes((answer[-1] ^ 1,))
    elif change == "unit":
        answer = answer_to(framing, request[:6] + b"\x08" if framing == modbus.TCP else b"\x08", good)
    elif change == "function":
        answer = answer_to(framing, request, b"\x03" + good[1:])
    elif change == "exception":
        answer = answer_to(framing, request, b"\x84\x02")
    elif change == "transaction":
        answer = b"\x00\x01" + answer[2:]
    elif change == "fewer":
        answer = answer_to(framing, request, bytes((4, 2, 1, 2)))
    elif change == "cut":
        answer = answer[:-3]
    elif change == "more":
        answer += b"\x00"
    elif change == "nothing":
        answer = b""
    with pytest.raises(modbus.BadAnswer) as error:
        modbus.words_of(asked, modbus.answer_pdu(framing, request, answer))
    return error.value.reason


@pytest.mark.parametrize(("change", "reason"), [
    ("crc", "crc"), ("unit", "unit"), ("function", "function"), ("exception", "exception_2"), ("fewer", "length"),
    ("cut", "length"), ("more", "length"), ("nothing", "no_answer")])
def test_each_wrong_rtu_answer_has_its_reason(change: str, reason: str) -> None:
    assert wrong(modbus.RTU, change) == reason


@pytest.mark.parametrize(("change", "reason"), [
    ("unit", "unit"), ("function", "function"), ("exception", "exception_2"), ("fewer", "length"), ("cut", "length"),
    ("more", "length"), ("nothing", "no_answer"), ("transaction", "transaction")])
def test_each_wrong_tcp_answer_has_its_reason(change: str, reason: str) -> None:
    assert wrong(modbus.TCP, change) == reason


@given(st.sampled_from([modbus.RTU, modbus.TCP]), st.binary(max_size=300))
def test_noise_is_never_taken_and_never_crashes(framing: str, noise: bytes) -> None:
    asked = modbus.read_registers(3, 0, 2)
    request = modbus.frame(framing, 9, asked, 77)
    begin, missing = modbus.sift(framing, request, noise)
    assert missing >= 0 and begin <= len(noise)
    try:
        words = modbus.words_of(asked, modbus.answer_pdu(framing, request, noise))
    except modbus.BadAnswer as bad:
        assert bad.reason in modbus.FAULTS or bad.reason.startswith(modbus.EXCEPTION)
    else:
        assert len(words) == 2  # 2 bytes of CRC can be hit; an unaltered header of 7 cannot by chance


@pytest.mark.parametrize("framing", [modbus.RTU, modbus.TCP])
def test_an_echo_and_late_answers_are_passed_over(framing: str) -> None:
    """What came before the answer to this very request: the request itself, another unit's, an earlier one's."""
    asked = modbus.read_registers(4, 0, 2)
    request = modbus.frame(framing, 9, asked, 77)
    answer = answer_to(framing, request, bytes((4, 4, 1, 2, 3, 4)))
    late = answer_to(framing, modbus.frame(framing, 8, asked, 76), bytes((4, 4, 9, 9, 9, 9)))
    refused = answer_to(framing, modbus.frame(framing, 8, asked, 75), b"\x84\x02")
    for before in (request, late, request + late, late + refused, b"\x00\xff" if framing == modbus.RTU else b""):
        received = b""
        while True:
            begin, missing = modbus.sift(framing, request, received)
            if not missing:
                break
            assert len(received) + missing <= len(before + answer)
            received = (before + answer)[:len(received) + missing]
        assert received[begin:] == answer, before
    with pytest.raises(modbus.BadAnswer) as error:
        modbus.answer_pdu(framing, request, request)
    assert error.value.reason == "no_answer", "an echo alone is silence"


def test_one_flipped_bit_of_an_rtu_answer_is_always_seen() -> None:
    for bit in range(8 * len(PZEM_ANSWER)):
        flipped = bytearray(PZEM_ANSWER)
        flipped[bit >> 3] ^= 1 << (bit & 7)
        with pytest.raises(modbus.BadAnswer):
            modbus.answer_pdu(modbus.RTU, PZEM_REQUEST, bytes(flipped))


def test_identification_and_file_answers() -> None:
    request = modbus.frame(modbus.RTU, 1, modbus.read_identity(1))
    objects = b"\x00\x03abc\x01\x02de"
    pdu = bytes((43, 14, 1, 1, 0, 0, 2)) + objects
    answer = answer_to(modbus.RTU, request, pdu)
    for length in range(len(answer)):
        assert modbus.sift(modbus.RTU, request, answer[:length])[1] > 0
    assert modbus.sift(modbus.RTU, request, answer) == (0, 0)
    assert modbus.identity_of(modbus.answer_pdu(modbus.RTU, request, answer)) == ({0: b"abc", 1: b"de"}, None)
    asked = modbus.read_file(1, 0, 2)
    request = modbus.frame(modbus.RTU, 1, asked)
    answer = answer_to(modbus.RTU, request, b"\x14\x06\x05\x06\x00\x01\x00\x02")
    assert modbus.words_of(asked, modbus.answer_pdu(modbus.RTU, request, answer)) == [1, 2]


class Span:
    def __init__(self, function: int, address: int, count: int) -> None:
        self.function, self.address, self.count = function, address, count


@given(st.lists(st.tuples(st.sampled_from([3, 4]), st.integers(0, 400), st.sampled_from([1, 2, 4])), min_size=1,
                max_size=40), st.integers(4, 125), st.integers(0, 30), st.randoms())
def test_the_plan_covers_everything_within_limits(rows: list[tuple[int, int, int]], most: int, hole: int,
                                                  chance: object) -> None:
    spans = [Span(*row) for row in rows]
    plan = modbus.plan(spans, most, hole)
    for span in spans:
        assert any(function == span.function and first <= span.address and span.address + span.count <= first + count
                   for function, first, count in plan), "torn or missing"
    covered = {(s.function, at) for s in spans for at in range(s.address, s.address + s.count)}
    for function, first, count in plan:
        assert 0 < count <= most
        empty = 0
        for at in range(first, first + count):
            empty = 0 if (function, at) in covered else empty + 1
            assert empty <= hole
    chance.shuffle(spans)  # type: ignore[attr-defined]
    assert modbus.plan(spans, most, hole) == plan


def test_plans_of_the_shipped_tables() -> None:
    expected = {"sdm120": [(4, 12, 2), (4, 72, 4)], "sdm630": [(4, 52, 2), (4, 72, 4)], "pzem004t": [(4, 3, 4)]}
    for name, plan in expected.items():
        table = meters.load(name)
        assert modbus.plan(meters.fields_of(table, meters.BILLING), table.max_registers, table.max_hole) == plan
