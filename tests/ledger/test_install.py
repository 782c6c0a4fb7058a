"""Catching up by certified blocks: taken when they are the chain's, refused for the right reason otherwise."""

from collections.abc import Callable
from pathlib import Path

import pytest

from firmware.wire import header, merkle
from firmware.wire.errors import Refused
from gateway.ledger import block
from gateway.ledger.ledger import Ledger
from tests.ledger.test_ledger import AGENTS, START_MS, run
from tests.ledger.world import START_S, World

Blocks = list[tuple[bytes, bytes]]


@pytest.fixture
def world() -> World:
    return World(agents=AGENTS)


@pytest.fixture
def ahead(tmp_path: Path, world: World):
    ledger = Ledger.open(tmp_path / "ahead", world.genesis)
    for minute in range(1, 6):
        run(ledger, world, minute)
    yield ledger
    ledger.close()


def test_install_then_go_on(tmp_path: Path, world: World, ahead: Ledger) -> None:
    behind = Ledger.open(tmp_path / "behind", world.genesis)
    behind.execute(1, None)
    blocks = ahead.blocks("trade", 1, 100, 10**6)
    _, root, heads = ahead.position()
    outcomes = behind.install(9, blocks, heads, root)
    assert [outcome.height for outcome in outcomes] == [1, 2, 3, 4, 5]
    assert behind.position() == (9, root, heads)
    assert behind.install(9, blocks, heads, root) == [] and behind.uncertified() == []
    found = world.seal("meter", 1, START_MS + 360_000, 1006)
    batch = ("trade", 0, START_S + 361, [found.leaf])
    assert behind.execute(10, batch)[1:] == ahead.execute(6, batch)[1:]
    behind.close()
    again = Ledger.open(tmp_path / "behind")
    again.check()
    assert again.position()[0] == 10
    again.close()


def test_blocks_without_certificates_are_proven_by_the_head(tmp_path: Path, world: World, ahead: Ledger) -> None:
    """Where one of q withholds its header vote, the last certificate needs the vote of the one that is behind."""
    behind = Ledger.open(tmp_path / "behind", world.genesis)
    blocks = ahead.blocks("trade", 1, 100, 10**6)
    bare = [*blocks[:3], (blocks[3][0], b""), (blocks[4][0], b"")]
    _, root, heads = ahead.position()
    false = [*bare[:3], (_remake(world, bare[3][0], lambda leaves: leaves[:-1])[0], b""), bare[4]]
    with pytest.raises(Refused, match="wrong_header"):
        behind.install(9, false, heads, root)
    with pytest.raises(Refused, match="wrong_header"):
        behind.install(9, bare[:4], heads, root)
    assert behind.position()[0] == 0
    assert len(behind.install(9, bare, heads, root)) == 5
    assert behind.uncertified() == [4, 5] and behind.position() == (9, root, heads)
    behind.put_certificate("trade", 4, blocks[3][1])
    assert behind.uncertified() == [5]
    behind.close()


def test_readings_of_fetched_blocks_come_later(tmp_path: Path, world: World, ahead: Ledger) -> None:
    """The blocks come first; whoever then brings the envelopes makes the readings provable here too."""
    behind = Ledger.open(tmp_path / "behind", world.genesis)
    behind.install(5, ahead.blocks("trade", 1, 100, 10**6), ahead.position()[2], ahead.position()[1])
    assert behind.newest_readings() == {} and behind.envelopes_in("trade", 2) == [None] * 3
    with pytest.raises(Refused, match="readings_missing"):
        _reading_or_refused(behind, 1, START_MS + 120_000)
    kept = [item for item in (ahead.seal_at("trade", 2, index) for index in (1, 2, 3)) if item]
    items = [_verified(ahead, item.leaf) for item in kept]
    assert behind.put_envelopes(items + items) == 3 and behind.put_envelopes(items) == 0
    assert behind.envelopes_in("trade", 2) == ahead.envelopes_in("trade", 2) != [None] * 3
    assert behind.block("trade", 2) == ahead.block("trade", 2)
    assert behind.prove_reading(1, START_MS + 120_000)
    behind.close()
    again = Ledger.open(tmp_path / "behind")
    again.check()
    assert again.pending_count() == 0 and again.prove_reading(1, START_MS + 120_000)
    again.close()


def _reading_or_refused(ledger: Ledger, point: int, time_ms: int) -> bytes:
    return ledger.prove_reading(point, time_ms)


