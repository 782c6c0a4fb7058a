"""Makes a Linux machine's agent out of two slots, folders in which versions of this program lie, as a board has them.

    FOLDER/slots/a/firmware/...  FOLDER/slots/a/manifest.cbor      the same in b
    FOLDER/slots/b.part                                            a version that is still coming
    FOLDER/boot.cbor                                               firmware/boot.py

`supervise` is the starter: it belongs to what is installed, no update touches it. It starts the slot's program as a
child, kills it when it says nothing for WATCHDOG_S, and starts again what ends. The child (`run`) is the slot's own
copy of this file.
"""

import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import firmware
from firmware import boot, main, update
from firmware.board import linux, trial
from firmware.board.linux_clock import SystemClock
from firmware.board.updating import Updater
from firmware.wire import cbor, identity, seal, topics

MODEL = "linux"
SLOTS = "slots"
LETTERS = "ab"
LIMIT_BYTES = 16 << 20  # of one version
WATCHDOG_S = 60.0
PAUSE_S = 2.0  # between the end of a program that failed and its next start
SAFE_S = 600.0
SAFE_STARTS = 2
RESTART = 42  # the exit code of a program that wants the other slot, or itself, to be started
GOOD = 0
# What is given to a child: its slot comes first, then what is installed here (pyserial, paho-mqtt, cryptography).
_CHILD = "import sys; sys.path.insert(0, sys.argv[1]); from firmware.board import linux_slots; linux_slots.child()"


class FolderStore:
    """What firmware/update.py writes a version to: one file for the stream, unpacked when it is whole."""

    limit = LIMIT_BYTES
    piece_bytes = 16384

    def __init__(self, folder: Path, slot: int) -> None:
        self.slot = slot
        self._record = folder / boot.NAME
        self._target = folder / SLOTS / LETTERS[slot]
        self._part = folder / SLOTS / f"{LETTERS[slot]}.part"

    def open(self, index_bytes: int, size: int) -> None:
        self._part.parent.mkdir(exist_ok=True)
        self._part.touch()

    def begin(self) -> None:
        """What the slot held is given up: first in the boot record, so that nobody goes back to it."""
        record = boot.load(str(self._record))
        if record is not None and record[boot.COUNTERS + self.slot]:
            record[boot.COUNTERS + self.slot] = 0
            boot.save(str(self._record), record)
        shutil.rmtree(self._target, ignore_errors=True)
        self._part.write_bytes(b"")

    def read(self, offset: int, buffer: bytearray | memoryview) -> None:
        with open(self._part, "rb") as file:
            file.seek(offset)
            data = file.read(len(buffer))
        buffer[:] = data + bytes(len(buffer) - len(data))

    def write(self, offset: int, data: bytes) -> None:
        with open(self._part, "r+b") as file:
            file.seek(offset)
            file.write(data)

    def finish(self, index: bytes, manifest: update.Manifest) -> None:
        """Every file on disk under another name, then the folder under its own."""
        fresh = self._target.with_name(self._target.name + ".new")
        shutil.rmtree(fresh, ignore_errors=True)
        at = 0
        for name, size in manifest.names():
            data = bytearray(size)
            self.read(at, data)
            at += size
            path = fresh / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        shutil.rmtree(self._target, ignore_errors=True)
        fresh.rename(self._target)
        linux.sync_folder(self._target.parent)
        self._part.unlink()


class SlotBoard(linux.LinuxBoard):
    """A Linux board whose program came as a version and takes the next one. `seen`: as board/esp32.py's."""

    def __init__(self, settings: Any, folder: Path, clock: SystemClock, say: Callable[[str], None] = print) -> None:
        super().__init__(settings, folder, clock, say)
        self.seen = 0
        self.is_linked = False
        self.updater: Updater | None = None
        self._kid = identity.kid_of(self.signer.public_key())
        self._topic = topics.agent_topic(settings.area, self._kid, "update")

    def start_link(self, urls: list[str], client_id: str, subscriptions: list[str], will_topic: str,
                   will: bytes) -> None:
        super().start_link(urls, client_id, [*subscriptions, self._topic], will_topic, will)

    def wait(self, wait_ms: int) -> list[tuple[Any, ...]]:
        events = []
        for event in super().wait(wait_ms):
            if event[0] == "message" and event[1] == self._topic:
                self._take(event[2])
                continue
            if event[0] == "words" and any(one.words is not None for one in event[4]):
                self.seen |= boot.BUS
            elif event[0] == "connected":
                self.is_linked = True
                self.seen |= boot.BROKER
            elif event[0] == "disconnected":
                self.is_linked = False
            events.append(event)
        return events

    def say_update(self, state: str, counter: int, text: str) -> None:
        self.publish(topics.agent_topic(self._settings.area, self._kid, "query"),
                     update.encode_query(counter, 0, 0, state, text), None)

    def step_update(self) -> bool:
        """Goes on with an update that is under way; True when the other slot is to be started."""
        found = self.updater.step(self._clock.monotonic_ms()) if self.updater is not None else None
        if found == "idle":
            self.updater = None
        return found == "restart"

    def _take(self, payload: bytes) -> None:
        if self.updater is None:
            self.updater = Updater(self, self._settings.area, self._kid, MODEL, lambda: spare(self._folder))
        self.updater.take(payload, running_manifest(), self._clock.monotonic_ms())


