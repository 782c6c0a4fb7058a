"""Makes transactions that a replica signs with its own key, numbered so that each is taken once."""

import time
from typing import Any

from firmware.crypto.openssl import OpenSSLSigner
from firmware.wire import cose, transaction

VALID_S = 86_400  # label time for which it may still be executed: at speed 600, two minutes of a demo


class Member:
    """A replica as a sender. One instance per process: sequence numbers rise also over a restart, by the clock."""

    def __init__(self, signer: OpenSSLSigner, kid: bytes, chain_id: bytes, channel: str):
        self._signer, self.kid, self._chain_id, self._channel = signer, kid, chain_id, channel
        self._last = 0

    def sign(self, kind: int, body: list[Any], now_s: int) -> bytes:
        """The signed transaction of a type; now_s is label time."""
        self._last = max(self._last + 1, time.time_ns() // 1_000_000)
        payload = transaction.encode(transaction.Transaction(
            transaction.VERSION, kind, self.kid, self._last, now_s + VALID_S, self._channel, body))
        return cose.sign1(payload, self.kid, "tx", self._chain_id, self._signer.sign_digest)
