"""Checks four real replica processes on one machine: TLS between them, MQTT, kill -9, catching up, the page."""

import shutil
import subprocess
import sys
import time
from functools import partial

import pytest

from firmware.crypto.openssl import verify_digest
from firmware.wire import certificate, header
from gateway.ledger.ledger import Ledger
from tests.node.cluster import ENVIRONMENT, Cluster, committed, until

N = 4


@pytest.fixture(scope="module")
def area(tmp_path_factory):
    cluster = Cluster(tmp_path_factory.mktemp("area"), N)
    try:
        cluster.start()
        cluster.enrol(1, 2, 3)
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture
def whole(area):
    """All replicas run and agree; how many seals they have."""
    for index in set(range(N)) - set(area.running()):
        area.start_replica(index)
    for index in range(N):
        area.wait_ready(index)
    return area.status(0)["seals"]


def check_chain(area):
    """Every replica has the same blocks, each certified by q distinct members, and every reading as it was made."""
    for index in range(N):
        reader = area.ledger(index)
        top = reader.height()
        for height in range(1, top + 1):
            top_header = reader.header("trade", height)
            voted = certificate.decode(reader.certificate("trade", height))
            certificate.check_certificate(voted, top_header, area.genesis.members, 0, "trade", area.chain_id,
                                          verify_digest)
            assert header.decode(top_header).previous == header.hash_of(reader.header("trade", height - 1))
        for point in area.meters[0].points:
            assert committed(reader, area.meters[0], point) == area.meters[0].readings[point]
        reader.close()


def have_seals(area, indexes, count):
    """Have these replicas committed so many?"""
    return all(area.status(index)["seals"] == count for index in indexes)


def test_readings_of_a_meter_are_committed_by_all_and_acked(area, whole):
    area.meters[0].publish(10)
    area.wait_seals(whole + 30)
    check_chain(area)
    # each of the three points' newest seal is acked, under a certified header
    heights: dict[int, int] = {}

    def are_acked():
        while not area.meters[0].acks.empty():
            found = area.meters[0].acks.get()
            for proof in found.proofs:
                heights[proof.point] = max(heights.get(proof.point, 0), proof.height)
        return heights == {point: len(area.meters[0].readings[point]) for point in area.meters[0].points}
    until("acks", are_acked)


def test_primary_killed_under_load(area, whole):
    primary = area.status(0)["primary"]
    view = area.status(0)["view"]
    area.meters[0].publish(3)
    area.kill(primary)
    area.meters[0].publish(5)
    area.wait_seals(whole + 24)
    assert all(area.status(index)["view"] > view for index in area.running())
    area.start_replica(primary)
    area.meters[0].publish(2)
    area.wait_ready(primary)
    area.wait_seals(whole + 30)
    check_chain(area)


def test_backup_that_missed_more_than_the_log_catches_up_by_blocks(area, whole):
    backup = (area.status(0)["primary"] + 1) % N
    area.kill(backup)
    for batch in range(15):  # a block each: far beyond the window of 8
        area.meters[0].publish(1)
        area.wait_seals(whole + 3 * (batch + 1))
    area.start_replica(backup)
    area.wait_ready(backup)
    area.wait_seals(whole + 45)
    assert "caught up to n" in area.log(backup)
    until("readings of the missed blocks", lambda: area.status(backup)["blocks_lacking"] == 0)
    check_chain(area)


def test_two_down_nothing_is_committed_and_it_resumes(area, whole):
    """security.md T35, in short."""
    for index in (0, 1):
        area.kill(index)
    until("others notice", lambda: area.get(2, "/readyz")[0] == 503)
    area.meters[0].publish(2)
    until("readings are kept", lambda: area.status(2)["pending"] == 6 and area.status(3)["pending"] == 6)
    time.sleep(2)  # longer than T: a stall must not end in a guess
    assert [area.status(index)["seals"] for index in (2, 3)] == [whole, whole]
    for index in (0, 1):
        area.start_replica(index)
    area.wait_seals(whole + 6, 30)
    check_chain(area)


