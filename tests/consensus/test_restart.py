"""Checks that a replica may die between any two duties and at any record of its votes log: nothing promised is lost.

Each seam of a run with checkpoints and a view change is taken once: before and after each record, each send, each
execution. `Watched` keys fail the test when two lives of a member sign what contradicts; the ledgers must agree.
"""

from collections import Counter

import pytest

from gateway.consensus import durable, messages
from gateway.consensus.guard import WouldContradict
from gateway.consensus.messages import Checkpoint, NewView, ViewChange, Vote
from gateway.consensus.replica import Replica
from gateway.consensus.types import Batch, Decision, Head, Ready
from tests.consensus.network import Ledger, Net, Node, Watched, item

OTHER = bytes(31) + b"\x07"
SMALL = {"checkpoint_interval": 2, "log_window": 4}
LONG = {"checkpoint_interval": 64, "log_window": 128}  # no checkpoint in these stories: the log has all of it


def run_with(victim: int, fuse: int | None, seed: int = 1, parameters: dict[str, int] = SMALL) -> Net:
    """Blocks, a dead leader, more blocks, the leader back; `victim` dies after so many seams."""
    net = Net(4, seed=seed, **parameters)
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


def promises_in(net: Net, index: int, votes: list[bytes]) -> list[messages.Message | Head]:
    """All that a member has said by these records, the PRE-PREPAREs of a NEW-VIEW's O among it."""
    said: list[messages.Message | Head] = []

    def note(signed: bytes | None) -> None:
        if signed is not None and net.opener.peek(signed).sender == index:
            said.append(net.opener.peek(signed))

    for kind, fields in durable.read(votes):
        if kind == durable.HEADER_VOTE:
            said.append(net.opener.peek_header(fields[0])[0])
        elif kind in (durable.ACCEPTED, durable.PREPARED):
            note(fields[0] if kind == durable.ACCEPTED else None)
            note(fields[2])
        elif kind in (durable.CHECKPOINT, durable.STOPPED, durable.ACTIVE):
            note(fields[0])
    return said


def contrary(said: messages.Message | Head) -> messages.Message | Head:
    """The same place with other content."""
    if isinstance(said, Vote):
        return said._replace(digest=OTHER)
    if isinstance(said, Checkpoint):
        return said._replace(state_root=OTHER)
    if isinstance(said, ViewChange):
        return said._replace(low=said.low + 1)
    if isinstance(said, NewView):
        return said._replace(pre_prepares=(b"another",))
    assert isinstance(said, Head)
    return said._replace(header_hash=OTHER)


def place_of(said: messages.Message | Head) -> tuple:
    return said[:3] if isinstance(said, Vote) else (type(said), *said[:2])


@pytest.mark.parametrize("parameters", [SMALL, LONG])
@pytest.mark.parametrize("index", [0, 1, 2])
def test_every_prefix_of_the_log_is_a_memory(index: int, parameters: dict[str, int]) -> None:
    """A torn tail: any first part of the records is read, whatever it ends with, and what it promises binds. The guard
    refuses the contrary of each promise in it; a primary that proposes another batch at a number that was voted for
    gets no second vote, on a disk whose ledger has lost everything."""
    net = run_with(1 if index else 0, None, parameters=parameters)
    node = net.nodes[index]
    seen: Counter[str] = Counter()
    logs = [*node.old_votes, node.votes]
    for votes in [log[:count] for log in logs for count in range(len(log) + 1)]:
        node.votes, node.ledger, node.keys = votes, Ledger(), Watched(net.keys(index))
        said = promises_in(net, index, node.votes)
        node.boot()
        net.queue.clear()
        mail, low = node.replica._mail, node.replica.low
        for one in said:
            if isinstance(one, Checkpoint) and one.n < low:
                continue  # proven and past: it is never asked for again
            seen[type(one).__name__] += 1
            other = contrary(one)
            with pytest.raises(WouldContradict):
                mail.sign_header(other) if isinstance(other, Head) else mail.sign(other)
        if node.replica.view:  # it has left the views below, at every number
            with pytest.raises(WouldContradict):
                mail.sign(Vote(messages.COMMIT, node.replica.view - 1, node.replica._log.high, OTHER, index))
        for vote in [one for one in said if isinstance(one, Vote) and one.type != messages.COMMIT]:
            seen["rivals"] += propose_rival(net, node, vote)
        promised = {place_of(one): one for one in said if isinstance(one, Vote)}
        for _, _, _, frame in net.queue:
            spoken = net.opener.peek(messages.open_frame(frame)[0]) if frame[:1] != b"h" else None
            assert not isinstance(spoken, Vote) or promised.get(place_of(spoken), spoken) == spoken, votes
    expected = {"Head": 20, "Vote": 25, "rivals": 1}
    expected |= {"Checkpoint": 1} if parameters is SMALL else {"ViewChange": index, "NewView": index == 1}
    assert all(seen[name] >= count for name, count in expected.items()), seen


def propose_rival(net: Net, node: Node, vote: Vote) -> bool:
    """Another batch where `vote` was given, with the votes of all others for it; False where nobody could propose it:
    that view is over here, or the node is its primary."""
    primary = vote.view % net.size
    if primary == node.index or vote.view != node.replica.view or not node.replica.active:
        return False
    batch = messages.encode_batch(Batch("trade", vote.view, net.now.label_ms // 1000, (b"rival",)))
    rival = vote._replace(type=messages.PRE_PREPARE, digest=messages.digest_of(batch), sender=primary)
    net.give(node.index, net.forge(primary, rival, batch))
    for other in range(net.size):
        if other not in (primary, node.index):
            net.give(node.index, net.forge(other, rival._replace(type=messages.PREPARE, sender=other)))
    return True


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
