"""The store: all or nothing, checked records, a reader that stands still."""

import sqlite3
from pathlib import Path

import pytest

from gateway.ledger.damage import Damaged
from gateway.ledger.store import NAMED, NUMBERED, Store


@pytest.fixture
def store(tmp_path: Path):
    store = Store(tmp_path / "ledger.db")
    yield store
    store.close()


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


def test_append_all_writes_what_put_all_does_but_no_key_twice(store: Store) -> None:
    rows = [(number, b"record %d" % number) for number in (1, 2, 255, 1 << 40)]
    with store.writing():
        store.append_all("envelopes", rows)
        store.put_all("blocks", rows)
    assert list(store.scan("envelopes")) == list(store.scan("blocks")) == rows
    with pytest.raises(sqlite3.IntegrityError), store.writing():
        store.append_all("envelopes", [(3, b"new"), (2, b"again")])
    assert store.get("envelopes", 3) is None


def test_a_transaction_that_raises_leaves_nothing(store: Store) -> None:
    with pytest.raises(RuntimeError), store.writing():
        store.put("blocks", 1, b"half")
        raise RuntimeError
    assert store.get("blocks", 1) is None


def test_wrong_use(store: Store) -> None:
    with pytest.raises(ValueError):
        store.put("blocks", 1, b"outside")
    with pytest.raises(ValueError), store.writing():
        store.put("nothing", 1, b"")


@pytest.mark.parametrize("table", [*NUMBERED, *NAMED])
def test_a_changed_or_swapped_record_is_named(store: Store, table: str) -> None:
    first, second = (1, 2) if table in NUMBERED else (b"\1", b"\2")
    with store.writing():
        store.put(table, first, b"one")
        store.put(table, second, b"two")
    raw = sqlite3.connect(store.path)
    raw.execute(f"UPDATE {table} SET record=CAST('onf' AS BLOB) WHERE key=?", (first,))
    raw.commit()
    with pytest.raises(Damaged, match=f"table {table}, key 0?1"):
        store.get(table, first)
    assert store.get(table, second) == b"two"
    row = raw.execute(f"SELECT record, mark FROM {table} WHERE key=?", (second,)).fetchone()
    raw.execute(f"UPDATE {table} SET record=?, mark=? WHERE key=?", (*row, first))
    raw.commit()
    with pytest.raises(Damaged, match=f"table {table}, key 0?1"):
        list(store.scan(table))
    raw.close()


def test_a_reader_stands_still_and_writes_nothing(store: Store) -> None:
    with store.writing():
        store.put("blocks", 1, b"one")
    reader = Store(store.path, is_reader=True)
    with reader.reading():
        assert reader.get("blocks", 1) == b"one"
        with store.writing():
            store.put("blocks", 1, b"two")
        assert reader.get("blocks", 1) == b"one"
    assert reader.get("blocks", 1) == b"two"
    with pytest.raises(sqlite3.OperationalError), reader.writing():
        reader.put("blocks", 1, b"three")
    reader.close()


def test_no_database(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    path.write_bytes(b"nothing of the kind" * 300)
    with pytest.raises(Damaged, match="ledger.db"):
        Store(path)
