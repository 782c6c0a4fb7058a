"""Checks the order of duties with the real Replica and votes file: first the disk, then the rest; group commit."""

import asyncio
import hashlib
import threading
import time
from collections.abc import Sequence
from typing import NamedTuple, cast

import pytest

from firmware.crypto.openssl import OpenSSLSigner, verify_digest
from firmware.wire import genesis, identity
from firmware.wire.certificate import Member
from gateway.consensus.keys import CoseKeys
from gateway.consensus.replica import Replica
from gateway.consensus.types import (
    Behind,
    Certified,
    Check,
    Decision,
    Ended,
    Executed,
    Head,
    Item,
    Now,
    Ready,
    Send,
    Settings,
)
from gateway.driver import Driver
from gateway.ledger.votes import VoteLog
from gateway.sides import Machine
from gateway.writing import TRUSTED_AFTER

WAIT_S = 10
CHAIN = hashlib.sha256(b"a chain of these tests").digest()


class RealClock:
    speed = 1

    def now_ms(self):
        return time.time_ns() // 1_000_000

    def monotonic_ms(self):
        return time.monotonic_ns() // 1_000_000


class GatedVotes(VoteLog):
    """The real file behind a gate: a disk as slow as the test wants, or one that fails."""

    def __init__(self, path):
        super().__init__(path)
        self.gate, self.begun = threading.Event(), threading.Event()
        self.error: OSError | None = None
        self.writes = 0

    def append(self, records):
        self.begun.set()
        assert self.gate.wait(WAIT_S)
        if self.error:
            raise self.error
        super().append(records)
        self.writes += 1


class Done(NamedTuple):
    n: int
    heads: tuple[Head, ...]
    state_root: bytes
    deadline_s: int | None = None
    is_ending: bool = False


