"""Envelopes: durable before they are ordered, pending until they are in a block, kept once."""

from pathlib import Path

import pytest

from firmware.wire import cose, seal
from firmware.wire.errors import Refused
from gateway.ledger import envelopes
from gateway.ledger.ledger import Ledger
from tests.ledger.world import START_S, Verified, World

START_MS = START_S * 1000


@pytest.fixture
def world() -> World:
    return World(agents=[("meter", (1, 2)), ("other", (3,))])


@pytest.fixture
def ledger(tmp_path: Path, world: World):
    ledger = Ledger.open(tmp_path, world.genesis)
    yield ledger
    ledger.close()


def pending(ledger: Ledger) -> list[tuple]:
    return [tuple(item) for item in ledger.pending_envelopes()]


def test_pending_until_executed_also_over_a_restart(tmp_path: Path, world: World, ledger: Ledger) -> None:
    seals = [world.seal("meter", point, START_MS + 1000 * i, readings=3) for i in range(1, 4) for point in (2, 1)]
    assert ledger.put_envelopes(seals) == 6 and ledger.put_envelopes(seals[:2] + seals[:2]) == 0
    in_order = sorted(seals, key=lambda item: (item.seal.point, item.seal.height))
    assert pending(ledger) == [tuple(item) for item in in_order]
    ledger.execute(1, ("trade", 0, START_S + 5, [seals[0].leaf, seals[1].leaf, seals[2].leaf]))
    left = [item for item in in_order if item not in seals[:3]]
    for _ in range(2):
        assert pending(ledger) == [tuple(item) for item in left] and ledger.pending_count() == 3
        for item in seals:
            assert ledger.readings_of(item.payload_hash) == item.readings
            assert ledger.envelope_of(item.payload_hash) == seal.encode_envelope(item.leaf, item.readings)
        assert ledger.put_envelopes(seals) == 0, "committed and pending ones are known"
        ledger.close()
        ledger.__dict__.update(Ledger.open(tmp_path).__dict__)
    assert ledger.envelopes_in("trade", 1) == [seal.encode_envelope(item.leaf, item.readings) for item in seals[:3]]


def test_a_leaf_is_stored_once(world: World, ledger: Ledger) -> None:
    found = world.seal("meter", 1, START_MS + 1000)
    ledger.put_envelopes([found])
    ledger.execute(1, ("trade", 0, START_S + 5, [found.leaf]))
    record = ledger.block_record("trade", 1)
    assert record and record.items[0].leaf is None and record.items[0].envelope == 1


