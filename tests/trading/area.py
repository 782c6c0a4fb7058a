"""Makes a running area with its market open, by the commands that a person would type; its clock may run fast."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from deploy import cli
from deploy.clock import ClockKeeper
from deploy.demo import world

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
DAY_S = world.DAY_START_S
HOUR_S = 3600
READY_S = 60.0
TRADER = "trader"  # its page of the shared clock


class Area:
    """A folder with an area that runs, and people in it. `keeper`: of its shared clock; None: the system's clock."""

    def __init__(self, folder: Path, keeper: ClockKeeper | None):
        self.folder, self.keeper = folder, keeper
        self.area = folder / "area"
        self.kids: dict[str, str] = {}

    @property
    def clock(self) -> list[str]:
        return ["--clock", str(self.folder / "clock")] if self.keeper else []

    @property
    def at(self) -> list[str]:
        return ["--area-folder", str(self.area)]

    @property
    def data(self) -> Path:
        return self.area / "replica-0" / "data"

    def home(self, name: str) -> str:
        return str(self.folder / name)

    def type(self, *words: str) -> tuple[int, Any]:
        """Types one command with --json: (exit code, what it printed, or what it complained of)."""
        said, complained = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(complained):
            code = cli.main([*words, *self.clock, "--json"])
        return code, json.loads(said.getvalue()) if said.getvalue().strip() else complained.getvalue()

    def good(self, *words: str) -> Any:
        """The same, where it has to go well."""
        code, said = self.type(*words)
        assert code == 0, (words, said)
        return said

    def enroll(self, name: str, role: str = "participant", point: int | None = None, owner: str | None = None) -> str:
        """A person, or with a point the agent that serves it, for that owner; the kid."""
        named = ["--point", f"{point}:1", "--owner", self.kids[owner or ""]] if point else ["--role", role]
        role_named = [] if point else ["--role", role]
        kid = str(self.good("enroll", "request", self.home(name), *self.at, *role_named)["kid"])
        self.good("enroll", "approve", self.home(name), *self.at, *named)
        self.kids[name] = kid
        return kid

    def top_up(self, name: str, amount: str) -> None:
        self.good("account", "top-up", self.home(name), amount, "--grid", self.home("grid"), "--reference", "test")

    def publish(self, tables: Mapping[str, Mapping[str, Any]]) -> None:
        """All four rule sets, defaults but for what is said; returns when the market is open."""
        settings = [f"{name}.{field}={json.dumps(value)}" for name, table in tables.items()
                    for field, value in table.items()]
        self.good("rules", "publish", *self.at, *[word for one in settings for word in ("--set", one)])
        until("the market is open", lambda: self._is_open())

    def _is_open(self) -> bool:
        if self.type("market", "show", *self.at)[0] == 0:
            return True
        self.type("market", "cancel", self.home("grid"), "00" * 32)  # a block, so that the last rules come into force
        return False

    def show(self, slot_s: int | None = None) -> Any:
        slot = ["--slot", str(slot_s)] if slot_s is not None else []
        return self.good("market", "show", *self.at, *slot)

    def account(self, name: str) -> Any:
        return self.good("account", "show", self.kids[name], "--all", *self.at)

    def run_to(self, time_s: int) -> None:
        """Lets the clock run until that label, where it stands again."""
        keeper = self.keeper
        assert keeper is not None
        keeper.run_until(time_s * 1000)
        until(f"label {time_s}", lambda: keeper.step() >= time_s * 1000)


@contextlib.contextmanager
def running(folder: Path, replicas: int = 1, speed: int = 1, start_s: int = DAY_S,
            participants: tuple[str, ...] = ()) -> Iterator[Area]:
    """An area that runs until the block ends. speed above 1: on a shared clock that stands at `start_s` first, and
    which waits for `participants`."""
    folder.mkdir(parents=True, exist_ok=True)
    keeper = ClockKeeper(folder / "clock", start_s * 1000, speed, list(participants)) if speed > 1 else None
    made = Area(folder, keeper)
    settings = world.chain_parameters(speed) if speed > 1 else {}
    made.good("gateway", "init", str(made.area), "--free-ports", "--replicas", str(replicas), "--speed", str(speed),
              *[word for name, value in settings.items() for word in ("--set", f"{name}={value}")])
    with contextlib.ExitStack() as held:
        if keeper is not None:
            held.enter_context(_ticking(keeper))
        log = folder / "gateway.log"
        held.enter_context(process(log, "gateway", "run", str(made.area), *made.clock))
        until("the area runs", lambda: "the area runs" in log.read_text())
        yield made


@contextlib.contextmanager
def process(log: Path, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """A `gridseal` command as a process of its own, ended in order."""
    with open(log, "ab") as output:
        made = subprocess.Popen([sys.executable, "-P", "-m", "deploy.cli", *words], stdin=subprocess.DEVNULL,
                                stdout=output, stderr=output, env=ENVIRONMENT)
    try:
        yield made
    finally:
        made.send_signal(signal.SIGTERM)
        try:
            made.wait(30)
        except subprocess.TimeoutExpired:
            made.kill()
            made.wait()


def until(what: str, is_so: Callable[[], bool], wait_s: float = READY_S) -> None:
    """Returns when it is so; AssertionError after `wait_s`."""
    end = time.monotonic() + wait_s
    while not is_so():
        assert time.monotonic() < end, f"not in {wait_s:.0f} s: {what}"
        time.sleep(0.02)


@contextlib.contextmanager
def _ticking(keeper: ClockKeeper) -> Iterator[None]:
    stop = threading.Event()

    def tick() -> None:
        while not stop.wait(0.005):
            keeper.step()

    thread = threading.Thread(target=tick)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
