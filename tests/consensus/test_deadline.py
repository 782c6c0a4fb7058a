"""A deadline that the state knows: an empty block at once when it passes, and no primary that owes it stays primary."""

import pytest

from tests.consensus.network import START, Net, item

SLOT_S = 60
FIRST_S = START.label_ms // 1000 // SLOT_S * SLOT_S + SLOT_S
TO_FIRST_MS = FIRST_S * 1000 - START.label_ms


def net_of(size: int = 4, slot_s: int = SLOT_S, **parameters: int) -> Net:
    """A cluster whose state has deadlines from the beginning, as a driver tells them at a start."""
    net = Net(size, **parameters)
    for node in net.nodes:
        node.ledger.slot_s = slot_s
        node.restart()
    net.run()
    return net


def times(net: Net, index: int = -1) -> list[int]:
    """Block times less the first deadline."""
    return [batch.time_s - FIRST_S for batch in net.nodes[index].ledger.batches if batch]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7])
def test_every_slot_is_passed_at_once(size: int) -> None:
    net = net_of(size)
    net.pass_time(TO_FIRST_MS - 1)
    assert times(net) == []
    net.pass_time(1 + 3 * SLOT_S * 1000)
    assert times(net) == [0, SLOT_S, 2 * SLOT_S, 3 * SLOT_S]
    assert not net.leaves() and set(net.views()) == {0}
    assert not any(node.replica.refused for node in net.nodes)


def test_a_block_with_items_passes_it_too() -> None:
    net = net_of()
    net.pass_time(TO_FIRST_MS - 5)  # a transaction waits 5 ms when something is in flight, else not at all
    net.nodes[0].do_execute = False
    net.nodes[0].submit(item("a"))
    net.pass_time(1000)
    assert len(net.nodes[1].ledger.batches) == 2, "nothing more is proposed while the state may still move the deadline"
    net.nodes[0].do_execute = True
    net.nodes[0].work()
    net.pass_time(10)
    assert times(net) == [-1, 0] and net.leaves() == [b"a"], "only then it is known to be still ahead"


def test_what_waits_for_company_goes_along() -> None:
    net = net_of()
    net.kind = "seal"
    net.pass_time(TO_FIRST_MS - 3000)
    for node in net.nodes:
        node.submit(item("a", "seal"))
    net.pass_time(2900)
    assert net.leaves() == []
    net.pass_time(200)
    assert times(net) == [0] and net.leaves() == [b"a"]


def test_a_dead_primary_does_not_stop_time() -> None:
    net = net_of()
    net.stop(0)
    net.pass_time(TO_FIRST_MS + 20_000)
    assert times(net) and times(net)[0] >= 0 and set(net.views()) == {1}


def test_a_primary_that_is_silent_about_it_is_left() -> None:
    """It proposes items, and time passes with them; without items it owes the empty block and is left for it."""
    net = net_of()
    net.nodes[0].ledger.slot_s = 0
    net.nodes[0].restart()
    net.pass_time(TO_FIRST_MS - 1000)
    for node in net.nodes:
        node.submit(item("a"))
    net.pass_time(20_000)
    assert net.leaves() == [b"a"] and set(net.views()) == {1} and max(times(net)) >= 0


def test_an_early_empty_block_is_refused() -> None:
    net = net_of()
    net.nodes[0].submit(item("a"))
    net.run()
    before = times(net)
    net.nodes[0].ledger.slot_s = 7  # a primary that would like to make time itself
    net.nodes[0].restart()
    net.pass_time(TO_FIRST_MS - 1000)
    assert all(node.replica.refused.get("wrong_time") for node in net.nodes[1:])
    assert times(net) == before
    net.pass_time(20_000)
    assert times(net)[:1] == before and min(times(net)[1:]) >= 0, "the others go on without it"


def test_a_backup_waits_for_the_state_that_knows_the_deadline() -> None:
    """The primary is quicker: its empty block comes before this backup has executed the block before."""
    net = net_of(slot_s=1)
    slow = net.nodes[3]
    slow.do_execute = False
    net.nodes[0].submit(item("a"))
    net.pass_time(1100)
    assert len(times(net, 0)) >= 2 and slow.ledger.n == 0
    assert not slow.replica.refused, "nothing is refused for what is not known yet"
    slow.do_execute = True
    slow.work()
    net.pass_time(50)
    assert slow.ledger.n == net.nodes[0].ledger.n and not slow.replica.refused


def test_with_two_slow_backups_the_block_is_not_refused() -> None:
    net = net_of(slot_s=1)
    for index in (2, 3):
        net.nodes[index].do_execute = False
    net.nodes[0].submit(item("a"))
    net.pass_time(1500)
    assert net.nodes[0].ledger.n == 1, "its quorum is not there"
    for index in (2, 3):
        net.nodes[index].do_execute = True
        net.nodes[index].work()
    net.pass_time(100)
    assert len(times(net, 0)) >= 2 and set(net.views()) == {0}


def test_a_restart_and_an_installed_state_know_it() -> None:
    net = net_of()
    net.pass_time(TO_FIRST_MS + 1000)
    for node in net.nodes:
        node.restart()
    net.pass_time(SLOT_S * 1000)
    assert times(net) == [0, SLOT_S]
    behind = net_of(checkpoint_interval=2, log_window=4, slot_s=1)
    behind.stop(3)
    behind.pass_time(20_000)
    behind.nodes[3].is_up = True
    behind.nodes[3].restart()
    behind.pass_time(3_000)
    assert behind.nodes[3].behinds
    behind.nodes[3].install()
    behind.pass_time(5_000)
    assert behind.nodes[3].ledger.n > 20 and not behind.nodes[3].alarms


def test_no_deadline_no_empty_block() -> None:
    net = net_of(slot_s=0)
    net.pass_time(600_000)
    assert times(net) == []
