"""Makes what an operator should look at from a period's clearings and slots: wash trades, market power, feeders.

Nothing here judges anybody; it names patterns with the numbers that make them (security.md 5), in exact integers.

*Rings* (T63). Trades make a graph of owners, an edge from seller to buyer with the energy of all their trades. A cycle
of two or three owners is shown when nobody in it keeps energy: what each sells to the next and buys from the one before
differ by `tolerance` at most. (An owner never trades with itself: the clearing matches none.)

*Concentration* (T71). Of each slot's traded energy, the largest seller's and the largest buyer's share.

*Feeders* (T69). What a transformer's meter supplies less what its members' meters report is the deviation d, slot by
slot: technical losses, and what a member does not report. Losses follow what flows, s; a member that reports a constant
part less leaves its own pattern x in d. So for each member and direction d = a s + b x is fitted by least squares over
a day. The best explains most of what losses alone, d = a s, leave over, and b says how much it reports wrongly:
b / (1 + b) too little of what it drew, b / (1 - b) too much of what it fed in. Patterns must differ to be told apart.
"""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

from gateway.market import records
from gateway.market.records import ClearingRecord, Energy, SlotRecord, TradeRecord

WHOLE = 1000  # shares are in thousandths
TOLERANCE = 50  # of a ring: whoever keeps more of it than a twentieth has traded for the energy, too
DAY_S = 86_400
# A member is named when its pattern explains so much of what losses leave over, and it reports 2 % wrongly: twice what
# a class 1 meter may be off. Of 400 generated days of 24 slots and 20 members, meters off by up to 0.5 %: who reports a
# tenth less explains 61 % at least, 87 % on 19 days of 20; the best of forty patterns that mean nothing 55 % at most.
EXPLAINED, SHARE = 600, 20
SLOTS = 12  # of a day that patterns are compared over: with two, any pattern explains everything
IMPORT, EXPORT = "import", "export"
Get = Callable[[bytes], bytes | None]


class Ring(NamedTuple):
    """Owners that sell round, each to the next, the last to the first, the smallest kid first; `flows`: Wh of each."""

    owners: tuple[bytes, ...]
    flows: tuple[int, ...]
    trades: int
    share: int  # thousandths: of all that its members sold and bought, what went round


class Concentration(NamedTuple):
    """Who had most of a slot's traded energy, shares in thousandths of wh."""

    slot_s: int | None  # None: of the whole period
    wh: int
    seller: bytes
    seller_share: int
    buyer: bytes
    buyer_share: int


class Feeder(NamedTuple):
    """A transformer's point, whose import is what the grid supplies, and the points behind it."""

    point: int
    members: tuple[int, ...]


class Pattern(NamedTuple):
    """A member's pattern in a deviation. share: thousandths of its true energy that it reports too little (import) or
    too much (export), negative the other way round; explained: thousandths of what losses leave over."""

    point: int
    direction: str
    share: int
    explained: int

    @property
    def is_named(self) -> bool:
        return self.explained >= EXPLAINED and abs(self.share) >= SHARE


class FeederDay(NamedTuple):
    """A feeder's balance over a day; energies in Wh, import less export."""

    feeder: int
    day_s: int  # its local midnight, as if that were UTC
    slots: int
    left_out: int  # slots in which an energy is missing
    supplied_wh: int
    members_wh: int
    best: Pattern | None  # None: too few slots, or losses alone explain everything

    @property
    def deviation_wh(self) -> int:
        return self.supplied_wh - self.members_wh


