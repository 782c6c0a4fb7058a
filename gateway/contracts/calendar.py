"""Makes what is due at a block's time happen, slot by slot: clearing, provisional and final settlement.

Theory. No clock runs here. At the start of every block's execution `advance` does all that is due at the block's time,
in the order of the times at which it was due. A duty is named by its slot and kind; a cursor for each kind says which
slot is next, so each is done once, in the order of slots, whoever proposes what.

    kind         due at                                       by the rules of
    clearing     slot - gate_s                                the block's height
    provisional  slot's end + provisional_s                   the slot (frozen at its clearing)
    final        slot's end + final_s, after provisional      the slot

It starts in the first block of which a grid account and all rule sets are in force, with the first slot whose gate is
still ahead, and never ends. `next_deadline_s` is what consensus must not let block time stop short of (transactions.md,
Heartbeat): an empty block is proposed at once when it passes.
"""

from collections.abc import Iterator
from functools import lru_cache

from gateway.contracts import accounts, clearing, indexes, leaving, registry, rulesets, settlement
from gateway.contracts.context import BlockContext, State
from gateway.market import records
from gateway.market.records import CalendarRecord
from gateway.market.rules import NAMES, Vee

# Of one block, so that a block after a long silence takes no longer than peers wait for; the next blocks, empty ones if
# need be, take the rest at once.
DUTIES = 128
CLEAR, PROVISIONAL, FINAL = range(3)


def advance(store: State, context: BlockContext) -> None:
    """Does what is due at the block's time. Only blocks of the chain's first channel count: heights are its own."""
    if context.channel != context.channels[0]:
        return
    if store.get(records.CALENDAR_KEY) is None and not _start(store, context):
        return
    for _ in range(DUTIES):
        due = min(_duties(store, context.height, context.parameters["slot_s"]))
        if due[0] > context.time_s:
            return
        _do(store, context, *due)


def next_deadline_s(store: State, height: int, slot_s: int) -> int | None:
    """The block time at which the next duty is due, for a block of that height; None before the calendar runs."""
    if store.get(records.CALENDAR_KEY) is None:
        return None
    return min(_duties(store, height, slot_s))[0]


def _start(store: State, context: BlockContext) -> bool:
    if accounts.grid(store) is None or any(rulesets.in_force(store, name, context.height) is None for name in NAMES):
        return False
    length_s = context.parameters["slot_s"]
    gate_s = rulesets.market(store, context.height).gate_s
    first_s = (context.time_s + gate_s) // length_s * length_s + length_s
    store.put(records.CALENDAR_KEY, records.encode(CalendarRecord(first_s, first_s, first_s)))
    return True


def _duties(store: State, height: int, length_s: int) -> Iterator[tuple[int, int, int]]:
    """(due time, kind, slot) of the next of each kind."""
    calendar = _calendar(store)
    yield calendar.clear_s - rulesets.market(store, height).gate_s, CLEAR, calendar.clear_s
    slot_s = calendar.provisional_s
    if slot_s < calendar.clear_s:
        yield slot_s + length_s + _vee(store, slot_s).provisional_s, PROVISIONAL, slot_s
    slot_s = calendar.final_s
    if slot_s < calendar.provisional_s:
        yield slot_s + length_s + _vee(store, slot_s).final_s, FINAL, slot_s


def _do(store: State, context: BlockContext, _due_s: int, kind: int, slot_s: int) -> None:
    calendar, next_s = _calendar(store), slot_s + context.parameters["slot_s"]
    if kind == CLEAR:
        clearing.clear(store, context, slot_s)
        calendar = calendar._replace(clear_s=next_s)
    elif kind == PROVISIONAL:
        settlement.provisional(store, context, slot_s)
        calendar = calendar._replace(provisional_s=next_s)
    else:
        settlement.final(store, context, slot_s)
        indexes.settle_former(store, context, next_s, registry.point_of)
        leaving.give_back(store, next_s)
        calendar = calendar._replace(final_s=next_s)
    store.put(records.CALENDAR_KEY, records.encode(calendar))


def _calendar(store: State) -> CalendarRecord:
    data = store.get(records.CALENDAR_KEY)
    assert data is not None, "asked before it runs"
    return records.decode_calendar(data)


def _vee(store: State, slot_s: int) -> Vee:
    """The metering rules of a cleared slot."""
    data = store.get(records.clearing_key(slot_s))
    assert data is not None, "a record is written for every slot"
    vee: Vee = rulesets.of_version(store, "vee", _vee_version(data))
    return vee


@lru_cache(8)  # asked at every block of the two slots that the cursors stand at; a day's trades take a while to read
def _vee_version(data: bytes) -> int:
    return records.decode_clearing(data).vee_version
