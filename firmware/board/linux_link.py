"""Makes an agent's link to one of its MQTT brokers: TLS with the area's CA, QoS 1, the next broker when one fails.

paho runs the connection in its own thread; what happens goes to the inbox as events. Reconnecting is done here and not
by paho, because a new connection may be to another broker and every envelope's fate is the outbox's business.
"""

import queue
import random
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import paho.mqtt.client as mqtt

KEEPALIVE_S = 30
CONNECT_S = 5.0
ANSWER_S = 10.0  # for the broker's word on connection and subscriptions
RETRY_S, RETRY_MAX_S = 0.5, 30.0
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Identity(NamedTuple):
    """Files for TLS: the area's CA, this agent's certificate and its key."""

    ca: Path
    certificate: Path
    key: Path


def check_url(url: str) -> str | None:
    """Returns what is wrong with a broker's address, or None."""
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname
    except ValueError as error:
        return str(error)
    if parts.scheme not in ("mqtts", "mqtt") or not host or not port:
        return "expected mqtts://HOST:PORT"
    if parts.scheme == "mqtt" and host not in LOOPBACK:
        return "mqtt:// is without encryption and only for this machine: use mqtts://"
    return None


class Link:
    """Keeps one connection alive. Events: connected (broker number), disconnected, published (token), message."""

    def __init__(self, urls: list[str], identity: Identity, client_id: str, subscriptions: list[str],
                 will: tuple[str, bytes], inbox: "queue.SimpleQueue[tuple[Any, ...]]",
                 log: Callable[[str], None]) -> None:
        self._urls = urls
        self._identity = identity
        self._client_id = client_id
        self._subscriptions = subscriptions
        self._will = will
        self._inbox = inbox
        self._log = log
        self._lock = threading.Lock()
        self._tokens: dict[int, Any] = {}
        self._early: set[int] = set()
        self._client: mqtt.Client | None = None
        self._down = threading.Event()
        self._up = threading.Event()
        self._stop = threading.Event()
        self._last_problem = ""
        for url in urls:
            if url.startswith("mqtt://"):
                log(f"broker {url}: WITHOUT ENCRYPTION, for trials on this machine only")
        self._thread = threading.Thread(target=self._run, name="mqtt", daemon=True)
        self._thread.start()

    def publish(self, topic: str, payload: bytes, token: Any) -> None:
        """Hands a message to the broker with QoS 1; `token` comes back in `published`. Lost when the link is down."""
        client = self._client
        if client is None:
            return
        # Outside our lock: paho holds its own one both here and around _on_publish, which takes ours.
        number = client.publish(topic, payload, qos=1).mid
        with self._lock:
            if client is not self._client:
                return
            if number not in self._early:
                self._tokens[number] = token
                return
            self._early.discard(number)
        self._published(token)

    def change(self) -> None:
        """Leaves this broker for the next."""
        self._down.set()

    def stop(self) -> None:
        self._stop.set()
        self._down.set()
        self._thread.join(CONNECT_S + 2)

    def _run(self) -> None:
        try:
            self._connect_for_ever()
        except Exception as error:  # a defect of ours: the main loop must end with it, not wait for ever
            self._inbox.put(("failed", error))

    def _connect_for_ever(self) -> None:
        index, retry_s = 0, RETRY_S
        while not self._stop.is_set():
            if self._connect(index):
                retry_s = RETRY_S
                self._down.wait()
                self._inbox.put(("disconnected",))
                if not self._stop.is_set():
                    self._log(f"broker {self._urls[index]}: connection ended")
            self._drop()
            if not self._stop.is_set():
                self._stop.wait(retry_s * random.uniform(0.5, 1.0))  # not all agents at once
                retry_s = min(2 * retry_s, RETRY_MAX_S)
                index = (index + 1) % len(self._urls)

    def _connect(self, index: int) -> bool:
        url = self._urls[index]
        parts = urlsplit(url)
        client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=self._client_id, clean_session=False,
                             protocol=mqtt.MQTTv311, reconnect_on_failure=False)
        client.connect_timeout = CONNECT_S
        client.will_set(self._will[0], self._will[1], qos=1)
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        self._down.clear()
        self._up.clear()
        try:
            if parts.scheme == "mqtts":
                client.tls_set_context(tls_context(self._identity))
            client.connect(parts.hostname or "", parts.port or 8883, keepalive=KEEPALIVE_S)
        except (OSError, ValueError) as error:  # ssl's errors are OSErrors; certificate names give ValueErrors
            self._complain(url, str(error))
            return False
        with self._lock:
            self._client = client
            self._tokens, self._early = {}, set()
        client.loop_start()
        if not self._wait_up():
            self._complain(url, self._last_problem or "no answer to the connection")
            return False
        self._last_problem = ""
        self._log(f"broker {url}: connected")
        self._inbox.put(("connected", index))
        return True

    def _wait_up(self) -> bool:
        for _ in range(int(ANSWER_S * 10)):
            if self._up.wait(0.1):
                return True
            if self._down.is_set():
                return False
        return False

    def _drop(self) -> None:
        with self._lock:
            client, self._client = self._client, None
            self._tokens, self._early = {}, set()
        if client is not None:
            client.disconnect()
            client.loop_stop()

    def _complain(self, url: str, problem: str) -> None:
        text = f"broker {url}: {problem}"
        if text != self._last_problem:  # not the same line at every try
            self._last_problem = text
            self._log(text)

    def _on_connect(self, client: mqtt.Client, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            self._last_problem = f"refused: {reason}"
            self._down.set()
            return
        client.subscribe([(topic, 1) for topic in self._subscriptions])

    def _on_subscribe(self, _client: Any, _data: Any, _mid: int, reasons: Any, _properties: Any) -> None:
        if any(reason.is_failure for reason in reasons):
            self._last_problem = "a subscription was refused"
            self._down.set()
            return
        self._up.set()

    def _on_disconnect(self, client: Any, _data: Any, _flags: Any, _reason: Any, _properties: Any) -> None:
        if client is self._client or self._client is None:
            self._down.set()

    def _on_message(self, _client: Any, _data: Any, message: mqtt.MQTTMessage) -> None:
        self._inbox.put(("message", message.topic, bytes(message.payload)))

    def _on_publish(self, _client: Any, _data: Any, mid: int, _reason: Any, _properties: Any) -> None:
        with self._lock:
            if mid not in self._tokens:
                self._early.add(mid)  # the broker was quicker than the thread that is still in publish
                return
            token = self._tokens.pop(mid)
        self._published(token)

    def _published(self, token: Any) -> None:
        if token is not None:
            self._inbox.put(("published", token))


def tls_context(identity: Identity) -> ssl.SSLContext:
    """TLS 1.2 or later, the area's CA and no other, the host's name checked, our certificate shown."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(identity.ca)
    context.load_cert_chain(identity.certificate, identity.key)
    return context
