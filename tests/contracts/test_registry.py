"""Who may be enrolled, revoked and replaced, by whom, and what a refused transaction costs its sender."""

import pytest

from firmware.wire import cbor, state, transaction
from tests.contracts.table import Table
from tests.ledger.world import AREA, START_S, World, key, point_entry

START_MS = START_S * 1000


@pytest.fixture
def world() -> World:
    return World(agents=[("meter", (1, 2))])


@pytest.fixture
def table(world: World) -> Table:
    return Table(world)


def test_genesis_enrols(table: Table) -> None:
    assert table.agent("operator").role == "operator"
    assert table.agent("meter")[7:] == ([1, 2], 0, None, None)


def test_light_nodes_are_counted(world: World, table: Table) -> None:
    """Enrolled, unrevoked agents: neither operators nor auditors, and none twice; the genesis' one is there."""
    def count() -> int:
        return state.decode_count(table.get(state.light_key(AREA)))

    assert (count(), state.decode_count(table.get(state.light_key("south")))) == (1, 0)
    table.run(world.enrol("a", []), world.enrol("b", [point_entry(7)]), world.enrol("b", []))
    assert count() == 3
    auditor = transaction.enrol_body(world.request("c", role="auditor"), key("owner").kid, [], "")
    south = transaction.enrol_body(world.request("d", area="south"), key("owner").kid, [], "")
    assert table.run(world.tx(transaction.ENROL, auditor), world.tx(transaction.ENROL, south)) == ["accepted"] * 2
    assert (count(), state.decode_count(table.get(state.light_key("south")))) == (3, 1)
    assert table.run(world.replace("a", "a2")) == ["accepted"]
    assert count() == 3, "one in, one out"
    assert table.run(world.revoke("b"), world.revoke("b")) == ["accepted", "revoked"]
    assert count() == 2
    assert table.run(world.replace("b", "b2")) == ["accepted"]
    assert count() == 3, "a new key for an agent that was revoked before"
    assert table.run(world.revoke("meter"), world.revoke("a2"), world.revoke("b2")) == ["accepted"] * 3
    assert table.get(state.light_key(AREA)) == b"\0"


def test_enrol_then_seal(world: World, table: Table) -> None:
    assert table.run(world.enrol("new", [point_entry(7)])) == ["accepted"]
    record = table.agent("new")
    assert (record.points, record.enrolled_height, record.owner) == ([7], 1, key("owner").kid)
    assert table.run(world.seal("new", 7, START_MS + 60_000).leaf) == ["accepted"]


def _enrol_cases(world: World) -> dict[str, tuple[bytes, str]]:
    request = world.request("new")

    def enrol(request: bytes, points: list, **tx) -> bytes:
        return world.tx(transaction.ENROL, transaction.enrol_body(request, key("owner").kid, points, ""), **tx)

    return {
        "again": (enrol(world.request("meter"), []), "already_enrolled"),
        "a replica's key": (enrol(world.request("replica 0"), []), "already_enrolled"),
        "signed by another": (enrol(world.request("new", signer="other"), []), "bad_signature"),
        "for another chain": (enrol(world.request("new", chain_id=bytes(32)), []), "bad_signature"),
        "point taken": (enrol(request, [point_entry(1)]), "point_taken"),
        "point twice": (enrol(request, [point_entry(8), point_entry(8)]), "duplicate"),
        "point elsewhere": (enrol(request, [point_entry(8, area="south")]), "wrong_area"),
        "no such channel": (enrol(request, [point_entry(8, channel="dispatch")]), "wrong_channel"),
        "points of no agent": (enrol(world.request("new", role="auditor"), [point_entry(8)]), "not_permitted"),
        "ratio zero": (enrol(request, [point_entry(8, ratio=(1, 0))]), "malformed"),
        "no body": (world.tx(transaction.ENROL, []), "malformed"),
        "by an agent": (enrol(request, [], sender="meter"), "not_permitted"),
        "by a stranger": (enrol(request, [], sender="stranger"), "not_enrolled"),
        "forged sender": (enrol(request, [], signer="meter"), "bad_signature"),
        "wrong channel": (enrol(request, [], channel="dispatch"), "wrong_channel"),
        "too late": (enrol(request, [], valid_until_s=START_S + 59), "expired"),
        "unknown type": (world.tx(99, []), "unknown_type"),
        "later type": (world.tx(14, [1, 2, 3]), "unknown_type"),
    }


