"""Checks view changes against liars: false VIEW-CHANGEs, false NEW-VIEWs, and what the plan of a view is made of."""

import itertools
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.consensus import messages
from gateway.consensus.messages import (
    NULL_DIGEST,
    Checkpoint,
    NewView,
    Prepared,
    ViewChange,
    Vote,
    digest_of,
    encode_batch,
)
from gateway.consensus.types import Batch, Head
from gateway.consensus.viewchange import Evidence, plan_of
from tests.consensus.network import START, Net, item

DATA = encode_batch(Batch("trade", 0, START.label_ms // 1000, (b"x",)))
X = digest_of(DATA)
Y = digest_of(b"y")


def quiet_net() -> Net:
    net = Net(4, checkpoint_interval=2, log_window=4)
    net.run()
    return net


def certificate(net: Net, view: int = 0, n: int = 1, digest: bytes = X, primary: int | None = None,
                backups: tuple[int, ...] | None = None) -> Prepared:
    leader = view % 4 if primary is None else primary
    others = tuple(index for index in range(4) if index != view % 4)[:2] if backups is None else backups
    return Prepared(net.signed(leader, Vote(messages.PRE_PREPARE, view, n, digest, leader)),
                    tuple(net.signed(index, Vote(messages.PREPARE, view, n, digest, index)) for index in others))


def checkpoint(net: Net, n: int, sender: int, root: bytes = bytes(32)) -> bytes:
    return net.signed(sender, Checkpoint(n, root, (Head("trade", n, bytes(32)),), sender))


def change(net: Net, sender: int, *prepared: Prepared, view: int = 1, low: int = 0, proof: tuple[bytes, ...] = (),
           epoch: int = 0) -> bytes:
    return net.signed(sender, ViewChange(view, low, proof, prepared, sender), epoch)


def order(net: Net, *digests: bytes, view: int = 1, low: int = 0, sender: int = 1) -> tuple[bytes, ...]:
    return tuple(net.signed(sender, Vote(messages.PRE_PREPARE, view, low + 1 + at, digest, sender))
                 for at, digest in enumerate(digests))


def new_view(net: Net, changes: tuple[bytes, ...], pre_prepares: tuple[bytes, ...], view: int = 1,
             sender: int = 1) -> bytes:
    return net.forge(sender, NewView(view, changes, pre_prepares, sender))


def test_true_new_view_is_entered_by_one_that_had_not_stopped() -> None:
    net = quiet_net()
    changes = (change(net, 0), change(net, 1, certificate(net)), change(net, 2))
    net.give(3, new_view(net, changes, order(net, X)))
    replica = net.nodes[3].replica
    assert (replica.view, replica.active, replica.refused) == (1, True, {})
    assert [name for sender, _, name, _ in net.queue if sender == 3] == ["FETCH"]


FALSE_NEW_VIEWS: dict[str, tuple[Callable[[Net], bytes], str]] = {
    "wrong O": (lambda net: new_view(
        net, (change(net, 0), change(net, 1, certificate(net)), change(net, 2)), order(net, Y)), "wrong_digest"),
    "NULL in place of what prepared": (lambda net: new_view(
        net, (change(net, 0), change(net, 1, certificate(net)), change(net, 2)), order(net, NULL_DIGEST)),
        "wrong_digest"),
    "O too short": (lambda net: new_view(
        net, (change(net, 0), change(net, 1, certificate(net)), change(net, 2)), ()), "wrong_proof"),
    "O too long": (lambda net: new_view(
        net, (change(net, 0), change(net, 1), change(net, 2)), order(net, X)), "wrong_proof"),
    "O signed by another": (lambda net: new_view(
        net, (change(net, 0), change(net, 1, certificate(net)), change(net, 2)), order(net, X, sender=2)),
        "wrong_digest"),
    "V one short": (lambda net: new_view(net, (change(net, 0), change(net, 1)), ()), "too_few_signers"),
    "one VIEW-CHANGE twice": (lambda net: new_view(
        net, (change(net, 0), change(net, 0), change(net, 1)), ()), "duplicate_signer"),
    "V out of order": (lambda net: new_view(
        net, (change(net, 1), change(net, 0), change(net, 2)), ()), "duplicate_signer"),
    "VIEW-CHANGE for another view": (lambda net: new_view(
        net, (change(net, 0), change(net, 1), change(net, 2, view=2)), ()), "wrong_view"),
    "VIEW-CHANGE of another epoch": (lambda net: new_view(
        net, (change(net, 0), change(net, 1), change(net, 2, epoch=1)), ()), "wrong_epoch"),
    "not a VIEW-CHANGE": (lambda net: new_view(
        net, (change(net, 0), change(net, 1), order(net, X, sender=2)[0]), ()), "wrong_proof"),
    "not its turn": (lambda net: new_view(
        net, (change(net, 0), change(net, 1), change(net, 2)), (), sender=2), "not_permitted"),
    "low mark without proof": (lambda net: new_view(
        net, (change(net, 0), change(net, 1), change(net, 2, low=2)), ()), "too_few_signers"),
    "low mark proven by one twice": (lambda net: new_view(
        net, (change(net, 0), change(net, 1), change(net, 2, low=2, proof=(
            checkpoint(net, 2, 0), checkpoint(net, 2, 0), checkpoint(net, 2, 1)))), ()), "duplicate_signer"),
    "low mark proven for other states": (lambda net: new_view(
        net, (change(net, 0), change(net, 1), change(net, 2, low=2, proof=(
            checkpoint(net, 2, 0), checkpoint(net, 2, 1), checkpoint(net, 2, 2, bytes(31) + b"\x01")))), ()),
        "wrong_state"),
    "low mark proven for another n": (lambda net: new_view(
        net, (change(net, 0), change(net, 1), change(net, 2, low=2, proof=tuple(
            checkpoint(net, 4, index) for index in (0, 1, 2)))), ()), "wrong_proof"),
}


@pytest.mark.parametrize("name", FALSE_NEW_VIEWS)
def test_false_new_view_is_refused(name: str) -> None:
    make, reason = FALSE_NEW_VIEWS[name]
    net = quiet_net()
    net.give(3, make(net))
    replica = net.nodes[3].replica
    assert replica.refused == {reason: 1}
    assert (replica.view, replica.active) == (0, True)


FALSE_CERTIFICATES: dict[str, tuple[Callable[[Net], Prepared], str]] = {
    "one PREPARE short": (lambda net: certificate(net, backups=(1,)), "too_few_signers"),
    "one PREPARE twice": (lambda net: certificate(net, backups=(1, 1)), "duplicate_signer"),
    "PREPARE of the primary": (lambda net: certificate(net, backups=(0, 1)), "wrong_proof"),
    "PRE-PREPARE of a backup": (lambda net: certificate(net, primary=2), "wrong_proof"),
    "of the view that it asks for": (lambda net: certificate(net, view=1), "wrong_view"),
    "of a later view": (lambda net: certificate(net, view=5), "wrong_view"),
    "beyond the window": (lambda net: certificate(net, n=5), "outside_window"),
    "PREPAREs for another batch": (lambda net: Prepared(
        certificate(net).pre_prepare, certificate(net, digest=Y).prepares), "wrong_proof"),
    "PREPAREs of another view": (lambda net: Prepared(
        certificate(net).pre_prepare, certificate(net, view=4).prepares), "wrong_proof"),
    "COMMITs for PREPAREs": (lambda net: Prepared(certificate(net).pre_prepare, tuple(
        net.signed(index, Vote(messages.COMMIT, 0, 1, X, index)) for index in (1, 2))), "wrong_proof"),
}


@pytest.mark.parametrize("name", FALSE_CERTIFICATES)
def test_false_certificate_is_no_part_of_a_new_view(name: str) -> None:
    """Neither as a backup, that refuses the NEW-VIEW, nor as the primary, that leaves the VIEW-CHANGE out of V."""
    make, reason = FALSE_CERTIFICATES[name]
    net = quiet_net()
    false = change(net, 2, make(net))
    net.give(3, new_view(net, (change(net, 0), change(net, 1), false), order(net, X)))
    assert net.nodes[3].replica.refused == {reason: 1} and net.nodes[3].replica.view == 0
    leader = net.nodes[1]
    for signed in (change(net, 0), false):
        net.give(1, messages.frame(signed))
    assert leader.replica.refused == {reason: 1} and not leader.replica.active
    net.give(1, messages.frame(change(net, 3)))
    assert leader.replica.active and leader.replica.view == 1


def test_one_n_twice_in_p_is_refused() -> None:
    net = quiet_net()
    net.give(3, new_view(net, (change(net, 0), change(net, 1), change(
        net, 2, certificate(net), certificate(net))), order(net, X)))
    assert net.nodes[3].replica.refused == {"outside_window": 1}


def test_low_mark_above_the_own_one() -> None:
    """min_s is proven beyond what member 3 has: it adopts it, asks for the blocks, and takes part above it."""
    net = quiet_net()
    net.stop(3)
    for name in "abcd":
        net.nodes[0].submit(item(name))
        net.run()
    net.nodes[3].is_up = True
    source = net.nodes[0]
    assert source.replica.low == 4
    proof = tuple(net.signed(index, Checkpoint(4, source.ledger.root, (source.ledger.heads[4],), index))
                  for index in (0, 1, 2))
    data = encode_batch(Batch("trade", 0, START.label_ms // 1000, (b"e",)))
    changes = tuple(change(net, index, *([certificate(net, n=5, digest=digest_of(data))] if index == 2 else []),
                           low=4, proof=proof) for index in (0, 1, 2))
    net.give(3, new_view(net, changes, order(net, digest_of(data), low=4)))
    late = net.nodes[3]
    assert (late.replica.view, late.replica.low, late.behinds[-1].n) == (1, 4, 4)
    net.give(3, net.forge(2, messages.Data(data, (), 2)))
    assert [name for sender, _, name, _ in net.queue if sender == 3][-3:] == ["PREPARE"] * 3
    late.install()
    assert late.ledger.n == 4


def test_view_changes_of_f_liars_move_nobody_and_only_the_highest_is_kept() -> None:
    net = quiet_net()
    for view in itertools.chain(range(1, 40), [10**6, 5]):
        net.give(0, messages.frame(change(net, 3, view=view)))
    replica = net.nodes[0].replica
    assert (replica.view, replica.active) == (0, True)
    net.give(0, messages.frame(change(net, 2, view=7)))
    assert (replica.view, replica.active) == (7, False), "f + 1 = 2 have left for views above: the smallest is joined"


def test_oversize_view_change_is_refused_before_its_signature() -> None:
    net = quiet_net()
    frame = bytearray(messages.frame(change(net, 2, *[certificate(net)] * 60)))
    frame[-1] ^= 1
    net.give(3, bytes(frame))
    assert net.nodes[3].replica.refused == {"oversize": 1}


def test_stopped_replica_does_not_vote() -> None:
    net = quiet_net()
    for sender in (2, 3):
        net.give(1, messages.frame(change(net, sender, view=2)))
    assert not net.nodes[1].replica.active
    net.queue.clear()
    net.give(1, net.forge(0, Vote(messages.PRE_PREPARE, 0, 1, X, 0), DATA))
    assert not [name for _, _, name, _ in net.queue if name in ("PREPARE", "COMMIT")]


def test_votes_that_came_before_their_view_are_used_in_it() -> None:
    """PREPAREs for view 1 overtake its NEW-VIEW: they are kept, boundedly, and count once it is there."""
    net = quiet_net()
    for sender in (2, 0):
        net.give(3, net.forge(sender, Vote(messages.PREPARE, 1, 1, NULL_DIGEST, sender)))
    changes = (change(net, 0), change(net, 1), change(net, 2, certificate(net, n=2, digest=NULL_DIGEST)))
    net.give(3, new_view(net, changes, order(net, NULL_DIGEST, NULL_DIGEST)))
    names = [name for sender, to, name, _ in net.queue if sender == 3 and to == 0]
    assert names.count("PREPARE") == 2 and names.count("COMMIT") == 1


rows = st.lists(st.tuples(st.integers(1, 6), st.integers(0, 3)), max_size=6, unique_by=lambda row: row[0])


@given(st.lists(st.tuples(st.sampled_from([0, 2]), rows), min_size=3, max_size=4))
def test_plan_by_definition(shown: list[tuple[int, list[tuple[int, int]]]]) -> None:
    """O against pbft.md 3.6 read literally; the digest stands for (n, view), as Fact A says it does."""
    evidence = [Evidence(low, None, tuple((n, view, b"%d %d" % (n, view)) for n, view in sorted(found) if n > low))
                for low, found in shown]
    plan = plan_of(evidence)
    min_s = max(low for low, _ in shown)
    every = [(n, view) for low, found in shown for n, view in found if n > min_s]
    max_s = max([n for n, _ in every], default=min_s)
    expected = []
    for n in range(min_s + 1, max_s + 1):
        views = [view for at, view in every if at == n]
        expected.append((n, b"%d %d" % (n, max(views)) if views else NULL_DIGEST))
    assert (plan.low, list(plan.order)) == (min_s, expected)
