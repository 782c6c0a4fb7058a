"""Checks with real processes that one replica grows to four and a lost one is replaced, while meters stream."""

import shutil
import signal
import threading
from functools import partial

import pytest

from deploy import joining, mosquitto
from firmware.crypto.openssl import verify_digest
from firmware.wire import certificate, epochs
from gateway.ledger.ledger import Ledger
from tests.node.cluster import Cluster, committed, until

PAUSE_S = 0.15  # between two readings of a point


class Stream:
    """A meter that goes on by itself until it is told to stop."""

    def __init__(self, meter):
        self._meter, self._stop = meter, threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        while not self._stop.wait(PAUSE_S):
            self._meter.publish(1)

    def stop(self):
        self._stop.set()
        self._thread.join()


def join(cluster, index, **options):
    """One more replica, started; returns when it has its seat."""
    home = joining.make_newcomer(cluster.folder, free_ports=True, **options)
    assert home == cluster.home(index)
    if mosquitto.find() is not None:
        cluster._broker.send_signal(signal.SIGHUP)
    cluster.start_replica(index)
    until(f"replica {index} answers", lambda: cluster.answers(index))
    epoch = joining.wait_seated(home, 60)
    assert epoch is not None, (cluster.log(index), cluster.log(0))
    return epoch


def wait_epoch(cluster, epoch, size, wait_s=30):
    """Until every running replica lives in an epoch, as a member of so many."""
    def away():
        shown = [cluster.status(index) for index in cluster.running() if cluster.answers(index)]
        return [(one["kid"], one["epoch"], len(one["replicas"]), one["is_member"], one["n"]) for one in shown
                if one["epoch"] != epoch or len(one["replicas"]) != size] or len(shown) < len(cluster.running())
    try:
        until(f"epoch {epoch}", lambda: not away(), wait_s)
    except AssertionError as error:
        raise AssertionError(f"{error}: {away()}") from error


@pytest.fixture
def area(tmp_path):
    cluster = Cluster(tmp_path / "area", 1)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


def has_more(cluster, index, seals):
    return cluster.answers(index) and cluster.status(index)["seals"] > seals


def is_certified(reader):
    return reader.uncertified("trade", 1 << 20) == []


def acked(meter, heights):
    """The newest acked height of each point, by what has come."""
    while not meter.acks.empty():
        for proof in meter.acks.get().proofs:
            heights[proof.point] = max(heights.get(proof.point, 0), proof.height)
    return heights


def test_one_grows_to_four_and_a_lost_one_is_replaced_while_meters_stream(area):
    meter = area.enrol(1, 2)
    stream = Stream(meter)
    heights: dict[int, int] = {}
    try:
        until("it streams", lambda: area.status(0)["seals"] >= 10)
        for index in (1, 2, 3):
            assert join(area, index) == index
            until("it goes on", partial(has_more, area, index, area.status(index)["seals"] + 6), 60)
        wait_epoch(area, 3, 4)
        area.kill(2)
        shutil.rmtree(area.home(2) / "data")  # its disk is gone
        assert join(area, 4, instead="replica-2") == 4
        wait_epoch(area, 4, 4)
        before = area.status(4)["seals"] + 6
        area.kill(1)  # the newcomer's vote is needed
        until("it counts", partial(has_more, area, 4, before), 60)
        area.start_replica(1)
        area.wait_ready(1)
        assert [area.status(index)["offered"] for index in area.running()] == [[]] * 4  # who has left is offered none
        second = area.enrol(3)  # its receipt is certified by the fourth epoch's set, which the brokers tell of
        second.publish(2)
    finally:
        stream.stop()
    total = sum(len(readings) for readings in meter.readings.values()) + 2
    area.wait_seals(total, 60)
    until("all is acked", lambda: acked(meter, heights) == {
        point: len(meter.readings[point]) for point in meter.points}, 60)
    for index in (0, 1, 3, 4):
        reader = area.ledger(index)
        until("certificates of all blocks", partial(is_certified, reader), 60)
        for point in meter.points:
            assert committed(reader, meter, point) == meter.readings[point], (index, point)
        assert committed(reader, second, 3) == second.readings[3]
        for height in range(1, reader.height() + 1):
            epoch = reader.epoch_at("trade", height)
            certificate.check_certificate(
                certificate.decode(reader.certificate("trade", height)), reader.header("trade", height),
                reader.members_of(epoch), epoch, "trade", area.chain_id, verify_digest)
        reader.close()
    for index in (0, 1, 3, 4):
        assert area.end(index) == 0, area.log(index)
    heads = set()
    for index in (0, 1, 3, 4):
        ledger = Ledger.open(area.home(index) / "data")
        ledger.check()
        heads.add((ledger.stand().heads, ledger.stand().state_root))
        sets = epochs.walk(ledger.genesis_members, [epochs.decode(one.handover) for one in ledger.epochs[1:]],
                           ["trade"], area.chain_id, verify_digest)
        assert [len(members) for members in sets] == [1, 2, 3, 4, 4]
        ledger.close()
    assert len(heads) == 1
