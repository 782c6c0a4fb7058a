"""Makes a bill file from a ledger: what one account paid and got between two certified states, with all its evidence.

Nothing is believed here that the file does not prove: the state's records under two certified headers, and the seals
that decided the borders of every slot, each in its certified block. `gateway/market/billing.py` checks what this makes.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from firmware.wire import cbor, cose, reading, state
from firmware.wire import header as header_codec
from firmware.wire.errors import check
from gateway.contracts.context import MARKED
from gateway.ledger.history import state_at
from gateway.ledger.proofs import prove_items
from gateway.ledger.reader import Reader, SealAt
from gateway.ledger.tree import StateTree
from gateway.market import bill, records, rules, vee

CHANNEL = "trade"


class _Seal(NamedTuple):
    """A seal that may move energy, and where it stands."""

    last_ms: int
    found: SealAt

    @property
    def place(self) -> tuple[int, int]:
        return self.found.height, self.found.leaf_index


class _Shown:
    """The buckets of one state that the file will show."""

    def __init__(self, reader: Reader, height: int) -> None:
        self.height = height
        self._reader = reader
        self.tree: StateTree = state_at(reader, CHANNEL, height)
        self._buckets: set[int] = set()

    def get(self, key: bytes) -> bytes | None:
        """The value of a key, which the file then shows (or shows not to be there)."""
        self._buckets.add(state.bucket_of(key))
        return self.tree.get(key)

    def part(self) -> list:
        proven = prove_items(self._reader, CHANNEL, self.height, [])
        buckets = [[index, [list(pair) for pair in self.tree.bucket(index)]] for index in sorted(self._buckets)]
        return [proven.header, proven.certificate, proven.meta, proven.meta_path, self.tree.leaves(), buckets]


def export_bill(reader: Reader, account: bytes, first_s: int, end_s: int) -> bytes:
    """The bill of an account over the slots [first_s, end_s), widened to whole settlements.

    Refused `no_rules` while nothing was settled, `not_included` for a period that is not final yet or an account that
    does not exist, `too_few_signers` while a block of it has no certificate; ValueError for a period that is none."""
    slot_s = reader.parameters["slot_s"]
    if not first_s < end_s or first_s % slot_s or end_s % slot_s:
        raise ValueError(f"a period is whole slots of {slot_s} s")
    with reader.store.reading():
        before, after = _states(reader, first_s, end_s)
        first_s, end_s = _final_s(before), _final_s(after)
        points = _show_records(after, before, account, first_s, end_s, slot_s)
        own = cbor.decode(after.tree.get(records.owner_key(account)) or b"\x80")
        seals = {point: list(_seals(reader, point, first_s * 1000, end_s * 1000, slot_s * 1000)) for point in points}
        borders = list(_borders(points, seals, reader.parameters["boundary_s"] * 1000))
        for kid in {one.found.seal.kid for rows in seals.values() for one in rows}:
            after.get(state.agent_key(kid))
        places, blocks = _blocks(reader, [one for _, _, chosen in borders for one in chosen])
        rows = [[point, border_s, [list(places[one.place]) for one in chosen]] for point, border_s, chosen in borders]
        chains = [row for point in own for row in _chains(reader, point, borders)]
        witnesses = _witnesses(reader, after, account)
        return bill.encode(bill.Bill(bill.VERSION, bill.NAME, reader.chain_id, account, first_s, end_s, before.part(),
                                     after.part(), blocks, rows, chains, witnesses))


def settled_slots(reader: Reader) -> tuple[int, int]:
    """(the first slot of the market, the end of the last one that is settled); Refused `no_rules` before there is one.
    """
    with reader.store.reading():
        newest = reader.state_value(records.CALENDAR_KEY)
        first = next(reader.state_with(records.CLEARING), None)
    check(newest is not None and first is not None, "no_rules", "a settled slot", None)
    assert newest is not None and first is not None
    return records.decode_clearing(first[1]).slot_s, records.decode_calendar(newest).final_s


def _states(reader: Reader, first_s: int, end_s: int) -> tuple[_Shown, _Shown]:
    """The last state before the first slot's settlement, and the first one after the last slot's."""
    newest = reader.state_value(records.CALENDAR_KEY)
    check(newest is not None, "no_rules", "a market calendar", None)
    assert newest is not None
    final_s = records.decode_calendar(newest).final_s
    check(end_s <= final_s, "not_included", f"slots before {final_s}", end_s)
    top = reader.height(CHANNEL)
    after = _Shown(reader, _after_height(reader, end_s, final_s, top))
    height = _first_height(reader, _due_s(reader, first_s), top) - 1
    before = _Shown(reader, max(height, 1))
    check(before.tree.get(records.CALENDAR_KEY) is not None, "not_included", "a slot of the market", first_s)
    return before, after


def _after_height(reader: Reader, end_s: int, final_s: int, top: int) -> int:
    """Of the blocks after the last slot's settlement and before the next one's, the best witnessed; the newest of
    equals, but the first one where nobody has signed any: it is the first to be certified."""
    first = _first_height(reader, _due_s(reader, end_s - reader.parameters["slot_s"]), top)
    last = top if final_s == end_s else _first_height(reader, _due_s(reader, end_s), top) - 1
    count, height = max((len(reader.witnesses_at(CHANNEL, height)), height)
                        for height in range(first, max(first, last) + 1))
    return height if count else first


def _due_s(reader: Reader, slot_s: int) -> int:
    """The block time from which a slot's final settlement is due, by the rules that were frozen for it."""
    data = reader.state_value(records.clearing_key(slot_s))
    check(data is not None, "not_included", "a slot of the market", slot_s)
    assert data is not None
    version = records.decode_clearing(data).vee_version
    versions = reader.state_value(records.rules_key("vee"))
    assert versions is not None, "a slot was cleared under a rule set"
    for row in records.decode_rules(versions):
        if row.version == version:
            return slot_s + reader.parameters["slot_s"] + rules.read("vee", row.parameters).final_s
    check(False, "not_included", version, None)
    raise AssertionError


