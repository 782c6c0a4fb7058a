"""Makes a light node's signature under a header it has checked, and the gateways' header message; reads both strictly.

A witness message is a COSE_Sign1 of kind `witness` over `[kid, channel, height, header]`. The header message (retained,
topic chain/<channel>/header) is `[header, certificate, [height, k, n]]`: the newest header with its certificate, and
how many of the area's n light nodes have signed the header of that other height. The count is a claim; the header
file (wire/headerfile.py) proves one.
"""

from collections import namedtuple

from firmware.wire import cbor, cose
from firmware.wire.errors import check
from firmware.wire.shape import check_fields

MESSAGE_BYTES = 256  # 89 of COSE around a payload of at most 110
HEADER_MESSAGE_BYTES = 16 * 1024  # 128 signatures take 8.5 KiB

Witness = namedtuple("Witness", ("kid", "channel", "height", "header"))
HeaderMessage = namedtuple("HeaderMessage", ("header", "certificate", "height", "k", "n"))


def height_of(header_bytes):
    """Returns the height that 80 bytes of a header name."""
    return int.from_bytes(bytes(header_bytes[76:80]), "big")


def encode(kid, channel, header_bytes):
    """Returns the payload that a light node signs."""
    if len(kid) != cose.KID_BYTES or len(header_bytes) != 80:
        raise ValueError("kid of %d, header of %d bytes" % (len(kid), len(header_bytes)))
    return cbor.encode([bytes(kid), channel, height_of(header_bytes), bytes(header_bytes)])


def decode(payload):
    """Returns the Witness; Refused `malformed`, or `wrong_height` when it is not the header's own."""
    fields = cbor.decode(payload)
    check_fields(fields, ("b8", "t", "u", "b80"))
    found = Witness(*fields)
    check(found.height == height_of(found.header), "wrong_height", height_of(found.header), found.height)
    return found


def sign(kid, channel, header_bytes, chain_id, sign_digest):
    """Returns the signed message."""
    return cose.sign1(encode(kid, channel, header_bytes), kid, "witness", chain_id, sign_digest)


def read(message):
    """Returns (Signed, Witness) of a message whose signature is still unchecked.

    Refused `oversize`, `malformed`, `wrong_height`, or `wrong_key` when the payload names another kid.
    """
    check(len(message) <= MESSAGE_BYTES, "oversize", MESSAGE_BYTES, len(message))
    signed = cose.parse(message)
    found = decode(signed.payload)
    check(found.kid == signed.kid, "wrong_key", signed.kid, found.kid)
    return signed, found


def encode_header_message(header_bytes, certificate, height, k, n):
    """Returns the header message: k of n light nodes have signed the header of `height`; zeros while none has."""
    return cbor.encode([bytes(header_bytes), bytes(certificate), [height, k, n]])


def decode_header_message(data):
    """Returns the HeaderMessage, all of it unchecked; Refused `oversize` or `malformed`."""
    check(len(data) <= HEADER_MESSAGE_BYTES, "oversize", HEADER_MESSAGE_BYTES, len(data))
    fields = cbor.decode(data)
    check_fields(fields, ("b80", "b", "l"))
    check_fields(fields[2], ("u", "u", "u"))
    return HeaderMessage(fields[0], fields[1], *fields[2])
