"""The whole agent in every interpreter: the same readings, seals, signatures, journal bytes and verdicts."""

from pathlib import Path

from tests.micropython.interpreter import Run, cpython

SCRIPT = Path(__file__).parent / "golden_agent.py"


def test_an_agents_life_is_the_same_in_micropython(micropython: Run) -> None:
    ours, theirs = cpython(SCRIPT), micropython(SCRIPT)
    assert (ours.returncode, ours.stderr) == (0, "")
    assert (theirs.returncode, theirs.stderr) == (0, "")
    lines = ours.stdout.splitlines()
    assert len([line for line in lines if line.startswith("published")]) >= 12
    assert theirs.stdout.splitlines() == lines
