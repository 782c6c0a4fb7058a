"""Makes committed transactions from a person's wish: signs, sends over MQTT, waits for the receipt and checks it.

A person is whoever has a signing key of its own and a role: the operator and the recovery key that `gateway init` makes
in the area's folder, and laboratories, manufacturers, participants and so on, each in a folder of its own.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from deploy.clock import Clock
from deploy.line import RECEIPT_S, Line, Outcome, Sender, check_receipt
from firmware.crypto.openssl import OpenSSLSigner
from firmware.wire import cose, genesis, identity, transaction
from gateway import config

__all__ = ["Outcome", "Person", "check_receipt"]
VALID_S = 86_400  # label time for which a signed wish may still be executed
IDENTITY = "identity.toml"  # in a person's own folder
_IDENTITY = config.Table({"role": config.choice(*transaction.ROLES), "area": config.name(),
                          "brokers": config.brokers(())})


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

    def line(self, area: str, brokers: list[str], name: str = "tool") -> Line:
        """A connection of this person's own, kept open until it is closed; NoAnswer when no broker answers."""
        return Line(Sender(self.kid, self.genesis, self.chain_id, self.home, self._ca), area, brokers, name)

    def submit(self, area: str, message: bytes, brokers: list[str], wait_s: float = RECEIPT_S) -> Outcome:
        """Sends a transaction to the first broker that answers, and returns what a certified block says of it.

        NoAnswer after `wait_s`; Refused when a gateway answers with something that does not check.
        """
        with self.line(area, brokers) as line:
            return line.submit(message, wait_s)

    def _next_sequence(self) -> int:
        path = self.home / "sequence"
        last = int(path.read_text()) if path.exists() else 0
        sequence = max(last + 1, time.time_ns() // 1_000_000)  # a restored folder must not fall below what it used
        written = path.with_name("sequence.new")  # replaced as a whole: a power cut must not leave an empty one
        written.write_text(f"{sequence}\n")
        written.replace(path)
        return sequence