def test_all_killed_at_once_come_back(area, whole):
    area.meters[0].publish(5)
    for index in range(N):
        area.kill(index)
    for index in range(N):
        area.start_replica(index)
    for index in range(N):
        area.wait_ready(index)
    area.wait_seals(whole + 15)
    check_chain(area)


def test_broker_that_stops_and_starts(area, whole):
    area.stop_broker()
    until("all notice", lambda: not any(one["connected"] for index in range(N)
                                        for one in area.status(index)["brokers"]))
    assert area.get(0, "/readyz")[0] == 200  # the replicas need no broker to agree
    area.meters[0].publish(2)
    area.start_broker()
    area.wait_seals(whole + 6, 40)
    check_chain(area)


def test_replica_without_a_broker_fetches_readings_and_votes(area, whole):
    """Its vote is needed: another backup is down."""
    primary = area.status(0)["primary"]
    deaf, down = (primary + 1) % N, (primary + 2) % N
    assert area.end(deaf) == 0
    path = area.home(deaf) / "gateway.toml"
    source = path.read_text()
    path.write_text(source.replace(area.broker_url, "mqtt://127.0.0.1:1"))
    try:
        area.start_replica(deaf)
        until("it is there", lambda: area.answers(deaf) and area.get(deaf, "/readyz")[0] == 200)
        area.kill(down)
        view = area.status(primary)["view"]
        area.meters[0].publish(4)
        area.wait_seals(whole + 12)
        assert area.status(deaf)["view"] == view  # no suspicion: the readings came in time
        assert area.status(deaf)["blocks_lacking"] == 0 and not area.status(deaf)["brokers"][0]["connected"]
    finally:
        assert area.end(deaf) == 0
        path.write_text(source)
    for index in (deaf, down):
        area.start_replica(index)
    area.wait_seals(whole + 12)
    check_chain(area)


def test_replica_whose_own_blocks_differ_stops_voting_and_says_so(area, whole):
    """pbft.md 3.5. Its ledger executed what nobody decided; the others must go on, it must not guess."""
    odd = (area.status(0)["primary"] + 1) % N
    assert area.end(odd) == 0
    data, kept = area.home(odd) / "data", area.folder / "kept"
    shutil.copytree(data, kept)
    ledger = Ledger.open(data)
    ledger.execute(ledger.stand().n + 1, ("trade", 0, ledger.stand().time_s, []))
    ledger.close()
    area.start_replica(odd)
    until("it is there", lambda: area.answers(odd))
    others = [index for index in range(N) if index != odd]
    for batch in range(6):
        area.meters[0].publish(1)
        goal = whole + 3 * (batch + 1)
        until("the others go on", partial(have_seals, area, others, goal))
    until("alarm", lambda: area.status(odd)["alarms"])
    until("stopped", lambda: area.get(odd, "/readyz")[0] == 503)
    assert any("differs" in alarm or "do not come out" in alarm for alarm in area.status(odd)["alarms"])
    assert "do not come out" in area.log(odd) or area.status(odd)["halted"]
    area.end(odd)
    shutil.rmtree(data)
    kept.rename(data)  # for the tests that follow; a real one comes back with a new key, as its guard demands
    (area.home(odd) / "guard.json").write_text((data / "boots.json").read_text())
    for index in others:  # they would know the old folder for what it is
        assert area.end(index) == 0
        (area.home(index) / "data" / "starts.json").unlink()
    for index in range(N):
        area.start_replica(index)
    area.wait_seals(whole + 18)
    check_chain(area)


def test_second_process_on_the_same_folder_is_refused(area, whole):
    command = [sys.executable, "-P", "-m", "deploy.cli", "gateway", "run", str(area.home(0))]
    second = subprocess.run(command, env=ENVIRONMENT, capture_output=True, timeout=60)
    assert second.returncode == 2
    assert b"another process runs this replica" in second.stderr


def test_clean_end_removes_the_run_file_and_every_ledger_is_whole(area, whole):
    for index in range(N):
        assert area.end(index) == 0, area.log(index)
        assert not (area.home(index) / "data" / "run.json").exists()
    area.check_ledgers()
