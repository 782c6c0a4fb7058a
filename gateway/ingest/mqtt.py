"""Makes batches of messages from MQTT brokers, and publishes: paho in a thread per broker, PUBACK only after `done`.

The way of a message: broker -> `on_batch` (called in the broker's thread with a list) -> whoever takes it calls
`done(tokens)` when the content is durable or refused for good -> PUBACK. A message not done when the connection
breaks is sent again by the broker (persistent session), so nothing between the two is ever lost, only doubled.

Why paho's own loop is not used: PUBACKs and publishing then happen in one thread, so that an acknowledgement can never
meet a new connection, where the same message id means another message; and one wake-up serves a batch.

Why MQTT 3.1.1 by default: Mosquitto and the demo's embedded broker both speak it, and a replica uses nothing of
MQTT 5. `version=5` is there for shared subscriptions between several ingest workers (gateway.md, Broker).
"""

import select
import socket
import ssl
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from random import Random
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from gateway.ingest.stream import Publish, Stream

BATCH_MESSAGES = 256  # four chunks of the verifier's pool; more only adds waiting
# Handed over and not yet done. The broker's own window (Mosquitto: max_inflight_messages) is normally far smaller; this
# bounds memory (60 KiB each at worst: 120 MiB) where a broker has none. Above it the socket is not read any more.
UNDONE_MESSAGES = 2048
OUT_MESSAGES = 8192  # waiting to be published: an ack for each of the agents one area may have, and the live topics
IN_FLIGHT = 100  # published and not yet acknowledged by the broker
KEEPALIVE_S = 30
CONNECT_S = 5.0
FIRST_WAIT_MS, LONGEST_WAIT_MS = 250, 8000  # back-off between two attempts, doubled, then jittered by half
STOP_S = 5.0
SESSION_S = 14 * 86_400  # how long a broker keeps what came while we were away (MQTT 5; 3.1.1 leaves it to the broker)
PORTS = {"mqtt": 1883, "mqtts": 8883}
LOOPBACK = ("127.0.0.1", "::1", "localhost")


_new = tuple.__new__  # a named tuple without the call between


class Token(NamedTuple):
    """Names one message for its PUBACK: the broker's number, the connection it came by, its id there (0 = QoS 0)."""

    broker: int
    connection: int
    message: int


class Message(NamedTuple):
    """What came in; topic "" when it was no UTF-8."""

    topic: str
    payload: bytes
    token: Token
    retained: bool


class WaitClock(Protocol):
    """The half of the house's clock that waits need."""

    def monotonic_ms(self) -> int: ...


class TlsFiles(NamedTuple):
    """Paths of the area's CA and of our own certificate and key."""

    ca: str
    certificate: str
    key: str


def tls_context(files: TlsFiles) -> ssl.SSLContext:
    """A client context: TLS 1.2 at least, that CA alone, host checked, our certificate shown (security.md T22)."""
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=files.ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(files.certificate, files.key)
    return context


def parse_url(url: str) -> tuple[str, str, int]:
    """(scheme, host, port) of `mqtts://host[:port]` or `mqtt://...`; ValueError for plain MQTT beyond this machine."""
    parts = urlsplit(url)
    if parts.scheme not in PORTS or not parts.hostname or parts.path or parts.query:
        raise ValueError(f"a broker is mqtts://host[:port] or mqtt://host[:port], not {url}")
    if parts.scheme == "mqtt" and parts.hostname not in LOOPBACK:
        raise ValueError(f"plain mqtt:// is for this machine only, not {url}")
    return parts.scheme, parts.hostname, parts.port or PORTS[parts.scheme]


class _Client(paho.Client):
    """paho on a socket of ours (`SocketLike` is paho's own name for what it needs of one)."""

    def __init__(self, connect: Callable[[], Stream], **settings: Any):
        super().__init__(CallbackAPIVersion.VERSION2, **settings)
        self._connect_stream = connect

    def _create_socket(self) -> Any:
        return self._connect_stream()


