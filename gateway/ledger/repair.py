"""Makes a damaged record of a running ledger again: from memory, from its neighbours, or from a block of a peer's.

Nobody is believed: a block from a peer must be the one that our own next header (or head) names, and executed again on
the state before it, its result codes must be those that its meta names. What a record held beside that (places,
ordinals, the key of the readings) follows from the blocks around it. One record is made at a time, in the ledger's
thread, in one transaction.

Not made again are `undo` (the way back to old states), `bases` and `witnesses`: they are named, and a replica that must
prove what lies behind them takes a new ledger from its peers.
"""

from collections.abc import Sequence

from firmware.wire import certificate as certificate_codec
from firmware.wire import cose, seal
from firmware.wire import header as header_codec
from firmware.wire import state as state_codec
from firmware.wire.errors import Refused, check
from gateway.contracts.apply import Result, apply_block
from gateway.contracts.context import is_accepted
from gateway.ledger import block, history, records
from gateway.ledger.audit import check_certificate
from gateway.ledger.damage import Damaged
from gateway.ledger.ledger import Ledger
from gateway.ledger.records import BlockRecord, ItemRecord, Link, Place
from gateway.ledger.tree import Draft, StateTree

HEIGHTS = (1 << records.CHANNEL_SHIFT) - 1


def block_of(ledger: Ledger, table: str, key: int | bytes) -> tuple[str, int] | None:
    """(channel, height) of the block that a peer must give for this record; None where none helps or none is needed."""
    if table in ("blocks", "certificates") and isinstance(key, int):
        return ledger.channels[key >> records.CHANNEL_SHIFT], key & HEIGHTS
    if table == "envelopes":
        for at, name in enumerate(ledger.channels):
            for height in range(ledger.height(name), ledger.base_height(name), -1):
                record = _whole_block(ledger, name, height)
                if record is not None and any(item.envelope == key for item in record.items):
                    return ledger.channels[at], height
    return None


def from_here(ledger: Ledger, table: str, key: int | bytes) -> bool:
    """Makes a record again that memory or other records tell; False where a peer is needed, or nobody can help."""
    if table == "state" and isinstance(key, bytes):
        found = ledger.state_value(key)
    elif table == "chains" and isinstance(key, int):
        found = records.encode_chain(ledger.chain_numbered(key))
    elif table == "facts":
        found = {records.POSITION: records.encode_position(ledger.stand()), records.GENESIS: ledger.genesis,
                 records.FORMAT: bytes((records.FORMAT_VERSION,)),
                 records.EPOCHS: records.encode_epochs(ledger.epochs)}.get(int(key))
    elif table == "steps" and isinstance(key, int):
        found = _step(ledger, key)
    elif table == "transactions" and isinstance(key, bytes):
        found = _place(ledger, key)
    elif table == "envelopes" and isinstance(key, int) and block_of(ledger, table, key) is None:
        return ledger.give_up_pending(key)  # its agent sends it again: nothing was acknowledged
    elif table == "files":
        found = None  # fetched again by its hash when it is needed
    else:
        return False
    with ledger.store.writing():
        if found is None:
            ledger.store.delete(table, key)
        else:
            ledger.store.put(table, key, found)
    return True


def certificate(ledger: Ledger, channel: str, height: int, data: bytes) -> None:
    """Puts a peer's certificate in the place of a damaged one; Refused or Damaged when it is not our header's."""
    header = ledger.header(channel, height)
    check(header is not None, "wrong_height", None, height)
    check(certificate_codec.decode(data).header_hash == header_codec.hash_of(header or b""), "wrong_header", None, None)
    check_certificate(ledger, channel, height, header or b"", data)
    with ledger.store.writing():
        ledger.store.put("certificates", _key(ledger, channel, height), data)


