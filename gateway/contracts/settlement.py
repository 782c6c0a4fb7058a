"""Makes a slot's energies and from them its entries, which sum to 0: provisional, final, and corrected afterwards.

Theory. What a slot's energies, its trades and the rule versions frozen at its gate make is a list of lines (market/
settle.py computes the amounts): two for each trade, one for the supply of each point outside of its trades, one for the
`grid` account, which takes the difference. Final enters all of them, once. A correction makes the list anew and enters,
line by line, what differs from the list of the energies before it; so corrections may follow one another, and the sum
stays 0 after each. Energies that a correction gave before final stand as SUBSTITUTED in the slot's record.
"""

from typing import NamedTuple

from firmware.wire import cbor, transaction
from firmware.wire.errors import check
from firmware.wire.state import decode_point, point_key
from firmware.wire.transaction import Correction, Transaction
from gateway.contracts import accounts, indexes, metering, orders, rulesets
from gateway.contracts.context import BlockContext, State
from gateway.market import credit, records, rules, settle
from gateway.market.amounts import ENERGY_WH
from gateway.market.records import (
    BALANCE,
    CORRECTION,
    FINAL,
    MISSING,
    PROVISIONAL,
    SUBSTITUTED,
    SUPPLY,
    TRADE,
    ClearingRecord,
    Energy,
    SlotRecord,
)

MISSING_TEXT = "missing"  # an entry's reference where an energy is
REASON_LENGTH = 200  # of a correction: it stands in each of its entries


class Line(NamedTuple):
    """One amount of a slot; (kind, point, trade, is_buyer) is its name."""

    kind: int
    kid: bytes
    point: int | None
    trade: int | None
    is_buyer: bool
    amount_mc: int
    used_wh: int | None = None
    generated_wh: int | None = None
    matched_wh: int | None = None
    price: int | None = None
    reference: str = ""


class Score(NamedTuple):
    """What a trade says of one side's credit, thousandths of a point."""

    trade: int
    is_buyer: bool
    kid: bytes
    points: int


def provisional(store: State, context: BlockContext, slot_s: int) -> None:
    """Writes what is known of a slot's energies; no money moves."""
    _put_slot(store, SlotRecord(slot_s, PROVISIONAL, context.height, context.time_s, _energies(store, context, slot_s)))


def final(store: State, context: BlockContext, slot_s: int) -> None:
    """Settles a slot, once: entries of all lines, holds released, scores. Its start is a border of no slot any more."""
    old = slot_of(store, slot_s)
    if old is not None and old.status == FINAL:
        return
    energies = _energies(store, context, slot_s)
    _put_slot(store, SlotRecord(slot_s, FINAL, context.height, context.time_s, energies))
    clearing = _clearing_of(store, slot_s)
    lines, scores = _settled(store, context, clearing, energies)
    for line in lines.values():
        _post(store, context, slot_s, line, line.kind, line.amount_mc, line.reference)
    for trade in clearing.trades:
        accounts.release(store, trade.buyer, orders.cost_mc(trade.price, trade.wh))
    for score in scores.values():
        accounts.score(store, score.kid, score.is_buyer, score.points)
    for energy in energies:
        store.delete(records.border_key(energy.point, slot_s))


def correct(store: State, context: BlockContext, found: Transaction) -> None:
    """Type 19: another energy for a point and an ended slot. Before final it is kept; after final the differences are
    entered. Refused `duplicate` when it changes nothing."""
    body = transaction.decode_correction_body(found.body)
    length_s = context.parameters["slot_s"]
    data = store.get(records.CALENDAR_KEY)
    check(data is not None and body.slot_s % length_s == 0 and body.slot_s + length_s <= context.time_s,
          "outside_window", context.time_s, body.slot_s)
    assert data is not None
    check(len(body.reason) <= REASON_LENGTH, "oversize", REASON_LENGTH, len(body.reason))
    is_missing = body.import_wh is None and body.export_wh is None
    check(is_missing is (body.quality == MISSING), "malformed", "missing, or an energy", body.quality)
    for value in (body.import_wh or 0, body.export_wh or 0):
        check(value <= ENERGY_WH, "wrong_volume", ENERGY_WH, value)
    slot = slot_of(store, body.slot_s)
    if slot is not None and slot.status == FINAL:
        _correct_final(store, context, slot, body)
        return
    check(body.slot_s >= records.decode_calendar(data).final_s, "outside_window", "a slot of the calendar", body.slot_s)
    check(body.point in indexes.points(store), "unknown_point", "a registered point", body.point)
    slot = slot or SlotRecord(body.slot_s, PROVISIONAL, context.height, context.time_s, [])
    measured = metering.energy_of(store, body.point, body.slot_s, length_s)
    old = _find(slot.energies, body.point) or measured
    new = measured if is_missing else _changed(old, body, SUBSTITUTED)
    check(new != old, "duplicate", "another energy", body.point)
    _put_slot(store, slot._replace(energies=_with(slot.energies, new)))


