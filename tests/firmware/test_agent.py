"""The agent between an honest gateway and simulated registers: what arrives, in which order, after which mishap."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware import agent as agent_module
from firmware import records
from firmware.journal import Journal
from firmware.wire import reading as reading_codec
from firmware.wire import seal as seal_codec
from tests.firmware.nor import Flash, PowerCut
from tests.firmware.world import DAY_MS, Chain, Rig

MINUTE = 60_000


def check_everything_arrived(rig: Rig, minutes: int, points: int = 2) -> None:
    """Each minute of each point is in the gateway once, with the registers of that minute."""
    assert rig.gateway.doubles == 0
    for point in range(1, points + 1):
        for minute in range(minutes):
            time_ms = DAY_MS + minute * MINUTE
            reading = rig.gateway.readings[point, time_ms]
            expected = struct.unpack(">f", struct.pack(">f", 100 + minute / 64 + point))[0] * 1000
            assert reading_codec.value_of(reading, "1.8.0") == round(expected)
            assert reading_codec.value_of(reading, "36.7.0") == 500 + point


def check_all_acked(rig: Rig) -> None:
    for point, (height, _) in rig.gateway.tips.items():
        chain = rig.agent.book.chains[point]
        assert (chain.height, chain.acked) == (height, height), rig.alarms


def settle(rig: Rig) -> None:
    for _ in range(12):
        rig.turn()
        rig.ack()


def test_everything_arrives_once() -> None:
    rig = Rig()
    rig.connect()
    rig.minutes(130, ack_every=3)
    settle(rig)
    check_everything_arrived(rig, 130)
    check_all_acked(rig)
    assert rig.journal.trimmed == rig.journal.next_seq
    assert rig.progress == [DAY_MS + minute * MINUTE for minute in range(0, 132)]


def test_durable_before_signed_before_air() -> None:
    """No envelope is made before its seal's record, and with it all older ones, is synced."""
    rig = Rig(seal_every_ms=5 * MINUTE)
    unsynced: list[Any] = []
    sealed: set[tuple[int, int]] = set()

    def watch(duty: Any) -> None:
        if isinstance(duty, agent_module.Append):
            unsynced.append(duty)
            if duty.kind == records.SEAL:
                record = records.decode_seal(duty.payload, duty.seq)
                sealed.add((record.point, record.height))
        elif isinstance(duty, agent_module.Sync):
            unsynced.clear()
        elif isinstance(duty, agent_module.Publish):
            assert (duty.point, duty.height) in sealed
            assert not [one for one in unsynced if one.kind in (records.SEAL, records.BOOT)]

    rig.on_duty = watch
    rig.boot()
    rig.connect()
    rig.minutes(70, ack_every=10)
    assert len(rig.sent) >= 28


@pytest.mark.parametrize("offset", range(2))
def test_power_cut_anywhere(offset: int) -> None:
    """Cut at every 19th unit of a story that rounds a small ring: no height twice, nothing double, chains go on."""
    cut = offset
    while True:
        rig = Rig(flash=Flash(5, 1024, seed=cut))
        rig.flash.cut_at, rig.flash.units = cut, 0
        is_cut = False
        try:
            rig.boot()
            rig.connect()
            rig.minutes(20, ack_every=4)
        except PowerCut:
            is_cut = True
        rig.flash.cut_at = None
        for _ in range(2):
            rig.boot()
            rig.connect()
            rig.minutes(6, ack_every=3)
        settle(rig)
        check_all_acked(rig)
        assert rig.gateway.doubles == 0 and rig.flash.overwritten == 0
        assert not [found for found in rig.gateway.seals if found.lost], f"cut {cut}: a loss without a reason"
        if not is_cut:
            break
        cut += 19


def test_after_a_crash_the_same_bytes() -> None:
    """What was published before a crash is published again, byte for byte, and the boot counter rises."""
    rig = Rig()
    rig.connect()
    rig.minutes(3)
    first = {(p, h): rig.agent.envelope(p, h) for p, h in rig.sent}
    assert len(first) == 6
    rig.boot()
    assert {(p, h): rig.agent.envelope(p, h) for p, h in first} == first
    assert rig.agent.book.boot == 2
    rig.connect()
    rig.minutes(2)
    settle(rig)
    assert {found.boot for found in rig.gateway.seals} == {1, 2}


