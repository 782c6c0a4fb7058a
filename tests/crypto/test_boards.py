"""Checks that the newest MicroPython makes the same keys, signatures and verdicts; tests/micropython has the others."""

import subprocess
from pathlib import Path

from tests.micropython.bounded import bounded
from tests.micropython.interpreter import Options, command, cpython, run

SPEED = Path(__file__).parent / "speed.py"
GROWN_HEAP = 112 * 1024  # what MicroPython's ESP32 port lets its heap grow to beside Wi-Fi
SCRIPT = Path(__file__).parents[1] / "micropython" / "golden_crypto.py"


def test_the_newest_interpreter_makes_the_same_bytes() -> None:
    ours, theirs = cpython(SCRIPT), run("1.29", SCRIPT)
    assert (ours.returncode, theirs.returncode, ours.stderr + theirs.stderr) == (0, 0, "")
    assert theirs.stdout.splitlines() == ours.stdout.splitlines() and len(ours.stdout.splitlines()) > 200


def test_a_board_with_a_grown_heap_can_measure_itself_from_sources() -> None:
    """docs/signing.md's one line for a real board: all is compiled there, and the script's own words are few."""
    options = Options({SPEED.parent: "/lib/tests/crypto"}, heap_bytes=GROWN_HEAP)
    done = subprocess.run(command(bounded("1.29"), SPEED, options=options), capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    names = [line.partition(":")[0] for line in done.stdout.splitlines()]
    assert "sign 8k" in names and "certificate" in names and "naive sign" not in names
    page = (SCRIPT.parents[2] / "docs" / "signing.md").read_text()
    assert "mpremote mount . run " + SPEED.relative_to(SCRIPT.parents[2]).as_posix() in page
