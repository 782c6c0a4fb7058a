"""The order of seals: each case by hand, then any order of arrival with losses, repetitions and blocks in between."""

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware.wire import seal
from firmware.wire.seal import Seal
from firmware.wire.state import ChainRecord
from gateway.ingest import chains as chains_module
from gateway.ingest.chains import Chains, Verdict
from gateway.ingest.verify import VerifiedSeal
from tests.ingest.parts import START_MS

KID = bytes(range(8))


def verified(height: int, previous: bytes = bytes(32), point: int = 7, **changes: Any) -> VerifiedSeal:
    """A seal as verify would hand it over; its signature is of no interest here."""
    made = Seal(1, KID, point, 1, height, 0, previous, bytes(32), 1, START_MS, START_MS, 5, 6, 1, 2, bytes(32),
                bytes(32))._replace(**changes)
    payload = seal.encode(made)
    return VerifiedSeal(b"leaf" + payload, payload, seal.payload_hash(payload), made, [b"a reading"])


def chain(count: int, losses: dict[int, int] | None = None, **changes: Any) -> list[VerifiedSeal]:
    """Seals that follow each other; losses: {place in the list: heights lost before it}."""
    made: list[VerifiedSeal] = []
    height, previous = 0, bytes(32)
    for at in range(count):
        lost = (losses or {}).get(at, 0)
        height += 1 + lost
        made.append(verified(height, bytes(32) if lost else previous, lost=lost, **changes))
        previous = made[-1].payload_hash
    return made


class Ledger:
    """What blocks have taken."""

    def __init__(self) -> None:
        self.taken: dict[int, VerifiedSeal] = {}

    def record(self, kid: bytes, point: int) -> ChainRecord | None:
        if not self.taken:
            return None
        tip = self.taken[max(self.taken)]
        return ChainRecord(tip.seal.height, tip.payload_hash, 1, START_MS, 0, 0, 1, 0, 0)

    def hash_at(self, kid: bytes, point: int, height: int) -> bytes | None:
        return self.taken[height].payload_hash if height in self.taken else None

    def take(self, made: Chains, *items: VerifiedSeal) -> list[bytes]:
        given_up: list[bytes] = []
        for item in items:
            self.taken[item.seal.height] = item
            given_up += made.committed(KID, 7, item.seal.height, item.payload_hash).given_up
        return given_up


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture
def chains(ledger: Ledger) -> Chains:
    return Chains(ledger.record, ledger.hash_at)


def reason(placed: chains_module.Placed) -> str:
    assert placed.verdict is Verdict.REFUSED and placed.refusal is not None
    return placed.refusal.reason


def test_in_order(chains: Chains) -> None:
    for item in chain(5):
        assert chains.place(item) == (Verdict.NEXT, (item,), None, None, ())
    assert chains.counts() == (5, 0)


def test_a_gap_is_held_asked_for_and_filled(chains: Chains) -> None:
    items = chain(6)
    chains.place(items[0])
    assert chains.place(items[3]) == (Verdict.HELD, (), (2, 3), None, ())
    assert chains.place(items[5]).wanted == (2, 3)
    assert chains.place(items[1]).wanted == (3, 3)
    placed = chains.place(items[2])
    assert placed.ready == (items[2], items[3])
    assert placed.wanted == (5, 5)
    assert chains.place(items[4]).ready == (items[4], items[5])
    assert chains.wanted(KID, 7) is None


def test_a_declared_loss_closes_its_hole_and_no_more(chains: Chains) -> None:
    items = chain(3, {1: 4, 2: 2})
    assert [item.seal.height for item in items] == [1, 6, 9]
    assert chains.place(items[2]).wanted == (1, 6)
    assert chains.place(items[0]).wanted == (2, 6)
    assert chains.place(items[1]).ready == (items[1], items[2])
    assert reason(chains.place(verified(4, items[0].payload_hash))) == "wrong_height"


def test_a_known_height_cannot_be_declared_lost(chains: Chains) -> None:
    items = chain(3)
    for item in items:
        chains.place(item)
    assert reason(chains.place(verified(5, lost=2))) == "wrong_height"
    assert chains.place(verified(5, lost=1)).verdict is Verdict.NEXT


def test_repetitions(chains: Chains, ledger: Ledger) -> None:
    items = chain(4)
    for item in items:
        chains.place(item)
    ledger.take(chains, *items[:2])
    assert [chains.place(item).verdict for item in items] == [Verdict.COMMITTED] * 2 + [Verdict.PENDING] * 2
    other = chain(6)[5]
    assert chains.place(other).verdict is Verdict.HELD
    assert chains.place(other).verdict is Verdict.HELD
    assert chains.counts() == (2, 1)


def test_forks_at_every_stage(chains: Chains, ledger: Ledger) -> None:
    items = chain(6)
    for item in items[:4]:
        chains.place(item)
    chains.place(items[5])
    ledger.take(chains, *items[:3])
    for at in (0, 2, 3, 5):
        twin = verified(at + 1, items[at - 1].payload_hash if at else bytes(32), import_wh=999)
        placed = chains.place(twin)
        assert reason(placed) == "fork"
        assert placed.refusal is not None
        assert (placed.refusal.expected, placed.refusal.found) == (items[at].payload_hash, twin.payload_hash)
    assert chains.place(items[4]).ready == (items[4], items[5]), "the first stands and the agent goes on"


def test_a_twin_of_a_held_seal_is_a_fork_even_where_it_is_next(chains: Chains) -> None:
    items = chain(3)
    chains.place(items[0])
    chains.place(items[2])
    chains.place(items[1])
    other = Chains(lambda kid, point: None, lambda kid, point, height: None)
    other.place(items[1])
    assert reason(other.place(verified(2, lost=1))) == "fork"


