"""Certified versions, endorsements and device reports on chain: what is in force, what follows, and history."""

from typing import Any

import pytest

from firmware.wire import device as codec
from gateway.dispatch import records
from tests.dispatch.plant import FILLING_ERRORS, KIND, Plant, new_device, size_of
from tests.ledger.world import START_S, key


@pytest.fixture
def plant() -> Plant:
    return Plant()


def test_in_force_with_three(plant: Plant) -> None:
    body = plant.certify_body(KIND)
    name = codec.certify_hash(body)
    assert plant.run(codec.ENDORSE, [name, "regulator"], "regulator") == "not_certified"
    assert plant.run(codec.CERTIFY, body, "laboratory") == "accepted"
    assert plant.run(codec.CERTIFY, body, "laboratory") == "duplicate"
    assert plant.certified.registry.pending == [name]
    assert plant.run(codec.ENDORSE, [name, "manufacturer"], "regulator") == "not_permitted"
    assert plant.run(codec.ENDORSE, [name, "regulator"], "regulator") == "accepted"
    assert plant.run(codec.ENDORSE, [name, "regulator"], "regulator") == "duplicate"
    plant.enrol("regulator 2", "regulator")
    assert plant.run(codec.ENDORSE, [name, "regulator"], "regulator 2") == "duplicate"
    assert plant.certified.known("bay-1") is None, "two of three"
    assert plant.run(codec.ENDORSE, [name, "manufacturer"], "manufacturer") == "accepted"
    known, version = plant.certified.known("bay-1"), plant.certified.version(name)
    assert known is not None and known.digests == tuple(body[3:]) and plant.certified.registry.pending == []
    assert version is not None and version.in_force_height == plant.table.height
    assert len({version.laboratory, version.manufacturer, version.regulator}) == 3


@pytest.mark.parametrize("sender", ("operator", "manufacturer", "regulator", "replica 0"))
def test_certify_by_the_wrong_role(plant: Plant, sender: str) -> None:
    """It stands in the block, with its result code, and has cost its sender a sequence number."""
    assert plant.run(codec.CERTIFY, plant.certify_body(KIND), sender) == "not_permitted"
    assert plant.certified.edition == 0


@pytest.mark.parametrize(("at", "value"), ((0, ""), (0, "x" * 65), (1, ""), (2, "Bay 1"), (2, None), (5, None),
                                           (3, b"short"), (4, None)))
def test_certify_bodies(plant: Plant, at: int, value: object) -> None:
    body = plant.certify_body(KIND)
    body[at] = value
    assert plant.run(codec.CERTIFY, body, "laboratory") == "malformed"


def test_endorse_and_report_bodies(plant: Plant) -> None:
    name = plant.certify(KIND, endorsers=())
    for body in ([name], [name, "laboratory"], [name[:31], "regulator"]):
        assert plant.run(codec.ENDORSE, body, "regulator") == "malformed"
    found, evidence = plant.judge(new_device()[0])
    changes: list[dict[str, Any]] = [
        {"device": "Bay"}, {"outcome": "GOOD"}, {"kind": "strange"}, {"item": "wheel"}, {"digests": []},
        {"identity": None}, {"identity": ["x" * 65, ""]}, {"interval_s": 0}]
    for change in changes:
        assert plant.report(found, evidence, **change) == "malformed", change


def test_newer_versions(plant: Plant) -> None:
    """The newest in force counts for all devices of a model; older ones are known as older."""
    device, control = new_device()
    plant.certify(KIND._replace(version="1.0"))
    plant.certify(KIND._replace(device="bay-2", version="1.0"))
    plant.certify(KIND)
    assert plant.judge(device)[0].outcome == "MATCH"
    control.do("version 1.0")
    assert plant.judge(device)[0].outcome == "NOT_CURRENT"
    second, _ = new_device(KIND._replace(device="bay-2"))
    assert plant.judge(second, "bay-2")[0].outcome == "MATCH", "settings do not change with a version"
    plant.certify(KIND._replace(device="bay-3", version="1.0"))
    assert plant.judge(device)[0].outcome == "NOT_CURRENT", "a new bay's settings bring no old software back"
    plant.certify(KIND._replace(version="1.0"), has_device=False)
    assert plant.judge(device)[0].outcome == "MATCH", "a version of the model alone does"
    for number in range(records.OLD + 3):
        plant.certify(KIND._replace(version=f"3.{number}"), has_device=False)
    model = plant.certified.model("ssc-100")
    assert model is not None and len(model.old) == records.OLD


def test_versions_nobody_endorses_are_bounded(plant: Plant) -> None:
    names = [plant.certify(KIND._replace(version=f"4.{number}"), endorsers=()) for number in range(records.PENDING + 2)]
    assert plant.certified.registry.pending == names[2:]
    assert plant.run(codec.ENDORSE, [names[0], "regulator"], "regulator") == "not_certified"


def test_only_replicas_report(plant: Plant) -> None:
    plant.certify_all()
    found, evidence = plant.judge(new_device()[0])
    for sender in ("operator", "laboratory"):
        assert plant.report(found, evidence, sender) == "not_permitted"
    assert plant.report(found, evidence, "nobody") == "not_enrolled"
    assert plant.report(found, evidence, "replica 3") == "accepted"
    assert plant.record().reporter == key("replica 3").kid


