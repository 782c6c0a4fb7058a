"""Makes a replica's promises durable: one append-only, checksummed file of opaque records (pbft.md 3.11).

A file of its own, because SQLite's WAL writes four times the bytes for the same five durable steps of a decision.

    file    MAGIC, salt 16, then frames
    frame   marker 4 | sequence 8 | length 4 | CRC-32 of (salt, sequence, length, body) 4 | body
    marker  the first bytes of the salt
    body    each record as length 4 and bytes

One `append` is one frame and one fdatasync; a frame is begun only when the one before is on the disk. So when the
last frame is bad, it is the torn end of a write that nobody was promised anything after, and is cut. When a bad frame
has a good one behind it, something damaged a promise: the file is refused by name and offset, never read past. The
first frame comes with the file, by a rename, so it is never torn: where it is bad, it or the salt is damaged. The
salt is random for each file: a record holds other people's bytes, and nobody may plant a frame in them that is taken
for a good one, or for the beginning of one.

A file that was replaced is kept as the spare, and the next new one is written over it. So nearly all frames fall on
blocks that the file has already: such a sync is the data alone, without the file system's journal, in half the time,
and it does not wait for what other programs have in that journal. What is left of the spare behind the last frame is
under another salt, and reads as a torn tail does.
"""

import os
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

from gateway.ledger.damage import Damaged

MAGIC = b"gridseal votes 2"
RECORD_BYTES = 16 * 1024 * 1024  # a batch is 256 KiB, a NEW-VIEW some MiB at most; more is a bug or damage
SALT_BYTES = 16
SPARE_BYTES = 16 * 1024 * 1024  # more of a spare is given back: a checkpoint's interval of full batches
_FIRST = len(MAGIC) + SALT_BYTES
_MARKER_BYTES = 4
_HEAD = struct.Struct(">4sQII")
_LENGTH = struct.Struct(">I")
_NUMBERS = struct.Struct(">QI")


