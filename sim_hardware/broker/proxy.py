"""Makes a proxy in front of a real MQTT broker that passes everything on, but for what its rules say.

Theory. Each connection has two ways. A way cuts its stream into MQTT packets, asks the rules in their order (the first
that applies is the only one) and puts what is to go out into a queue with the moment when; one task a way empties the
queue in order, so a delayed packet holds up those behind it as a slow line does. A connection that begins with a TLS
handshake cannot be looked into: pieces as they come stand in for packets there, and rules about messages leave them
alone.
"""

import asyncio
import contextlib
from collections.abc import Iterable

from sim_hardware.broker import packets
from sim_hardware.broker.rules import DOWN, UP, Rule
from sim_hardware.chance import pick
from sim_hardware.errors import SimError

READ_BYTES = 65536
QUEUED = 10_000  # packets of one way that wait; then the sender is not read any more
HELD_S = 5.0  # a message that waits for later ones goes after this time without any
TLS_HANDSHAKE = 0x16


class Way:
    """One direction of one connection; `target` is where it leads to."""

    def __init__(self, name: str, target: asyncio.StreamWriter) -> None:
        self.name, self.target = name, target
        self.splitter = packets.Splitter()
        self.is_raw = False
        self.is_stalled = False
        self.passed = 0
        self.queue: asyncio.Queue[tuple[float, bytes | None]] = asyncio.Queue(QUEUED)
        self.held: list[tuple[int, bytes]] = []  # (goes after that many passed, packet)

    def put(self, data: bytes | None, due: float = 0.0) -> None:
        """Appends what goes out; None: the end of this way."""
        with contextlib.suppress(asyncio.QueueFull):
            self.queue.put_nowait((due, data))

    def release(self, is_all: bool = False) -> None:
        """Lets go what has waited for enough later messages."""
        ready = [packet for after, packet in self.held if is_all or self.passed >= after]
        self.held = [] if is_all else [item for item in self.held if self.passed < item[0]]
        for packet in ready:
            self.put(packet)

    async def empty(self) -> None:
        """Writes what is due, in order, until the way ends."""
        loop = asyncio.get_running_loop()
        while True:
            due, data = await self.queue.get()
            if due > loop.time():
                await asyncio.sleep(due - loop.time())
            if data is None:
                with contextlib.suppress(OSError, RuntimeError):
                    self.target.write_eof()
                return
            self.target.write(data)
            await self.target.drain()


class Connection:
    """A client and the broker, with the proxy between."""

    def __init__(self, proxy: "Proxy", client: asyncio.StreamWriter, broker: asyncio.StreamWriter) -> None:
        self.proxy = proxy
        self.version = 4
        self.ways = {UP: Way(UP, broker), DOWN: Way(DOWN, client)}
        self.client, self.broker = client, broker

    def abort(self) -> None:
        for writer in (self.client, self.broker):
            writer.transport.abort()

    async def pump(self, reader: asyncio.StreamReader, way: Way) -> None:
        """Reads one side until it ends, and treats each packet."""
        is_first = way.name == UP
        while data := await reader.read(READ_BYTES):
            if is_first and data[0] == TLS_HANDSHAKE:
                for each in self.ways.values():
                    each.is_raw = True
                self.proxy.counts["opaque"] += 1
            is_first = False
            for packet in [data] if way.is_raw else way.splitter.take(data):
                if not self.treat(way, packet):
                    return
            while way.queue.qsize() > QUEUED // 2:
                await asyncio.sleep(0.01)
        way.release(True)
        way.put(None)

    def treat(self, way: Way, packet: bytes) -> bool:
        """Passes one packet on, or does what a rule says; False: this way is over."""
        found = None
        if not way.is_raw:
            if packets.kind_of(packet) == packets.CONNECT:
                self.version = packets.version_of(packet)
            elif packets.kind_of(packet) == packets.PUBLISH:
                found = packets.publish_of(packet, self.version)
        if way.is_stalled:
            return True
        rule = self.proxy.rule_for(way.name, found.topic if found else None)
        if rule is None:
            way.put(packet)
        elif found is not None and rule.kind in _OF_MESSAGES:
            _OF_MESSAGES[rule.kind](self, way, packet, found, rule)
        elif rule.kind == "delay":
            way.put(packet, asyncio.get_running_loop().time() + rule.number / 1000)
        elif rule.kind == "stall":
            way.is_stalled = True
        elif rule.kind == "half-close":
            way.put(None)
            return False
        else:
            self.abort()
            return False
        if found is not None:
            way.passed += 1
            self.proxy.counts[way.name] += 1
            way.release()
        return True


