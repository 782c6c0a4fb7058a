"""Makes the one exception for a stored record that is not what was written: it names file or table, and the place."""

from firmware.wire.errors import Refused


class Damaged(Refused):
    """A record of ours that does not match its checksum or the chain; `where` says which. Refused, never skipped.

    table, key: of the one record that its checksum betrays, so that it can be made again (repair.py); else "" and None.
    """

    def __init__(self, where: str, expected: object = None, found: object = None, table: str = "",
                 key: int | bytes | None = None):
        super().__init__("damaged", expected, found)
        self.where, self.table, self.key = where, table, key

    def __str__(self) -> str:
        return f"{self.where}: {super().__str__()}"
