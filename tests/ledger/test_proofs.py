"""Proofs: every reading of a chain, old and new, is provable to whoever has the genesis; altered files are refused."""

from pathlib import Path
from typing import Any

import pytest

from firmware.crypto.openssl import verify_digest
from firmware.wire import certificate, header, headerfile, merkle, proof, seal, state, witness
from firmware.wire import reading as reading_codec
from firmware.wire.errors import Refused
from gateway.ledger.history import state_at
from gateway.ledger.ledger import Ledger
from gateway.ledger.proofs import prove_header, prove_reading
from gateway.ledger.reader import Reader
from tests.ledger.test_ledger import AGENTS, START_MS, run
from tests.ledger.world import AREA, START_S, World, check_proof, key, point_entry


@pytest.fixture
def world() -> World:
    return World(agents=AGENTS)


@pytest.fixture
def ledger(tmp_path: Path, world: World):
    ledger = Ledger.open(tmp_path, world.genesis)
    yield ledger
    ledger.close()


def eventful(ledger: Ledger, world: World) -> dict[int, bytes]:
    """Forty minutes with enrolments, a replacement, a revocation, marks and lost heights; returns the state roots."""
    roots = {}
    for minute in range(1, 41):
        time_s = START_S + 60 * minute
        items = []
        if minute in (5, 20):
            items.append(world.enrol(f"new {minute}", [point_entry(10 + minute)]))
        if minute == 10:
            items.append(world.replace("meter", "heir"))
        if minute == 30:
            items.append(world.revoke("other"))
        name = "meter" if minute < 10 else "heir"
        changes: dict[str, Any] = {"lost": 3} if minute == 15 else {"flags": 0} if minute == 17 else {}
        seals = [world.seal(name, 1, time_s * 1000 if minute != 18 else 65_000, 1000 + minute, readings=2, **changes),
                 world.seal(name, 2, time_s * 1000, None if minute % 9 == 0 else 2000, readings=1)]
        if minute % 3 == 0 and minute < 30:
            seals.append(world.seal("other", 3, time_s * 1000, 1000))
        if minute > 20:
            seals.append(world.seal("new 20", 30, time_s * 1000, 1000))
        ledger.put_envelopes(seals)
        outcome = ledger.execute(ledger.position()[0] + 1, ("trade", 0, time_s, [
            *items, *[item.leaf for item in seals]]))
        assert all(code == 0 or code >= 256 for code in outcome.results), (minute, outcome.results)
        assert outcome.height is not None and outcome.header is not None
        roots[outcome.height] = outcome.state_root
        ledger.put_certificate("trade", outcome.height, world.certificate(outcome.header))
    return roots


def test_the_state_after_every_block_is_found_again(tmp_path: Path, world: World, ledger: Ledger) -> None:
    roots = eventful(ledger, world)
    reader = Reader.open(tmp_path)
    for height, root in roots.items():
        assert state_at(reader, "trade", height).root() == root
    with pytest.raises(ValueError, match="no block"):
        state_at(reader, "trade", 41)
    reader.close()


def test_a_step_in_the_middle_of_a_block(tmp_path: Path, world: World, ledger: Ledger) -> None:
    """Five seals of one chain a block, after an outage: the 32nd is neither the first nor the last of its block."""
    roots = {}
    for n in range(1, 21):
        seals = [world.seal("meter", 1, START_MS + 10_000 * (5 * n + i), 1000 + n) for i in range(5)]
        roots[n] = ledger.execute(n, ("trade", 0, START_S + 50 * n + 50, [item.leaf for item in seals])).state_root
    for n, root in roots.items():
        assert state_at(ledger, "trade", n).root() == root


def test_every_reading_is_provable(tmp_path: Path, world: World, ledger: Ledger) -> None:
    eventful(ledger, world)
    ledger.close()
    reader = Reader.open(tmp_path)
    proven = 0
    for point in (1, 2, 3, 30):
        for data in reader.readings_between(point, 0, START_MS * 2):
            reading = reading_codec.decode(data)
            report = check_proof(prove_reading(reader, point, reading.time_ms), world)
            assert (report.reading.time_ms, report.seal.point, report.reading.kid) == (
                reading.time_ms, point, report.seal.kid)
            proven += 1
    # two a minute of point 1 (the later of each two the next minute's first: the same time), one a minute of 2
    assert proven == reader.counts()["readings"] == sum((2 * 40, 40, 9, 20))
    marked = check_proof(prove_reading(reader, 1, 65_000), world)
    assert marked.marks == 2 | 16 and marked.agent.public_key == key("heir").public
    reader.close()
    ledger.__dict__.update(Ledger.open(tmp_path).__dict__)