def slot_of(store: State, slot_s: int) -> SlotRecord | None:
    """A slot's record, or None."""
    data = store.get(records.slot_key(slot_s))
    return None if data is None else records.decode_slot(data)


def _energies(store: State, context: BlockContext, slot_s: int) -> list[Energy]:
    """Every point's energy: what a correction gave, else what its borders say."""
    slot = slot_of(store, slot_s)
    given = {} if slot is None else {row.point: row for row in slot.energies if row.quality == SUBSTITUTED}
    return [given.get(point) or metering.energy_of(store, point, slot_s, context.parameters["slot_s"])
            for point in indexes.points(store)]


def _correct_final(store: State, context: BlockContext, slot: SlotRecord, body: Correction) -> None:
    old = _find(slot.energies, body.point)
    check(old is not None, "unknown_point", "a point of this slot", body.point)
    assert old is not None
    new = Energy(body.point, None, None, MISSING) if body.quality == MISSING else _changed(old, body, body.quality)
    check(new != old, "duplicate", "another energy", body.point)
    clearing = _clearing_of(store, slot.slot_s)
    for rule_set, number in (("tariff", clearing.tariff_version), ("credit", clearing.credit_version)):
        is_kept = any(version.version == number for version in rulesets.versions(store, rule_set))
        check(is_kept, "no_rules", number, rule_set)  # 64 versions later
    energies = _with(slot.energies, new)
    old_lines, old_scores = _settled(store, context, clearing, slot.energies)
    new_lines, new_scores = _settled(store, context, clearing, energies)
    _put_slot(store, slot._replace(energies=energies))
    for name in [*old_lines, *(name for name in new_lines if name not in old_lines)]:
        before, after = old_lines.get(name), new_lines.get(name)
        if after is None:
            assert before is not None
            after = before._replace(amount_mc=0, used_wh=0, generated_wh=0)
        if after != before:
            difference_mc = after.amount_mc - (before.amount_mc if before else 0)
            _post(store, context, slot.slot_s, after, CORRECTION, difference_mc, body.reason)
    for trade in sorted({*old_scores, *new_scores}):
        _rescore(store, old_scores.get(trade), new_scores.get(trade))


def _settled(store: State, context: BlockContext, clearing: ClearingRecord, energies: list[Energy]
             ) -> tuple[dict[tuple, Line], dict[tuple[int, bool], Score]]:
    """(lines by name, scores by trade and side) that these energies make of a slot."""
    tariff: rules.Tariff = rulesets.of_version(store, "tariff", clearing.tariff_version)
    merits: rules.Credit = rulesets.of_version(store, "credit", clearing.credit_version)
    trades = {trade.number: trade for trade in clearing.trades}
    contracts = [settle.Contract(trade.number, trade.buyer_point, trade.seller_point, trade.price, trade.wh, trade.flow)
                 for trade in clearing.trades]
    found = settle.settle(contracts, {row.point: _settleable(row) for row in energies}, settle.Tariff(
        rules.retail_price(tariff, clearing.slot_s), tariff.buyback, tariff.wheeling, tariff.subsidy))
    lines: list[Line] = []
    scores: list[Score] = []
    for row in found.trades:
        trade = trades[row.number]
        values = (row.used, row.generated, row.matched, trade.price, MISSING_TEXT if row.is_missing else "")
        lines.append(Line(TRADE, trade.buyer, trade.buyer_point, trade.number, True, -row.buyer_pays, *values))
        lines.append(Line(TRADE, trade.seller, trade.seller_point, trade.number, False, row.seller_gets, *values))
        if row.used is not None and row.generated is not None:
            alpha = merits.natural_alpha if trade.form in merits.natural_forms else 0
            scores.append(Score(row.number, True, trade.buyer, credit.buyer_score(row.used, trade.wh)))
            scores.append(Score(row.number, False, trade.seller, credit.seller_score(row.generated, trade.wh, alpha)))
    lines += _supply_lines(store, clearing, found)
    grid = accounts.grid(store)
    if lines and grid is not None:
        lines.append(Line(BALANCE, grid, None, None, False, -sum(line.amount_mc for line in lines)))
    return ({(line.kind, line.point, line.trade, line.is_buyer): line for line in lines},
            {(score.trade, score.is_buyer): score for score in scores})