@pytest.mark.parametrize("error", FILLING_ERRORS)
def test_every_outcome_follows_from_its_digests(plant: Plant, error: str) -> None:
    plant.certify_all()
    device, control = new_device()
    control.do(FILLING_ERRORS[error][0])
    found, evidence = plant.judge(device)
    for outcome in codec.OUTCOMES:
        if outcome != found.outcome:
            assert plant.report(found._replace(outcome=outcome), evidence) == "wrong_outcome"
    if error != "an extra file":
        assert plant.report(found._replace(item="files"), evidence) == "wrong_outcome"
    assert plant.report(found, evidence) == "accepted"
    record = plant.record()
    assert (record.outcome, record.kind, record.item, record.offset) == (
        found.outcome, found.kind, found.item, found.offset)
    assert record.alarm_height == plant.table.height


def test_a_report_must_be_of_this_state_and_time(plant: Plant) -> None:
    plant.certify_all()
    found, evidence = plant.judge(new_device()[0])
    assert plant.report(found, evidence, edition=plant.certified.edition - 1) == "wrong_state"
    assert plant.report(found, evidence) == "accepted"
    assert plant.report(found, evidence, time_s=plant.record().time_s) == "wrong_time"
    assert plant.report(found, evidence, time_s=START_S + 10_000) == "wrong_time"
    assert plant.report(found._replace(kind="value"), evidence) == "wrong_outcome", "nothing to explain"
    assert plant.report(found, evidence, digests=None, identity=None) == "wrong_outcome"


def test_since_and_history(plant: Plant) -> None:
    plant.certify_all()
    device, control = new_device()
    heights = []
    for line in ("repair", "tamper settings 9", "files", "tamper software 1", "silent", "repair"):
        control.do(line)
        assert plant.report(*plant.judge(device)) == "accepted"
        heights.append(plant.table.height)
    record = plant.record()
    assert [(row[0], *row[2:6]) for row in record.changes] == [
        (heights[0], "MATCH", None, None, None), (heights[1], "MISMATCH", "value", "settings", 9),
        (heights[3], "MISMATCH", "value", "software", 1), (heights[4], "NO_DATA", None, None, None),
        (heights[5], "MATCH", None, None, None)], "one row for each change, none for what was seen before"
    assert record.alarm_height is None and record.reports == 6 and record.since_height == heights[5]
    for number in range(2 * records.CHANGES):
        control.do("silent" if number % 2 else "repair")
        plant.report(*plant.judge(device))
        if number == records.CHANGES:
            size = size_of(plant)
    assert len(plant.record().changes) == records.CHANGES and abs(size_of(plant) - size) < 100


def test_reported_devices_are_bounded(plant: Plant) -> None:
    found, evidence = plant.judge(new_device()[0])
    for number in range(records.DEVICES):
        assert plant.report(found, evidence, device=f"d{number}") == "accepted"
    assert plant.report(found, evidence, device="one-more") == "busy"


def test_ten_thousand_unchanged_polls(plant: Plant) -> None:
    """No alarm, and no growth."""
    plant.certify_all()
    device, _ = new_device()
    found, evidence = plant.judge(device)
    body = codec.Report("bay-1", found.digests, found.outcome, found.kind, 0, codec.hash_of(evidence), found.item,
                        found.offset, found.identity, plant.certified.edition, 900)
    for _ in range(10_000):
        assert plant.judge(device)[0] == found
        plant.time_s += 900
        name = plant.world.tx(codec.REPORT, codec.report_body(body._replace(time_s=plant.time_s)), "replica 1")
        assert plant.table.run(name, time_s=plant.time_s) == ["accepted"]
    record = plant.record()
    assert (record.outcome, record.reports, record.alarm_height, len(record.changes)) == ("MATCH", 10_000, None, 1)


def test_seals_of_firmware_that_is_not_certified() -> None:
    """No mark while nothing is certified for an agent's model; then the seal's measurement must be, or have been."""
    plant = Plant(agents=[("meter", (1,))])

    def seal(measurement: bytes) -> list[str]:
        plant.time_s += 60
        found = plant.world.seal("meter", 1, plant.time_s * 1000, measurement=measurement)
        return plant.table.run(found.leaf, time_s=plant.time_s)

    def certify(measurement: bytes, endorsers: tuple[str, ...]) -> None:
        body = ["pi", measurement.hex()[:8], None, measurement, bytes(32), None]
        assert plant.run(codec.CERTIFY, body, "laboratory") == "accepted"
        for role in endorsers:
            assert plant.run(codec.ENDORSE, [codec.certify_hash(body), role], role) == "accepted"

    first, second, bad = bytes([1]) * 32, bytes([2]) * 32, bytes([3]) * 32
    assert seal(bad) == ["accepted"]
    certify(first, ("regulator",))
    assert seal(bad) == ["accepted"], "two of three"
    certify(second, ("regulator", "manufacturer"))
    assert (seal(second), seal(bad), seal(first)) == (["accepted"], ["firmware_not_certified"],
                                                      ["firmware_not_certified"])
    certify(bad, ("regulator", "manufacturer"))
    assert (seal(second), seal(bad)) == (["accepted"], ["accepted"]), "an older version is a certified one"
