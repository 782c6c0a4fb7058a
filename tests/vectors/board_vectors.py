"""Prints a verdict for each line of a file of vectors; runs in MicroPython: board_vectors.py FILE

A line is an operation and its values in hex or decimal, parted by blanks ("-": nothing).
"""

import sys

from firmware.crypto import p256
from firmware.crypto.signer import SoftwareSigner
from firmware.wire import cbor, cose, merkle
from firmware.wire.errors import Refused


def unhex(text):
    return b"" if text == "-" else bytes.fromhex(text)


def verify(public65, h32, sig64):
    return p256.verify_digest(unhex(public65), unhex(h32), unhex(sig64))


def sign(d32, h32):
    signer = SoftwareSigner(unhex(d32))
    return (signer.public_key() + signer.sign_digest(unhex(h32))).hex()


def code(data):
    return cbor.encode(cbor.decode(unhex(data))).hex()


def form(message):
    signed = cose.parse(unhex(message))
    return (signed.kid + signed.signature).hex()


def included(leaf_hash, index, size, root, *steps):
    merkle.check_path(unhex(leaf_hash), int(index), int(size), [unhex(step) for step in steps], unhex(root))
    return True


OPERATIONS: dict = {"verify": verify, "sign": sign, "code": code, "form": form, "included": included}

with open(sys.argv[1]) as file:
    for line in file:
        words = line.split()
        try:
            print(OPERATIONS[words[0]](*words[1:]))
        except Refused as refusal:
            print("refused", refusal.reason)
