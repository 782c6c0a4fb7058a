"""Checks when a batch closes, what goes into it, and who falls overdue."""

import pytest

from firmware.wire import genesis
from gateway.consensus.pool import Pool
from gateway.consensus.types import Now
from tests.consensus.network import Net, item

T0 = Now(1_000_000, 0)


def pool_with(*names: str, kind: str = "tx", client: bytes = b"", now: Now = T0, **parameters: int) -> Pool:
    pool = Pool(genesis.parameters(parameters))
    for name in names:
        pool.add(item(name, kind, client), now, False, 0)
    return pool


@pytest.mark.parametrize("kind, later, is_idle, due", [
    ("tx", Now(1_000_000, 0), True, True),
    ("tx", Now(1_000_000, 4), False, False),
    ("tx", Now(1_000_000, 5), False, True),
    ("seal", Now(1_000_000, 60_000), True, False),
    ("seal", Now(1_029_999, 0), True, False),
    ("seal", Now(1_030_000, 0), False, True),
])
def test_waiting_limits(kind: str, later: Now, is_idle: bool, due: bool) -> None:
    assert pool_with("a", kind=kind).is_due(later, is_idle) is due


def test_number_and_size_close_a_batch() -> None:
    assert not pool_with("a", kind="seal", batch_items=2).is_due(T0, True)
    assert pool_with("a", "b", kind="seal", batch_items=2).is_due(T0, True)
    assert pool_with("x" * 50, "y" * 50, kind="seal", batch_bytes=100).is_due(T0, True)


def test_oldest_first_over_both_kinds_within_the_limits() -> None:
    pool = pool_with("a", "b", batch_items=3)
    for name, kind in (("c", "seal"), ("d", "tx")):
        pool.add(item(name, kind), T0, False, 0)
    assert [thing.data for thing in pool.take(1)] == [b"a", b"b", b"c"]
    assert [thing.data for thing in pool.take(2)] == [b"d"]
    assert not pool.take(3) and len(pool) == 4


def test_bytes_of_a_batch_and_the_item_beyond_them() -> None:
    pool = pool_with("x" * 300, "y" * 60, "z" * 60, batch_bytes=100)
    assert [len(pool.take(n)) for n in (1, 2, 3)] == [1, 1, 1]


def test_share_of_one_client_keeps_its_order() -> None:
    pool = pool_with("a1", "a2", "a3", client=b"A", client_items=2)
    pool.add(item("b1", "tx", b"B"), T0, False, 0)
    assert [thing.data for thing in pool.take(1)] == [b"a1", b"a2", b"b1"]
    assert [thing.data for thing in pool.take(2)] == [b"a3"]


def test_view_change_brings_items_back_to_their_old_places() -> None:
    pool = pool_with("a", "b", "c", "d", batch_items=2)
    pool.take(1)
    pool.take(2)
    pool.add(item("e"), T0, False, 0)
    pool.release(above=1)
    assert [thing.data for thing in pool.take(2)] == [b"c", b"d"]
    assert [thing.data for thing in pool.take(3)] == [b"e"]


def test_overdue_by_limit_or_by_submit() -> None:
    pool = pool_with("a", kind="seal")
    pool.add(item("b", "seal"), T0, True, 0)
    assert [entry.item.data for entry in pool.overdue.values()] == [b"b"]
    assert pool.is_due(T0, False)
    assert pool.overdue_at() == (1_030_000, None)
    pool.advance(Now(1_030_000, 70), 0)
    assert [entry.item.data for entry in pool.overdue.values()] == [b"b"]  # the primary has a quarter of T for it
    assert pool.overdue_at() == (None, 570)
    pool.advance(Now(1_040_000, 569), 0)
    assert not pool.take_untold()
    pool.advance(Now(1_040_000, 570), 0)
    assert [entry.item.data for entry in pool.overdue.values()] == [b"b", b"a"]
    assert pool.take_untold() == [b"request a"] and not pool.take_untold()
    assert pool.foremost_overdue(1) == [b"request b"]
    pool.drop(item("b").key)
    assert [entry.item.data for entry in pool.overdue.values()] == [b"a"]


def test_a_transaction_is_handed_on_a_quarter_of_t_after_its_limit() -> None:
    pool = pool_with("a", "b", timeout_ms=1000)
    assert pool.overdue_at() == (None, 255)
    pool.advance(Now(1_000_000, 254), 0)
    assert not pool.overdue
    pool.fly([item("b").key], 7)
    pool.advance(Now(1_000_000, 255), 7)
    assert pool.take_untold() == [b"request a"] and list(pool.overdue) == [item("a").key]


def test_unknown_kind() -> None:
    with pytest.raises(ValueError):
        pool_with("a", kind="reading")


def test_seals_are_not_urgent_in_a_cluster() -> None:
    net = Net(4)
    net.kind = "seal"
    for node in net.nodes:
        node.submit(item("a", "seal"))
    net.pass_time(29_000)
    assert net.leaves() == []
    net.pass_time(1_100)
    assert net.leaves() == [b"a"] and net.views() == [0] * 4


def test_full_pool_refuses_as_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.consensus.pool.POOL_ITEMS", 2)
    net = Net(4)
    for name in "abc":
        net.nodes[1].submit(item(name, "seal"))
    assert net.nodes[1].replica.refused == {"busy": 1} and net.nodes[1].replica.pending == 2
