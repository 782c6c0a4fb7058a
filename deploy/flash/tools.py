"""Runs esptool and mpremote, each as a program of its own, and makes their troubles into one line with a remedy.

esptool is under the GPL: it is called, never imported.
"""

import re
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from deploy.flash.errors import FlashError

INSTALL = "pip install 'gridseal[flash]'"
CONNECT_S, WRITE_S, PROMPT_S = 60, 900, 180  # 4 MiB at 115,200 baud take 6 minutes
PROMPT_TRIES, PROMPT_PAUSE_S = 4, 1.0  # a board needs some seconds after its reset
BOOT_REMEDY = "hold the button BOOT (IO0) while it starts, and try again"
_NO_PORT = re.compile(r"could not open port|failed to access|No such file|does not exist|in use|it may be in use", re.I)


class Found(NamedTuple):
    """What is at the port."""

    chip: str
    flash_bytes: int


class Board:
    """The board at a port. baud: for the flash; the prompt has 115,200 always."""

    def __init__(self, port: str, baud: int) -> None:
        self.port, self._baud = port, baud

    def find(self) -> Found:
        """Asks the chip what it is; FlashError when nobody answers."""
        out = self._esptool(["flash-id"], CONNECT_S)
        chip = re.search(r"Detecting chip type\.*\s*(ESP\S+)", out) or re.search(r"Connected to (ESP\S+) on", out)
        size = re.search(r"Detected flash size: (\d+)(KB|MB)", out)
        if chip is None or size is None:
            raise FlashError(f"{self.port}: chip or flash size not told by esptool:\n{_tail(out)}")
        return Found(chip[1], int(size[1]) << (20 if size[2] == "MB" else 10))

    def write(self, pieces: list[tuple[int, Path]]) -> list[int]:
        """Writes what is not there yet, (offset, file), and verifies all of it; the offsets that were written."""
        words = [word for offset, path in pieces for word in (f"{offset:#x}", str(path))]
        # keep: header bytes stay as they are in the file, or what is written is not what is verified against it
        out = self._esptool(["write-flash", "--no-progress", "--skip-flashed", "--flash-mode", "keep", "--flash-freq",
                             "keep", "--flash-size", "keep", *words], WRITE_S)
        skipped = {int(at, 16) for at in re.findall(r"at (0x[0-9a-f]+) already in flash", out)}
        return [offset for offset, _ in pieces if offset not in skipped]

    def erase(self, offset: int, size: int) -> None:
        self._esptool(["erase-region", f"{offset:#x}", f"{size:#x}"], WRITE_S)

    def read(self, offset: int, size: int, path: Path) -> bytes:
        self._esptool(["read-flash", "--no-progress", f"{offset:#x}", f"{size:#x}", str(path)], WRITE_S)
        return path.read_bytes()

    def run(self, code: str) -> str:
        """Runs code at the prompt and returns what it printed; FlashError with the last line of what went wrong."""
        return self._mpremote(["exec", code])

    def copy(self, rows: list[tuple[Path, str]]) -> None:
        """Copies files to the board's root under new names; each stands whole under its name or not at all."""
        words: list[str] = []
        for path, name in rows:
            words += (["+"] if words else []) + ["fs", "cp", str(path), f":{name}.new"]
        renamed = "; ".join(f"os.rename('{name}.new', '{name}')" for _, name in rows)
        self._mpremote([*words, "+", "exec", f"import os; {renamed}"])

    def restart(self) -> None:
        """Resets the chip; what runs on it now starts."""
        self._mpremote(["exec", "--no-follow", "import machine; machine.reset()"])

    def _esptool(self, words: list[str], limit_s: int) -> str:
        done = _call("esptool", ["--port", self.port, "--baud", str(self._baud), *words], limit_s)
        if done.returncode:
            raise FlashError(self._trouble(done.stdout + done.stderr, f"esptool {words[0]}"))
        return done.stdout

    def _mpremote(self, words: list[str]) -> str:
        for tried in range(PROMPT_TRIES):
            done = _call("mpremote", ["connect", self.port, *words], PROMPT_S)
            text = done.stdout + done.stderr
            if not done.returncode:
                return done.stdout
            if "could not enter raw repl" not in text and not _NO_PORT.search(text):
                break
            if tried + 1 < PROMPT_TRIES:  # it starts; one with USB of its own is a new device after a reset
                time.sleep(PROMPT_PAUSE_S)
        if "could not enter raw repl" in text:
            raise FlashError(f"{self.port}: no prompt of MicroPython: is it on the board? Write it with --firmware "
                             "FILE --sha256 HASH, or press the button RESET and run this again")
        raise FlashError(self._trouble(text, "at the prompt"))

    def _trouble(self, text: str, where: str) -> str:
        if "No module named" in text and ("esptool" in text or "mpremote" in text):
            return f"esptool and mpremote are missing: {INSTALL}"
        if _NO_PORT.search(text):
            return (f"{self.port} cannot be opened: is the board plugged in, is another program using the port? "
                    f"{_tail(text)}")
        if "Failed to connect" in text:
            return f"{self.port}: the chip does not answer: {BOOT_REMEDY}. {_tail(text)}"
        return f"{self.port}: {where}: {_tail(text)}"


def _call(program: str, words: list[str], limit_s: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", program, *words]  # -P: what lies where the user stands is not meant
    try:
        return subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=limit_s,
                              stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired as error:
        raise FlashError(f"{program} {words[-1]}: no answer for {limit_s} s; pull the plug, put it in, run this again"
                         ) from error


def _tail(text: str) -> str:
    """The line that says it: a program's last words that are no mere note."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    said = [line for line in lines if "rror" in line or "atal" in line] or lines
    return said[-1][:300] if said else "it said nothing"