def _supply_lines(store: State, clearing: ClearingRecord, found: settle.Settlement) -> list[Line]:
    """What points import and export outside of trades. The grid's own points: nothing, it would pay itself."""
    traders = {point for trade in clearing.trades for point in (trade.buyer_point, trade.seller_point)}
    grid = accounts.grid(store)
    lines = []
    for row in found.supplies:
        is_trader = row.point in traders
        owner = owner_at(store, row.point, clearing.slot_s)
        if owner is None or owner == grid or (is_trader and not row.pays and not row.gets):
            continue
        is_missing = row.used is None and row.generated is None
        lines.append(Line(SUPPLY, owner, row.point, None, False, row.gets - row.pays, row.used, row.generated, None,
                          None, MISSING_TEXT if is_missing else ""))
    return lines


def owner_at(store: State, point: int, slot_s: int) -> bytes | None:
    """Whose a point was in a slot that is not final yet; later, whose it is."""
    data = store.get(records.FORMER_KEY)
    former = sorted((row[2], row[0]) for row in (cbor.decode(data) if data is not None else [])
                    if row[1] == point and slot_s < row[2])
    if former:
        return former[0][1]
    data = store.get(point_key(point))
    return None if data is None else decode_point(data).owner


def _settleable(row: Energy) -> settle.Energy:
    """A register that the meter has not moves nothing; missing is what nobody knows."""
    if row.import_wh is None and row.export_wh is None:
        return settle.Energy(None, None)
    return settle.Energy(row.import_wh or 0, row.export_wh or 0)


def _post(store: State, context: BlockContext, slot_s: int, line: Line, kind: int, amount_mc: int,
          reference: str) -> None:
    accounts.post(store, context, line.kid, kind, amount_mc, slot_s=slot_s, point=line.point, trade=line.trade,
                  used_wh=line.used_wh, generated_wh=line.generated_wh, matched_wh=line.matched_wh, price=line.price,
                  reference=reference)


def _rescore(store: State, old: Score | None, new: Score | None) -> None:
    """Takes a score back and gives another: the mean is what it had been with the new one from the beginning."""
    score = new or old
    if score is None or old == new:
        return
    points = (new.points if new else 0) - (old.points if old else 0)
    count = (new is not None) - (old is not None)
    account = accounts.load(store, score.kid)
    if score.is_buyer:
        account = account._replace(buyer_sum=account.buyer_sum + points, buyer_count=account.buyer_count + count)
    else:
        account = account._replace(seller_sum=account.seller_sum + points, seller_count=account.seller_count + count)
    accounts.put(store, account)


def _changed(old: Energy, body: Correction, quality: int) -> Energy:
    return Energy(body.point, old.import_wh if body.import_wh is None else body.import_wh,
                  old.export_wh if body.export_wh is None else body.export_wh, quality)


def _find(energies: list[Energy], point: int) -> Energy | None:
    return next((row for row in energies if row.point == point), None)


def _with(energies: list[Energy], new: Energy) -> list[Energy]:
    return sorted([*(row for row in energies if row.point != new.point), new])


def _clearing_of(store: State, slot_s: int) -> ClearingRecord:
    data = store.get(records.clearing_key(slot_s))
    assert data is not None, slot_s  # the calendar clears every slot before it settles it
    return records.decode_clearing(data)


def _put_slot(store: State, slot: SlotRecord) -> None:
    store.put(records.slot_key(slot.slot_s), records.encode(slot))