class Proxy:
    """The listener. rules: may be changed while it runs."""

    def __init__(self, listen: tuple[str, int], broker: tuple[str, int], rules: Iterable[Rule] = ()) -> None:
        self._listen, self._broker = listen, broker
        self.rules = list(rules)
        self.counts = {"connections": 0, "opaque": 0, UP: 0, DOWN: 0}
        self.connections: set[Connection] = set()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def rule_for(self, way: str, topic: str | None) -> Rule | None:
        """The first rule that applies."""
        for rule in self.rules:
            if rule.applies(way, topic):
                return rule
        return None

    async def start(self) -> str:
        """Listens; "host:port" in use."""
        host, port = self._listen
        try:
            self._server = await asyncio.start_server(self._serve, host, port)
        except OSError as error:
            raise SimError("listen", f"{host}:{port}: {error.strerror or error}") from error
        return f"{host}:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, from_client: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.counts["connections"] += 1
        try:
            from_broker, broker = await asyncio.open_connection(*self._broker)
        except OSError:  # as a broker that is not there
            client.transport.abort()
            self._tasks.discard(task)
            return
        connection = Connection(self, client, broker)
        self.connections.add(connection)
        ways = connection.ways
        parts = [asyncio.ensure_future(part) for part in (
            connection.pump(from_client, ways[UP]), connection.pump(from_broker, ways[DOWN]),
            ways[UP].empty(), ways[DOWN].empty(), _release_in_time(ways))]
        try:
            # Both ways have ended, or one has broken: the connection is over.
            await asyncio.wait(parts[:4], return_when=asyncio.FIRST_EXCEPTION)
        finally:
            for part in parts:
                part.cancel()
            await asyncio.gather(*parts, return_exceptions=True)
            connection.abort()
            self.connections.discard(connection)
            self._tasks.discard(task)


async def _release_in_time(ways: dict[str, Way]) -> None:
    while True:
        seen = [(way, way.passed) for way in ways.values()]
        await asyncio.sleep(HELD_S)
        for way, passed in seen:
            if way.passed == passed:
                way.release(True)


def _drop(connection: Connection, way: Way, packet: bytes, found: packets.Publish, rule: Rule) -> None:
    """It is lost."""


def _swallow(connection: Connection, way: Way, packet: bytes, found: packets.Publish, rule: Rule) -> None:
    if found.qos == 1:
        connection.ways[DOWN].put(packets.puback(packet, found))


def _duplicate(connection: Connection, way: Way, packet: bytes, found: packets.Publish, rule: Rule) -> None:
    way.put(packet)
    for _ in range(rule.number):
        way.put(packets.again(packet))


def _reorder(connection: Connection, way: Way, packet: bytes, found: packets.Publish, rule: Rule) -> None:
    way.held.append((way.passed + 1 + rule.number, packet))


def _rewrite(connection: Connection, way: Way, packet: bytes, found: packets.Publish, rule: Rule) -> None:
    changed = bytearray(packet)
    bits = 8 * (len(packet) - found.payload_at)
    for number in range(rule.number if bits else 0):
        bit = pick(rule.seed ^ number, rule.applied, 0, bits - 1)
        changed[found.payload_at + (bit >> 3)] ^= 1 << (bit & 7)
    way.put(bytes(changed))


def _replay(connection: Connection, way: Way, packet: bytes, found: packets.Publish, rule: Rule) -> None:
    way.put(packet)
    asyncio.get_running_loop().call_later(rule.number / 1000, way.put, packets.without_qos(packet, found))


_OF_MESSAGES = {"drop": _drop, "swallow": _swallow, "duplicate": _duplicate, "reorder": _reorder, "rewrite": _rewrite,
                "replay": _replay}
