"""The journal: nothing synced is lost at any cut, nothing is made up, wear stays low, overflow is counted."""

from __future__ import annotations

import hashlib
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware.board.linux import FileDevice
from firmware.journal import Journal
from tests.firmware.world import Flash, PowerCut


def payload_of(number: int) -> bytes:
    """Contents that depend on the number alone; lengths from 0 to 90."""
    return hashlib.sha512(b"%d" % number).digest()[:number * 7 % 91].ljust(number * 7 % 91, b"\xa5")


def fill(journal: Journal, synced: list[int], count: int, trim_behind: int) -> None:
    for _ in range(count):
        seq = journal.append(journal.next_seq % 14 + 1, payload_of(journal.next_seq))
        if seq % 3 == 0:
            journal.sync()
            synced.append(seq)
        if trim_behind and seq > trim_behind:
            journal.trim(seq - trim_behind)


def check_content(journal: Journal, at_least: int) -> list[int]:
    """Every record is what was written, numbers without hole from the first kept to at least `at_least`."""
    numbers = []
    for seq, kind, payload in journal.read(0):
        assert (kind, payload) == (seq % 14 + 1, payload_of(seq))
        numbers.append(seq)
    assert numbers == list(range(journal.first_seq, journal.next_seq))
    assert journal.next_seq > at_least
    return numbers


@pytest.mark.parametrize("start", [0, 1, 2, 3])
def test_every_cut_point(start: int) -> None:
    """Power fails at every 16-byte unit and erase of a run over four rounds of the ring: torn units, half erases.

    After each, the ring opens, holds all synced records still kept, goes on, and is cut once more while it does.
    """
    cuts = 0
    cut = start
    while True:
        flash = Flash(4, 512, seed=cut)
        flash.cut_at = cut
        synced: list[int] = []
        journal = None
        try:
            journal = Journal(flash)
            fill(journal, synced, 120, 10)
        except PowerCut:
            cuts += 1
        else:
            break
        for again in (cut % 23, None):
            flash.units, flash.cut_at = 0, again
            try:
                reopened = Journal(flash)
                check_content(reopened, synced[-1] if synced else 0)
                assert not synced or reopened.first_seq <= synced[-1]
                fill(reopened, synced, 30, 10)
            except PowerCut:
                continue
        assert flash.overwritten == 0
        check_content(Journal(flash), synced[-1])
        cut += 4
    assert cuts > 100


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
    flash = Flash(16, 4096)
    journal = Journal(flash)
    for number in range(3000):
        journal.append(1, bytes(224))
        journal.trim(number)
    assert flash.erases / 3000 <= 0.1  # firmware.md's aim for records of 240 bytes
    assert journal.dropped == 0


def test_overflow_drops_the_oldest_sector_and_says_so() -> None:
    flash = Flash(4, 512)
    journal = Journal(flash)
    while not journal.dropped:
        journal.append(1, bytes(40))
    kept = [seq for seq, _, _ in journal.read(0)]
    everything = [seq for seq, _, _ in journal.read_all()]
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
        journal.append(number % 14 + 1, payload_of(number))
    place = bytes(flash.data[0]).index(payload_of(12))
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
            journal.append(number % 14 + 1, payload_of(number))
        journal.sync()
    device.close()
    data = path.read_bytes()
    for index, sector in enumerate(flash.data):
        assert data[index * 4096:(index + 1) * 4096] in (bytes(sector), bytes(4096))
    again = FileDevice(path, 50 * 4096)
    check_content(Journal(again), 599)
    again.close()
