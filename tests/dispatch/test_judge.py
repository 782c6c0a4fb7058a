"""The judgement: the ten errors that filling makes, bytes altered anywhere, and what nobody must be alarmed by."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware.wire import device as codec
from firmware.wire.errors import Refused
from gateway.dispatch.certified import Certified
from gateway.dispatch.judge import difference, judge, wanted
from tests.dispatch.plant import FILLING_ERRORS, KIND, Plant, evidence_of, new_device


@pytest.fixture(scope="module")
def plant() -> Plant:
    made = Plant()
    made.certify_all()
    return made


def test_untouched(plant: Plant) -> None:
    found, _ = plant.judge(new_device()[0])
    assert (found.outcome, found.item, found.kind, found.offset) == ("MATCH", None, None, None)
    assert found.digests == list(plant.certified.known("bay-1").digests)  # type: ignore[union-attr]


@pytest.mark.parametrize("error", FILLING_ERRORS)
def test_filling_errors(plant: Plant, error: str) -> None:
    line, *due, offset = FILLING_ERRORS[error]
    device, control = new_device()
    assert control.do(line) == "ok"
    found, _ = plant.judge(device)
    assert [found.outcome, found.item, found.kind] == due
    assert offset is None or found.offset == offset
    assert control.do("repair") == "ok" and plant.judge(device)[0].outcome == "MATCH"


@pytest.mark.parametrize("error", FILLING_ERRORS)
def test_filling_errors_where_no_file_is_known(plant: Plant, error: str) -> None:
    """Without the certified bytes the outcome is the same; what needs them is not said."""
    line, outcome, item, kind, _ = FILLING_ERRORS[error]
    device, control = new_device()
    control.do(line)
    found = judge(evidence_of(device), plant.certified, lambda digest: None)
    assert (found.outcome, found.item) == (outcome, item)
    assert found.kind == (None if kind in ("value", "truncated") else kind)


def test_any_byte_of_any_file(plant: Plant) -> None:
    chance = random.Random(5)
    for _ in range(200):
        device, control = new_device(has_twin=False)
        file = chance.choice(device.sides[0].files)
        offset = chance.randrange(len(file.data))
        name = codec.ITEMS[file.role]
        assert control.do(f"tamper {name} {offset}") == "ok"
        found, _ = plant.judge(device)
        outcome = codec.UNKNOWN_DEVICE if name == "serial" else codec.MISMATCH
        kind = "other device" if found.kind == "other device" else "value"  # bay-1 may become bay-2
        assert (found.outcome, found.item, found.kind, found.offset) == (outcome, name, kind, offset)


def test_silence_is_another_alarm(plant: Plant) -> None:
    device, control = new_device()
    control.do("silent")
    found, _ = plant.judge(device)
    assert (found.outcome, found.kind, found.digests) == ("NO_DATA", None, None)
    control.do("repair")
    control.do("twin silent")
    assert plant.judge(device)[0][:3] == ("NO_DATA", None, "twin")


def test_both_sides_alike_are_no_twin_error(plant: Plant) -> None:
    device, control = new_device()
    control.do("tamper settings 5")
    assert plant.judge(device)[0].kind == "value"
    control.do("twin tamper strategy 5")
    found, _ = plant.judge(device)
    assert (found.outcome, found.item, found.kind) == ("MISMATCH", "settings", "twin")


def test_worse_side_counts(plant: Plant) -> None:
    device, control = new_device()
    control.do("first version 1.0")
    assert plant.judge(device)[0][:3] == ("NOT_CURRENT", "software", "twin")
    control.do("twin drop serial")
    assert plant.judge(device)[0][:3] == ("UNKNOWN_DEVICE", "serial", "twin")


def test_nothing_certified() -> None:
    plant = Plant()
    found, _ = plant.judge(new_device()[0])
    assert (found.outcome, found.item, found.kind) == ("UNKNOWN_DEVICE", None, None)
    plant.certify(KIND, endorsers=("manufacturer",))
    assert plant.judge(new_device()[0])[0].outcome == "UNKNOWN_DEVICE", "two of three is not in force"


def test_a_version_ahead_of_its_endorsement(plant: Plant) -> None:
    """A mismatch all the same, but named."""
    kind = KIND._replace(version="3.0")
    ahead = Plant()
    ahead.certify_all()
    ahead.certify(kind, endorsers=("regulator",))
    device, control = new_device()
    control.do("version 3.0")
    assert ahead.judge(device)[0][:3] == ("MISMATCH", "software", "other version")


def test_what_is_fetched(plant: Plant) -> None:
    device, control = new_device()
    assert wanted(evidence_of(device), plant.certified) == []
    control.do("twin tamper strategy 3")
    known = plant.certified.known("bay-1")
    assert known is not None and wanted(evidence_of(device), plant.certified) == [known.digests[1]]
    assert wanted(evidence_of(device), Certified(lambda key: None)) == []


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_first_difference(due: bytes, found: bytes) -> None:
    if due == found:
        return
    kind, offset = difference(due, found)
    assert due[:offset] == found[:offset] and due[offset:offset + 1] != found[offset:offset + 1]
    assert (kind == "truncated") == (offset == len(found))


@given(st.binary(max_size=200))
def test_any_bytes_as_evidence(data: bytes) -> None:
    try:
        codec.decode_evidence(data)
    except Refused:
        return
    assert codec.encode_evidence(codec.decode_evidence(data)) == data


def test_evidence_there_and_back() -> None:
    device, control = new_device()
    control.do("twin silent")
    for evidence in (evidence_of(device), evidence_of(new_device()[0])):
        data = codec.encode_evidence(evidence)
        assert codec.encode_evidence(codec.decode_evidence(data)) == data
    assert codec.certified_bytes(codec.preimage(3, "m", "d", b"x")) == b"x"
    for wrong in ("Bay", "", "x" * 33, "a/b"):
        assert not codec.is_device(wrong)
