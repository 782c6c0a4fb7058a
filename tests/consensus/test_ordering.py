"""Checks the normal case by table: what a backup takes and refuses, when a batch closes, what is counted."""

import pytest

from firmware.wire import certificate, cose
from firmware.wire.certificate import faults, quorum
from gateway.consensus import messages
from gateway.consensus.messages import NULL_DIGEST, Checkpoint, Data, Submit, Vote, digest_of, encode_batch
from gateway.consensus.types import Batch, Now
from tests.consensus.network import CHAIN_ID, START, Net, item

TIME_S = START.label_ms // 1000
DEFAULT = Batch("trade", 0, TIME_S, (b"x",))


def proposal(net: Net, batch: Batch = DEFAULT, n: int = 1, sender: int = 0, view: int = 0, digest: bytes = b"",
             epoch: int = 0) -> bytes:
    data = encode_batch(batch)
    vote = Vote(messages.PRE_PREPARE, view, n, digest or digest_of(data), sender)
    return net.forge(sender, vote, data, epoch)


def sent(net: Net, sender: int) -> list[str]:
    """Names of what a node has sent since the queue was emptied."""
    return [name for source, _, name, _ in net.queue if source == sender]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 6, 7, 8, 10, 13])
def test_every_size_agrees_and_certifies(size: int) -> None:
    net = Net(size)
    for name in "abc":
        for node in net.nodes:
            node.submit(item(name))
        net.run()
    assert net.leaves() == [b"a", b"b", b"c"]
    assert not any(node.replica.refused or node.alarms for node in net.nodes)
    for node in net.nodes:
        for height in (1, 2, 3):
            decoded = certificate.decode(node.certified[height])
            assert len(decoded.signers) == quorum(size) and decoded.header_hash == node.ledger.heads[height].header_hash


@pytest.mark.parametrize("size", [4, 5, 6, 7, 10])
def test_one_below_quorum_decides_nothing(size: int) -> None:
    """q - 1 live members prepare nothing beyond them; q do."""
    for live, done in ((quorum(size), 1), (quorum(size) - 1, 0)):
        net = Net(size)
        net.stop(*range(live, size))
        net.nodes[0].submit(item("a"))
        net.pass_time(1000)
        assert [node.ledger.n for node in net.nodes[:live]] == [done] * live
    assert size - faults(size) >= quorum(size)


def test_real_signatures_make_a_certificate_that_wire_checks() -> None:
    from firmware.crypto.openssl import OpenSSLSigner, verify_digest
    from firmware.wire.certificate import Member
    from firmware.wire.identity import kid_of
    from gateway.consensus.keys import CoseKeys
    from tests.cluster.keys import Keyring

    ring = Keyring(5, 4, True)
    assert isinstance(ring.signers[0], OpenSSLSigner) and isinstance(ring.members[0], Member)
    net = Net(4)
    net.ring = ring
    net.queue.clear()
    for node in net.nodes:
        node.keys._keys = net.keys(node.index)
        node.boot()
    net.nodes[0].submit(item("a"))
    net.run()
    head = net.nodes[2].ledger.heads[1]
    decoded = certificate.decode(net.nodes[2].certified[1])
    digest = cose.digest(certificate.vote_payload(0, "trade", 1, head.header_hash), "header", CHAIN_ID)
    assert [verify_digest(ring.members[signer].public_key, digest, signature)
            for signer, signature in zip(decoded.signers, decoded.signatures, strict=True)] == [True] * 3
    stranger = OpenSSLSigner.from_scalar(bytes(31) + b"\x07")
    assert kid_of(stranger.public_key()) not in [member.kid for member in ring.members]
    with pytest.raises(ValueError):
        CoseKeys(stranger, ring.members, CHAIN_ID, verify_digest)


@pytest.mark.parametrize("change, reason", [
    ({"sender": 2}, "not_permitted"),
    ({"epoch": 1}, "wrong_epoch"),
    ({"digest": bytes(32)}, "wrong_digest"),
    ({"digest": NULL_DIGEST}, "wrong_digest"),
    ({"batch": DEFAULT._replace(view=1)}, "wrong_view"),
    ({"batch": DEFAULT._replace(channel="dispatch")}, "wrong_channel"),
    ({"batch": DEFAULT._replace(time_s=TIME_S - 11)}, "wrong_time"),
    ({"batch": DEFAULT._replace(items=(b"x",) * 501)}, "oversize"),
    ({"batch": DEFAULT._replace(items=(bytes(200_000),) * 2)}, "oversize"),
])
def test_proposals_that_a_backup_refuses(change: dict, reason: str) -> None:
    net = Net(4)
    net.run()
    net.give(1, proposal(net, **change))
    assert net.nodes[1].replica.refused == {reason: 1}
    assert not sent(net, 1)


@pytest.mark.parametrize("time_s", [TIME_S - 10, TIME_S, TIME_S + 2])
def test_times_that_a_backup_takes(time_s: int) -> None:
    net = Net(4)
    net.run()
    net.give(1, proposal(net, DEFAULT._replace(time_s=time_s)))
    assert sent(net, 1) == ["PREPARE"] * 3


