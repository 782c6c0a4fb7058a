"""Makes one simulated board out of a flash, a chip and a pseudo-terminal: loader and prompt behind one port.

Theory. On a real board two modem lines choose between download mode and the application, and reset it; a
pseudo-terminal has none. So what comes decides: a SYNC packet of a flashing tool is taken for the reset into download
mode, and a control character at a packet's border (what every terminal program sends to a prompt first) for the reset
out of it. Neither can stand in the other's stream: 0xC0 is no UTF-8, and between packets there is nothing else.
"""

import contextlib
import os
import pty
import select
import threading
import tty
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from sim_hardware.board.chips import Chip
from sim_hardware.board.loader import Loader
from sim_hardware.board.nor import NorFlash
from sim_hardware.board.prompt import Prompt, Unbootable
from sim_hardware.errors import SimError

SYNC_BEGINS = b"\xc0\x00\x08"
TO_PROMPT = b"\r\n\x01\x02\x03\x04"
CHUNK_BYTES = 65536


class Faults(NamedTuple):
    """What goes wrong, counted in bytes that came from the computer since the board was plugged in; -1: nothing."""

    unplug_at: int = -1
    lose_at: int = -1
    lose_bytes: int = 16


class Board:
    """A board that is plugged in by `plug`, lives in `serve`, and is unplugged by `stop` from anywhere, or a fault.

    find_tools: gives (node, folder of the interpreter) when the prompt is wanted first, or raises SimError.
    """

    def __init__(self, chip: Chip, flash: NorFlash, work: Path, find_tools: Callable[[], tuple[str, Path]],
                 faults: "Faults | None" = None) -> None:
        self.chip, self.flash = chip, flash
        self.loader = Loader(chip, flash)
        self.received = 0  # bytes of the computer
        self.loader_received = 0  # of these, before the prompt was wanted first
        self.is_unplugged = False  # by the fault
        self._work, self._find_tools, self._faults = work, find_tools, faults or Faults()
        self._prompt: Prompt | None = None
        self._is_loading = True
        self._link: Path | None = None
        self._ours = self._theirs = -1
        self._wake, self._waker = os.pipe()

    def plug(self, link: Path | None = None) -> str:
        """Opens the pseudo-terminal and returns its name; `link` is made to point at it."""
        self._ours, self._theirs = pty.openpty()  # theirs stays open here, or a program's leaving would end it
        tty.setraw(self._theirs)
        device = os.ttyname(self._theirs)
        if link is not None:
            try:
                if link.is_symlink():
                    link.unlink()  # left by a killed simulator
                link.symlink_to(device)
            except OSError as error:
                raise SimError("listen", f"{link}: {error.strerror}, cannot make a link to {device}") from error
            self._link = link
        return device

    def serve(self) -> None:
        """Until `stop` or until the fault pulls the plug."""
        try:
            while not self.is_unplugged:
                waiting = [self._ours, self._wake]
                if self._prompt is not None:
                    waiting += [self._prompt.output, self._prompt.kept]
                ready, _, _ = select.select(waiting, [], [])
                if self._wake in ready:
                    return
                if self._prompt is not None:
                    if self._prompt.kept in ready:
                        self._prompt.keep()
                    if self._prompt.output in ready:
                        self._speak(self._prompt)
                if self._ours in ready:
                    self._hear(os.read(self._ours, CHUNK_BYTES))
        finally:
            self._unplug()

    def stop(self) -> None:
        with contextlib.suppress(OSError):  # it has ended by itself
            os.write(self._waker, b"x")

    def _speak(self, prompt: Prompt) -> None:
        data = os.read(prompt.output, CHUNK_BYTES)
        if data:
            self._say(data)
        else:
            self._end_prompt()  # the interpreter is gone: as a board that hangs until it is reset

    def _hear(self, data: bytes) -> None:
        start, self.received = self.received, self.received + len(data)
        faults = self._faults
        if 0 <= faults.unplug_at < self.received:
            data = data[:max(0, faults.unplug_at - start)]
            self.is_unplugged = True
        if 0 <= faults.lose_at < start + len(data) and faults.lose_at + faults.lose_bytes > start:
            data = data[:max(0, faults.lose_at - start)] + data[max(0, faults.lose_at + faults.lose_bytes - start):]
        self._take(data)

    def _take(self, data: bytes) -> None:
        if not self._is_loading:
            at = data.find(SYNC_BEGINS)
            if at >= 0:
                self._end_prompt()
                self.loader = Loader(self.chip, self.flash)
                self._is_loading = True
                data = data[at:]
        if self._is_loading and data and self.loader.is_idle() and data[0] in TO_PROMPT:
            self._is_loading = False
        if self._is_loading:
            self._say(self.loader.receive(data))
            return
        if self._prompt is None and data:
            self.loader_received = self.loader_received or self.received - len(data)
            self._start_prompt()
        if self._prompt is not None:
            self._prompt.send(data)

    def _start_prompt(self) -> None:
        try:
            node, interpreter = self._find_tools()
            self._prompt = Prompt(node, interpreter, self.flash, self.chip, self._work / "vfs")
        except (Unbootable, SimError) as error:
            self._say(f"{error}\r\n".encode())

    def _end_prompt(self) -> None:
        if self._prompt is not None:
            self._prompt.stop()
            self._prompt = None

    def _say(self, data: bytes) -> None:
        with contextlib.suppress(OSError):  # nobody listens
            while data:
                data = data[os.write(self._ours, data):]

    def _unplug(self) -> None:
        self._end_prompt()
        if self._link is not None and self._link.is_symlink():
            self._link.unlink()
        for descriptor in (self._ours, self._theirs, self._wake, self._waker):
            os.close(descriptor)


def serve_in_background(board: Board) -> threading.Thread:
    """A thread that serves the board until `board.stop()`."""
    thread = threading.Thread(target=board.serve, daemon=True)
    thread.start()
    return thread
