"""Checks that the newest MicroPython makes the same keys, signatures and verdicts; tests/micropython has the others."""

from pathlib import Path

from tests.micropython.interpreter import cpython, run

SCRIPT = Path(__file__).parents[1] / "micropython" / "golden_crypto.py"


def test_the_newest_interpreter_makes_the_same_bytes() -> None:
    ours, theirs = cpython(SCRIPT), run("1.29", SCRIPT)
    assert (ours.returncode, theirs.returncode, ours.stderr + theirs.stderr) == (0, 0, "")
    assert theirs.stdout.splitlines() == ours.stdout.splitlines() and len(ours.stdout.splitlines()) > 200
