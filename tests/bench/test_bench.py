"""Checks that the measurements measure: one round of the smallest, and what is told of a floor that is missed."""

import os
import subprocess
import sys
import time
from typing import cast

import pytest

from tests.bench import __main__, deciding, measure, ordering, pipeline, trading, verifying
from tests.bench.measure import Floor, Spent, ratio_row, spent


def test_a_row_is_measured_beside_the_reference_of_the_same_round():
    outcome = verifying.store(1, 200)[0]
    numbers = outcome.numbers
    assert numbers["ratio"] == pytest.approx(numbers["per_cpu_s"] / numbers["reference_per_s"])
    # A stored envelope costs its own verification at least, and no machine needs thirty of them for the rest.
    assert 1 / 30 < numbers["ratio"] < 1.2
    assert outcome.is_good == (numbers["ratio"] >= numbers["floor"])
    assert measure.cores() != [] and "V " in outcome.lines[0]


@pytest.mark.parametrize(("speed", "is_good"), [(0.79, False), (0.81, True)])
def test_what_is_below_its_floor_is_told(monkeypatch, speed, is_good):
    monkeypatch.setattr(measure, "reference", lambda: 1000.0)
    outcome = ratio_row("x", "things", Floor(0.8, 0.9), 3, lambda: Spent(1000, 1 / speed, 2.0))
    assert outcome.is_good is is_good and outcome.numbers["ratio"] == pytest.approx(speed)


def test_cpu_time_is_of_work_and_not_of_waiting():
    def wait() -> int:
        time.sleep(0.05)
        return 1

    waiting = spent(wait)
    assert waiting.wall_s >= 0.05 > waiting.cpu_s


@pytest.mark.parametrize(("took_ms", "groups", "is_good"), [
    ([7.9] * 100, 100, True), ([8.1] * 100, 100, False), ([7.9] * 98 + [30.0] * 2, 100, False),
    ([7.9] * 99, 100, False),
])
def test_row_7_counts_the_median_the_slowest_and_what_was_never_decided(took_ms, groups, is_good):
    found = [{"took_ms": took_ms, "groups": groups, "decisions": groups, "wall_s": 1.0}]
    assert deciding.times_row("7", "things", [[1.0] * 100], found).is_good is is_good


def test_row_8_counts_every_signature_and_no_more_than_a_decision_needs():
    numbers = ordering.order(1, 20)[0].numbers
    # PRE-PREPARE, three PREPAREs, four COMMITs, four header votes; each verifies what makes q of a kind with its own
    assert 12 <= numbers["signed"] < 12.5 and 24 <= numbers["verified"] < 27
    assert 0.1 < numbers["ratio"] < 1.1


@pytest.mark.skipif(len(measure.cores()) < 2, reason="one core")
def test_row_6_takes_all_in_on_one_core_and_on_two_and_leaves_the_process_as_it_was():
    before = measure.cores()
    numbers = pipeline.widen(1, 200)[0].numbers
    assert len(numbers["one_s"]) == len(numbers["two_s"]) == 1
    assert numbers["ratio"] == pytest.approx(numbers["one_s"][0] / numbers["two_s"][0])
    assert measure.cores() == before


def test_replicas_are_bound_to_cores_and_let_go():
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    usable = measure.cores()
    try:
        with deciding.bound([cast(deciding.Process, other)] * (len(usable) + 1)):
            assert os.sched_getaffinity(other.pid) == {usable[0]}  # the last of them is the first's neighbour
        assert sorted(os.sched_getaffinity(other.pid)) == usable
    finally:
        other.communicate(b"\n")


def test_a_name_that_nobody_knows_is_wrong_use():
    with pytest.raises(SystemExit) as found:
        __main__.main(["nothing"])
    assert found.value.code == 2


@pytest.mark.parametrize(("late_ms", "count", "is_good"), [(49.0, 10, True), (51.0, 10, False), (400.0, 4, True)])
def test_of_orders_the_slow_twentieth_is_held_against_the_floor_and_bursts_are_told(late_ms, count, is_good):
    outcome = trading._outcome([20.0] * (100 - count) + [late_ms] * count, [300.0] * 10)
    assert outcome.is_good is is_good and outcome.numbers["burst_p50_ms"] == 300.0
    assert outcome.numbers["p50_ms"] == 20.0 and outcome.numbers["max_ms"] == late_ms
