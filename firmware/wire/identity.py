"""Makes key identifiers from P-256 public keys: COSE_Key, thumbprint (RFC 9679) and the 8-byte kid."""

import hashlib

from firmware.wire import cbor
from firmware.wire.errors import Refused

PUBLIC_KEY_BYTES = 65  # 04 || x || y (SEC 1, 2.3.3)


def encode_cose_key(public_key):
    """Returns the COSE_Key map {1: 2, -1: 1, -2: x, -3: y} of an uncompressed point of 65 bytes."""
    if len(public_key) != PUBLIC_KEY_BYTES or public_key[0] != 4:
        raise ValueError("not an uncompressed point")
    return cbor.encode({1: 2, -1: 1, -2: bytes(public_key[1:33]), -3: bytes(public_key[33:])})


def decode_cose_key(data):
    """Returns the 65 bytes of the point; Refused `malformed`. That it is on the curve, the verifier checks."""
    value = cbor.decode(data)
    if not isinstance(value, dict) or sorted(value) != [-3, -2, -1, 1] or value[1] != 2 or value[-1] != 1:
        raise Refused("malformed", "an EC2 key on P-256", value)
    for label in (-2, -3):
        if not isinstance(value[label], bytes) or len(value[label]) != 32:
            raise Refused("malformed", "32 bytes", value[label])
    return b"\x04" + value[-2] + value[-3]


def thumbprint(public_key):
    """Returns the 32-byte COSE Key Thumbprint (RFC 9679, SHA-256)."""
    return hashlib.sha256(encode_cose_key(public_key)).digest()


def kid_of(public_key):
    """Returns the 8-byte kid: the thumbprint's beginning."""
    return thumbprint(public_key)[:8]
