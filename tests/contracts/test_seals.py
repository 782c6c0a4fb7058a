"""What becomes of a seal: every refusal and every mark, through real signatures."""

import pytest

from firmware.wire import cose, seal
from tests.contracts.table import Table
from tests.ledger.world import START_S, World, key, point_entry

START_MS = START_S * 1000


@pytest.fixture
def world() -> World:
    return World(agents=[("meter", (1, 2)), ("other", (3,))], channels=("trade", "dispatch"))


@pytest.fixture
def table(world: World) -> Table:
    return Table(world)


def test_seals_in_order_are_accepted(world: World, table: Table) -> None:
    leaves = [world.seal("meter", 1, START_MS + 10_000 * i, 1000 + i).leaf for i in range(1, 6)]
    assert table.run(*leaves) == ["accepted"] * 5
    record = table.chain("meter", 1)
    assert (record.height, record.import_wh, record.last_ms, record.lost, record.marked) == (
        5, 1005, START_MS + 50_000, 0, 0)


@pytest.mark.parametrize(("changes", "reason"), [
    ({"point": 3}, "not_its_point"),
    ({"point": 2**40}, "not_its_point"),
    ({"meter_epoch": 2}, "wrong_meter_epoch"),
    ({"height": 3}, "gap"),
    ({"height": 3, "lost": 3}, "malformed"),
    ({"height": 4, "lost": 1}, "gap"),
    ({"height": 1, "lost": 0}, "fork"),
    ({"previous": b"\1" * 32}, "wrong_previous"),
    ({"lost": 1, "previous": b"\1" * 32, "height": 3}, "wrong_previous"),
    ({"signer": "other"}, "bad_signature"),
    ({"kid": key("other").kid}, "wrong_key"),
    ({"version": 2}, "wrong_version"),
    ({"count": 0}, "wrong_count"),
    ({"first_ms": START_MS + 10**6}, "wrong_times"),
])
def test_refused(world: World, table: Table, changes: dict, reason: str) -> None:
    assert table.run(world.seal("meter", 1, START_MS + 30_000).leaf) == ["accepted"]
    before = table.tree.root()
    assert table.run(world.seal("meter", 1, START_MS + 60_000, is_next=False, **changes).leaf) == [reason]
    assert table.tree.root() == before
    assert table.run(world.seal("meter", 1, START_MS + 60_000).leaf) == ["accepted"], "the agent goes on"


def test_unknown_revoked_and_wrong_channel(world: World, table: Table) -> None:
    assert table.run(world.seal("stranger", 1, START_MS).leaf) == ["not_enrolled"]
    found = world.seal("meter", 1, START_MS + 1).leaf
    assert table.run(found, channel="dispatch") == ["wrong_channel"]
    assert table.run(found, world.revoke("other"), world.seal("other", 3, START_MS).leaf) == [
        "accepted", "accepted", "revoked"]


def test_duplicate_fork_and_old_height(world: World, table: Table) -> None:
    first = world.seal("meter", 1, START_MS + 1000)
    fork = world.seal("meter", 1, START_MS + 2000, is_next=False, height=1, previous=seal.FIRST_PREVIOUS)
    second = world.seal("meter", 1, START_MS + 3000)
    assert table.run(first.leaf, first.leaf, fork.leaf, second.leaf, first.leaf) == [
        "accepted", "duplicate", "fork", "accepted", "wrong_height"]
    assert table.chain("meter", 1).payload_hash == second.payload_hash


def test_high_s_is_refused_and_shape_counts(world: World, table: Table) -> None:
    leaf = world.seal("meter", 1, START_MS + 1000).leaf
    s = int.from_bytes(leaf[-32:], "big")
    assert table.run(leaf[:-32] + (cose.ORDER - s).to_bytes(32, "big")) == ["high_s"]
    assert table.run(leaf[:-1], b"", leaf + b"\0") == ["malformed"] * 3
    other_chain = World(agents=[("meter", (1,))]).seal("meter", 1, START_MS + 1000).leaf
    assert table.run(other_chain, leaf) == ["bad_signature", "accepted"], "another chain's seal is no seal here"


@pytest.mark.parametrize(("time_ms", "changes", "marks"), [
    (START_MS + 60_000, {}, "accepted"),
    (START_MS + 60_000, {"flags": 0}, "clock_not_synchronised"),
    (START_MS + 60_000, {"flags": 1}, "clock_not_synchronised"),
    (START_MS + 60_000, {"flags": 3}, "clock_not_synchronised"),
    (START_MS + 60_000 + 12_001, {}, "clock_implausible"),
    (START_MS + 60_000 + 12_000, {}, "accepted"),
    (0, {"flags": 0}, "clock_not_synchronised clock_implausible late"),
    (START_MS + 60_000, {"import_wh": 999}, "register_fell"),
    (START_MS + 60_000, {"import_wh": None}, "accepted"),
    (START_MS + 60_000, {"flags": 2 | seal.LATE}, "late"),
    (START_MS + 60_000, {"lost": 4}, "heights_lost"),
    (START_MS + 60_000, {"flags": 2 | seal.HEIGHTS_LOST}, "heights_lost"),
])
def test_marked(world: World, table: Table, time_ms: int, changes: dict, marks: str) -> None:
    changes = dict(changes)
    import_wh = changes.pop("import_wh", 1000)
    assert table.run(world.seal("meter", 1, time_ms, import_wh, **changes).leaf) == [marks]
    assert table.run(world.seal("meter", 1, START_MS + 80_000, 2000).leaf, time_s=START_S + 80)[0] in (
        "accepted", "register_jumped"), "the agent goes on"


