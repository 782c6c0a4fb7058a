"""A broker that takes an envelope and never says so, on a connection that stays: the envelope goes out again."""

from __future__ import annotations

import pytest

from tests.firmware.test_agent import check_all_acked, check_everything_arrived, settle
from tests.firmware.world import Rig


@pytest.mark.parametrize("points", [1, 2])
def test_what_the_gateways_want_goes_out_again(points: int) -> None:
    """Later heights arrive and the hole is asked for, while acks for another point keep coming."""
    rig = Rig(points=points)
    rig.connect()
    rig.minutes(3, ack_every=1)
    seen = len(rig.sent)
    rig.is_dropping = True
    rig.turn()
    lost = rig.sent[seen:]
    rig.is_dropping = False
    rig.label_ms += 60_000
    rig.wait_ms += 1_000
    rig.minutes(6, ack_every=1)
    settle(rig)
    assert lost and all(place in rig.sent[seen + len(lost):] for place in lost), "never sent again"
    check_everything_arrived(rig, 10, points)
    check_all_acked(rig)


def test_and_without_anybody_asking() -> None:
    """Nothing comes after it: the silence alone sends it again, and the next broker gets all."""
    rig = Rig(points=1)
    rig.connect()
    rig.minutes(3, ack_every=1)
    seen = len(rig.sent)
    rig.is_dropping = True
    rig.turn()
    assert len(rig.sent) == seen + 1
    rig.wait_ms += 61_000
    rig.turn()
    assert rig.sent[-1] == rig.sent[seen] and len(rig.sent) == seen + 2
    rig.wait_ms += 61_000
    rig.turn()
    assert rig.changes == 1, "a broker that takes nothing is left"


def test_a_late_puback_counts_for_no_window_twice() -> None:
    """The window is what is really under way, whatever comes late or twice."""
    rig = Rig(points=1, window=2)
    rig.connect()
    rig.is_dropping = True
    rig.minutes(2)
    rig.wait_ms += 61_000
    rig.turn()
    for place in rig.sent:
        rig.obey(rig.agent.on_published(*place))
    rig.is_dropping = False
    rig.minutes(8, ack_every=1)
    settle(rig)
    check_everything_arrived(rig, 10, points=1)
    assert rig.agent.outbox._in_flight == 0
