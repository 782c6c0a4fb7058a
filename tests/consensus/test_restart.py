"""Checks that a replica may die between any two duties and at any record of its votes log: nothing promised is lost.

Each seam of a run with checkpoints and a view change is taken once: before and after each record, each send, each
execution. `Watched` keys fail the test when two lives of a member sign what contradicts; the ledgers must agree.
"""

import pytest

from gateway.consensus import durable
from gateway.consensus.replica import Replica
from gateway.consensus.types import Decision, Ready
from tests.consensus.network import Net, item

SMALL = {"checkpoint_interval": 2, "log_window": 4}


def run_with(victim: int, fuse: int | None, seed: int = 1) -> Net:
    """Blocks, a dead leader, more blocks, the leader back; `victim` dies after so many seams."""
    net = Net(4, seed=seed, **SMALL)
    net.run()
    for node in net.nodes:
        node.remembers = True
    net.nodes[victim].fuse = fuse
    for name in ("a", "b", "c"):
        for node in net.nodes:
            node.submit(item(name))
        net.run()
    net.cut = lambda sender, to, name: sender == 0 or to == 0
    for node in net.nodes:
        node.submit(item("d"))
    net.pass_time(5_000)
    net.cut = lambda sender, to, name: False
    for node in net.nodes:
        node.submit(item("e"))
    net.pass_time(20_000)
    return net


def seams_of(victim: int) -> int:
    """How many seams the victim passes when it does not die."""
    net = run_with(victim, 1_000_000)
    fuse = net.nodes[victim].fuse
    assert fuse is not None
    return 1_000_000 - fuse


@pytest.mark.parametrize("victim", [0, 1, 3])
def test_death_at_every_seam(victim: int) -> None:
    seams = seams_of(victim)
    assert seams > 40
    for fuse in range(seams):
        net = run_with(victim, fuse)
        assert net.nodes[victim].crashes == 1, fuse
        for node in net.nodes:
            if node.behinds and node.ledger.n < node.behinds[-1].n:
                node.install()
        net.pass_time(3_000)
        assert sorted(net.leaves()) == [b"a", b"b", b"c", b"d", b"e"], fuse
        assert len({node.ledger.root for node in net.nodes}) == 1, fuse
        assert not any(node.alarms for node in net.nodes), fuse


def test_lone_replica_dies_at_every_seam() -> None:
    for fuse in range(60):
        net = Net(1, **SMALL)
        net.nodes[0].remembers = True
        net.nodes[0].fuse = fuse
        for name in "abcdefg":
            net.nodes[0].submit(item(name))
            net.pass_time(10)
        assert [leaf.decode() for leaf in net.leaves()] == list("abcdefg"), fuse
        assert set(net.nodes[0].certified) == set(range(1, net.nodes[0].ledger.heads[-1].height + 1)), fuse


def test_every_prefix_of_the_log_is_a_memory() -> None:
    """A torn tail: any first part of the records is read, whatever it ends with."""
    net = run_with(0, None)
    node = net.nodes[1]
    for count in range(len(node.votes) + 1):
        records, node.votes = node.votes, node.votes[:count]
        node.boot()
        node.votes = records


def test_decision_is_issued_again_until_it_is_executed() -> None:
    net = Net(1)
    node = net.nodes[0]
    node.do_execute = False
    node.submit(item("a"))
    assert [decision.n for decision in node.decisions] == [1]
    node.restart()
    assert [decision.n for decision in node.decisions] == [1]
    node.do_execute = True
    node.work()
    node.restart()
    assert not node.decisions and node.ledger.n == 1


def test_lost_header_vote_is_given_again() -> None:
    """The ledger had committed, the vote was not on disk: start votes for the head, `vote_again` for the rest."""
    net = Net(1)
    node = net.nodes[0]
    for name in "abc":
        node.submit(item(name))
    node.votes = [record for record in node.votes if durable.read([record])[0].kind != durable.HEADER_VOTE]
    node.certified.clear()
    node.restart()
    assert sorted(node.certified) == [3]
    node.obey(node.replica.vote_again(node.ledger.heads[1:3], net.now))
    assert sorted(node.certified) == [1, 2, 3]


def test_compacted_log_stays_small() -> None:
    net = Net(4, **SMALL)
    for k in range(100):
        for node in net.nodes:
            node.submit(item("item %d" % k))
        net.run()
    for node in net.nodes:
        assert node.replica.low >= 98
        assert len(node.votes) < 20 and sum(map(len, node.votes)) < 6_000


def test_bytes_persisted_per_block() -> None:
    """Beyond the batch itself at most 1.5 KB a block at n = 4, compaction included."""
    net = Net(4)
    total = 0
    for k in range(130):
        name = "x" * 500 + str(k)
        for node in net.nodes:
            before = len(node.votes)
            node.submit(item(name))
            total += sum(map(len, node.votes)) if len(node.votes) < before else 0
        net.run()
    for node in net.nodes:
        assert node.ledger.n == 130
        assert (node.persisted_bytes + total) / 130 - 500 < 1_500


@pytest.mark.parametrize("records", [[b""], [b"\x80"], [b"\x81\x09"], [b"\x82\x07\x40"], [b"\x81\x03"]])
def test_foreign_record_is_named(records: list[bytes]) -> None:
    net = Net(1)
    node = net.nodes[0]
    node.votes = records
    with pytest.raises(ValueError, match="record 0"):
        node.boot()


def test_same_calls_same_bytes() -> None:
    """Determinism: two runs of one story persist and send the same bytes."""
    assert [node.votes for node in run_with(1, 30).nodes] == [node.votes for node in run_with(1, 30).nodes]


def test_settings_that_cannot_be() -> None:
    net = Net(1)
    for changes in ({"checkpoint_interval": 0}, {"log_window": 1, "checkpoint_interval": 2}, {"batch_items": 0}):
        net.parameters.update(changes)
        with pytest.raises(ValueError):
            net.nodes[0].boot()
        net.parameters.update({"checkpoint_interval": 64, "log_window": 128, "batch_items": 500})


def test_wrong_use() -> None:
    net = Net(1)
    replica: Replica = net.nodes[0].replica
    with pytest.raises(ValueError):
        replica.executed(1, [], bytes(32), net.now)
    assert isinstance(replica.tick(net.now), Ready) and Decision(1, None).batch is None
