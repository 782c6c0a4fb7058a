"""What a period's report finds: rings as brute force finds them, shares of 1, who on a feeder reports less."""

import itertools
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.market import records, surveillance
from gateway.market.records import Energy, SlotRecord, TradeRecord
from gateway.market.surveillance import EXPORT, IMPORT, WHOLE, Feeder, FeederDay

KIDS = [bytes([at]) * 8 for at in range(1, 9)]
DAY_S = 86_400


def trade(seller: int, buyer: int, wh: int) -> TradeRecord:
    return TradeRecord(0, 0, 0, 0, KIDS[buyer], buyer, KIDS[seller], seller, 50_000, wh, bytes(32), bytes(32))


TRADES = st.lists(st.builds(trade, st.integers(0, 3), st.integers(0, 3), st.sampled_from((95, 100, 105, 200, 1000))),
                  max_size=12)


def test_a_ring_of_three_is_flagged() -> None:
    """T63: three owners that sell round, beside an honest seller that sells more than any of them."""
    honest = [trade(3, at, 5000) for at in (4, 5)] + [trade(3, 0, 700)]
    ring = [trade(*edge, 1000) for edge in ((2, 0), (0, 1), (1, 2)) for _ in range(4)]
    found, = surveillance.rings(honest + ring[:-1] + [trade(1, 2, 990)])
    assert found.owners == (KIDS[0], KIDS[1], KIDS[2]) and found.flows == (4000, 3990, 4000) and found.trades == 12
    assert found.share == WHOLE * 2 * 11_990 // (2 * 11_990 + 700)
    assert surveillance.rings(honest + ring[:-4]) == [] and surveillance.rings(honest) == []
    assert surveillance.rings(ring[:-4] + [trade(1, 2, 3799)]) == [], "more than 5 % stays with one of them"
    assert surveillance.rings(ring[:-4] + [trade(2, 1, 4000)]) == [], "an edge the other way round closes no ring"
    two, = surveillance.rings([trade(0, 1, 300), trade(1, 0, 290), trade(1, 2, 40)])
    assert (two.owners, two.flows) == ((KIDS[0], KIDS[1]), (300, 290))


@pytest.mark.parametrize("turn", range(3))
def test_a_ring_balances_at_every_owner(turn: int) -> None:
    owners = [(at + turn) % 3 for at in range(3)]
    sold = dict(zip(owners, (95, 100, 105)))
    trades = [trade(at, (at + 1) % 3, sold[at]) for at in range(3)]
    assert surveillance.rings(trades, 50) == [], "95 and 105 are too far apart"
    assert len(surveillance.rings(trades, 96)) == 1
    pair = [trade(turn, turn + 1, 95), trade(turn + 1, turn, 100)]
    assert len(surveillance.rings(pair, 50)) == len(surveillance.rings([*pair, trade(0, 4, 1)], 50)) == 1
    assert surveillance.rings(pair, 49) == []


@given(TRADES, st.integers(0, 300))
def test_rings_are_those_of_brute_force(trades: list[TradeRecord], tolerance: int) -> None:
    flows: Counter[tuple[bytes, bytes]] = Counter()
    for one in trades:
        flows[one.seller, one.buyer] += one.wh
    expected = set()
    for count in (2, 3):
        for owners in itertools.permutations(KIDS[:5], count):
            around = [flows[owners[at], owners[(at + 1) % count]] for at in range(count)]
            nets = [(around[at - 1], around[at]) for at in range(count)]
            if owners[0] == min(owners) and all(around) and all(
                    WHOLE * abs(bought - sold) <= tolerance * max(bought, sold) for bought, sold in nets):
                expected.add((owners, tuple(around)))
    found = surveillance.rings(trades, tolerance)
    assert {(ring.owners, ring.flows) for ring in found} == expected and len(found) == len(expected)
    assert found == surveillance.rings(reversed(trades), tolerance)
    assert all(0 < ring.share <= WHOLE for ring in found)


