"""The journal: nothing synced is lost at any cut, nothing is made up, wear stays low, overflow is counted."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware import ring
from firmware.board.linux import FileDevice
from firmware.journal import Journal
from tests.firmware.cuts import RUNS, Shape, wear
from tests.firmware.nor import ALL, NOTHING, SOME, Cached, Chance, Flash, Log, PowerCut, Sweep, payload_of, story


def fill(journal: Journal, synced: list[int], count: int, trim_behind: int) -> None:
    for _ in range(count):
        seq = journal.append(journal.next_seq % 14 + 1, payload_of(journal.next_seq, 1, journal.next_seq * 7 % 91))
        if seq % 3 == 0:
            journal.sync()
            synced.append(seq)
        if trim_behind and seq > trim_behind:
            journal.trim(seq - trim_behind)


def check_content(journal: Journal, at_least: int) -> list[int]:
    """Every record is what was written, numbers without hole from the first kept to at least `at_least`."""
    numbers = []
    for seq, kind, payload in journal.read(0):
        assert (kind, payload) == (seq % 14 + 1, payload_of(seq, 1, seq * 7 % 91))
        numbers.append(seq)
    assert numbers == list(range(journal.first_seq, journal.next_seq))
    assert journal.next_seq > at_least
    return numbers


@pytest.mark.parametrize("shape", RUNS, ids=lambda shape: shape.name)
def test_every_cut_point(shape: Shape) -> None:
    """Power fails at each 16-byte unit and erase of a run over many rounds of the ring (a board's large sectors: at
    each 23rd), in three ways each, and again while it goes on. `python -m tests.firmware.cuts` does longer runs."""
    small = shape.size < 4096
    sweep = Sweep(shape.sectors, shape.size, shape.records // 3 if small else 500, shape.trim_behind, 3, shape.lengths)
    sweep.run(1 if small else 23)
    assert not sweep.bad, sweep.bad[:5]
    assert sweep.cuts > (1500 if small else 200) and sweep.again == sweep.cuts
    assert sweep.flash.erases > 2 * shape.sectors or not small


def test_the_judge_sees_a_journal_that_trusts_an_old_erase() -> None:
    """The model is worth something only if it fails the mistakes it is there for."""
    class Trusting(Flash):
        def erase(self, block: int, what: int, is_cut: bool) -> None:
            if is_cut or bytes(self.data[block]) != b"\xff" * self.size:
                super().erase(block, what, is_cut)

    flash = Trusting(4, 512)
    journal, log, chance = Journal(flash), Log(), Chance(1)
    story(journal, log, 40, chance, 0)
    spare = (journal._newest + 1) % 4
    flash.erase(spare, ALL, True)
    story(Journal(flash), log, 40, chance, 0)
    assert flash.spoilt
    for what in (NOTHING, ALL, SOME):
        honest = Flash(4, 512)
        honest.program(0, 0, b"\x00" * 16, ALL)
        honest.erase(0, what, True)
        honest.program(0, 16, b"\x55" * 16, ALL)
        assert honest.spoilt == 1


@settings(max_examples=40)
@given(st.integers(0, 2**31), st.integers(4, 9))
def test_a_file_behind_a_cache(seed: int, sectors: int) -> None:
    """A system may write what was not synced in any order, or not at all: what was synced is there. (What was not may
    be gone although something newer in its sector is there.)"""
    flash, chance, log = Cached(sectors, 1024, seed), Chance(seed), Log()
    gone: set[int] = set()
    for _ in range(8):
        journal = Journal(flash)
        story(journal, log, chance.below(60), chance, chance.below(2) * 9)
        first_seq = journal.first_seq
        flash.lose_power()
        found = Journal(flash)
        kept = {seq: (kind, payload) for seq, kind, payload in found.read(0)}
        for seq in set(range(max(first_seq, found.first_seq), log.synced + 1)) - gone:
            payload = kept[seq][1]
            assert kept[seq] == (seq % 14 + 1, payload_of(seq, log.tries[seq], len(payload)))
        assert found.next_seq > log.synced
        newest = found._firsts[found._newest]
        assert set(range(found.first_seq, newest)) - gone <= set(kept), "a sector was begun before the last was safe"
        gone |= set(range(log.synced + 1, found.next_seq)) - set(kept)


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.integers(4, 9))
def test_random_cuts_in_a_row(seed: int, sectors: int) -> None:
    chance = random.Random(seed)
    flash = Flash(sectors, 512, seed)
    synced: list[int] = []
    for _ in range(12):
        flash.units, flash.cut_at = 0, chance.randrange(1, 200)
        try:
            journal = Journal(flash)
            check_content(journal, synced[-1] if synced else 0)
            fill(journal, synced, 200, chance.choice((0, 5)))
        except PowerCut:
            pass
    flash.cut_at = None
    check_content(Journal(flash), synced[-1] if synced else 0)
    assert flash.overwritten == 0


def test_wear_is_low_and_even() -> None:
    cost = wear(16, 3000, 240)
    assert cost.erases <= 0.1 and cost.programmed <= 260  # firmware.md's aim for records of 240 bytes
    assert cost.most - cost.least <= 1
    assert wear(16, 3000, 64).programmed < 68


def test_overflow_drops_the_oldest_sector_and_says_so() -> None:
    flash = Flash(4, 512)
    journal = Journal(flash)
    while not journal.dropped:
        journal.append(1, bytes(40))
    kept = [seq for seq, _, _ in journal.read(0)]
    everything = [seq for seq, _, _ in ring.read_all(journal)]
    assert kept[0] == journal.first_seq > 1
    assert everything[0] == 1 and everything[-1] == kept[-1]  # the spare can still be read
    journal.trim(journal.next_seq)
    before = journal.dropped
    for _ in range(6):
        journal.append(1, bytes(40))
    assert journal.dropped == before, "what is not needed is not counted"


def test_trim_marks_survive_a_restart() -> None:
    flash = Flash(4, 512)
    journal = Journal(flash)
    for _ in range(10):
        journal.append(1, b"x")
    journal.trim(7)
    journal.append(1, b"y")
    assert Journal(flash).trimmed == 7


def test_a_flipped_bit_costs_one_record_and_is_counted() -> None:
    flash = Flash(4, 4096)
    journal = Journal(flash)
    for number in range(1, 31):
        journal.append(number % 14 + 1, payload_of(number, 1, number * 7 % 91))
    place = bytes(flash.data[0]).index(payload_of(12, 1, 84))
    flash.data[0][place + 3] ^= 4
    reopened = Journal(flash)
    numbers = [seq for seq, _, _ in reopened.read(0)]
    assert numbers == [n for n in range(1, 31) if n != 12]
    assert reopened.damaged
    assert reopened.next_seq == 31


def test_wrong_use() -> None:
    journal = Journal(Flash(4, 512))
    with pytest.raises(ValueError):
        journal.append(1, bytes(journal.largest_payload() + 1))
    journal.append(1, bytes(journal.largest_payload()))
    with pytest.raises(ValueError):
        Journal(Flash(3, 512))


def test_the_file_on_a_pi_keeps_the_same_bytes(tmp_path: object) -> None:
    """The ring's file and the flash in memory end up alike, and a grown setting leaves an old ring as it is."""
    from pathlib import Path
    path = Path(str(tmp_path)) / "journal.bin"
    device, flash = FileDevice(path, 5 * 4096), Flash(5, 4096)
    for target in (device, flash):
        journal = Journal(target)
        for number in range(1, 600):
            journal.append(number % 14 + 1, payload_of(number, 1, number * 7 % 91))
        journal.sync()
    device.close()
    data = path.read_bytes()
    for index, sector in enumerate(flash.data):
        assert data[index * 4096:(index + 1) * 4096] in (bytes(sector), bytes(4096))
    again = FileDevice(path, 50 * 4096)
    check_content(Journal(again), 599)
    again.close()