def test_witnesses_of_old_blocks_are_proven_with_the_light_nodes_of_their_time(world: World, ledger: Ledger) -> None:
    """Signed by everybody who ever had a key, at heights before and after enrolments, a replacement, a revocation."""
    eventful(ledger, world)
    names = ("meter", "other", "heir", "new 5", "new 20", "stranger")
    for height in range(1, 41):
        top = ledger.header("trade", height)
        assert top is not None
        ledger.put_witnesses([
            ("trade", height, key(name).kid, witness.sign(key(name).kid, "trade", top, world.chain_id,
                                                          key(name).signer.sign_digest)) for name in names])
    expected = {1: {"meter", "other"}, 5: {"meter", "other", "new 5"}, 9: {"meter", "other", "new 5"},
                10: {"other", "heir", "new 5"}, 20: {"other", "heir", "new 5", "new 20"},
                30: {"heir", "new 5", "new 20"}, 40: {"heir", "new 5", "new 20"}}
    counts = {found["height"]: found for found in ledger.witness_counts(AREA)}
    for height, who in expected.items():
        data = prove_header(ledger, "trade", height, AREA)
        report = headerfile.check_file(data, world.genesis, verify_digest)
        assert report.counted == (AREA, sorted(key(name).kid for name in who), len(who)), height
        assert (counts[height]["k"], counts[height]["n"]) == (len(who), len(who)), "the replica counts alike"
        reading = check_proof(ledger.prove_reading(2, (START_S + 60 * height) * 1000), world)
        assert reading.counted == report.counted
    assert len(counts) == 40 and next(iter(counts)) == 40
    assert ledger.best_witnessed(AREA) == {"k": 4, "n": 4, "height": 29}
    assert ledger.best_witnessed(AREA, from_s=START_S + 60 * 30) == {"k": 3, "n": 3, "height": 40}
    assert ledger.best_witnessed("south") == {"k": 0, "n": 0, "height": 0}
    assert headerfile.check_file(prove_header(ledger, "trade", 7, "south"), world.genesis, verify_digest).counted == (
        "south", [], 0)
    with pytest.raises(ValueError, match="no block"):
        prove_header(ledger, "trade", 41, AREA)


def test_not_provable(world: World, ledger: Ledger) -> None:
    run(ledger, world, 1)
    with pytest.raises(Refused, match="not_included"):
        ledger.prove_reading(1, START_MS + 1)
    with pytest.raises(Refused, match="not_included"):
        ledger.prove_reading(99, START_MS + 60_000)
    found = world.seal("meter", 1, START_MS + 120_000)
    ledger.put_envelopes([found])
    with pytest.raises(Refused, match="not_included"):
        ledger.prove_reading(1, START_MS + 120_000)
    ledger.execute(2, ("trade", 0, START_S + 121, [found.leaf]))
    with pytest.raises(Refused, match="too_few_signers"):
        ledger.prove_reading(1, START_MS + 120_000)
    with pytest.raises(Refused, match="too_few_signers"):
        ledger.prove_items("trade", 2, [1])


def test_items_of_a_block(world: World, ledger: Ledger) -> None:
    seals = run(ledger, world, 1)
    found = ledger.prove_items("trade", 1, [1, 3])
    top = header.decode(found.header)
    certificate.check_certificate(certificate.decode(found.certificate), found.header, world.members, 0, "trade",
                                  world.chain_id, verify_digest)
    merkle.check_path(merkle.leaf_hash(found.meta), 0, 4, found.meta_path, top.root)
    assert header.decode_meta(found.meta).results_hash == header.results_hash(found.results)
    assert [item.leaf for item in found.items] == [seals[0].leaf, seals[2].leaf]
    for item in found.items:
        merkle.check_path(merkle.leaf_hash(item.leaf), item.leaf_index, item.size, item.path, top.root)
    for wrong in ([0], [4]):
        with pytest.raises(ValueError, match="no leaf"):
            ledger.prove_items("trade", 1, wrong)
    with pytest.raises(ValueError, match="no block"):
        ledger.prove_items("trade", 2, [1])


def test_any_flipped_bit_of_a_proof_is_refused(world: World, ledger: Ledger) -> None:
    run(ledger, world, 1)
    data = ledger.prove_reading(1, START_MS + 60_000)
    check_proof(data, world)
    for at in range(len(data)):
        altered = bytearray(data)
        altered[at] ^= 1 << at % 8
        with pytest.raises(Refused):
            check_proof(bytes(altered), world)


def test_forged_proofs(world: World, ledger: Ledger) -> None:
    """With every hash made anew by somebody who holds q - 1 replicas' keys, or another agent's."""
    run(ledger, world, 1)
    good = proof.decode(ledger.prove_reading(1, START_MS + 60_000))
    short = good._replace(certificate=world.certificate(good.header, signers=(0, 1)))
    other = world.seal("other", 1, START_MS + 60_000, 1, is_next=False, height=1, previous=seal.FIRST_PREVIOUS)
    swapped = good._replace(seal=other.leaf, reading=other.readings[0])
    bucket = state.bucket_of(state.agent_key(key("other").kid))
    tree = state_at(ledger, "trade", 1)
    elsewhere = good._replace(bucket=tree.bucket(bucket), bucket_path=tree.path(bucket))
    for forged, reason in ((short, "too_few_signers"), (swapped, "not_included"), (elsewhere, "wrong_state")):
        with pytest.raises(Refused, match=reason):
            check_proof(proof.encode(forged), world)
    with pytest.raises(Refused, match="wrong_chain"):
        check_proof(proof.encode(good), World(replicas=1))
