"""Checks that nothing that comes from a peer ends in anything but a Ready, and that `wake` never asks for the past."""

from random import Random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from firmware.wire.reasons import NUMBERS
from tests.consensus.network import Net, item
from tests.consensus.test_restart import run_with

SMALL = {"checkpoint_interval": 2, "log_window": 4}
NET = Net(4, **SMALL)  # shared by the examples: garbage must not change it


def frames() -> list[bytes]:
    """Every message of a story with checkpoints, a view change and a restart."""
    heard: list[bytes] = []
    original = Net.post

    def post(self: Net, sender: int, to: int, frame: bytes) -> None:
        if frame not in heard:
            heard.append(frame)
        original(self, sender, to, frame)

    Net.post = post  # type: ignore[method-assign]
    try:
        run_with(1, 40)
    finally:
        Net.post = original  # type: ignore[method-assign]
    return heard


@given(st.binary(max_size=200))
def test_garbage(data: bytes) -> None:
    replica = NET.nodes[1].replica
    before = sum(replica.refused.values())
    for prefix in (b"", b"p", b"b", b"h"):
        replica.receive(prefix + data, NET.now)
    assert sum(replica.refused.values()) == before + 4
    assert set(replica.refused) <= set(NUMBERS)


def test_every_message_changed_replayed_and_shuffled() -> None:
    """A fresh cluster of the same keys gets another story's messages, whole and with bits turned: it still works."""
    told = frames()
    assert len({frame[:1] for frame in told}) == 3 and len(told) > 100
    chance = Random(3)
    print("seed 3")
    net = Net(4, **SMALL)
    net.run()
    for _ in range(3_000):
        frame = bytearray(chance.choice(told))
        if chance.random() < 0.7:
            frame[chance.randrange(len(frame))] ^= 1 << chance.randrange(8)
        node = chance.choice(net.nodes)
        node.feed(lambda: node.replica.receive(bytes(frame), net.now))  # noqa: B023 (called at once)
        if chance.random() < 0.1:
            net.run()
    for node in net.nodes:
        assert set(node.replica.refused) <= set(NUMBERS)


def test_oversize_frame() -> None:
    net = Net(4, frame_bytes=1000)
    net.nodes[0].replica.receive(b"p" * 1001, net.now)
    assert net.nodes[0].replica.refused == {"oversize": 1}


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 2**32))
def test_wake_is_in_the_future(seed: int) -> None:
    """After a tick nothing is due now: a driver that sleeps until `wake` neither spins nor sleeps too long."""
    chance = Random(seed)
    net = Net(chance.choice([1, 4, 4, 5]), depth=chance.choice([1, 8]), seed=seed % 5, **SMALL)
    names = ("PRE-PREPARE", "PREPARE", "COMMIT", "STATUS", "NEW-VIEW", "CHECKPOINT", "DATA", "SUBMIT", "HEADER-VOTE")
    for _ in range(25):
        lost = chance.choice(names)
        net.cut = chance.choice([
            lambda sender, to, name: False, lambda sender, to, name: name == lost,  # noqa: B023
            lambda sender, to, name: sender == 0, lambda sender, to, name: to == net.size - 1])
        kind = chance.choice(["tx", "seal"])
        chance.choice(net.nodes).submit(item("item %d" % chance.randrange(40), kind))
        chance.choice(net.nodes).do_execute = chance.random() < 0.8
        net.pass_time(chance.choice([1, 10, 700, 3_000]), chance.choice([1, 600]))
        for node in net.nodes:
            node.work()
            node.obey(node.replica.tick(net.now))
            label, wait = node.replica.wake()
            assert label is None or label > net.now.label_ms, (label, net.now)
            assert wait is None or wait > net.now.wait_ms, (wait, net.now)
            assert net.size == 1 or wait is not None
