"""Makes an area whose replicas live in namespaces, with a small disk and a clock of its own each; and its meters."""

import json
import re
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any, NamedTuple

from deploy.clock import ClockKeeper
from tests.chaos.wires import Wires
from tests.node.cluster import Cluster

DISK_BYTES = 192 << 20
STEP_S = 0.02
FAR_MS = 10 * 86_400_000
# As a site has them, but for the seals' wait: half a second instead of half a minute, so that there are blocks.
PARAMETERS = {"wait_seal_ms": 500, "checkpoint_interval": 16, "log_window": 32}


class Stand(NamedTuple):
    """What a replica says of its newest block, and which block has its certificate."""

    certified: int
    height: int
    header_hash: str


class Jumpy(ClockKeeper):
    """A replica's clock, which may be set."""

    def __init__(self, folder: Path) -> None:
        now_ms = time.time_ns() // 1_000_000
        super().__init__(folder, now_ms, 1, [])
        self.run_until(now_ms + FAR_MS)

    def jump(self, ms: int) -> None:
        self._label_us += ms * 1000


class ChaosArea(Cluster):
    """Replicas in namespaces; everything else (broker, meters, this process) at the hub."""

    def __init__(self, folder: Path, n: int, wires: Wires, parameters: dict[str, int] | None = None) -> None:
        super().__init__(folder, n, parameters or PARAMETERS, wires.hub)
        self.wires = wires
        self._stopping = threading.Event()
        self.clocks = [Jumpy(folder / f"clock-{index}") for index in range(n)]
        ports = []
        for index in range(n):
            toml = self.home(index) / "gateway.toml"
            ports.append(int(re.search(r'listen = ".*:(\d+)"', toml.read_text())[1]))  # type: ignore[index]
        peers = [f"{wires.address(index)}:{port}" for index, port in enumerate(ports)]
        for index in range(n):
            toml = self.home(index) / "gateway.toml"
            text = re.sub(r'listen = "[^"]*"', f'listen = "{peers[index]}"', toml.read_text())
            toml.write_text(re.sub(r"peers = \[.*\]", "peers = " + json.dumps(peers), text))
            self._mount(index)
        threading.Thread(target=self._tick, daemon=True).start()

    def start_replica(self, index: int, file_bytes: int | None = None, lies: str = "") -> None:
        """lies: names of tests.chaos.liar.LIES; none for an honest one."""
        words = [sys.executable, "-P", "-m", "deploy.cli", "gateway", "run"] if not lies else [
            sys.executable, "-P", "-m", "tests.chaos.liar", "--lies", lies]
        words += [str(self.home(index)), "--clock", str(self.clocks[index].folder)]
        self.processes[index] = self._run(self.wires.command(index, words), f"replica-{index}", file_bytes)

    def get(self, index: int, path: str, headers: dict[str, str] | None = None) -> tuple[int, bytes, Any]:
        get = super().get
        return self.wires.inside(index, lambda: get(index, path, headers))

    def stands(self) -> dict[int, Stand]:
        """Where every replica stands that answers within a second."""
        found = {}
        for index in self.running():
            try:
                one = self.wires.inside(index, lambda index=index: self._asked(index))  # type: ignore[misc]
                found[index] = Stand(one["certified_height"], one["height"], one["header_hash"])
            except (OSError, ValueError, KeyError):
                continue
        return found

    def _asked(self, index: int) -> dict[str, Any]:
        run = json.loads((self.home(index) / "data" / "run.json").read_text())
        with urllib.request.urlopen(f"http://{run['api']}/api/status", timeout=1) as answer:
            found: dict[str, Any] = json.loads(answer.read())
            return found

    def fill_disk(self, index: int) -> None:
        """Not a byte more fits on this replica's disk."""
        with open(self.home(index) / "data" / "ballast", "wb") as file:
            try:
                while file.write(bytes(65_536)):
                    file.flush()
            except OSError:
                pass

    def empty_disk(self, index: int) -> None:
        (self.home(index) / "data" / "ballast").unlink(missing_ok=True)

    def stop(self) -> None:
        super().stop()
        self._stopping.set()

    def unmount(self) -> None:
        """The last thing: what was on the small disks is gone."""
        for index in range(self.n):
            subprocess.run(["umount", "-l", str(self.home(index) / "data")], capture_output=True)

    def _mount(self, index: int) -> None:
        words = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=700", "gridseal-chaos",
                 str(self.home(index) / "data")]
        subprocess.run(words, check=True)

    def _tick(self) -> None:
        while not self._stopping.wait(STEP_S):
            for clock in self.clocks:
                clock.step()
