"""Executing batches: what a block holds, that replicas agree, that everything is there again after a restart."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware.wire import certificate, genesis, header, merkle, seal
from firmware.wire.errors import Refused
from gateway.ledger import block
from gateway.ledger.ledger import Ledger
from gateway.ledger.reader import Reader
from tests.ledger.world import START_S, Verified, World, key, point_entry

START_MS = START_S * 1000
AGENTS = [("meter", (1, 2)), ("other", (3,))]


@pytest.fixture
def world() -> World:
    return World(agents=AGENTS)


def run(ledger: Ledger, world: World, minute: int, points=(("meter", 1), ("meter", 2), ("other", 3)),
        is_put: bool = True) -> list[Verified]:
    """One minute: a seal of each point, durable, executed, certified."""
    time_s = START_S + 60 * minute
    seals = [world.seal(name, point, time_s * 1000, 1000 + minute) for name, point in points]
    if is_put:
        ledger.put_envelopes(seals)
    outcome = ledger.execute(ledger.position()[0] + 1, ("trade", 0, time_s + 1, [item.leaf for item in seals]))
    assert set(outcome.results) <= {0} and outcome.height is not None and outcome.header is not None
    ledger.put_certificate("trade", outcome.height, world.certificate(outcome.header))
    return seals


def test_a_block_holds_what_the_pages_say(tmp_path: Path, world: World) -> None:
    ledger = Ledger.open(tmp_path, world.genesis)
    assert ledger.position() == (0, ledger.stand().state_root, [
        ("trade", 0, header.hash_of(genesis.header_zero(world.genesis, "trade")))])
    found = world.seal("meter", 1, START_MS + 1000)
    bad = world.seal("meter", 3, START_MS + 1000)
    enrol = world.enrol("new", [point_entry(9)])
    outcome = ledger.execute(1, ("trade", 5, START_S + 7, [found.leaf, bad.leaf, enrol]))
    data = ledger.block("trade", 1)
    assert data is not None
    made = block.decode(data)
    top, meta = header.decode(made.header), header.decode_meta(made.meta)
    assert top == (1, header.hash_of(genesis.header_zero(world.genesis, "trade")),
                   merkle.root([made.meta, found.leaf, bad.leaf, enrol]), START_S + 7, 5, 1)
    set_hash = certificate.set_hash(world.members)
    assert meta == (1, "trade", world.chain_id, 0, 1, 3, header.results_hash([0, 10, 0]), outcome.state_root, set_hash,
                    set_hash, None, genesis.parameters_hash(ledger.parameters))
    assert outcome[:6] == (1, "trade", 1, header.hash_of(made.header), made.header, ledger.position()[1])
    assert outcome.results == [0, 10, 0] and outcome.items == made.items
    assert ledger.counts() == {"blocks": 1, "seals": 1, "readings": 1, "transactions": 1, "refused": 1}
    ledger.close()


def test_golden_block(tmp_path: Path) -> None:
    """The header of block 1 of a tiny chain. It may change only together with the formats' version."""
    world = World(replicas=1)
    ledger = Ledger.open(tmp_path, world.genesis)
    outcome = ledger.execute(1, ("trade", 0, START_S + 60, [world.seal("meter", 1, START_MS + 60_000).leaf]))
    ledger.close()
    assert outcome.header_hash is not None
    assert (outcome.state_root.hex(), outcome.header_hash.hex()) == (
        "afc05f1e5515b85d5852731cf0b1c4e334b18cdf03c761a6ed1c44635758114a",
        "985638061c06fccc4d29d1be63e93626659747740c6427d541fb4eeb00de3b80")


