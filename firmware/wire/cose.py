"""Makes COSE_Sign1 messages with ES256 from a payload and a sign function, and takes them apart strictly (RFC 9052).

Always tag 18, protected exactly {1: -7}, unprotected exactly {4: kid of 8 bytes}, payload attached, signature r || s.
What is signed is the Sig_structure with the external data ["gridseal", 1, chain id, kind]: a message of one chain or
kind is worth nothing on another. Signers emit s <= n/2; verifiers take both halves; `normalise` picks the low one
before anything is hashed, because (r, n - s) verifies as well.
"""

import hashlib
from collections import namedtuple

try:
    from micropython import const
except ImportError:
    def const(value):
        return value

from firmware.wire import cbor
from firmware.wire.errors import Refused

KINDS = ("seal", "tx", "pbft", "header", "witness", "enrol", "update", "config")
KID_BYTES = 8
SIGNATURE_BYTES = 64
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # n of P-256 (SP 800-186, 3.2.1.3)
NO_CHAIN = bytes(32)  # stands for the chain id in what is signed before the chain exists (the genesis' own enrolments)

_PROTECTED = b"\xa1\x01\x26"
_PREFIX = b"\xd2\x84\x43" + _PROTECTED + b"\xa1\x04\x48"
_PAYLOAD_AT = len(_PREFIX) + KID_BYTES
_SIGNATURE_HEAD = b"\x58\x40"
_STRUCTURE_HEAD = b"\x84\x6aSignature1\x43" + _PROTECTED

_EXTERNAL_COUNT = const(16)  # the kinds of one chain and a few more: to encode one costs as much as to hash a vote
_external: dict = {}

Signed = namedtuple("Signed", ("kid", "payload", "signature"))


def external_data(kind, chain_id):
    """Returns the external_aad bytes of a kind on a chain (ValueError for an unknown kind or a wrong length)."""
    place = (kind, bytes(chain_id))
    data = _external.get(place)
    if data is None:
        if kind not in KINDS or len(chain_id) != 32:
            raise ValueError("kind %r, chain id of %d bytes" % (kind, len(chain_id)))
        if len(_external) >= _EXTERNAL_COUNT:
            _external.clear()
        data = _external[place] = cbor.encode(["gridseal", 1, place[1], kind])
    return data


def digest(payload, kind, chain_id):
    """Returns SHA-256 of the Sig_structure: the 32 bytes that are signed (RFC 9052, section 4.4)."""
    data = external_data(kind, chain_id)
    hasher = hashlib.sha256(_STRUCTURE_HEAD + cbor.head(2, len(data)) + data + cbor.head(2, len(payload)))
    hasher.update(payload)
    return hasher.digest()


def sign1(payload, kid, kind, chain_id, sign_digest):
    """Returns the signed message; `sign_digest(32 bytes) -> 64 bytes r || s`."""
    return assemble(kid, payload, sign_digest(digest(payload, kind, chain_id)))


def assemble(kid, payload, signature):
    """Returns the message bytes of a payload and a signature made elsewhere."""
    if len(kid) != KID_BYTES or len(signature) != SIGNATURE_BYTES:
        raise ValueError("kid of %d, signature of %d bytes" % (len(kid), len(signature)))
    return b"".join((_PREFIX, kid, cbor.head(2, len(payload)), payload, _SIGNATURE_HEAD, low_s(signature)))


def parse(message):
    """Returns Signed(kid, payload, signature) of exactly our form; Refused `malformed` for any other bytes."""
    if bytes(message[:len(_PREFIX)]) != _PREFIX:
        raise Refused("malformed", _PREFIX, bytes(message[:len(_PREFIX)]))
    if len(message) <= _PAYLOAD_AT or message[_PAYLOAD_AT] >> 5 != 2:
        raise Refused("malformed", "a payload", len(message))
    payload, end = cbor.decode_from(message, _PAYLOAD_AT)
    if bytes(message[end:end + 2]) != _SIGNATURE_HEAD or len(message) != end + 2 + SIGNATURE_BYTES:
        raise Refused("malformed", "a signature of 64 bytes", len(message) - end)
    return Signed(bytes(message[len(_PREFIX):_PAYLOAD_AT]), payload, bytes(message[end + 2:]))


def check(signed, kind, chain_id, public_key, verify_digest):
    """Raises Refused `bad_signature` unless the signature over the payload verifies under `public_key` (65 bytes)."""
    if not verify_digest(public_key, digest(signed.payload, kind, chain_id), signed.signature):
        raise Refused("bad_signature", public_key, signed.signature)


def low_s(signature):
    """Returns r || min(s, n - s)."""
    if is_low_s(signature):
        return bytes(signature)
    s = int.from_bytes(bytes(signature[32:]), "big")
    if s >= ORDER:
        return bytes(signature)  # no signature at all: left as it is, verification will say so
    return bytes(signature[:32]) + (ORDER - s).to_bytes(32, "big")


def is_low_s(signature):
    """Tells whether s <= n/2."""
    return int.from_bytes(bytes(signature[32:]), "big") <= ORDER >> 1


def normalise(message):
    """Returns the message with the low s; Refused `malformed` as `parse`."""
    signed = parse(message)
    if is_low_s(signed.signature):
        return bytes(message)
    return assemble(signed.kid, signed.payload, signed.signature)
