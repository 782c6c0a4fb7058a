"""Makes blocks and a state root from decided batches: the smallest state machine that can show a fork or a repeat.

Stands in for gateway/ledger: a client table (each item changes state once, a repeat gets the first answer), real
80-byte headers, a state root that chains every change. One `execute` is one transaction: a crash comes before or after.
"""

import copy
import hashlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from firmware.wire import certificate as wire_certificate
from firmware.wire import header as wire_header
from firmware.wire import merkle
from firmware.wire.errors import Refused

CHANNEL = "trade"


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


def hash_batch(channel: str, view: int, time_s: int, items: Sequence[bytes]) -> bytes:
    """Names a batch by its content, by our own means: nothing here trusts the digest of the code under test."""
    hasher = hashlib.sha256(f"{channel} {view} {time_s} {len(items)}".encode())
    for item in items:
        hasher.update(len(item).to_bytes(4, "big") + item)
    return hasher.digest()


class Ledger:
    """One machine's durable ledger: blocks from height 1, certificates, `n` of the last executed sequence number."""

    def __init__(self, identify: Callable[[bytes], bytes], created_s: int, slot_s: int = 0) -> None:
        self._identify = identify
        self._slot_s = slot_s
        root = merkle.root([b"genesis"])
        header = wire_header.encode(wire_header.Header(1, bytes(32), root, created_s, 0, 0))
        genesis = Block(0, 0, header, wire_header.hash_of(header), root, b"", (), ())
        self.n = 0
        self.blocks = [genesis]
        self.clients: dict[bytes, tuple[int, int]] = {}
        self.certificates: dict[int, bytes] = {}

    @property
    def newest(self) -> Block:
        return self.blocks[-1]

    @property
    def time_s(self) -> int:
        return int(wire_header.decode(self.newest.header).time_s)

    @property
    def deadline_s(self) -> int | None:
        """As a market's calendar has them: the first slot's start behind the newest block; None without slots."""
        return None if not self._slot_s else (self.time_s // self._slot_s + 1) * self._slot_s

    def execute(self, n: int, batch: Any) -> Block | None:
        """Executes the batch at `n` (a NULL makes no block)."""
        if n != self.n + 1:
            raise AssertionError(f"executing {n} after {self.n}")
        block = None if batch is None else self._make(n, batch.view, batch.time_s, batch.channel, tuple(batch.items))
        if block is not None:
            self._append(block)
        self.n = n
        return block

    def _make(self, n: int, view: int, time_s: int, channel: str, items: tuple[bytes, ...]) -> Block:
        last = self.newest
        height = last.height + 1
        state = hashlib.sha256(last.state_root)
        answers = []
        seen: dict[bytes, tuple[int, int]] = {}
        for index, item in enumerate(items):
            key = self._identify(item)
            answer = self.clients.get(key) or seen.get(key)
            if answer is None:
                answer = seen[key] = (height, index)
                state.update(key)
            answers.append(answer)
        state_root = state.digest()
        batch_hash = hash_batch(channel, view, time_s, items)
        root = hashlib.sha256(state_root + batch_hash).digest()
        header = wire_header.encode(wire_header.Header(1, last.header_hash, root, time_s, view, height))
        return Block(n, height, header, wire_header.hash_of(header), state_root, batch_hash, items, tuple(answers))

    def _append(self, block: Block) -> None:
        for index, item in enumerate(block.items):
            if block.answers[index] == (block.height, index):
                self.clients[self._identify(item)] = block.answers[index]
        self.blocks.append(block)

    def install(self, n: int, blocks: Sequence[tuple[Block, bytes]], height: int, header_hash: bytes,
                state_root: bytes) -> bool:
        """Takes over blocks up to a proven head; False, and nothing changed, unless they link up to it.

        A certificate may be lacking (empty): q CHECKPOINTs prove the head, and the head proves what lies below.
        Everything is executed on a copy first: what peers say is believed only where it gives the proven head.
        """
        fresh = [(block, certificate) for block, certificate in blocks if block.height > self.newest.height]
        trial = copy.copy(self)
        trial.blocks, trial.clients, trial.certificates = list(self.blocks), dict(self.clients), dict(self.certificates)
        for block, certificate in fresh:
            try:
                decoded = wire_header.decode(block.header)
                named = wire_certificate.decode(certificate).header_hash if certificate else block.header_hash
            except Refused:
                return False
            made = trial._make(block.n, decoded.view, decoded.time_s, CHANNEL, block.items)
            if made.header_hash != named:
                return False
            trial._append(made)
            if certificate:
                trial.certificates[made.height] = certificate
        newest = trial.newest
        if (newest.height, newest.header_hash, newest.state_root) != (height, header_hash, state_root):
            return False
        self.blocks, self.clients, self.certificates = trial.blocks, trial.clients, trial.certificates
        self.n = n
        return True
