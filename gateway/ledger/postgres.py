"""Makes a store on a PostgreSQL server, for the fleet's gateways; store.py says what a store is.

One database (or schema: `?options=-csearch_path%3Dname`) belongs to one replica. Its writer holds an advisory lock, so
that two processes never write one ledger. Where the server cannot be had, OSError: a commit whose answer was lost is
not guessed at, the process ends, and at the next start the ledger says where it stands.
"""

import errno
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus

from gateway.ledger.damage import Damaged
from gateway.ledger.store import NAMED, NUMBERED, Key, checked, known, mark_of

LOCK = 0x67726964  # "grid": the advisory lock's number, in this database only
PAGES = (16, 128, 1024)  # rows of a scan's first, second and all further questions: most scans end early
CONNECT_S = 10
LOCK_S = 5  # the server notices within that that a killed writer is gone


class PostgresStore:
    """One connection to the tables of a database; one thread uses it."""

    def __init__(self, address: str, is_reader: bool = False):
        """Connects, and as a writer makes the tables; OSError when the server cannot be reached or another writes."""
        self.address = address
        with _unavailable():
            self._db = psycopg.connect(address, autocommit=True, connect_timeout=CONNECT_S,
                                       application_name="gridseal reader" if is_reader else "gridseal writer")
        try:
            with _unavailable():
                self._prepare(is_reader)
        except BaseException:
            self._db.close()
            raise

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def writing(self, is_durable: bool = True) -> Iterator[None]:
        with _unavailable():
            self._db.execute("BEGIN")
            # Never `local` or more than the server is set to: with a synchronous standby, durable means there too.
            if not is_durable:
                self._db.execute("SET LOCAL synchronous_commit TO off")
        try:
            yield
            with _unavailable():
                self._db.execute("COMMIT")
        except BaseException:
            self._roll_back()
            raise

    @contextmanager
    def reading(self) -> Iterator[None]:
        if self._is_inside():
            yield
            return
        with _unavailable():
            self._db.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        try:
            yield
        finally:
            self._roll_back()

    def get(self, table: str, key: Key) -> bytes | None:
        with _unavailable():
            row = self._db.execute(f"SELECT record, mark FROM {known(table)} WHERE key=%b", (key,),
                                   binary=True).fetchone()
        return None if row is None else checked(table, key, *row)

    def put(self, table: str, key: Key, record: bytes) -> None:
        self.put_all(table, [(key, record)])

    def put_all(self, table: str, rows: Iterable[tuple[Key, bytes]]) -> None:
        self._check_writing()
        values = [(key, record, mark_of(table, key, record)) for key, record in rows]
        if values:
            with _unavailable(), self._db.cursor() as cursor:
                cursor.executemany(f"INSERT INTO {known(table)}(key, record, mark) VALUES(%b, %b, %b) ON CONFLICT(key) "
                                   "DO UPDATE SET record=EXCLUDED.record, mark=EXCLUDED.mark", values)

    def append_all(self, table: str, rows: Iterable[tuple[int, bytes]]) -> None:
        self._check_writing()
        with _unavailable(), self._db.cursor() as cursor:
            with cursor.copy(f"COPY {known(table)}(key, record, mark) FROM STDIN (FORMAT BINARY)") as copy:
                copy.set_types(("int8", "bytea", "int8"))
                for key, record in rows:
                    copy.write_row((key, record, mark_of(table, key, record)))

    def delete(self, table: str, key: Key) -> None:
        self._check_writing()
        with _unavailable():
            self._db.execute(f"DELETE FROM {known(table)} WHERE key=%b", (key,))

    def scan(self, table: str, first: Key | None = None, is_backwards: bool = False) -> Iterator[tuple[Key, bytes]]:
        order = "DESC" if is_backwards else "ASC"
        sign = "<" if is_backwards else ">"
        where, turn = ("" if first is None else f"WHERE key {sign}= %b"), 0
        while True:
            limit = PAGES[min(turn, len(PAGES) - 1)]
            with _unavailable():
                rows: list[tuple[Any, ...]] = self._db.execute(
                    f"SELECT key, record, mark FROM {known(table)} {where} ORDER BY key {order} LIMIT {limit}",
                    (first,) if where else (), binary=True).fetchall()
            for key, record, mark in rows:
                yield key, checked(table, key, record, mark)
            if len(rows) < limit:
                return
            first, where, turn = rows[-1][0], f"WHERE key {sign} %b", turn + 1

    def last_key(self, table: str) -> int:
        with _unavailable():
            row = self._db.execute(f"SELECT coalesce(max(key), 0) FROM {known(table)}", binary=True).fetchone()
        assert row is not None, "an aggregate has a row"
        return int(row[0])

    def check(self) -> None:
        """Reads every record, by which the server also checks its pages where it was made with checksums."""
        for table in (*NUMBERED, *NAMED):
            try:
                for _ in self.scan(table):
                    pass
            except psycopg.DatabaseError as error:
                raise Damaged(f"table {table}", "rows that can be read", str(error)) from error

    def size_bytes(self) -> int:
        """Of the tables and their indexes; the write-ahead log is the server's."""
        with _unavailable():
            return sum(row[0] for table in (*NUMBERED, *NAMED) for row in self._db.execute(
                "SELECT pg_total_relation_size(%s::regclass)", (table,)).fetchall())

    def _prepare(self, is_reader: bool) -> None:
        if is_reader:
            self._db.execute("SET default_transaction_read_only TO on")
            return
        self._db.execute(f"SET lock_timeout TO '{LOCK_S}s'")
        try:
            self._db.execute("SELECT pg_advisory_lock(%s)", (LOCK,))
        except psycopg.errors.LockNotAvailable as error:
            raise OSError(errno.EAGAIN, "another process writes this ledger in PostgreSQL") from error
        with self.writing():
            for tables, kind in ((NUMBERED, "BIGINT"), (NAMED, "BYTEA")):
                for table in tables:
                    self._db.execute(f"CREATE TABLE IF NOT EXISTS {table}(key {kind} PRIMARY KEY, "
                                     "record BYTEA NOT NULL, mark BIGINT NOT NULL)")

    def _is_inside(self) -> bool:
        return self._db.info.transaction_status != TransactionStatus.IDLE

    def _check_writing(self) -> None:
        if not self._is_inside():
            raise ValueError("a record is written inside `writing` only")

    def _roll_back(self) -> None:
        if not self._db.closed and self._is_inside():
            with _unavailable():
                self._db.execute("ROLLBACK")


@contextmanager
def _unavailable() -> Iterator[None]:
    """Turns "the server is gone, full, or stopping" into OSError: the machine's state, not a record's."""
    try:
        yield
    except psycopg.OperationalError as error:
        raise OSError(errno.EIO, f"PostgreSQL: {str(error).strip() or type(error).__name__}") from error