def test_rings_of_many_owners_are_found_in_a_moment() -> None:
    chance = random.Random(63)
    edges = [(a, b) for a in range(300) for b in range(300) if a != b]
    kids = [at.to_bytes(8, "big") for at in range(300)]
    trades = [trade(0, 1, chance.randrange(1, 10**6))._replace(seller=kids[a], buyer=kids[b]) for a, b in edges]
    trades += [trade(0, 1, 10**9)._replace(seller=kids[a], buyer=kids[b]) for a, b in ((9, 4), (4, 7), (7, 9))]
    assert surveillance.rings(trades, 5)[0].owners == (kids[4], kids[7], kids[9])


@pytest.mark.parametrize("tolerance", [-1, WHOLE])
def test_a_tolerance_is_a_share(tolerance: int) -> None:
    with pytest.raises(ValueError, match="thousandths"):
        surveillance.rings([], tolerance)


@given(TRADES)
def test_concentration(trades: list[TradeRecord]) -> None:
    """T71: the largest shares, by another way of counting."""
    found = surveillance.concentration(trades, 3600)
    if not trades:
        assert found is None
        return
    assert found is not None and found.slot_s == 3600
    total = sum(one.wh for one in trades)
    for kid, share, name in ((found.seller, found.seller_share, "seller"), (found.buyer, found.buyer_share, "buyer")):
        sums = {one: sum(row.wh for row in trades if getattr(row, name) == one) for one in KIDS}
        assert sums[kid] == max(sums.values()) and share == WHOLE * sums[kid] // total
        assert kid == min(one for one in KIDS if sums[one] == sums[kid])


def households(chance: random.Random, count: int, slots: int = 24) -> dict[int, list[int]]:
    """A day's load of each, Wh per slot: a base, a morning and an evening of its own, and what is switched on."""
    loads = {}
    for point in range(1, count + 1):
        size, morning, evening = chance.uniform(0.5, 2), chance.gauss(7, 1), chance.gauss(19, 1.5)
        loads[point] = [int(size * (150 + 500 * max(0, 1 - abs(hour * 24 / slots - morning) / 2)
                                    + 900 * max(0, 1 - abs(hour * 24 / slots - evening) / 3)
                                    + (chance.random() < 0.15) * chance.uniform(500, 2500))) for hour in range(slots)]
    return loads


def day_of(loads: dict[int, list[int]], reported: dict[int, list[int]], losses: float = 0.02,
           exports: dict[int, list[int]] | None = None, true_exports: dict[int, list[int]] | None = None
           ) -> list[SlotRecord]:
    """Slots of a feeder: point 100 is the transformer's meter, which also sees the losses."""
    slots = []
    count = len(next(iter(loads.values())))
    for at in range(count):
        net = sum(row[at] for row in loads.values()) - sum(row[at] for row in (true_exports or exports or {}).values())
        supplied = net + int(losses * abs(net))
        rows = [Energy(point, row[at], (exports or {}).get(point, [0] * 99)[at], 0) for point, row in reported.items()]
        slots.append(SlotRecord(at * (DAY_S // count), records.FINAL, 1, 0, [
            *rows, Energy(100, max(supplied, 0), max(-supplied, 0), 0)]))
    return slots


def only_day(slots: list[SlotRecord], count: int) -> FeederDay:
    found, = surveillance.feeder_days(Feeder(100, tuple(range(1, count + 1))), slots, lambda _: 0)
    return found


@pytest.mark.parametrize("losses", [0, 0.02, 0.06])
def test_who_reports_a_tenth_less_is_named_within_a_day(losses: float) -> None:
    """T69: each of twenty in turn, over meters that are off by up to half a percent, each by its own."""
    chance = random.Random(69)
    loads = households(chance, 20)
    errors = {point: chance.uniform(0.995, 1.005) for point in loads}
    for thief in loads:
        reported = {point: [int(wh * errors[point] * (0.9 if point == thief else 1)) for wh in row]
                    for point, row in loads.items()}
        day = only_day(day_of(loads, reported, losses), 20)
        assert day.best is not None and (day.best.point, day.best.direction) == (thief, IMPORT)
        assert day.best.is_named and abs(day.best.share - 100) <= 15, day.best
        assert (day.slots, day.left_out) == (24, 0)
        assert day.members_wh == sum(map(sum, reported.values())) < day.supplied_wh
        assert day.deviation_wh == day.supplied_wh - day.members_wh


