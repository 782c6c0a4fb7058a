"""Who answers whom, when: one desk alone, then a desk at each of four replicas with a broker between them."""

import pytest

from firmware.wire.ack import Ack, ItemProof, Receipt, Refusal, SealProof, Wanted
from gateway.ingest import desk as desk_module
from gateway.ingest.desk import (
    AckDuty,
    Desk,
    Duty,
    HeaderDuty,
    LiveDuty,
    ReceiptDuty,
    SealEntry,
    TransactionEntry,
)

KID, OTHER = bytes(range(8)), bytes(8)


def entry(height: int, point: int = 7, kid: bytes = KID, leaf: int = 1) -> SealEntry:
    return SealEntry(kid, point, height, leaf)


def acks(duties: list[Duty]) -> list[AckDuty]:
    return [duty for duty in duties if isinstance(duty, AckDuty)]


def block(desk: Desk, height: int, now_ms: int, *entries: SealEntry, sent: tuple[TransactionEntry, ...] = ()) -> None:
    desk.executed(height, entries, sent)
    desk.certified(height, now_ms)


def as_ack(duty: AckDuty) -> Ack:
    proofs = [SealProof(found.point, found.height, None, found.leaf, 2, []) for found in duty.entries]
    header, certificate = (bytes(76) + duty.block.to_bytes(4, "big"), b"c") if duty.block else (b"", b"")
    return Ack(header, certificate, proofs, list(duty.refused), list(duty.wanted))


@pytest.fixture
def desk() -> Desk:
    return Desk(0, 1)


def test_an_ack_covers_the_newest_of_each_point(desk: Desk) -> None:
    block(desk, 1, 0, entry(1), entry(2, leaf=2), entry(1, point=8, leaf=3), entry(5, kid=OTHER, leaf=4))
    found = acks(desk.tick(0))
    assert found == [AckDuty(KID, 1, (entry(2, leaf=2), entry(1, 8, leaf=3)), (), ()),
                     AckDuty(OTHER, 1, (entry(5, kid=OTHER, leaf=4),), (), ())]
    assert acks(desk.tick(50_000)) == [] and desk.waiting() == 0


def test_nothing_before_the_certificate(desk: Desk) -> None:
    desk.executed(1, [entry(1)], [])
    assert desk.tick(0) == []
    desk.certified(1, 10)
    assert len(acks(desk.tick(10))) == 1
    desk.certified(2, 20)
    assert acks(desk.tick(50_000)) == [], "a block that is not known here brings a header and no acks"


