"""Checks row 15: that it reads what a MicroPython measures, and tells what misses its aim."""

import pytest

from tests.bench import signing
from tests.micropython.interpreter import Run

TIMES: dict[str, list[float]] = {
    "naive sign": [50.0], "jacobian sign": [6.0], "sign 2k": [1.7], "sign 8k": [1.2], "verify known": [2.5],
    "verify known 8k": [2.3],
    "verify any": [5.7], "certificate": [7.6], "reductions 2k": [720.0], "reductions 8k": [502.0]}


def test_a_micropython_measures_all_that_the_row_wants(micropython: Run) -> None:
    done = micropython(signing.SCRIPTS / "speed.py", "1", mounts={signing.SCRIPTS: "/lib/tests/crypto"})
    assert (done.returncode, done.stderr) == (0, "")
    found = signing.read(done.stdout)
    outcome = signing.judge("15", "here", found)
    assert set(TIMES) <= set(found) and len(outcome.lines) == len(signing.AIMS) + len(signing.COUNTS) + 2
    assert found["reductions 2k"] == [720] and found["reductions 8k"] == [502]
    # Ten times is far from any noise, and from none of the aims that matter.
    assert outcome.numbers["naive sign / sign 8k"] > 10 * outcome.numbers["verify known / sign 2k"]


@pytest.mark.parametrize(("name", "value"), [
    ("", 0), ("naive sign", 42.0), ("jacobian sign", 4.1), ("verify known", 3.5), ("verify any", 6.7),
    ("certificate", 9.1), ("reductions 2k", 901), ("reductions 8k", 601)])
def test_what_misses_its_aim_is_told(name: str, value: float) -> None:
    outcome = signing.judge("15", "here", {**TIMES, name: [value]} if name else TIMES)
    assert outcome.is_good is (not name)
