"""A sample of the tables that `python -m tests.firmware.faults` and `python -m tests.firmware.live_faults` make.

No fault on any line may get a wrong value under a seal, nor take a neighbour's value or time.
"""

from __future__ import annotations

import multiprocessing

import pytest

from firmware import meters
from sim_hardware.faults import KINDS
from sim_hardware.meters import TYPES
from tests.firmware import faults, live_faults

LONG = ("late 160", "wrong_function", "short 3", "long 2", "collision", "baud_mismatch 4800")  # and alike in the others
SHORTER = tuple(fault for fault in faults.FAULTS if fault not in LONG)
SAMPLE = [faults.Job("sdm630", "pty", SHORTER, rounds=1), faults.Job("b23", "tcp", rounds=1),
          faults.Job("sunspec_103", "rtu_tcp", SHORTER, rounds=1)]
INTERVAL_S = 5


@pytest.mark.slow
def test_no_fault_gets_a_wrong_value_sealed() -> None:
    rows = faults.play(SAMPLE, len(SAMPLE))
    faults.print_table(rows, faults.FAULTS)
    assert not [row for row in rows if row[2].wrong or row[2].odd]
    for job in SAMPLE:
        mine = {outcome.fault: outcome.values for name, _, outcome in rows if name == job.name}
        assert len(mine) > 15 and min(sum(values.values()) for values in mine.values()) >= 5
        for fault in ("echo", "stray_after 4", f"late {faults.ANSWER_MS // 4}"):
            assert set(mine[fault]) <= {"right", "missing (not_implemented)"}, "survived"
        for fault in ("no_answer", "fewer", "wrong_unit", "exception 2", "all_ones"):
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
def test_a_dead_unit_keeps_its_neighbours_on_time() -> None:
    """Real time, a serial line and Modbus TCP at once: off by a tenth of the interval at most, and nothing missing."""
    allowed_ms = INTERVAL_S * 10 * live_faults.PERCENT
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        for _ in range(3):  # a machine may be busy for longer than half a second, the agent never is
            delays = pool.map(live_faults.dead_unit, [("pty", INTERVAL_S), ("tcp", INTERVAL_S)])
            print(delays)
            if all(delay.worst_ms <= allowed_ms and not delay.missing for delay in delays):
                break
    for delay in delays:
        assert delay.worst_ms <= allowed_ms and not delay.missing and not delay.is_readable