def test_null_and_order(tmp_path: Path, world: World) -> None:
    ledger = Ledger.open(tmp_path, world.genesis)
    root = ledger.position()[1]
    outcome = ledger.execute(1, None)
    assert outcome == (1, None, None, None, None, root, [], [])
    for n in (1, 3):
        with pytest.raises(ValueError, match="executed after 1"):
            ledger.execute(n, None)
    empty = ledger.execute(2, ("trade", 0, START_S + 900, []))
    assert empty.height == 1 and empty.state_root == root, "a heartbeat is a block"
    falling = ledger.execute(3, ("trade", 0, START_S + 1, []))
    assert falling.header is not None and header.decode(falling.header).time_s == START_S + 900, "time never falls"
    ledger.close()
    again = Ledger.open(tmp_path)
    assert again.position()[0] == 3 and again.stand().time_s == START_S + 900
    again.close()


def test_two_replicas_agree_and_a_restart_changes_nothing(tmp_path: Path, world: World) -> None:
    """One holds the envelopes, the other not; one restarts after every block."""
    steady, lean = Ledger.open(tmp_path / "a", world.genesis), Ledger.open(tmp_path / "b", world.genesis)
    for minute in range(1, 8):
        seals = run(steady, world, minute)
        other = lean.execute(minute, ("trade", 0, START_S + 60 * minute + 1, [item.leaf for item in seals]))
        lean.close()
        lean = Ledger.open(tmp_path / "b", world.genesis)
        assert lean.position() == steady.position()
        assert lean.block("trade", minute) == steady.block("trade", minute) is not None
        assert other.state_root == steady.position()[1]
    assert steady.readings_of(seals[0].payload_hash) == seals[0].readings
    assert lean.readings_of(seals[0].payload_hash) is None
    assert steady.newest_readings() == {item.seal.point: item.readings[-1] for item in seals}
    lean.check()
    steady.check()
    lean.close()
    steady.close()


def test_wrong_genesis(tmp_path: Path, world: World) -> None:
    Ledger.open(tmp_path, world.genesis).close()
    with pytest.raises(Refused, match="wrong_chain"):
        Ledger.open(tmp_path, World(replicas=1).genesis)
    with pytest.raises(ValueError, match="genesis"):
        Ledger.open(tmp_path / "new")


def test_places(tmp_path: Path, world: World) -> None:
    """More seals than two steps, with heights lost on the way; the one chain dense, the other sparse."""
    ledger = Ledger.open(tmp_path, world.genesis)
    places = {}
    for n in range(1, 101):
        seals = [world.seal("meter", 1, START_MS + 1000 * n, 1000, lost=5 if n % 10 == 0 else 0)]
        if n % 7 == 0:
            seals.insert(0, world.seal("other", 3, START_MS + 1000 * n, 1000))
        outcome = ledger.execute(n, ("trade", 0, START_S + n, [item.leaf for item in seals]))
        assert all(code in (0, 256 + 64) for code in outcome.results)
        for index, item in enumerate(seals, 1):
            places[item.seal.kid, item.seal.point, item.seal.height] = (n, index)
    reader = Reader.open(tmp_path)
    for source in (ledger, reader):
        for place, where in places.items():
            assert source.seal_place(*place) == where
        for missing in (0, 11, 14, 151, 10**6):
            assert source.seal_place(key("meter").kid, 1, missing) is None
        assert source.seal_place(key("stranger").kid, 1, 1) is None
        heights = [item.seal.height for item in source.seals(key("meter").kid, 1)]
        assert heights == sorted((height for kid, _, height in places if kid == key("meter").kid), reverse=True)
        assert next(source.seals(key("meter").kid, 1, is_from=14)).seal.height == 9
    reader.close()
    ledger.close()