def _verified(ledger: Ledger, leaf: bytes):
    from firmware.wire import cose, seal
    from tests.ledger.world import Verified

    payload = cose.parse(leaf).payload
    fields = seal.decode(payload)
    readings = ledger.readings_of(seal.payload_hash(payload))
    assert readings is not None
    return Verified(leaf, payload, seal.payload_hash(payload), fields, readings)


def _remake(world: World, data: bytes, change: Callable[[list[bytes]], list[bytes]] = list, **fields: object) -> tuple[
        bytes, bytes]:
    """A block changed and certified by a whole quorum of liars."""
    made = block.decode(data)
    leaves = change([made.meta, *made.items])
    top = header.decode(made.header)._replace(root=merkle.root(leaves))._replace(**fields)
    top_bytes = header.encode(top)
    return block.encode(top_bytes, leaves[0], leaves[1:]), world.certificate(top_bytes)


def _forgeries(world: World, blocks: Blocks) -> dict[str, tuple[Blocks, str]]:
    top = block.decode(blocks[2][0]).header
    short = [*blocks[:2], (blocks[2][0], world.certificate(top, signers=(0, 1))), *blocks[3:]]
    flipped = bytearray(blocks[2][0])
    flipped[-1] ^= 1
    signature = bytearray(blocks[2][1])
    signature[-1] ^= 1

    def at_2(forged: tuple[bytes, bytes]) -> Blocks:
        return [*blocks[:2], forged, *blocks[3:]]

    return {
        "too few signers": (short, "too_few_signers"),
        "a signature flipped": (at_2((blocks[2][0], bytes(signature))), "bad_signature"),
        "another block's certificate": (at_2((blocks[2][0], blocks[1][1])), "wrong_height"),
        "a leaf flipped": (at_2((bytes(flipped), blocks[2][1])), "wrong_root"),
        "cut": (at_2((blocks[2][0][:-1], blocks[2][1])), "malformed"),
        "a hole": (blocks[:2] + blocks[3:], "wrong_height"),
        "from the end": (blocks[1:], "wrong_height"),
        "too short": (blocks[:-1], "wrong_header"),
        "another parent": (at_2(_remake(world, blocks[2][0], previous=bytes(32))), "wrong_parent"),
        "a leaf left out by liars": (at_2(_remake(world, blocks[2][0], lambda leaves: leaves[:-1])), "wrong_header"),
        "other results by liars": (at_2(_remake(world, blocks[2][0], lambda leaves: [
            _other_results(leaves[0]), *leaves[1:]])), "wrong_header"),
        "another channel": (at_2(_remake(world, blocks[2][0], lambda leaves: [
            header.encode_meta(header.decode_meta(leaves[0])._replace(channel="credit")), *leaves[1:]])),
            "wrong_channel"),
    }


def _other_results(meta: bytes) -> bytes:
    return header.encode_meta(header.decode_meta(meta)._replace(results_hash=header.results_hash([0, 0, 10])))


_NAMES = ("too few signers", "a signature flipped", "another block's certificate", "a leaf flipped", "cut", "a hole",
          "from the end", "too short", "another parent", "a leaf left out by liars", "other results by liars",
          "another channel")


@pytest.mark.parametrize("name", _NAMES)
def test_forged_blocks_are_refused_and_nothing_is_kept(tmp_path: Path, world: World, ahead: Ledger, name: str) -> None:
    behind = Ledger.open(tmp_path / "behind", world.genesis)
    before = behind.position()
    blocks = ahead.blocks("trade", 1, 100, 10**6)
    forged, reason = _forgeries(world, blocks)[name]
    _, root, heads = ahead.position()
    with pytest.raises(Refused) as caught:
        behind.install(5, forged, heads, root)
    assert caught.value.reason == reason
    assert behind.position() == before and behind.block("trade", 1) is None
    assert len(behind.install(5, blocks, heads, root)) == 5, "the true blocks are still taken"
    behind.close()


def test_wrong_state_root_and_heads(tmp_path: Path, world: World, ahead: Ledger) -> None:
    behind = Ledger.open(tmp_path / "behind", world.genesis)
    blocks = ahead.blocks("trade", 1, 100, 10**6)
    with pytest.raises(Refused, match="wrong_state"):
        behind.install(5, blocks, ahead.position()[2], bytes(32))
    behind.install(3, blocks[:2], [("trade", 2, header.hash_of(block.decode(blocks[1][0]).header))],
                   header.decode_meta(block.decode(blocks[1][0]).meta).state_root)
    other = _remake(world, blocks[1][0], time_s=START_S + 999)
    with pytest.raises(Refused, match="contradiction"):
        behind.install(5, [other, *blocks[2:]], ahead.position()[2], ahead.position()[1])
    behind.close()
