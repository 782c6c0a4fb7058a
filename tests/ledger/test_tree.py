"""The incremental tree against the definition, and golden numbers."""

import random

from hypothesis import given
from hypothesis import strategies as st

from firmware.wire import merkle, state
from gateway.ledger.audit import first_state
from gateway.ledger.tree import Draft, StateTree
from tests.ledger.world import World

_KEYS = st.sampled_from([b"key%d" % i for i in range(30)])
_CHANGES = st.dictionaries(_KEYS, st.none() | st.binary(max_size=8), max_size=6)


def _root_by_definition(pairs: dict[bytes, bytes]) -> bytes:
    """ledger.md, Block: bucket digest = SHA-256 of the CBOR of its sorted pairs; RFC 9162 root of the digests."""
    buckets: list[list[tuple[bytes, bytes]]] = [[] for _ in range(4096)]
    for key, value in pairs.items():
        buckets[state.bucket_of(key)].append((key, value))
    return merkle.root([state.bucket_digest(bucket) for bucket in buckets])


@given(st.lists(_CHANGES, min_size=1, max_size=4))
def test_any_changes_and_their_undoing(rounds: list[dict[bytes, bytes | None]]) -> None:
    tree = StateTree()
    pairs: dict[bytes, bytes] = {}
    for changes in rounds:
        before_root = tree.root()
        before = tree.apply(changes)
        after_root = tree.root()
        tree.apply(before)
        assert tree.root() == before_root
        tree.apply(changes)
        assert tree.root() == after_root
        pairs = {key: value for key, value in (pairs | changes).items() if value is not None}
    assert dict(tree.items()) == pairs
    assert tree.root() == _root_by_definition(pairs) == StateTree(pairs.items()).root()


def test_every_bucket_is_proven() -> None:
    chance = random.Random(20261120)
    pairs = {chance.randbytes(8): chance.randbytes(20) for _ in range(500)}
    tree = StateTree(pairs.items())
    for index in range(0, 4096, 97):
        state.check_bucket(tree.bucket(index), index, tree.path(index), tree.root())


def test_draft_writes_nothing_through() -> None:
    tree = StateTree([(b"a", b"1"), (b"b", b"2")])
    root = tree.root()
    draft = Draft(tree)
    draft.put(b"a", b"3")
    draft.delete(b"b")
    assert (draft.get(b"a"), draft.get(b"b"), tree.get(b"a"), tree.root()) == (b"3", None, b"1", root)
    tree.apply(draft.changes)
    assert list(tree.items()) == [(b"a", b"3")]


def test_golden_roots() -> None:
    """Empty state; and the state of a tiny genesis. They may change only together with the formats' version."""
    assert StateTree().root().hex() == "a571f5f3fa3c40d6b7a7e360603ded7cabd8bd2da294791c23f305eeb4f5329a"
    assert first_state(World(replicas=1).genesis).root().hex() == (
        "6ab98eb80f2e4458705af48df045c81ce717a96feeb1bb3538e0c22e8195a0b1")