def test_a_search_reads_few_blocks(tmp_path: Path, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the step at or above the height, at most 32 seals back; not the whole chain from its newest seal."""
    ledger = Ledger.open(tmp_path, world.genesis, check_signature=lambda *_: True)
    for n in range(1, 201):
        ledger.execute(n, ("trade", 0, START_S + n, [world.seal("meter", 1, START_MS + 1000 * n, 1000).leaf]))
    read: list[int] = []
    get = ledger.store.get

    def counted(table: str, record_key: int | bytes) -> bytes | None:
        read.extend([1] if table == "blocks" else [])
        return get(table, record_key)

    monkeypatch.setattr(ledger.store, "get", counted)
    for height in range(1, 201):
        read.clear()
        assert ledger.seal_place(key("meter").kid, 1, height) == (height, 1)
        assert len(read) <= 32
    ledger.close()


def test_transactions_have_a_place_by_hash(tmp_path: Path, world: World) -> None:
    ledger = Ledger.open(tmp_path, world.genesis)
    good, bad = world.enrol("new", []), world.enrol("meter", [])
    ledger.execute(1, ("trade", 0, START_S + 1, [bad, good]))
    hashes = [seal.payload_hash(seal_payload(item)) for item in (bad, good)]
    assert [ledger.transaction_place(item) for item in hashes] == [("trade", 1, 1), ("trade", 1, 2)]
    ledger.execute(2, ("trade", 0, START_S + 2, [good]))
    assert ledger.transaction_place(hashes[1]) == ("trade", 1, 2), "a repeat that is refused does not hide it"
    assert ledger.transaction_place(bytes(32)) is None
    assert ledger.results("trade", 2) == [34]
    ledger.close()


def seal_payload(item: bytes) -> bytes:
    from firmware.wire import cose

    return cose.parse(item).payload


def test_registry_questions(tmp_path: Path, world: World) -> None:
    ledger = Ledger.open(tmp_path, world.genesis)
    run(ledger, world, 1)
    reader = Reader.open(tmp_path)
    for source in (ledger, reader):
        assert [record.point for record in source.points()] == [1, 2, 3]
        assert {kid for kid, _ in source.agents()} == {key(name).kid for name in ("operator", "meter", "other")}
        agent, chain = source.agent(key("meter").kid), source.chain(key("meter").kid, 1)
        assert agent and agent.points == [1, 2] and chain and chain.height == 1
        assert source.agent(bytes(8)) is None and source.point(9) is None and source.chain(bytes(8), 1) is None
    reader.close()
    ledger.close()


def test_blocks_for_a_peer_are_bounded(tmp_path: Path, world: World) -> None:
    ledger = Ledger.open(tmp_path, world.genesis)
    for minute in range(1, 6):
        run(ledger, world, minute)
    ledger.execute(6, ("trade", 0, START_S + 400, []))
    found = ledger.blocks("trade", 2, 10, 10**6)
    assert [header.decode(block.decode(data).header).height for data, _ in found] == [2, 3, 4, 5, 6]
    assert [bool(certificate) for _, certificate in found] == [True] * 4 + [False]
    assert len(ledger.blocks("trade", 2, 2, 10**6)) == 2 and len(ledger.blocks("trade", 2, 9, 1)) == 1
    assert ledger.blocks("trade", 7, 2, 10**6) == [] and ledger.uncertified() == [6]
    with pytest.raises(ValueError, match="another block"):
        ledger.put_certificate("trade", 6, found[0][1])
    with pytest.raises(ValueError, match="no channel"):
        ledger.block("credit", 1)
    ledger.close()


def test_readings_between(tmp_path: Path, world: World) -> None:
    ledger = Ledger.open(tmp_path, world.genesis)
    for minute in range(1, 81):
        run(ledger, world, minute, points=(("meter", 1),))
    for first, last in ((1, 80), (40, 41), (33, 33), (81, 90), (0, 1)):
        found = ledger.readings_between(1, START_MS + 60_000 * first, START_MS + 60_000 * last)
        assert len(found) == max(0, min(last, 80) - max(first, 1) + 1) and found == sorted(found)
    assert len(ledger.readings_between(1, 0, START_MS * 2, limit=7)) == 7
    for minute in (0, 1, 33, 79, 80):
        assert ledger.first_reading(1, START_MS + 60_000 * minute - 30_000) == world.reading(
            "meter", 1, START_MS + 60_000 * max(1, minute), 1000 + max(1, minute))
    assert ledger.first_reading(1, START_MS + 60_000 * 81) is None
    ledger.close()


def test_two_channels_share_one_state(tmp_path: Path) -> None:
    """Each has its own heights and parents; state, sequence numbers and block time are common."""
    from gateway.ledger.history import state_at

    world = World(agents=[("meter", (1,))], channels=("trade", "dispatch"))
    ledger = Ledger.open(tmp_path, world.genesis)
    plant = point_entry(7, channel="dispatch")
    roots = {}
    for n in range(1, 9):
        channel = "dispatch" if n % 3 == 0 else "trade"
        items = [world.enrol("plant", [plant])] if n == 2 else []
        items.append(world.seal(*(("plant", 7) if channel == "dispatch" else ("meter", 1)),
                                START_MS + 60_000 * n, 1000 + n).leaf)
        outcome = ledger.execute(n, (channel, 0, START_S + 60 * n, items))
        assert set(outcome.results) == {0}
        roots[channel, outcome.height] = outcome.state_root
    assert [(channel, height) for channel, height, _ in ledger.position()[2]] == [("trade", 6), ("dispatch", 2)]
    reader = Reader.open(tmp_path)
    for (channel, height), root in roots.items():
        assert height is not None and state_at(reader, channel, height).root() == root
    assert reader.seal_place(key("plant").kid, 7, 2) == (2, 1)
    reader.close()
    ledger.close()
    ledger = Ledger.open(tmp_path)
    ledger.check()
    ledger.close()


_STEP = st.tuples(st.sampled_from(("seal", "seal", "seal", "tx", "repeat", "noise")), st.integers(0, 5))


@settings(max_examples=15)
@given(st.lists(st.lists(_STEP, max_size=6), min_size=1, max_size=5))
def test_any_sequence_is_the_same_on_two_ledgers(blocks: list[list[tuple[str, int]]]) -> None:
    import tempfile

    world = World(agents=AGENTS)
    with tempfile.TemporaryDirectory() as folder:
        first, second = Ledger.open(Path(folder) / "a", world.genesis), Ledger.open(Path(folder) / "b", world.genesis)
        seen = [b"nothing"]
        for n, steps in enumerate(blocks, 1):
            items = [_item(world, seen, what, number, n) for what, number in steps]
            batch = ("trade", 0, START_S + 60 * n, items)
            assert first.execute(n, batch) == second.execute(n, batch)
            second.close()
            second = Ledger.open(Path(folder) / "b")
            assert second.position() == first.position()
        first.check()
        first.close()
        second.close()


def _item(world: World, seen: list[bytes], what: str, number: int, minute: int) -> bytes:
    if what == "seal":
        item = world.seal(*(("meter", 1), ("meter", 2), ("other", 3))[number % 3], START_MS + 60_000 * minute).leaf
    elif what == "tx":
        item = (world.revoke("other"), world.enrol(f"new {number}", [point_entry(10 + number)]),
                world.replace("meter", f"heir {number}"))[number % 3]
    elif what == "repeat":
        item = seen[number % len(seen)]
    else:
        item = bytes((number,)) * number
    seen.append(item)
    return item


_SCRIPT = """
import sys, json, tempfile
from pathlib import Path
from gateway.ledger.ledger import Ledger
from tests.ledger.test_ledger import AGENTS, run
from tests.ledger.world import World
world = World(agents=AGENTS)
with tempfile.TemporaryDirectory() as folder:
    ledger = Ledger.open(Path(folder), world.genesis)
    for minute in range(1, 4):
        run(ledger, world, minute)
    n, root, heads = ledger.position()
    print(json.dumps([n, root.hex(), heads[0][2].hex()]))
    ledger.close()
"""


def test_hash_seed_and_environment_do_not_matter() -> None:
    outputs = set()
    for seed in ("0", "77"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "TZ": "Pacific/Chatham"}
        outputs.add(subprocess.run([sys.executable, "-c", _SCRIPT], env=environment, check=True, timeout=60,
                                   capture_output=True, text=True).stdout)
    assert len(outputs) == 1 and json.loads(outputs.pop())[0] == 3
