"""Checks the journal's ring in the real MicroPython: a sample of the cut points that CPython goes through in full.

The same script runs in each interpreter, stock and with a real collector, and prints the same lines everywhere.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.micropython.bounded import INPUTS, bounded
from tests.micropython.interpreter import ROOT, VERSIONS, Options, command, stock

SCRIPT = ROOT / "tests" / "micropython" / "scripts" / "cuts.py"
MODEL = ROOT / "tests" / "firmware" / "nor.py"
STEP = 61
HEAP = 512 * 1024  # the flash is in it four times, and the list of all that was done to it


def lines_of(interpreter: Path, offset: int, heap_bytes: int = 0) -> list[str]:
    options = Options(mounts={MODEL: "/lib/nor.py"}, heap_bytes=heap_bytes)
    done = subprocess.run(command(interpreter, SCRIPT, str(STEP), str(offset), options=options), capture_output=True,
                          text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def ours(offset: int, folder: Path) -> list[str]:
    (folder / "nor.py").write_text(MODEL.read_text())
    done = subprocess.run([sys.executable, str(SCRIPT), str(STEP), str(offset)], capture_output=True, text=True,
                          timeout=120, env={"PYTHONPATH": f"{ROOT}:{folder}", "PYTHONDONTWRITEBYTECODE": "1"})
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


@pytest.mark.parametrize("version", VERSIONS)
def test_a_sample_of_cuts(version: str, tmp_path: Path) -> None:
    found = lines_of(stock(version), 0)
    assert all(line.endswith("bad 0") for line in found), found
    assert found == ours(0, tmp_path)


@pytest.mark.parametrize("version", INPUTS)
def test_a_sample_of_cuts_while_memory_is_collected(version: str, tmp_path: Path) -> None:
    found = lines_of(bounded(version), 1, HEAP)
    assert all(line.endswith("bad 0") for line in found), found
    assert found == ours(1, tmp_path)