def spare(folder: Path) -> tuple[FolderStore, list[Any], str]:
    """(store of the slot that does not run, boot record, its path)."""
    path = str(folder / boot.NAME)
    record = boot.load(path) or boot.fresh(True, False)
    return FolderStore(folder, running() ^ 1), record, path


def running() -> int:
    """The slot whose files these are."""
    return 1 if _root().name == LETTERS[1] else 0


def running_manifest() -> bytes | None:
    path = _root() / update.MANIFEST
    return path.read_bytes() if path.exists() else None


def has_slots(folder: Path) -> bool:
    """Tells whether an agent's folder has a version to start."""
    return any((folder / SLOTS / letter / "firmware").is_dir() for letter in LETTERS)


def supervise(folder: Path, stopping: Callable[[], bool], say: Callable[[str], None] = print) -> int:
    """Starts what the boot record says, again and again, until `stopping()`; returns an exit code."""
    path = str(folder / boot.NAME)
    while not stopping():
        record = boot.load(path) or boot.fresh(*[(folder / SLOTS / letter / "firmware").is_dir() for letter in LETTERS])
        slot, mode = boot.count_start(record)
        boot.save(path, record)
        say(f"slot {LETTERS[slot]}{', safe mode' if mode == boot.SAFE else ''}, start {record[boot.TRIES]}")
        code = _watch(folder, folder / SLOTS / LETTERS[slot], mode, stopping, say)
        if code not in (RESTART, GOOD):
            say(f"the program ended with {code}")
            time.sleep(PAUSE_S)
    return GOOD


def _watch(folder: Path, slot: Path, mode: str, stopping: Callable[[], bool], say: Callable[[str], None]) -> int:
    """Runs one child to its end; its pipe says that it gets on."""
    ours, theirs = os.pipe()
    child = subprocess.Popen([sys.executable, "-P", "-c", _CHILD, str(slot), str(folder), mode, str(theirs)],
                             pass_fds=(theirs,), env={**os.environ, "PYTHONPATH": str(slot)})
    os.close(theirs)
    try:
        heard_s = time.monotonic()
        while child.poll() is None:
            if select.select([ours], [], [], 0.1)[0]:
                if not os.read(ours, 4096):
                    return child.wait(WATCHDOG_S)
                heard_s = time.monotonic()
            if stopping():
                child.send_signal(signal.SIGTERM)
                return child.wait(WATCHDOG_S)
            if time.monotonic() - heard_s > WATCHDOG_S:
                say(f"the program has said nothing for {WATCHDOG_S:.0f} s")
                child.kill()
        return child.wait()
    finally:
        if child.poll() is None:
            child.kill()
            child.wait()
        os.close(ours)


def child() -> None:
    """What a slot is started with: FOLDER, run or safe, the descriptor of the watchdog's pipe. Exits."""
    folder, mode, pipe = Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    stopping: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda found, _frame: stopping.append(found))
    settings, home = linux.load_config(folder)
    clock = SystemClock()
    board = SlotBoard(settings, home, clock, lambda line: print(line, flush=True))
    try:
        if mode == boot.SAFE:
            _safe(settings, folder, board, clock, stopping, pipe)
        else:
            judge = trial.Trial(str(folder / boot.NAME), board, clock.monotonic_ms())
            watch = Watch(board, judge, clock, stopping, pipe)
            runner = main.Runner(settings, board, clock)
            runner.agent.book.flags = seal.SLOT_B if running() else 0
            runner.run(watch.is_over)
    finally:
        board.release()
    sys.exit(GOOD if stopping else RESTART)


class Watch:
    """What else is done in each turn of the loop: the judgement on this start, an update, a word to the supervisor."""

    def __init__(self, board: SlotBoard, judge: trial.Trial | None, clock: SystemClock, stopping: list[int],
                 pipe: int) -> None:
        self._board, self._judge, self._clock, self._stopping, self._pipe = board, judge, clock, stopping, pipe
        self._news = judge.news() if judge is not None else None

    def is_over(self) -> bool:
        os.write(self._pipe, b".")
        if self._judge is not None:
            found = self._judge.step(self._clock.monotonic_ms())
            if found == trial.FAILED:
                return True
            self._news = self._judge.news() if found == trial.CONFIRMED else self._news
        if self._news is not None and self._board.is_linked:
            self._board.say_update(self._news[0], self._news[1], "")
            self._news = None
        return self._board.step_update() or bool(self._stopping)


def _safe(settings: Any, home: Path, board: SlotBoard, clock: SystemClock, stopping: list[int], pipe: int) -> None:
    """Network and update without metering; then two ordinary starts again."""
    board.log(f"SAFE MODE: no metering for {SAFE_S:.0f} s")
    kid = identity.kid_of(board.signer.public_key())
    board.start_link(settings.brokers, kid.hex(), [], topics.agent_topic(settings.area, kid, "death"),
                     cbor.encode([1, kid]))
    watch = Watch(board, None, clock, stopping, pipe)
    end_s = time.monotonic() + SAFE_S
    is_over = False
    while not is_over and (time.monotonic() < end_s or board.updater is not None):
        is_over = watch.is_over()
        if any(event[0] == "connected" for event in board.wait(200)):
            board.say_update(update.SAFE, 0, "")
    board.close()
    _, record, path = spare(home)
    if not is_over:
        record[boot.TRIES] = boot.CRASHES - SAFE_STARTS
        boot.save(path, record)


def _root() -> Path:
    return Path(firmware.__file__).parent.parent
