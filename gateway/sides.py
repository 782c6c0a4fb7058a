"""Says what the driver needs of its clock, of its state machine, and of the other rooms of a node."""

from collections.abc import Awaitable, Sequence
from typing import Any, Protocol

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
)


class Clock(Protocol):
    """As `deploy.clock.Clock`."""

    speed: int

    def now_ms(self) -> int: ...

    def monotonic_ms(self) -> int: ...


class Machine(Protocol):
    """As `consensus.replica.Replica`: the part a driver needs."""

    def start(self, now: Now) -> Ready: ...

    def receive_all(self, datas: Sequence[bytes], now: Now) -> Ready: ...

    def submit_all(self, items: Sequence[Item], now: Now) -> Ready: ...

    def forget(self, key: bytes) -> None: ...

    def checked(self, digest: bytes, reason: str | None, now: Now) -> Ready: ...

    def executed(self, n: int, heads: Sequence[Head], state_root: bytes, now: Now,
                 deadline_s: int | None, is_ending: bool) -> Ready: ...

    def note_certificate(self, channel: str, height: int, now: Now) -> Ready: ...

    def stop_voting(self, why: str, now: Now) -> Ready: ...

    def installed(self, executed: Executed, now: Now) -> Ready: ...

    def vote_again(self, heads: Sequence[Head], now: Now) -> Ready: ...

    def tick(self, now: Now) -> Ready: ...

    def wake(self) -> tuple[int | None, int | None]: ...


class Rooms(Protocol):
    """What the driver asks of the rest of the node; `execute` and `certify` run in the ledger's thread."""

    def send_all(self, sends: Sequence[Send]) -> None:
        """Consensus messages, each to one peer or to all; they leave at once."""

    def judge(self, check: Check) -> str | None | Awaitable[str | None]:
        """None = a good batch; else the reason why it is not; or, where that takes a while, what comes to say so."""

    def execute(self, decision: Decision) -> Any:
        """One database transaction; what came out, with `n`, `heads`, `state_root`, `deadline_s`, `is_ending`."""

    def compacted(self) -> None:
        """In the votes thread: the votes file was replaced, at a stable checkpoint."""

    def executed(self, outcome: Any) -> None:
        """In the loop, after the replica knows."""

    def certify(self, certified: Certified) -> None:
        """Stores a certificate."""

    def certified(self, certified: Certified) -> None:
        """In the loop, once it is stored."""

    def submitted(self, requests: Sequence[bytes]) -> None:
        """Requests that peers hand on."""

    async def end_epoch(self, ended: Ended) -> None:
        """Keeps the proof; raises what makes the process begin again, in the next epoch."""

    async def catch_up(self, behind: Behind) -> Executed | None:
        """Blocks from the holders, executed; None when it did not work out."""

    def lost_certificates(self) -> Sequence[Head]:
        """Blocks of the ledger that lack one; in the ledger's thread."""
