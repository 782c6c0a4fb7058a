"""Checks the simulated board's line to its meters: a meter that goes away is missed for a reason, and found again."""

import subprocess
from pathlib import Path

import pytest

from deploy.clock import ClockKeeper
from tests.firmware.live import fault, free_port, simulator
from tests.firmware.world import DAY_MS
from tests.micropython.interpreter import HERE, VERSIONS, command, stock

BUS = '[[bus]]\ntcp = "127.0.0.1:{port}"\n[[bus.meter]]\npoint = 1\nunit = 1\ntype = "sdm120"\n'
SECONDS = 30


@pytest.mark.parametrize("version", VERSIONS)
def test_a_meter_that_goes_away_is_found_again(version: str, tmp_path: Path) -> None:
    """Nobody is there, then it answers, says nothing, answers; the line breaks while it is open, and is back."""
    port = free_port()
    ClockKeeper(tmp_path / "clock", DAY_MS, 1, [])
    line = command(stock(version), HERE / "scripts" / "port.py", f"tcp://127.0.0.1:{port}", str(SECONDS))
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as child:
        assert child.stdout is not None
        try:
            assert child.stdout.readline() == "port\n", "nobody listens yet"
            with simulator(tmp_path, tmp_path / "clock", BUS.format(port=port)) as facts:
                assert child.stdout.readline() == "ok\n"
                with fault(facts["control"], "1 no_answer"):
                    assert child.stdout.readline() == "no_answer\n"
                assert child.stdout.readline() == "ok\n"
            assert child.stdout.readline() == "port\n"
            with simulator(tmp_path, tmp_path / "clock", BUS.format(port=port)):
                assert child.stdout.readline() == "ok\n"
            assert child.stdout.read() == "" and child.wait(10) == 0
        finally:
            child.kill()
