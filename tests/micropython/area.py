"""Makes what an agent in MicroPython lives in: Mosquitto with TLS, a real gateway alone, meters, a clock at speed."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from deploy import broker, enroll, provision
from deploy.clock import ClockKeeper
from deploy.operator import Person
from firmware.wire import genesis, transaction
from gateway.ledger.reader import Reader
from tests import needs
from tests.firmware.live import simulator, wait_for
from tests.firmware.world import DAY_MS
from tests.micropython.interpreter import ROOT, Options, command
from tests.node.cluster import ENVIRONMENT, _is_open

AREA = "home"
SPEED = 1200  # a minute of readings every 50 ms; a machine that cannot hold it slows the clock
TCP, RTU = "tcp", "rtu"  # a line of one meter: by network, or a terminal that stands for a serial line
SIM_BUS = {TCP: '[[bus]]\ntcp = "127.0.0.1:0"\n', RTU: '[[bus]]\npty = "{line}"\nbaud = 115200\n'}
SIM_METER = '[[bus.meter]]\npoint = {point}\nunit = {point}\ntype = "{type}"\n'


class Area:
    """An area in a folder, with one enrolled agent for each name and its meters; points count from 1.

    meters: [(TCP or RTU, type), ...] that each agent has; one RTU line at most.
    """

    def __init__(self, folder: Path, names: list[str], meters: Sequence[tuple[str, str]] = ((TCP, "sdm120"),)) -> None:
        needs.program("mosquitto")
        self.folder, self.names, self.meters = folder, names, meters
        self._stack = contextlib.ExitStack()
        self._stop = threading.Event()
        self.keeper = ClockKeeper(folder / "clock", DAY_MS, SPEED, names)
        self.area = folder / "area"
        self.chain_id = provision.make_area(self.area, provision.Plan(
            AREA, 1, 1, DAY_MS // 1000 - 60, SPEED, dict(genesis.DEMO_LABELS), free_ports=True, ack_interval_s=1))
        self.broker_url = (self.area / "broker-0" / "address").read_text().strip()

    def start(self) -> Area:
        thread = threading.Thread(target=self._keep, daemon=True)
        thread.start()
        self._stack.callback(thread.join)
        self._stack.callback(self._stop.set)
        self._run(broker.program(self.area / "broker-0").command, "broker")
        address = urlsplit(self.broker_url)
        wait_for(lambda: _is_open(address.hostname, address.port), "the broker")
        self._run([sys.executable, "-P", "-m", "deploy.cli", "gateway", "run", str(self.area / "replica-0"), "--clock",
                   str(self.folder / "clock")], "replica")
        buses = ""
        for name in self.names:
            for point, (line, kind) in zip(self.points(name), self.meters):
                buses += (SIM_BUS[line] + SIM_METER).format(point=point, type=kind, line=self.line(name))
        facts = self._stack.enter_context(simulator(self.folder, self.folder / "clock", buses))
        operator = Person(self.area)
        for name in self.names:
            self._enrol(operator, name, [facts["buses"][point - 1].get("tcp") for point in self.points(name)])
        return self

    def points(self, name: str) -> list[int]:
        """The points of an agent, in its meters' order."""
        first = self.names.index(name) * len(self.meters)
        return [first + number + 1 for number in range(len(self.meters))]

    def line(self, name: str) -> Path:
        """The terminal that an agent's RTU meter is at."""
        return self.folder / f"{name}.line"

    def close(self) -> None:
        self._stack.close()

    def run_for(self, minutes: int) -> None:
        """Lets the day go on to so many minutes after midnight, as fast as the slowest agent lets it."""
        self.keeper.run_until(DAY_MS + minutes * 60_000)

    def home(self, name: str) -> Path:
        return self.folder / name

    def start_agent(self, name: str, interpreter: Path, script: Path, *words: str,
                    options: Options = Options()) -> subprocess.Popen[str]:  # noqa: B008
        """The agent of that name in an interpreter; `words` as scripts/agent.py says."""
        home = self.home(name)
        options = options._replace(mounts={**options.mounts, home: "/agent"}, clock=(self.folder / "clock", name),
                                   copied_out={"/agent/data": home / "data"})
        child = subprocess.Popen(command(interpreter, script, *words, options=options), cwd=ROOT,
                                 stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self._stack.callback(child.wait)
        self._stack.callback(child.kill)
        return child

    def ledger(self) -> Reader:
        return Reader.open(self.area / "replica-0" / "data")

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()[-3000:]

    def _enrol(self, operator: Person, name: str, ports: list[str | None]) -> None:
        """Keys and request of a new board, the operator's approval, and the files as they are put on the board."""
        home = self.home(name)
        enroll.make_request(home, (self.area / "genesis.cbor").read_bytes(), AREA, "board")
        entries = [transaction.PointEntry(point, AREA, "trade", 1, 1, bytes(32), "", "", "", None, None)
                   for point in self.points(name)]
        _, leaf, outcome = enroll.approve_request(operator, (home / "request.cbor").read_bytes(), entries, "",
                                                  [self.broker_url], str(self.folder / "clock"))
        assert outcome.code == 0, outcome
        (home / "tls.crt").write_bytes(leaf)
        (home / "ca.crt").write_bytes((self.area / "ca" / "ca.crt").read_bytes())
        key = load_pem_private_key((home / "signing.key").read_bytes(), None)
        assert isinstance(key, EllipticCurvePrivateKey)
        (home / "signing.key").unlink()
        (home / "signing.key").write_bytes(key.private_numbers().private_value.to_bytes(32, "big"))
        settings: dict[str, Any] = {
            "area": AREA, "brokers": [self.broker_url], "interval_s": 60, "seal_every_s": 60, "details_every_s": 0,
            "silence_s": 20, "journal_kib": 64, "outbox": 64, "keep_frames_days": 2,
            "bus": [{"port": f"tcp://{port}" if port else str(self.line(name)), "gap_ms": 2, "baud": 115200,
                     "meter": [{"point": point, "unit": point, "type": kind}]}
                    for port, point, (_, kind) in zip(ports, self.points(name), self.meters)]}
        (home / "meter.json").write_text(json.dumps(settings))

    def _run(self, line: list[str], name: str) -> None:
        with open(self.folder / f"{name}.log", "ab") as log:
            child = subprocess.Popen(line, env=ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._stack.callback(child.wait)
        self._stack.callback(child.kill)

    def _keep(self) -> None:
        while not self._stop.wait(0.004):
            self.keeper.step()