def leaves(ledger: Ledger, channel: str, height: int, envelope: int, data: bytes) -> None:
    """The envelope of that key is damaged: its seal's leaf moves from a peer's block into ours; its readings are
    lacking from now on, and fetched as those of any block that came without."""
    found = _checked(ledger, channel, height, data)
    record = ledger.block_record(channel, height)
    check(record is not None, "wrong_height", None, height)
    assert record is not None
    for at, item in enumerate(record.items):
        if item.envelope == envelope:
            record.items[at] = item._replace(leaf=found.items[at], envelope=0)
    with ledger.store.writing():
        ledger.store.put("blocks", _key(ledger, channel, height), records.encode_block(record))
        ledger.store.delete("envelopes", envelope)
    ledger.forget_block(_key(ledger, channel, height))


def whole_block(ledger: Ledger, channel: str, height: int, data: bytes) -> None:
    """Makes the record of a block again from the block file that a peer gave."""
    found = _checked(ledger, channel, height, data)
    key, header = _key(ledger, channel, height), header_codec.decode(found.header)
    serial = _serial(ledger, channel, height)
    before = _seals_before(ledger, channel, height, found.items)
    draft = Draft(_state_before(ledger, serial, before))
    results = apply_block(draft, ledger.context(channel, height, header.time_s, header.previous), found.items,
                          ledger.verify)
    codes = [result.code for result in results]
    named = header_codec.decode_meta(found.meta)
    check(header_codec.results_hash(codes) == named.results_hash, "wrong_state", named.results_hash, codes)
    rows = _rows(ledger, key, found.items, results, before)
    hashes = b"".join(result.payload_hash[:8] for result in results)
    with ledger.store.writing():
        ledger.store.put("blocks", key, records.encode_block(BlockRecord(
            found.header, found.meta, codes, hashes, rows, serial)))
    ledger.forget_block(key)


def _key(ledger: Ledger, channel: str, height: int) -> int:
    return records.block_key(ledger.channels.index(channel), height)


def _whole_block(ledger: Ledger, channel: str, height: int) -> BlockRecord | None:
    """A block's record; None also where it is damaged, too: records are mended one by one."""
    try:
        return ledger.block_record(channel, height)
    except Damaged:
        return None


def _checked(ledger: Ledger, channel: str, height: int, data: bytes) -> block.Block:
    """The block of a file; Refused unless it is the one that our chain names at that height."""
    stand = ledger.stand().heads[ledger.channels.index(channel)]
    if height == stand[1]:
        expected = stand[2]
    else:
        above = ledger.block_record(channel, height + 1)
        check(above is not None, "wrong_height", stand[1], height)
        expected = header_codec.decode(above.header).previous if above else b""
    found = block.decode(data)
    check(header_codec.hash_of(found.header) == expected, "wrong_header", expected, header_codec.hash_of(found.header))
    return found


def _serial(ledger: Ledger, channel: str, height: int) -> int:
    """The one serial between those of its neighbours that no other channel's block has."""
    below = ledger.block_record(channel, height - 1) if height - 1 > ledger.base_height(channel) else None
    serial = (below.serial if below else ledger.base.serial) + 1
    taken = set()
    for other in ledger.channels:
        for at in range(ledger.height(other), ledger.base_height(other), -1):
            record = None if other == channel else ledger.block_record(other, at)
            if record is None or record.serial < serial:
                break
            taken.add(record.serial)
    while serial in taken:
        serial += 1
    return serial


def _seals_before(ledger: Ledger, channel: str, height: int, items: Sequence[bytes]) -> dict[int, Place]:
    """Of each chain that has a seal among the items: the place of its last seal below; Place(0, 0) where it begins."""
    wanted = set()
    for item in items:
        try:
            fields = seal.decode(cose.parse(item).payload)
        except Refused:
            continue
        number = ledger.chain_number(fields.kid, fields.point)
        if number:
            wanted.add(number)
    found: dict[int, Place] = {}
    for at in range(height - 1, ledger.base_height(channel), -1):
        if len(found) == len(wanted):
            break
        record = ledger.block_record(channel, at)
        for index, row in enumerate(record.items if record else (), 1):
            if row.link is not None and row.link.chain in wanted and (
                    row.link.chain not in found or found[row.link.chain].block == _key(ledger, channel, at)):
                found[row.link.chain] = Place(_key(ledger, channel, at), index)
    return {number: found.get(number, Place(0, 0)) for number in wanted}


