"""Makes answers to peers' questions, and questions to peers: blocks, readings by their seal's hash, files by theirs.

Beside the consensus, in frames of their own (CONSENSUS has kind 0): `WANT_BLOCKS [channel, first, count]` is answered
by `BLOCKS [channel, first, [[block, certificate], ...]]`, as many from the first as fit a frame; `WANT_ENVELOPES
[payload hash, ...]` (of seals in no block yet) and `WANT_READINGS [channel, height]` (of all seals of a block) by
`ENVELOPES [envelope, ...]`, those that are here; `WANT_FILES [hash, ...]` (evidence, certified files) by `FILES [bytes,
...]`; `WANT_STATE [n]` (of a checkpoint) by `STATE [n, leaf hashes, [[channel, header], ...]]`, empty where it is not
here any more; `WANT_BUCKETS [n, [index, ...]]` by `BUCKETS [n, [[index, bucket], ...]]`, as many as fit; `WANT_EPOCHS
[first]` by `EPOCHS [first, [handover, ...]]`; `WANT_PROOF [epoch, n]` by `PROOF [epoch, [CHECKPOINT, ...]]`, proof of
the newest checkpoint of an epoch above n. Nobody is believed: blocks are checked by the ledger, buckets against the
state's root, envelopes by ingest, files by their hash, proofs by their signatures. A peer's questions are answered one
at a time, from a reader of its own, so that asking much costs the asker time and the consensus none.
"""

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from firmware.wire.errors import Refused, check
from firmware.wire.shape import check_fields, check_list
from gateway.ledger.snapshot import Snapshot
from gateway.transfer import BUCKETS_ASKED, answer
from gateway.transport import (
    BLOCKS,
    BUCKETS,
    ENVELOPES,
    EPOCHS,
    FILES,
    GREETED,
    HELLO,
    LEVEL,
    PROOF,
    STATE,
    WANT_BLOCKS,
    WANT_BUCKETS,
    WANT_ENVELOPES,
    WANT_EPOCHS,
    WANT_FILES,
    WANT_PROOF,
    WANT_READINGS,
    WANT_STATE,
)

logger = logging.getLogger("gridseal.exchange")

BLOCKS_ASKED = 256  # in one question: at 25 KiB a block (a quiet area's has 2) most of a frame
HASHES_ASKED = 128  # 128 envelopes of 60 KiB fill a frame of 8 MiB; usual ones have half a KiB
FILES_ASKED = 8  # the evidence of a device and its certified files are four
QUESTIONS_WAITING = 8  # of one peer; more are dropped, who asks does so again
ANSWER_S = 3.0  # a whole frame at 25 Mbit/s
STATE_BYTES_PER_S = 8 * 1024 * 1024  # given to one peer: a state of 100,000 records takes three seconds
FRAME_MARGIN = 64 * 1024  # for the CBOR around the content


class Store(Protocol):
    """What may be read beside the ledger's own thread."""

    async def blocks(self, channel: str, first: int, count: int, max_bytes: int) -> list[tuple[bytes, bytes]]: ...

    async def pending_envelopes(self, hashes: Sequence[bytes]) -> list[bytes]: ...

    async def envelopes_in(self, channel: str, height: int) -> list[bytes]: ...


