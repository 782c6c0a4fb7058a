"""Makes running processes from commands: starts them, starts again what died, and keeps a list of who they are.

The list (`processes.json` in the area's folder) is what `gateway status` shows; a process that was killed is back
within a second, one that says its configuration is wrong (exit code 2) stays down and is named. One supervisor per
folder: a lock says so. When the supervisor itself is killed, the kernel asks its processes to end (Linux); a list
whose supervisor is gone counts for nothing, but the next supervisor ends whoever of it is still there first, because a
replica that finds its folder in use would stay down.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, NamedTuple

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 5.0  # before a dead process starts again; doubling
CALM_S = 10.0  # a process that lived this long starts its pauses anew
STOP_S = 10.0  # for a process to end by itself before it is killed
USAGE = 2
LIST_NAME = "processes.json"
LOCK_NAME = "processes.lock"
PR_SET_PDEATHSIG = 1  # linux/prctl.h
_LIBRARY = ctypes.CDLL(None)  # loaded here: between fork and exec a child must not


class Program(NamedTuple):
    """What to run: a unique name, its kind (broker, replica, agent, meter, clock), its folder, the command line.

    has_end: exit code 0 says that its work is done; any other program is started again whatever it exits with."""

    name: str
    kind: str
    folder: Path
    command: list[str]
    has_end: bool = False


class Running:
    """One program and its present process."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.process: asyncio.subprocess.Process | None = None
        self.starts = 0
        self.exit_code: int | None = None
        self.is_down_for_good = False