def test_early_proposal_waits_for_the_own_clock() -> None:
    net = Net(4)
    net.run()
    net.give(1, proposal(net, DEFAULT._replace(time_s=TIME_S + 3)))
    assert not sent(net, 1)
    label, _ = net.nodes[1].replica.wake()
    assert label == START.label_ms + 1000
    net.now = Now(label, net.now.wait_ms + 1)
    net.nodes[1].feed(lambda: net.nodes[1].replica.tick(net.now))
    assert sent(net, 1) == ["PREPARE"] * 3


def test_block_time_never_falls() -> None:
    net = Net(4)
    net.run()
    net.give(1, proposal(net, DEFAULT._replace(time_s=TIME_S + 1)))
    net.give(1, proposal(net, DEFAULT._replace(time_s=TIME_S, items=(b"y",)), n=2))
    assert net.nodes[1].replica.refused == {"wrong_time": 1}
    assert sent(net, 1) == ["PREPARE"] * 3


def test_no_holes_and_a_bounded_wait_for_what_fills_them() -> None:
    net = Net(4)
    net.run()
    for n in (3, 2, 100, 129):
        net.give(1, proposal(net, DEFAULT._replace(items=(b"%d" % n,)), n=n))
    assert not sent(net, 1) and net.nodes[1].replica.dropped == 2
    net.give(1, proposal(net))
    assert sent(net, 1) == ["PREPARE"] * 9


def test_empty_batch_only_when_due() -> None:
    net = Net(4)
    net.nodes[0].submit(item("a"))
    net.run()
    net.give(1, proposal(net, DEFAULT._replace(items=()), n=2))
    assert net.nodes[1].replica.refused == {"wrong_time": 1}


def test_bad_batch_is_counted_and_costs_the_leader_its_view() -> None:
    net = Net(4)
    for node in net.nodes[1:]:
        node.check = lambda batch: "bad_signature"
    net.nodes[0].submit(item("a"))
    net.run()
    assert all(node.replica.refused == {"bad_signature": 1} for node in net.nodes[1:])
    assert net.leaves() == []
    for node in net.nodes[1:]:
        node.check = lambda batch: None
    net.pass_time(2_600)
    assert net.views() == [1, 1, 1, 1]


def test_two_proposals_prove_the_leader_false() -> None:
    net = Net(4)
    net.run()
    net.give(1, proposal(net))
    net.give(1, proposal(net, DEFAULT._replace(items=(b"y",))))
    node = net.nodes[1]
    assert node.replica.refused == {"conflicting_vote": 1}
    assert len(node.replica.evidence) == 1 and "contradicts itself" in node.alarms[0]
    assert (node.replica.view, node.replica.active) == (1, False)


def test_two_votes_of_a_backup_are_evidence_and_count_once() -> None:
    net = Net(4)
    net.run()
    for digest in (bytes(32), bytes(31) + b"\x01"):
        net.give(1, net.forge(2, Vote(messages.PREPARE, 0, 1, digest, 2)))
    net.give(1, net.forge(2, Vote(messages.PREPARE, 0, 1, bytes(32), 2)))
    assert net.nodes[1].replica.refused == {"conflicting_vote": 1} and len(net.nodes[1].replica.evidence) == 1


def test_the_primary_sends_no_prepare_and_none_of_it_counts() -> None:
    net = Net(4)
    net.run()
    data = encode_batch(DEFAULT)
    net.give(1, proposal(net))
    net.queue.clear()
    net.give(1, net.forge(0, Vote(messages.PREPARE, 0, 1, digest_of(data), 0)))
    assert net.nodes[1].replica.refused == {"not_permitted": 1} and not sent(net, 1)
    net.give(1, net.forge(2, Vote(messages.PREPARE, 0, 1, digest_of(data), 2)))
    assert sent(net, 1) == ["COMMIT"] * 3


def test_own_name_on_a_foreign_message_is_nothing() -> None:
    net = Net(4)
    net.run()
    net.give(1, proposal(net))
    net.queue.clear()
    vote = Vote(messages.PREPARE, 0, 1, digest_of(encode_batch(DEFAULT)), 3)
    net.give(1, messages.frame(net.keys(2).sign("pbft", messages.encode(vote, 0))))
    assert net.nodes[1].replica.refused == {"wrong_key": 1} and not sent(net, 1)


def test_late_votes_cost_no_signature_check() -> None:
    """Votes for slots that are past or beyond the window are dropped unread: their signatures here are wrong."""
    net = Net(4, checkpoint_interval=2, log_window=4)
    for name in "ab":
        net.nodes[0].submit(item(name))
        net.run()
    replica = net.nodes[1].replica
    assert replica.low == 2
    before = replica.dropped
    for n in (1, 2, 7):
        frame = bytearray(net.forge(2, Vote(messages.COMMIT, 0, n, bytes(32), 2)))
        frame[-1] ^= 1
        net.give(1, bytes(frame))
    assert replica.dropped == before + 3 and not replica.refused


