"""Makes a point's totals at slot borders, and its energy in a slot, from the registers of its seals (market.md, VEE).

Theory. A seal *moves energy* when its clock was synchronised and plausible, its registers were read and are believed
(a fall may be explained by a rollover). Its registers, over meter epochs and times the CT/VT ratio, are *totals*: they
never begin again, so that a period's energy is the last total less the first, and the sum of slots equals it. A border
(a slot's start) is decided once, by the first such seal at or after it: the nearest of this reading and the one before
it when that is within boundary_s, else a point on the straight line between both; else it stays open, and the slots on
both sides of it are missing.

The reading before is the chain's last, which the chain's record holds; only where that record is not to be believed,
or the chain is another agent's, the meter's record holds it. So a seal that crosses no border costs no look into the
state.

A rise between two good readings that the point's power cannot explain, or a fall, belongs to nobody until a correction
says so: the border after it gets the quality MISSING *with* its totals, which says that the slot which ends there is
missing and the one that begins there is not.
"""

from typing import NamedTuple

from firmware.wire import seal as seal_codec
from firmware.wire import state as state_codec
from firmware.wire.state import ChainRecord, PointRecord
from gateway.contracts import context as marks
from gateway.contracts import memo, rulesets
from gateway.contracts.context import EXCLUDED, BlockContext, State
from gateway.market import records, vee
from gateway.market.amounts import ENERGY_WH
from gateway.market.records import BorderRecord, Energy, Epoch, MeterRecord

BORDERS = 400  # that one seal decides: 16 days of hours; a longer silence is settled as missing
EPOCHS = 64  # of a point: a meter is changed every few years, a register rolls over once in its life
TOTAL_WH = 10**15  # beyond it a register is not believed; a large power station makes as much in a hundred years


class Total(NamedTuple):
    """A reading that moves energy, comparable over meters and agents, and the seal it comes from."""

    time_ms: int
    import_wh: int | None
    export_wh: int | None
    kid: bytes
    height: int


def note(store: State, context: BlockContext, point: PointRecord, last: ChainRecord | None, found: seal_codec.Seal,
         bits: int) -> None:
    """Decides the borders that a taken seal has reached. last: its chain's record before it; bits: its marks."""
    slot_ms = context.parameters["slot_s"] * 1000
    if (last is not None and last.last_ms // slot_ms == found.last_ms // slot_ms
            and not (bits | last.marked) & EXCLUDED and last.meter_epoch == found.meter_epoch
            and (found.import_wh is None) is (last.import_wh is None)
            and (found.export_wh is None) is (last.export_wh is None)):
        return  # as nearly every seal
    data = store.get(records.CALENDAR_KEY)
    if data is None:
        return
    first_s = records.decode_calendar(data).final_s
    stored = store.get(records.meter_key(point.point))
    meter = new_meter(point) if stored is None else records.decode_meter(stored)
    before = newest(context, meter, last, found.kid)
    rolled = begun = None
    now = None
    if not bits & EXCLUDED:
        begun = _begin(meter, found)
        now = _total(begun or meter, found)
    elif bits & EXCLUDED == marks.REGISTER_FELL:
        rolled, now = _roll_over(store, context, point, meter, last, found)
    if now is None or not _is_whole(before, now) or (rolled and not (before and _is_plausible(context, meter, before,
                                                                                              now))):
        if before is not None and before.time_ms > meter.last_ms:
            _put_meter(store, point.point, with_last(meter, before))
        return
    if before is not None and now.time_ms <= before.time_ms:
        return
    is_decided = _decide(store, context, point.point, meter, before, now, first_s)
    if rolled:
        _put_meter(store, point.point, with_last(rolled, now))
    elif begun or (is_decided and stored is None):
        _put_meter(store, point.point, begun or meter)


