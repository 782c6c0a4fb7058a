"""Makes promises durable: by the loop itself where the disk is quick, in a thread of their own where it is slow.

A visit to another thread and back costs 0.2 to 0.5 ms of waiting for the interpreter; a decision makes three. A disk
that is quicker than that (a good SSD syncs in 0.1 ms) keeps the loop for less. A write that takes longer than STALL_S
sends the next ones to the thread, as do a few that take longer than QUICK_S, until TRUSTED_AFTER more of them were
quick than slow. A new votes log always goes there.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from gateway.worker import Worker

QUICK_S = 0.001  # as long as twenty signatures take to check
STALL_S = 0.01  # a card that tidies up; what others have on a good disk costs 1 to 5 ms now and then
TRUSTED_AFTER = 16
DOUBTED, SLOW_COUNTS = 8, 4  # doubts from which on the thread writes; a slow write is as many as it takes quick ones


class Votes(Protocol):
    """As `ledger.votes.VoteLog`."""

    def append(self, records: Sequence[bytes]) -> None: ...

    def replace(self, records: Sequence[bytes]) -> None: ...


class Writer:
    """The votes file of one replica at work; one write at a time, which its owner sees to."""

    def __init__(self, votes: Votes, replaced: Callable[[], None]):
        """replaced: called where the new file was made, once it is durable."""
        self._votes, self._replaced = votes, replaced
        self._loop = asyncio.get_running_loop()
        self._pool = Worker("votes")
        self._doubts = TRUSTED_AFTER  # quick writes that it takes to forget the slow ones
        self.is_quick = False  # whether the loop may wait for the disk by itself
        self.commits = 0  # synchronised writes
        self.is_disk_lost = False  # a write failed: nothing more may be written

    def put(self, compact: Sequence[bytes] | None, records: Sequence[bytes]) -> BaseException | None:
        """Makes records durable, behind a new log if there is one; what went wrong, which ends the process."""
        began_s = time.monotonic()
        try:
            if compact is not None:
                self._votes.replace([*compact, *records])
                self._replaced()
            else:
                self._votes.append(records)
        except BaseException as found:  # told to the loop
            self.is_disk_lost = True
            return found
        if compact is None:
            self._judge(time.monotonic() - began_s)
        self.commits += 1
        return None

    def _judge(self, took_s: float) -> None:
        if took_s > STALL_S:
            self._doubts = TRUSTED_AFTER
        elif took_s > QUICK_S:
            self._doubts = min(TRUSTED_AFTER, self._doubts + SLOW_COUNTS)
        elif self._doubts:
            self._doubts -= 1
        if self._doubts > DOUBTED:
            self.is_quick = False
        elif not self._doubts:
            self.is_quick = True

    def put_in_thread(self, compact: Sequence[bytes] | None, records: Sequence[bytes],
                      then: Callable[[BaseException | None], None]) -> None:
        """The same in the votes thread; `then` is called in the loop with what went wrong. The thread tells the loop by
        itself: a future of asyncio costs two more turns."""
        def work() -> None:
            error = self.put(compact, records)
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(then, error)
        self._pool.post(work)

    async def stop(self) -> None:
        """What is being written is written."""
        await self._loop.run_in_executor(None, self._pool.shutdown)
