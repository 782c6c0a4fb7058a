"""Makes a verified version in the spare slot out of a signed manifest and pieces that come in any state of the world.

Theory. A package is a manifest, `[1, model, counter, [[name, size, SHA-256], ...]]` signed as COSE_Sign1 of kind
"update" for this chain by the operator's (or the recovery) key of the genesis, and the files it lists. The spare slot
is written as one stream: the manifest first, then the files in its order. Nothing is asked for before signature, model
and counter are good; each file is read back and hashed as soon as its last byte is there, and all of them once more
before the slot is made valid; only after that does the caller switch (boot.py). Until then the running slot is
untouched. The stream's first bytes say whose it is, so whatever interrupts it, the same offer goes on at the first file
that is not whole; another offer begins anew. What is on the way (topic `update`) and what the agent wants (topic
`query`) is not signed and need not be: bytes that do not give the manifest's hashes are asked for again, then given up.

Loaded when an offer comes, dropped afterwards. A store has limit (bytes of an image), piece_bytes (of one message, as
many as it can hold), open(bytes of the index, bytes of the stream), read(offset, buffer), begin(), write(offset, data),
finish(index, manifest): board/slots.py, and board/linux_slots.py. It is written from sectors' beginnings on.
"""

import hashlib

from firmware import romfs
from firmware.wire import cbor, cose, genesis, identity
from firmware.wire.errors import check
from firmware.wire.shape import check_fields

VERSION = 1
MANIFEST = "manifest.cbor"
MANIFEST_BYTES = 12288  # a Pi's lists a hundred files, a board's sixty
FILES = 200
NAME_BYTES = 64
PREFIX = "firmware/"
SIGNERS = ("operator", "recovery")
RETRIES = 3  # of a file whose bytes do not give its hash
CHUNK_BYTES = 512  # read at once for a hash

# Messages, CBOR. To the agent [1, "offer", manifest COSE] and [1, "data", counter, offset, bytes]; from it
# [1, "update", counter, offset, size, state, text] with one of these states; an offer that is refused, or runs already,
# is named by its mark in the place of an offset, for its counter may be nobody's. `size`: how many bytes are wanted.
WANT, INSTALLED, CONFIRMED, FAILED, REFUSED, RUNS, SAFE = (
    "want", "installed", "confirmed", "failed", "refused", "runs", "safe")


class Manifest:
    """A signed manifest whose signature, shape and model are good. `rows()` gives (name, size, SHA-256) in order."""

    def __init__(self, message, chain_id, keys, verify_digest):
        """message: COSE bytes; keys: {kid: public key} of who may sign. Refused, naming what is wrong."""
        check(len(message) <= MANIFEST_BYTES, "oversize", MANIFEST_BYTES, len(message))
        signed = cose.parse(message)
        check(signed.kid in keys, "unknown_signer", "operator or recovery key", signed.kid)
        cose.check(signed, "update", chain_id, keys[signed.kid], verify_digest)
        self.message = data = bytes(message)
        self.end = len(data) - 2 - cose.SIGNATURE_BYTES  # of the payload, which is looked at where it lies
        at = self.end - len(signed.payload)
        check(data[at] == 0x84, "malformed", "an array of four", data[at])
        version, at = cbor.decode_from(data, at + 1)
        check(version == VERSION, "wrong_version", VERSION, version)
        self.model, at = cbor.decode_from(data, at)
        self.counter, at = cbor.decode_from(data, at)
        check_fields([self.model, self.counter], ("t", "u"))
        self._count, self.rows_at = _array_head(data, at)
        check(0 < self._count <= FILES, "malformed", FILES, self._count)
        self.size = len(data)  # of the stream
        last = ""
        for name, size, _ in self.rows():
            check(name.startswith(PREFIX) and last < name and len(name) <= NAME_BYTES and ".." not in name,
                  "malformed", "rising names below " + PREFIX, name)
            last = name
            self.size += size

    def rows(self):
        """Gives (name, size, SHA-256), decoded one by one: all of them at once are more than a board can spare."""
        at = self.rows_at
        for _ in range(self._count):
            row, at = cbor.decode_from(self.message, at)
            check_fields(row, ("t", "u", "b32"))
            yield row[0], row[1], row[2]
        check(at == self.end, "malformed", at, self.end)

    def names(self):
        """[(name, size), ...] of a slot's stream, for firmware/romfs.py."""
        return [(MANIFEST, len(self.message))] + [(row[0], row[1]) for row in self.rows()]

    def measurement(self):
        """SHA-256 of the file list: what every seal of this version carries."""
        hasher = hashlib.sha256(cbor.head(4, self._count))
        for row in self.rows():
            hasher.update(cbor.encode([row[0], row[1], row[2]]))
        return hasher.digest()


