"""Makes certified outcomes from signed transactions over one MQTT connection that stays open to one of several brokers.

The broker's PUBACK means nothing here: a message is sent again until a receipt comes that q replicas have signed. When
the connection is gone for a whole pause, the next broker of the list is tried.
"""

from __future__ import annotations

import queue
import socket
import ssl
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import paho.mqtt.client as mqtt

from deploy.errors import NoAnswer
from firmware.crypto.openssl import verify_digest
from firmware.wire import ack, certificate, cose, epochs, genesis, header, merkle, seal, topics
from firmware.wire.errors import Refused
from firmware.wire.reasons import REASONS

CONNECT_S, RECEIPT_S = 10.0, 30.0
RESEND_S = 3.0  # QoS 1 reaches the broker; a gateway that just starts may have missed it
KEEPALIVE_S = 30
REPLIES = 64  # receipts not looked at yet; one transaction is under way at a time, so what is older is of no use


class Outcome(NamedTuple):
    """What the chain made of a transaction: the block's height and the result code (0 good, else a reason)."""

    height: int
    code: int

    @property
    def reason(self) -> str:
        return REASONS[self.code] if self.code < len(REASONS) else f"code {self.code}"


class Sender(NamedTuple):
    """Who speaks on a line: its kid, the genesis it trusts, the folder with tls.crt and tls.key, the CA's file."""

    kid: bytes
    genesis: genesis.Genesis
    chain_id: bytes
    home: Path
    ca: Path


class Line:
    """One sender's connection; one thread at a time submits. `name` tells several lines of one sender apart."""

    def __init__(self, sender: Sender, area: str, brokers: list[str], name: str = "tool") -> None:
        """Connects to the first broker that answers; NoAnswer when none does."""
        self._sender, self._area, self._brokers, self._name = sender, area, list(brokers), name
        self._inbox: queue.Queue[bytes] = queue.Queue(REPLIES)
        self._handovers: dict[int, bytes] = {}  # by the epoch that began with it; as brokers keep them, unchecked
        self._next = 0  # index of the broker to try first
        self._client = self._connect()

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection."""
        self._client.disconnect()
        self._client.loop_stop()

    def submit(self, message: bytes, wait_s: float = RECEIPT_S, resend_s: float = RESEND_S) -> Outcome:
        """Sends a transaction and returns what a certified block says of it.

        NoAnswer after `wait_s`; Refused when a gateway answers with something that does not check."""
        wanted = cose.parse(message)
        topic = topics.agent_topic(self._area, self._sender.kid, "tx")
        end = time.monotonic() + wait_s
        while time.monotonic() < end:
            self._client.publish(topic, message, qos=1)
            resend = min(end, time.monotonic() + resend_s)
            while (left_s := resend - time.monotonic()) > 0:
                try:
                    found = self.read(self._inbox.get(timeout=left_s), wanted)
                except queue.Empty:
                    break
                if found is not None:
                    return found
            if not self._client.is_connected():
                self.close()
                self._client = self._connect()
        raise NoAnswer(f"no certified receipt in {wait_s:.0f} s; is a gateway of this area running?")

    def read(self, data: bytes, wanted: cose.Signed) -> Outcome | None:
        """What a receipt proves of the wanted transaction; None when it is about others; Refused."""
        receipt = ack.decode_receipt(data)
        payload_hash = seal.payload_hash(wanted.payload)
        for item in receipt.items:
            if item.payload_hash == payload_hash:
                known = [self._handovers[epoch] for epoch in sorted(self._handovers)]
                outcome = check_receipt(receipt, item, self._sender.genesis, self._sender.chain_id, known)
                leaf = merkle.leaf_hash(cose.assemble(wanted.kid, wanted.payload, item.signature))
                merkle.check_path(leaf, item.index, item.size, item.path, header.decode(receipt.header).root)
                return outcome
        return None

    def _connect(self) -> mqtt.Client:
        problems = []
        for _ in self._brokers:
            url = self._brokers[self._next % len(self._brokers)]
            self._next += 1
            client, ready = self._client_for(url)
            address = urlsplit(url)
            try:
                client.connect(address.hostname or "", address.port or 8883, KEEPALIVE_S)
                client.loop_start()
                ready.get(timeout=CONNECT_S)
                self._next -= 1
                return client
            except (OSError, queue.Empty) as error:
                client.loop_stop()
                problems.append(f"{url}: {error or 'no answer'}")
        raise NoAnswer("no broker of this area answers: " + "; ".join(problems))

    def _client_for(self, url: str) -> tuple[mqtt.Client, queue.Queue[bool]]:
        reply = topics.agent_topic(self._area, self._sender.kid, "reply")
        epochs_topic = topics.chain_epoch(self._area, "trade", "")
        ready: queue.Queue[bool] = queue.Queue()

        def take(_client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
            if message.topic.startswith(epochs_topic):
                number = message.topic[len(epochs_topic):]
                if number.isdecimal() and len(number) < 10:
                    self._handovers[int(number)] = bytes(message.payload)
                return
            if message.topic != reply:  # amqtt sends who comes again what others have subscribed to as well
                return
            while True:
                try:
                    return self._inbox.put_nowait(bytes(message.payload))
                except queue.Full:
                    self._inbox.get()

        client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=f"{self._sender.kid.hex()}-{self._name}")
        client.on_message = take
        client.on_socket_open = _hurry
        client.on_subscribe = lambda *_args: ready.put(True)
        client.on_connect = lambda made, *_args: made.subscribe([(reply, 1), (epochs_topic + "+", 1)])
        if urlsplit(url).scheme == "mqtts":
            home = self._sender.home
            client.tls_set(str(self._sender.ca), str(home / "tls.crt"), str(home / "tls.key"),
                           tls_version=ssl.PROTOCOL_TLS_CLIENT)
        return client, ready


def _hurry(_client: object, _data: object, line: Any) -> None:
    """Else the system holds a message back until the one before it is acknowledged: 40 ms of each answer."""
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def check_receipt(receipt: ack.Receipt, item: ack.ItemProof, chain: genesis.Genesis, chain_id: bytes,
                  handovers: Sequence[bytes] = ()) -> Outcome:
    """Returns the Outcome at an item's place in a certified block; Refused otherwise. handovers: of the epochs from 1
    on, each checked here against the one before, up to the block's.

    That the item stands there, its path proves to whoever has its payload (`Line.submit`)."""
    meta = header.decode_meta(receipt.meta)
    top = header.decode(receipt.header)
    voted = certificate.decode(receipt.certificate)
    if meta.epoch > len(handovers):
        raise Refused("wrong_epoch", len(handovers), meta.epoch)
    sets = epochs.walk(chain.members, [epochs.decode(data) for data in handovers[:meta.epoch]], chain.channels,
                       chain_id, verify_digest)
    certificate.check_certificate(voted, receipt.header, sets[meta.epoch], meta.epoch, meta.channel, chain_id,
                                  verify_digest)
    merkle.check_path(merkle.leaf_hash(receipt.meta), 0, meta.count + 1, receipt.meta_path, top.root)
    if header.results_hash(receipt.results) != meta.results_hash or len(receipt.results) != meta.count:
        raise Refused("wrong_digest", meta.results_hash, header.results_hash(receipt.results))
    if not 0 < item.index <= meta.count or item.size != meta.count + 1:
        raise Refused("not_included", meta.count, item.index)
    return Outcome(top.height, receipt.results[item.index - 1])