def energy_of(store: State, point: int, slot_s: int, length_s: int) -> Energy:
    """A point's energy in a slot by its two borders; quality MISSING and no Wh where one of them is not known."""
    start, end = border_of(store, point, slot_s), border_of(store, point, slot_s + length_s)
    missing = Energy(point, None, None, records.MISSING)
    if start is None or end is None or end.quality == records.MISSING or not start.seals:
        return missing
    import_wh, export_wh = (None if old is None or new is None else new - old for old, new in (
        (start.import_wh, end.import_wh), (start.export_wh, end.export_wh)))
    known = [value for value in (import_wh, export_wh) if value is not None]
    if not known or min(known) < 0 or max(known) > ENERGY_WH:
        return missing
    is_measured = len(start.seals) == len(end.seals) == 1
    return Energy(point, import_wh, export_wh, records.MEASURED if is_measured else records.INTERPOLATED)


def border_of(store: State, point: int, slot_s: int) -> BorderRecord | None:
    """What is known of a point at a slot's start, or None."""
    data = store.get(records.border_key(point, slot_s))
    return None if data is None else records.decode_border(data)


def meter_of(store: State, point: PointRecord) -> MeterRecord:
    """A point's epochs; of one that no border and no replacement has made a record for, its first."""
    data = store.get(records.meter_key(point.point))
    return new_meter(point) if data is None else records.decode_meter(data)


def new_meter(point: PointRecord) -> MeterRecord:
    epoch = Epoch(point.meter_epoch, point.start_import_wh, point.start_export_wh, 0, 0, point.ratio_num,
                  point.ratio_den)
    return MeterRecord([epoch], 0, None, None, point.agent, 0)


def with_last(meter: MeterRecord, total: Total) -> MeterRecord:
    return meter._replace(last_ms=total.time_ms, last_import_wh=total.import_wh, last_export_wh=total.export_wh,
                          seal_kid=total.kid, seal_height=total.height)


def newest(context: BlockContext, meter: MeterRecord, last: ChainRecord | None, kid: bytes) -> Total | None:
    """The newest reading that moves energy of a chain: its last, if that is good, else the one the meter holds."""
    oldest_ms = max(meter.last_ms, context.created_s * 1000)  # at the genesis' time: nothing was read yet (seals.py)
    if last is not None and not last.marked & EXCLUDED and last.last_ms > oldest_ms:
        totals = totals_of(meter, last.meter_epoch, last.import_wh, last.export_wh)
        if totals is not None:
            return Total(last.last_ms, *totals, kid, last.height)
    if not meter.last_ms:
        return None
    return Total(meter.last_ms, meter.last_import_wh, meter.last_export_wh, meter.seal_kid, meter.seal_height)


def move_point(store: State, context: BlockContext, old: PointRecord, new: PointRecord) -> None:
    """A point goes to another agent, perhaps with another meter: what its old chain has read last is carried on."""
    meter = carried(store, context, old)
    if new.meter_epoch != old.meter_epoch:
        base_import_wh, base_export_wh = bases(meter, meter.last_import_wh, meter.last_export_wh)
        meter = add_epoch(meter, Epoch(new.meter_epoch, new.start_import_wh, new.start_export_wh,
                                                base_import_wh, base_export_wh, new.ratio_num, new.ratio_den))
    key = records.meter_key(old.point)
    if new.meter_epoch != old.meter_epoch or store.get(key) is not None or store.get(records.CALENDAR_KEY) is not None:
        store.put(key, records.encode(meter))


def carried(store: State, context: BlockContext, point: PointRecord) -> MeterRecord:
    """The point's meter with the newest good reading of its present agent's chain."""
    meter = meter_of(store, point)
    data = store.get(state_codec.chain_key(point.agent, point.point))
    last = newest(context, meter, None if data is None else memo.decode_chain(data), point.agent)
    return meter if last is None else with_last(meter, last)


def bases(meter: MeterRecord, import_wh: int | None, export_wh: int | None) -> tuple[int, int]:
    newest = meter.epochs[-1]
    return (newest.base_import_wh if import_wh is None else import_wh,
            newest.base_export_wh if export_wh is None else export_wh)


