"""Time as the market needs it, in real processes: slots of seconds pass without any item, with a dead primary too."""

import time
from collections.abc import Iterator
from pathlib import Path

import cbor2
import pytest

from deploy import enroll
from firmware.wire import header, trading, transaction
from gateway.ledger.ledger import Ledger
from gateway.market import records, rules
from tests.node.cluster import AREA, QUICK, Cluster, until

SLOT_S = 5
MARKET = {"gate_s": 1, "commit_close_s": 2, "commit_open_s": 3, "open_s": 60}
VEE = {"provisional_s": SLOT_S, "final_s": 2 * SLOT_S}


@pytest.fixture(scope="module")
def area(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder: Path = tmp_path_factory.mktemp("area")
    cluster = Cluster(folder, 4, {**QUICK, "slot_s": SLOT_S, "time_ahead_s": 2})
    try:
        cluster.start()
        home = folder / "grid"
        kid = enroll.make_request(home, (folder / "genesis.cbor").read_bytes(), AREA, "grid", "grid")
        request = cbor2.loads((home / "request.cbor").read_bytes())[0]
        assert cluster.submit(transaction.ENROL, transaction.enrol_body(request, kid, [], "")).code == 0
        for name, changes in (("market", MARKET), ("tariff", {}), ("vee", VEE), ("credit", {})):
            body = trading.rule_set_body(name, 1, 6, rules.make(name, changes))
            assert cluster.submit(trading.RULE_SET, body).code == 0
        assert cluster.submit(transaction.REVOKE, [bytes(8), "any item makes the sixth block"]).code
        yield cluster
    finally:
        cluster.stop()


def cleared(area: Cluster, index: int) -> int:
    """The slots of the calendar that are cleared in a replica's ledger, by the next one's number; 0 before it runs."""
    reader = area.ledger(index)
    data = reader.state_value(records.CALENDAR_KEY)
    reader.close()
    return 0 if data is None else records.decode_calendar(data).clear_s // SLOT_S


def wait_slots(area: Cluster, count: int, index: int) -> None:
    first = until("the calendar", lambda: cleared(area, index))
    until(f"{count} more slots", lambda: cleared(area, index) >= first + count, 60)


def test_slots_pass_without_items_and_without_the_primary(area: Cluster) -> None:
    wait_slots(area, 2, 3)
    primary = area.status(3)["view"] % 4
    area.kill(primary)
    other = (primary + 1) % 4
    wait_slots(area, 2, other)
    assert area.status(other)["view"] > 0
    area.start_replica(primary)
    area.wait_ready(primary)
    wait_slots(area, 2, primary)
    for index in range(4):
        assert area.end(index) == 0
    ledger = Ledger.open(area.home(0) / "data")
    ledger.check()
    blocks = [(header.decode(whole.header).time_s, len(whole.leaves)) for height in range(7, ledger.height() + 1)
              if (whole := ledger.whole("trade", height))]
    # six slots and more; a block after a view change clears all that passed meanwhile
    assert len(blocks) >= 4 and not any(count for _, count in blocks), "nobody has sent anything since"
    for (before_s, _), (after_s, _) in zip(blocks, blocks[1:]):
        assert after_s - before_s <= 60, "three views at most"
    at_gates = sum((time_s + MARKET["gate_s"]) % SLOT_S <= 1 for time_s, _ in blocks)
    assert at_gates >= len(blocks) // 3, "at once when a gate passes"
    deadline_s = ledger.deadline_s()
    assert deadline_s is not None and deadline_s <= time.time() + SLOT_S
    ledger.close()
