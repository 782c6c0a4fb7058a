"""Makes a thread of its own for jobs that are done one after the other, at half the price of a pool of one.

`post` begins a job that tells by itself what came of it; `submit` is an executor's, for everything else. A pool's
future with its locks costs some 50 us of each visit, and a decision visits the ledger.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from queue import SimpleQueue
from typing import Any


class Worker(Executor):
    """One thread, begun with the first job."""

    def __init__(self, name: str):
        self._name = name
        self._jobs: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._is_over = False

    def post(self, job: Callable[[], object]) -> None:
        """Does a job, behind what waits; it raises nothing. RuntimeError after `shutdown`."""
        if self._is_over:
            raise RuntimeError(f"the thread {self._name} has been ended")
        self._jobs.put(job)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **named: Any) -> "Future[Any]":
        """As any executor."""
        future: Future[Any] = Future()

        def job() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    result = function(*arguments, **named)
                except BaseException as error:  # told to whoever waits
                    future.set_exception(error)
                else:
                    future.set_result(result)
        self.post(job)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Takes no more jobs; what waits is still done."""
        if not self._is_over:
            self._is_over = True
            self._jobs.put(None)
        if wait and self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
            del job  # nothing that it holds lives until the next one
