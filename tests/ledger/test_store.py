"""The store, the same on SQLite and PostgreSQL: all or nothing, checked records, a reader that stands still."""

import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.ledger.damage import Damaged
from gateway.ledger.store import ADDRESS, DATABASE, NAMED, NUMBERED, Store, holds_store, open_store
from tests.postgres import Server, postgres  # noqa: F401  a fixture

NO_KEY_TWICE = (sqlite3.IntegrityError, psycopg.IntegrityError)
READS_ONLY = (sqlite3.OperationalError, psycopg.errors.ReadOnlySqlTransaction)


class Kind(NamedTuple):
    """A store under test and ways round it."""

    store: Store
    folder: Path
    spoil: Callable[..., None]  # (SQL with %s for a value, values)


@pytest.fixture(params=["sqlite", "postgresql"])
def kind(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Kind]:
    address = request.getfixturevalue("postgres").database() if request.param == "postgresql" else ""
    raw = psycopg.connect(address, autocommit=True) if address else None
    store = open_store(tmp_path, address=address)

    def spoil(sql: str, *values: object) -> None:
        if raw is not None:
            raw.execute(sql, values)
            return
        other = sqlite3.connect(tmp_path / DATABASE)
        other.execute(sql.replace("%s", "?"), values)
        other.commit()
        other.close()

    yield Kind(store, tmp_path, spoil)
    store.close()
    if raw is not None:
        raw.close()


@pytest.fixture
def store(kind: Kind) -> Store:
    return kind.store


def test_put_get_scan_delete(store: Store) -> None:
    with store.writing():
        for key in (3, 1, 2):
            store.put("blocks", key, b"block %d" % key)
        store.put("state", b"k", b"v")
    assert store.get("blocks", 2) == b"block 2" and store.get("blocks", 4) is None
    assert [key for key, _ in store.scan("blocks")] == [1, 2, 3]
    assert [key for key, _ in store.scan("blocks", 2)] == [2, 3]
    assert [key for key, _ in store.scan("blocks", 2, is_backwards=True)] == [2, 1]
    assert (store.last_key("blocks"), store.last_key("envelopes")) == (3, 0)
    with store.writing(is_durable=False):
        store.delete("blocks", 3)
        store.put("state", b"k", b"w")
    assert store.last_key("blocks") == 2 and store.get("state", b"k") == b"w"
    store.check()
    assert store.size_bytes() > 1000


def test_append_all_writes_what_put_all_does_but_no_key_twice(store: Store) -> None:
    rows = [(number, b"record %d" % number) for number in (1, 2, 255, 1 << 40)]
    with store.writing():
        store.append_all("envelopes", rows)
        store.put_all("blocks", rows)
    assert list(store.scan("envelopes")) == list(store.scan("blocks")) == rows
    with pytest.raises(NO_KEY_TWICE), store.writing():
        store.append_all("envelopes", [(3, b"new"), (2, b"again")])
    assert store.get("envelopes", 3) is None


def test_a_transaction_that_raises_leaves_nothing(store: Store) -> None:
    with pytest.raises(RuntimeError), store.writing():
        store.put("blocks", 1, b"half")
        raise RuntimeError
    assert store.get("blocks", 1) is None
    with store.writing():
        store.put_all("blocks", [])
        store.put("blocks", 1, b"whole")
    assert store.get("blocks", 1) == b"whole"


def test_wrong_use(store: Store) -> None:
    for write in (lambda: store.put("blocks", 1, b"outside"), lambda: store.append_all("blocks", [(1, b"")]),
                  lambda: store.put_all("blocks", [(1, b"")])):
        with pytest.raises(ValueError):
            write()
    with pytest.raises(ValueError), store.writing():
        store.put("nothing", 1, b"")


def test_long_scans_in_the_order_of_bytes(store: Store) -> None:
    """More rows than any page of a scan; keys of bytes are compared as bytes, whatever the server's language."""
    keys = sorted(bytes([first, second]) for first in range(60) for second in range(0, 256, 5))
    numbers = [(number, b"%d" % number) for number in range(1, 2500)]
    with store.writing():
        store.put_all("state", [(key, key[::-1]) for key in reversed(keys)])
        store.append_all("envelopes", numbers)
    assert [key for key, _ in store.scan("state")] == keys
    assert [key for key, _ in store.scan("state", keys[777], is_backwards=True)] == keys[777::-1]
    assert list(store.scan("envelopes", 2)) == numbers[1:]
    early = store.scan("envelopes", 100)
    assert next(early)[0] == 100
    with store.writing():  # a scan that was left standing is in nobody's way
        store.put("blocks", 1, b"one")


