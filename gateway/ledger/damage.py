"""Makes the one exception for a stored record that is not what was written: it names file or table, and the place."""

from firmware.wire.errors import Refused


class Damaged(Refused):
    """A record of ours that does not match its checksum or the chain; `where` says which. Refused, never skipped."""

    def __init__(self, where: str, expected: object = None, found: object = None):
        super().__init__("damaged", expected, found)
        self.where = where

    def __str__(self) -> str:
        return f"{self.where}: {super().__str__()}"