class Recorded:
    """Rooms of a replica whose items mean nothing: every batch is good, the state is a hash of all batches. What would
    have been sent is kept, with an event for it."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.has_sent = asyncio.Event()
        self.decided: dict[bytes, float] = {}  # an item's key: when
        self._state, self._height = bytes(32), 0

    def send_all(self, sends: Sequence[Send]) -> None:
        self.sent += [send.data for send in sends]
        self.has_sent.set()

    async def judge(self, check: Check) -> str | None:
        return None

    def execute(self, decision: Decision) -> Done:
        now = time.monotonic()
        if decision.batch is None:
            return Done(decision.n, (), self._state)
        self._height += 1
        for leaf in decision.batch.items:
            self.decided[leaf[:32]] = now
            self._state = hashlib.sha256(self._state + leaf).digest()
        return Done(decision.n, (Head("trade", self._height, hashlib.sha256(self._state).digest()),), self._state)

    async def end_epoch(self, ended: Ended) -> None:
        raise AssertionError("no set changes here")

    def executed(self, outcome: Done) -> None:
        pass

    def compacted(self) -> None:
        pass

    def certify(self, certified: Certified) -> None:
        pass

    def certified(self, certified: Certified) -> None:
        pass

    def submitted(self, requests: Sequence[bytes]) -> None:
        pass

    async def catch_up(self, behind: Behind) -> Executed | None:
        return None

    def lost_certificates(self) -> Sequence[Head]:
        return ()


def item(number):
    leaf = hashlib.sha256(b"%d" % number).digest() + bytes(100)
    return Item(leaf[:32], "tx", leaf, leaf)


class Bench:
    """Replica 0 of four, the primary, with its driver; the others are silent."""

    def __init__(self, folder, size=4, depth=8):
        signers = [OpenSSLSigner.from_scalar(number.to_bytes(32, "big")) for number in range(1, size + 1)]
        members = sorted(Member(identity.kid_of(one.public_key()), one.public_key(), bytes(32)) for one in signers)
        signer = next(one for one in signers if one.public_key() == members[0].public_key)
        clock = RealClock()
        settings = Settings(0, members, 0, CHAIN, genesis.parameters(), depth=depth)
        head = Head("trade", 0, hashlib.sha256(b"head").digest())
        now = Now(clock.now_ms(), clock.monotonic_ms())
        self.votes, self.rooms = GatedVotes(folder / "votes.log"), Recorded()
        self.replica = Replica(settings, CoseKeys(signer, members, CHAIN, verify_digest), lambda leaf: leaf[:32],
                               Executed(0, bytes(32), [head], now.label_ms // 1000), self.votes.load(), now=now)
        self.driver = Driver(self.replica, self.votes, self.rooms, clock, 0)

    async def begin(self):
        self.driver.start()
        self.rooms.sent.clear()  # its STATUS, which promises nothing
        self.rooms.has_sent.clear()

    async def until_writing(self):
        assert await asyncio.to_thread(self.votes.begun.wait, WAIT_S)
        self.votes.begun.clear()

    async def stop(self):
        self.votes.gate.set()
        await self.driver.stop()
        self.votes.close()


def run(body, *arguments):
    asyncio.run(asyncio.wait_for(body(*arguments), 30))


async def some_turns():
    for _ in range(20):
        await asyncio.sleep(0)


def test_nothing_is_sent_before_the_disk_has_it_and_one_write_takes_all(tmp_path):
    async def body():
        bench = Bench(tmp_path)
        await bench.begin()
        bench.driver.submit([item(1)])
        await bench.until_writing()
        for number in range(2, 7):
            bench.driver.submit([item(number)])
            bench.driver.receive(b"p rubbish")
        await some_turns()
        assert bench.rooms.sent == [] and bench.votes.writes == 0
        bench.votes.gate.set()
        await asyncio.wait_for(bench.rooms.has_sent.wait(), WAIT_S)
        while bench.driver.commits < 2:
            await asyncio.sleep(0.01)
        await some_turns()
        assert bench.votes.writes == 2  # the first promise, then all the others together
        proposals = len(bench.rooms.sent)
        assert proposals >= 2
        assert bench.replica.refused == {"malformed": 5}
        await bench.stop()
        assert len(VoteLog(tmp_path / "votes.log").load()) == proposals
    run(body)


def test_disk_that_fails_ends_the_process_and_nothing_was_sent(tmp_path):
    async def body():
        bench = Bench(tmp_path)
        await bench.begin()
        bench.votes.error = OSError(5, "Input/output error")
        bench.votes.gate.set()
        bench.driver.submit([item(1)])
        with pytest.raises(OSError, match="Input/output"):
            await asyncio.wait_for(bench.driver.failed, WAIT_S)
        assert bench.driver.is_disk_lost
        bench.driver.submit([item(2)])
        bench.driver.receive(b"p")
        await some_turns()
        assert bench.rooms.sent == [] and bench.votes.writes == 0  # a disk is asked once
        await bench.stop()
    run(body)


def test_alone_it_decides_in_order_and_every_promise_is_on_disk(tmp_path):
    async def body():
        bench = Bench(tmp_path, size=1)
        bench.votes.gate.set()
        await bench.begin()
        for number in range(200):
            bench.driver.submit([item(number)])
            await asyncio.sleep(0)
        while len(bench.rooms.decided) < 200:
            await asyncio.sleep(0.01)
        times = [bench.rooms.decided[item(number).key] for number in range(200)]
        assert times == sorted(times)
        assert bench.votes.writes < 3 * 200  # group commit: never one write a promise
        await bench.stop()
    run(body)


class Scripted:
    """A machine that answers each message with one promise and sends the message itself."""

    def __init__(self):
        self.calls = 0

    def start(self, now):
        return Ready([], None, [], [], [], [], [], None, [])

    tick = start

    def receive_all(self, datas, now):
        self.calls += 1
        return Ready(list(datas), None, [Send(None, data) for data in datas], [], [], [], [], None, [])

    def wake(self):
        return None, None


def test_header_votes_wait_a_little_for_company(tmp_path):
    async def body():
        votes, rooms, machine = GatedVotes(tmp_path / "votes.log"), Recorded(), Scripted()
        votes.gate.set()
        driver = Driver(cast(Machine, machine), votes, rooms, RealClock(), 0)
        driver.start()
        driver.receive(b"h1")
        driver.receive(b"h2")
        while not machine.calls:
            await asyncio.sleep(0)
        assert machine.calls == 1 and votes.writes == 0  # those of a millisecond are one call
        driver.receive(b"p3")
        while len(rooms.sent) < 3:
            await asyncio.wait_for(rooms.has_sent.wait(), WAIT_S)
            rooms.has_sent.clear()
        assert rooms.sent == [b"h1", b"h2", b"p3"] and votes.writes == 1
        rooms.has_sent.clear()
        driver.receive(b"h4")  # nobody comes: it goes alone
        await asyncio.wait_for(rooms.has_sent.wait(), WAIT_S)
        assert rooms.sent[3:] == [b"h4"] and votes.writes == 2
        await driver.stop()
        votes.close()
        assert VoteLog(tmp_path / "votes.log").load() == [b"h1", b"h2", b"p3", b"h4"]
    run(body)


class Compacting(Scripted):
    """Answers a message `c...` with a new log that holds it alone."""

    def receive_all(self, datas, now):
        ready = super().receive_all(datas, now)
        return ready._replace(persist=[], compact=list(datas)) if datas[0][:1] == b"c" else ready


class ToldVotes(GatedVotes):
    """Tells what it wrote, in which thread, and may take its time."""

    def __init__(self, path):
        super().__init__(path)
        self.gate.set()
        self.told: list[tuple[str, list[bytes]]] = []
        self.threads: list[threading.Thread] = []
        self.pause_s = 0.0

    def append(self, records):
        super().append(records)
        time.sleep(self.pause_s)
        self.told.append(("append", list(records)))
        self.threads.append(threading.current_thread())

    def replace(self, records):
        super().replace(records)
        self.told.append(("replace", list(records)))
        self.threads.append(threading.current_thread())


def test_a_new_log_begins_a_write_of_its_own_and_what_waits_before_it_is_written_first(tmp_path):
    """The new log leaves out what its replica needs no more by then; the messages before it go out all the same and
    need their records on disk first: a crash between the two would forget a promise that was sent."""
    async def body():
        votes, rooms, machine = ToldVotes(tmp_path / "votes.log"), Recorded(), Compacting()
        driver = Driver(cast(Machine, machine), votes, rooms, RealClock(), 0)
        driver.start()
        votes.gate.clear()
        for message in (b"p1", b"p2", b"p3", b"c4", b"p5"):
            driver.receive(message)
            await some_turns()  # each is a call, and a Ready, of its own
        assert machine.calls == 5 and rooms.sent == [] and votes.told == []
        votes.gate.set()
        while len(rooms.sent) < 5:
            await asyncio.wait_for(rooms.has_sent.wait(), WAIT_S)
            rooms.has_sent.clear()
        assert votes.told == [("append", [b"p1"]), ("append", [b"p2", b"p3"]), ("replace", [b"c4", b"p5"])]
        assert rooms.sent == [b"p1", b"p2", b"p3", b"c4", b"p5"]
        await driver.stop()
        votes.close()
        assert VoteLog(tmp_path / "votes.log").load() == [b"c4", b"p5"]
    run(body)


def test_quick_disk_is_written_by_the_loop_and_a_slow_one_by_the_thread(tmp_path, monkeypatch):
    monkeypatch.setattr("gateway.writing.QUICK_S", 0.2)  # a busy machine may be slow for long
    monkeypatch.setattr("gateway.writing.STALL_S", 0.4)

    async def body():
        votes, rooms = ToldVotes(tmp_path / "votes.log"), Recorded()
        driver = Driver(cast(Machine, Scripted()), votes, rooms, RealClock(), 0)
        driver.start()

        async def promise():
            rooms.has_sent.clear()
            driver.receive(b"p")
            await asyncio.wait_for(rooms.has_sent.wait(), WAIT_S)
            return votes.threads[-1] is threading.main_thread()
        assert not any([await promise() for _ in range(TRUSTED_AFTER)])
        assert all([await promise() for _ in range(3)])
        votes.pause_s = 0.25
        assert all([await promise() for _ in range(3)])  # one or two are no habit
        assert not await promise()
        votes.pause_s = 0.0
        assert not any([await promise() for _ in range(TRUSTED_AFTER)])
        assert await promise()
        votes.pause_s = 0.45
        assert await promise()  # nobody knew
        assert not await promise()
        votes.pause_s = 0.0
        assert not any([await promise() for _ in range(TRUSTED_AFTER)])
        assert await promise()
        votes.error = OSError(5, "Input/output error")
        sent = len(rooms.sent)
        driver.receive(b"p")
        with pytest.raises(OSError, match="Input/output"):
            await asyncio.wait_for(driver.failed, WAIT_S)
        assert driver.is_disk_lost and len(rooms.sent) == sent
        await driver.stop()
    run(body)


def test_bug_in_a_task_ends_the_process_loudly(tmp_path):
    async def body():
        bench = Bench(tmp_path)

        async def broken():
            raise AssertionError("a bug")
        bench.driver.spawn(broken(), "broken")
        with pytest.raises(AssertionError, match="a bug"):
            await asyncio.wait_for(bench.driver.failed, WAIT_S)
        await bench.stop()
    run(body)
