"""What was changed on the disk, by rot or by hand, is found and named; nothing altered is ever answered."""

import random
import sqlite3
import zlib
from pathlib import Path

import pytest

from firmware.wire import state
from gateway.ledger import records
from gateway.ledger.damage import Damaged
from gateway.ledger.ledger import Ledger
from gateway.ledger.reader import Reader
from tests.ledger.test_ledger import AGENTS, START_MS, run
from tests.ledger.world import START_S, World, key, point_entry

MINUTES = 70  # more than are looked at when the ledger is opened


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The file of a closed ledger: 70 blocks, two of them with transactions, and an envelope that waits."""
    folder = tmp_path_factory.mktemp("whole")
    world = World(agents=AGENTS)
    ledger = Ledger.open(folder, world.genesis)
    for minute in range(1, MINUTES + 1):
        run(ledger, world, minute)
    ledger.execute(MINUTES + 1, ("trade", 0, START_S + 60 * MINUTES + 2, [world.enrol("new", [point_entry(9)])]))
    ledger.put_envelopes([world.seal("meter", 1, START_MS + 60_000 * (MINUTES + 1))])
    ledger.close()
    assert not (folder / "ledger.db-wal").exists()
    return (folder / "ledger.db").read_bytes()


@pytest.fixture
def path(tmp_path: Path, whole: bytes) -> Path:
    path = tmp_path / "ledger.db"
    path.write_bytes(whole)
    return path


def answers(reader: Reader) -> list[object]:
    """All that a ledger says, through its public questions."""
    return [reader.position(), [reader.block("trade", height) for height in range(MINUTES + 2)],
            [reader.certificate("trade", height) for height in range(MINUTES + 2)],
            [reader.envelopes_in("trade", height) for height in range(1, MINUTES + 2)],
            reader.agents(), reader.points(), [reader.chain(key("meter").kid, point) for point in (1, 2)],
            [reader.seal_place(key("meter").kid, 1, height) for height in range(MINUTES)],
            reader.newest_readings(), reader.counts(),
            [tuple(item) for item in reader.pending_envelopes()] if isinstance(reader, Ledger) else []]


def test_a_flipped_bit_anywhere_is_found_or_harmless(path: Path, whole: bytes) -> None:
    """Over the whole file: either the start or the full check names the damage, or every answer is as before."""
    ledger = Ledger.open(path.parent)
    ledger.check()
    expected = answers(ledger)
    ledger.close()
    chance = random.Random(20261120)
    found = harmless = 0
    for _ in range(120):
        data = bytearray(whole)
        at = chance.randrange(len(data))
        data[at] ^= 1 << chance.randrange(8)
        path.write_bytes(data)
        path.with_name("ledger.db-wal").unlink(missing_ok=True)
        try:
            ledger = Ledger.open(path.parent)
        except Damaged as damaged:
            assert damaged.where.startswith(("file ledger.db", "table ", "state "))
            found += 1
            continue
        try:
            ledger.check()
            assert answers(ledger) == expected, f"byte {at} was changed unseen"
            harmless += 1
        except Damaged:
            found += 1
        finally:
            ledger.close()
    assert found > 60 and found + harmless == 120


def _forge(path: Path, table: str, record_key: int | bytes, change) -> None:
    """Changes a record as somebody does who knows our checksum."""
    raw = sqlite3.connect(path)
    (record,) = raw.execute(f"SELECT record FROM {table} WHERE key=?", (record_key,)).fetchone()
    record = change(record)
    mark = zlib.crc32(record, zlib.crc32(f"{table}:{record_key!r}:".encode()))
    raw.execute(f"UPDATE {table} SET record=?, mark=? WHERE key=?", (record, mark, record_key))
    raw.commit()
    raw.close()


def _register_raised(record: bytes) -> bytes:
    chain = state.decode_chain(record)
    return state.encode_record(chain._replace(import_wh=chain.import_wh + 1))


def test_an_operator_who_edits_the_state_is_named_with_the_height(path: Path) -> None:
    """T39: one register raised by one Wh, checksum made anew: the replica does not start."""
    _forge(path, "state", state.chain_key(key("meter").kid, 1), _register_raised)
    with pytest.raises(Damaged, match=f"table state, trade height {MINUTES + 1}"):
        Ledger.open(path.parent)


def test_an_operator_who_also_edits_the_position(path: Path) -> None:
    _forge(path, "state", state.chain_key(key("meter").kid, 1), _register_raised)
    raw = Reader.open(path.parent)
    from gateway.ledger.tree import StateTree

    root = StateTree((bytes(k), v) for k, v in raw.store.scan("state") if isinstance(k, bytes)).root()
    raw.close()
    _forge(path, "facts", records.POSITION, lambda record: records.encode_position(
        records.decode_position(record)._replace(state_root=root)))
    with pytest.raises(Damaged, match=f"table state, trade height {MINUTES + 1}"):
        Ledger.open(path.parent)


@pytest.mark.parametrize("height", [1, MINUTES])
def test_a_forged_result_is_found(path: Path, height: int) -> None:
    """A refused seal turned into an accepted one, or the other way round, in an old block and in a new one."""
    def change(record: bytes) -> bytes:
        block = records.decode_block(record)
        return records.encode_block(block._replace(results=[10, *block.results[1:]]))

    _forge(path, "blocks", records.block_key(0, height), change)
    _check_finds(path, f"table blocks, trade height {height}", is_new=height == MINUTES)


def test_a_forged_reading_is_found(path: Path) -> None:
    """The reading beside the chain is not under the seal that stands in the block."""
    def change(record: bytes) -> bytes:
        leaf, readings = records.decode_envelope(record)
        return records.encode_envelope(leaf, [readings[0].replace(b"1.8.0", b"2.8.0")])

    _forge(path, "envelopes", 1, change)
    _check_finds(path, "table envelopes, trade height 1, leaf 1", is_new=False)


@pytest.mark.parametrize("height", [2, MINUTES])
def test_a_forged_certificate_is_found(path: Path, height: int) -> None:
    _forge(path, "certificates", records.block_key(0, height), lambda record: record[:-1] + bytes((record[-1] ^ 1,)))
    _check_finds(path, f"table certificates, trade height {height}", is_new=height == MINUTES)


@pytest.mark.parametrize("height", [3, MINUTES])
def test_a_removed_block_is_found(path: Path, height: int) -> None:
    raw = sqlite3.connect(path)
    raw.execute("DELETE FROM blocks WHERE key=?", (records.block_key(0, height),))
    raw.commit()
    raw.close()
    _check_finds(path, f"table blocks, trade height {height}", is_new=height == MINUTES)


def _check_finds(path: Path, where: str, is_new: bool) -> None:
    """In the newest blocks the start finds it, in older ones the full check."""
    if is_new:
        with pytest.raises(Damaged, match=where):
            Ledger.open(path.parent)
        return
    ledger = Ledger.open(path.parent)
    with pytest.raises(Damaged, match=where):
        ledger.check()
    ledger.close()


def test_a_reader_checks_too(path: Path) -> None:
    """`gateway check` on a stopped replica's folder: the same function on a Reader."""
    from gateway.ledger.audit import check_all

    reader = Reader.open(path.parent)
    check_all(reader)
    reader.close()
    _forge(path, "envelopes", 1, lambda record: record[:-1] + b"\1")
    reader = Reader.open(path.parent)
    with pytest.raises(Damaged, match="envelopes"):
        check_all(reader)
    reader.close()


def test_a_wrong_format_version_is_named(path: Path) -> None:
    _forge(path, "facts", records.FORMAT, lambda record: b"\2")
    with pytest.raises(Damaged, match="format"):
        Ledger.open(path.parent)
