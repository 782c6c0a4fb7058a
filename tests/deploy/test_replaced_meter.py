"""A meter is replaced by the documented flow, in the middle of an agent's life: no kWh is lost or counted twice.

Real parts: a running area, an agent, two simulated meters that answer one after the other at one address.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from gateway.contracts import metering
from gateway.ledger.reader import Reader
from gateway.market import records
from gateway.market.records import MeterRecord
from tests.deploy import test_lost_journal
from tests.deploy.test_enroll import say
from tests.deploy.test_lost_journal import POINT, make, running, seals, wait_for
from tests.firmware.live import free_port

area = test_lost_journal.area


def totals(area: Path) -> MeterRecord:
    with contextlib.closing(Reader.open(area / "replica-0" / "data")) as reader:
        data = reader.state_value(records.meter_key(POINT))
    assert data is not None
    return records.decode_meter(data)


@pytest.mark.slow
def test_a_meter_is_replaced(area: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log, home, port = tmp_path / "agent.log", tmp_path / "agent", free_port()
    address, sim_log = f"tcp://127.0.0.1:{port}", tmp_path / "sim.log"
    served = ["sim", "meter", "--tcp", f"127.0.0.1:{port}", "--scale", "20", "--json", "--start-kwh"]
    kid = make(home, area, address, capsys)
    assert say(capsys, "enroll", "approve", str(home), "--area-folder", str(area), "--point", str(POINT))[0] == 0
    with running(sim_log, *served, "104"):
        wait_for(lambda: "ready" in sim_log.read_text(), "the old meter", sim_log)
        with running(log, "meter", "run", str(home)):
            wait_for(lambda: len(seals(area, kid)) >= 3, "the old meter's seals", log)
        code, rows = say(capsys, "meter", "read", address, "--type", "sdm120")
        assert code == 0
        final = {row["name"]: row["value"] for row in rows}
    sim_log.write_text("")
    with running(sim_log, *served, "3", "--seed", "2"):
        wait_for(lambda: "ready" in sim_log.read_text(), "the new meter", sim_log)
        code, said = say(capsys, "meter", "replace", str(home), str(POINT), "--old",
                         f"{final['1.8.0']}/{final['2.8.0']}", "--serial", "NEW", "--area-folder", str(area))
        assert (code, [will["result"] for will in said["wills"]]) == (0, ["accepted", "accepted"])
        with running(log, "meter", "run", str(home)):
            found = wait_for(lambda: [one for one in seals(area, kid) if one.meter_epoch == 2][2:], "new seals", log)
    every = seals(area, kid)
    assert [one.height for one in every] == list(range(1, len(every) + 1)) and not any(one.lost for one in every)
    old = [one for one in every if one.meter_epoch == 1]
    assert old and every[:len(old)] == old, "what the old meter showed stays the old one's"
    meter = totals(area)
    first, second = meter.epochs[-2:]
    assert (first.number, second.number) == (1, 2) and final["1.8.0"] > 104_000
    at_change = metering.totals_of(meter, 1, final["1.8.0"], final["2.8.0"])
    at_begin = metering.totals_of(meter, 2, second.start_import_wh, second.start_export_wh)
    assert at_change is not None and at_change[0] is not None and found[-1].import_wh is not None
    assert at_change == at_begin, "the new one's totals begin where the old one's end"
    now = metering.totals_of(meter, 2, found[-1].import_wh, found[-1].export_wh)
    counted_wh = found[-1].import_wh - (second.start_import_wh or 0)
    assert now is not None and now[0] == at_change[0] + counted_wh, "and grow by what the new one has counted"
    assert "was refused" not in log.read_text()
