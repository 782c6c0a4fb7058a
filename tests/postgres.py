"""Makes a real PostgreSQL server for tests: in a folder of its own, on a socket of its own, without a network port."""

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest

from tests import needs

# Only in tests: the server's files last no longer than they do. fsync stays on: what is tested is what is shipped.
SETTINGS = ("listen_addresses=", "shared_buffers=16MB", "max_connections=60", "max_wal_size=64MB")
USER = "gridseal"


class Server:
    """A running server; `stop` ends it, `crash` as a power cut would, `start` again."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._made = folder, 0
        # PostgreSQL does not run as root: then the system's own user for it keeps the files
        self._as = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        if self._as:
            account = pwd.getpwnam("postgres")
            os.chown(folder, account.pw_uid, account.pw_gid)
        self._run("initdb", "--auth=trust", f"--username={USER}", "--data-checksums", "--no-locale", "-E", "UTF8",
                  "-D", str(folder / "data"))

    def start(self) -> None:
        """Starts it, and waits until it answers."""
        options = " ".join(f"-c {one}" for one in (*SETTINGS, f"unix_socket_directories={self.folder}"))
        self._run("pg_ctl", "start", "-w", "-s", "-D", str(self.folder / "data"), "-l", str(self.folder / "log"),
                  "-o", options)

    def stop(self, mode: str = "fast") -> None:
        """Ends it: fast, or immediate (no checkpoint, as after a crash)."""
        self._run("pg_ctl", "stop", "-w", "-s", "-m", mode, "-D", str(self.folder / "data"))

    def crash(self) -> None:
        """Ends all its processes without a word."""
        self.stop("immediate")

    def database(self) -> str:
        """The address of a new, empty database."""
        self._made += 1
        name = f"ledger{self._made}"
        with psycopg.connect(self._address("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self._address(name)

    def _address(self, name: str) -> str:
        return f"postgresql://{USER}@/{name}?host={quote(str(self.folder), safe='')}"

    def _run(self, name: str, *words: str) -> None:
        done = subprocess.run([*self._as, needs.program(name), *words], cwd=self.folder, text=True, timeout=120,
                              stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        assert not done.returncode, done.stderr


@contextlib.contextmanager
def running() -> Iterator[Server]:
    """A server in a temporary folder whose path is short enough for a socket."""
    needs.program("pg_ctl")
    folder = Path(tempfile.mkdtemp(prefix="gridseal-pg-"))
    server = Server(folder)
    try:
        server.start()
        yield server
    finally:
        with contextlib.suppress(AssertionError):
            server.stop("immediate")
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """One server for all tests that only want databases; who crashes it takes one of its own (`running`)."""
    with running() as server:
        yield server
