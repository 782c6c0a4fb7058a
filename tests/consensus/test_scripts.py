"""Plays the scripts beside it and compares what the cluster did; RECORD=1 writes the outputs anew, for review."""

import os
from pathlib import Path

import pytest

from tests.consensus.script import RULE, Stage, blocks

SCRIPTS = sorted((Path(__file__).parent / "scripts").glob("*.txt"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_script(path: Path) -> None:
    stage = Stage()
    played = []
    for commands, expected in blocks(path.read_text()):
        found = stage.play(commands)
        played.append("\n".join([*commands, RULE, *found]))
        if not os.environ.get("RECORD"):
            assert found == expected, "\n".join(commands)
    if os.environ.get("RECORD"):
        path.write_text("\n\n".join(played) + "\n")


def test_there_are_scripts() -> None:
    assert len(SCRIPTS) >= 14