def test_another_signature_under_the_same_payload(tmp_path: Path, world: World, ledger: Ledger) -> None:
    """A secure element draws its nonces: the block may hold another signature than the envelope that is here."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, utils

    from tests.ledger.world import key

    found = world.seal("meter", 1, START_MS + 1000)
    digest = cose.digest(found.payload, "seal", world.chain_id)
    der = key("meter").signer._private_key.sign(digest, ec.ECDSA(utils.Prehashed(hashes.SHA256())))
    r, s = utils.decode_dss_signature(der)
    leaf = cose.assemble(key("meter").kid, found.payload, r.to_bytes(32, "big") + s.to_bytes(32, "big"))
    assert leaf != found.leaf
    ledger.put_envelopes([found])
    assert ledger.execute(1, ("trade", 0, START_S + 5, [leaf])).results == [0]
    at = ledger.seal_at("trade", 1, 1)
    assert at and at.leaf == leaf and at.readings == found.readings and ledger.pending_count() == 0
    assert ledger.envelope_of(found.payload_hash) == seal.encode_envelope(leaf, found.readings)
    ledger.close()
    ledger.__dict__.update(Ledger.open(tmp_path).__dict__)
    ledger.check()
    data = ledger.block("trade", 1)
    assert data and leaf in data


def test_the_losing_side_of_a_fork_is_dropped(world: World, ledger: Ledger) -> None:
    first = world.seal("meter", 1, START_MS + 1000)
    fork = world.seal("meter", 1, START_MS + 2000, is_next=False, height=1, previous=seal.FIRST_PREVIOUS)
    ledger.put_envelopes([first, fork])
    assert ledger.pending_count() == 2
    assert ledger.execute(1, ("trade", 0, START_S + 5, [first.leaf])).results == [0]
    assert ledger.pending_count() == 0 and ledger.readings_of(fork.payload_hash) is None
    assert ledger.put_envelopes([fork]) == 0, "and does not come back"
    assert ledger.readings_of(first.payload_hash) == first.readings


def test_what_was_refused_for_good_waits_no_longer(tmp_path: Path, world: World, ledger: Ledger) -> None:
    good, gone = world.seal("meter", 1, START_MS + 1000), world.seal("other", 3, START_MS + 1000)
    ledger.put_envelopes([good, gone])
    assert ledger.execute(1, ("trade", 0, START_S + 5, [world.revoke("other"), gone.leaf])).results == [0, 7]
    assert [item[2] for item in pending(ledger)] == [good.payload_hash]


def test_a_seal_proposed_too_early_or_altered_still_waits(world: World, ledger: Ledger) -> None:
    """A lying primary can neither take a seal from its agent by proposing it before its turn, nor by altering it."""
    first, second = world.seal("meter", 1, START_MS + 1000), world.seal("meter", 1, START_MS + 2000)
    ledger.put_envelopes([first, second])
    altered = first.leaf[:-1] + bytes((first.leaf[-1] ^ 1,))
    assert ledger.execute(1, ("trade", 0, START_S + 5, [second.leaf, altered])).results == [18, 11]
    assert ledger.pending_count() == 2
    assert ledger.execute(2, ("trade", 0, START_S + 6, [first.leaf, second.leaf])).results == [0, 0]
    assert ledger.pending_count() == 0


def test_too_many_wait(world: World, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(envelopes, "PENDING", 2)
    seals = [world.seal("meter", 1, START_MS + 1000 * i) for i in range(4)]
    ledger.put_envelopes(seals[:1])
    with pytest.raises(Refused, match="busy"):
        ledger.put_envelopes(seals[1:])
    assert [item[2] for item in pending(ledger)] == [seals[0].payload_hash], "all of the call or nothing"
    assert ledger.put_envelopes(seals[1:2]) == 1


def test_a_straggler_is_moved_so_that_the_start_stays_short(tmp_path: Path, world: World, ledger: Ledger,
                                                             monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(envelopes, "STRAGGLER", 5)
    world.seal("other", 3, START_MS)
    waits = world.seal("other", 3, START_MS + 1000)
    ledger.put_envelopes([waits])
    for n in range(1, 20):
        found = world.seal("meter", 1, START_MS + 1000 * n)
        ledger.put_envelopes([found])
        ledger.execute(n, ("trade", 0, START_S + n, [found.leaf]))
    assert ledger.stand().low_envelope > 10
    ledger.close()
    ledger.__dict__.update(Ledger.open(tmp_path).__dict__)
    assert pending(ledger) == [tuple(waits)] and ledger.readings_of(waits.payload_hash) == waits.readings


def test_a_failed_write_leaves_memory_as_the_store_is(world: World, ledger: Ledger,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    seals: list[Verified] = [world.seal("meter", 1, START_MS + 1000 * i) for i in range(1, 4)]
    ledger.put_envelopes(seals[:2])
    before = ledger.position()

    def disk_full(*_: object) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(ledger, "_put_stand", disk_full)
        with pytest.raises(OSError, match="space"):
            ledger.execute(1, ("trade", 0, START_S + 5, [seals[0].leaf]))
    assert ledger.position() == before and ledger.pending_count() == 2 and ledger.block("trade", 1) is None
    assert ledger.execute(1, ("trade", 0, START_S + 5, [item.leaf for item in seals])).results == [0, 0, 0]
