"""Makes a `Replica` live: obeys its duties with a votes file, a ledger, peers and a clock; brings back what happened.

Theory. The replica is called in the loop's thread only; each call gives a `Ready`. Readies are obeyed in the order in
which they came, each from left to right: first what must be durable, then everything else. While a slow disk keeps
the votes thread waiting, further Readies pile up, and the next write takes all of them (group commit); a quick disk is
written to at once. What follows a write never happens when the write failed: a disk that does not say "done" ends the
process, and is never asked again (pbft.md 5, fsync error = fatal).

Decisions go to the ledger's thread one by one, in order of n; what execution found comes back as `executed`. Whatever
is slow (checks with a fetch, catching up) is a task of its own and comes back by a call; nothing here waits for it.
"""

import asyncio
import logging
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any

from gateway.consensus.types import Behind, Certified, Check, Decision, Ended, Head, Item, Now, Ready
from gateway.sides import Clock, Machine, Rooms
from gateway.worker import Worker
from gateway.writing import Votes, Writer

logger = logging.getLogger("gridseal.driver")

SWITCH_S = 0.0005  # by default a thread that comes back from the disk waits 5 ms for a busy loop; a vote has 1 ms
ALARMS = 32  # newest kept for the page; each is said once
SHORTEST_WAIT_S = 0.002  # between two looks at a clock that is held
# What nobody waits for to decide rides along with what comes next, or goes alone after so long. Of three messages of
# each decision and replica the header vote is such a one, with its own sync and a turn of each peer's loop.
PATIENCE_S = 0.003
# And those of the others are looked at together: the last of them is not needed, mostly, and dropped unchecked.
HEADERS_S = 0.001
CERTIFY_S = 0.005  # a certificate that waits for the next decision's visit to the ledger


