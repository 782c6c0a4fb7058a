"""Makes the state of a proven checkpoint from buckets that peers give, each checked against the root; pure.

Theory (pbft.md 3.8). The root is known from q CHECKPOINTs, or from a certified header. First come the 4,096 leaf
hashes: they are right or wrong as a whole. Then buckets, many in one answer, from all peers at once; one that is not
its leaf's, or that nobody asked for, bans its sender, and what it was asked for goes to somebody else. Nothing is
believed: not a height, not a size, not a set of validators.

A bucket that has come goes into a side file of its owner, so that a crash costs none of them twice: they are found
again by their hash, also for a later checkpoint, whose buckets are mostly the same.
"""

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256

from firmware.wire import cbor, merkle, state
from firmware.wire.errors import Refused, check
from firmware.wire.shape import check_fields
from gateway.ledger.tree import Frozen

BUCKETS_ASKED = 128  # in one question: at 100,000 records a bucket has 24 of them, some 6 KiB
EMPTY = merkle.leaf_hash(state.bucket_digest([]))
HASH_BYTES = 32


def encode_bucket(pairs: Mapping[bytes, bytes]) -> bytes:
    """What a bucket's digest is the hash of."""
    return bytes(cbor.encode([list(pair) for pair in sorted(pairs.items())]))


def leaf_of(data: bytes) -> bytes:
    """The leaf hash of an encoded bucket."""
    return bytes(merkle.leaf_hash(sha256(data).digest()))


def decode_bucket(data: bytes, index: int) -> list[tuple[bytes, bytes]]:
    """The pairs of a bucket; Refused unless they rise and belong there."""
    rows = cbor.decode(data)
    check(isinstance(rows, list), "malformed", "pairs", None)
    pairs: list[tuple[bytes, bytes]] = []
    for row in rows:
        check_fields(row, ("b", "b"))
        check(not pairs or pairs[-1][0] < row[0], "malformed", "keys that rise", row[0])
        check(state.bucket_of(row[0]) == index, "wrong_state", index, row[0])
        pairs.append((row[0], row[1]))
    return pairs


def answer(frozen: Frozen, indexes: Sequence[int], limit_bytes: int) -> list[list]:
    """[[index, bucket], ...] of those asked for, as many as fit; for a peer."""
    found: list[list] = []
    size = 0
    for index in indexes:
        if 0 <= index < state.BUCKETS:
            data = encode_bucket(frozen.buckets[index])
            size += len(data) + 16
            if found and size > limit_bytes:
                break
            found.append([index, data])
    return found


class Transfer:
    """One checkpoint's state on its way. peers: who may be asked; known: buckets of before by their leaf hash."""

    def __init__(self, root: bytes, peers: Iterable[int], known: Mapping[bytes, bytes] | None = None):
        self._root, self._known = root, known or {}
        self.peers = list(peers)
        self.banned: dict[int, str] = {}  # peer: reason
        self.pieces: dict[int, bytes] = {}  # index: encoded bucket
        self._leaves: list[bytes] = []
        self._open: OrderedDict[int, None] = OrderedDict()  # asked of nobody just now
        self._asked: dict[int, tuple[int, ...]] = {}  # peer: indexes under way

    @property
    def has_leaves(self) -> bool:
        return bool(self._leaves)

    @property
    def is_complete(self) -> bool:
        return self.has_leaves and not self._open and not self._asked

    def take_leaves(self, peer: int, data: bytes) -> None:
        """The leaf hashes as a peer gives them; one that lies is banned."""
        leaves = [data[at:at + HASH_BYTES] for at in range(0, len(data), HASH_BYTES)]
        if len(data) != state.BUCKETS * HASH_BYTES or merkle.root_of_hashes(leaves) != self._root:
            self.ban(peer, "wrong_state")
            return
        if self._leaves:
            return
        self._leaves = leaves
        for index, leaf in enumerate(leaves):
            if leaf == EMPTY:
                continue
            data_known = self._known.get(leaf)
            if data_known is not None:
                self.pieces[index] = data_known
            else:
                self._open[index] = None

    def ask(self, peer: int) -> tuple[int, ...]:
        """The next buckets to ask a peer for; none when it is banned, busy, or all are under way."""
        if peer in self.banned or peer in self._asked or not self._leaves:
            return ()
        wanted = tuple(self._open)[:BUCKETS_ASKED]
        if wanted:
            self._asked[peer] = wanted
            for index in wanted:
                del self._open[index]
        return wanted

    def take_buckets(self, peer: int, rows: Iterable[Sequence]) -> list[bytes]:
        """A peer's answer: the buckets that are good. A wrong one bans it; what it left out is asked of others."""
        asked = set(self._asked.get(peer, ()))
        good: list[bytes] = []
        for index, data in rows:
            if index not in asked:
                self.ban(peer, "not_included")
                break
            try:
                check(leaf_of(data) == self._leaves[index], "wrong_state", self._leaves[index], index)
                decode_bucket(data, index)
            except Refused as refused:
                self.ban(peer, refused.reason)
                break
            asked.discard(index)
            self.pieces[index] = data
            good.append(data)
        self._asked.pop(peer, None)
        for index in sorted(asked):
            self._open[index] = None
        return good

    def give_up(self, peer: int) -> None:
        """No answer came: others are asked."""
        for index in self._asked.pop(peer, ()):
            self._open[index] = None

    def ban(self, peer: int, reason: str) -> None:
        """Nothing more of this peer for this state."""
        self.banned.setdefault(peer, reason)
        self.give_up(peer)

    def pairs(self) -> list[tuple[bytes, bytes]]:
        """All pairs, once complete."""
        return [pair for index in sorted(self.pieces) for pair in decode_bucket(self.pieces[index], index)]