class Link:
    """One broker. Public methods may be called from any thread; `on_batch` and `on_state` are called in the link's."""

    def __init__(self, number: int, url: str, client_id: str, subscriptions: Sequence[str],
                 on_batch: Callable[[list[Message]], None], *, clock: WaitClock, chance: Random,
                 tls: TlsFiles | None = None, on_state: Callable[[int, bool], None] | None = None, version: int = 4):
        scheme, self._host, self._port = parse_url(url)
        if scheme == "mqtts" and tls is None:
            raise ValueError(f"{url} needs the paths of a CA, a certificate and a key")
        self.number, self.url, self.last_error = number, url, ""
        self.connected = self.subscribed = False
        self.received = self.published = self.dropped = self.connections = 0
        self._subscriptions, self._on_batch, self._on_state = list(subscriptions), on_batch, on_state
        self._clock, self._chance, self._version = clock, chance, version
        self._undone = 0
        self._in_flight: set[int] = set()
        self._batch: list[Message] = []
        self._done: deque[Token] = deque()
        self._out: dict[tuple[str, int], tuple[bytes, bool]] = {}
        self._out_serial = 0
        self._out_lock = threading.Lock()
        self._stopping = threading.Event()
        self._wake_read, self._wake_write = socket.socketpair()
        self._wake_read.setblocking(False)
        self._wake_write.setblocking(False)
        self._client = self._make_client(client_id, tls_context(tls) if scheme == "mqtts" and tls else None)
        self._thread = threading.Thread(target=self._run, name=f"mqtt-{number}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Says goodbye to the broker and ends the thread; what is not done stays with the broker."""
        self._stopping.set()
        self._wake()
        if self._thread.is_alive():
            self._thread.join(STOP_S)
        self._wake_read.close()
        self._wake_write.close()

    def done(self, tokens: Iterable[Token]) -> None:
        """Acknowledges these messages to the broker; a token of an earlier connection is forgotten."""
        self._done.extend(tokens)
        self._wake()

    def publish(self, topic: str, payload: bytes, *, retain: bool = False, newest_only: bool = True) -> None:
        """QoS 1. While the broker is away the newest message of a topic waits for it (all of them without
        `newest_only`); beyond OUT_MESSAGES the oldest goes, counted in `dropped`."""
        with self._out_lock:
            self._out_serial += 1
            key = (topic, 0 if newest_only else self._out_serial)
            self._out.pop(key, None)
            self._out[key] = (payload, retain)
            if len(self._out) > OUT_MESSAGES:
                del self._out[next(iter(self._out))]
                self.dropped += 1
        self._wake()

    def status(self) -> dict[str, Any]:
        return {"url": self.url, "connected": self.connected, "connections": self.connections,
                "received": self.received, "published": self.published, "dropped": self.dropped,
                "undone": self._undone, "waiting": len(self._out), "last_error": self.last_error}

    def _make_client(self, client_id: str, context: ssl.SSLContext | None) -> paho.Client:
        protocol = MQTTProtocolVersion.MQTTv5 if self._version == 5 else MQTTProtocolVersion.MQTTv311

        def connect() -> Stream:
            sock = socket.create_connection((self._host, self._port), CONNECT_S)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # an answer does not wait for acknowledgements
            return Stream(sock, self._version == 4, context, self._host)

        client = _Client(connect, client_id=client_id, protocol=protocol, manual_ack=True,
                         clean_session=None if self._version == 5 else False)
        client.max_inflight_messages = IN_FLIGHT
        client.on_connect, client.on_disconnect = self._connected, self._disconnected
        client.on_message, client.on_publish, client.on_subscribe = self._received, self._acknowledged, self._subscribed
        client.on_socket_register_write = _left_to_the_loop
        if self._version == 5:
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = SESSION_S
            properties.ReceiveMaximum = UNDONE_MESSAGES
            client.connect_async(self._host, self._port, KEEPALIVE_S, clean_start=False, properties=properties)
        else:
            client.connect_async(self._host, self._port, KEEPALIVE_S)
        return client

    def _wake(self) -> None:
        try:
            self._wake_write.send(b"\0")
        except (BlockingIOError, OSError):
            return  # the pipe is full of wake-ups already, or the link is stopped

    # From here on: the link's own thread.

    def _run(self) -> None:
        wait_ms = FIRST_WAIT_MS
        while not self._stopping.is_set():
            before = self.connections
            try:
                self._client.reconnect()
                self._serve()
            except (OSError, ValueError) as error:  # refused, unreachable, TLS; ValueError: a socket closed under us
                self.last_error = f"{type(error).__name__}: {error}"
            self._lost()
            if self._stopping.is_set():
                break
            wait_ms = FIRST_WAIT_MS if self.connections > before else min(2 * wait_ms, LONGEST_WAIT_MS)
            self._stopping.wait(wait_ms * self._chance.uniform(0.5, 1.0) / 1000)

    def _serve(self) -> None:
        """Serves one connection until it ends."""
        sock = self._client.socket()
        if not isinstance(sock, Stream):
            return
        poll = select.poll()
        poll.register(self._wake_read, select.POLLIN)
        poll.register(sock, 0)
        began_ms, mask = self._clock.monotonic_ms(), -1
        while not self._stopping.is_set() and self._client.socket() is sock:
            is_reading = self._undone < UNDONE_MESSAGES or not self.connected  # the CONNACK comes in any case
            wanted = select.POLLRDHUP | (select.POLLIN if is_reading else 0) | (
                select.POLLOUT if sock.wants_write() else 0)
            if wanted != mask:
                poll.modify(sock, wanted)
                mask = wanted
            events = poll.poll(0 if self._client.want_write() or (is_reading and sock.pending()) else 500)
            self._obey(sock)
            if self._client.want_write():
                self._client.loop_write()
            sock.flush()
            is_ready = any(event & ~select.POLLOUT for fd, event in events if fd == sock.fileno())
            if is_reading:
                self._read(sock, is_ready)
            elif is_ready:
                raise ConnectionError("lost while too much was waiting")
            self._client.loop_misc()
            if not self.connected and self._clock.monotonic_ms() - began_ms > CONNECT_S * 1000:
                self.last_error = "no CONNACK"
                return
        if self._client.socket() is sock:  # an orderly stop: what is done is acknowledged, or it would all come again
            self._obey(sock)
            self._client.disconnect()
            self._client.loop_write()

    def _read(self, sock: Stream, is_ready: bool) -> None:
        """Hands over what has come; is_ready: the socket has more."""
        is_ready = is_ready and sock.fill()
        while (room := BATCH_MESSAGES - len(self._batch)) > 0:
            if found := sock.take(room):
                self._gather(found)
            elif sock.is_for_paho():
                self._client.loop_read()
                if self._client.socket() is not sock:
                    break
            elif not (is_ready and sock.fill()):
                break
        if self._batch:
            batch, self._batch = self._batch, []
            self._undone += len(batch)
            self.received += len(batch)
            self._on_batch(batch)

    def _gather(self, found: Sequence[Publish]) -> None:
        """As `_received`. paho does not see these, so it pings the broker every KEEPALIVE_S, however busy."""
        broker, connection, batch = self.number, self.connections, self._batch
        for topic, payload, message, retained in found:
            try:
                name = topic.decode()
            except UnicodeDecodeError:
                name = ""
            batch.append(_new(Message, (name, payload, _new(Token, (broker, connection, message)), retained)))

    def _obey(self, sock: Stream) -> None:
        """Sends the PUBACKs and messages that other threads have asked for."""
        try:
            while len(self._wake_read.recv(4096)) == 4096:
                continue
        except BlockingIOError:
            pass
        while self._done:
            _, connection, message = self._done.popleft()
            self._undone -= 1
            if message and self.connected and connection == self.connections:
                sock.acknowledge(message)
        while self.connected and self._out and len(self._in_flight) < IN_FLIGHT:
            with self._out_lock:
                key = next(iter(self._out))
                payload, retain = self._out.pop(key)
            info = self._client.publish(key[0], payload, qos=1, retain=retain)
            self._in_flight.add(info.mid)

    def _lost(self) -> None:
        was_connected, self.connected, self.subscribed = self.connected, False, False
        if was_connected and self._on_state is not None:
            self._on_state(self.number, False)

    def _connected(self, client: paho.Client, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            self.last_error = f"refused by the broker: {reason}"
            return
        self.connections += 1
        self.connected, self.last_error = True, ""
        if self._subscriptions:
            client.subscribe([(topic, 1) for topic in self._subscriptions])
        if self._on_state is not None:
            self._on_state(self.number, True)

    def _subscribed(self, client: paho.Client, userdata: Any, mid: int, reasons: Any, properties: Any) -> None:
        refused = [topic for topic, reason in zip(self._subscriptions, reasons) if reason.is_failure]
        self.subscribed = not refused
        if refused:
            self.last_error = f"the broker's rights forbid {', '.join(refused)}"

    def _disconnected(self, client: paho.Client, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        if not self._stopping.is_set() and not self.last_error:
            self.last_error = f"connection lost: {reason}"
        self._lost()

    def _received(self, client: paho.Client, userdata: Any, message: paho.MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            topic = ""
        token = Token(self.number, self.connections, message.mid if message.qos else 0)
        self._batch.append(Message(topic, bytes(message.payload), token, bool(message.retain)))

    def _acknowledged(self, client: paho.Client, userdata: Any, mid: int, reason: Any, properties: Any) -> None:
        self._in_flight.discard(mid)
        self.published += 1


class Brokers:
    """All the brokers of a replica behind one `done` and one `publish`."""

    def __init__(self, urls: Sequence[str], client_id: str, subscriptions: Sequence[str],
                 on_batch: Callable[[list[Message]], None], *, clock: WaitClock, chance: Random,
                 tls: TlsFiles | None = None, on_state: Callable[[int, bool], None] | None = None, version: int = 4):
        self.links = [Link(number, url, f"{client_id}-{number}", subscriptions, on_batch, clock=clock, chance=chance,
                           tls=tls, on_state=on_state, version=version) for number, url in enumerate(urls)]

    def start(self) -> None:
        for link in self.links:
            link.start()

    def stop(self) -> None:
        for link in self.links:
            link.stop()

    def done(self, tokens: Iterable[Token]) -> None:
        """PUBACK for each of them at the broker it came from."""
        if len(self.links) == 1:
            self.links[0].done(tokens)
            return
        by_link: dict[int, list[Token]] = {}
        for token in tokens:
            by_link.setdefault(token.broker, []).append(token)
        for number, mine in by_link.items():
            self.links[number].done(mine)

    def publish(self, topic: str, payload: bytes, *, retain: bool = False, newest_only: bool = True) -> None:
        """At every broker; one that is away gets it when it is back."""
        for link in self.links:
            link.publish(topic, payload, retain=retain, newest_only=newest_only)

    @property
    def is_heard(self) -> bool:
        """Whether any broker is there."""
        return any(link.connected for link in self.links)

    def status(self) -> list[dict[str, Any]]:
        return [link.status() for link in self.links]


def _left_to_the_loop(client: paho.Client, userdata: Any, sock: Any) -> None:
    """Being set, it keeps paho from writing inside `publish` and `ack`: the link's loop writes once for all."""
