"""The shelf of evidence and certified files: by hash, once, durable, bounded."""

import hashlib
from pathlib import Path

import pytest

from gateway.ledger import files
from gateway.ledger.damage import Damaged
from gateway.ledger.files import Files
from gateway.ledger.sqlite import SqliteStore


def test_once_and_for_good(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "ledger.db")
    shelf = Files(store, lambda: ())
    names = shelf.put([b"a", b"b", b"a"])
    assert names == [hashlib.sha256(data).digest() for data in (b"a", b"b")]
    size = store.size_bytes()
    for _ in range(50):
        shelf.put([b"a"])
    assert store.size_bytes() == size and len(shelf) == 2, "what is here is not written again"
    store.close()
    again = Files(SqliteStore(tmp_path / "ledger.db"), lambda: ())
    assert again.get(names[1]) == b"b" and names[0] in again and bytes(32) not in again
    assert again.get(bytes(32)) is None
    assert files.read(SqliteStore(tmp_path / "ledger.db", is_reader=True), names[0]) == b"a"


def test_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "BYTES", 1000)
    named: list[bytes] = []
    shelf = Files(SqliteStore(tmp_path / "ledger.db"), lambda: named)
    datas = [bytes([number]) * 200 for number in range(20)]
    named += shelf.put(datas[:2])
    names = [shelf.put([data])[0] for data in datas[2:]]
    assert [name in shelf for name in named] == [True, True], "what the state names goes last"
    assert [name in shelf for name in names] == [False] * 15 + [True] * 3
    named += names[-3:]
    last = shelf.put([b"x" * 900])
    assert last[0] in shelf and len(shelf) == 1, "the bound holds all the same"


def test_a_changed_record_is_seen(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "ledger.db")
    name = Files(store, lambda: ()).put([b"evidence"])[0]
    store._db.execute("UPDATE files SET record = CAST(record || x'00' AS BLOB)")
    with pytest.raises(Damaged):
        files.read(store, name)
