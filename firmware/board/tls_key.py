"""Makes a board's TLS key where it stays, and signs the request for its certificate; used once, when it is flashed.

The file is SEC 1's EC private key (RFC 5915) as PEM, which mbedTLS and OpenSSL read.
"""

import binascii
import os

from firmware.board.micro import exists, read_file, replace_file
from firmware.crypto.signer import SoftwareSigner
from firmware.wire.cose import ORDER

NAME = "tls.key"  # of config.py, as on a Pi
_BEGIN, _END = "-----BEGIN EC PRIVATE KEY-----\n", "-----END EC PRIVATE KEY-----\n"
# ECPrivateKey: version 1, 32 bytes of key; then P-256's name, then the public point
_HEAD, _CURVE = b"\x30\x77\x02\x01\x01\x04\x20", b"\xa0\x0a\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\xa1\x44\x03\x42\x00"
_LINE = 64


def public(folder, nic):
    """Returns the 65 bytes of the public key; makes the key where there is none. nic: the radio, switched on before
    random numbers are drawn (esp32_start.key says why)."""
    path = folder + "/" + NAME
    if not exists(path):
        nic.active(True)
        secret = bytes(32)
        while not 0 < int.from_bytes(secret, "big") < ORDER:
            secret = os.urandom(32)
        replace_file(path, _pem(_HEAD + secret + _CURVE + SoftwareSigner(secret, os.urandom).public_key()))
    return _signer(path).public_key()


def sign(folder, h32):
    """Returns r || s over a digest."""
    return _signer(folder + "/" + NAME).sign_digest(h32)


def _signer(path):
    text = read_file(path).decode()
    der = binascii.a2b_base64(text[len(_BEGIN):len(text) - len(_END)])
    return SoftwareSigner(der[len(_HEAD):len(_HEAD) + 32], os.urandom)


def _pem(der):
    text = binascii.b2a_base64(der).decode().strip()
    lines = [text[at:at + _LINE] + "\n" for at in range(0, len(text), _LINE)]
    return (_BEGIN + "".join(lines) + _END).encode()
