"""Checks that every interpreter makes the same bytes from the same inputs."""

from pathlib import Path

import pytest

from tests.micropython.interpreter import Run, cpython

HERE = Path(__file__).parent


@pytest.mark.parametrize("script", sorted(path.name for path in HERE.glob("golden_*.py")))
def test_the_same_lines_in_every_interpreter(script: str, micropython: Run) -> None:
    ours, theirs = cpython(HERE / script), micropython(HERE / script)
    assert (ours.returncode, ours.stderr) == (0, "")
    assert (theirs.returncode, theirs.stderr) == (0, "")
    assert len(ours.stdout.splitlines()) > 40
    assert theirs.stdout.splitlines() == ours.stdout.splitlines()
