"""A byte of a running replica's ledger is flipped on its disk: it is named, and made again with a peer's block."""

import contextlib
import sqlite3
from pathlib import Path

from gateway.ledger import records
from gateway.ledger.store import mark_of
from tests.node.cluster import Cluster, until


def spoil(path: Path, table: str, key: int) -> None:
    """One byte in the middle of a record, as a card would lose it; a certificate may be mended before it is missed."""
    raw = sqlite3.connect(path, timeout=10)
    (record,) = raw.execute(f"SELECT record FROM {table} WHERE key=?", (key,)).fetchone()
    spoilt = bytearray(record)
    spoilt[len(spoilt) // 2] ^= 1
    raw.execute(f"UPDATE {table} SET record=? WHERE key=?", (bytes(spoilt), key))
    raw.commit()
    raw.close()


def is_whole(path: Path, table: str, key: int) -> bool:
    """Is the record there and what was written, or (an envelope) gone, its leaf in the block?"""
    raw = sqlite3.connect(path, timeout=10)
    row = raw.execute(f"SELECT record, mark FROM {table} WHERE key=?", (key,)).fetchone()
    raw.close()
    return row is None if table == "envelopes" else row is not None and mark_of(table, key, row[0]) == row[1]


def test_flipped_bytes_are_named_and_mended(tmp_path: Path) -> None:
    area = Cluster(tmp_path, 4)
    with open(area.home(2) / "gateway.toml", "a", encoding="utf-8") as file:
        file.write("scrub_s = 1\n")
    try:
        area.start()
        meter = area.enrol(1, 2)
        for count in range(1, 9):
            meter.publish()
            area.wait_seals(2 * count)
        with contextlib.closing(area.ledger(2)) as reader:
            record = reader.block_record("trade", 5)
            assert record is not None
            envelope = next(item.envelope for item in record.items if item.envelope)
            whole = reader.block("trade", 5)
        path = area.home(2) / "data" / "ledger.db"
        for table, key in (("blocks", records.block_key(0, 3)), ("certificates", records.block_key(0, 4)),
                           ("envelopes", envelope), ("chains", 1)):
            spoil(path, table, key)
            until(f"{table} mended", lambda table=table, key=key: is_whole(path, table, key), 40)  # type: ignore[misc]
        meter.publish()
        area.wait_seals(18)
        until("readings fetched again", lambda: area.status(2)["blocks_lacking"] == 0)
        scrub = area.status(2)["scrub"]
        assert scrub["repaired"] >= 3 and not scrub["damaged"] and all("made again from" in text
                                                                       for text in scrub["told"])
        with contextlib.closing(area.ledger(2)) as reader:
            assert reader.block("trade", 5) == whole and None not in reader.envelopes_in("trade", 5)
        area.stop()
        area.check_ledgers()
    finally:
        area.stop()
