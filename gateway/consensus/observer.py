"""Makes a replica's place in the order of blocks from the members' CHECKPOINTs alone: for one that has no vote.

Who is to be given a seat, or has lost it, follows like this: q CHECKPOINTs of the epoch's set prove where the others
stand, the driver fetches what leads there, and when the state there names another set the epoch is over for an observer
as for the members. It signs nothing, so it can promise nothing twice. To its driver it looks like a `Replica`.
"""

from collections.abc import Sequence

from firmware.wire.certificate import quorum
from firmware.wire.errors import Refused, check
from gateway.consensus import durable
from gateway.consensus.checkpoints import Checkpoints, Stable
from gateway.consensus.core import heads_of
from gateway.consensus.guard import Guard
from gateway.consensus.mail import Mail
from gateway.consensus.messages import Checkpoint, open_frame
from gateway.consensus.types import Behind, Ended, Executed, Head, Item, Keys, Now, Ready, Settings

AGAIN_MS = 2000  # an unanswered `Behind` is issued again; nobody's vote waits for an observer


class Observer:
    """Follows one epoch. `settings.index` says nothing here; `keys` only open."""

    is_primary = is_halted = False
    active = True
    view = pending = dropped = 0

    def __init__(self, settings: Settings, keys: Keys, executed: Executed):
        self.index = -1
        self.size = len(settings.members)
        self.quorum = quorum(self.size)
        self.interval = settings.parameters["checkpoint_interval"]
        self.refused: dict[str, int] = {}
        self.low = self.last_executed = executed.n
        self._frame_bytes = settings.parameters["frame_bytes"]
        self._mail = Mail(settings, keys, Guard())
        self._checkpoints = Checkpoints(self.quorum)
        self._heads = {head.channel: head for head in executed.heads}
        self._state_root = executed.state_root
        self._is_ending = executed.is_ending
        self._stable: Stable | None = None
        self._asked_ms: int | None = None
        self._alarms: list[str] = []
        self._has_ended = False

    @property
    def primary(self) -> int:
        """Nobody's business here."""
        return 0

    @property
    def stable_proof(self) -> tuple[bytes, ...]:
        """The CHECKPOINTs that prove the newest checkpoint known."""
        return () if self._stable is None else self._stable.proof

    @property
    def open_heights(self) -> tuple[tuple[str, int], ...]:
        """It has signed no header."""
        return ()

    @property
    def is_level(self) -> bool:
        """Whether nothing is proven that is not executed here."""
        return self._stable is not None and self._stable.n <= self.last_executed

    def start(self, now: Now) -> Ready:
        return self._ready(now)

    def receive(self, data: bytes, now: Now) -> Ready:
        """Any bytes from any peer; all but CHECKPOINTs is other people's talk."""
        return self.receive_all((data,), now)

    def receive_all(self, datas: Sequence[bytes], now: Now) -> Ready:
        for data in datas:
            try:
                if data[:1] == b"p":
                    check(len(data) <= self._frame_bytes, "oversize", self._frame_bytes, len(data))
                    self._take(open_frame(data)[0])
            except Refused as refused:
                self.refused[refused.reason] = self.refused.get(refused.reason, 0) + 1
        return self._ready(now)

    def installed(self, executed: Executed, now: Now) -> Ready:
        """What a `Behind` asked for is here."""
        self.last_executed = max(self.last_executed, executed.n)
        self._heads = {head.channel: head for head in executed.heads}
        self._state_root, self._is_ending = executed.state_root, executed.is_ending
        self._asked_ms = None
        return self._ready(now)

    def tick(self, now: Now) -> Ready:
        return self._ready(now)

    def wake(self) -> tuple[int | None, int | None]:
        return None, None if self._asked_ms is None else self._asked_ms + AGAIN_MS

    def submit_all(self, items: Sequence[Item], now: Now) -> Ready:
        """Others order."""
        return Ready()

    def submit(self, item: Item, now: Now) -> Ready:
        return Ready()

    def forget(self, key: bytes) -> None:
        """Nothing waits here."""

    def checked(self, digest: bytes, reason: str | None, now: Now) -> Ready:
        return Ready()

    def executed(self, n: int, heads: Sequence[Head], state_root: bytes, now: Now, deadline_s: int | None = None,
                 is_ending: bool = False) -> Ready:
        raise ValueError("an observer decides nothing")

    def vote_again(self, heads: Sequence[Head], now: Now) -> Ready:
        return Ready()

    def note_certificate(self, channel: str, height: int, now: Now) -> Ready:
        return Ready()

    def stop_voting(self, why: str, now: Now) -> Ready:
        return Ready(alarms=[why])

    def items(self) -> list[Item]:
        return []

    def _take(self, signed: bytes) -> None:
        message = self._mail.peek(signed)
        if not isinstance(message, Checkpoint):
            return
        check(message.n % self.interval == 0, "outside_window", self.interval, message.n)
        if message.n < self.last_executed or (self._stable is not None and message.n <= self._stable.n):
            return
        self._mail.open(signed)
        stable = self._checkpoints.add(message, signed)
        if stable is not None and (self._stable is None or stable.n > self._stable.n):
            self._stable = stable
            self.low = min(stable.n, self.last_executed)
            self._checkpoints.become_stable(stable.n)
            self._asked_ms = None

    def _ready(self, now: Now) -> Ready:
        """What the newest proven checkpoint asks for."""
        stable, behind, ended = self._stable, None, None
        if stable is not None and stable.n > self.last_executed:
            if self._asked_ms is None or now.wait_ms >= self._asked_ms + AGAIN_MS:
                self._asked_ms = now.wait_ms
                behind = Behind(stable.n, stable.heads, stable.state_root, durable.proof(stable.proof), stable.holders)
        elif stable is not None and stable.n == self.last_executed and not self._has_ended:
            if (self._state_root, heads_of(self._heads)) != (stable.state_root, stable.heads):
                self._has_ended = True
                self._alarms.append("own state at n %d differs from the proven one" % stable.n)
            elif self._is_ending:
                self._has_ended = True
                ended = Ended(stable.n, stable.proof)
        alarms, self._alarms = self._alarms, []
        return Ready(behind=behind, alarms=alarms, ended=ended)
