"""Makes blocks and a state root from decided batches: the smallest state machine that can show a fork or a repeat.

Stands in for gateway/ledger: a client table (each item changes state once, a repeat gets the first answer), the set of
validators, real 80-byte headers, and the real tree of 4,096 buckets over it, so that a state can be fetched bucket by
bucket. One `execute` is one transaction: a crash comes before or after.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from firmware.wire import cbor, merkle
from firmware.wire import certificate as wire_certificate
from firmware.wire import header as wire_header
from firmware.wire.errors import Refused
from gateway.ledger.tree import Frozen, StateTree
from tests.cluster.workload import wanted_set

CHANNEL = "trade"
SET = b"set"  # key of the set of validators; items have hashes as keys
SNAPSHOTS = 3


class Block(NamedTuple):
    """One block and where it was made; `batch_hash` names the batch to the judge."""

    n: int
    height: int
    header: bytes
    header_hash: bytes
    state_root: bytes
    batch_hash: bytes
    items: tuple[bytes, ...]
    answers: tuple[tuple[int, int], ...]  # (height, index) at which each item changed the state


class Seats(NamedTuple):
    """What the state says of validators: epoch of the newest block, its machines, those of the next epoch or None."""

    epoch: int
    base: int
    members: tuple[int, ...]
    coming: tuple[int, ...] | None


class Epoch(NamedTuple):
    """An epoch that has begun: after sequence number `base`, with the blocks above `height`."""

    base: int
    height: int
    members: tuple[int, ...]


def hash_batch(channel: str, view: int, time_s: int, items: Sequence[bytes]) -> bytes:
    """Names a batch by its content, by our own means: nothing here trusts the digest of the code under test."""
    hasher = hashlib.sha256(f"{channel} {view} {time_s} {len(items)}".encode())
    for item in items:
        hasher.update(len(item).to_bytes(4, "big") + item)
    return hasher.digest()


def changes_allowed(size: int) -> int:
    """Seats that may change hands in one epoch."""
    return max(1, (size - 1) // 3)


class Ledger:
    """One machine's durable ledger: blocks from height 1, certificates, `n` of the last executed sequence number."""

    def __init__(self, identify: Callable[[bytes], bytes], created_s: int, slot_s: int = 0,
                 members: Sequence[int] = (0,), interval: int = 1) -> None:
        self._identify = identify
        self._slot_s = slot_s
        self._interval = interval
        self._tree = StateTree()
        self.seats = Seats(0, 0, tuple(members), None)
        self._tree.apply({SET: self._seats_data()})
        root = merkle.root([b"genesis"])
        header = wire_header.encode(wire_header.Header(1, bytes(32), root, created_s, 0, 0))
        genesis = Block(0, 0, header, wire_header.hash_of(header), self._tree.root(), b"", (), ())
        self.n = 0
        self.blocks: list[Any] = [genesis]  # None: below a state that was fetched
        self.clients: dict[bytes, tuple[int, int]] = {}
        self.certificates: dict[int, bytes] = {}
        self.epochs = [Epoch(0, 0, tuple(members))]
        self.proofs: dict[int, tuple[bytes, ...]] = {}  # epoch: the CHECKPOINTs that prove its base
        self.snapshots: dict[int, tuple[Frozen, Block]] = {}

    @property
    def newest(self) -> Block:
        block: Block = self.blocks[-1]
        return block

    @property
    def time_s(self) -> int:
        return int(wire_header.decode(self.newest.header).time_s)

    @property
    def deadline_s(self) -> int | None:
        """As a market's calendar has them: the first slot's start behind the newest block; None without slots."""
        return None if not self._slot_s else (self.time_s // self._slot_s + 1) * self._slot_s

    def is_ending(self, epoch: int) -> bool:
        """Whether the state names the set after that of an epoch."""
        return self.seats.epoch == epoch and self.seats.coming is not None

    def epoch_at(self, height: int) -> int:
        """The epoch of a block."""
        return max(number for number, epoch in enumerate(self.epochs) if not number or height > epoch.height)

    def execute(self, n: int, batch: Any) -> Block | None:
        """Executes the batch at `n` (a NULL makes no block)."""
        if n != self.n + 1:
            raise AssertionError(f"executing {n} after {self.n}")
        block = None
        if batch is not None:
            block = self._make(n, batch.view, batch.time_s, batch.channel, tuple(batch.items))[0]
            self._append(block)
        self._reach(n)
        return block

    def _make(self, n: int, view: int, time_s: int, channel: str,
              items: tuple[bytes, ...]) -> tuple[Block, Callable[[], None]]:
        """The next block, its changes made in the tree; how to take them back."""
        last = self.newest
        height, seats = last.height + 1, self.seats
        epoch = len(self.epochs) - 1
        if seats.epoch < epoch:
            assert seats.coming is not None
            self.seats = Seats(epoch, self.epochs[epoch].base, seats.coming, None)
        answers = []
        seen: dict[bytes, tuple[int, int]] = {}
        for index, item in enumerate(items):
            key = self._identify(item)
            answer = self.clients.get(key) or seen.get(key)
            if answer is None:
                answer = seen[key] = (height, index)
                self._change_set(item)
            answers.append(answer)
        changes: dict[bytes, bytes | None] = {key: cbor.encode(list(answer)) for key, answer in seen.items()}
        before = self._tree.apply({**changes, SET: self._seats_data()})
        batch_hash = hash_batch(channel, view, time_s, items)
        root = hashlib.sha256(self._tree.root() + batch_hash).digest()
        header = wire_header.encode(wire_header.Header(1, last.header_hash, root, time_s, view, height))
        block = Block(n, height, header, wire_header.hash_of(header), self._tree.root(), batch_hash, items,
                      tuple(answers))

        def undo() -> None:
            self._tree.apply(before)
            self.seats = seats
        return block, undo

    def _change_set(self, item: bytes) -> None:
        """The first good wish of an epoch is in force: q members' wills are the contracts' matter."""
        wanted, seats = wanted_set(item), self.seats
        if wanted is None or seats.coming is not None or not wanted:
            return
        changed = max(len(wanted), len(seats.members)) - len(set(wanted) & set(seats.members))
        if 0 < changed <= changes_allowed(len(seats.members)):
            self.seats = seats._replace(coming=wanted)

    def _seats_data(self) -> bytes:
        epoch, base, members, coming = self.seats
        return bytes(cbor.encode([epoch, base, list(members), None if coming is None else list(coming)]))

    def _append(self, block: Block) -> None:
        for index, item in enumerate(block.items):
            if block.answers[index] == (block.height, index):
                self.clients[self._identify(item)] = block.answers[index]
        self.blocks.append(block)

    def _reach(self, n: int) -> None:
        """Stands at n: at a checkpoint an epoch may end, and the state is kept for who fetches it."""
        self.n = n
        if n % self._interval:
            return
        if self.is_ending(len(self.epochs) - 1):
            assert self.seats.coming is not None
            self.epochs.append(Epoch(n, self.newest.height, self.seats.coming))
        self.snapshots[n] = (self._tree.freeze(), self.newest)
        while len(self.snapshots) > SNAPSHOTS:
            del self.snapshots[min(self.snapshots)]

    def install(self, n: int, blocks: Sequence[tuple[Block, bytes]], height: int, header_hash: bytes,
                state_root: bytes) -> bool:
        """Takes over blocks up to a proven head; False, and nothing changed, unless they link up to it.

        A certificate may be lacking (empty): q CHECKPOINTs prove the head, and the head proves what lies below.
        What peers say is executed, and believed only where it gives the proven head; else all of it is taken back.
        """
        fresh = [(block, certificate) for block, certificate in blocks if block.height > self.newest.height]
        clients, certificates, count = dict(self.clients), dict(self.certificates), len(self.blocks)
        undone: list[Callable[[], None]] = []
        if self._install(fresh, undone) and (self.newest.height, self.newest.header_hash, self.newest.state_root) == (
                height, header_hash, state_root):
            self._reach(n)
            return True
        for undo in reversed(undone):
            undo()
        self.clients, self.certificates = clients, certificates
        del self.blocks[count:]
        return False

    def _install(self, fresh: Sequence[tuple[Block, bytes]], undone: list[Callable[[], None]]) -> bool:
        for block, certificate in fresh:
            try:
                decoded = wire_header.decode(block.header)
                named = wire_certificate.decode(certificate).header_hash if certificate else block.header_hash
            except Refused:
                return False
            made, undo = self._make(block.n, decoded.view, decoded.time_s, CHANNEL, block.items)
            undone.append(undo)
            if made.header_hash != named:
                return False
            self._append(made)
            if certificate:
                self.certificates[made.height] = certificate
        return True

    def install_state(self, n: int, header: bytes, head: tuple[int, bytes], state_root: bytes,
                      pairs: Sequence[tuple[bytes, bytes]]) -> bool:
        """Takes over the state of a proven checkpoint; False, and nothing changed, where it is not the proven one."""
        tree = StateTree(pairs)
        found = wire_header.decode(header)
        if tree.root() != state_root or (found.height, wire_header.hash_of(header)) != head:
            return False
        values = dict(pairs)
        epoch, base, members, coming = cbor.decode(values.pop(SET))
        seats = Seats(epoch, base, tuple(members), None if coming is None else tuple(coming))
        if seats.epoch != len(self.epochs) - 1:
            return False
        self._tree, self.seats = tree, seats
        self.epochs[-1] = self.epochs[-1]._replace(base=base, height=self.epochs[-1].height)
        self.clients = {key: tuple(cbor.decode(value)) for key, value in values.items()}
        self.blocks += [None] * (found.height - len(self.blocks))
        self.blocks.append(Block(n, found.height, header, head[1], state_root, b"", (), ()))
        self._reach(n)
        return True
