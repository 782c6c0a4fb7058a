"""Sweeps the simulator as far as every run can afford; the long one is `python -m tests.cluster --sweep 2000`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster import mutations
from tests.cluster.sweep import run_one, show, sweep

ROOT = Path(__file__).resolve().parents[2]
SEEDS = 120
EVENTS = 300


def test_no_invariant_breaks_in_a_first_sweep() -> None:
    result = sweep(1, SEEDS, events=EVENTS)
    assert not result.broken, "\n".join(str(outcome.violation) for outcome in result.broken[:2])
    assert result.runs == SEEDS and result.seen["blocks"] > SEEDS and result.seen["crashes"] > SEEDS, show(result)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7])
def test_other_sizes(size: int) -> None:
    result = sweep(9_000, 8, size, EVENTS)
    assert not result.broken, result.broken[0].violation
    assert result.seen["blocks"]


def test_real_signatures() -> None:
    result = sweep(1, 6, events=100, is_real=True)
    assert not result.broken, result.broken[0].violation
    assert result.seen["certificates"]


def test_the_same_seed_gives_the_same_trace_under_any_hash_seed() -> None:
    """Two processes with other hash seeds: no order of a set or dict reaches what is sent."""
    own = run_one(7)
    told = []
    for hash_seed in ("0", "1234"):
        done = subprocess.run(
            [sys.executable, "-m", "tests.cluster", "7"], cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True, text=True, timeout=60, check=True)
        told.append(done.stdout.splitlines()[0])
    assert told[0] == told[1]
    assert told[0].endswith(own.trace_hash)
    assert run_one(8).trace_hash != own.trace_hash


def test_one_line_changed_to_quorum_minus_one_is_found() -> None:
    found = mutations.hunt("quorum", seeds=300)
    assert found.seed is not None, found


def test_no_mutation_went_stale() -> None:
    """Each one's old text stands exactly once where it says; hunting all of them is the long command."""
    stale = [name for name, mutation in mutations.MUTATIONS.items()
             if (ROOT / (mutation.module.replace(".", "/") + ".py")).read_text().count(mutation.old) != 1]
    assert not stale
