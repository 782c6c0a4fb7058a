"""Documents that can rot are held: every file they name exists, every command they show is one that there is."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = ("README.md", "ARCHITECTURE.md", "sim_hardware/README.md", "docs/security-device.md", "docs/HARDWARE.md",
             "docs/simulated-board.md")
ROOMS = ("firmware", "gateway", "sim_hardware", "deploy", "tests")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_files_named_exist(document: str) -> None:
    named = re.findall(r"`((?:%s)(?:/[\w.\-]+)*/?)`" % "|".join(ROOMS), (ROOT / document).read_text())
    assert named or document.startswith("sim"), "this test reads nothing"
    missing = [name for name in named if not (ROOT / name).exists()]
    assert not missing


def test_every_module_of_a_room_is_a_file_somebody_can_find() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    for name in ROOMS[:4]:
        assert f"`{name}" in text, name


def commands() -> list[str]:
    lines = re.findall(r"^\./gridseal (.+?)(?: &)?$", (ROOT / "README.md").read_text(), re.M)
    return sorted({" ".join(re.match(r"[a-z ]+", line + " ").group().split()[:2]) for line in lines})  # type: ignore[union-attr]


@pytest.mark.parametrize("words", [line for line in commands() if line != "test"])
def test_commands_shown_exist(words: str) -> None:
    parts = [word for word in words.split() if word not in ("agent", "area")]
    done = subprocess.run([sys.executable, "-P", "-m", "deploy.cli", *parts, "--help"], cwd=ROOT, capture_output=True,
                          text=True, timeout=60, env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin"})
    assert done.returncode == 0 and "usage:" in done.stdout, done.stderr


def test_every_command_has_help_with_an_example() -> None:
    for words in (["demo"], ["gateway", "init"], ["gateway", "run"], ["gateway", "status"], ["enroll", "request"],
                  ["enroll", "approve"], ["enroll", "revoke"], ["enroll", "list"], ["meter", "run"], ["meter", "check"],
                  ["meter", "read"], ["meter", "scan"], ["meter", "types"],
                  ["proof", "export"], ["verify", "proof"], ["verify", "seal"],
                  ["verify", "header"], ["audit"], ["sim", "meter"], ["sim", "security-device"], ["sim", "board"],
                  ["flash"],
                  ["device", "certify"], ["device", "endorse"], ["device", "check"], ["device", "history"]):
        done = subprocess.run([sys.executable, "-P", "-m", "deploy.cli", *words, "--help"], cwd=ROOT,
                              capture_output=True, text=True, timeout=60,
                              env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin"})
        assert done.returncode == 0 and "example" in done.stdout, words