@settings(max_examples=25)
@given(st.lists(st.tuples(st.sampled_from(("put", "delete")), st.binary(min_size=1, max_size=3),
                          st.binary(max_size=9))))
def test_it_is_a_sorted_map(steps: list[tuple[str, bytes, bytes]]) -> None:
    """Checked on SQLite by hypothesis; the fixed cases above hold both kinds to it."""
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(Path(folder))
        model: dict[bytes, bytes] = {}
        for what, key, record in steps:
            with store.writing(is_durable=False):
                if what == "put":
                    store.put("state", key, record)
                    model[key] = record
                else:
                    store.delete("state", key)
                    model.pop(key, None)
        assert list(store.scan("state")) == sorted(model.items())
        store.close()


@pytest.mark.parametrize("table", [*NUMBERED, *NAMED])
def test_a_changed_or_swapped_record_is_named(kind: Kind, table: str) -> None:
    store = kind.store
    first, second = (1, 2) if table in NUMBERED else (b"\1", b"\2")
    with store.writing():
        store.put(table, first, b"one")
        store.put(table, second, b"two")
    kind.spoil(f"UPDATE {table} SET record=%s WHERE key=%s", b"onf", first)
    with pytest.raises(Damaged, match=f"table {table}, key 0?1"):
        store.get(table, first)
    assert store.get(table, second) == b"two"
    kind.spoil(f"UPDATE {table} SET record=(SELECT record FROM {table} WHERE key=%s), "
               f"mark=(SELECT mark FROM {table} WHERE key=%s) WHERE key=%s", second, second, first)
    with pytest.raises(Damaged, match=f"table {table}, key 0?1"):
        list(store.scan(table))


def test_a_reader_stands_still_and_writes_nothing(kind: Kind) -> None:
    store = kind.store
    with store.writing():
        store.put("blocks", 1, b"one")
    reader = open_store(kind.folder, is_reader=True)
    with reader.reading():
        assert reader.get("blocks", 1) == b"one"
        with store.writing():
            store.put("blocks", 1, b"two")
        assert reader.get("blocks", 1) == b"one"
        with reader.reading():
            assert reader.get("blocks", 1) == b"one"
    assert reader.get("blocks", 1) == b"two"
    with pytest.raises(READS_ONLY), reader.writing():
        reader.put("blocks", 1, b"three")
    assert reader.get("blocks", 1) == b"two"
    reader.close()


def test_what_is_committed_is_there_at_the_next_start(kind: Kind) -> None:
    with kind.store.writing():
        kind.store.put("state", b"k", b"v")
    kind.store.close()
    again = open_store(kind.folder)
    assert again.get("state", b"k") == b"v"
    again.close()


def test_a_folder_says_where_its_ledger_is(postgres: Server, tmp_path: Path) -> None:  # noqa: F811
    address = postgres.database()
    assert not holds_store(tmp_path)
    open_store(tmp_path, address=address).close()
    assert holds_store(tmp_path) and not (tmp_path / DATABASE).exists()
    assert (tmp_path / ADDRESS).read_text() == address + "\n" and os.stat(tmp_path / ADDRESS).st_mode & 0o077 == 0
    open_store(tmp_path, address=address).close()
    with pytest.raises(ValueError, match="holds its ledger in"):
        open_store(tmp_path, address=postgres.database())
    (tmp_path / "other").mkdir()
    open_store(tmp_path / "other").close()
    with pytest.raises(ValueError, match="holds its ledger in ledger.db"):
        open_store(tmp_path / "other", address=address)


def test_no_database(tmp_path: Path) -> None:
    (tmp_path / DATABASE).write_bytes(b"nothing of the kind" * 300)
    with pytest.raises(Damaged, match="ledger.db"):
        open_store(tmp_path)
    with pytest.raises(OSError, match="PostgreSQL"):
        (tmp_path / "new").mkdir()
        open_store(tmp_path / "new", address="postgresql://127.0.0.1:1/none?connect_timeout=2")
    assert not holds_store(tmp_path / "new")  # a wrong address is not kept
