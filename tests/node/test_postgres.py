"""Checks a cluster, one replica of which keeps its ledger in PostgreSQL: equal blocks, kill -9, the server's death."""

from pathlib import Path

from tests.node.cluster import Cluster, until
from tests.postgres import running


def test_a_replica_on_postgresql(tmp_path: Path) -> None:
    with running() as server:
        area = Cluster(tmp_path, 4)
        with open(area.home(1) / "gateway.toml", "a", encoding="utf-8") as file:
            file.write(f'database = "{server.database()}"\n')
        try:
            area.start()
            meter = area.enrol(1, 2)
            meter.publish(3)
            area.wait_seals(6)
            assert not (area.home(1) / "data" / "ledger.db").exists()
            area.kill(1)
            meter.publish()
            area.wait_seals(8)
            area.start_replica(1)
            area.wait_ready(1)
            area.wait_seals(8)
            server.crash()  # the replica ends by itself, and says why; the others go on
            meter.publish()
            until("the replica's end", lambda: area.processes[1].poll() is not None)
            assert "PostgreSQL" in area.log(1)
            area.wait_seals(10)
            server.start()
            area.start_replica(1)
            area.wait_ready(1)
            area.wait_seals(10)
            area.stop()
            area.check_ledgers()
        finally:
            area.stop()
