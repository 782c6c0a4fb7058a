"""Checks that copies of a replica are not heard: a day-old image of the whole card, and two copies started at once."""

import json
import shutil
from functools import partial

import pytest

from gateway.boots import RolledBack
from gateway.starts import ALIVE_S, LATER, MARK, NEVER, YES, Starts
from tests.node.cluster import Cluster, until
from tests.node.test_statefetch import have_seals

KIDS = [bytes((number,)) * 8 for number in range(4)]


def starts_of(folder, own, boots=1, nonce=b"own"):
    folder.mkdir(exist_ok=True)
    return Starts(folder, KIDS, own, 1, 3, boots, nonce)


def test_a_peer_admits_the_newest_process_of_a_key_and_no_other(tmp_path):
    peer = starts_of(tmp_path / "peer", 0)
    assert peer.hear(1, 5, b"a", 100, 0.0)[0] == YES
    assert peer.hear(1, 5, b"b", 100, 1.0)[0] == NEVER  # as many starts, another process: a copy
    assert peer.hear(1, 4, b"c", 100, 1.0)[0] == NEVER  # an older image
    assert peer.hear(1, 6, b"d", 100, 1.0)[0] == LATER  # the first one is here
    assert peer.hear(1, 5, b"a", 120, 2.0)[0] == YES
    late_s = 2.0 + ALIVE_S
    assert peer.hear(1, 6, b"e", 119, late_s)[0] == NEVER  # started more often, but behind what the key had reached
    assert peer.hear(1, 6, b"d", 120, late_s)[0] == YES
    assert peer.hear(1, 5, b"a", 130, late_s)[0] == NEVER
    again = starts_of(tmp_path / "peer", 0, 2)  # a restart of the peer forgets nobody
    assert again.hear(1, 6, b"f", 130, 0.0)[0] == NEVER and again.hear(1, 6, b"d", 130, 0.0)[0] == YES
    assert again.hear(7, 1, b"x", 0, 0.0)[0] == YES  # an observer promises nothing


def test_q_members_admit_and_f_liars_neither_admit_nor_shut_out(tmp_path):
    found = starts_of(tmp_path / "one", 1)
    assert not found.is_admitted and not found.answered(0, b"own", YES, "")
    assert not found.answered(0, b"own", YES, "") and not found.is_admitted  # the same one twice
    assert not found.answered(2, b"other", YES, "")  # about another process
    assert not found.answered(2, b"own", NEVER, "I say so") and not found.is_admitted
    assert found.answered(3, b"own", YES, "") and found.is_admitted
    with pytest.raises(RolledBack, match="newer"):
        found.answered(0, b"own", NEVER, "newer")
    assert json.loads((tmp_path / "one" / MARK).read_text())["why"] == ["I say so", "newer"]
    assert starts_of(tmp_path / "two", None).is_admitted
    assert Starts(tmp_path / "two", KIDS[:1], 0, 0, 1, 1, b"own").is_admitted


@pytest.fixture
def area(tmp_path):
    cluster = Cluster(tmp_path / "area", 4)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


def test_an_old_image_and_a_copy_beside_the_original_say_nothing_and_tell_why(area):
    meter = area.enrol(1)
    meter.publish(2)
    area.wait_seals(2)
    assert area.end(3) == 0
    image = area.folder / "image"
    shutil.copytree(area.home(3), image)  # the whole card, guard included
    area.start_replica(3)
    area.wait_ready(3)
    for batch in range(6):  # a day goes by
        meter.publish(1)
        area.wait_seals(3 + batch)
    # the copy beside the original, which goes on
    port = area.home(4)
    shutil.copytree(image, port)
    text = (port / "gateway.toml").read_text()
    own = area.status(3)["listen"]
    (port / "gateway.toml").write_text(text.replace(f'listen = "{own}"', 'listen = "127.0.0.1:0"').replace(
        'api = "', 'api = "127.0.0.1:0" # "'))
    area.start_replica(4)
    assert area.processes[4].wait(60) == 1
    assert "older than its guard says" in area.log(4) and "another process of this key" in area.log(4)
    meter.publish(1)
    area.wait_seals(9)
    assert not area.status(3)["halted"] and area.status(3)["waits_for"] == ""
    # the image in the original's place
    area.kill(3)
    shutil.rmtree(area.home(3))
    image.rename(area.home(3))
    area.start_replica(3)
    assert area.processes[3].wait(60) == 1
    assert "another process of this key said start" in area.log(3)
    area.start_replica(3)  # whoever runs it starts it again: it stays out
    assert area.processes[3].wait(60) == 1
    meter.publish(1)
    area.wait_seals(10)
    evidence = [alarm for index in (0, 1, 2) for alarm in area.status(index)["alarms"] if "contradicts" in alarm]
    assert evidence == []


def test_two_copies_started_at_once_one_of_them_at_most_votes(area):
    meter = area.enrol(1)
    meter.publish(2)
    area.wait_seals(2)
    assert area.end(3) == 0
    twin = area.home(4)
    shutil.copytree(area.home(3), twin)
    text = (twin / "gateway.toml").read_text()
    lines = ['listen = "127.0.0.1:0"' if line.startswith("listen") else
             'api = "127.0.0.1:0"' if line.startswith("api") else line for line in text.splitlines()]
    (twin / "gateway.toml").write_text("\n".join(lines) + "\n")
    area.start_replica(3)
    area.start_replica(4)
    until("one is out", lambda: 3 not in area.running() or 4 not in area.running(), 60)
    left = 3 if 3 in area.running() else 4
    gone = 7 - left
    assert "another process of this key" in area.log(gone)
    for batch in range(5):
        meter.publish(1)
        until("it goes on", partial(have_seals, area, (0, 1, 2), 3 + batch))
    for index in (0, 1, 2):
        assert not [alarm for alarm in area.status(index)["alarms"] if "contradicts" in alarm]
