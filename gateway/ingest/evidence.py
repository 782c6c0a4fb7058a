"""Keeps evidence in a file that outlives the process: appended and synchronised, never changed."""

import asyncio
import os
from pathlib import Path


class EvidenceFile:
    """One file of records; path None: nothing is kept. Methods in the loop's thread."""

    def __init__(self, path: Path | None):
        self._path = path

    def read(self) -> bytes:
        """All that is kept; a power cut may have left the last record half written."""
        return self._path.read_bytes() if self._path is not None and self._path.exists() else b""

    def append(self, record: bytes) -> None:
        """Writes a record behind the others, in a thread."""
        if self._path is not None:
            asyncio.get_running_loop().run_in_executor(None, _append, self._path, record)


def _append(path: Path, data: bytes) -> None:
    with open(path, "ab") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
