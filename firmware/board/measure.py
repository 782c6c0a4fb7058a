"""Makes the measurement of a running program out of its files: what every seal says of the firmware it comes from."""

import hashlib
import os

from firmware.wire import cbor

CHUNK_BYTES = 512
FOLDER_BIT = 0x4000  # of ilistdir's kind


def measure(root):
    """SHA-256 of CBOR [[path, size, SHA-256], ...] over the files below `root`, a folder `firmware`, sorted by path."""
    paths = _paths_below(root)
    paths.sort()
    hasher = hashlib.sha256(cbor.head(4, len(paths)))  # row by row: all of them take 3 KiB in one piece
    for path in paths:
        size, digest = _hash_of(path)
        hasher.update(cbor.encode([path[root.rfind("/") + 1:], size, digest]))
    return hasher.digest()


def _paths_below(folder):
    found = []
    for entry in os.ilistdir(folder):  # type: ignore[attr-defined]  # a board's
        path = folder + "/" + entry[0]
        if entry[1] & FOLDER_BIT:
            found.extend(_paths_below(path))
        else:
            found.append(path)
    return found


def _hash_of(path):
    """(size, SHA-256) of a file."""
    hasher, size, chunk = hashlib.sha256(), 0, bytearray(CHUNK_BYTES)
    with open(path, "rb") as file:
        got = file.readinto(chunk)
        while got:
            hasher.update(memoryview(chunk)[:got])
            size += got
            got = file.readinto(chunk)
    return size, hasher.digest()