def test_decision_by_commits_alone() -> None:
    """Member 3's clock is a minute ahead: it refuses to vote, and still learns from q COMMITs what was decided."""
    net = Net(4)
    net.run()
    slow = net.nodes[3]
    real = slow.replica.receive
    slow.replica.receive = lambda data, now: real(data, Now(now.label_ms + 60_000, now.wait_ms))  # type: ignore[method-assign]
    net.nodes[0].submit(item("a"))
    net.run()
    assert slow.replica.refused == {"wrong_time": 1}
    assert net.leaves() == [b"a"] and net.views() == [0] * 4


def test_depth_bounds_what_runs_ahead() -> None:
    net = Net(1, depth=3)
    node = net.nodes[0]
    node.do_execute = False
    for k in range(6):
        node.submit(item(str(k)))
        net.pass_time(10)
    assert [decision.n for decision in node.decisions] == [1, 2, 3]
    assert node.replica.in_flight == 0 and node.replica.pending == 6


def test_after_a_checkpoint_decisions_wait_for_it() -> None:
    net = Net(1, checkpoint_interval=2, log_window=4)
    node = net.nodes[0]
    node.do_execute = False
    for k in range(4):
        node.submit(item(str(k)))
        net.pass_time(10)
    assert [decision.n for decision in node.decisions] == [1, 2]
    node.do_execute = True
    node.work()
    assert node.ledger.n == 4 and node.replica.low == 4


def test_wrong_checkpoints_of_a_liar_move_nobody() -> None:
    net = Net(4, checkpoint_interval=2, log_window=4)
    net.run()
    for n, reason in ((2, None), (4, None), (1000, None), (3, "outside_window")):
        net.give(1, net.forge(3, Checkpoint(n, bytes(32), (), 3)))
        assert net.nodes[1].replica.refused == ({reason: 1} if reason else {})
    for name in "ab":
        net.nodes[0].submit(item(name))
        net.run()
    assert [node.replica.low for node in net.nodes] == [2] * 4


def test_own_state_that_differs_stops_voting() -> None:
    net = Net(4, checkpoint_interval=2, log_window=4)
    wrong = net.nodes[3]
    wrong.ledger.root = bytes(31) + b"\x09"
    for name in "abc":
        net.nodes[0].submit(item(name))
        net.run()
    assert wrong.replica.is_halted and "stopped voting" in wrong.alarms[-1]
    net.queue.clear()
    net.nodes[0].submit(item("d"))
    net.run()
    assert not any(sender == 3 for sender, _, name in net.heard[-20:] if name in ("PREPARE", "COMMIT"))
    assert net.nodes[0].ledger.n == 4


def test_missing_batch_is_asked_for_and_proven_by_its_digest() -> None:
    net = Net(4)
    net.cut = lambda sender, to, name: to == 3 and name in ("PRE-PREPARE", "DATA")
    net.nodes[0].submit(item("a"))
    net.run()
    assert net.nodes[3].ledger.n == 0
    false = net.forge(2, Data(encode_batch(DEFAULT), (), 2))
    net.give(3, false)
    assert net.nodes[3].ledger.n == 0
    net.cut = lambda sender, to, name: False
    net.pass_time(150)
    assert net.nodes[3].ledger.n == 1 and {(3, 0, "FETCH"), (3, 1, "FETCH")} <= set(net.heard)


def test_flood_of_requests_is_refused_as_busy() -> None:
    net = Net(4)
    net.run()
    for k in range(149):  # its STATUS at the start was the first of the hundred
        net.give(1, net.forge(3, Submit((b"request %d" % k,), 3)))
    assert net.nodes[1].replica.refused == {"busy": 50}
    net.now = Now(net.now.label_ms + 1000, net.now.wait_ms + 1000)
    net.give(1, net.forge(3, Submit((b"request again",), 3)))
    assert net.nodes[1].replica.refused == {"busy": 50}


def test_behind_until_installed() -> None:
    """The holders' proof, the heads; asked for again while nobody answers; no vote is lost meanwhile."""
    net = Net(4, checkpoint_interval=2, log_window=4)
    net.stop(3)
    for name in "abcdefgh":
        net.nodes[0].submit(item(name))
        net.run()
    net.nodes[3].restart()
    net.pass_time(1_000)
    late = net.nodes[3]
    assert late.behinds[-1].n == 8 and late.behinds[-1].heads == (net.nodes[0].ledger.heads[8],)
    assert late.behinds[-1].holders and 3 not in late.behinds[-1].holders
    count = len(late.behinds)
    net.pass_time(11_000)
    assert len(late.behinds) == count + 1
    net.nodes[0].submit(item("i"))
    net.run()
    assert (3, 0, "PREPARE") in net.heard and late.ledger.n == 0
    late.install()
    net.run()
    assert late.ledger.n == 9 and late.ledger.root == net.nodes[0].ledger.root
    late.restart()
    net.run()
    assert late.ledger.n == 9