def test_wrong_previous(chains: Chains) -> None:
    items = chain(3)
    assert reason(chains.place(verified(1, bytes([1]) * 32))) == "wrong_previous"
    chains.place(items[0])
    assert reason(chains.place(verified(2, bytes(32)))) == "wrong_previous"
    assert reason(chains.place(verified(5, items[0].payload_hash, lost=3))) == "wrong_previous"
    stranger = verified(3, bytes([2]) * 32)
    assert chains.place(stranger).verdict is Verdict.HELD
    placed = chains.place(items[1])
    assert placed.ready == (items[1],)
    assert [(item, refusal.reason) for item, refusal in placed.turned_away] == [(stranger, "wrong_previous")]
    assert chains.place(items[2]).verdict is Verdict.NEXT


def test_another_branch_wins_in_the_block(chains: Chains, ledger: Ledger) -> None:
    ours = chain(4)
    theirs = chain(4, import_wh=77)
    for item in ours:
        chains.place(item)
    ledger.take(chains)
    assert ledger.take(chains, theirs[0]) == [item.payload_hash for item in ours]
    assert chains.pending_hashes == set()
    assert reason(chains.place(ours[0])) == "fork"
    assert reason(chains.place(ours[1])) == "wrong_previous"
    assert chains.place(theirs[1]).verdict is Verdict.NEXT


def test_a_block_ahead_of_us_lets_held_seals_follow(chains: Chains, ledger: Ledger) -> None:
    items = chain(5)
    chains.place(items[3])
    chains.place(items[4])
    for item in items[:2]:
        assert chains.committed(KID, 7, item.seal.height, item.payload_hash).ready == ()
    moved = chains.committed(KID, 7, 3, items[2].payload_hash)
    assert moved.ready == (items[3], items[4])
    assert chains.committed(KID, 7, 2, items[1].payload_hash) == ((), (), ()), "an old block changes nothing"


def test_refused_in_a_block(chains: Chains) -> None:
    items = chain(4)
    for item in items:
        chains.place(item)
    assert chains.dropped(KID, 7, 2, bytes(32)).given_up == ()
    moved = chains.dropped(KID, 7, 2, items[1].payload_hash)
    assert moved.given_up == tuple(item.payload_hash for item in items[1:])
    assert chains.place(items[1]).verdict is Verdict.NEXT


def test_points_and_restarts_are_apart(ledger: Ledger) -> None:
    items = chain(3)
    ledger.taken = {item.seal.height: item for item in items[:2]}
    again = Chains(ledger.record, ledger.hash_at)
    assert again.place(items[0]).verdict is Verdict.COMMITTED
    assert again.place(items[2]).verdict is Verdict.NEXT
    elsewhere = Chains(lambda kid, point: ledger.record(kid, point) if point == 7 else None, ledger.hash_at)
    assert elsewhere.place(verified(1, point=8)).verdict is Verdict.NEXT


def test_held_seals_are_bounded(chains: Chains, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chains_module, "HELD_SEALS", 3)
    items = chain(9)
    for at in (8, 7, 6):
        chains.place(items[at])
    assert chains.place(items[1]).wanted == (1, 1), "a lower one is of more use"
    assert chains.counts() == (0, 3)
    placed = chains.place(items[8])
    assert (reason(placed), placed.wanted) == ("gap", (1, 1))
    assert chains.place(items[0]).ready == (items[0], items[1])
    for at in (2, 3, 4, 5):
        ready = chains.place(items[at]).ready
    assert ready == tuple(items[5:8])
    monkeypatch.setattr(chains_module, "HELD_BYTES", 0)
    assert reason(Chains(lambda kid, point: None, lambda kid, point, height: None).place(items[1])) == "gap"


def test_pending_seals_are_bounded(chains: Chains, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chains_module, "PENDING_SEALS", 3)
    items = chain(6)
    verdicts = [chains.place(item).verdict for item in items[:4]]
    assert verdicts == [Verdict.NEXT] * 3 + [Verdict.REFUSED]
    chains.place(items[4])
    ledger.take(chains, items[0])
    assert chains.place(items[3]).ready == (items[3],)
    moved = chains.committed(KID, 7, 2, items[1].payload_hash)
    assert moved.ready == (items[4],)


@settings(max_examples=200)
@given(st.integers(1, 25), st.dictionaries(st.integers(0, 24), st.integers(1, 9), max_size=4), st.randoms())
def test_any_order_of_arrival(count: int, losses: dict[int, int], chance: random.Random) -> None:
    """Whatever comes when, and whatever blocks do meanwhile: every seal is ready once, in order, and none else is."""
    items = chain(count, losses)
    twins = [verified(item.seal.height, item.seal.previous, lost=item.seal.lost, import_wh=1) for item in items]
    ledger = Ledger()
    chains = Chains(ledger.record, ledger.hash_at)
    ready: list[VerifiedSeal] = []
    arrivals = items * 2
    chance.shuffle(arrivals)
    for item in [*arrivals, *items]:
        placed = chains.place(item)
        ready += placed.ready
        if chance.random() < 0.3:
            uncommitted = ready[len(ledger.taken):]
            taken = uncommitted[:chance.randrange(len(uncommitted) + 1)]
            assert ledger.take(chains, *taken) == []
        twin = twins[items.index(item)]
        if chance.random() < 0.2 and (item in ready or placed.verdict is Verdict.HELD):
            assert reason(chains.place(twin)) == "fork"
        if chance.random() < 0.1:  # a restart: pending seals come again from the store, held ones from their agent
            chains = Chains(ledger.record, ledger.hash_at)
            for pending in ready[len(ledger.taken):]:
                assert chains.place(pending).ready == (pending,)
    assert ready == items
    assert chains.wanted(KID, 7) is None
