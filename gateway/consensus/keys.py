"""Makes signed messages of a replica, and opens those of the members: COSE_Sign1 under the chain's id."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from hashlib import sha256
from typing import Protocol

from firmware.wire import cbor, cose
from firmware.wire.certificate import Member
from firmware.wire.errors import Refused

_new = tuple.__new__  # a named tuple without the call between
_HEAD = b"\xd2\x84\x43\xa1\x01\x26\xa1\x04\x48"  # tag 18, protected {1: -7}, unprotected {4: 8 bytes}
_KID_AT, _SIZE_AT, _PAYLOAD_AT, _REST = 9, 18, 19, 19 + 2 + 64


# A message is looked at before its signature is checked, so it is taken apart twice in a row. Each holds it whole: two.
@lru_cache(maxsize=2)
def parse(message: bytes) -> cose.Signed:
    """As `cose.parse`, which has the last word; a payload of 24..255 bytes, as all votes have, in a quarter of the
    time."""
    if message[:_KID_AT] == _HEAD and len(message) > _REST and message[_SIZE_AT - 1] == 0x58:
        size = message[_SIZE_AT]
        if size > 23 and len(message) == _REST + size and message[-66:-64] == b"\x58\x40":
            return _new(cose.Signed, (message[_KID_AT:_SIZE_AT - 1], message[_PAYLOAD_AT:-66], message[-64:]))
    return cose.parse(message)


class Signer(Protocol):
    """What `firmware.crypto` makes: a key that signs digests."""

    def public_key(self) -> bytes: ...

    def sign_digest(self, digest: bytes, /) -> bytes: ...


class CoseKeys:
    """`signer` must be the key of one of `members`, else ValueError; None: an observer's, who signs nothing.
    verify_digest(public key, digest, signature)."""

    def __init__(self, signer: Signer | None, members: Sequence[Member], chain_id: bytes,
                 verify_digest: Callable[[bytes, bytes, bytes], bool]):
        self._signer, self._kid = signer, b""
        if signer is not None:
            public_key = signer.public_key()
            own = [member for member in members if member.public_key == public_key]
            if len(own) != 1:
                raise ValueError("the signing key is none of the members'")
            self._kid = own[0].kid
        self._members = {member.kid: (index, member.public_key) for index, member in enumerate(members)}
        self._chain_id = chain_id
        self._verify_digest = verify_digest
        self._beginnings: dict[str, bytes] = {}  # kind: what is hashed before a payload of 24..255 bytes and its size

    def sign(self, kind: str, payload: bytes) -> bytes:
        if self._signer is None:
            raise ValueError("an observer signs nothing")
        return bytes(cose.assemble(self._kid, payload, self._signer.sign_digest(self._digest(kind, payload))))

    def open(self, kind: str, message: bytes) -> tuple[int, bytes]:
        """(id, payload) of a member's message; raises Refused `malformed`, `unknown_signer` or `bad_signature`."""
        signed = parse(message)
        member = self._members.get(signed.kid)
        if member is None:
            raise Refused("unknown_signer", None, signed.kid)
        if not self._verify_digest(member[1], self._digest(kind, signed.payload), signed.signature):
            raise Refused("bad_signature", member[1], signed.signature)
        return member[0], signed.payload

    def _digest(self, kind: str, payload: bytes) -> bytes:
        """As `cose.digest`; the beginning, which all votes share, is made once."""
        if not 23 < len(payload) < 256:
            return bytes(cose.digest(payload, kind, self._chain_id))
        beginning = self._beginnings.get(kind)
        if beginning is None:
            beginning = self._beginnings[kind] = _beginning(kind, self._chain_id)
        return sha256(beginning + bytes((len(payload),)) + payload).digest()


def _beginning(kind: str, chain_id: bytes) -> bytes:
    """The Sig_structure up to the size of a payload of 24..255 bytes (RFC 9052, section 4.4)."""
    external = cose.external_data(kind, chain_id)
    return b"\x84\x6aSignature1\x43\xa1\x01\x26" + cbor.head(2, len(external)) + external + b"\x58"
