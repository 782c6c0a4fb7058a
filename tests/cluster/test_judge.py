"""Shows the judge evidence that breaks an invariant, one by one: each must be told by its number."""

import hashlib
from collections.abc import Callable

import pytest

from firmware.wire import cbor
from gateway.consensus import durable, messages
from gateway.consensus.log import Slot
from gateway.consensus.votes import Tally
from tests.cluster import invariants, validity
from tests.cluster.disk import VotesFile
from tests.cluster.judge import Judge, Violation, quorum
from tests.cluster.ledger import Ledger
from tests.cluster.speech import NULL, hear_signed
from tests.cluster.workload import identify, item_of_request, make_item
from tests.cluster.world import World


@pytest.fixture
def world() -> World:
    """Four honest members, nothing said yet."""
    for seed in range(100):
        world = World(seed)
        if not world.profile.liars:
            return world
    raise AssertionError("no seed without liars")


def _batch(world: World, *numbers: int) -> object:
    from gateway.consensus.types import Batch

    world.chance.seed(1)
    items = [make_item(world.chance, number, 1.0).data for number in numbers]
    return Batch("trade", 0, world.created_s + 1, tuple(items))


def _broken(number: int, action: Callable[[], object]) -> str:
    with pytest.raises(Violation) as raised:
        action()
    assert raised.value.number == number, str(raised.value)
    return str(raised.value)


def _sign(world: World, index: int, fields: list) -> bytes:
    return world.keys_of(index).sign("pbft", cbor.encode(fields))


def test_quorum_is_the_formula_of_the_specification() -> None:
    assert [quorum(n) for n in range(4, 14)] == [3, 4, 4, 5, 6, 6, 7, 8, 8, 9]
    assert [quorum(n) for n in (1, 2, 3)] == [1, 2, 2]


def test_1_two_batches_at_one_n(world: World) -> None:
    first, second = world.machines[:2]
    invariants.check_agreement(world.judge, first, 1, first.ledger.execute(1, _batch(world, 1)))
    block = second.ledger.execute(1, _batch(world, 2))
    told = _broken(1, lambda: invariants.check_agreement(world.judge, second, 1, block))
    assert f"seed {world.seed}" in told and "machine 1" in told


def test_1_null_against_a_batch(world: World) -> None:
    first, second = world.machines[:2]
    invariants.check_agreement(world.judge, first, 1, first.ledger.execute(1, None))
    block = second.ledger.execute(1, _batch(world, 2))
    _broken(1, lambda: invariants.check_agreement(world.judge, second, 1, block))


def test_2_two_roots_at_one_height(world: World) -> None:
    machine = world.machines[0]
    block = machine.ledger.execute(1, _batch(world, 1))
    assert block is not None
    invariants.check_root(world.judge, machine, block)
    _broken(2, lambda: invariants.check_root(world.judge, machine, block._replace(state_root=bytes(32))))


def test_3_a_gap_and_a_fall(world: World) -> None:
    _broken(3, lambda: invariants.check_prefix(world.judge, world.machines[0], 2))
    world.judge.records[1].n = 5
    _broken(3, lambda: invariants.check_not_fallen(world.judge, world.machines[1]))


def _vote(world: World, kind: int, sender: int, view: int, n: int, digest: bytes) -> bytes:
    return b"p" + _sign(world, sender, [kind, 0, view, n, digest, sender])


def _commit_null(world: World, sender: int) -> None:
    """A COMMIT of NULL at n 1 that the sender's disk holds."""
    commit = _vote(world, messages.COMMIT, sender, 0, 1, NULL)[1:]
    world.judge.on_synced(world.machines[sender], [durable.prepared(1, messages.Prepared(b"", ()), commit)])


def test_5_and_6_and_7_a_vote_without_its_reasons(world: World) -> None:
    judge, machine = world.judge, world.machines[2]
    digest, other = hashlib.sha256(b"1").digest(), hashlib.sha256(b"2").digest()
    prepare = _vote(world, messages.PREPARE, 2, 0, 1, digest)
    _broken(6, lambda: judge.on_sent(machine, prepare))  # nothing is on disk
    judge.on_sent(machine, prepare)  # said before: only conflicts count now
    _broken(5, lambda: judge.on_sent(machine, _vote(world, messages.PREPARE, 2, 0, 1, other)))
    judge.records[2].durable.add(("commit", 0, 1, digest))
    commit = _vote(world, messages.COMMIT, 2, 0, 1, digest)
    _broken(7, lambda: judge.on_sent(machine, commit))


def test_7_an_execution_without_commits(world: World) -> None:
    machine = world.machines[0]
    for sender in (0, 1):
        _commit_null(world, sender)
    _broken(7, lambda: world.judge.on_executed(machine, 1, machine.ledger.execute(1, None)))


def test_4_a_new_view_that_forgets_what_was_committed(world: World) -> None:
    for sender in (0, 1, 2):
        _commit_null(world, sender)
    machine = world.machines[0]
    world.judge.on_executed(machine, 1, machine.ledger.execute(1, None))
    changes = [_sign(world, sender, [messages.VIEW_CHANGE, 0, 1, 0, [], [], sender]) for sender in (1, 2, 3)]
    _broken(4, lambda: _sign(world, 1, [messages.NEW_VIEW, 0, 1, changes, [], 1]))


