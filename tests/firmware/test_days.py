"""The planner of the journal: what it predicts is what a real agent fills, with virtual time and a real ring."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from firmware import config
from firmware.journal import Journal
from firmware.planning import journal as planned
from tests.firmware.nor import Flash
from tests.firmware.world import Chain, Rig

KIB_608, OF_8_MIB = 0x98000, 0x800000 - 0x548000  # the journals of a board with 4 MiB of flash and of one with 8


def settings_of(points: int, **changes: Any) -> config.Config:
    rows = [{"point": point, "unit": point, "type": "sdm120"} for point in range(1, points + 1)]
    return config.load({"area": "home", "brokers": ["mqtts://broker:8883"], "details_every_s": 0,
                        "bus": [{"port": "tcp://127.0.0.1:502", "meter": rows}], **changes})


def filled(rig: Rig, is_heard: bool) -> int:
    """Seconds until the ring drops its first sector."""
    begun_ms = rig.label_ms
    if is_heard:
        rig.connect()
        rig.is_dropping = True
    while not rig.journal.dropped:
        rig.turn()
        rig.label_ms += 30_000  # the other quantities are read on the half minute
        rig.wait_ms += 30_000
    return (rig.label_ms - begun_ms) // 1000


@pytest.mark.parametrize(("points", "slot_s", "kib", "details_s", "is_heard"), [
    (1, 3600, 128, 0, False), (1, 900, 96, 0, False), (3, 900, 128, 0, False), (2, 900, 192, 900, False),
    (1, 3600, 64, 0, True), (3, 900, 128, 300, True)])
def test_the_days_are_those_of_a_real_agent(points: int, slot_s: int, kib: int, details_s: int, is_heard: bool) -> None:
    rig = Rig(points=points, flash=Flash(kib // 4, 4096), chain=Chain(slot_s=slot_s), details_ms=details_s * 1000)
    real_s = filled(rig, is_heard)
    said_s = planned.offline_s(settings_of(points, details_every_s=details_s), kib * 1024, slot_s, is_heard)
    assert abs(said_s - real_s) <= real_s * 2 // 100, (said_s, real_s)


def test_days_of_the_boards() -> None:
    """One-minute readings: seven days of them take a board with 8 MiB; one with 4 holds six and a half of one meter."""
    def tenths(points: int, size: int) -> int:
        return planned.offline_s(settings_of(points), size) * 10 // planned.DAY_S

    assert [tenths(points, KIB_608) for points in (1, 2, 3)] == [65, 32, 21]
    assert tenths(4, OF_8_MIB) >= 70 > tenths(5, OF_8_MIB)
    assert planned.describe(settings_of(1), KIB_608) == (
        "journal: 622592 bytes, 6.5 days offline (3.7 while a broker answers and no gateway does)")


def test_every_table_has_its_days() -> None:
    for name in ("umg96rm", "sma", "b23"):
        found = settings_of(2, details_every_s=900, bus=[{"port": "tcp://127.0.0.1:502", "meter": [
            {"point": 1, "unit": 1, "type": name}, {"point": 99, "unit": 2, "type": "sdm120"}]}])
        assert 2 * 86400 < planned.offline_s(found, KIB_608) < 4 * 86400
        assert planned.offline_s(found, KIB_608, 900) < planned.offline_s(found, KIB_608, 3600)


def test_a_journal_that_holds_a_sector_too_few_is_still_one() -> None:
    assert planned.offline_s(settings_of(32), 4 * 4096) > 0
    assert Journal(Flash(4, 4096)).next_seq == 1


def test_the_page_says_the_same() -> None:
    text = (Path(__file__).parents[2] / "docs" / "journal.md").read_text()
    rows = re.findall(r"^\| (\d+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", text, re.M)
    assert len(rows) == 6
    for points, *days in rows:
        found = settings_of(int(points), details_every_s=900)
        said = [planned.offline_s(found, size) * 10 // planned.DAY_S for size in (KIB_608, OF_8_MIB, 16384 * 1024)]
        assert [round(float(text) * 10) for text in days] == said
    assert planned.describe(settings_of(1, details_every_s=900), KIB_608) in text