def test_one_ack_in_ten_seconds(desk: Desk) -> None:
    times = []
    for at in range(0, 60_000, 500):
        block(desk, 1 + at // 500, at, entry(1 + at // 500))
        times += [at for _ in acks(desk.tick(at))]
    assert times == [0, 10_000, 20_000, 30_000, 40_000, 50_000]


def test_points_in_different_blocks_take_turns(desk: Desk) -> None:
    block(desk, 1, 0, entry(1, 7))
    block(desk, 2, 5, entry(1, 8))
    assert [duty.block for duty in acks(desk.tick(5))] == [1]
    block(desk, 3, 6_000, entry(2, 7))
    assert [duty.block for duty in acks(desk.tick(10_005))] == [2]
    assert [duty.entries for duty in acks(desk.tick(20_005))] == [(entry(2, 7),)]


def test_an_outage_waives_the_interval_once(desk: Desk) -> None:
    block(desk, 1, 0, entry(1))
    desk.tick(0)
    block(desk, 2, 100, entry(2))
    assert acks(desk.tick(5_000)) == []
    desk.outage_over()
    assert len(acks(desk.tick(5_000))) == 1
    block(desk, 3, 5_100, entry(3))
    assert acks(desk.tick(14_999)) == []
    desk.reborn(KID)
    assert len(acks(desk.tick(14_999))) == 1
    block(desk, 4, 15_100, entry(4))
    desk.reborn(KID)
    assert acks(desk.tick(15_900)) == [], "births are cheap: not more than one a second"
    assert len(acks(desk.tick(15_999))) == 1


def test_a_committed_seal_is_acked_again(desk: Desk) -> None:
    desk.again(5, entry(9), 0)
    assert acks(desk.tick(0)) == [AckDuty(KID, 5, (entry(9),), (), ())]
    for at in range(100):
        desk.again(5, entry(9), at)
    assert acks(desk.tick(9_999)) == []
    assert acks(desk.tick(10_000)) == [AckDuty(KID, 5, (entry(9),), (), ())]
    block(desk, 6, 10_001, entry(10))
    desk.again(5, entry(9), 10_002)
    assert acks(desk.tick(20_000)) == [AckDuty(KID, 6, (entry(10),), (), ())], "the newer one stays"


def test_advice_rides_along_and_goes_alone(desk: Desk) -> None:
    for _ in range(3):
        desk.refuse(KID, 7, 4, "fork", 0)
    desk.want(KID, 7, (2, 3), 0)
    desk.want(KID, 8, (1, 1), 0)
    desk.want(KID, 8, None, 0)
    assert acks(desk.tick(0)) == [AckDuty(KID, None, (), (Refusal(7, 4, "fork"),), (Wanted(7, 2, 3),))]
    block(desk, 1, 5_000, entry(1))
    desk.want(KID, 7, (2, 5), 5_000)
    assert acks(desk.tick(10_000)) == [AckDuty(KID, 1, (entry(1),), (), (Wanted(7, 2, 5),))]
    assert acks(desk.tick(90_000)) == []


def test_advice_is_bounded(desk: Desk) -> None:
    for number in range(1000):
        desk.refuse(KID, number, 1, "fork", 0)
        desk.want(KID, number, (1, 2), 0)
    found = acks(desk.tick(0))[0]
    assert (len(found.refused), len(found.wanted)) == (desk_module.REFUSALS, desk_module.WANTED)


def test_an_ack_fits_a_message(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk_module, "PROOFS", 3)
    block(desk, 1, 0, *(entry(1, point) for point in range(5)))
    assert [len(duty.entries) for duty in acks(desk.tick(0)) + acks(desk.tick(10_000))] == [3, 2]


def test_receipts(desk: Desk) -> None:
    sent = (TransactionEntry(KID, bytes(32), 1), TransactionEntry(KID, bytes(31) + b"1", 3))
    block(desk, 4, 0, entry(1, leaf=2, kid=OTHER), sent=sent)
    assert [duty for duty in desk.tick(0) if isinstance(duty, ReceiptDuty)] == [ReceiptDuty(KID, 4, sent)]
    assert [duty for duty in desk.tick(10) if isinstance(duty, ReceiptDuty)] == []
    desk.receipt_again(4, sent[0], 20)
    assert [duty for duty in desk.tick(20) if isinstance(duty, ReceiptDuty)] == [ReceiptDuty(KID, 4, sent[:1])]


def test_headers_and_live_readings_at_most_one_a_second(desk: Desk) -> None:
    headers, live = [], []
    for at in range(0, 5_000, 50):
        block(desk, 1 + at // 50, at, entry(1 + at // 50))
        for duty in desk.tick(at):
            headers += [(at, duty.block)] if isinstance(duty, HeaderDuty) else []
            live += [(at, duty.entry.height)] if isinstance(duty, LiveDuty) else []
    assert headers == live == [(0, 1), (1000, 21), (2000, 41), (3000, 61), (4000, 81)]
    assert [type(duty) for duty in desk.tick(5_000)] == [HeaderDuty, LiveDuty], "the newest is shown in the end"


def test_blocks_without_certificate_are_bounded(desk: Desk) -> None:
    for height in range(1, 1000):
        desk.executed(height, [entry(height)], [])
    desk.certified(1, 0)
    assert acks(desk.tick(0)) == []
    desk.certified(999, 0)
    assert len(acks(desk.tick(0))) == 1


class Area:
    """Four desks that see what any of them publishes, a moment later."""

    def __init__(self, dead: tuple[int, ...] = ()):
        self.desks = [Desk(index, 4) for index in range(4)]
        self.dead = dead
        self.published: list[tuple[int, int, Duty]] = []

    def block(self, height: int, now_ms: int, *entries: SealEntry, sent: tuple[TransactionEntry, ...] = ()) -> None:
        for desk in self.desks:
            block(desk, height, now_ms, *entries, sent=sent)

    def run(self, first_ms: int, last_ms: int) -> None:
        for now_ms in range(first_ms, last_ms, 50):
            duties = [(index, duty) for index, desk in enumerate(self.desks) if index not in self.dead
                      for duty in desk.tick(now_ms)]
            for index, duty in duties:
                self.published.append((now_ms, index, duty))
                for desk in self.desks:
                    self.see(desk, duty, now_ms + 10)

    def see(self, desk: Desk, duty: Duty, now_ms: int) -> None:
        if isinstance(duty, AckDuty):
            desk.seen_ack(duty.kid, as_ack(duty), now_ms)
        elif isinstance(duty, HeaderDuty):
            desk.seen_header(duty.block, now_ms)
        elif isinstance(duty, LiveDuty):
            desk.seen_live(duty.entry.point, duty.block, now_ms)
        else:
            items = [ItemProof(found.payload_hash, bytes(64), found.leaf, 9, []) for found in duty.entries]
            desk.seen_receipt(duty.kid, duty.block, Receipt(bytes(80), b"", b"", [], [], items))

    def who(self, kind: type) -> list[tuple[int, int]]:
        return [(now_ms, index) for now_ms, index, duty in self.published if isinstance(duty, kind)]


SENT = (TransactionEntry(OTHER, bytes(32), 2),)


def test_the_replica_of_the_height_publishes_alone() -> None:
    for height in range(1, 9):
        area = Area()
        area.block(height, 0, entry(1), sent=SENT)
        area.run(0, 15_000)
        for kind in (AckDuty, ReceiptDuty, HeaderDuty, LiveDuty):
            assert area.who(kind) == [(0, height % 4)], kind


def test_the_others_publish_when_nobody_has_within_a_second() -> None:
    for height in range(1, 5):
        area = Area(dead=(height % 4,))
        area.block(height, 0, entry(1), sent=SENT)
        area.run(0, 15_000)
        for kind, due_ms in ((AckDuty, 1000), (ReceiptDuty, 1000), (LiveDuty, 1000), (HeaderDuty, 2000)):
            assert {at for at, _ in area.who(kind)} == {due_ms}, kind


def test_advice_alone_is_given_once() -> None:
    area = Area()
    for desk in area.desks:
        desk.want(KID, 7, (1, 5), 0)
        desk.refuse(KID, 7, 9, "fork", 0)
    area.run(0, 30_000)
    assert area.who(AckDuty) == [(0, KID[-1] % 4)]


def test_an_hour_of_blocks_every_half_minute() -> None:
    """No agent gets more than one ack in ten seconds, and each seal is acked once, at once."""
    area = Area()
    for height in range(1, 121):
        now_ms = height * 30_000
        area.block(height, now_ms, entry(height), entry(height, kid=OTHER, leaf=2))
        area.run(now_ms, now_ms + 12_000)
    found = [(now_ms, duty.entries[0]) for now_ms, _, duty in area.published if isinstance(duty, AckDuty)]
    for kid, leaf in ((KID, 1), (OTHER, 2)):
        mine = [(now_ms, made.height) for now_ms, made in found if made.kid == kid]
        assert mine == [(height * 30_000, height) for height in range(1, 121)], leaf


@pytest.mark.parametrize("delay_ms", [0, 10, 60, 200])
def test_blocks_as_fast_as_in_the_demo(delay_ms: int) -> None:
    """Twenty blocks a second, and what one replica publishes reaches the others late: still one ack in ten seconds."""
    area = Area()
    on_the_way: list[tuple[int, Duty]] = []
    for now_ms in range(0, 60_000, 50):
        height = 1 + now_ms // 50
        area.block(height, now_ms, *(entry(height, kid=bytes([number]) * 8, leaf=1 + number) for number in range(5)))
        for index, desk in enumerate(area.desks):
            if (now_ms // 50 + index) % 2 == 0:  # each looks every 100 ms
                found = desk.tick(now_ms + index)
                area.published += [(now_ms, index, duty) for duty in found]
                on_the_way += [(now_ms + delay_ms, duty) for duty in found]
        for at_ms, duty in [one for one in on_the_way if one[0] <= now_ms]:
            for desk in area.desks:
                area.see(desk, duty, at_ms)
        on_the_way = [one for one in on_the_way if one[0] > now_ms]
    assert len(area.who(AckDuty)) == 5 * 6
    assert len(area.who(HeaderDuty)) <= 61 and len(area.who(LiveDuty)) <= 61


def candidates(published: list[tuple[int, int, Duty]]) -> list[tuple[int, int, int, bool]]:
    return [(now_ms, index, duty.block, duty.is_newest) for now_ms, index, duty in published
            if isinstance(duty, HeaderDuty) and duty.is_candidate]


def test_the_first_header_of_an_interval_goes_out_at_once(desk: Desk) -> None:
    """However many blocks come in that second, and whatever has just gone out."""
    found = []
    for height in range(1, 41):
        desk.executed(height, [], [], is_candidate=height in (1, 5, 6, 30))
        desk.certified(height, height * 50)
        found += [(duty.block, duty.is_candidate) for duty in desk.tick(height * 50) if isinstance(duty, HeaderDuty)]
    assert found == [(1, True), (5, True), (6, True), (26, False), (30, True)]


def test_a_candidate_is_published_by_the_replica_of_its_height_else_by_the_others() -> None:
    for dead in ((), (1,)):
        area = Area(dead=dead)
        for desk in area.desks:
            desk.executed(5, [], [], is_candidate=True)
            desk.certified(5, 0)
            desk.executed(6, [], [])
            desk.certified(6, 500)
        area.run(500, 10_000)
        found = candidates(area.published)
        assert found[0] == ((500, 1, 5, False) if not dead else (1000, 0, 5, False)), "an older one is not retained"
        assert len(found) == (3 if dead else 1)


def test_what_was_seen_before_it_was_executed_here_is_not_shown_again(desk: Desk) -> None:
    desk.seen_header(1, 0)
    for height in range(1, 40):
        desk.executed(height, [], [], is_candidate=True)
        desk.certified(height, 5)
    found = [duty.block for duty in desk.tick(5_000) if isinstance(duty, HeaderDuty)]
    assert found == [36, 37, 38, 39], "and of the past no more than a few"


def test_a_new_count_is_published_with_the_newest_header_once_a_second(desk: Desk) -> None:
    desk.recounted()
    assert desk.tick(0) == []
    block(desk, 1, 0)
    found = []
    for at in range(0, 5_000, 50):
        found += [at for duty in desk.tick(at) if isinstance(duty, HeaderDuty)]
        if at in (50, 100, 2000):
            desk.recounted()
    assert found == [0, 1000, 2050]
    area = Area()
    area.block(2, 0)
    area.run(0, 1_000)
    for desk in area.desks:
        desk.recounted()
    area.run(1_000, 9_000)
    assert area.who(HeaderDuty) == [(0, 2), (1050, 2)], "only the replica whose header it is"
