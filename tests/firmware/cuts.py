"""Prints what a journal's ring survives and costs: every cut point of long runs, erases and bytes for a record.

    python -m tests.firmware.cuts            every cut point (minutes)
    python -m tests.firmware.cuts --step 7   every seventh

Each run appends records of chance lengths to a small ring that goes round many times. At each unit of 16 bytes and
each erase the power fails in three ways (nothing, all, some of it done); the ring is opened and judged, goes on, loses
its power again, and is judged again.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import NamedTuple

from firmware.journal import HEAD, Journal
from tests.firmware.nor import Flash, Sweep


class Shape(NamedTuple):
    """A run: the ring, how many records, how far behind the newest they are trimmed (0: never), their lengths."""

    name: str
    sectors: int
    size: int
    records: int
    trim_behind: int
    lengths: tuple[int, int] = (0, 130)


RUNS = (Shape("the smallest ring, trimmed as it goes", 4, 512, 500, 10),
        Shape("the smallest ring, overflowing", 4, 512, 500, 0),
        Shape("trims now and then too late", 6, 1024, 600, 45),
        Shape("seals and readings only, overflowing", 5, 512, 500, 0, (26, 58)),
        Shape("a board's sectors", 5, 4096, 1500, 300, (4, 90)))


class Wear(NamedTuple):
    """What one record costs on flash."""

    erases: float
    programmed: float
    least: int  # erases of the least and the most used sector
    most: int


def wear(sectors: int, records: int, length: int) -> Wear:
    """Of records that take `length` bytes with their header, on a board's sectors; one in ten follows an ack."""
    flash = Flash(sectors, 4096)
    journal = Journal(flash)
    for number in range(records):
        journal.append(1, bytes(length - HEAD))
        if number % 10 == 0:
            journal.trim(number)
    return Wear(flash.erases / records, flash.programmed() / records, min(flash.erased), max(flash.erased))


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.firmware.cuts", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--step", type=int, default=1, help="only every so many cut points")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    bad = cuts = 0
    for shape in RUNS:
        begun = time.monotonic()
        sweep = Sweep(*shape[1:5], args.seed, shape.lengths).run(args.step)
        cuts += sweep.cuts + sweep.again
        bad += len(sweep.bad)
        print(f"{shape.name}: {shape.records} records, {sweep.flash.erases} erases, {sweep.journal.dropped} sectors "
              f"dropped; {sweep.cuts} cuts, {sweep.again} second cuts after them: {len(sweep.bad)} bad "
              f"({time.monotonic() - begun:.0f} s)", flush=True)
        for text in sweep.bad[:5]:
            print("  " + text)
    for length in (240, 64, 48):
        cost = wear(16, 20_000, length)
        print(f"a record of {length} bytes: {cost.erases:.4f} erases, {cost.programmed:.0f} bytes programmed; "
              f"{cost.least} to {cost.most} erases of a sector")
    print(f"{cuts} cuts in all: {bad} bad")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
