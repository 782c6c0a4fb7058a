"""Makes an enrolment request, as `enroll request` writes it, out of what a board signed with keys that stay there."""

import hashlib
from typing import NamedTuple

import cbor2
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils

from deploy import certificates
from deploy.flash.errors import FlashError
from firmware.crypto.openssl import verify_digest
from firmware.wire import genesis, transaction
from firmware.wire.errors import Refused

_SEQUENCE, _SET, _BITS = b"\x30", b"\x31", b"\x03"
_COMMON_NAME = bytes.fromhex("0603550403")  # OID 2.5.4.3
_ECDSA_SHA256 = bytes.fromhex("300a06082a8648ce3d040302")


class Asked(NamedTuple):
    kid: bytes
    message: bytes  # enrol COSE
    tls_key: ec.EllipticCurvePublicKey


def check(point: bytes, message: bytes, genesis_bytes: bytes) -> Asked:
    """Holds what the board said against itself: one key signed it, for this chain, and it names that TLS key."""
    try:
        tls_key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
        kid, asked = transaction.decode_enrolment(message, genesis.chain_id(genesis_bytes), verify_digest)
    except (Refused, ValueError) as error:
        raise FlashError(f"the board's request does not hold: {error}") from error
    if asked.tls_hash != certificates.spki_hash(tls_key):
        raise FlashError("the board's request names another TLS key than it shows")
    return Asked(kid, message, tls_key)


def to_be_signed(asked: Asked) -> bytes:
    """The certificate request's body (PKCS #10, RFC 2986): version 0, common name = kid, key, no attributes."""
    spki = asked.tls_key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    name = asked.kid.hex().encode()
    attribute = _der(_SEQUENCE, _COMMON_NAME + _der(b"\x0c", name))
    return _der(_SEQUENCE, b"\x02\x01\x00" + _der(_SEQUENCE, _der(_SET, attribute)) + spki + b"\xa0\x00")


def digest_of(asked: Asked) -> bytes:
    return hashlib.sha256(to_be_signed(asked)).digest()


def encode(asked: Asked, signature: bytes) -> bytes:
    """The bytes of request.cbor. signature: r || s of the TLS key over `digest_of`; FlashError."""
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    signed = _der(_BITS, b"\x00" + utils.encode_dss_signature(r, s))
    data = _der(_SEQUENCE, to_be_signed(asked) + _ECDSA_SHA256 + signed)
    try:
        certificates.load_request(data)
    except ValueError as error:
        raise FlashError(f"the board's certificate request does not hold: {error}") from error
    return bytes(cbor2.dumps([asked.message, data]))


def check_certificate(data: bytes, asked: Asked) -> None:
    """FlashError when a certificate is another board's."""
    try:
        key = x509.load_pem_x509_certificate(data).public_key()
    except ValueError as error:
        raise FlashError(f"tls.crt is no certificate: {error}") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or certificates.spki_hash(key) != certificates.spki_hash(
            asked.tls_key):
        raise FlashError(f"tls.crt belongs to another board than this one ({asked.kid.hex()}): move it away, run this "
                         "again, and have the new request approved (enroll replace, where this board takes another's "
                         "place)")


def _der(tag: bytes, body: bytes) -> bytes:
    """One DER element; lengths below 65,536."""
    if len(body) < 0x80:
        return tag + bytes([len(body)]) + body
    size = len(body).to_bytes((len(body).bit_length() + 7) // 8, "big")
    return tag + bytes([0x80 | len(size)]) + size + body
