"""Makes committed transactions from a person's wish: signs, sends over MQTT, waits for the receipt and checks it.

A person is whoever has a signing key of its own and a role: the operator and the recovery key that `gateway init` makes
in the area's folder, and laboratories, manufacturers, participants and so on, each in a folder of its own.
"""

from __future__ import annotations

import queue
import ssl
import time
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import paho.mqtt.client as mqtt

from deploy.clock import Clock
from deploy.errors import NoAnswer
from firmware.crypto.openssl import OpenSSLSigner, verify_digest
from firmware.wire import ack, certificate, cose, genesis, header, identity, merkle, seal, topics, transaction
from firmware.wire.errors import REASONS, Refused
from gateway import config

VALID_S = 86_400  # label time for which a signed wish may still be executed
CONNECT_S, RECEIPT_S = 10.0, 30.0
RESEND_S = 3.0  # QoS 1 reaches the broker; a gateway that just starts may have missed it
IDENTITY = "identity.toml"  # in a person's own folder
_IDENTITY = config.Table({"role": config.choice(*transaction.ROLES), "area": config.name(),
                          "brokers": config.brokers(())})


class Outcome(NamedTuple):
    """What the chain made of a transaction: the block's height and the result code (0 good, else a reason)."""

    height: int
    code: int

    @property
    def reason(self) -> str:
        return REASONS[self.code] if self.code < len(REASONS) else f"code {self.code}"


class Person:
    """Somebody with a signing key and a TLS certificate: in an area's folder (`operator/`), or by `Person.open`."""

    area: str  # of one with a folder of its own; so are its brokers
    brokers: list[str]

    def __init__(self, area_folder: Path, role: str = "operator") -> None:
        self.folder = Path(area_folder)
        self._take(self.folder / role, role, self.folder / "genesis.cbor", self.folder / "ca" / "ca.crt")

    @classmethod
    def open(cls, home: Path) -> Person:
        """Somebody with a folder of its own, made by `enroll request --role ROLE`: also knows `area` and `brokers`.

        ConfigError when there is no such folder; FileNotFoundError when the request was not approved yet.
        """
        home = Path(home)
        settings = config.load(home / IDENTITY, _IDENTITY)
        if not (home / "tls.crt").exists():
            raise FileNotFoundError(f"{home} has no certificate yet: the operator approves it with gridseal enroll "
                                    "approve")
        person = cls.__new__(cls)
        person.folder, person.area, person.brokers = home, settings["area"], list(settings["brokers"])
        person._take(home, settings["role"], home / "genesis.cbor", home / "ca.crt")
        return person

    def _take(self, home: Path, role: str, genesis_path: Path, ca: Path) -> None:
        self.home, self.role, self._ca = home, role, ca
        self.signer = OpenSSLSigner.load(home / "signing.key")
        self.kid = identity.kid_of(self.signer.public_key())
        self.genesis_bytes = genesis_path.read_bytes()
        self.genesis = genesis.decode(self.genesis_bytes)
        self.chain_id = genesis.chain_id(self.genesis_bytes)

    def sign(self, kind: int, body: list[Any], clock: Clock) -> bytes:
        """Returns the signed transaction of type `kind`; sequence numbers come from a file and always rise."""
        valid_until_s = clock.now_ms() // 1000 + VALID_S
        payload = transaction.encode(transaction.Transaction(
            transaction.VERSION, kind, self.kid, self._next_sequence(), valid_until_s, "trade", body))
        return cose.sign1(payload, self.kid, "tx", self.chain_id, self.signer.sign_digest)

    def submit(self, area: str, message: bytes, brokers: list[str], wait_s: float = RECEIPT_S) -> Outcome:
        """Sends a transaction to the first broker that answers, and returns what a certified block says of it.

        NoAnswer after `wait_s`; Refused when a gateway answers with something that does not check.
        """
        wanted = seal.payload_hash(cose.parse(message).payload)
        inbox: queue.Queue[bytes] = queue.Queue()
        client = self._connect(area, brokers, inbox)
        try:
            return self._await_receipt(client, area, message, wanted, inbox, wait_s)
        finally:
            client.disconnect()
            client.loop_stop()

    def _await_receipt(self, client: mqtt.Client, area: str, message: bytes, wanted: bytes,
                       inbox: queue.Queue[bytes], wait_s: float) -> Outcome:
        end = time.monotonic() + wait_s
        while time.monotonic() < end:
            client.publish(topics.agent_topic(area, self.kid, "tx"), message, qos=1)
            resend = min(end, time.monotonic() + RESEND_S)
            while (left_s := resend - time.monotonic()) > 0:
                try:
                    found = self._read(inbox.get(timeout=left_s), wanted)
                except queue.Empty:
                    break
                if found is not None:
                    return found
        raise NoAnswer(f"no certified receipt in {wait_s:.0f} s; is a gateway of this area running?")

    def _read(self, data: bytes, wanted: bytes) -> Outcome | None:
        receipt = ack.decode_receipt(data)
        for item in receipt.items:
            if item.payload_hash == wanted:
                return check_receipt(receipt, item, self.genesis, self.chain_id)
        return None

    def _connect(self, area: str, brokers: list[str], inbox: queue.Queue[bytes]) -> mqtt.Client:
        problems, reply = [], topics.agent_topic(area, self.kid, "reply")

        def take(_client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
            if message.topic == reply:  # amqtt sends who comes again what others have subscribed to as well
                inbox.put(bytes(message.payload))

        for url in brokers:
            client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=f"{self.kid.hex()}-tool")
            client.on_message = take
            address = urlsplit(url)
            if address.scheme == "mqtts":
                client.tls_set(str(self._ca), str(self.home / "tls.crt"),
                               str(self.home / "tls.key"), tls_version=ssl.PROTOCOL_TLS_CLIENT)
            ready: queue.Queue[bool] = queue.Queue()
            client.on_subscribe = lambda *_args, ready=ready: ready.put(True)
            client.on_connect = lambda made, *_args: made.subscribe(reply, 1)
            try:
                client.connect(address.hostname or "", address.port or 8883, 30)
                client.loop_start()
                ready.get(timeout=CONNECT_S)
                return client
            except (OSError, queue.Empty) as error:
                client.loop_stop()
                problems.append(f"{url}: {error or 'no answer'}")
        raise NoAnswer("no broker of this area answers: " + "; ".join(problems))

    def _next_sequence(self) -> int:
        path = self.home / "sequence"
        last = int(path.read_text()) if path.exists() else 0
        sequence = max(last + 1, time.time_ns() // 1_000_000)  # a restored folder must not fall below what it used
        path.write_text(f"{sequence}\n")
        return sequence


def check_receipt(receipt: ack.Receipt, item: ack.ItemProof, chain: genesis.Genesis, chain_id: bytes) -> Outcome:
    """Returns the Outcome that a receipt proves for one of its items; Refused otherwise."""
    meta = header.decode_meta(receipt.meta)
    top = header.decode(receipt.header)
    voted = certificate.decode(receipt.certificate)
    certificate.check_certificate(voted, receipt.header, chain.members, meta.epoch, meta.channel, chain_id,
                                  verify_digest)
    merkle.check_path(merkle.leaf_hash(receipt.meta), 0, meta.count + 1, receipt.meta_path, top.root)
    if header.results_hash(receipt.results) != meta.results_hash or len(receipt.results) != meta.count:
        raise Refused("wrong_digest", meta.results_hash, header.results_hash(receipt.results))
    if not 0 < item.index <= meta.count or item.size != meta.count + 1:
        raise Refused("not_included", meta.count, item.index)
    return Outcome(top.height, receipt.results[item.index - 1])
