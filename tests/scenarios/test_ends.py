"""Wrong ends that people meet: started twice, killed above its children, not yet approved, a folder in use."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.supervisor import environment, gridseal, read_list
from tests import needs

WAIT_S = 60.0


def typed(*words: object) -> subprocess.CompletedProcess[str]:
    """A command that a person typed, to its end."""
    return subprocess.run(gridseal(*map(str, words)), env=environment(), capture_output=True, text=True, timeout=WAIT_S)


@contextlib.contextmanager
def running(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """`gateway run`, up."""
    with subprocess.Popen(gridseal("gateway", "run", str(folder)), env=environment(), stdout=subprocess.PIPE,
                          text=True) as process:
        try:
            assert process.stdout is not None
            assert any("the area runs" in line for line in process.stdout), "it gave up"
            yield process
        finally:
            process.terminate()
            process.wait(WAIT_S)


@pytest.fixture(scope="module")
def area(tmp_path_factory: pytest.TempPathFactory) -> Path:
    needs.program("mosquitto")
    folder = tmp_path_factory.mktemp("ends") / "area"
    done = typed("gateway", "init", folder, "--free-ports")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_started_twice(area: Path) -> None:
    with running(area):
        again = typed("gateway", "run", area)
        assert again.returncode == 2 and "run by another process already" in again.stderr
        alone = typed("gateway", "run", area / "replica-0")
        assert alone.returncode == 2 and "another process runs this replica" in alone.stderr
        assert typed("gateway", "status", area).returncode == 0, "the first one does not mind"
    after = typed("gateway", "status", area)
    assert after.returncode == 1 and "silent: it does not run" in after.stdout


@pytest.mark.slow
def test_killed_above_its_children(area: Path) -> None:
    """Broker and replica end with their supervisor; the next `gateway run` finds everything free."""
    with running(area) as first:
        before = {row["name"]: row["pid"] for row in read_list(area)}
        first.kill()
        first.wait(WAIT_S)
        assert read_list(area) == []
    with running(area):
        status = json.loads(typed("gateway", "status", area, "--json").stdout)
        after = {row["name"]: row["pid"] for row in status["processes"]}
        assert set(after) == {"broker-0", "replica-0"} == set(before)
        assert all(after[name] != before[name] for name in after)
        assert status["replicas"][0]["active"] and status["replicas"][0]["brokers"][0]["connected"]
        assert all(row["starts"] == 1 for row in status["processes"]), "nobody stumbled over what was left"


def test_agent_without_certificate(area: Path, tmp_path: Path) -> None:
    home = tmp_path / "meter-1"
    asked = typed("enroll", "request", home, "--area-folder", area, "--point", 1)
    assert asked.returncode == 0, asked.stderr
    for action in ("run", "check"):
        refused = typed("meter", action, home)
        assert refused.returncode == 2, "it would never get through to a broker"
        assert "tls.crt" in refused.stderr and f"gridseal enroll approve {home}" in refused.stderr
    (home / "signing.key").unlink()
    refused = typed("meter", "run", home)
    assert refused.returncode == 2 and "gridseal enroll request" in refused.stderr
    assert not (home / "data" / "journal.bin").exists(), "nothing was started"


def test_demo_in_a_folder_in_use(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    refused = typed("demo", "--folder", tmp_path)
    assert refused.returncode == 2 and "is not empty" in refused.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_module_without_installation(tmp_path: Path) -> None:
    """From a checkout that nobody installed, with another folder `firmware` where the user stands."""
    (tmp_path / "firmware").mkdir()
    done = subprocess.run([sys.executable, "-P", "-m", "deploy.cli", "--version"], cwd=tmp_path, env=environment(),
                          capture_output=True, text=True, timeout=WAIT_S)
    assert done.returncode == 0 and done.stdout.startswith("gridseal")
