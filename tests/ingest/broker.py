"""Makes a running Mosquitto on a free port of this machine, from a folder; for the tests of ingest."""

import socket
import subprocess
import time
from pathlib import Path

from tests import needs

START_S = 10


class Mosquitto:
    """A broker that can be stopped and started again on the same port with the same store."""

    def __init__(self, folder: Path, settings: str = "allow_anonymous true", window: int = 20):
        self.folder, self._program = folder, needs.program("mosquitto")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._configuration = folder / "mosquitto.conf"
        self._configuration.write_text(
            f"listener {self.port} 127.0.0.1\n{settings}\npersistence true\npersistence_location {folder}/\n"
            f"max_inflight_messages {window}\nmax_queued_messages 10000\nuser root\nlog_type error\n")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    def start(self) -> "Mosquitto":
        log = open(self.folder / "mosquitto.log", "ab")  # noqa: SIM115  the process keeps it
        self._process = subprocess.Popen([self._program, "-c", str(self._configuration)], stdout=log, stderr=log)
        log.close()
        limit = time.monotonic() + START_S
        while time.monotonic() < limit:
            if self._process.poll() is not None:
                raise AssertionError((self.folder / "mosquitto.log").read_text())
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return self
            except OSError:
                time.sleep(0.02)
        raise AssertionError("mosquitto did not start")

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            self._process = None
