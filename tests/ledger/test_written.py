"""How much is written and kept: the aims of wire.md, Size of things."""

from pathlib import Path

import pytest

from gateway.ledger.ledger import Ledger
from tests.ledger.world import START_S, World
from tests.ledger.written import AIM_MB, measure

QUARTERS_A_YEAR = 35_040


def test_written_per_day(tmp_path: Path) -> None:
    """Twenty points at one reading a minute; envelopes durable in four steps a minute."""
    found = measure(tmp_path, minutes=20)
    if found["all"] < 1000:
        pytest.skip("the temporary folder is in memory: the kernel counts nothing")
    assert 20 < found["mb_per_day"] <= AIM_MB


def test_a_year_of_quarter_hours_of_one_point(tmp_path: Path) -> None:
    """10 MB of seals, 25 MB of blocks around them."""
    world = World(agents=[("meter", (1,))])
    ledger = Ledger.open(tmp_path, world.genesis, check_signature=lambda *_: True)
    count = seals = 0
    for n in range(1, 101):
        time_s = START_S + 900 * n
        found = world.seal("meter", 1, time_s * 1000, 1000 + n, readings=15)
        ledger.put_envelopes([found])
        outcome = ledger.execute(n, ("trade", 0, time_s, [found.leaf]))
        assert outcome.header is not None
        ledger.put_certificate("trade", n, world.certificate(outcome.header))
        seals += len(found.leaf)
        count += 1
    around = sum(len(record) for table in ("blocks", "certificates", "steps", "undo")
                 for _, record in ledger.store.scan(table))
    ledger.close()
    assert seals / count * QUARTERS_A_YEAR <= 10e6
    assert around / count * QUARTERS_A_YEAR <= 25e6
