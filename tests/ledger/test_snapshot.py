"""Checks that a state goes from one ledger to another bucket by bucket, that liars are found, and the chain goes on."""

import random

import pytest

from firmware.wire import header, state
from firmware.wire.errors import Refused
from gateway.ledger.history import state_at
from gateway.ledger.ledger import Ledger
from gateway.transfer import Transfer, answer, leaf_of
from tests.ledger.test_ledger import AGENTS, run
from tests.ledger.world import START_S, World

INTERVAL = 4
LIMIT = 1 << 20


def make(folder, world, name):
    return Ledger.open(folder / name, world.genesis)


@pytest.fixture
def world():
    return World(agents=AGENTS, parameters={"checkpoint_interval": INTERVAL, "log_window": 2 * INTERVAL})


def carry(giver, transfer, peers=(1,), tamper=lambda peer, rows: rows, limit=LIMIT):
    """All that is needed, from peers that hold the giver's newest checkpoint; how many answers it took."""
    frozen = giver.snapshots[max(giver.snapshots)].state
    answers = 0
    for peer in peers:
        transfer.take_leaves(peer, frozen.leaves)
    while not transfer.is_complete:
        asked = False
        for peer in peers:
            wanted = transfer.ask(peer)
            if wanted:
                asked = True
                answers += 1
                transfer.take_buckets(peer, tamper(peer, answer(frozen, wanted, limit)))
        assert asked, "nobody is left to ask"
    return answers


def take_over(giver, ledger, transfer):
    shot = giver.snapshots[max(giver.snapshots)]
    heads = [(channel, *ledger_head(data)) for channel, data in shot.headers]
    ledger.install_state(shot.n, shot.headers, heads, shot.state.root, transfer.pairs())


def ledger_head(header_bytes):
    return header.decode(header_bytes).height, header.hash_of(header_bytes)


def test_an_empty_ledger_takes_over_a_state_and_goes_on_as_the_others(tmp_path, world):
    giver, late = make(tmp_path, world, "giver"), make(tmp_path, world, "late")
    for minute in range(1, 9):
        run(giver, world, minute)
    transfer = Transfer(giver.snapshots[8].state.root, [1])
    carry(giver, transfer)
    kept = dict(transfer.pieces)
    after = run(giver, world, 9)  # the giver goes on meanwhile: what is frozen stands
    assert {index: data for index, data in kept.items()} == dict(transfer.pieces)
    take_over(giver, late, transfer)
    assert late.stand().heads == ((("trade", 8, late.stand().heads[0][2])),) and late.stand().serial == 8
    late.put_envelopes(after)
    late.execute(9, ("trade", 0, giver_time(giver, 9), [one.leaf for one in after]))
    assert late.stand().state_root == giver.stand().state_root and late.stand().heads == giver.stand().heads
    for minute in range(10, 30):
        for ledger in (giver, late):
            world_seals = run_both(ledger, world, minute)
        del world_seals
    late.check()
    late.close()
    again = Ledger.open(tmp_path / "late", world.genesis)
    again.check()
    assert again.stand().state_root == giver.stand().state_root
    assert state_at(again, "trade", 12).root() == state_at(giver, "trade", 12).root()
    with pytest.raises(ValueError):
        state_at(again, "trade", 8)
    assert again.header("trade", 8) == giver.header("trade", 8) and again.uncertified() == [9]
    assert again.blocks("trade", 7, 3, LIMIT) == [] and len(again.blocks("trade", 9, 3, LIMIT)) == 3


def giver_time(giver, height):
    return header.decode(giver.header("trade", height)).time_s


_made: dict = {}


def run_both(ledger, world, minute):
    """The same minute on two ledgers: seals are made once."""
    if (id(world), minute) not in _made:
        _made[id(world), minute] = [
            world.seal(name, point, giver_minute(minute) * 1000, 1000 + minute)
            for name, point in (("meter", 1), ("meter", 2), ("other", 3))]
    seals = _made[id(world), minute]
    ledger.put_envelopes(seals)
    outcome = ledger.execute(ledger.stand().n + 1, ("trade", 0, giver_minute(minute) + 1, [one.leaf for one in seals]))
    assert set(outcome.results) <= {0}, outcome.results
    ledger.put_certificate("trade", outcome.height, world.certificate(outcome.header))
    return seals


def giver_minute(minute):
    return START_S + 60 * minute