class Supervisor:
    """Runs programs until `stop`; `folder` gets the list and a log file for each.

    OSError when another supervisor runs in this folder.
    """

    def __init__(self, folder: Path, tell: Callable[[str], None] = lambda line: None, stop_s: float = STOP_S) -> None:
        self.folder = Path(folder)
        self.logs = self.folder / "logs"
        self.logs.mkdir(parents=True, exist_ok=True)
        self._lock = _take_lock(self.folder)
        self._left_over = _read_rows(self.folder)
        self.running: dict[str, Running] = {}
        self._tell = tell
        self._stop_s = stop_s
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, program: Program) -> Running:
        """Starts a program and keeps it running."""
        if program.name in self.running:
            raise ValueError(f"{program.name} runs already")
        await self._end_left_over()
        running = Running(program)
        self.running[program.name] = running
        await self._launch(running)
        self._tasks.append(asyncio.create_task(self._keep(running), name=program.name))
        return running

    def log_path(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    async def wait_line(self, name: str, is_wanted: Callable[[str], bool], wait_s: float) -> str:
        """Returns the first wanted line of a log; TimeoutError, or ChildProcessError when the program gave up."""
        end = time.monotonic() + wait_s
        while time.monotonic() < end:
            for line in self.log_path(name).read_text(errors="replace").splitlines():
                if is_wanted(line):
                    return line
            if self.running[name].is_down_for_good:
                raise ChildProcessError(f"{name} gave up: {self.last_words(name)}")
            await asyncio.sleep(0.05)
        raise TimeoutError(f"{name} did not get ready in {wait_s:.0f} s: {self.last_words(name)}")

    def last_words(self, name: str) -> str:
        """Returns the end of a program's log, for a person."""
        lines = self.log_path(name).read_text(errors="replace").strip().splitlines()
        return " / ".join(lines[-3:])

    def is_running(self, name: str) -> bool:
        running = self.running.get(name)
        return running is not None and running.process is not None and running.process.returncode is None

    async def end(self, name: str, wait_s: float = STOP_S) -> None:
        """Ends one program for good: asked first, killed after `wait_s`."""
        running = self.running[name]
        running.is_down_for_good = True
        await _end(running.process, wait_s)
        self.write_list()

    async def start_again(self, name: str) -> None:
        """Starts a program again that was ended, or had given up."""
        running = self.running[name]
        if not running.is_down_for_good:
            raise ValueError(f"{name} was not ended")
        running.is_down_for_good = False
        await self._launch(running)
        self._tasks.append(asyncio.create_task(self._keep(running), name=name))

    async def stop(self, kinds: tuple[str, ...] = ()) -> None:
        """Ends all programs (those of `kinds` first, in that order)."""
        self._stopping = True
        order = [r for kind in kinds for r in self.running.values() if r.program.kind == kind]
        order += [r for r in self.running.values() if r not in order]
        for kind in dict.fromkeys(r.program.kind for r in order):
            await asyncio.gather(*(_end(r.process, self._stop_s) for r in order if r.program.kind == kind))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        (self.folder / LIST_NAME).unlink(missing_ok=True)
        os.close(self._lock)

    def write_list(self) -> None:
        rows = []
        for name, running in self.running.items():
            process = running.process
            rows.append({"name": name, "kind": running.program.kind, "folder": str(running.program.folder),
                         "pid": process.pid if process and process.returncode is None else None,
                         "starts": running.starts, "exit_code": running.exit_code,
                         "command": running.program.command})
        path = self.folder / LIST_NAME
        spare = path.with_suffix(".new")
        spare.write_text(json.dumps({"pid": os.getpid(), "processes": rows}, indent=1))
        spare.replace(path)

    async def _end_left_over(self) -> None:
        """Ends what a supervisor that was killed has left: asked first, killed after `stop_s`."""
        rows, self._left_over = self._left_over, []
        end = time.monotonic() + self._stop_s
        for number in (signal.SIGTERM, signal.SIGKILL):
            rows = [row for row in rows if _is_alive(row)]
            for row in rows:
                self._tell(f"{row['name']} (process {row['pid']}) is left over from before; ending it")
                with contextlib.suppress(ProcessLookupError):
                    os.kill(row["pid"], number)
            while any(_is_alive(row) for row in rows) and time.monotonic() < end:
                await asyncio.sleep(0.05)
            end = time.monotonic() + self._stop_s

    async def _keep(self, running: Running) -> None:
        pause_s = FIRST_PAUSE_S
        while not self._stopping:
            assert running.process is not None
            started = time.monotonic()
            running.exit_code = await running.process.wait()
            if self._stopping or running.is_down_for_good:
                return
            if running.exit_code == 0 and running.program.has_end:
                running.is_down_for_good = True
                self.write_list()
                return
            if running.exit_code == USAGE:
                running.is_down_for_good = True
                self._tell(f"{running.program.name} stays down: {self.last_words(running.program.name)}")
                self.write_list()
                return
            self._tell(f"{running.program.name} ended ({running.exit_code}), starting it again")
            self.write_list()
            if time.monotonic() - started > CALM_S:
                pause_s = FIRST_PAUSE_S
            await asyncio.sleep(pause_s)
            pause_s = min(LONGEST_PAUSE_S, pause_s * 2)
            if not self._stopping and not running.is_down_for_good:
                await self._launch(running)

    async def _launch(self, running: Running) -> None:
        log: IO[bytes]
        with open(self.log_path(running.program.name), "ab") as log:
            running.process = await asyncio.create_subprocess_exec(
                *running.program.command, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, env=environment(),
                preexec_fn=_end_with_parent if hasattr(_LIBRARY, "prctl") else None)
        running.starts += 1
        self.write_list()


def gridseal(*words: str) -> list[str]:
    """Returns the command line of this very `gridseal` with other words."""
    return [sys.executable, "-P", "-m", "deploy.cli", *words]


def environment() -> dict[str, str]:
    """Returns the environment in which `gridseal(...)` works: this very code is found, installed or not."""
    paths = [str(Path(__file__).parents[1]), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    return {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": os.pathsep.join(filter(None, dict.fromkeys(paths)))}


def read_list(folder: Path) -> list[dict[str, Any]]:
    """Returns the rows of an area's process list; an empty one when nothing runs there."""
    return _read_rows(Path(folder)) if is_supervised(folder) else []


def is_supervised(folder: Path) -> bool:
    """Tells whether a supervisor lives in this folder."""
    try:
        lock = os.open(Path(folder) / LOCK_NAME, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def _take_lock(folder: Path) -> int:
    lock = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
    for pause_s in (0.05, 0.1, 0.2, 0.0):  # somebody who asks is_supervised holds it for a moment
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
        except BlockingIOError:
            time.sleep(pause_s)
    os.close(lock)
    raise OSError(f"{folder} is run by another process already; gridseal gateway status shows it")


def _read_rows(folder: Path) -> list[dict[str, Any]]:
    try:
        return list(json.loads((folder / LIST_NAME).read_text())["processes"])
    except (FileNotFoundError, json.JSONDecodeError, KeyError):
        return []


def _is_alive(row: dict[str, Any]) -> bool:
    """Tells whether the row's process still runs; a process id alone may be another's by now."""
    try:
        words = Path(f"/proc/{row['pid']}/cmdline").read_bytes().split(b"\0")[:-1]
    except OSError:
        return False
    return words == [os.fsencode(word) for word in row["command"]]


def _end_with_parent() -> None:
    """Between fork and exec: the kernel sends SIGTERM when the supervisor dies, however it dies."""
    _LIBRARY.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


async def _end(process: asyncio.subprocess.Process | None, wait_s: float) -> None:
    if process is None or process.returncode is not None:
        return
    process.terminate()
    try:
        await asyncio.wait_for(process.wait(), wait_s)
    except TimeoutError:
        process.kill()
        await process.wait()
