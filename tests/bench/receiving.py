"""Makes row 3: the gateway's CPU for an MQTT message, QoS 1, from Mosquitto to a durable envelope and its PUBACK.

Two brokers, each measured by itself. `3`: with the TLS, access list and configuration that `gateway init` makes, which
is what a gateway runs; the floor and the aim of performance.md are held against it. `3 plain`: a broker on loopback
without TLS (`mqtt://127.0.0.1`, allowed there only), which is what the trial behind these figures had; the same floor
and aim. The messages wait at the broker before the gateway connects, as after an outage: so it takes as fast as it can,
and nobody else needs the machine.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deploy import mosquitto
from tests import needs
from tests.bench.area import Area, Meter, make_area, replica_home, running_broker
from tests.bench.material import AGENTS, make_envelopes
from tests.bench.measure import Floor, Outcome, Spent, folder, one_core, ratio_row
from tests.ingest.broker import Mosquitto
from tests.ingest.parts import Agent

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
MESSAGES = 5000
CHILD_S = 150


def receive(rounds: int) -> list[Outcome]:
    """Row 3 over TLS and without; nothing where Mosquitto is not installed."""
    if needs.find_program("mosquitto") is None:
        return [Outcome("3", False, ["not measured: Mosquitto is not installed (./gridseal test --install)"], {})]
    agents = [Agent(number + 1, (number + 1,)) for number in range(AGENTS)]
    with folder() as where:
        area = make_area(where / "area", 1, agents)
        sent = make_envelopes(agents, MESSAGES)
        with running_broker(area):
            found = [_received("3", "MQTT QoS 1 over TLS to durable and acknowledged, all of the gateway's CPU",
                               rounds, area, sent)]
        (where / "plain").mkdir()
        plain = Mosquitto(where / "plain", window=mosquitto.INFLIGHT).start()
        try:
            found.append(_received("3 plain", "the same without TLS, on loopback", rounds, area, sent, plain.url))
        finally:
            plain.stop()
    return found


def _received(name: str, what: str, rounds: int, area: Area, sent: Sequence[tuple[str, bytes]],
              url: str = "") -> Outcome:
    """The row of one broker."""
    meters = {agent.topic(): Meter(area, agent, url) for agent in area.agents}
    writes: list[float] = []

    def work() -> Spent:
        _take(area, 0, url)
        for topic, data in sent:
            meters[topic].publish(topic, data)
        for meter in meters.values():
            meter.settle()
        found = _take(area, MESSAGES, url)
        writes.append(MESSAGES / found["writes"])
        return Spent(MESSAGES, found["cpu_s"], found["wall_s"])

    try:
        outcome = ratio_row(name, what, Floor(0.50, 0.60), rounds, work)
    finally:
        for meter in meters.values():
            meter.stop()
    outcome.lines.append(f"       {sorted(writes)[len(writes) // 2]:.0f} messages a durable write")
    return outcome


def _take(area: Area, count: int, url: str) -> dict[str, Any]:
    """The gateway takes `count` messages, on the core of the reference, into a new ledger."""
    home = replica_home(area, 0)
    shutil.rmtree(home / "data", ignore_errors=True)
    command = [sys.executable, "-P", "-m", "tests.bench.inlet", str(home), str(count), *([url] if url else [])]
    with one_core():
        done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=CHILD_S)
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