def test_8_two_headers_with_q_votes(world: World) -> None:
    def vote(sender: int, header_hash: bytes) -> None:
        signed = world.keys_of(sender).sign("header", cbor.encode([0, "trade", 1, header_hash]))
        world.judge.on_synced(world.machines[sender], [durable.header_vote(signed)])

    first, second = bytes(32), bytes(31) + b"1"
    for sender, header_hash in ((0, first), (1, first), (2, first), (1, second), (2, second)):
        vote(sender, header_hash)
    _broken(8, lambda: vote(3, second))


def test_12_an_item_that_changes_the_state_twice(world: World) -> None:
    machine = world.machines[0]
    block = machine.ledger.execute(1, _batch(world, 1))
    assert block is not None
    invariants.check_exactly_once(world.judge, machine, block)
    again = block._replace(height=2, answers=((2, 0),))
    _broken(12, lambda: invariants.check_exactly_once(world.judge, machine, again))


def test_12_the_ledger_answers_a_repeat_with_the_first_place(world: World) -> None:
    ledger = Ledger(identify, world.created_s)
    batch = _batch(world, 1, 1, 2)
    first, second = ledger.execute(1, batch), ledger.execute(2, batch)
    assert first is not None and second is not None
    assert first.answers == second.answers
    assert len({block.header_hash for block in ledger.blocks}) == 3


def test_a_new_view_with_a_repeated_signer_or_a_false_order_is_not_valid(world: World) -> None:
    rules, signed = world.judge.rules, world.judge.signed
    changes = [_sign(world, sender, [messages.VIEW_CHANGE, 0, 1, 0, [], [], sender]) for sender in (1, 2, 3)]

    def said(view_changes: list[bytes], order: list[bytes]) -> validity.Carried | None:
        payload = cbor.encode([messages.NEW_VIEW, 0, 1, view_changes, order, 1])
        signed.add(payload)
        told = hear_signed("pbft", payload)
        assert told is not None
        return validity.carried_by(told, rules, signed)

    element = _sign(world, 1, [messages.PRE_PREPARE, 0, 1, 1, NULL, 1])
    assert said(changes, []) == validity.Carried(1, 0, {})
    assert said(changes, [element]) is None
    assert said([changes[0], changes[0], changes[1]], []) is None
    assert said(changes[:2], []) is None


def test_the_highest_view_decides(world: World) -> None:
    low_digest, high_digest = hashlib.sha256(b"low").digest(), hashlib.sha256(b"high").digest()

    def certificate(view: int, digest: bytes) -> list:
        primary = view % 4
        first = _sign(world, primary, [messages.PRE_PREPARE, 0, view, 2, digest, primary])
        backups = [sender for sender in range(4) if sender != primary][:2]
        return [first, [_sign(world, sender, [messages.PREPARE, 0, view, 2, digest, sender]) for sender in backups]]

    shown = {0: [certificate(0, low_digest)], 1: [certificate(1, high_digest)], 3: []}
    changes = [_sign(world, sender, [messages.VIEW_CHANGE, 0, 2, 0, [], shown[sender], sender]) for sender in shown]
    told = [validity.view_change_of(change, world.judge.rules, world.judge.signed) for change in changes]
    assert validity.recompute(2, [change for change in told if change]).digests == {1: NULL, 2: high_digest}
    assert all(told)


def test_10_memory_without_an_end(world: World) -> None:
    machine = world.machines[0]
    machine.start()
    replica, window = machine.replica, world.parameters["log_window"]
    invariants.check_memory(world.judge, machine)

    def told(what: str) -> None:
        assert what in _broken(10, lambda: invariants.check_memory(world.judge, machine))

    slots = replica._log._slots
    slots.update({n: Slot(n) for n in range(1, window + 1)})
    invariants.check_memory(world.judge, machine)
    slots[1].commits = {sender: (NULL, b"") for sender in range(5)}
    told("5 members of a number")
    slots[window + 1] = slots.pop(1)
    told("numbers above")
    slots[1] = Slot(1)
    told("open numbers")
    slots.clear()
    replica._future[1] = [(1, b"")] * 129
    told("frames for later views")
    replica._future[1] = [(1, bytes(3 << 20))]
    told("their bytes")
    replica._future.clear()
    replica._checkpoints._held[2] = dict.fromkeys(range(5))
    told("5 CHECKPOINTs of a member")
    replica._checkpoints._held.clear()
    replica._header_votes._tallies["trade"].update({height: Tally() for height in range(5 * window + 1)})
    told("open heights")


def test_a_crash_keeps_what_was_synced_and_a_first_part_of_the_rest(world: World) -> None:
    kept = set()
    for _ in range(50):
        votes = VotesFile()
        votes.append([b"1", b"2"])
        votes.sync()
        votes.append([b"3", b"4"])
        votes.crash(world.chance)
        kept.add(tuple(votes.synced))
    assert kept == {(b"1", b"2"), (b"1", b"2", b"3"), (b"1", b"2", b"3", b"4")}


def test_a_request_gives_its_item_back(world: World) -> None:
    item = make_item(world.chance, 1, 0.5)
    assert item_of_request(item.request) == item
    assert item_of_request(item.request + b"x") is None
    assert item_of_request(b"noise") is None


def test_the_judge_needs_nothing_of_the_code_under_test_to_count(world: World) -> None:
    assert isinstance(world.judge, Judge)
    assert world.judge.quorum == 3
