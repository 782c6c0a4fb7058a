"""Makes a person's memory of what it wanted for a slot and what became of it: a file for each slot, in its own folder.

What is about to leave stands here first, synced: the signed message, so that after a crash the very same one goes out
again and is executed once; and the nonce of a sealed bid, without which its deposit is lost. Nobody else may read it: a
bid's price is a secret until it is revealed.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from firmware.wire.reasons import REASONS

FOLDER = "market"  # in a person's folder
SLOTS = 400  # kept files: sixteen days of hours
MISSED = -1  # in place of a result code: its window was over before it could be sent
STEPS = ("order", "commit", "reveal")


@dataclass
class Step:
    """One transaction: its signed bytes, then the block and the result code (None: no certified receipt yet)."""

    message: bytes
    height: int | None = None
    code: int | None = None
    tries: int = 1
    retry_s: int = 0  # after a refusal that may pass: not before this label

    @property
    def result(self) -> str:
        if self.code is None:
            return "no receipt yet"
        return "too late" if self.code == MISSED else REASONS[self.code]


@dataclass
class Note:
    """What was wanted for a slot. side: buy or sell."""

    slot_s: int
    side: str
    wh: int
    price_mc: int
    nonce: bytes | None = None  # of a sealed bid
    steps: dict[str, Step] = field(default_factory=dict)


class Notes:
    """The notes in one person's folder."""

    def __init__(self, home: Path) -> None:
        self.folder = Path(home) / FOLDER
        self.folder.mkdir(mode=0o700, exist_ok=True)
        self._known: dict[int, Note] = {}

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Only one trader or command writes a person's notes, since a nonce that is overwritten is a deposit lost.

        OSError when there is another."""
        with open(self.folder / "lock", "w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise OSError(error.errno, f"another trader or command uses {self.folder}") from error
            yield

    def slots(self) -> list[int]:
        """The slots with a note, rising."""
        return sorted(int(path.stem) for path in self.folder.glob("*.json") if path.stem.isdecimal())

    def find(self, slot_s: int) -> Note | None:
        """The note of a slot; ValueError when its file is damaged."""
        if slot_s in self._known:
            return self._known[slot_s]
        path = self._path(slot_s)
        if not path.exists():
            return None
        try:
            note = _decode(json.loads(path.read_text()))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is damaged: {error}") from error
        self._known[slot_s] = note
        return note

    def keep(self, note: Note) -> None:
        """Writes a note durably; returns when it is on disk."""
        path = self._path(note.slot_s)
        is_new = note.slot_s not in self._known
        written = path.with_suffix(".new")
        with open(os.open(written, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(_encode(note), file)
            file.flush()
            os.fsync(file.fileno())
        written.replace(path)
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        self._known[note.slot_s] = note
        if is_new:
            for slot_s in self.slots()[:-SLOTS]:
                self._path(slot_s).unlink()
                self._known.pop(slot_s, None)

    def _path(self, slot_s: int) -> Path:
        return self.folder / f"{slot_s}.json"


def _encode(note: Note) -> dict[str, object]:
    return {"slot_s": note.slot_s, "side": note.side, "wh": note.wh, "price_mc": note.price_mc,
            "nonce": note.nonce.hex() if note.nonce else None,
            "steps": {name: {**vars(step), "message": step.message.hex()} for name, step in note.steps.items()}}


def _decode(values: dict[str, object]) -> Note:
    steps = values.pop("steps")
    nonce = values.pop("nonce")
    note = Note(**values)  # type: ignore[arg-type]  # as _encode wrote them; whatever else is a TypeError
    note.nonce = bytes.fromhex(str(nonce)) if nonce else None
    for name, step in dict(steps).items():  # type: ignore[call-overload]
        note.steps[name] = Step(**{**step, "message": bytes.fromhex(step["message"])})
    return note