def test_late_by_block_time(world: World, table: Table) -> None:
    assert table.run(world.seal("meter", 1, START_MS + 1000).leaf, time_s=START_S + 121) == ["accepted"]
    assert table.run(world.seal("meter", 1, START_MS + 2000).leaf, time_s=START_S + 123) == ["late"]


def test_jump_is_power_above_the_points_largest(world: World, table: Table) -> None:
    """100 kW over a minute is 1,666.67 Wh."""
    table.run(world.seal("meter", 1, START_MS, 1000).leaf)
    assert table.run(world.seal("meter", 1, START_MS + 60_000, 2666).leaf) == ["accepted"]
    assert table.run(world.seal("meter", 1, START_MS + 120_000, 2666 + 1667).leaf, time_s=START_S + 120) == [
        "register_jumped"]


@pytest.mark.parametrize(("ratio", "largest"), [((40, 5), 13_333), ((1, 2), 833)])
def test_a_jump_grows_with_the_current_transformer(world: World, table: Table, ratio: tuple[int, int],
                                                    largest: int) -> None:
    """1,666.67 Wh a minute, times the ratio."""
    table.run(world.enrol("big", [point_entry(9, ratio=ratio)]), world.seal("big", 9, START_MS, 1000).leaf)
    assert table.run(world.seal("big", 9, START_MS + 60_000, 1000 + largest).leaf,
                     world.seal("big", 9, START_MS + 60_000 + 60_000, 1000 + 2 * largest + 1).leaf,
                     time_s=START_S + 120) == ["accepted", "register_jumped"]


@pytest.mark.parametrize(("exports", "mark"), [((500, 400), "register_fell"), ((500, 5000), "register_jumped"),
                                               ((500, 501), "accepted"), ((None, 501), "accepted")])
def test_export_counts_like_import(world: World, table: Table, exports: tuple, mark: str) -> None:
    table.run(world.seal("meter", 1, START_MS, 1000, export_wh=exports[0]).leaf)
    assert table.run(world.seal("meter", 1, START_MS + 60_000, 1000, export_wh=exports[1]).leaf) == [mark]


def test_a_bad_clock_excuses_no_jump(world: World, table: Table) -> None:
    """With the clock in 1970 for one seal, the next one's elapsed time is still counted from the last good seal."""
    table.run(world.seal("meter", 1, START_MS + 30_000, 1000).leaf)
    assert table.run(world.seal("meter", 1, 5_000, 1000).leaf) == ["clock_implausible late"]
    assert table.chain("meter", 1).last_ms == START_MS + 30_000
    assert table.run(world.seal("meter", 1, START_MS + 90_000, 2667).leaf, time_s=START_S + 90) == ["register_jumped"]


def test_unread_registers_make_no_jump_and_no_zero(world: World, table: Table) -> None:
    """Ten minutes at 99 kW unread, then read: 16,500 Wh in one step, but no more than 100 kW."""
    table.run(world.seal("meter", 1, START_MS, 1000).leaf)
    for i in range(1, 10):
        assert table.run(world.seal("meter", 1, START_MS + 60_000 * i, None).leaf, time_s=START_S + 60 * i) == [
            "accepted"]
    assert table.chain("meter", 1).import_wh == 1000
    assert table.run(world.seal("meter", 1, START_MS + 600_000, 17_500).leaf, time_s=START_S + 600) == ["accepted"]


def test_a_hundred_seals_of_1970_stay_in_order(world: World, table: Table) -> None:
    for i in range(100):
        verdicts = table.run(world.seal("meter", 1, 1000 * i, 1000, flags=0).leaf)
        assert verdicts == ["clock_not_synchronised clock_implausible late"]
    assert (table.chain("meter", 1).height, table.chain("meter", 1).last_ms) == (100, START_MS)
    assert table.run(world.seal("meter", 1, START_MS + 60_000, 1001).leaf) == ["accepted"]


def test_lost_heights_are_summed(world: World, table: Table) -> None:
    table.run(world.seal("meter", 1, START_MS + 1000, lost=2).leaf, world.seal("meter", 1, START_MS + 2000).leaf,
              world.seal("meter", 1, START_MS + 3000, lost=5).leaf)
    record = table.chain("meter", 1)
    assert (record.height, record.lost, record.marked) == (10, 7, 64)