def totals_of(meter: MeterRecord, number: int, import_wh: int | None,
              export_wh: int | None) -> tuple[int | None, int | None] | None:
    """(import, export) totals of registers in the newest epoch of that number; None where a register is below its
    start or the total beyond TOTAL_WH, no register was read, or there is no such epoch."""
    spans = spans_of(meter, number)
    if spans is None:
        return None
    totals = [None if register is None else vee.total_wh(span, register)
              for span, register in zip(spans, (import_wh, export_wh), strict=True)]
    is_bad = any(register is not None and (total is None or total > TOTAL_WH)
                 for register, total in zip((import_wh, export_wh), totals, strict=True))
    return None if is_bad or totals == [None, None] else (totals[0], totals[1])


def spans_of(meter: MeterRecord, number: int) -> tuple[vee.Span, vee.Span] | None:
    """How import and export registers count in the newest epoch of that number; None where there is none."""
    for epoch in reversed(meter.epochs):
        if epoch.number == number:
            return (vee.Span(epoch.start_import_wh or 0, epoch.base_import_wh, epoch.ratio_num, epoch.ratio_den),
                    vee.Span(epoch.start_export_wh or 0, epoch.base_export_wh, epoch.ratio_num, epoch.ratio_den))
    return None


def _total(meter: MeterRecord, found: seal_codec.Seal) -> Total | None:
    totals = totals_of(meter, found.meter_epoch, found.import_wh, found.export_wh)
    return None if totals is None else Total(found.last_ms, *totals, found.kid, found.height)


def _begin(meter: MeterRecord, found: seal_codec.Seal) -> MeterRecord | None:
    """A later meter whose start nobody has written down starts at its first good reading; None for any other."""
    epoch = meter.epochs[-1]
    starts = [register if start is None else start for start, register in (
        (epoch.start_import_wh, found.import_wh), (epoch.start_export_wh, found.export_wh))]
    if len(meter.epochs) == 1 or epoch.number != found.meter_epoch or starts == [epoch.start_import_wh,
                                                                                 epoch.start_export_wh]:
        return None
    return meter._replace(epochs=[*meter.epochs[:-1], epoch._replace(start_import_wh=starts[0],
                                                                     start_export_wh=starts[1])])


def _is_whole(before: Total | None, now: Total) -> bool:
    """Tells whether every register that was known is read: a new one may come, none may be left out."""
    return before is None or ((before.import_wh is None or now.import_wh is not None)
                              and (before.export_wh is None or now.export_wh is not None))


def _is_plausible(context: BlockContext, meter: MeterRecord, before: Total, now: Total) -> bool:
    """Tells whether the point's largest power (times its CT ratio) explains the rises, and that nothing fell."""
    epoch = meter.epochs[-1]
    largest_w = context.parameters["point_max_w"] * epoch.ratio_num // epoch.ratio_den
    return all(vee.is_plausible(vee.Point(before.time_ms, old), vee.Point(now.time_ms, new), largest_w)
               for old, new in ((before.import_wh, now.import_wh), (before.export_wh, now.export_wh))
               if old is not None and new is not None)


def _roll_over(store: State, context: BlockContext, point: PointRecord, meter: MeterRecord, last: ChainRecord | None,
               found: seal_codec.Seal) -> tuple[MeterRecord | None, Total | None]:
    """(the meter with an epoch more, the reading in it) where the VEE rule knows at how many Wh this model's registers
    begin again; (None, None) otherwise. The new epoch has the old one's number: it is the same meter."""
    version = rulesets.in_force(store, "vee", context.height)
    rollovers = [] if version is None else rulesets.read("vee", version).rollovers
    limits = [row[1] for row in rollovers if row[0] == point.model]
    epochs = [epoch for epoch in meter.epochs if epoch.number == found.meter_epoch]
    spans = spans_of(meter, found.meter_epoch)
    if not limits or spans is None:
        return None, None
    old = (last.import_wh, last.export_wh) if last and last.meter_epoch == found.meter_epoch else (
        point.start_import_wh, point.start_export_wh)
    registers = (*old, found.import_wh, found.export_wh, epochs[-1].start_import_wh, epochs[-1].start_export_wh)
    if any(register is not None and register >= limits[0] for register in registers):
        return None, None
    turned = epochs[-1]
    if _is_fall(old[0], found.import_wh):
        span = vee.roll_over(spans[0], limits[0])
        turned = turned._replace(start_import_wh=span.start_wh, base_import_wh=span.base_wh)
    if _is_fall(old[1], found.export_wh):
        span = vee.roll_over(spans[1], limits[0])
        turned = turned._replace(start_export_wh=span.start_wh, base_export_wh=span.base_wh)
    rolled = add_epoch(meter, turned)
    return rolled, _total(rolled, found)


