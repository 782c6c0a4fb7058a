"""Checks that the whole agent stays within a board's heap and holds no more the longer it runs (endure.py runs longer).

Three meters, one of them by RTU; code in flash, by the real ROMFS.
"""

from pathlib import Path

import pytest

from tests.micropython import endure
from tests.micropython.bounded import compile_all

ROUNDS = 150
# What it needs by tests.micropython.measure, and a tenth more. A board's first 56 KiB are missed, by a third.
HEAP_BYTES = 88 * 1024
GROWTH_BYTES = 2048  # headers and readings differ in length from one round to the next


@pytest.mark.soak
def test_an_agent_with_three_meters_neither_needs_more_nor_grows(tmp_path: Path) -> None:
    done = endure.run(tmp_path, compile_all(tmp_path / "mpy", "endure"), "board-1.29", ROUNDS, HEAP_BYTES)
    assert done.code == 0, done.text
    report = done.report
    assert len(report["heights"]) == 3 and min(chain[2] for chain in report["heights"]) >= ROUNDS
    assert (report["bad_acks"], report["bad_headers"], report["refused"], report["lost"]) == (0, 0, 0, 0), report
    assert report["witnessed"] >= ROUNDS // 15 - 1 and report["header_height"] > 0
    floors = done.floors(5)
    print("live set at its lowest in each fifth:", floors)
    assert min(floors[2:]) - max(floors[1:2]) <= GROWTH_BYTES, floors
