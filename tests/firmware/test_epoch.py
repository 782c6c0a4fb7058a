"""Meters that are replaced: every reading is sealed under the epoch of the meter that it was read from."""

from __future__ import annotations

import pytest

from firmware import losses
from tests.firmware.world import DAY_MS, Rig

MINUTE_MS = 60_000


def set_epoch(rig: Rig, epoch: int, point: int = 1) -> None:
    """The configuration says another epoch; the agent starts anew."""
    rig.settings = rig.settings._replace(places=tuple(
        place._replace(meter_epoch=epoch) if place.point == point else place for place in rig.settings.places))
    rig.boot()


def finish(rig: Rig) -> None:
    """Until the next hour is sealed and acked."""
    rig.connect()
    rig.minutes(60 - (rig.label_ms - DAY_MS) // MINUTE_MS % 60 + 1)
    for _ in range(12):
        rig.turn()
        rig.ack()


def check(rig: Rig, turns: list[int], point: int = 1) -> None:
    """turns: minutes at which the meter was replaced. Every minute is sealed once, under its own epoch."""
    minutes = 0
    for seal in rig.gateway.seals:
        if seal.point == point:
            expected = {1 + sum(time_ms >= DAY_MS + turn * MINUTE_MS for turn in turns)
                        for time_ms in (seal.first_ms, seal.last_ms)}
            assert expected == {seal.meter_epoch}, (seal.first_ms - DAY_MS) // MINUTE_MS
            minutes += seal.count
    assert minutes == (rig.label_ms - DAY_MS) // MINUTE_MS
    assert rig.gateway.doubles == 0
    chain = rig.agent.book.chains[point]
    assert chain.acked == chain.height == rig.gateway.tips[point][0]


@pytest.mark.parametrize("is_online", [True, False])
def test_readings_before_the_new_meter_are_the_old_ones(is_online: bool) -> None:
    rig = Rig(seal_every_ms=30 * MINUTE_MS)
    if is_online:
        rig.connect()
    rig.minutes(47)
    set_epoch(rig, 2)
    if is_online:
        rig.connect()
    rig.minutes(5)
    rig.boot()  # once more, before anything of the new meter is sealed
    finish(rig)
    check(rig, [47])
    check(rig, [], point=2)


def test_two_meters_in_one_outage() -> None:
    rig = Rig(seal_every_ms=30 * MINUTE_MS)
    rig.minutes(10)
    set_epoch(rig, 2)
    rig.minutes(10)
    set_epoch(rig, 3)
    rig.boot()
    rig.minutes(70)
    finish(rig)
    check(rig, [10, 20])


def test_what_was_acked_may_go_but_not_where_the_meter_turned() -> None:
    """All of the old meter is acked and trimmed; a restart later the new one's readings are still its own."""
    rig = Rig(seal_every_ms=30 * MINUTE_MS)
    rig.connect()
    rig.minutes(31)
    set_epoch(rig, 2)
    rig.connect()
    rig.minutes(3)
    for _ in range(4):
        rig.turn()
        rig.ack()
    rig.minutes(2)
    rig.boot()
    rig.connect()
    rig.minutes(2)
    rig.boot()
    finish(rig)
    check(rig, [31])


def test_an_agent_that_begins_at_a_later_epoch() -> None:
    rig = Rig()
    set_epoch(rig, 4)
    rig.connect()
    rig.minutes(5, ack_every=1)
    assert {seal.meter_epoch for seal in rig.gateway.seals if seal.point == 1} == {4}


def test_an_epoch_that_is_over_is_not_begun_again() -> None:
    rig = Rig()
    set_epoch(rig, 2)
    rig.connect()
    rig.minutes(5, ack_every=1)
    set_epoch(rig, 1)
    rig.connect()
    rig.minutes(5, ack_every=1)
    assert {seal.meter_epoch for seal in rig.gateway.seals if seal.point == 1} == {2}
    assert rig.alarms == ["point 1: its journal is at meter epoch 2, the configuration says 1, which is over"]


def test_a_loss_over_the_replacement_is_sealed_again_as_it_was_read() -> None:
    """The gateway wants what the ring has lost in part; readings are sealed once more, still under their own epochs."""
    rig = Rig(seal_every_ms=10 * MINUTE_MS)
    rig.minutes(25)
    set_epoch(rig, 2)
    rig.minutes(25)
    chain = rig.agent.book.chains[1]
    losses.break_chain(rig.agent.book, chain, rig.agent.outbox, 0)
    finish(rig)
    check(rig, [25])
    assert any(seal.lost for seal in rig.gateway.seals)