def rings(trades: Iterable[TradeRecord], tolerance: int = TOLERANCE) -> list[Ring]:
    """The rings of two and three owners, the greatest energy first; ValueError for a tolerance that is no share."""
    if not 0 <= tolerance < WHOLE:
        raise ValueError(f"a tolerance of 0 to {WHOLE - 1} thousandths, not {tolerance}")
    flows: dict[tuple[bytes, bytes], int] = defaultdict(int)
    counts: dict[tuple[bytes, bytes], int] = defaultdict(int)
    turnover: dict[bytes, int] = defaultdict(int)
    for trade in trades:
        if trade.seller == trade.buyer:
            continue  # no clearing makes one
        flows[trade.seller, trade.buyer] += trade.wh
        counts[trade.seller, trade.buyer] += 1
        for owner in (trade.seller, trade.buyer):
            turnover[owner] += trade.wh
    found = []
    for owners in _cycles(flows, tolerance):
        edges = list(zip(owners, [*owners[1:], owners[0]]))
        around = tuple(flows[edge] for edge in edges)
        share = WHOLE * 2 * sum(around) // sum(turnover[owner] for owner in owners)
        found.append(Ring(owners, around, sum(counts[edge] for edge in edges), share))
    return sorted(found, key=lambda ring: (-min(ring.flows), ring.owners))


def _cycles(flows: Mapping[tuple[bytes, bytes], int], tolerance: int) -> Iterator[tuple[bytes, ...]]:
    """Cycles that balance at each owner, each once, from its smallest kid on. What an owner sells on is looked up by
    its size, so that only what balances is walked."""
    sold: dict[bytes, list[tuple[int, bytes]]] = defaultdict(list)
    for (seller, buyer), wh in flows.items():
        sold[seller].append((wh, buyer))
    for row in sold.values():
        row.sort()
    for (first, second), wh in flows.items():
        if first > second:
            continue
        for onward_wh, third in _as_much(sold[second], wh, tolerance):
            if third == first:
                yield first, second
            elif third > first:
                back_wh = flows.get((third, first), 0)
                if _balances(onward_wh, back_wh, tolerance) and _balances(back_wh, wh, tolerance):
                    yield first, second, third