@pytest.mark.parametrize("name", _enrol_cases(World()))
def test_refused_changes_nothing_but_the_sequence(name: str) -> None:
    world = World(agents=[("meter", (1, 2))])
    table = Table(world)
    item, reason = _enrol_cases(world)[name]
    found = transaction.decode(transaction.cose.parse(item).payload)
    before = dict(table.tree.items())
    assert table.run(item) == [reason]
    after = dict(table.tree.items())
    used = after.pop(state.sequence_key(found.sender), None)
    assert after == before
    is_genuine = name not in ("by a stranger", "forged sender")
    assert used == (cbor.encode(found.sequence) if is_genuine else None)
    assert table.run(item) == ["stale_sequence" if is_genuine else reason]


def test_sequence_rises_and_may_skip(world: World, table: Table) -> None:
    assert table.run(world.enrol("a", [], sequence=10), world.enrol("b", [], sequence=10),
                     world.enrol("c", [], sequence=9), world.enrol("d", [], sequence=11)) == [
        "accepted", "stale_sequence", "stale_sequence", "accepted"]


def test_valid_until_includes_its_second(world: World, table: Table) -> None:
    assert table.run(world.enrol("a", [], valid_until_s=START_S + 60)) == ["accepted"]


def test_revoked_for_ever_and_points_free(world: World, table: Table) -> None:
    assert table.run(world.revoke("meter"), world.revoke("meter"), world.enrol("meter", []),
                     world.revoke("stranger"), world.revoke("operator")) == [
        "accepted", "revoked", "already_enrolled", "not_enrolled", "not_permitted"]
    assert table.agent("meter").revoked_height == 1
    assert table.run(world.seal("meter", 1, START_MS + 1000).leaf) == ["revoked"]
    assert table.run(world.enrol("new", [point_entry(1), point_entry(2, serial="another")])) == ["accepted"]
    epochs = [table.get(state.point_key(point)) for point in (1, 2)]
    assert [state.decode_point(data).meter_epoch for data in epochs if data] == [1, 2]
    assert table.run(world.seal("new", 2, START_MS + 1000).leaf, world.seal("new", 2, START_MS + 1000, is_next=False,
                     meter_epoch=2, height=1, previous=bytes(32)).leaf) == ["wrong_meter_epoch", "accepted"]


def test_a_revoked_operator_is_none(world: World, table: Table) -> None:
    second = transaction.enrol_body(world.request("second", role="operator"), key("owner").kid, [], "")
    assert table.run(world.tx(transaction.ENROL, second), world.revoke("operator", sender="second"),
                     world.enrol("new", [])) == ["accepted", "accepted", "revoked"]


def test_replaced_agent_goes_on_with_the_same_points(world: World, table: Table) -> None:
    table.run(world.seal("meter", 1, START_MS + 1000, 5000).leaf)
    assert table.run(world.replace("meter", "new")) == ["accepted"]
    assert table.agent("meter")[-2:] == (2, key("new").kid)
    assert table.agent("new").points == [1, 2]
    assert table.run(world.seal("meter", 1, START_MS + 2000).leaf) == ["revoked"]
    assert table.run(world.seal("new", 1, START_MS + 60_000, 4999).leaf,
                     world.seal("new", 2, START_MS + 60_000, 1000).leaf) == ["register_fell", "accepted"]
    data = table.get(state.point_key(1))
    assert data and state.decode_point(data).start_import_wh == 5000


def test_replace_is_refused(world: World, table: Table) -> None:
    assert table.run(
        world.replace("stranger", "new"), world.replace("meter", "operator"),
        world.tx(transaction.REPLACE_AGENT, [key("meter").kid, world.request("new", role="auditor")]),
        world.tx(transaction.REPLACE_AGENT, [key("meter").kid, world.request("new", area="south")]),
        world.tx(transaction.REPLACE_AGENT, [key("meter").kid, world.request("new", signer="other")]),
        world.replace("meter", "new"), world.replace("meter", "newer"), world.replace("new", "newer"),
    ) == ["not_enrolled", "already_enrolled", "not_permitted", "wrong_area", "bad_signature", "accepted", "revoked",
          "accepted"]


def test_a_lost_point_does_not_follow(world: World, table: Table) -> None:
    """Revoked, one point given to another, then replaced: only the other point goes to the new key."""
    assert table.run(world.revoke("meter"), world.enrol("taker", [point_entry(1)])) == ["accepted"] * 2
    assert table.run(world.replace("meter", "new")) == ["accepted"]
    assert table.agent("new").points == [2]
    assert table.agent("meter").revoked_height == 1
    assert AREA == table.agent("new").area