def test_a_ledger_that_is_behind_keeps_its_own_blocks_and_its_chains_go_on(tmp_path, world):
    giver, late = make(tmp_path, world, "giver"), make(tmp_path, world, "late")
    for minute in range(1, 4):
        for ledger in (giver, late):
            run_both(ledger, world, minute)
    for minute in range(4, 13):
        run_both(giver, world, minute)
    transfer = Transfer(giver.snapshots[12].state.root, [1])
    carry(giver, transfer)
    take_over(giver, late, transfer)
    for minute in range(13, 60):
        for ledger in (giver, late):
            run_both(ledger, world, minute)
    assert late.stand().state_root == giver.stand().state_root
    late.check()
    kid = world_kid(late, 1)
    heights = [found.seal.height for found in late.seals(kid, 1)]
    assert heights == [*range(59, 12, -1), 3, 2, 1]  # the gap is another replica's to tell
    assert late.place_of_seal(kid, 1, 8) is None and late.place_of_seal(kid, 1, 20) is not None
    assert late.find_reading(1, giver_minute(2) * 1000) is not None
    with pytest.raises(Refused, match="outside_window"):
        late.prove_reading(1, giver_minute(2) * 1000)
    assert late.prove_reading(1, giver_minute(50) * 1000) == giver.prove_reading(1, giver_minute(50) * 1000)


def world_kid(ledger, point):
    return ledger.point(point).agent


def test_a_liar_is_banned_named_and_its_share_asked_of_the_others(tmp_path, world):
    giver = make(tmp_path, world, "giver")
    for minute in range(1, 9):
        run(giver, world, minute)
    frozen = giver.snapshots[8].state
    chance = random.Random(7)
    seen: set[str] = set()
    for way in ("bit", "other", "unasked", "short"):
        transfer = Transfer(frozen.root, [1, 2])

        def tamper(peer, rows, way=way):
            if peer != 1 or not rows:
                return rows
            if way == "bit":
                index, data = rows[0]
                at = chance.randrange(len(data))
                return [[index, data[:at] + bytes((data[at] ^ 1,)) + data[at + 1:]], *rows[1:]]
            if way == "other":
                return [[rows[0][0], rows[-1][1]], *rows[1:]] if len(rows) > 1 else [[rows[0][0], b"\x80"]]
            if way == "unasked":
                return [*rows, [4095 if rows[0][0] != 4095 else 0, b"\x80"]]
            return []

        carry(giver, transfer, (1, 2), tamper)
        assert (1 in transfer.banned) == (way != "short"), way
        seen.update(transfer.banned.values())
        assert 2 not in transfer.banned
        assert {pair for pair in transfer.pairs()} == {pair for bucket in frozen.buckets for pair in bucket.items()}
    assert seen == {"wrong_state", "not_included"}
    false = Transfer(frozen.root, [1, 2])
    false.take_leaves(1, bytes(len(frozen.leaves)))
    assert false.banned == {1: "wrong_state"} and not false.has_leaves and false.ask(1) == ()


def test_pieces_of_a_transfer_that_was_cut_short_count_for_the_next_checkpoint(tmp_path, world):
    giver = make(tmp_path, world, "giver")
    for minute in range(1, 5):
        run(giver, world, minute)
    first = Transfer(giver.snapshots[4].state.root, [1])
    carry(giver, first)
    for minute in range(5, 9):
        run(giver, world, minute)
    second = Transfer(giver.snapshots[8].state.root, [1], {leaf_of(data): data for data in first.pieces.values()})
    second.take_leaves(1, giver.snapshots[8].state.leaves)
    fresh = set(second.ask(1))
    changed = {index for index in range(state.BUCKETS)
               if giver.snapshots[8].state.buckets[index] != giver.snapshots[4].state.buckets[index]}
    assert fresh == changed and changed


def test_a_wrong_root_or_head_installs_nothing(tmp_path, world):
    giver, late = make(tmp_path, world, "giver"), make(tmp_path, world, "late")
    for minute in range(1, 9):
        run(giver, world, minute)
    transfer = Transfer(giver.snapshots[8].state.root, [1])
    carry(giver, transfer)
    shot, before = giver.snapshots[8], late.stand()
    heads = [("trade", *ledger_head(shot.headers[0][1]))]
    with pytest.raises(Refused, match="wrong_state"):
        late.install_state(8, shot.headers, heads, shot.state.root, transfer.pairs()[1:])
    with pytest.raises(Refused, match="wrong_header"):
        late.install_state(8, [("trade", giver.header("trade", 7))], heads, shot.state.root, transfer.pairs())
    assert late.stand() == before
    late.check()