class Session:
    """One package on its way into the spare slot. `offset`: the next byte that is wanted; None when all are good."""

    def __init__(self, manifest, store):
        """Goes on where an earlier session of the same manifest was; Refused `oversize` where the slot is too small."""
        self.manifest = manifest
        self._store = store
        self._failures = 0
        self._row = self._start = 0  # the first file that is not known to be good: its row in the manifest, its bytes
        index = romfs.index(manifest.names())
        size = len(index) + manifest.size
        check(size <= store.limit, "oversize", store.limit, size)
        store.open(len(index), manifest.size)
        if self._holds_manifest():
            self.offset = self._first_bad()
        else:
            store.begin()
            self._rewind()
            self.offset = 0

    def wanted(self):
        """How many bytes are wanted at `offset`: as many as this store takes at once."""
        return min(self._store.piece_bytes, self.manifest.size - self.offset)

    def take(self, offset, data):
        """Writes a piece where it is the wanted one; Refused `wrong_digest` when a file is wrong time after time."""
        if offset != self.offset:
            return
        check(len(data) == self.wanted(), "malformed", self.wanted(), len(data))
        self._store.write(offset, data)
        size = len(self.manifest.message)
        end = offset + len(data)
        bad = self._check_to(end) if offset >= size or end < size or self._holds_manifest() else 0
        if bad is None:
            self.offset = end if end < self.manifest.size else self._first_bad()
            return
        self._failures += 1
        check(self._failures <= RETRIES, "wrong_digest", "the manifest's", "bytes from %d on" % bad)
        self.offset = bad

    def finish(self):
        """Looks at every file once more, then makes the slot valid. Refused `wrong_digest`: something has changed."""
        bad = self._first_bad()
        check(self.offset is None and bad is None, "wrong_digest", None, bad)
        self._store.finish(romfs.index(self.manifest.names()), self.manifest)

    def _rewind(self):
        self._row, self._start = self.manifest.rows_at, len(self.manifest.message)

    def _check_to(self, limit):
        """Hashes the files that end below `limit`; returns where to begin again for the first bad one, or None."""
        while self._row < self.manifest.end:
            row, after = cbor.decode_from(self.manifest.message, self._row)
            if self._start + row[1] > limit:
                return None
            if hash_of(self._store, self._start, row[1]) != row[2]:
                return self._start // romfs.SECTOR_BYTES * romfs.SECTOR_BYTES
            self._row = after
            self._start += row[1]
        return None

    def _first_bad(self):
        self._rewind()
        return self._check_to(self.manifest.size) if self._holds_manifest() else 0

    def _holds_manifest(self):
        return hash_of(self._store, 0, len(self.manifest.message)) == hashlib.sha256(self.manifest.message).digest()


def hash_of(store, start, size):
    """SHA-256 of bytes of a store's stream."""
    hasher, buffer = hashlib.sha256(), bytearray(CHUNK_BYTES)
    while size:
        view = memoryview(buffer)[:min(size, CHUNK_BYTES)]
        store.read(start, view)
        hasher.update(view)
        start += len(view)
        size -= len(view)
    return hasher.digest()


def keys_of(genesis_bytes):
    """Returns {kid: public key} of those whom the genesis names operator or recovery."""
    found = {}
    for row in genesis.decode(genesis_bytes).enrolments:
        fields = cbor.decode(cose.parse(row[0]).payload)
        if fields[2] in SIGNERS:
            key = identity.decode_cose_key(fields[0])
            found[identity.kid_of(key)] = key
    return found


def mark_of(message):
    """A number that tells one offer from another."""
    return int.from_bytes(hashlib.sha256(message).digest()[:4], "big")


def check_counter(counter, running, highest, failed):
    """Refused `stale_sequence` unless a version is newer than all that ever ran, and not the one that just failed."""
    check(counter > max(running, highest), "stale_sequence", max(running, highest) + 1, counter)
    check(counter != failed, "stale_sequence", "not the version that failed its self-test here", counter)


def encode_manifest(model, counter, rows):
    """The payload that is signed; rows: [(name, size, SHA-256), ...] by rising names."""
    return cbor.encode([VERSION, model, counter, [list(row) for row in rows]])


def decode_message(data):
    """(kind, fields) of what came on the topic `update`; Refused `malformed`."""
    fields = cbor.decode(data)
    kind = fields[1] if isinstance(fields, list) and len(fields) > 2 else None
    check(kind in ("offer", "data"), "malformed", "offer or data", kind)
    check_fields(fields, ("u", "t", "b") if kind == "offer" else ("u", "t", "u", "u", "b"))
    check(fields[0] == VERSION, "wrong_version", VERSION, fields[0])
    return kind, fields[2:]


def encode_query(counter, offset, size, state, text):
    return cbor.encode([VERSION, "update", counter, offset, size, state, text[:200]])


def decode_query(data):
    """(counter, offset, size, state, text); Refused `malformed`."""
    fields = cbor.decode(data)
    check_fields(fields, ("u", "t", "u", "u", "u", "t", "t"))
    check(fields[0] == VERSION and fields[1] == "update", "malformed", "update", fields[1])
    return tuple(fields[2:])


def _array_head(data, at):
    """(count, where its items begin) of an array's head of up to two bytes of number."""
    first = data[at] if at < len(data) else 0
    check(first >> 5 == 4 and first & 31 < 26, "malformed", "an array", first)
    size = {24: 1, 25: 2}.get(first & 31, 0)
    if not size:
        return first & 31, at + 1
    return int.from_bytes(data[at + 1:at + 1 + size], "big"), at + 1 + size
