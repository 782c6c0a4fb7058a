"""The votes file: what was appended is there after any cut, and damage is never read past."""

import os
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.ledger.damage import Damaged
from gateway.ledger.votes import MAGIC, VoteLog

_RECORDS = st.lists(st.binary(max_size=60), min_size=1, max_size=4)


def _read(path: Path) -> list[bytes]:
    log = VoteLog(path)
    log.close()
    return log.load()


@given(st.lists(_RECORDS, max_size=5), _RECORDS, st.lists(_RECORDS, max_size=3))
def test_append_and_replace(first: list[list[bytes]], middle: list[bytes], last: list[list[bytes]]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "votes.log"
        log = VoteLog(path)
        for records in first:
            log.append(records)
        assert _read(path) == [record for records in first for record in records]
        log.replace(middle)
        for records in last:
            log.append(records)
        log.close()
        assert _read(path) == middle + [record for records in last for record in records]


def test_every_cut_of_the_last_append_loses_that_one_alone(tmp_path: Path) -> None:
    path = tmp_path / "votes.log"
    log = VoteLog(path)
    log.append([b"first", b"second"])
    kept = log.size()
    log.append([b"third" * 10, b""])
    whole = path.read_bytes()
    log.close()
    for end in range(kept, len(whole)):
        path.write_bytes(whole[:end])
        again = VoteLog(path)
        assert again.load() == [b"first", b"second"] and again.cut_bytes == end - kept
        again.append([b"fourth"])
        again.close()
        assert _read(path) == [b"first", b"second", b"fourth"]


def test_a_torn_sector_of_the_last_append_is_cut(tmp_path: Path) -> None:
    """Sectors reach the disk in any order: the end of a frame may be there and its beginning zeros."""
    path = tmp_path / "votes.log"
    log = VoteLog(path)
    log.append([b"first"])
    kept = log.size()
    log.append([bytes(range(1, 256)) * 8, b"last"])
    data = bytearray(path.read_bytes())
    log.close()
    data[kept:kept + 512] = bytes(512)
    path.write_bytes(data)
    log = VoteLog(path)
    assert log.load() == [b"first"] and log.size() == kept
    log.close()


def test_after_an_orderly_end_any_flipped_bit_is_named(tmp_path: Path) -> None:
    path = tmp_path / "votes.log"
    log = VoteLog(path)
    ends = []
    for number in range(4):
        log.append([b"record %d" % number, bytes(20)])
        ends.append(log.size())
    log.close()  # puts a frame behind the last record's: that is protected as well
    whole = path.read_bytes()
    starts = [32, 52, *ends]
    for at in range(ends[3]):
        data = bytearray(whole)
        data[at] ^= 1 << at % 8
        path.write_bytes(data)
        with pytest.raises(Damaged, match="votes.log, offset") as caught:
            VoteLog(path)
        offset = int(caught.value.where.split()[-1])
        assert offset == 0 and at < 16 or offset in starts and (offset <= at or at < 32)
    assert whole.startswith(MAGIC)


def test_a_frame_inside_a_record_is_not_believed(tmp_path: Path) -> None:
    """Somebody's seal holds the bytes of a votes frame, and the power fails in the middle of it."""
    other = tmp_path / "other.log"
    log = VoteLog(other)
    for number in range(5):
        log.append([b"planted %d" % number])
    log.close()
    path = tmp_path / "votes.log"
    log = VoteLog(path)
    log.append([b"true"])
    kept = log.size()
    log.append([b"begins", other.read_bytes(), b"ends"])
    data = path.read_bytes()
    log.close()
    path.write_bytes(data[:-3])
    log = VoteLog(path)
    assert log.load() == [b"true"] and log.size() == kept
    log.close()


def test_a_killed_process_leaves_no_closing_frame_and_needs_none(tmp_path: Path) -> None:
    path = tmp_path / "votes.log"
    log = VoteLog(path)
    log.append([b"first"])
    (tmp_path / "copy").write_bytes(path.read_bytes())
    log.close()
    assert _read(tmp_path / "copy") == [b"first"]
    size = path.stat().st_size
    assert _read(path) == [b"first"] and path.stat().st_size == size, "one closing frame is enough"


def test_after_a_failed_write_nothing_more_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An fsync that failed once may say "good" the next time about pages that were thrown away."""
    path = tmp_path / "votes.log"
    log = VoteLog(path)
    log.append([b"first"])

    def fail(_: int) -> None:
        raise OSError("I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fail)
        with pytest.raises(OSError, match="I/O"):
            log.append([b"second"])
    size = path.stat().st_size
    for write in (log.append, log.replace):
        with pytest.raises(ValueError, match="has failed"):
            write([b"third"])
    log.close()
    assert path.stat().st_size == size


def test_a_crash_in_replace_leaves_the_old_or_the_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "votes.log"
    log = VoteLog(path)
    log.append([b"old"])

    def power_cut(*_: object) -> None:
        raise OSError("power")

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", power_cut)
        with pytest.raises(OSError, match="power"):
            log.replace([b"new"])
    log.close()
    assert _read(path) == [b"old"]
    log = VoteLog(path)
    log.replace([b"new"])
    log.close()
    assert _read(path) == [b"new"]


def test_a_new_file_is_written_over_the_one_before_the_last(tmp_path: Path) -> None:
    path = tmp_path / "votes.log"
    log = VoteLog(path)
    log.append([b"first" * 1000])
    inode, whole = path.stat().st_ino, path.read_bytes()
    log.replace([b"second"])
    log.append([b"second" * 900])
    log.replace([b"third"])
    assert path.stat().st_ino == inode and path.stat().st_size == len(whole), "no block is asked for anew"
    log.append([b"fourth"])
    assert log.size() < len(whole)
    assert path.read_bytes()[log.size():] == whole[log.size():]
    cut = VoteLog(path)  # as after a crash
    assert cut.load() == [b"third", b"fourth"] and path.stat().st_size == log.size()
    log.close()


@pytest.mark.parametrize("done", [0, 1])
def test_a_crash_between_two_names_leaves_the_old_or_the_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                             done: int) -> None:
    path = tmp_path / "votes.log"
    log = VoteLog(path)
    log.replace([b"older"])
    log.append([b"old"])
    rename, calls = os.rename, []

    def power_cut(*names: Path) -> None:
        calls.append(names)
        if len(calls) > done:
            raise OSError("power")
        rename(*names)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", power_cut)
        with pytest.raises(OSError, match="power"):
            log.replace([b"new"])
    log.close()
    assert len(list(tmp_path.glob("*.old"))) == 1
    again = VoteLog(path)
    assert again.load() == ([b"new"] if done else [b"older", b"old"])
    again.replace([b"newer"])
    again.replace([b"newest"])
    again.close()
    assert _read(path) == [b"newest"] and not list(tmp_path.glob("*.old"))


def test_random_cuts(tmp_path: Path) -> None:
    """200 files cut anywhere in what was appended last: everything appended before is there."""
    chance = random.Random(20261120)
    path = tmp_path / "votes.log"
    for _ in range(200):
        path.unlink(missing_ok=True)
        log = VoteLog(path)
        appended: list[bytes] = []
        size = log.size()
        for _ in range(chance.randrange(1, 6)):
            size, records = log.size(), [chance.randbytes(chance.randrange(200)) for _ in range(chance.randrange(1, 4))]
            log.append(records)
            appended.extend(records)
        data = path.read_bytes()
        log.close()
        path.write_bytes(data[:chance.randrange(size, len(data) + 1)])
        found = _read(path)
        assert found == appended or found == appended[:-len(records)]
