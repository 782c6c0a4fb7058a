"""Makes proofs from a ledger: what acks and receipts are built of, proof files of readings, header files.

A proof is made from what is stored and checked nowhere here: whoever gets it checks it against the genesis alone.
"""

from collections.abc import Sequence
from typing import NamedTuple

from firmware.wire import epochs, headerfile, merkle, proof, state
from firmware.wire.errors import Refused
from firmware.wire.headerfile import CoSignature, Witnessing
from gateway.ledger import records
from gateway.ledger.history import state_at
from gateway.ledger.reader import Reader
from gateway.ledger.tree import StateTree


class ItemProof(NamedTuple):
    """A leaf of a block and its way to the root; leaf_index counts the meta as leaf 0."""

    leaf: bytes
    leaf_index: int
    size: int
    path: list[bytes]


class BlockProof(NamedTuple):
    """A certified block's head and some of its leaves: all that an ack or a receipt is made of."""

    header: bytes
    certificate: bytes
    meta: bytes
    meta_path: list[bytes]
    results: list[int]
    items: list[ItemProof]


def prove_items(reader: Reader, channel: str, height: int, indexes: Sequence[int]) -> BlockProof:
    """Proof of the leaves `indexes` (1.., the meta is 0) of a certified block.

    ValueError when there is no such block or leaf, Refused `too_few_signers` while the block has no certificate."""
    whole = reader.whole(channel, height)
    if whole is None:
        raise ValueError(f"no block {height} on {channel}")
    certificate = reader.certificate(channel, height)
    if certificate is None:
        raise Refused("too_few_signers", "a certificate", None)
    hashes = whole.hashes
    for index in indexes:
        if not 0 < index < len(hashes):
            raise ValueError(f"no leaf {index} in block {height}")
    meta_path, *item_paths = merkle.paths(hashes, [0, *indexes])
    items = [ItemProof(whole.leaves[index - 1], index, len(hashes), path)
             for index, path in zip(indexes, item_paths, strict=True)]
    return BlockProof(whole.header, certificate, whole.meta, meta_path, whole.results, items)


def prove_handover(reader: Reader, epoch: records.Epoch) -> bytes:
    """The handover that an epoch began with (firmware/wire/epochs.py); empty while the last block before it, or that
    one's certificate, is not here."""
    channel = reader.channels[0]
    try:
        proven = prove_items(reader, channel, dict(epoch.heights)[channel], [])
    except (ValueError, Refused):
        return b""
    return epochs.encode((proven.header, proven.certificate, proven.meta, proven.meta_path))


def handovers_to(reader: Reader, channel: str, height: int) -> list[bytes]:
    """The handovers up to a block's epoch; Refused `too_few_signers` while one of them is not certified here."""
    found = []
    for epoch in reader.epochs[1:reader.epoch_at(channel, height) + 1]:
        data = epoch.handover or prove_handover(reader, epoch)
        if not data:
            raise Refused("too_few_signers", "a handover", epoch.number)
        found.append(data)
    return found


def prove_reading(reader: Reader, point: int, time_ms: int) -> bytes:
    """The proof file of a point's reading of that time (firmware/wire/proof.py).

    Refused `not_included` when no committed seal holds such a reading, `readings_missing` when one covers that time
    but its readings are not here, `too_few_signers` while its block has no certificate."""
    with reader.store.reading():
        place = reader.find_reading(point, time_ms)
        if place is None:
            raise Refused("not_included", "a committed reading", time_ms)
        found, reading_index = place
        if found.readings is None:
            raise Refused("readings_missing", found.seal.count, 0)
        proven = prove_items(reader, found.channel, found.height, [found.leaf_index])
        tree = state_at(reader, found.channel, found.height)
        bucket = state.bucket_of(state.agent_key(found.seal.kid))
        hashes = [merkle.leaf_hash(data) for data in found.readings]
        item = proven.items[0]
        area = state.decode_agent(tree.get(state.agent_key(found.seal.kid)) or b"").area
        witnesses = witnessing(reader, tree, found.channel, found.height, area, proof.WITNESSES)
        return proof.encode(proof.Proof(
            proof.VERSION, proof.OF_READING, reader.chain_id,
            found.readings[reading_index], reading_index, merkle.path(hashes, reading_index),
            item.leaf, item.leaf_index, item.size, item.path,
            proven.meta, proven.meta_path, proven.results,
            tree.bucket(bucket), tree.path(bucket),
            proven.header, proven.certificate, witnesses if witnesses.signatures else ()),
            handovers_to(reader, found.channel, found.height))


def prove_header(reader: Reader, channel: str, height: int, area: str) -> bytes:
    """The header file of a certified block, with all that the area's light nodes have signed under its header by now.

    ValueError when there is no such block, Refused `too_few_signers` while it has no certificate."""
    with reader.store.reading():
        proven = prove_items(reader, channel, height, [])
        tree = state_at(reader, channel, height)
        witnesses = witnessing(reader, tree, channel, height, area, headerfile.SIGNATURES)
    return headerfile.encode(headerfile.HeaderFile(
        headerfile.VERSION, headerfile.NAME, reader.chain_id, proven.header, proven.certificate, proven.meta,
        proven.meta_path, witnesses), handovers_to(reader, channel, height))


def witnessing(reader: Reader, tree: StateTree, channel: str, height: int, area: str, limit: int) -> Witnessing:
    """Up to `limit` signatures under a block's header, with what proves who their keys are; tree: that block's state.

    Whose record that state does not hold as a light node of the area (revoked in that very block) is left out."""
    rows: list[CoSignature] = []
    for kid, message in reader.witnesses_at(channel, height):
        data = tree.get(state.agent_key(kid))
        agent = None if data is None else state.decode_agent(data)
        if agent is not None and state.is_light(agent) and agent.area == area and len(rows) < limit:
            bucket = state.bucket_of(state.agent_key(kid))
            rows.append(CoSignature(message, tree.bucket(bucket), tree.path(bucket)))
    bucket = state.bucket_of(state.light_key(area))
    return Witnessing(area, tree.bucket(bucket), tree.path(bucket), rows)
