"""Makes a mesh of peers from their addresses: one connection per pair of replicas, kept up for ever; frames in and out.

Of each pair the replica with the higher index dials, the other listens; whoever comes last replaces an older
connection of the same peer (the old one may be a dead line). Each peer has one bounded queue: when it is full the
oldest consensus frames go first, because the protocol sends what matters again (pbft.md 3.2, STATUS). A peer that is
slow, hostile or gone costs its own queue and nothing else.
"""

import asyncio
import contextlib
import random
import ssl
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from gateway.config import split_address
from gateway.connection import Connection, encode_frame
from gateway.lines import Lines

# kinds of frames
CONSENSUS, WANT_BLOCKS, BLOCKS, WANT_ENVELOPES, ENVELOPES, WANT_READINGS, WANT_FILES, FILES = range(8)
WANT_STATE, STATE, WANT_BUCKETS, BUCKETS, WANT_EPOCHS, EPOCHS, WANT_PROOF, PROOF, LEVEL, HELLO, GREETED = range(8, 19)

# What may wait for one peer. 16 MiB holds two largest frames, and some 10,000 votes: half a minute at full speed.
QUEUE_BYTES = 16 << 20
QUEUE_FRAMES = 20_000
AWAY_FRAMES = 256  # for a peer that is away: old votes help nobody, STATUS tells it what it missed
COALESCE_BYTES = 256 * 1024  # joined into one TLS write
STRANGERS = 32  # in their handshake at one time; the oldest makes room. 32 x 4 KiB shared window, no buffers
BACK_OFF_S = (0.05, 2.0)  # first and longest pause between two dials; half to one and a half of it, by chance
DIAL_S = 5.0


@dataclass(frozen=True)
class Mesh:
    """Who we are and who the others are, by index of the validator set."""

    index: int
    key_hashes: Sequence[bytes]  # SHA-256 of each replica's TLS key (SPKI)
    addresses: Sequence[str]  # "host:port", own included
    frame_bytes: int


class Peer:
    """The other side of one pair: its connection, if there is one, and its queue."""

    def __init__(self, index: int, address: str):
        self.index, self.address = index, address
        self.connection: Connection | None = None
        self.queue: deque[tuple[int, bytes]] = deque()
        self.queued_bytes = 0
        self.dropped = 0
        self.is_flush_due = False

    def put(self, kind: int, frame: bytes) -> None:
        """Queues a frame; drops the oldest ones when that is too much."""
        self.queue.append((kind, frame))
        self.queued_bytes += len(frame)
        limit = QUEUE_FRAMES if self.connection else AWAY_FRAMES
        while self.queued_bytes > QUEUE_BYTES or len(self.queue) > limit:
            place = next((at for at, (old, _) in enumerate(self.queue) if old == CONSENSUS), 0)
            self.queued_bytes -= len(self.queue[place][1])
            del self.queue[place]
            self.dropped += 1

    def take(self) -> bytes:
        """The next frames, joined; empty when none waits."""
        taken, size = [], 0
        while self.queue and size < COALESCE_BYTES:
            frame = self.queue.popleft()[1]
            taken.append(frame)
            size += len(frame)
        self.queued_bytes -= size
        return b"".join(taken)


