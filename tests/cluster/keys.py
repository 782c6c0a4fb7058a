"""Makes the members' keys of a simulated cluster from a seed: HMAC in place of ES256 for speed, or real ES256.

The HMAC keys stand behind the interface of every signer, so that messages, certificates and `CoseKeys` are the real
ones. Nobody can sign for another: a machine is handed its own signer only, and `verify_digest` looks the secret up by
the public key.
"""

import hashlib
import hmac
from collections.abc import Callable
from typing import Any

from firmware.wire.certificate import Member
from firmware.wire.errors import Refused
from firmware.wire.identity import kid_of

CACHE_MESSAGES = 50_000  # messages whose verdict is remembered: every receiver of a broadcast asks the same question


class HmacSigner:
    """Signs by HMAC-SHA512 with the s half kept low, as every signer of ours does."""

    deterministic = True

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._public = b"\x04" + hashlib.sha512(b"public" + secret).digest()

    def public_key(self) -> bytes:
        return self._public

    def sign_digest(self, digest: bytes) -> bytes:
        signature = bytearray(hmac.digest(self._secret, digest, "sha512"))
        signature[32] &= 0x7F
        return bytes(signature)


class Keyring:
    """All members' keys: `members` sorted by kid as the set demands, `signers` in the same order."""

    def __init__(self, seed: int, size: int, is_real: bool) -> None:
        secrets = [hashlib.sha256(f"cluster {seed} {number}".encode()).digest() for number in range(size)]
        if is_real:
            from firmware.crypto.openssl import OpenSSLSigner, verify_digest

            signers: list[Any] = [OpenSSLSigner.from_scalar(secret) for secret in secrets]
            self.verify_digest: Callable[[bytes, bytes, bytes], bool] = verify_digest
        else:
            signers = [HmacSigner(secret) for secret in secrets]
            self.verify_digest = self._verify_hmac
        signers.sort(key=lambda signer: kid_of(signer.public_key()))
        self.signers = signers
        self._by_public = {signer.public_key(): signer for signer in signers}
        self.members = [
            Member(kid_of(signer.public_key()), signer.public_key(), hashlib.sha256(signer.public_key()).digest())
            for signer in signers
        ]

    def _verify_hmac(self, public_key: bytes, digest: bytes, signature: bytes) -> bool:
        signer = self._by_public.get(public_key)
        return signer is not None and hmac.compare_digest(signer.sign_digest(digest), signature)


class WatchedKeys:
    """A member's keys as its Replica sees them: the real object, each verdict remembered, each signature reported."""

    def __init__(self, keys: Any, index: int, verdicts: dict, on_signed: Callable[[int, str, bytes], None]) -> None:
        self._keys = keys
        self._index = index
        self._verdicts = verdicts
        self._on_signed = on_signed

    def sign(self, kind: str, payload: bytes) -> bytes:
        self._on_signed(self._index, kind, payload)
        message: bytes = self._keys.sign(kind, payload)
        return message

    def open(self, kind: str, message: bytes) -> tuple[int, bytes]:
        verdict = self._verdicts.get((kind, message))
        if verdict is None:
            try:
                verdict = self._keys.open(kind, message)
            except Refused as refused:
                verdict = refused
            if len(self._verdicts) > CACHE_MESSAGES:
                self._verdicts.clear()
            self._verdicts[kind, message] = verdict
        if isinstance(verdict, Refused):
            raise Refused(verdict.reason, verdict.expected, verdict.found)
        result: tuple[int, bytes] = verdict
        return result