class Driver:
    """One replica at work. `failed` is done with an exception when the process must end."""

    def __init__(self, replica: Machine, votes: Votes, rooms: Rooms, clock: Clock, last_executed: int):
        self._replica, self._rooms, self._clock = replica, rooms, clock
        self._loop = asyncio.get_running_loop()
        self.failed: asyncio.Future[None] = self._loop.create_future()
        self.alarms: deque[str] = deque(maxlen=ALARMS)
        self._ledger = Worker("ledger")
        self._writer = Writer(votes, rooms.compacted)
        self.at_end: Callable[[Callable[[], None]], object] = self._loop.call_soon  # of what came together, calls
        self._inbox: list[bytes] = []
        self._header_votes: list[bytes] = []  # of others
        self._ready: deque[Ready] = deque()
        self._is_obeying = False  # a write is under way, or what follows it
        self._jobs: deque[Decision | Certified | Behind | Ended] = deque()
        self._is_in_ledger = False
        self._certifying: asyncio.TimerHandle | None = None
        self._patience: asyncio.TimerHandle | None = None
        self._reading: asyncio.TimerHandle | None = None
        self._last_executed = last_executed
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._is_calling = False  # what comes of a call may be another one
        self._behind: Behind | None = None
        self._is_stopped = False

    # from outside, in the loop's thread

    @property
    def commits(self) -> int:
        """Synchronised writes of the votes file."""
        return self._writer.commits

    @property
    def is_waiting_for_disk(self) -> bool:
        """Whether something is promised in memory that is not written yet."""
        return bool(self._ready) or self._is_obeying

    @property
    def is_disk_lost(self) -> bool:
        """A write of the votes file failed: nothing more may be written to it."""
        return self._writer.is_disk_lost

    def now(self) -> Now:
        """Both times."""
        return Now(self._clock.now_ms(), self._clock.monotonic_ms())

    def start(self) -> None:
        """Begins; what a restart must send again is sent."""
        sys.setswitchinterval(SWITCH_S)
        self._call(lambda now: self._replica.start(now))

    def vote_again(self, heads: Sequence[Head]) -> None:
        """After a start or after catching up: blocks without a certificate."""
        if heads:
            self._call(lambda now: self._replica.vote_again(heads, now))

    def certified(self, certified: Certified) -> None:
        """A certificate that came another way than by votes."""
        self._put_job(certified)
        self.note_certificate(certified.channel, certified.height)

    def note_certificate(self, channel: str, height: int) -> None:
        """A block of ours has its certificate: nobody has to vote for it any more."""
        self._call(lambda now: self._replica.note_certificate(channel, height, now))

    def receive(self, data: bytes) -> None:
        """A consensus message of any peer. All that come in one turn of the loop are one call of the replica: what
        follows a call (time looked at, timer, one write, one record for each peer) costs more than a vote itself."""
        if data[:1] == b"h":
            if not self._header_votes:
                self._reading = self._loop.call_later(HEADERS_S, self._receive_headers)
            self._header_votes.append(data)
            return
        if not self._inbox:
            self.at_end(self._receive_all)
        self._inbox.append(data)

    def submit(self, items: Sequence[Item]) -> None:
        """Items to be ordered, verified and durable here."""
        self._call(lambda now: self._replica.submit_all(items, now))

    def forget(self, keys: Sequence[bytes]) -> None:
        """Items that need no ordering any more."""
        for key in keys:
            self._replica.forget(key)

    async def in_ledger(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Runs something in the ledger's thread, behind what waits there."""
        return await self._loop.run_in_executor(self._ledger, function, *arguments)

    async def stop(self) -> None:
        """Ends tasks and threads; what is being written is written."""
        self._is_stopped = True
        for timer in (self._timer, self._certifying, self._patience, self._reading):
            if timer:
                timer.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._writer.stop()
        await self._loop.run_in_executor(None, self._ledger.shutdown)

    # duties

    def _receive_all(self) -> None:
        datas, self._inbox = self._inbox, []
        self._call(lambda now: self._replica.receive_all(datas, now))

    def _receive_headers(self) -> None:
        datas, self._header_votes = self._header_votes, []
        self._call(lambda now: self._replica.receive_all(datas, now))

    def _call(self, action: Callable[[Now], Ready]) -> None:
        """One call of the replica. It refuses bad input by itself: an exception is our own bug and ends the process."""
        if self._is_stopped or self.failed.done():
            return
        try:
            ready = action(self.now())
        except Exception as error:
            self._fail(error)
            return
        if self._is_calling:
            self._take(ready)
            return
        self._is_calling = True
        try:
            self._take(ready)
        finally:
            self._is_calling = False
        self._arm()

    def _take(self, ready: Ready) -> None:
        if any(ready):
            self._ready.append(ready)
            if self._is_obeying:
                return
            if not is_patient(ready):
                self._obey()
            elif self._patience is None:
                self._patience = self._loop.call_later(PATIENCE_S, self._obey)

    def _obey(self) -> None:
        """Obeys what waits, up to the next write; the write's end comes back here."""
        if self._patience:
            self._patience.cancel()
            self._patience = None
        while self._ready and not self._is_obeying and not self.failed.done():
            group, compact, records = self._next_write()
            self._is_obeying = True
            if compact is None and (not records or self._writer.is_quick):
                self._written(self._writer.put(None, records) if records else None, group)
            else:
                self._writer.put_in_thread(compact, records, partial(self._came_back, group))

    def _next_write(self) -> tuple[list[Ready], Sequence[bytes] | None, list[bytes]]:
        """(Readys, new log or None, records) of one write. A new log comes first in its write: it leaves out what its
        replica no longer needs by then, but the messages of the Readys before it are still to go and need their records
        on disk (a PREPARE of a view that was left a moment later: its batch may be the last copy)."""
        group: list[Ready] = []
        compact: Sequence[bytes] | None = None
        records: list[bytes] = []
        while self._ready:
            if self._ready[0].compact is not None:
                if records or compact is not None:
                    break
                compact = self._ready[0].compact
            group.append(self._ready.popleft())
            records.extend(group[-1].persist)
        return group, compact, records

    def _came_back(self, group: list[Ready], error: BaseException | None) -> None:
        self._written(error, group)
        self._obey()

    def _written(self, error: BaseException | None, group: list[Ready]) -> None:
        """In the loop, after a write or where none was due."""
        if self._is_stopped:
            return
        try:
            if error is not None:
                raise error
            self._follow(group)
        except BaseException as found:
            self._fail(found)
        self._is_obeying = False

    def _follow(self, group: list[Ready]) -> None:
        """Everything after the write: first what others wait for."""
        sends = [send for ready in group for send in ready.send]
        if sends:
            self._rooms.send_all(sends)
        for ready in group:
            for check in ready.check:
                self._check(check)
            for decision in ready.decided:
                self._put_job(decision)
            for certified in ready.certified:
                self._put_job(certified)
            if ready.submitted:
                self._rooms.submitted(ready.submitted)
            if ready.behind:
                self._catch_up(ready.behind)
            for alarm in ready.alarms:
                self.alarm(alarm)
            if ready.ended:
                self._put_job(ready.ended)  # behind the certificates of its last blocks: nobody votes for them any more

    def alarm(self, text: str) -> None:
        """For people: the log, the page, the status."""
        if text not in self.alarms:
            logger.error("alarm: %s", text)
            self.alarms.append(text)

    def _check(self, check: Check) -> None:
        found = self._rooms.judge(check)
        if found is None or isinstance(found, str):
            self._checked(check, found)
        else:
            self.spawn(self._wait_for(check, found), "check")

    async def _wait_for(self, check: Check, found: Awaitable[str | None]) -> None:
        self._checked(check, await found)

    def _checked(self, check: Check, reason: str | None) -> None:
        if reason:
            logger.warning("batch %s refused: %s", check.digest.hex()[:16], reason)
        self._call(lambda now: self._replica.checked(check.digest, reason, now))

    def _catch_up(self, behind: Behind) -> None:
        is_running = self._behind is not None
        self._behind = behind  # the newest counts
        if not is_running:
            self._put_job(behind)

    # the ledger's jobs, one after the other, in the order in which they came

    def _put_job(self, job: "Decision | Certified | Behind | Ended") -> None:
        self._jobs.append(job)
        if not isinstance(job, Certified):
            self._go_on()
        elif self._certifying is None:  # a decision that comes soon takes it along: one visit, one sync less
            self._certifying = self._loop.call_later(CERTIFY_S, self._certify)

    def _certify(self) -> None:
        self._certifying = None
        self._go_on(True)

    def _go_on(self, is_certifying: bool = False) -> None:
        """Begins the next visit to the ledger, unless one is under way: certificates with the decision behind them."""
        if self._is_in_ledger or self._is_stopped or self.failed.done():
            return
        certificates: list[Certified] = []
        for at, job in enumerate(self._jobs):
            if isinstance(job, Certified):
                certificates.append(job)
                continue
            if isinstance(job, Decision):
                if job.n <= self._last_executed:  # it came by catching up
                    continue
                self._begin_visit(certificates, job, at + 1)
            elif certificates:
                self._begin_visit(certificates, None, at)
            else:
                self._forget_jobs(at + 1)
                self._is_in_ledger = True
                is_end = isinstance(job, Ended)
                self.spawn(self._rooms.end_epoch(job) if is_end else self._install(),  # type: ignore[arg-type]
                           "end of the epoch" if is_end else "catch up")
            return
        if is_certifying or self._certifying is None:
            self._begin_visit(certificates, None, len(self._jobs))

    def _begin_visit(self, certificates: list[Certified], decision: Decision | None, jobs: int) -> None:
        self._forget_jobs(jobs)
        if certificates or decision:
            self._is_in_ledger = True
            self._ledger.post(partial(self._make_visit, certificates, decision))

    def _forget_jobs(self, count: int) -> None:
        for _ in range(count):
            self._jobs.popleft()

    def _make_visit(self, certificates: list[Certified], decision: Decision | None) -> None:
        """In the ledger's thread, which tells the loop by itself (see `_write`)."""
        error: BaseException | None = None
        outcome = None
        try:
            outcome = self._visit(certificates, decision)
        except BaseException as found:  # ends the process, in the loop
            error = found
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._visited, error, certificates, decision, outcome)

    def _visited(self, error: BaseException | None, certificates: list[Certified], decision: Decision | None,
                 outcome: Any) -> None:
        if self._is_stopped:
            return
        self._is_in_ledger = False
        if error:
            self._fail(error)
            return
        try:
            for certified in certificates:
                self._rooms.certified(certified)
            if decision:
                self._last_executed = decision.n
                self._call(lambda now: self._replica.executed(decision.n, outcome.heads, outcome.state_root, now,
                                                              outcome.deadline_s, outcome.is_ending))
                self._rooms.executed(outcome)
        except Exception as found:
            self._fail(found)
            return
        self._go_on()

    def _visit(self, certificates: Sequence[Certified], decision: Decision | None) -> Any:
        """In the ledger's thread."""
        for certified in certificates:
            self._rooms.certify(certified)
        return self._rooms.execute(decision) if decision else None

    async def _install(self) -> None:
        """Catches up, outside of the votes: decisions that come meanwhile wait behind."""
        while self._behind is not None:
            behind = self._behind
            if behind.n <= self._last_executed:
                self._behind = None
                break
            executed = await self._rooms.catch_up(behind)
            if executed is None:
                self._behind = None  # it is issued again from time to time
                break
            self._last_executed = executed.n
            if self._behind is behind:
                self._behind = None
            self._call(lambda now, executed=executed: self._replica.installed(executed, now))  # type: ignore[misc]
            self.vote_again(await self.in_ledger(self._rooms.lost_certificates))
        self._is_in_ledger = False
        self._go_on()

    # time

    def _arm(self) -> None:
        """Sets the timer to the earlier of the two times at which the replica wants to be asked."""
        if self._is_stopped or self.failed.done():
            return
        label_ms, wait_ms = self._replica.wake()
        now = self.now()
        delays = []
        if label_ms is not None:
            delays.append((label_ms - now.label_ms) / self._clock.speed)
        if wait_ms is not None:
            delays.append(float(wait_ms - now.wait_ms))
        if not delays:
            return
        due_s = self._loop.time() + max(min(delays) / 1000, SHORTEST_WAIT_S)
        if self._timer:
            if self._timer.when() <= due_s:
                return  # it rings too early at worst, and is set anew then: cheaper than a new one for each message
            self._timer.cancel()
        self._timer = self._loop.call_at(due_s, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._call(self._replica.tick)

    # tasks

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Runs a task that `stop` ends."""
        task = self._loop.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self.ended)

    def ended(self, task: "asyncio.Task[None]") -> None:
        """A task that fails ends the process: its work would silently not be done any more."""
        self._tasks.discard(task)
        if not task.cancelled() and task.exception():
            self._fail(task.exception())

    def stop_voting(self, why: str) -> None:
        """The own state is not the one that the others have proven."""
        self._call(lambda now: self._replica.stop_voting(why, now))

    def fail(self, error: BaseException) -> None:
        """Ends the process with this reason."""
        self._fail(error)

    def _fail(self, error: BaseException | None) -> None:
        if not self.failed.done() and error is not None:
            self._is_stopped = True
            self.failed.set_exception(error)


def is_patient(ready: Ready) -> bool:
    """Tells whether nothing but header votes, which no decision waits for, is asked for."""
    return bool(ready.compact is None and not (ready.check or ready.decided or ready.submitted or ready.behind
                                               or ready.alarms or ready.ended)
                and ready.send and all(send.data[:1] == b"h" for send in ready.send))