def _is_fall(old: int | None, new: int | None) -> bool:
    return old is not None and new is not None and new < old


def add_epoch(meter: MeterRecord, epoch: Epoch) -> MeterRecord:
    return meter._replace(epochs=[*meter.epochs, epoch][-EPOCHS:])


def _decide(store: State, context: BlockContext, point: int, meter: MeterRecord, before: Total | None, now: Total,
            first_s: int) -> bool:
    """Writes the borders after `before` up to `now`, from first_s on; returns whether there was any."""
    slot_s = context.parameters["slot_s"]
    boundary_ms = context.parameters["boundary_s"] * 1000
    is_plausible = before is None or _is_plausible(context, meter, before, now)
    from_ms = now.time_ms - boundary_ms if before is None else before.time_ms + 1
    low_s = max(-(-from_ms // (slot_s * 1000)) * slot_s, first_s)
    last_s = now.time_ms // (slot_s * 1000) * slot_s
    borders = range(low_s, last_s + 1, slot_s)
    is_line = before is not None and is_plausible and len(borders) <= BORDERS
    written = by_now = False
    for border_s in _ends(borders):
        after_ms = now.time_ms - border_s * 1000
        before_ms = border_s * 1000 - before.time_ms if before else boundary_ms + 1
        by_now = after_ms <= min(before_ms, boundary_ms)
        if by_now:
            row = _measured(now)
        elif before and before_ms <= boundary_ms:
            row = _measured(before)
        elif before and is_line:
            row = _between(before, now, border_s * 1000)
        else:
            continue
        _put_border(store, point, border_s, row, by_now and not is_plausible)
        written = True
    next_s = last_s + slot_s
    if not is_plausible and not (by_now and borders) and next_s >= first_s:
        store.put(records.border_key(point, next_s), records.encode(BorderRecord(None, None, records.MISSING, [])))
        written = True
    return written


def _ends(borders: range) -> list[int]:
    """The borders that can be decided: of too many, those next to a reading."""
    return list(borders) if len(borders) <= BORDERS else [*borders[:2], *borders[-2:]]


def _measured(total: Total) -> BorderRecord:
    return BorderRecord(total.import_wh, total.export_wh, records.MEASURED, [[total.kid, total.height, total.time_ms]])


def _between(before: Total, now: Total, at_ms: int) -> BorderRecord:
    """The point of the straight line at `at_ms`, in whole Wh, rounded down."""
    values = [None if old is None or new is None else vee.between(vee.Point(before.time_ms, old),
                                                                  vee.Point(now.time_ms, new), at_ms)
              for old, new in ((before.import_wh, now.import_wh), (before.export_wh, now.export_wh))]
    return BorderRecord(values[0], values[1], records.INTERPOLATED, [
        [before.kid, before.height, before.time_ms], [now.kid, now.height, now.time_ms]])


def _put_border(store: State, point: int, border_s: int, row: BorderRecord, is_doubtful: bool) -> None:
    key = records.border_key(point, border_s)
    data = store.get(key)
    if data is not None:
        old = records.decode_border(data)
        if old.seals:
            return  # decided before: once is for ever
        is_doubtful = True
    store.put(key, records.encode(row._replace(quality=records.MISSING) if is_doubtful else row))


def _put_meter(store: State, point: int, meter: MeterRecord) -> None:
    store.put(records.meter_key(point), records.encode(meter))