def _as_much(sold: Sequence[tuple[int, bytes]], wh: int, tolerance: int) -> Sequence[tuple[int, bytes]]:
    least_wh = -(-wh * (WHOLE - tolerance) // WHOLE)
    most_wh = wh * WHOLE // (WHOLE - tolerance)
    return sold[bisect_left(sold, (least_wh, b"")):bisect_right(sold, (most_wh + 1, b""))]


def _balances(one_wh: int, other_wh: int, tolerance: int) -> bool:
    return WHOLE * abs(one_wh - other_wh) <= tolerance * max(one_wh, other_wh)


def concentration(trades: Iterable[TradeRecord], slot_s: int | None) -> Concentration | None:
    """The largest shares of some trades; None where nothing was traded. Of equals, the smaller kid."""
    sides: tuple[dict[bytes, int], dict[bytes, int]] = defaultdict(int), defaultdict(int)
    for trade in trades:
        for side, owner in zip(sides, (trade.seller, trade.buyer)):
            side[owner] += trade.wh
    wh = sum(sides[0].values())
    if not wh:
        return None
    seller, buyer = (min(side, key=lambda owner: (-side[owner], owner)) for side in sides)
    return Concentration(slot_s, wh, seller, WHOLE * sides[0][seller] // wh, buyer, WHOLE * sides[1][buyer] // wh)


def feeder_days(feeder: Feeder, slots: Iterable[SlotRecord], offset_of: Callable[[int], int]) -> list[FeederDay]:
    """The balance of each local day (offset_of: seconds east of UTC at a time) of which a slot is whole."""
    days: dict[int, list[dict[int, Energy]]] = defaultdict(list)
    for slot in slots:
        day_s = (slot.slot_s + offset_of(slot.slot_s)) // DAY_S * DAY_S
        days[day_s].append({row.point: row for row in slot.energies})
    return [_feeder_day(feeder, day_s, days[day_s]) for day_s in sorted(days)]


def _feeder_day(feeder: Feeder, day_s: int, slots: Sequence[Mapping[int, Energy]]) -> FeederDay:
    whole = [slot for slot in slots if all(_is_known(slot.get(point)) for point in (feeder.point, *feeder.members))]
    supplied = [_part(slot[feeder.point], IMPORT) - _part(slot[feeder.point], EXPORT) for slot in whole]
    patterns = {(point, direction): [_part(slot[point], direction) for slot in whole]
                for point in feeder.members for direction in (IMPORT, EXPORT)}
    members = [sum(patterns[point, IMPORT][at] - patterns[point, EXPORT][at] for point in feeder.members)
               for at in range(len(whole))]
    flowing = [abs(one) for one in members]
    deviation = [one - other for one, other in zip(supplied, members)]
    return FeederDay(feeder.point, day_s, len(whole), len(slots) - len(whole), sum(supplied), sum(members),
                     best_pattern(deviation, flowing, patterns) if len(whole) >= SLOTS else None)


def best_pattern(deviation: Sequence[int], losses: Sequence[int],
                 patterns: Mapping[tuple[int, str], Sequence[int]]) -> Pattern | None:
    """The pattern that with the losses explains a deviation best; None where there is nothing left to explain.

    Least squares of d = a s + b x: with m = dd - ds ds / ss what losses alone leave over, a pattern takes
    (dx ss - xs ds)^2 / (ss (xx ss - xs xs)) of it."""
    ss, ds = _dot(losses, losses), _dot(deviation, losses)
    if not ss:
        ss, ds = 1, 0  # no losses where nothing flows: d = b x
    left = Fraction(_dot(deviation, deviation) * ss - ds * ds, ss)
    if left <= 0:
        return None
    best: tuple[Fraction, tuple[int, str], Fraction] | None = None
    for name, pattern in sorted(patterns.items()):
        xs = _dot(pattern, losses)
        own = _dot(pattern, pattern) * ss - xs * xs
        over = _dot(deviation, pattern) * ss - xs * ds
        whole = own + over if name[1] == IMPORT else own - over  # its true energy; below 0: no reading of such a meter
        if own > 0 and whole > 0 and (best is None or Fraction(over * over, own) > best[0]):
            best = Fraction(over * over, own), name, Fraction(over, whole)
    if best is None:
        return None
    taken, (point, direction), share = best
    return Pattern(point, direction, round(WHOLE * share), int(WHOLE * taken / ss / left))


def _is_known(energy: Energy | None) -> bool:
    return energy is not None and (energy.import_wh is not None or energy.export_wh is not None)


def _part(energy: Energy, direction: str) -> int:
    return (energy.import_wh if direction == IMPORT else energy.export_wh) or 0


def _dot(one: Sequence[int], other: Sequence[int]) -> int:
    return sum(a * b for a, b in zip(one, other))


# Over a ledger's state.

def report(get: Get, first_s: int, end_s: int, length_s: int, feeders: Sequence[Feeder] = (),
           tolerance: int = TOLERANCE, offset_of: Callable[[int], int] = lambda _: 0) -> dict[str, Any]:
    """All of it over the slots [first_s, end_s) that are final, as plain values."""
    cleared: list[ClearingRecord] = []
    settled: list[SlotRecord] = []
    for slot_s in range(first_s, end_s, length_s):
        clearing, slot = get(records.clearing_key(slot_s)), get(records.slot_key(slot_s))
        if clearing is None or slot is None:
            continue
        found = records.decode_slot(slot)
        if found.status == records.FINAL:
            cleared.append(records.decode_clearing(clearing))
            settled.append(found)
    trades = [trade for clearing in cleared for trade in clearing.trades]
    by_slot = [concentration(clearing.trades, clearing.slot_s) for clearing in cleared]
    whole = concentration(trades, None)
    days = [day for feeder in feeders for day in feeder_days(feeder, settled, offset_of)]
    return {"first_s": first_s, "end_s": end_s, "slots": len(settled), "trades": len(trades),
            "wh": sum(trade.wh for trade in trades),
            "rings": [{**ring._asdict(), "owners": [owner.hex() for owner in ring.owners]}
                      for ring in rings(trades, tolerance)],
            "concentration": {"period": _shares(whole) if whole else None,
                              "slots": [_shares(row) for row in by_slot if row]},
            "feeders": [{**day._asdict(), "deviation_wh": day.deviation_wh,
                         "best": {**day.best._asdict(), "is_named": day.best.is_named} if day.best else None}
                        for day in days]}


def _shares(row: Concentration) -> dict[str, Any]:
    return {**row._asdict(), "seller": row.seller.hex(), "buyer": row.buyer.hex()}