class VoteLog:
    """The votes file of one replica; one thread at a time may use it."""

    def __init__(self, path: Path):
        """Opens or makes the file and cuts a torn tail; Damaged when its middle is bad."""
        self._path, self._spare = path, path.with_name(path.name + ".new")
        self._records: list[bytes] = []
        self._is_open_ended = False  # a frame with records is the last
        self._is_broken = False  # a write has failed
        self._end = 0
        self.cut_bytes = 0  # what the last open cut off, for the log line
        self._link.unlink(missing_ok=True)  # of a crash in `replace`
        if not path.exists():
            self._write_new([])
        self._file = os.open(path, os.O_RDWR)
        try:
            self._load()
        except BaseException:
            os.close(self._file)
            raise

    def load(self) -> list[bytes]:
        """Returns the records found at open, in order, once: the memory is given back."""
        records, self._records = self._records, []
        return records

    def append(self, records: Sequence[bytes]) -> None:
        """Makes `records` durable: one frame, one fdatasync. Nothing happens for an empty list.

        After an OSError nobody knows what is on the disk, so every further write is refused (ValueError)."""
        if records:
            self._put_frame(records)
            self._is_open_ended = True

    def replace(self, records: Sequence[bytes]) -> None:
        """Makes `records` the whole content, all or nothing: another file, fsync, rename, fsync of the folder."""
        if self._is_broken:
            raise ValueError("a write of this votes file has failed")
        self._is_broken = True
        self._write_new(records)
        os.close(self._file)
        self._file = os.open(self._path, os.O_RDWR)
        self._is_open_ended = self._is_broken = False

    def size(self) -> int:
        """Bytes of the file that say something."""
        return self._end

    def close(self) -> None:
        """Puts an empty frame behind the last: from an orderly end on, nothing in the file can pass for torn."""
        if not self._is_broken:
            if self._is_open_ended:
                self._put_frame([])
            os.ftruncate(self._file, self._end)
        os.close(self._file)

    @property
    def _link(self) -> Path:
        """The second name of a file that is being replaced."""
        return self._path.with_name(self._path.name + ".old")

    def _put_frame(self, records: Sequence[bytes]) -> None:
        if self._is_broken:
            raise ValueError("a write of this votes file has failed")
        self._is_broken = True
        self._sequence += 1
        self._end = _write_at(self._file, self._end, _frame(self._salt, self._sequence, records))
        os.fdatasync(self._file)
        self._is_broken = False

    def _write_new(self, records: Sequence[bytes]) -> None:
        self._salt = os.urandom(SALT_BYTES)
        self._sequence = 1
        descriptor = os.open(self._spare, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            if os.fstat(descriptor).st_size > SPARE_BYTES:
                os.ftruncate(descriptor, SPARE_BYTES)
            self._end = _write_at(descriptor, 0, MAGIC + self._salt + _frame(self._salt, self._sequence, records))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        has_link = self._path.exists() and self._make_link()
        os.rename(self._spare, self._path)
        if has_link:
            os.rename(self._link, self._spare)
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _make_link(self) -> bool:
        try:
            os.link(self._path, self._link)
        except OSError:  # a file system without second names: then there is no spare
            return False
        return True

    def _load(self) -> None:
        data = self._path.read_bytes()
        if data[:len(MAGIC)] != MAGIC or len(data) < _FIRST:
            raise Damaged(f"votes file {self._path.name}, offset 0", MAGIC, data[:len(MAGIC)])
        self._salt = data[len(MAGIC):_FIRST]
        self._sequence = 0
        at = _FIRST
        while at < len(data):
            found = _read_frame(self._salt, data, at)
            if found is None or found[0] <= self._sequence:
                self._check_tail(data, at)
                self.cut_bytes = len(data) - at
                os.ftruncate(self._file, at)
                os.fsync(self._file)
                break
            self._sequence, records, at = found
            self._records.extend(records)
            self._is_open_ended = bool(records)
        self._end = at

    def _check_tail(self, data: bytes, bad_at: int) -> None:
        """Raises Damaged when the bad frame is the first, or a good one stands anywhere behind it."""
        if bad_at == _FIRST:
            raise Damaged(f"votes file {self._path.name}, offset {bad_at}", "a good frame", "a bad one")
        marker = self._salt[:_MARKER_BYTES]
        at = data.find(marker, bad_at + 1)
        while at >= 0:
            found = _read_frame(self._salt, data, at)
            if found is not None and found[0] > self._sequence:
                raise Damaged(f"votes file {self._path.name}, offset {bad_at}", "a good frame",
                              f"a bad one before the good one at {at}")
            at = data.find(marker, at + 1)


def _frame(salt: bytes, sequence: int, records: Sequence[bytes]) -> bytes:
    parts = []
    for record in records:
        if len(record) > RECORD_BYTES:
            raise ValueError(f"a vote record of {len(record)} bytes")
        parts.append(_LENGTH.pack(len(record)))
        parts.append(record)
    body = b"".join(parts)
    return _HEAD.pack(salt[:_MARKER_BYTES], sequence, len(body), _checksum(salt, sequence, body)) + body


def _read_frame(salt: bytes, data: bytes, at: int) -> tuple[int, list[bytes], int] | None:
    """Returns (sequence, records, end) of a good frame at `at`, else None."""
    start = at + _HEAD.size
    if start > len(data):
        return None
    marker, sequence, length, checksum = _HEAD.unpack_from(data, at)
    end = start + length
    if marker != salt[:_MARKER_BYTES] or end > len(data):
        return None
    body = data[start:end]
    if _checksum(salt, sequence, body) != checksum:
        return None
    records = []
    at = 0
    while at < length:
        (size,) = _LENGTH.unpack_from(body, at)
        at += _LENGTH.size
        records.append(body[at:at + size])
        at += size
    return sequence, records, end


def _checksum(salt: bytes, sequence: int, body: bytes) -> int:
    return zlib.crc32(body, zlib.crc32(salt + _NUMBERS.pack(sequence, len(body))))


def _write_at(descriptor: int, at: int, data: bytes) -> int:
    """The place behind what was written."""
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, at)
        view, at = view[written:], at + written
    return at