def _state_before(ledger: Ledger, serial: int, before: dict[int, Place]) -> StateTree:
    """The state that the block was executed on, as far as the block can tell: the chains it touches, and all else."""
    tree = StateTree((bytes(key), value) for key, value in ledger.store.scan("state") if isinstance(key, bytes))
    changes: dict[bytes, bytes | None] = {}
    for at, data in ledger.store.scan("undo", is_backwards=True):
        assert isinstance(at, int)
        if at < serial:
            break
        changes.update(records.decode_changes(data))
    for number, place in before.items():
        chain = ledger.chain_numbered(number)
        record = history.record_after(ledger, place) if place.leaf else ledger.store.get("bases", number)
        changes[state_codec.chain_key(chain.kid, chain.point)] = record
    tree.apply(changes)
    return tree


def _rows(ledger: Ledger, key: int, items: Sequence[bytes], results: Sequence[Result],
          before: dict[int, Place]) -> list[ItemRecord]:
    """The items as the record holds them: accepted seals with their link and, where it is here, their envelope."""
    kept = _envelopes(ledger, {result.payload_hash for result in results if result.record is not None})
    places, rows = dict(before), list[ItemRecord]()
    ordinals: dict[int, int] = {}
    for index, (item, result) in enumerate(zip(items, results, strict=True), 1):
        fields, record = result.seal, result.record
        if fields is None or record is None or not is_accepted(result.code):
            rows.append(ItemRecord(item, 0, None))
            continue
        number = ledger.chain_number(fields.kid, fields.point)
        last = places[number]
        if number not in ordinals:
            ordinals[number] = ledger.link(last).ordinal if last.leaf else 0
        ordinals[number] += 1
        link = Link(number, ordinals[number], fields.height, last, record.lost, history.kept_of(record, fields))
        envelope, leaf = kept.get(result.payload_hash, (0, b""))
        rows.append(ItemRecord(None if leaf == item else item, envelope, link))
        places[number] = Place(key, index)
    return rows


def _envelopes(ledger: Ledger, wanted: set[bytes]) -> dict[bytes, tuple[int, bytes]]:
    """(key, leaf) of the envelopes kept for these payloads, newest first; a look through the whole table."""
    found: dict[bytes, tuple[int, bytes]] = {}
    for key in range(ledger.store.last_key("envelopes"), 0, -1):
        try:
            data = ledger.store.get("envelopes", key)
        except Damaged:
            continue
        if data is None:
            continue
        leaf = records.decode_envelope(data)[0]
        payload_hash = seal.payload_hash(cose.parse(leaf).payload)
        if payload_hash in wanted and payload_hash not in found:
            found[payload_hash] = key, leaf
        if len(found) == len(wanted):
            break
    return found


def _step(ledger: Ledger, key: int) -> bytes | None:
    """A chain's step, found by going back from its newest seal."""
    number, index = records.step_of_key(key)
    place = ledger.chain_numbered(number).tip
    while place.leaf:
        link = ledger.link(place)
        if link.ordinal == index * records.STEP:
            found = ledger.seal(place)
            assert found is not None, "a link's seal"
            return records.encode_step(records.Step(place, link.height, found.seal.last_ms, ledger.serial_of(place)))
        place = link.before
    return None


def _place(ledger: Ledger, payload_hash: bytes) -> bytes | None:
    """The first place where a transaction stands accepted, else the first where it stands at all."""
    refused = None
    for number, channel in enumerate(ledger.channels):
        for height in range(ledger.base_height(channel) + 1, ledger.height(channel) + 1):
            record = ledger.block_record(channel, height)
            for index in range(len(record.items) if record else 0):
                if record is None or record.hashes[8 * index:8 * index + 8] != payload_hash[:8]:
                    continue
                place = Place(records.block_key(number, height), index + 1)
                if record.results[index] == 0:
                    return records.encode_place(place)
                refused = refused or place
    return None if refused is None else records.encode_place(refused)
