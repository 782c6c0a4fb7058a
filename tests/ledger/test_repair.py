"""Damaged records of every table of a running ledger are found by their checksum and made again, byte for byte."""

import sqlite3
from pathlib import Path

import pytest

from firmware.wire import cose, seal
from firmware.wire.errors import Refused
from gateway.ledger import block, records, repair
from gateway.ledger.damage import Damaged
from gateway.ledger.ledger import Ledger
from gateway.ledger.store import NAMED, NUMBERED
from tests.ledger.test_ledger import AGENTS, START_MS, run
from tests.ledger.world import START_S, World, key, point_entry

MINUTES = 40
UNREPAIRED = ("undo", "bases", "witnesses", "files")


@pytest.fixture
def ledger(tmp_path: Path):
    world = World(agents=AGENTS)
    ledger = Ledger.open(tmp_path, world.genesis)
    for minute in range(1, 21):
        run(ledger, world, minute)
    ledger.execute(21, ("trade", 0, START_S + 60 * 20 + 2, [
        world.enrol("new", [point_entry(9)]), world.enrol("new", [point_entry(9)])]))
    for minute in range(21, MINUTES + 1):
        n = minute + 1
        seals = [world.seal(name, point, START_MS + 60_000 * minute, 1000 + minute)
                 for name, point in (("meter", 1), ("meter", 2), ("other", 3), ("new", 9))]
        ledger.put_envelopes(seals)
        outcome = ledger.execute(n, ("trade", 0, START_S + 60 * minute + 5, [one.leaf for one in seals]))
        assert outcome.header is not None and outcome.height is not None
        ledger.put_certificate("trade", outcome.height, world.certificate(outcome.header))
    yield ledger
    ledger.close()


def everything(ledger: Ledger) -> dict[tuple[str, object], bytes]:
    return {(table, at): data for table in (*NUMBERED, *NAMED) for at, data in ledger.store.scan(table)}


def spoil(ledger: Ledger, table: str, at: int | bytes) -> None:
    """One byte of the record, behind the ledger's back."""
    raw = sqlite3.connect(ledger.store.path)  # type: ignore[attr-defined]
    (record,) = raw.execute(f"SELECT record FROM {table} WHERE key=?", (at,)).fetchone()
    spoilt = bytearray(record)
    spoilt[len(spoilt) // 2] ^= 0x10
    raw.execute(f"UPDATE {table} SET record=? WHERE key=?", (bytes(spoilt), at))
    raw.commit()
    raw.close()
    ledger._wholes.clear()


def mend(ledger: Ledger, table: str, at: int | bytes, peer: dict[int, bytes], certificates: dict[int, bytes]) -> bool:
    """As the scrubber does, with a peer's blocks at hand."""
    place = repair.block_of(ledger, table, at)
    if place is None:
        return repair.from_here(ledger, table, at)
    channel, height = place
    if table == "certificates":
        repair.certificate(ledger, channel, height, certificates[height])
    elif table == "envelopes":
        assert isinstance(at, int)
        repair.leaves(ledger, channel, height, at, peer[height])
    else:
        repair.whole_block(ledger, channel, height, peer[height])
    return True


def test_each_record_of_each_table(ledger: Ledger) -> None:
    before = everything(ledger)
    top = ledger.height()
    peer = {height: ledger.block("trade", height) or b"" for height in range(1, top + 1)}
    certificates = {height: ledger.certificate("trade", height) or b"" for height in range(1, top + 1)}
    mended = 0
    for (table, at), data in before.items():
        assert isinstance(at, int | bytes)
        if table == "envelopes":
            continue  # below
        spoil(ledger, table, at)
        with pytest.raises(Damaged) as found:
            ledger.store.get(table, at)
        assert (found.value.table, found.value.key) == (table, at)
        if table in UNREPAIRED:
            if table != "files":
                assert not mend(ledger, table, at, peer, certificates)
            with ledger.store.writing():
                ledger.store.put(table, at, data)
            continue
        assert mend(ledger, table, at, peer, certificates)
        assert ledger.store.get(table, at) == data, (table, at)
        mended += 1
    assert mended > 100
    assert everything(ledger) == before
    ledger.check()


def test_an_envelope_loses_its_readings_until_a_peer_gives_them(ledger: Ledger) -> None:
    place = ledger.seal_place(key("meter").kid, 1, 5)
    assert place is not None
    height, leaf = place
    record = ledger.block_record("trade", height)
    assert record is not None
    at = record.items[leaf - 1].envelope
    kept, peer = ledger.store.get("envelopes", at), ledger.block("trade", height)
    assert kept is not None and peer is not None
    whole = records.decode_envelope(kept)
    spoil(ledger, "envelopes", at)
    with pytest.raises(Damaged):
        ledger.block("trade", height)
    assert mend(ledger, "envelopes", at, {height: peer}, {})
    assert ledger.block("trade", height) == peer
    found = ledger.seal_at("trade", height, leaf)
    assert found is not None and found.readings is None
    payload = cose.parse(whole[0]).payload

    class Fetched:
        leaf, readings, envelope = whole[0], whole[1], kept
        payload_hash, seal = seal.payload_hash(payload), seal.decode(payload)

    assert ledger.put_envelopes([Fetched()]) == 1  # type: ignore[list-item]
    again = ledger.seal_at("trade", height, leaf)
    assert again is not None and again.readings == whole[1]
    ledger.check()


def test_a_peer_that_lies_changes_nothing(ledger: Ledger) -> None:
    before = everything(ledger)
    other, own = ledger.block("trade", 8), ledger.block("trade", 7)
    assert other is not None and own is not None
    parts = block.decode(own)
    forged = block.encode(parts.header, parts.meta, parts.items[::-1])
    spoil(ledger, "blocks", records.block_key(0, 7))
    for data in (other, forged, b"", own[:-1]):
        with pytest.raises(Refused):
            repair.whole_block(ledger, "trade", 7, data)
    repair.whole_block(ledger, "trade", 7, own)
    certificate = ledger.certificate("trade", 30)
    assert certificate is not None
    with pytest.raises(Refused):
        repair.certificate(ledger, "trade", 29, certificate)
    assert everything(ledger) == before
