"""An agent and a real gateway with `gridseal sim broker` between them: every reading arrives, once, as it was read."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy import cli
from deploy.enroll import area_brokers
from tests.deploy import test_lost_journal
from tests.deploy.test_enroll import say
from tests.deploy.test_lost_journal import POINT, make, running, seals, wait_for

meter = test_lost_journal.meter
ENVELOPES, ACKS = "topic gridseal/1/+/+/envelope", "topic gridseal/1/+/+/ack"
RULES = (f"drop up {ENVELOPES} chance 70", f"swallow {ENVELOPES} chance 70", f"duplicate 2 {ENVELOPES} chance 70",
         f"reorder 2 up {ENVELOPES} chance 70", f"rewrite 3 {ENVELOPES} chance 70",
         f"replay 1500 {ENVELOPES} chance 70", f"drop down {ACKS} chance 80", f"rewrite down {ACKS} chance 80",
         "close up chance 10")
MISDEEDS, SEALS = 15, 40  # so much goes wrong; so many are on the ledger in the end


@pytest.fixture
def area(tmp_path: Path) -> Iterator[Path]:
    """A running area with a plain broker, whose blocks and acks come every second."""
    folder, log = tmp_path / "area", tmp_path / "area.log"
    assert cli.main(["gateway", "init", str(folder), "--free-ports", "--plain-broker", "--set", "wait_seal_ms=1000",
                     "--ack-interval", "1"]) == 0
    with running(log, "gateway", "run", str(folder)):
        wait_for(lambda: "the area runs" in log.read_text(), "the area", log)
        yield folder


def tell(control: str, *lines: str) -> list[str]:
    """What the proxy's control port answers."""
    host, _, port = control.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as link, link.makefile("rw") as file:
        answers = []
        for line in lines:
            file.write(line + "\n")
            file.flush()
            answers.append(file.readline().strip())
    return answers


@pytest.mark.slow
def test_every_misdeed_at_once(area: Path, meter: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broker = area_brokers(area)[0]
    log, proxy_log, home = tmp_path / "agent.log", tmp_path / "proxy.log", tmp_path / "agent"
    kid = make(home, area, meter, capsys)
    assert say(capsys, "enroll", "approve", str(home), "--area-folder", str(area), "--point", str(POINT))[0] == 0
    words = ["sim", "broker", "--broker", broker.rpartition("/")[2], "--control", "127.0.0.1:0", "--json"]
    for rule in RULES:
        words += ["--rule", rule]
    with running(proxy_log, *words):
        wait_for(lambda: "ready" in proxy_log.read_text(), "the proxy", proxy_log)
        ready = json.loads(proxy_log.read_text().splitlines()[0])
        text = (home / "meter.toml").read_text().replace(broker, f"mqtt://{ready['listen']}")
        (home / "meter.toml").write_text("silence_s = 2\n" + text)
        with running(log, "meter", "run", str(home)):
            wait_for(lambda: json.loads(tell(ready["control"], "counts")[0])["misdeeds"] >= MISDEEDS, "trouble", log)
            under_trouble = len(seals(area, kid))
            done = {row["rule"].split()[0] for row in json.loads(tell(ready["control"], "rules")[0]) if row["applied"]}
            assert tell(ready["control"], "clear") == ["ok"]
            wait_for(lambda: len(seals(area, kid)) >= SEALS, "the rest", log)
    assert len(done) >= 4 and under_trouble > 0, (done, under_trouble)
    found = seals(area, kid)
    assert [one.height for one in found] == list(range(1, len(found) + 1)), "no height twice, none left out"
    assert not [one for one in found if one.lost]
    times = [one.first_ms for one in found]
    assert times == sorted(times) and len(set(times)) == len(times)
    assert "enroll replace" not in log.read_text(), "nothing was taken for a fork"
