"""Makes a store on SQLite, in one file of the replica's folder; store.py says what a store is.

WAL with synchronous=FULL, one fsync a commit; a commit that need not be durable leaves the fsync to the next one that
is.
"""

import sqlite3
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from gateway.ledger.damage import Damaged
from gateway.ledger.store import NAMED, NUMBERED, Key, checked, known, mark_of, place_of

# Small pages: a durable step writes whole pages, and most of ours change some hundred bytes (tests/ledger/written.py).
PAGE_BYTES = 1024
CHECKPOINT_PAGES = 2000  # 2 MB of WAL, so that a page that changes with every block is copied once in some seventy
CACHE_KIB = 4096
BUSY_MS = 5000  # only a backup or a checkpoint of a reader can hold the lock, and neither for long


class SqliteStore:
    """One connection to the tables in a file; one thread uses it. A reader has a connection of its own."""

    def __init__(self, path: Path, is_reader: bool = False):
        """Opens, and for a writer makes, the file; Damaged when it is no database."""
        self.path = path
        mode = "ro" if is_reader else "rwc"
        try:
            self._db = sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True, isolation_level=None,
                                       check_same_thread=False, cached_statements=64)
            self._db.execute(f"PRAGMA busy_timeout={BUSY_MS}")
            self._db.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
            if is_reader:
                self._db.execute("PRAGMA query_only=ON")
                self._db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            else:
                self._db.execute(f"PRAGMA page_size={PAGE_BYTES}")
                self._db.execute("PRAGMA journal_mode=WAL")
                self._db.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}")
                self._make_tables()
        except sqlite3.DatabaseError as error:
            raise Damaged(f"file {path.name}", "a database", str(error)) from error

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def writing(self, is_durable: bool = True) -> Iterator[None]:
        """One transaction: all that is put inside is there afterwards, or nothing if it raises."""
        self._db.execute("PRAGMA synchronous=" + ("FULL" if is_durable else "NORMAL"))
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    @contextmanager
    def reading(self) -> Iterator[None]:
        """A view that stands still: what is read inside belongs together. May stand inside `writing` or itself."""
        if self._db.in_transaction:
            yield
            return
        self._db.execute("BEGIN")
        try:
            yield
        finally:
            self._db.execute("ROLLBACK")

    def get(self, table: str, key: Key) -> bytes | None:
        """The record under a key, or None; Damaged when it is not what was written."""
        with self._reported(table, key):
            row = self._db.execute(f"SELECT record, mark FROM {known(table)} WHERE key=?", (key,)).fetchone()
        return None if row is None else checked(table, key, row[0], row[1])

    def put(self, table: str, key: Key, record: bytes) -> None:
        """Sets a record; only inside `writing`."""
        self._check_writing()
        self._db.execute(f"INSERT OR REPLACE INTO {known(table)}(key, record, mark) VALUES(?, ?, ?)",
                         (key, record, mark_of(table, key, record)))

    def put_all(self, table: str, rows: Iterable[tuple[Key, bytes]]) -> None:
        """Sets many records of one table; only inside `writing`."""
        self._check_writing()
        self._db.executemany(f"INSERT OR REPLACE INTO {known(table)}(key, record, mark) VALUES(?, ?, ?)",
                             [(key, record, mark_of(table, key, record)) for key, record in rows])

    def append_all(self, table: str, rows: Iterable[tuple[int, bytes]]) -> None:
        """The same for keys of a numbered table that are known to be new, as behind `last_key`: for half the time."""
        self._check_writing()
        seed = zlib.crc32(f"{table}:".encode())
        self._db.executemany(f"INSERT INTO {known(table)}(key, record, mark) VALUES(?, ?, ?)", [
            (key, record, zlib.crc32(record, zlib.crc32(b"%d:" % key, seed))) for key, record in rows])

    def delete(self, table: str, key: Key) -> None:
        """Removes a record if it is there; only inside `writing`."""
        self._check_writing()
        self._db.execute(f"DELETE FROM {known(table)} WHERE key=?", (key,))

    def scan(self, table: str, first: Key | None = None, is_backwards: bool = False) -> Iterator[tuple[Key, bytes]]:
        """The records from key `first` on (from the beginning, or backwards: from the end), in order of their keys."""
        order = "DESC" if is_backwards else "ASC"
        where = "" if first is None else f"WHERE key {'<=' if is_backwards else '>='} ?"
        with self._reported(table, first):
            rows = self._db.execute(f"SELECT key, record, mark FROM {known(table)} {where} ORDER BY key {order}",
                                    () if first is None else (first,))
            try:
                while (row := rows.fetchone()) is not None:
                    yield row[0], checked(table, row[0], row[1], row[2])
            finally:
                rows.close()  # a statement left standing would hold its reader to an old view for ever

    def last_key(self, table: str) -> int:
        """The highest key of a numbered table, 0 when it is empty."""
        return self._db.execute(f"SELECT coalesce(max(key), 0) FROM {known(table)}").fetchone()[0]

    def check(self) -> None:
        """Damaged unless the file's own structure is whole; takes time in proportion to its size."""
        try:
            found = self._db.execute("PRAGMA quick_check(1)").fetchone()[0]
        except sqlite3.DatabaseError as error:
            found = str(error)
        if found != "ok":
            raise Damaged(f"file {self.path.name}", "ok", found)

    def size_bytes(self) -> int:
        """Bytes of the file and its write-ahead log."""
        paths = (self.path, self.path.with_name(self.path.name + "-wal"))
        return sum(path.stat().st_size for path in paths if path.exists())

    def _make_tables(self) -> None:
        with self.writing():
            for table in NUMBERED:
                self._db.execute(f"CREATE TABLE IF NOT EXISTS {table}(key INTEGER PRIMARY KEY, record BLOB NOT NULL, "
                                 "mark INTEGER NOT NULL) STRICT")
            for table in NAMED:
                self._db.execute(f"CREATE TABLE IF NOT EXISTS {table}(key BLOB PRIMARY KEY, record BLOB NOT NULL, "
                                 "mark INTEGER NOT NULL) STRICT, WITHOUT ROWID")

    def _check_writing(self) -> None:
        if not self._db.in_transaction:
            raise ValueError("a record is written inside `writing` only")

    @contextmanager
    def _reported(self, table: str, key: Key | None) -> Iterator[None]:
        """Turns SQLite's own word for damage into ours."""
        try:
            yield
        except sqlite3.OperationalError:
            raise  # locked, full, I/O: the machine's state, not a record's
        except sqlite3.DatabaseError as error:
            raise Damaged(place_of(table, key), "a record", str(error)) from error
