"""Makes the state root, bucket by bucket, from the pairs of the replicated state (ledger.md, Block).

4,096 buckets by the first 12 bits of SHA-256(key) are the leaves of an RFC 9162 tree of 12 levels. A block changes few
pairs: only their buckets and the twelve nodes above each are hashed again.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from firmware.wire import merkle, state

_EMPTY_LEAF = merkle.leaf_hash(state.bucket_digest([]))


class Frozen(NamedTuple):
    """The state as it was: it does not change when the tree goes on, and any thread may read it."""

    root: bytes
    leaves: bytes  # the hashes of all buckets' leaves, 32 bytes each
    buckets: Sequence[Mapping[bytes, bytes]]


class StateTree:
    """The whole state in memory: pairs, and all nodes of the tree over their buckets."""

    def __init__(self, pairs: Iterable[tuple[bytes, bytes]] = ()):
        self._buckets: list[dict[bytes, bytes]] = [{} for _ in range(state.BUCKETS)]
        self._shared: set[int] = set()  # buckets that a frozen state has as well: copied before they change
        node = _EMPTY_LEAF
        self._levels: list[list[bytes]] = []
        width = state.BUCKETS
        while True:
            self._levels.append([node] * width)
            if width == 1:
                break
            node = merkle.node_hash(node, node)
            width >>= 1
        self.apply(dict(pairs))

    def get(self, key: bytes) -> bytes | None:
        return self._buckets[state.bucket_of(key)].get(key)

    def apply(self, changes: Mapping[bytes, bytes | None]) -> dict[bytes, bytes | None]:
        """Sets or (None) deletes pairs; returns the values that were there: applied in turn they undo it."""
        before: dict[bytes, bytes | None] = {}
        dirty = set()
        for key, value in changes.items():
            index = state.bucket_of(key)
            if index in self._shared:
                self._shared.discard(index)
                self._buckets[index] = dict(self._buckets[index])
            bucket = self._buckets[index]
            before[key] = bucket.get(key)
            if value is None:
                bucket.pop(key, None)
            else:
                bucket[key] = value
            dirty.add(index)
        self._rehash(dirty)
        return before

    def root(self) -> bytes:
        """The state root: RFC 9162 root of the 4,096 bucket digests."""
        return self._levels[-1][0]

    def freeze(self) -> Frozen:
        """The state as it is now, for those who fetch it while it goes on: 4,096 references, no copy."""
        self._shared = set(range(state.BUCKETS))
        return Frozen(self.root(), self.leaves(), list(self._buckets))

    def bucket(self, index: int) -> list[tuple[bytes, bytes]]:
        """A bucket's pairs, sorted by key."""
        return sorted(self._buckets[index].items())

    def leaves(self) -> bytes:
        """The hashes of all buckets' leaves, 32 bytes each: what proves many buckets at once."""
        return b"".join(self._levels[0])

    def path(self, index: int) -> list[bytes]:
        """The twelve hashes from a bucket to the root, lowest first."""
        return [level[(index >> depth) ^ 1] for depth, level in enumerate(self._levels[:-1])]

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """All pairs, sorted by key."""
        return iter(sorted(pair for bucket in self._buckets for pair in bucket.items()))

    def with_prefix(self, prefix: bytes) -> list[tuple[bytes, bytes]]:
        """The pairs whose key begins with `prefix`, sorted by key."""
        return sorted(pair for bucket in self._buckets for pair in bucket.items() if pair[0].startswith(prefix))

    def _rehash(self, dirty: set[int]) -> None:
        leaves = self._levels[0]
        for index in dirty:
            leaves[index] = merkle.leaf_hash(state.bucket_digest(list(self._buckets[index].items())))
        for below, above in zip(self._levels, self._levels[1:], strict=False):
            dirty = {index >> 1 for index in dirty}
            for index in dirty:
                above[index] = merkle.node_hash(below[2 * index], below[2 * index + 1])


class Draft:
    """What one block wants to change: reads through to the tree, writes into `changes` alone."""

    def __init__(self, tree: StateTree):
        self._tree = tree
        self.changes: dict[bytes, bytes | None] = {}

    def get(self, key: bytes) -> bytes | None:
        if key in self.changes:
            return self.changes[key]
        return self._tree.get(key)

    def put(self, key: bytes, value: bytes) -> None:
        self.changes[key] = value

    def delete(self, key: bytes) -> None:
        self.changes[key] = None
