"""Makes signed messages of a replica, and opens those of the members: COSE_Sign1 under the chain's id."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Protocol

from firmware.wire import cose
from firmware.wire.certificate import Member
from firmware.wire.errors import Refused

# A message is looked at before its signature is checked, so it is taken apart twice in a row. Each holds it whole: two.
parse = lru_cache(maxsize=2)(cose.parse)


class Signer(Protocol):
    """What `firmware.crypto` makes: a key that signs digests."""

    def public_key(self) -> bytes: ...

    def sign_digest(self, digest: bytes, /) -> bytes: ...


class CoseKeys:
    """`signer` must be the key of one of `members`, else ValueError; verify_digest(public key, digest, signature)."""

    def __init__(self, signer: Signer, members: Sequence[Member], chain_id: bytes,
                 verify_digest: Callable[[bytes, bytes, bytes], bool]):
        public_key = signer.public_key()
        own = [member for member in members if member.public_key == public_key]
        if len(own) != 1:
            raise ValueError("the signing key is none of the members'")
        self._signer = signer
        self._kid = own[0].kid
        self._members = {member.kid: (index, member.public_key) for index, member in enumerate(members)}
        self._chain_id = chain_id
        self._verify_digest = verify_digest

    def sign(self, kind: str, payload: bytes) -> bytes:
        return bytes(cose.sign1(payload, self._kid, kind, self._chain_id, self._signer.sign_digest))

    def open(self, kind: str, message: bytes) -> tuple[int, bytes]:
        """(id, payload) of a member's message; raises Refused `malformed`, `unknown_signer` or `bad_signature`."""
        signed = parse(message)
        member = self._members.get(signed.kid)
        if member is None:
            raise Refused("unknown_signer", None, signed.kid)
        cose.check(signed, kind, self._chain_id, member[1], self._verify_digest)
        return member[0], signed.payload
