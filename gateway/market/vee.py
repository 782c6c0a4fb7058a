"""Makes a slot's energy from a point's register readings: totals over meters, values at slot borders, differences.

Source: market.md, "From registers to slot energy: VEE". All in Wh, rounded down, because differences of what is
rounded down by one rule add up:

    total(register) = base + (register - start) ratio_num // ratio_den          in one meter epoch
    next epoch      base' = total(last register of the old meter), start' = the new meter's first register
    rollover        base' = total(modulus), start' = 0                          in the same meter
    border          the nearest reading within the tolerance, else the straight line between the two around it
    slot energy     border at its end - border at its start

Totals never begin again and never fall, so slot energies are never negative and their sum over any period is the last
border less the first, to the Wh, whatever lies between: that is the whole point of borders, each decided once and
used by both slots that it parts. Of two readings equally near the later counts: a reading for the border is asked for
at the border and so is there after it. Readings whose clock was not synchronised are not handed in: they move no energy
between slots.
"""

from collections.abc import Sequence
from typing import NamedTuple

from gateway.market.records import INTERPOLATED, MEASURED, MISSING

_WATT_MS_PER_WH = 3_600_000
COARSE = 100                # a slot's energy should be this many steps of the register


class Span(NamedTuple):
    """How one register of one meter counts: the part of a records.Epoch that belongs to one direction."""

    start_wh: int               # register when the span began
    base_wh: int                # total then
    ratio_num: int = 1
    ratio_den: int = 1


class Point(NamedTuple):
    """One reading of one register: a total that may move energy."""

    time_ms: int
    wh: int


class Border(NamedTuple):
    """A total at a slot's start; wh is None exactly when quality is MISSING."""

    wh: int | None
    quality: int


def total_wh(span: Span, register_wh: int) -> int | None:
    """Returns the total at a register, None for a register below the span's start (it belongs to no time of it)."""
    if register_wh < span.start_wh:
        return None
    return span.base_wh + (register_wh - span.start_wh) * span.ratio_num // span.ratio_den


def next_meter(span: Span, old_final_wh: int, start_wh: int, ratio_num: int, ratio_den: int) -> Span:
    """Returns the span of the meter that takes over; ValueError for a final register below the old span's start."""
    base = total_wh(span, old_final_wh)
    if base is None:
        raise ValueError(f"a meter that began at {span.start_wh} Wh cannot end at {old_final_wh}")
    return Span(start_wh, base, ratio_num, ratio_den)


def roll_over(span: Span, modulus_wh: int) -> Span:
    """Returns the span after the register has begun again at 0; it showed modulus - 1 at most."""
    return next_meter(span, modulus_wh, 0, span.ratio_num, span.ratio_den)


def is_plausible(before: Point, after: Point, largest_w: int) -> bool:
    """Tells whether a total has not fallen nor risen beyond what `largest_w` (behind the CT/VT) explains."""
    return 0 <= (after.wh - before.wh) * _WATT_MS_PER_WH <= largest_w * (after.time_ms - before.time_ms)


def border(before: Point | None, after: Point | None, at_ms: int, boundary_ms: int) -> Border:
    """Returns the total at `at_ms` from the last reading before it and the first at or after it (None: no such)."""
    early_ms = at_ms - before.time_ms if before else None
    late_ms = after.time_ms - at_ms if after else None
    if (early_ms is not None and early_ms <= 0) or (late_ms is not None and late_ms < 0):
        raise ValueError("a reading before the border and one at or after it")
    if after and late_ms is not None and late_ms <= boundary_ms and (early_ms is None or late_ms <= early_ms):
        return Border(after.wh, MEASURED)
    if before and early_ms is not None and early_ms <= boundary_ms:
        return Border(before.wh, MEASURED)
    if before and after:
        return Border(between(before, after, at_ms), INTERPOLATED)
    return Border(None, MISSING)


def between(before: Point, after: Point, at_ms: int) -> int:
    """Returns the total on the straight line between two readings, rounded down."""
    return before.wh + (after.wh - before.wh) * (at_ms - before.time_ms) // (after.time_ms - before.time_ms)


def borders(points: Sequence[Point], times_ms: Sequence[int], boundary_ms: int) -> list[Border]:
    """Returns the borders at rising times from readings in rising order of time (and total)."""
    found = []
    at = 0
    for time_ms in times_ms:
        while at < len(points) and points[at].time_ms < time_ms:
            at += 1
        found.append(border(points[at - 1] if at else None, points[at] if at < len(points) else None, time_ms,
                            boundary_ms))
    return found


def slot_energy(start: Border, end: Border) -> Border:
    """Returns a slot's energy with the weaker quality of its two borders."""
    if start.wh is None or end.wh is None:
        return Border(None, MISSING)
    return Border(end.wh - start.wh, INTERPOLATED if INTERPOLATED in (start.quality, end.quality) else MEASURED)


def is_coarse(energy_wh: int, resolution_wh: int) -> bool:
    """Tells whether a slot's energy is so few steps of the register that its price per kWh means little."""
    return energy_wh < COARSE * resolution_wh