def _first_height(reader: Reader, time_s: int, top: int) -> int:
    """The height of the first block at or after a time; block time never falls."""
    low, high = 1, top
    while low < high:
        middle = (low + high) // 2
        header = reader.header(CHANNEL, middle)
        assert header is not None
        if header_codec.decode(header).time_s >= time_s:
            high = middle
        else:
            low = middle + 1
    return low


def _final_s(shown: _Shown) -> int:
    data = shown.get(records.CALENDAR_KEY)
    assert data is not None
    return records.decode_calendar(data).final_s


def _show_records(after: _Shown, before: _Shown, account: bytes, first_s: int, end_s: int,
                  slot_s: int) -> dict[int, set[int]]:
    """Shows every record that the check asks for; returns the borders needed of each point."""
    key = records.account_key(account)
    data, earlier = after.get(key), before.get(key)
    check(data is not None, "not_included", "an account", account)
    assert data is not None
    start = records.decode_account(earlier).entries if earlier is not None else 0
    for number in range(start + 1, records.decode_account(data).entries + 1):
        after.get(records.entry_key(account, number))
    points: dict[int, set[int]] = defaultdict(set)
    own = cbor.decode(after.get(records.owner_key(account)) or b"\x80")
    for slot in range(first_s, end_s, slot_s):
        cleared, _ = after.get(records.clearing_key(slot)), after.get(records.slot_key(slot))
        parties = set(own)
        for trade in records.decode_clearing(cleared).trades if cleared is not None else ():
            if account in (trade.buyer, trade.seller):
                parties |= {trade.buyer_point, trade.seller_point}
        for point in parties:
            points[point] |= {slot, slot + slot_s}
    for point in points:
        after.get(records.meter_key(point))
        after.get(state.point_key(point))
    after.get(records.GRID_KEY)
    for name in rules.NAMES:
        after.get(records.rules_key(name))
    return points


def _witnesses(reader: Reader, after: _Shown, account: bytes) -> list[bytes]:
    """The light nodes' signatures under the header of `after`; shows who may sign, and how many they are."""
    found = reader.witnesses_at(CHANNEL, after.height)
    for kid, _ in found:
        after.get(state.agent_key(kid))
    owner = after.get(state.agent_key(account))
    if owner is not None:
        after.get(state.light_key(state.decode_agent(owner).area))
    return [message for _, message in found]