@pytest.mark.parametrize("losses", [0, 0.03])
def test_nobody_is_named_where_all_are_honest(losses: float) -> None:
    for seed in range(100):  # chosen once: what chance makes of meters that are off is never impossible
        chance = random.Random(seed)
        loads = households(chance, 20)
        reported = {point: [int(wh * error) for wh in row]
                    for (point, row), error in zip(loads.items(), [chance.uniform(0.995, 1.005) for _ in loads])}
        best = only_day(day_of(loads, reported, losses), 20).best
        assert best is None or not best.is_named, (seed, best)


@given(st.integers(0, 2**32), st.integers(1, 12), st.sampled_from((0.05, 0.1, 0.3)))
def test_who_reports_more_fed_in_than_there_was_is_named(seed: int, thief: int, part: float) -> None:
    """Exact meters, losses, sun on half of the roofs; more or less than it drew, more than it made: all are told."""
    chance = random.Random(seed)
    loads = households(chance, 12, 96)
    sun = {point: [max(0, int(chance.uniform(0.6, 1) * size * (1 - abs(at - 48) / 24))) for at in range(96)]
           for point in loads for size in (chance.uniform(300, 900),)}
    more = {**sun, thief: [int(wh * (1 + part)) for wh in sun[thief]]}
    best = only_day(day_of(loads, loads, 0.02, more, sun), 12).best
    assert best is not None and best.is_named and (best.point, best.direction) == (thief, EXPORT)
    assert abs(best.share - part * WHOLE) <= 10
    reported = {**loads, thief: [int(wh * (1 + part)) for wh in loads[thief]]}
    best = only_day(day_of(loads, reported, 0.02, sun), 12).best
    assert best is not None and (best.point, best.direction) == (thief, IMPORT)
    assert abs(best.share + part * WHOLE) <= 10, "it hurts itself, and the sign says so"


def test_slots_with_a_missing_energy_are_left_out_and_days_are_local() -> None:
    loads = households(random.Random(1), 3)
    slots = day_of(loads, loads)
    slots[4] = slots[4]._replace(energies=[row if row.point != 2 else Energy(2, None, None, records.MISSING)
                                           for row in slots[4].energies])
    slots[5] = slots[5]._replace(energies=slots[5].energies[1:])
    day = only_day(slots, 3)
    assert (day.slots, day.left_out) == (22, 2)
    assert day.members_wh == sum(wh for row in loads.values() for at, wh in enumerate(row) if at not in (4, 5))
    found = surveillance.feeder_days(Feeder(100, (1, 2, 3)), slots, lambda _: 7200)
    assert [(one.day_s, one.slots, one.left_out) for one in found] == [(0, 20, 2), (DAY_S, 2, 0)]
    assert sum(one.supplied_wh for one in found) == day.supplied_wh
    assert found[1].best is None, "any pattern explains two slots"


@given(st.integers(0, 2**32), st.integers(1, 6), st.integers(2, 30))
def test_any_day_has_an_answer(seed: int, count: int, slots: int) -> None:
    """Whatever stands in the records: silence, one member only, patterns that are each other's multiples."""
    chance = random.Random(seed)
    sizes = chance.choice(((0, 0), (0, 3), (0, 10**11)))
    one = {point: [chance.randint(*sizes) for _ in range(slots)] for point in range(1, count + 1)}
    other = {point: [chance.randint(*sizes) for _ in range(slots)] for point in range(1, count + 1)}
    day = only_day(day_of(one, chance.choice((one, other)), chance.choice((0, 0.02))), count)
    assert day.best is None or 0 <= day.best.explained <= WHOLE
