"""Power and energy of one wire at any step, made from a day source by integer arithmetic without replay.

Theory. Time is cut into steps of `step_s` seconds. A day is a list of segments of constant power in whole milliwatt,
laid on the grid of steps (`on_grid`: a step that holds several powers gets their mean, rounded down). Noise comes in
pairs: +x on one step, -x on the next, never across a segment's end. So the noise of a segment sums to zero, energy at
a segment's end is power x time exactly, and the counters at any step need only the segments before it:

    counter(i) = counter(midnight) + sum of whole segments + power x steps so far (+ x if a pair is half done)

Energy is in millijoule (mW s): 1 Wh = 3,600,000 mJ. Import and export count separately, by the sign of the segment;
noise is at most 3 % of the power, so it never turns the sign.
"""

from bisect import bisect_right
from typing import NamedTuple

from sim_hardware.chance import pick

DAY_S = 86_400
MJ_PER_WH = 3_600_000
NOISE_PERMILLE = 30


class Wire(NamedTuple):
    """One phase at one step: powers now (mW, mvar), counters at the step's start (mJ, mvar s)."""

    power_mw: int
    reactive_mvar: int
    import_mj: int
    export_mj: int
    reactive_import_mvars: int
    reactive_export_mvars: int


class Segment(NamedTuple):
    start: int                  # step of the day
    power_mw: int
    reactive_mvar: int


def on_grid(segments: list[tuple[int, int]], step_s: int) -> list[tuple[int, int]]:
    """(start_s, power_mw) -> (start step, power_mw); equal neighbours stay apart, empty segments vanish."""
    ends = [start for start, _ in segments[1:]] + [DAY_S]
    grid = {0, DAY_S // step_s}
    for start, _ in segments:
        grid |= {start // step_s, -(-start // step_s)}
    points = sorted(grid)
    result = []
    at = 0
    for first, last in zip(points, points[1:]):
        begin_s, end_s, energy = first * step_s, last * step_s, 0
        while ends[at] <= begin_s:
            at += 1
        index = at
        while True:
            overlap_s = min(end_s, ends[index]) - max(begin_s, segments[index][0])
            energy += segments[index][1] * max(overlap_s, 0)
            if ends[index] >= end_s:
                break
            index += 1
        result.append((first, energy // (end_s - begin_s)))
    return result


class WireDay:
    """One phase on one day: segments with prefix sums of energy."""

    def __init__(self, segments: list[Segment], step_s: int, noise_seed: int) -> None:
        self._segments = segments
        self._starts = [segment.start for segment in segments]
        self._step_s = step_s
        self._noise_seed = noise_seed
        ends = self._starts[1:] + [DAY_S // step_s]
        self._before = [(0, 0, 0, 0)]           # counters at each segment's start, from midnight
        for segment, end in zip(segments, ends):
            self._before.append(self._add(self._before[-1], segment, (end - segment.start) * step_s, 0))
        self._ends = ends

    @property
    def total(self) -> tuple[int, int, int, int]:
        """Import, export, reactive import, reactive export of the whole day."""
        return self._before[-1]

    @property
    def peak_mw(self) -> int:
        """The strongest power of the day without noise, either way."""
        return max(abs(segment.power_mw) for segment in self._segments)

    def at(self, step: int) -> Wire:
        """Powers during step `step` of the day and the day's counters at its start.

        The step after the day's last has no power of its own but its counters are right: the day's total.
        """
        index = bisect_right(self._starts, step) - 1
        segment = self._segments[index]
        done = step - segment.start
        pair, second = divmod(done, 2)
        noise = 0
        if segment.start + pair * 2 + 1 < self._ends[index]:        # the last step of an odd segment has no partner
            limit = abs(segment.power_mw) * NOISE_PERMILLE // 1000
            noise = pick(self._noise_seed, segment.start + pair * 2, -limit, limit)
        half_done_mj = noise * self._step_s if second else 0
        counters = self._add(self._before[index], segment, done * self._step_s, half_done_mj)
        return Wire(segment.power_mw + (-noise if second else noise), segment.reactive_mvar, *counters)

    @staticmethod
    def _add(counters: tuple[int, int, int, int], segment: Segment, seconds: int, extra_mj: int
             ) -> tuple[int, int, int, int]:
        active = segment.power_mw * seconds + extra_mj
        reactive = segment.reactive_mvar * seconds
        return (counters[0] + max(active, 0), counters[1] + max(-active, 0),
                counters[2] + max(reactive, 0), counters[3] + max(-reactive, 0))