class Exchange:
    """Questions and answers of one replica."""

    def __init__(self, send: Callable[[int, int, object], None], store: Store, frame_bytes: int,
                 on_envelopes: Callable[[int, list[bytes]], None]):
        self._send, self._store, self._on_envelopes = send, store, on_envelopes
        self._answer_bytes = frame_bytes - FRAME_MARGIN
        self._questions: dict[int, deque[tuple[int, Any]]] = {}
        self._answering: dict[int, asyncio.Task[None]] = {}
        self._asked: dict[tuple[int, Any, int], asyncio.Future[Any]] = {}  # peer, channel or kind, height or n
        self.refused: Counter[str] = Counter()  # what peers sent that was no question and no answer
        self.on_files: Callable[[int, list[bytes]], None] = lambda peer, datas: None  # what came
        self.files_here: Callable[[Sequence[bytes]], Awaitable[list[bytes]]] = _no_files  # for a peer
        self.state_here: Callable[[int], Snapshot | None] = lambda n: None
        self.epochs_here: Callable[[int], list[bytes]] = lambda first: []  # handovers from an epoch on
        self.proof_here: Callable[[int, int], Sequence[bytes]] = lambda epoch, n: ()
        self.on_level: Callable[[int, int], None] = lambda peer, n: None  # an observer is level with checkpoint n

        self.on_hello: Callable[[int, int, bytes, int], None] = lambda peer, boots, nonce, n: None
        self.on_greeted: Callable[[int, bytes, int, str], None] = lambda peer, nonce, verdict, why: None

    def framed(self, peer: int, kind: int, body: Any) -> None:
        """A frame of a peer that is no consensus message."""
        try:
            if kind == BLOCKS:
                self._take_blocks(peer, body)
            elif kind == ENVELOPES:
                check_list(body, "b")
                self._on_envelopes(peer, list(body))
            elif kind == HELLO:
                check_fields(body, ("u", "b", "u"))
                self.on_hello(peer, *body)
            elif kind == GREETED:
                check_fields(body, ("b", "u", "t"))
                self.on_greeted(peer, *body)
            elif kind == LEVEL:
                check_fields(body, ("u",))
                self.on_level(peer, body[0])
            elif kind == FILES:
                check_list(body, "b")
                self.on_files(peer, list(body))
            elif kind in _ANSWERS:
                check_fields(body, _ANSWERS[kind])
                self._take_answer(peer, kind, body)
            elif kind in _QUESTIONS:
                check_fields(body, _QUESTIONS[kind])
                self._ask_ourselves(peer, kind, body)
            elif kind in (WANT_ENVELOPES, WANT_FILES):
                check_list(body, "b32")
                self._ask_ourselves(peer, kind, body)
            else:
                raise Refused("malformed", "a kind of frame", kind)
        except Refused as refused:
            self.refused[refused.reason] += 1

    async def blocks(self, peer: int, channel: str, first: int, count: int) -> list[tuple[bytes, bytes]]:
        """(block, certificate) pairs from `first` on as a peer claims them; empty when it has none or is silent."""
        question = [channel, first, min(count, BLOCKS_ASKED)]
        found: list[tuple[bytes, bytes]] | None = await self._ask(peer, WANT_BLOCKS, question, channel, first)
        return found or []

    async def state(self, peer: int, n: int) -> tuple[bytes, list[tuple[str, bytes]]] | None:
        """(leaf hashes, headers) of a checkpoint as a peer claims them; None when it is silent."""
        found = await self._ask(peer, WANT_STATE, [n], STATE, n)
        return None if found is None else (found[1], [(row[0], row[1]) for row in found[2]])

    async def buckets(self, peer: int, n: int, indexes: Sequence[int]) -> list[list] | None:
        """[[index, bucket], ...] as a peer claims them; None when it is silent."""
        found = await self._ask(peer, WANT_BUCKETS, [n, list(indexes)], BUCKETS, n)
        return None if found is None else list(found[1])

    async def epochs(self, peer: int, first: int) -> list[bytes]:
        """Handovers from an epoch on as a peer claims them; empty when it has none or is silent."""
        found = await self._ask(peer, WANT_EPOCHS, [first], EPOCHS, first)
        return [] if found is None else list(found[1])

    async def proof(self, peer: int, epoch: int, n: int) -> list[bytes]:
        """CHECKPOINTs of an epoch above n as a peer claims them; empty when it has none or is silent."""
        found = await self._ask(peer, WANT_PROOF, [epoch, n], PROOF, epoch)
        return [] if found is None else list(found[1])

    async def _ask(self, peer: int, kind: int, body: list, name: object, number: int) -> Any:
        """What a peer answers, by what the question was about; None when nothing comes in time."""
        key = (peer, name, number)
        waiting = self._asked.setdefault(key, asyncio.get_running_loop().create_future())
        self._send(peer, kind, body)
        try:
            return await asyncio.wait_for(asyncio.shield(waiting), ANSWER_S)
        except TimeoutError:
            return None
        finally:
            self._asked.pop(key, None)

    def ask_envelopes(self, peer: int, hashes: Sequence[bytes]) -> None:
        """Asks; what comes goes to `on_envelopes`."""
        for start in range(0, len(hashes), HASHES_ASKED):
            self._send(peer, WANT_ENVELOPES, list(hashes[start:start + HASHES_ASKED]))

    def ask_readings(self, peer: int, channel: str, height: int) -> None:
        """Asks for the readings of a block's seals; what comes goes to `on_envelopes`."""
        self._send(peer, WANT_READINGS, [channel, height])

    def ask_files(self, peer: int, hashes: Sequence[bytes]) -> None:
        """Asks; what comes goes to `on_files`."""
        for start in range(0, len(hashes), FILES_ASKED):
            self._send(peer, WANT_FILES, list(hashes[start:start + FILES_ASKED]))

    def gone(self, peer: int) -> None:
        """A peer that left: its questions are void."""
        self._questions.pop(peer, None)

    async def close(self) -> None:
        """Stops answering."""
        tasks = list(self._answering.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _take_blocks(self, peer: int, body: Any) -> None:
        check_fields(body, ("t", "u", "l"))
        channel, first, pairs = body
        for pair in pairs:
            check_fields(pair, ("b", "b"))
        waiting = self._asked.get((peer, channel, first))
        if waiting and not waiting.done():
            waiting.set_result([(block, certificate) for block, certificate in pairs[:BLOCKS_ASKED]])

    def _take_answer(self, peer: int, kind: int, body: Any) -> None:
        """What a question of `_ask` waits for; its rows have the right shape, no more."""
        for row in body[-1]:
            if kind == STATE:
                check_fields(row, ("t", "b80"))
            elif kind == BUCKETS:
                check_fields(row, ("u", "b"))
            else:
                check(isinstance(row, bytes), "malformed", "bytes", None)
        waiting = self._asked.get((peer, kind, body[0]))
        if waiting and not waiting.done():
            waiting.set_result(body)

    def _ask_ourselves(self, peer: int, kind: int, body: Any) -> None:
        waiting = self._questions.setdefault(peer, deque())
        if len(waiting) >= QUESTIONS_WAITING:
            self.refused["busy"] += 1
            return
        waiting.append((kind, body))
        if peer not in self._answering:
            task = asyncio.get_running_loop().create_task(self._answer(peer), name=f"answer {peer}")
            self._answering[peer] = task

    async def _answer(self, peer: int) -> None:
        """All that a peer asks, one after the other."""
        answers: dict[int, Callable[[int, Any], Awaitable[None]]] = {
            WANT_BLOCKS: self._answer_blocks, WANT_ENVELOPES: self._answer_envelopes,
            WANT_READINGS: self._answer_readings, WANT_FILES: self._answer_files,
            WANT_STATE: self._answer_state, WANT_BUCKETS: self._answer_buckets,
            WANT_EPOCHS: self._answer_epochs, WANT_PROOF: self._answer_proof}
        try:
            while self._questions.get(peer):
                kind, body = self._questions[peer].popleft()
                try:
                    await answers[kind](peer, body)
                except Refused as refused:  # a damaged record of ours: named in the log, not handed on
                    logger.error("cannot answer replica %d: %s", peer, refused)
        finally:
            del self._answering[peer]

    async def _answer_blocks(self, peer: int, body: Any) -> None:
        channel, first, count = body
        pairs = await self._store.blocks(channel, first, min(count, BLOCKS_ASKED), self._answer_bytes)
        self._send(peer, BLOCKS, [channel, first, [list(pair) for pair in pairs]])

    async def _answer_envelopes(self, peer: int, body: Any) -> None:
        self._send_some(peer, ENVELOPES, await self._store.pending_envelopes(body[:HASHES_ASKED]))

    async def _answer_readings(self, peer: int, body: Any) -> None:
        self._send_some(peer, ENVELOPES, await self._store.envelopes_in(*body))

    async def _answer_files(self, peer: int, body: Any) -> None:
        self._send_some(peer, FILES, await self.files_here(body[:FILES_ASKED]))

    async def _answer_state(self, peer: int, body: Any) -> None:
        found = self.state_here(body[0])
        rows = [list(pair) for pair in found.headers] if found else []
        self._send(peer, STATE, [body[0], found.state.leaves if found else b"", rows])

    async def _answer_buckets(self, peer: int, body: Any) -> None:
        """Some buckets, and then a rest: whoever is behind must not cost the others their line."""
        check_list(body[1], "u")
        found = self.state_here(body[0])
        rows = [] if found is None else await asyncio.to_thread(
            answer, found.state, body[1][:BUCKETS_ASKED], self._answer_bytes)
        self._send(peer, BUCKETS, [body[0], rows])
        await asyncio.sleep(sum(len(data) for _, data in rows) / STATE_BYTES_PER_S)

    async def _answer_epochs(self, peer: int, body: Any) -> None:
        self._send(peer, EPOCHS, [body[0], self.epochs_here(body[0])])

    async def _answer_proof(self, peer: int, body: Any) -> None:
        self._send(peer, PROOF, [body[0], list(self.proof_here(*body))])

    def _send_some(self, peer: int, kind: int, datas: Sequence[bytes]) -> None:
        """In as many frames as they need."""
        some: list[bytes] = []
        size = 0
        for data in datas:
            if size + len(data) > self._answer_bytes:
                self._send(peer, kind, some)
                some, size = [], 0
            some.append(data)
            size += len(data) + 5
        if some:
            self._send(peer, kind, some)


_QUESTIONS = {WANT_BLOCKS: ("t", "u", "u"), WANT_READINGS: ("t", "u"), WANT_STATE: ("u",), WANT_BUCKETS: ("u", "l"),
              WANT_EPOCHS: ("u",), WANT_PROOF: ("u", "u")}
_ANSWERS = {STATE: ("u", "b", "l"), BUCKETS: ("u", "l"), EPOCHS: ("u", "l"), PROOF: ("u", "l")}


async def _no_files(hashes: Sequence[bytes]) -> list[bytes]:
    return []
