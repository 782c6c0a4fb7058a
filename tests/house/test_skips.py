"""Checks that what is skipped is counted aloud, and that required vectors cannot be skipped at all."""

import os
import subprocess
import sys
from pathlib import Path

from tests.house.rooms import ROOT

TEXT = '''"""Skips in four ways."""
import pytest
from tests import needs

def test_of_vectors(): needs.vectors("nowhere/x.json")
def test_of_a_program(): needs.program("no-such-program")
def test_of_vectors_by_hand(): pytest.skip("the vectors are not here")
def test_that_runs(): assert True
'''


def _run(folder: Path, vectors: str, name: str = "test_some.py") -> subprocess.CompletedProcess[str]:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(TEXT)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "GRIDSEAL_VECTORS": vectors}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.conftest", "-p", "no:cacheprovider", name]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_one_loud_line_counts_what_is_missing(tmp_path: Path) -> None:
    done = _run(tmp_path, "")
    assert done.returncode == 0
    loud = [line for line in done.stdout.splitlines() if line.startswith("!!!")]
    assert len(loud) == 1 and "2 TESTS SKIPPED" in loud[0] and "./gridseal test --install" in loud[0]
    assert done.stdout.splitlines()[-1].startswith("1 passed, 3 skipped")


def test_required_vectors_fail_instead(tmp_path: Path) -> None:
    done = _run(tmp_path, "required")
    assert (done.returncode, "2 failed, 1 passed, 1 skipped" in done.stdout) == (1, True), done.stdout


def test_no_test_of_vectors_is_skipped_for_another_reason(tmp_path: Path) -> None:
    done = _run(tmp_path, "required", "tests/vectors/test_some.py")
    assert (done.returncode, "3 failed, 1 passed" in done.stdout) == (1, True), done.stdout
