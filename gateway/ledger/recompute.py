"""Makes a block's clearings again, from the state before it, and the verdict whether they are what the ledger says.

Nobody's word is needed: the block is executed once more, all of it, and must come to the state root that its header
stands for; then its clearings' records must be in the present state, byte for byte.
"""

from typing import NamedTuple

from firmware.wire import header as header_codec
from gateway.contracts import calendar
from gateway.contracts.apply import apply_item
from gateway.ledger import history
from gateway.ledger.damage import Damaged
from gateway.ledger.reader import Reader
from gateway.ledger.tree import Draft
from gateway.market import records
from gateway.market.records import ClearingRecord


class Recomputed(NamedTuple):
    """One slot's clearing as it came out now, and whether the ledger has the same bytes."""

    record: ClearingRecord
    is_equal: bool


def clearings_of(reader: Reader, height: int) -> list[Recomputed]:
    """The clearings of a block of the first channel, by slot; empty when it cleared none.

    ValueError without that block; Damaged when executing it again leads to another state than it names."""
    channel = reader.channels[0]
    whole = reader.whole(channel, height)
    if whole is None:
        raise ValueError(f"no block {height} on {channel}")
    tree = history.state_before(reader, channel, height)
    draft = Draft(tree)
    header = header_codec.decode(whole.header)
    context = reader.context(channel, height, header.time_s, header.previous)
    calendar.advance(draft, context)
    prefix = records.clearing_key(0)[:-8]
    made = {key: value for key, value in draft.changes.items() if key.startswith(prefix) and value is not None}
    for item in whole.leaves:
        apply_item(draft, context, item, reader.verify)
    tree.apply(draft.changes)
    named = header_codec.decode_meta(whole.meta).state_root
    if tree.root() != named:
        raise Damaged(f"state after {channel} height {height}", named, tree.root())
    return [Recomputed(records.decode_clearing(made[key]), reader.state_value(key) == made[key])
            for key in sorted(made)]
