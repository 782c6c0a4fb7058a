"""Makes simulated boards to be flashed: plugged in, pulled out at a byte, and plugged in again with what they hold."""

from __future__ import annotations

import contextlib
import hashlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.flash import tools
from sim_hardware.board import images, node
from sim_hardware.board.board import Board, Faults, serve_in_background
from sim_hardware.board.chips import CHIPS
from sim_hardware.board.nor import WornFlash
from sim_hardware.errors import SimError
from tests import needs

APP_BYTES = 40_000  # of the stand-in for MicroPython: what it holds is no code, and time is short
MIB = 1 << 20
ROOT = Path(__file__).parents[2]


def be_impatient(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A board that was pulled out is waited for one second, not seven as esptool does, nor three at the prompt."""
    monkeypatch.setattr(tools, "PROMPT_PAUSE_S", 0.05)
    (folder / "esptool.cfg").write_text("[esptool]\nconnect_attempts = 1\n")
    monkeypatch.setenv("ESPTOOL_CFGFILE", str(folder / "esptool.cfg"))


def need_prompt() -> None:
    """Skips the test where there is no Node or no interpreter for it."""
    try:
        node.find_node()
        node.find_interpreter()
    except SimError:
        needs.missing("Node and MicroPython's npm packages", "./gridseal test")


@contextlib.contextmanager
def plugged(flash: Path, link: Path, faults: Faults | None = None, chip: str = "esp32", size: int = 4 * MIB,
            worn_sector: int = -1) -> Iterator[Board]:
    """A board with that flash at the pseudo-terminal `link`, until the end or until the fault pulls it out."""
    held = WornFlash(flash, size)
    held.worn_sector = worn_sector
    work = flash.with_suffix(".work")
    work.mkdir(exist_ok=True)
    board = Board(CHIPS[chip], held, work, lambda: (node.find_node(), node.find_interpreter()), faults)
    try:
        board.plug(link)
        thread = serve_in_background(board)
        try:
            yield board
        finally:
            board.stop()
            thread.join(20)
            assert not thread.is_alive()
    finally:
        held.close()


def write_firmware(path: Path, chip: str = "esp32", size: int = APP_BYTES) -> str:
    """A stand-in for MicroPython's file; returns its SHA-256."""
    data = images.make_stand_in(CHIPS[chip], size)
    path.write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def tool(program: str, *words: str, timeout_s: int = 60) -> subprocess.CompletedProcess[str]:
    """The real esptool or mpremote."""
    return subprocess.run([sys.executable, "-m", program, *words], capture_output=True, text=True, timeout=timeout_s,
                          stdin=subprocess.DEVNULL)
