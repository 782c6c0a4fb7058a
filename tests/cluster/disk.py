"""Makes what a votes file holds after a crash from what was appended, synced and replaced before it.

Only synced records survive for certain. Of the rest a crash keeps some first part, because the file is append-only and
its torn tail is cut at opening; a record torn in the middle counts as lost. Replacing the file is one rename.
"""

from collections.abc import Sequence
from random import Random

LOSES = 0.7  # chance that a crash between a record and its sync loses one for certain
TORN = 0.9  # chance that a crash that loses records tears the first of them


class VotesFile:
    """One machine's votes file: `synced` is the image that a crash cannot take away."""

    def __init__(self) -> None:
        self.synced: list[bytes] = []
        self.unsynced: list[bytes] = []
        self.bytes_written = 0

    def append(self, records: Sequence[bytes]) -> None:
        self.unsynced.extend(records)
        self.bytes_written += sum(map(len, records))

    def sync(self) -> list[bytes]:
        """Makes everything appended durable; returns what became so."""
        fresh = self.unsynced
        self.synced.extend(fresh)
        self.unsynced = []
        return fresh

    def replace(self, records: Sequence[bytes]) -> None:
        """Puts a compact file in the place of the old one, durably."""
        self.synced = list(records)
        self.bytes_written += sum(map(len, records))

    def crash(self, chance: Random) -> bool:
        """Loses what was not synced, but for a first part of it by chance; tells whether a record was torn."""
        loses = bool(self.unsynced) and chance.random() < LOSES
        kept = chance.randint(0, len(self.unsynced) - loses)
        is_torn = kept < len(self.unsynced) and chance.random() < TORN
        self.synced.extend(self.unsynced[:kept])
        self.unsynced = []
        return is_torn
