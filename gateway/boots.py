"""Makes sure that a replica's data folder is the newest there ever was: a restored backup must not vote (pbft.md 3.11).

A replica whose disk was rolled back has forgotten promises and could vote a second time. Two counters tell: the data
folder's own, and a guard beside it, outside of what a backup of `data` takes along. Every start raises both; at each
stable checkpoint the guard also notes how far the ledger has come. A folder that is behind its guard is not started:
such a replica comes back with a new key, by a change of the validator set. What this cannot see is an image of the
whole card, guard included.
"""

import json
import os
from pathlib import Path

from firmware.wire.errors import Refused

GUARD = "guard.json"
BOOTS = "boots.json"


class RolledBack(Refused):
    """The data folder is older than its guard."""

    def __init__(self, data: Path, expected: object, found: object):
        super().__init__("wrong_state", expected, found)
        self._data = data

    def __str__(self) -> str:
        return (f"{self._data} is older than its guard says ({self.expected} expected, {self.found} found): a restored "
                f"backup or a copy. It must not vote again with this key; let it be replaced by a new key")


class Boots:
    """The two counters. home: the replica's folder; data: its data folder, which may lie elsewhere."""

    def __init__(self, home: Path, data: Path):
        self._data = data
        self._guard_path, self._own_path = home / GUARD, data / BOOTS
        self._guard = _read(self._guard_path)
        self._own = _read(self._own_path)
        self.boots = self._own.get("boots", 0)

    def check(self) -> None:
        """RolledBack unless the folder has seen all starts that the guard has. It may have seen one more: the guard is
        written last."""
        expected = self._guard.get("boots", 0)
        if not expected <= self.boots <= expected + 1:
            raise RolledBack(self._data, f"start {expected}", f"start {self.boots}")

    def check_reached(self, n: int) -> None:
        """The same for the ledger's last sequence number."""
        expected = self._guard.get("n", 0)
        if n < expected:
            raise RolledBack(self._data, f"sequence number {expected}", n)

    def start(self) -> None:
        """Notes this start, durably, before anything is voted for."""
        self.boots += 1
        _write(self._own_path, {"boots": self.boots})
        self._guard = {**self._guard, "boots": self.boots}
        _write(self._guard_path, self._guard)

    def reach(self, n: int) -> None:
        """Notes how far the ledger is, in any thread."""
        if n > self._guard.get("n", 0):
            self._guard = {**self._guard, "n": n}
            _write(self._guard_path, self._guard)


def _read(path: Path) -> dict[str, int]:
    """The file's counters; none where there is no file. ValueError when it is not ours."""
    try:
        values = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    if not isinstance(values, dict) or not all(type(value) is int for value in values.values()):
        raise ValueError(f"{path} holds no counters")
    return values


def _write(path: Path, values: dict[str, int]) -> None:
    temporary = path.with_suffix(".new")
    with open(temporary, "w") as file:
        json.dump(values, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