def test_seals_close_at_their_grid_and_never_span_a_slot() -> None:
    rig = Rig(points=1, seal_every_ms=7 * MINUTE)  # does not divide the hour: boundaries close seals of their own
    rig.connect()
    rig.minutes(190, ack_every=5)
    hour = 60 * MINUTE
    for found in rig.gateway.seals:
        first_slot, last_slot = -(-found.first_ms // hour), -(-found.last_ms // hour)
        assert first_slot == last_slot, "spans a boundary"
        assert found.last_ms % hour == 0 or found.last_ms % (7 * MINUTE) == 0
    closing = {found.last_ms for found in rig.gateway.seals if found.last_ms % hour == 0}
    assert {DAY_MS + k * hour for k in (0, 1, 2, 3)} <= closing


def test_a_boundary_reading_that_never_came_does_not_hold_the_seal() -> None:
    rig = Rig(points=1, seal_every_ms=10 * MINUTE)
    rig.connect()
    rig.minutes(15)
    rig.label_ms = DAY_MS + 70 * MINUTE + 5000  # the agent slept over the hour
    rig.turn()
    last = [found.last_ms for found in rig.gateway.seals]
    assert DAY_MS + 14 * MINUTE in last
    assert rig.agent.status(0)["missed_polls"] > 50


def test_a_missed_boundary_still_parts_two_slots() -> None:
    """The reading at the full hour never came, and the seal's period reaches over it."""
    rig = Rig(points=1, seal_every_ms=50 * MINUTE)
    rig.connect()
    rig.minutes(58)
    rig.label_ms = DAY_MS + 63 * MINUTE
    rig.minutes(40)
    spans = [(found.first_ms - DAY_MS, found.last_ms - DAY_MS) for found in rig.gateway.seals]
    assert 57 * MINUTE in [last for _, last in spans], spans
    assert 63 * MINUTE in [first for first, _ in spans], spans


def test_two_readings_never_share_a_millisecond() -> None:
    """A clock that is held, or quick polls: the second reading of a point is a millisecond later."""
    rig = Rig(points=1, details_ms=15 * MINUTE)
    rig.connect()
    rig.label_ms = DAY_MS + 16 * MINUTE  # billing and, overdue since half a minute past the quarter, the details
    rig.turn()
    rig.turn()
    rig.label_ms += MINUTE
    rig.turn()
    times = sorted(time for _, time in rig.gateway.readings)
    assert len(times) >= 2
    rig.agent.book.chains[1].last_ms = rig.label_ms
    assert rig.agent.book.rising_time(1, rig.label_ms) == rig.label_ms + 1


def test_no_height_is_used_while_a_loss_cannot_be_told() -> None:
    rig = Rig(points=1)
    rig.connect()
    rig.minutes(5)
    rig.obey(rig.agent.on_disconnected())
    rig.agent.outbox.abandon(1)
    rig.boot()
    rig.agent.book.chains[1].base = 2
    height = rig.agent.book.chains[1].height
    rig.minutes(70)
    assert rig.agent.book.chains[1].height == height
    rig.connect()
    rig.turn()
    assert rig.agent.book.chains[1].height > height


def test_details_have_their_own_period() -> None:
    rig = Rig(points=1, details_ms=15 * MINUTE)
    rig.connect()
    for half_minute in range(240):
        rig.turn()
        if half_minute % 30 == 29:
            rig.ack()
        rig.label_ms += MINUTE // 2
    rig.turn()
    details = [r for r in rig.gateway.readings.values() if reading_codec.value_of(r, "1.8.0") is None]
    assert len(details) == 8
    assert all(reading_codec.value_of(r, "32.7.0") == 1000 and r.time_ms % (15 * MINUTE) == MINUTE // 2
               for r in details)
    assert all(found.import_wh is not None for found in rig.gateway.seals)
    billing = [reading_codec.encode(r) for r in rig.gateway.readings.values() if r not in details]
    assert max(map(len, billing)) <= 180


def test_an_outage_of_hours_loses_nothing() -> None:
    """While nothing can be sent only slot boundaries close seals; afterwards all of it arrives with its own times."""
    rig = Rig(flash=Flash(16, 4096))
    rig.minutes(185)
    assert rig.agent.counts["sealed"] == 2 * 4
    rig.connect()
    rig.minutes(5, ack_every=1)
    settle(rig)
    check_everything_arrived(rig, 190)
    check_all_acked(rig)


def test_more_seals_than_memory_holds() -> None:
    """The outbox holds 16: the rest stays in the journal, and comes in order; also after a restart."""
    rig = Rig(flash=Flash(16, 4096), outbox_limit=16, window=4)
    rig.connect()
    rig.is_dropping = True
    rig.minutes(100)
    assert rig.agent.outbox.unloaded_seq is not None and len(rig.agent.outbox.items) == 16
    rig.is_dropping = False
    rig.boot()
    assert len(rig.agent.outbox.items) == 16
    rig.connect()
    rig.minutes(60, ack_every=1)
    settle(rig)
    check_everything_arrived(rig, 160)
    check_all_acked(rig)


def test_overflow_is_declared_and_the_rest_still_arrives() -> None:
    """A ring far too small: the oldest is lost, the next seal says so, what is left keeps its own time."""
    rig = Rig(flash=Flash(10, 1024))
    rig.connect()
    rig.minutes(10, ack_every=2)
    settle(rig)
    before = dict(rig.gateway.tips)
    rig.obey(rig.agent.on_disconnected())
    rig.minutes(120)
    assert rig.journal.dropped > 0
    assert any("journal is full" in text for text in rig.alarms)
    rig.connect()
    rig.minutes(10, ack_every=1)
    settle(rig)
    check_all_acked(rig)
    assert rig.gateway.doubles == 0
    for point in (1, 2):
        declared = [found for found in rig.gateway.seals if found.point == point and found.lost]
        assert len(declared) == 1 and declared[0].flags & seal_codec.HEIGHTS_LOST
        assert declared[0].height == before[point][0] + 1 + declared[0].lost
        times = [time for who, time in rig.gateway.readings if who == point]
        after = sorted(time for time in times if time > DAY_MS + 12 * MINUTE)
        assert after == list(range(after[0], DAY_MS + 141 * MINUTE, MINUTE)), "a hole behind the loss"
        assert len(after) > 20


def test_overflow_when_the_ledger_knew_more_than_was_acked() -> None:
    """Acks were lost before the ring overflowed: the gateway names what it wants, and the loss is declared anew."""
    rig = Rig(flash=Flash(6, 1024))
    rig.connect()
    rig.minutes(6, ack_every=2)
    rig.gateway.pending = []
    rig.minutes(4)
    rig.gateway.pending = []  # taken, committed, and the ack never came
    rig.obey(rig.agent.on_disconnected())
    rig.minutes(120)
    assert rig.journal.dropped > 0
    rig.connect()
    rig.minutes(20, ack_every=1)
    settle(rig)
    check_all_acked(rig)
    assert rig.gateway.doubles == 0
    assert DAY_MS + 149 * MINUTE in [time for point, time in rig.gateway.readings if point == 1]


def test_a_flipped_bit_in_an_unacked_reading_is_a_declared_loss() -> None:
    rig = Rig(points=1, flash=Flash(8, 1024))
    rig.minutes(61)
    seq, _, payload = next(r for r in rig.journal.read(0) if r[1] == records.READING and r[0] > 20)
    for sector in rig.flash.data:
        at = bytes(sector).find(payload)
        if at >= 0:
            sector[at + 5] ^= 0x10
    rig.boot()
    rig.connect()
    rig.minutes(20, ack_every=1)
    settle(rig)
    check_all_acked(rig)
    assert [found for found in rig.gateway.seals if found.flags & seal_codec.HEIGHTS_LOST]
    assert DAY_MS + 80 * MINUTE in [time for _, time in rig.gateway.readings]


def test_wanted_ranges_are_sent_again_and_trim_nothing() -> None:
    rig = Rig(points=1)
    rig.connect()
    rig.minutes(2, ack_every=1)
    rig.is_dropping = True
    rig.turn()
    rig.label_ms += MINUTE
    rig.turn()
    rig.is_dropping = False
    for lost in rig.sent[-2:]:
        rig.obey(rig.agent.on_published(*lost))  # a broker that swallows
    trimmed = rig.journal.trimmed
    rig.label_ms += MINUTE
    rig.turn()
    assert rig.gateway.wanted
    rig.ack()
    assert rig.journal.trimmed == trimmed
    assert rig.gateway.tips[1][0] == 5, "the hole is filled at once"
    settle(rig)
    check_all_acked(rig)


def test_silence_of_acks_sends_again_and_changes_the_broker() -> None:
    rig = Rig(points=2)
    rig.connect(0)
    rig.turn()
    sent = len(rig.sent)
    rig.wait_ms += 61_000
    rig.turn()
    assert len(rig.sent) == sent + 2, "the oldest of each point"
    rig.wait_ms += 61_000
    rig.turn()
    assert rig.changes == 1
    rig.obey(rig.agent.on_disconnected())
    count = len(rig.sent)
    rig.connect(1)
    rig.turn()
    assert sorted(rig.sent[count:]) == sorted(set(rig.sent)), "everything again, at the other broker"
    rig.ack()
    assert rig.agent.outbox.silences == 0


def test_a_dead_unit_costs_the_others_nothing() -> None:
    rig = Rig(points=3)
    rig.connect()
    rig.meters[2].is_silent = True
    asked: list[tuple[int, int]] = []
    rig.on_duty = lambda duty: asked.append((duty.point, duty.attempts)) if isinstance(
        duty, agent_module.Read) else None
    rig.minutes(30, ack_every=5)
    assert [attempts for point, attempts in asked if point == 2][:3] == [2, 2, 2]
    assert {attempts for point, attempts in asked if point == 2} == {2, 1}
    for minute in range(29):
        dead = rig.gateway.readings[2, DAY_MS + minute * MINUTE]
        assert {entry.missing for entry in dead.entries} <= {"no_answer", "not_asked"}
        assert reading_codec.value_of(rig.gateway.readings[1, DAY_MS + minute * MINUTE], "1.8.0") is not None
    assert all(found.import_wh is None for found in rig.gateway.seals if found.point == 2)
    assert rig.agent.status(0)["dead_points"] == [2]
    rig.meters[2].is_silent = False
    rig.minutes(3)
    assert rig.agent.status(0)["dead_points"] == []
    assert any("answers again" in text for text in rig.alarms)


def test_a_dead_unit_is_left_alone_between_probes() -> None:
    rig = Rig(points=1)
    rig.meters[1].is_silent = True
    asked: list[int] = []
    rig.on_duty = lambda duty: asked.append(duty.attempts) if isinstance(duty, agent_module.Read) else None
    for _ in range(60):  # a second of waits each
        rig.turn()
        rig.label_ms += MINUTE
        rig.wait_ms += 1000
    assert asked[:3] == [2, 2, 2]
    assert 3 <= asked.count(1) <= 6 and asked.count(0) >= 50


def test_the_first_poll_is_at_once_unless_the_interval_has_one() -> None:
    rig = Rig(points=1)
    rig.label_ms += 17_000
    rig.boot()
    rig.connect()
    rig.turn()
    assert list(rig.gateway.readings) == [(1, DAY_MS + 17_000)]
    rig.label_ms += 20_000
    rig.boot()
    rig.connect()
    rig.turn()
    assert len(rig.gateway.readings) == 1, "this minute has its reading"
    rig.label_ms = DAY_MS + MINUTE
    rig.turn()
    assert (1, DAY_MS + MINUTE) in rig.gateway.readings


def test_a_clock_that_begins_in_1970() -> None:
    """Stored in order and sealed; when the clock has become right, everything goes on."""
    rig = Rig(points=1)
    rig.label_ms = 5 * MINUTE
    rig.is_synchronised = False
    rig.boot()
    rig.connect()
    rig.minutes(10, ack_every=0)
    assert len(rig.gateway.readings) == 10
    assert all(found.flags & seal_codec.CLOCK_BITS == 0 for found in rig.gateway.seals)
    rig.label_ms = DAY_MS
    rig.is_synchronised = True
    rig.minutes(10, ack_every=2)
    rig.is_synchronised = False
    rig.label_ms = 30 * MINUTE  # and falls back: another battery
    rig.boot()
    rig.connect()
    rig.minutes(5, ack_every=1)
    settle(rig)
    check_all_acked(rig)
    assert len(rig.gateway.readings) >= 24


def test_late_seals_say_so() -> None:
    rig = Rig(points=1, chain=Chain(late_s=120), seal_every_ms=10 * MINUTE)
    rig.connect()
    rig.minutes(4)
    rig.label_ms = DAY_MS + 300 * MINUTE
    rig.boot()
    rig.connect()
    rig.turn()
    found = [one for one in rig.gateway.seals if one.last_ms == DAY_MS + 3 * MINUTE]
    assert found and found[0].flags & seal_codec.LATE
    assert not rig.gateway.seals[0].flags & seal_codec.LATE


def test_quiet_points_keep_their_head_while_the_ring_turns() -> None:
    """A point that left the configuration has its head carried along; when it is back, its chain goes on."""
    flash, chain = Flash(6, 1024), Chain()
    rig = Rig(points=2, flash=flash, chain=chain)
    rig.connect()
    rig.minutes(5, ack_every=1)
    settle(rig)
    head = rig.gateway.tips[2]
    all_places = rig.settings
    rig.settings = rig.settings._replace(places=rig.settings.places[:1])
    rig.boot()
    rig.connect()
    rig.minutes(200, ack_every=2)
    assert rig.journal.first_seq > 100
    rig.settings = all_places
    rig.boot()
    assert rig.agent.book.chains[2].height == head[0]
    rig.connect()
    rig.minutes(5, ack_every=1)
    settle(rig)
    check_all_acked(rig)
    assert not [found for found in rig.gateway.seals if found.lost]


@settings(max_examples=30)
@given(st.lists(st.tuples(st.sampled_from(["minutes", "off", "on", "boot", "swallow", "deliver", "ack", "cut"]),
                          st.integers(1, 40)), max_size=25), st.integers(0, 2**31))
def test_any_story_ends_well(story: list[tuple[str, int]], seed: int) -> None:
    """Outages, restarts, swallowed messages, power cuts and overflow in any order: the gateway's checks hold
    throughout (one payload per height, links, no reading twice), and in the end all is acked."""
    rig = Rig(flash=Flash(6, 1024, seed), outbox_limit=16, window=4)
    for what, number in story:
        try:
            if what == "minutes":
                rig.minutes(number, ack_every=number % 4)
            elif what == "off":
                rig.obey(rig.agent.on_disconnected())
            elif what == "on":
                rig.connect(number % 2)
            elif what == "boot":
                rig.boot()
            elif what in ("swallow", "deliver"):
                rig.is_dropping = what == "swallow"
            elif what == "ack":
                rig.ack()
            elif what == "cut":
                rig.flash.units, rig.flash.cut_at = 0, number
                rig.minutes(number)
        except PowerCut:
            rig.flash.cut_at = None
            rig.boot()
        rig.flash.cut_at = None
    rig.is_dropping = False
    rig.boot()
    rig.connect()
    rig.minutes(3)
    for _ in range(12):
        rig.minutes(2, ack_every=1)
    settle(rig)
    check_all_acked(rig)
    assert rig.flash.overwritten == 0
    assert rig.gateway.doubles == 0
    assert Journal(rig.flash).next_seq == rig.journal.next_seq
