"""Makes the replicated state as it was after an earlier block, from the present one and what the ledger keeps.

A proof names the state under the block that its seal stands in, which may be years old. Two things lead back: the
values that each block's registry changes replaced (`undo`, rare), and the chains of seals themselves: a chain's record
after any seal is that seal's own fields and its link. The result is checked against the root in the block's meta.
"""

from firmware.wire import cose, seal, state
from firmware.wire import header as header_codec
from firmware.wire.errors import check
from firmware.wire.state import ChainRecord
from gateway.contracts.context import MARKED
from gateway.ledger import records
from gateway.ledger.damage import Damaged
from gateway.ledger.reader import Reader
from gateway.ledger.tree import StateTree

CHAIN_PREFIX = b"chain/"


def undo_of(before: dict[bytes, bytes | None]) -> bytes | None:
    """The undo record of a block from the values it replaced; None when it changed nothing but chains."""
    kept = {key: value for key, value in before.items() if not key.startswith(CHAIN_PREFIX)}
    return records.encode_changes(kept) if kept else None


def state_at(reader: Reader, channel: str, height: int) -> StateTree:
    """The state after the block of that height; Damaged when it is not the one that the block's meta names."""
    with reader.store.reading():
        record = reader.block_record(channel, height)
        if record is None:
            raise ValueError(f"no block {height} on {channel}")
        check(record.serial > reader.base.serial, "outside_window", reader.base.serial, record.serial)
        tree = _tree_after(reader, record.serial)
    named = header_codec.decode_meta(record.meta).state_root
    if tree.root() != named:
        raise Damaged(f"state at {channel} height {height}", named, tree.root())
    return tree


def state_before(reader: Reader, channel: str, height: int) -> StateTree:
    """The state that the block of that height was executed on; nothing names its root, the block's own execution has
    to come out right (recompute.py)."""
    with reader.store.reading():
        record = reader.block_record(channel, height)
        if record is None:
            raise ValueError(f"no block {height} on {channel}")
        check(record.serial > reader.base.serial, "outside_window", reader.base.serial, record.serial)
        return _tree_after(reader, record.serial - 1)


def state_of_base(reader: Reader) -> StateTree:
    """The state that was fetched; Damaged when what came after it does not lead back there."""
    with reader.store.reading():
        tree = _tree_after(reader, reader.base.serial)
    if tree.root() != reader.base.state_root:
        raise Damaged(f"state at n {reader.base.n}", reader.base.state_root, tree.root())
    return tree


def _tree_after(reader: Reader, wanted: int) -> StateTree:
    """The state after the block of that serial, 0 for the genesis."""
    tree = StateTree((bytes(key), value) for key, value in reader.store.scan("state") if isinstance(key, bytes))
    changes: dict[bytes, bytes | None] = {}
    for serial, data in reader.store.scan("undo", is_backwards=True):
        assert isinstance(serial, int)
        if serial <= wanted:
            break
        changes.update(records.decode_changes(data))
    for number, data in reader.store.scan("chains"):
        assert isinstance(number, int)
        chain = records.decode_chain(data)
        if chain.tip.leaf and reader.serial_of(chain.tip) > wanted:
            changes[state.chain_key(chain.kid, chain.point)] = _record_at(reader, number, chain, wanted)
    tree.apply(changes)
    return tree


def _record_at(reader: Reader, number: int, chain: records.Chain, serial: int) -> bytes | None:
    """A chain's record after the block of that serial; None when the chain began later."""
    place = reader.bisect(number, chain, "serial", serial + 1)
    while place.leaf and reader.serial_of(place) > serial:
        place = reader.link(place).before
    if reader.base.serial and (not place.leaf or reader.serial_of(place) <= reader.base.serial):
        return reader.store.get("bases", number)
    return record_after(reader, place) if place.leaf else None


def record_after(reader: Reader, place: records.Place) -> bytes:
    """A chain's record after its seal that stands there."""
    found, link = reader.seal(place), reader.link(place)
    if found is None:
        raise Damaged(f"chain {link.chain}", "a seal", None)
    fields = found.seal
    last_ms, import_wh, export_wh = link.kept or (fields.last_ms, fields.import_wh, fields.export_wh)
    marks = found.code - MARKED if found.code >= MARKED else 0
    payload_hash = seal.payload_hash(cose.parse(found.leaf).payload)
    return state.encode_record(ChainRecord(fields.height, payload_hash, fields.meter_epoch, last_ms, import_wh,
                                           export_wh, fields.boot, link.lost_total, marks))


def kept_of(record: ChainRecord, fields: seal.Seal) -> tuple[int, int | None, int | None] | None:
    """What of a chain's record cannot be read from its newest seal; None when that is nothing."""
    values = (record.last_ms, record.import_wh, record.export_wh)
    return None if values == (fields.last_ms, fields.import_wh, fields.export_wh) else values
