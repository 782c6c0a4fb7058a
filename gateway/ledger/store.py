"""Makes records durable in tables, each under a key and a checksum; on SQLite, or on PostgreSQL where a folder says so.

Two kinds of table: numbered ones, whose keys are integers and mostly grow (an append touches one page), and named
ones, whose keys are byte strings. `Store` is all that the ledger asks; sqlite.py and postgres.py know SQL.

A transaction is all or nothing, also over a power cut. `writing` with is_durable=False leaves the fsync to the next
durable commit: it survives the death of the process, not of the machine. Every record carries a CRC-32 over table, key
and bytes: one that was changed, or swapped with another, is reported by table and key (`Damaged`), never believed.
"""

import zlib
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from gateway.ledger.damage import Damaged

NUMBERED = ("facts", "blocks", "certificates", "envelopes", "chains", "steps", "undo", "bases")
NAMED = ("state", "transactions", "witnesses", "files")
DATABASE = "ledger.db"      # SQLite's file in a replica's folder
ADDRESS = "ledger.address"  # or, in its place, one line: where the PostgreSQL database is

Key = int | bytes


class Store(Protocol):
    """One connection to the tables; one thread uses it. A reader has a connection of its own."""

    def close(self) -> None: ...

    def writing(self, is_durable: bool = True) -> AbstractContextManager[None]:
        """One transaction: all that is put inside is there afterwards, or nothing if it raises."""

    def reading(self) -> AbstractContextManager[None]:
        """A view that stands still: what is read inside belongs together. May stand inside `writing` or itself."""

    def get(self, table: str, key: Key) -> bytes | None:
        """The record under a key, or None; Damaged when it is not what was written."""

    def put(self, table: str, key: Key, record: bytes) -> None:
        """Sets a record; only inside `writing`."""

    def put_all(self, table: str, rows: Iterable[tuple[Key, bytes]]) -> None:
        """Sets many records of one table; only inside `writing`."""

    def append_all(self, table: str, rows: Iterable[tuple[int, bytes]]) -> None:
        """The same for keys of a numbered table that are known to be new, as behind `last_key`: for half the time."""

    def delete(self, table: str, key: Key) -> None:
        """Removes a record if it is there; only inside `writing`."""

    def scan(self, table: str, first: Key | None = None, is_backwards: bool = False) -> Iterator[tuple[Key, bytes]]:
        """The records from key `first` on (from the beginning, or backwards: from the end), in order of their keys.

        Outside `reading`, and while the same thread writes, later records may or may not be seen."""

    def last_key(self, table: str) -> int:
        """The highest key of a numbered table, 0 when it is empty."""

    def check(self) -> None:
        """Damaged unless the database's own structure is whole; takes time in proportion to its size."""

    def size_bytes(self) -> int:
        """What the database takes, its write-ahead log included where it has one of its own."""


def holds_store(folder: Path) -> bool:
    """Is a ledger's database in this folder, or named there?"""
    return (folder / DATABASE).exists() or (folder / ADDRESS).exists()


def open_store(folder: Path, is_reader: bool = False, address: str = "") -> Store:
    """Opens, and for a writer makes, the store of a replica's folder.

    address: a PostgreSQL address (postgresql://...) for a folder that holds no ledger yet; it is written down there, so
    that whoever has the folder finds the ledger. ValueError when the folder already holds another one; Damaged when a
    file is no database; OSError when a server cannot be reached."""
    note = folder / ADDRESS
    known_address = note.read_text().strip() if note.exists() else ""
    if address and address != known_address:
        if holds_store(folder):
            raise ValueError(f"{folder} holds its ledger in {known_address or DATABASE}, not in {address}")
    if address or known_address:
        from gateway.ledger.postgres import PostgresStore  # psycopg is an extra: only who uses it needs it
        store = PostgresStore(address or known_address, is_reader)
        if not known_address:
            note.touch(mode=0o600)
            note.write_text(address + "\n")
        return store
    from gateway.ledger.sqlite import SqliteStore
    return SqliteStore(folder / DATABASE, is_reader)


def known(table: str) -> str:
    """The table's name; ValueError for one that is not ours."""
    if table not in NUMBERED and table not in NAMED:
        raise ValueError("no table " + table)
    return table


def place_of(table: str, key: Key | None) -> str:
    """A record's place for people."""
    return f"table {table}, key {key.hex() if isinstance(key, bytes) else key}"


def mark_of(table: str, key: Key, record: bytes) -> int:
    """The checksum under which a record is kept."""
    return zlib.crc32(record, zlib.crc32(f"{table}:{key!r}:".encode()))


def checked(table: str, key: Key, record: object, mark: object) -> bytes:
    """The record, or Damaged when its checksum says otherwise."""
    if not isinstance(record, bytes) or mark_of(table, key, record) != mark:
        raise Damaged(place_of(table, key), "the checksum", mark, table, key)
    return record