class Transport:
    """All peers of one replica; all methods in the loop's thread."""

    def __init__(self, mesh: Mesh, contexts: tuple[ssl.SSLContext, ssl.SSLContext],
                 on_frame: Callable[[int, int, object], None],
                 on_peer: Callable[[int, bool], None] = lambda index, is_here: None,
                 chance: random.Random | None = None):
        self._mesh, self._contexts, self._on_frame, self._on_peer = mesh, contexts, on_frame, on_peer
        self._chance = chance or random.Random()
        self._members = {key_hash: index for index, key_hash in enumerate(mesh.key_hashes) if index != mesh.index}
        self._peers = {index: Peer(index, mesh.addresses[index])
                       for index in range(len(mesh.key_hashes)) if index != mesh.index}
        self._flushing: list[Peer] = []
        self._is_flush_due = False
        self._lines = Lines()
        self._strangers: dict[Connection, None] = {}
        self._server: asyncio.Server | None = None
        self._dialling: list[asyncio.Task[None]] = []
        self.refused: Counter[str] = Counter()  # why connections were closed
        self.listen = ""  # the address we listen at, once started

    async def start(self, listen: str) -> None:
        """Listens (unless nobody would call) and begins to dial."""
        loop = asyncio.get_running_loop()
        if self._peers:
            await self._listen(listen)
        for index, peer in self._peers.items():
            if index < self._mesh.index:
                self._dialling.append(loop.create_task(self._keep_up(peer), name=f"dial {index}"))

    async def admit(self, key_hash: bytes, listen: str) -> int:
        """Lets somebody in who has no seat yet, and will dial; its number, behind all others."""
        if key_hash in self._members:
            return self._members[key_hash]
        index = max([self._mesh.index, *self._peers]) + 1
        self._members[key_hash] = index
        self._peers[index] = Peer(index, "")
        if self._server is None:
            await self._listen(listen)
        return index

    async def _listen(self, listen: str) -> None:
        host, port = split_address(listen)
        self._server = await asyncio.get_running_loop().create_server(self._greet, host, port, backlog=64)
        bound = self._server.sockets[0].getsockname()
        self.listen = "{}:{}".format(f"[{bound[0]}]" if ":" in bound[0] else bound[0], bound[1])

    def move(self, index: int, address: str) -> None:
        """A peer's new address, from the next dial on."""
        self._peers[index].address = address

    def send(self, to: int | None, kind: int, body: object) -> None:
        """Queues a frame for one peer, or for all (encoded once); leaves at the end of this turn of the loop."""
        self._put(to, kind, body)
        self._flush_soon()

    def send_all(self, kind: int, bodies: Iterable[tuple[int | None, object]]) -> None:
        """The same for frames that are all there is for now: they leave at once, as one write for each peer."""
        for to, body in bodies:
            self._put(to, kind, body)
        self._flush()

    def at_end(self, call: Callable[[], None]) -> None:
        """Calls when all frames that came together are told."""
        self._lines.at_end(call)

    def connected(self) -> list[int]:
        """The peers at the other end of an open connection."""
        return [index for index, peer in self._peers.items() if peer.connection]

    def dropped(self) -> int:
        """Frames that never left because a queue was full."""
        return sum(peer.dropped for peer in self._peers.values())

    async def close(self) -> None:
        """Stops listening and dialling, closes every connection."""
        if self._server:
            self._server.close()
        for task in self._dialling:
            task.cancel()
        await asyncio.gather(*self._dialling, return_exceptions=True)
        open_ones = [peer.connection for peer in self._peers.values() if peer.connection]
        for connection in open_ones + list(self._strangers):
            connection.close()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*(one.over.wait() for one in open_ones)), 1)
        for connection in open_ones:
            connection.abort("")
        self._lines.close()

    # Owner of connections

    def opened(self, connection: Connection) -> bool:
        """A peer is known: it replaces its older connection."""
        self._strangers.pop(connection, None)
        assert connection.index is not None
        peer = self._peers[connection.index]
        if peer.connection and connection.server_side == (connection.index < self._mesh.index):
            return False  # of this pair the other side dials; while one of the two lives in an older epoch, both may
        old, peer.connection = peer.connection, connection
        if old:
            old.abort("replaced")
        else:
            self._on_peer(peer.index, True)
        self._wake(peer)
        return True

    def framed(self, connection: Connection, kind: int, body: object) -> None:
        """A frame of a known peer."""
        assert connection.index is not None
        self._on_frame(connection.index, kind, body)

    def writable(self, connection: Connection) -> None:
        """Room again."""
        if connection.index is not None:
            self._wake(self._peers[connection.index])

    def closed(self, connection: Connection, reason: str) -> None:
        """Gone; who dials does so again."""
        self._strangers.pop(connection, None)
        if reason and reason != "replaced":
            self.refused[reason] += 1
        peer = self._peers.get(connection.index) if connection.index is not None else None
        if peer and peer.connection is connection:
            peer.connection = None
            self._on_peer(peer.index, False)

    # within

    def _greet(self) -> Connection:
        while len(self._strangers) >= STRANGERS:
            next(iter(self._strangers)).abort("too many strangers")
            self._strangers.pop(next(iter(self._strangers)))
        connection = Connection(self, self._lines, self._contexts[0], True, self._members, self._mesh.frame_bytes)
        self._strangers[connection] = None
        return connection

    async def _keep_up(self, peer: Peer) -> None:
        loop = asyncio.get_running_loop()
        pause_s = BACK_OFF_S[0]
        while True:
            started = loop.time()
            await self._dial(peer)
            if loop.time() - started > DIAL_S:
                pause_s = BACK_OFF_S[0]  # it held for a while
            await asyncio.sleep(pause_s * self._chance.uniform(0.5, 1.5))
            pause_s = min(pause_s * 2, BACK_OFF_S[1])

    async def _dial(self, peer: Peer) -> None:
        """One connection from its beginning to its end."""
        host, port = split_address(peer.address)
        expected = {self._mesh.key_hashes[peer.index]: peer.index}
        connection = Connection(self, self._lines, self._contexts[1], False, expected, self._mesh.frame_bytes)
        with contextlib.suppress(OSError, TimeoutError):  # nobody there: `connected` is what people see
            async with asyncio.timeout(DIAL_S):  # wait_for of Python 3.11 forgets a cancellation at its end
                await asyncio.get_running_loop().create_connection(lambda: connection, host, port)
            await connection.over.wait()

    def _put(self, to: int | None, kind: int, body: object) -> None:
        frame = encode_frame(kind, body)
        for peer in self._peers.values() if to is None else (self._peers[to],):
            peer.put(kind, frame)
            self._mark(peer)

    def _mark(self, peer: Peer) -> None:
        if peer.connection and not peer.is_flush_due:
            peer.is_flush_due = True
            self._flushing.append(peer)

    def _wake(self, peer: Peer) -> None:
        self._mark(peer)
        self._flush_soon()

    def _flush_soon(self) -> None:
        if self._flushing and not self._is_flush_due:
            self._is_flush_due = True
            asyncio.get_running_loop().call_soon(self._flush_due)

    def _flush_due(self) -> None:
        self._is_flush_due = False
        self._flush()

    def _flush(self) -> None:
        peers, self._flushing = self._flushing, []
        for peer in peers:
            peer.is_flush_due = False
            while peer.queue and peer.connection and peer.connection.is_writable:
                peer.connection.write(peer.take())
