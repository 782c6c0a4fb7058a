"""A sample of the tables that `python -m tests.firmware.faults` and `python -m tests.firmware.live_faults` make.

No fault on any line may get a wrong value under a seal, nor take a neighbour's value or time.
"""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path

import pytest

from firmware import meters
from sim_hardware.faults import KINDS
from sim_hardware.meters import TYPES
from tests.firmware import faults, live_faults

SAMPLE = [faults.Job("sdm630", "pty", rounds=2), faults.Job("b23", "tcp", rounds=2),
          faults.Job("sunspec_103", "rtu_tcp", rounds=2)]
INTERVAL_S = 5


@pytest.mark.slow
def test_no_fault_gets_a_wrong_value_sealed() -> None:
    rows = faults.play(SAMPLE, len(SAMPLE))
    faults.print_table(rows, faults.FAULTS)
    assert not [row for row in rows if row[2].wrong or row[2].odd]
    for job in SAMPLE:
        mine = {outcome.fault: outcome.values for name, _, outcome in rows if name == job.name}
        assert len(mine) > 20 and min(sum(values.values()) for values in mine.values()) > 10
        for fault in ("echo", "stray_after 4", f"late {faults.ANSWER_MS // 4}"):
            assert set(mine[fault]) <= {"right", "missing (not_implemented)"}, "survived"
        for fault in ("no_answer", "short 3", "wrong_unit", "exception 2", "all_ones"):
            assert all(what.startswith("missing") for what in mine[fault]), (job, fault)
        assert any("stale" in what for what in mine["stuck"]), job
        assert any("implausible" in what for what in mine["counter_jump JUMP"]), job
        assert any("implausible" in what for what in mine["counter_reset"]), job


def test_every_fault_there_is_is_in_the_table() -> None:
    assert set(KINDS) == {fault.split()[0] for fault in faults.FAULTS} | {"none"}
    assert set(KINDS) - {fault.split()[0] for fault in live_faults.FAULTS} <= {
        "none", "counter_jump", "counter_reset", "rollover"}, "what is in the counters takes no time on the line"
    assert set(meters.TYPES) <= set(TYPES)


@pytest.mark.slow
def test_a_dead_unit_keeps_its_neighbours_on_time(tmp_path: Path) -> None:
    """Real time, a serial line and Modbus TCP at once: off by a tenth of the interval at most, and nothing missing."""
    delays: dict[str, live_faults.Delay] = {}

    def play(line: str) -> None:
        folder = tmp_path / line
        folder.mkdir()
        street = live_faults.Street(folder, line, INTERVAL_S, 19200)
        try:
            delays[line] = next(street.play(("no_answer",), 2))
        finally:
            street.close()
    threads = [threading.Thread(target=play, args=(line,)) for line in ("pty", "tcp")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(90)
    print(delays)
    assert Counter(delays) == Counter(("pty", "tcp"))
    for delay in delays.values():
        assert delay.worst_ms <= INTERVAL_S * 10 * live_faults.PERCENT and not delay.missing and not delay.is_readable