def _seals(reader: Reader, point: int, first_ms: int, end_ms: int, slot_ms: int) -> Iterator[_Seal]:
    """The seals of a point that may move energy, from a day before the period on, in rising order of time."""
    found = []
    has_begun_again = _has_begun_again(reader, point)
    for kid, agent in reader.agents():
        if point not in agent.points:
            continue
        for one in reader.seals(kid, point):
            last_ms = one.seal.last_ms
            if not _is_good(one, has_begun_again):
                continue
            if last_ms <= end_ms + 24 * slot_ms:
                found.append(_Seal(last_ms, one))
            if last_ms < first_ms - 24 * slot_ms:
                break
    return iter(sorted(found, key=lambda row: (row.last_ms, row.place)))


def _has_begun_again(reader: Reader, point: int) -> bool:
    """Tells whether a meter of the point has rolled over: then a register that fell is no reason to leave it out."""
    data = reader.state_value(records.meter_key(point))
    numbers = [] if data is None else [epoch.number for epoch in records.decode_meter(data).epochs]
    return len(numbers) > len(set(numbers))


def _is_good(one: SealAt, has_begun_again: bool) -> bool:
    wrong = bill.MARKS_THAT_MOVE_NOTHING | (0 if has_begun_again else bill.FELL)
    is_marked = one.code >= MARKED and one.code - MARKED & wrong
    is_read = one.seal.import_wh is not None or one.seal.export_wh is not None
    return not is_marked and is_read and one.seal.flags & 3 == reading.CLOCK_SYNCHRONISED


def _borders(points: dict[int, set[int]], seals: dict[int, list[_Seal]],
             boundary_ms: int) -> Iterator[tuple[int, int, list[_Seal]]]:
    """(point, border, the one or two seals that decide it); none for a border that nothing decides."""
    for point in sorted(points):
        rows, at = seals[point], 0
        for border_s in sorted(points[point]):
            while at < len(rows) and rows[at].last_ms < border_s * 1000:
                at += 1
            before = rows[at - 1] if at else None
            chosen = _deciding(before, rows[at] if at < len(rows) else None, border_s * 1000, boundary_ms)
            if chosen:
                yield point, border_s, chosen


def _deciding(before: _Seal | None, now: _Seal | None, at_ms: int, boundary_ms: int) -> list[_Seal]:
    """As vee.border: the nearest within the tolerance, the later of two as near; else both."""
    points = [None if one is None else vee.Point(one.last_ms, which) for which, one in enumerate((before, now))]
    found = vee.border(points[0], points[1], at_ms, boundary_ms)
    if found.quality == records.MEASURED:
        return [one for one in (now if found.wh else before,) if one]  # the total is which of the two it is
    return [before, now] if before and now else []


def _blocks(reader: Reader, chosen: Iterable[_Seal]) -> tuple[dict[tuple[int, int], tuple[int, int]], list]:
    """({(height, leaf): (block, seal) places in the file}, the file's blocks)."""
    wanted: dict[int, set[int]] = defaultdict(set)
    for one in chosen:
        wanted[one.found.height].add(one.found.leaf_index)
    places, blocks = {}, []
    for number, height in enumerate(sorted(wanted)):
        indexes = sorted(wanted[height])
        proven = prove_items(reader, CHANNEL, height, indexes)
        for row, index in enumerate(indexes):
            places[height, index] = (number, row)
        blocks.append([proven.header, proven.certificate, proven.meta, proven.meta_path, proven.results,
                       [[item.leaf, item.leaf_index, item.path] for item in proven.items]])
    return places, blocks


def _chains(reader: Reader, point: int, borders: Sequence[tuple[int, int, list[_Seal]]]) -> Iterator[list]:
    """[kid, point, payloads] of every agent of a point: its seals from the first that decides a border to the last."""
    heights: dict[bytes, list[int]] = defaultdict(list)
    for at, _, chosen in borders:
        if at == point:
            for row in chosen:
                heights[row.found.seal.kid].append(row.found.seal.height)
    for kid in sorted(heights):
        payloads = []
        for one in reader.seals(kid, point, max(heights[kid])):
            if one.seal.height < min(heights[kid]):
                break
            payloads.append(cose.parse(one.leaf).payload)
        yield [kid, point, payloads[::-1]]
