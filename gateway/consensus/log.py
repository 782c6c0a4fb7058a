"""Makes the window of sequence numbers between the low and the high mark, from the votes of the members.

A slot has two layers. What belongs to the present view (PRE-PREPARE, PREPAREs, COMMITs) is cleared by each view change;
what outlives it is the prepared certificate of the highest view, the decision, and the newest own COMMIT.
"""

from collections.abc import Iterator
from typing import NamedTuple

from gateway.consensus.messages import NULL_DIGEST, Prepared, decode_batch
from gateway.consensus.types import Batch


class Certificate(NamedTuple):
    """(view, digest) that prepared here, with the messages that prove it."""

    view: int
    digest: bytes
    proof: Prepared


class Body:
    """A batch at hand: its bytes, its meaning, the keys of its items; `is_durable` once it is in the votes log."""

    __slots__ = ("data", "batch", "keys", "is_durable")

    def __init__(self, data: bytes, batch: Batch):
        self.data = data
        self.batch = batch
        self.keys: tuple[bytes, ...] = ()
        self.is_durable = False


class Slot:
    """Everything about one sequence number."""

    __slots__ = ("n", "digest", "pre_prepare", "is_checked", "is_refused", "is_accepted", "prepares", "commits",
                 "own_prepare", "is_prepared", "certificate", "decided", "proof", "own_commit",
                 "learned")

    def __init__(self, n: int):
        self.n = n
        self.certificate: Certificate | None = None
        self.decided: bytes | None = None  # digest
        self.proof: tuple[bytes, ...] = ()  # q COMMITs of one view: the decision, for those who have missed it
        self.own_commit: bytes | None = None  # the newest, of whatever view
        self.learned: dict[int, tuple[int, bytes, bytes]] = {}  # sender: (view, digest, COMMIT), newest view only
        self._clear()

    def enter_view(self, left: int) -> None:
        """Forgets what belongs to the view that is left; its COMMITs may still prove a decision with later ones."""
        for sender, (digest, commit) in self.commits.items():
            if left >= self.learned.get(sender, (-1,))[0]:
                self.learned[sender] = (left, digest, commit)
        self._clear()

    def _clear(self) -> None:
        self.digest: bytes | None = None  # of the PRE-PREPARE
        self.pre_prepare: bytes | None = None
        self.is_checked = False  # the driver found the batch good
        self.is_refused = False  # will not be voted for
        self.is_accepted = False  # pre-prepared, in the words of pbft.md 3.3
        self.prepares: dict[int, tuple[bytes, bytes]] = {}  # sender: (digest, PREPARE)
        self.commits: dict[int, tuple[bytes, bytes]] = {}
        self.own_prepare: bytes | None = None
        self.is_prepared = False

    def prepares_for(self, digest: bytes) -> list[tuple[int, bytes]]:
        """(sender, PREPARE) by rising sender."""
        return sorted((sender, vote) for sender, (said, vote) in self.prepares.items() if said == digest)

    def commits_for(self, digest: bytes) -> list[tuple[int, bytes]]:
        return sorted((sender, vote) for sender, (said, vote) in self.commits.items() if said == digest)


class Log:
    """Slots of low < n <= low + window, and the batches that they speak of."""

    def __init__(self, window: int, base: int = 0):
        self.window = window
        self.low = base
        self._slots: dict[int, Slot] = {}
        self._bodies: dict[bytes, Body] = {}

    @property
    def high(self) -> int:
        return self.low + self.window

    def __contains__(self, n: int) -> bool:
        return self.low < n <= self.high

    def __iter__(self) -> Iterator[Slot]:
        """The slots that something is known of, by rising n."""
        return iter([self._slots[n] for n in sorted(self._slots)])

    def slot(self, n: int) -> Slot:
        """The slot of n, made when it is new; ValueError outside the window."""
        slot = self._slots.get(n)
        if slot is None:
            if n not in self:
                raise ValueError("n %d is outside (%d, %d]" % (n, self.low, self.high))
            slot = self._slots[n] = Slot(n)
        return slot

    def get(self, n: int) -> Slot | None:
        return self._slots.get(n)

    def body(self, digest: bytes) -> Body | None:
        return self._bodies.get(digest)

    def has(self, digest: bytes | None) -> bool:
        return digest == NULL_DIGEST or digest in self._bodies

    def put(self, digest: bytes, data: bytes, batch: Batch | None = None) -> Body:
        """Keeps a batch; raises Refused `malformed` when it is none."""
        body = self._bodies.get(digest)
        if body is None:
            body = self._bodies[digest] = Body(data, batch or decode_batch(data))
        return body

    def become_stable(self, low: int) -> None:
        """Moves the low mark up and drops what lies below."""
        self.low = low
        self._slots = {n: slot for n, slot in self._slots.items() if n > low}
        self.drop_bodies()

    def enter_view(self, left: int) -> None:
        for slot in self._slots.values():
            slot.enter_view(left)

    def note_durable(self, written: set[bytes]) -> None:
        """The votes log was replaced by one that holds these batches and no other: what is not in it must be written
        with the next promise that needs it."""
        for digest, body in self._bodies.items():
            body.is_durable = digest in written

    def drop_bodies(self) -> None:
        """Drops the batches that no slot speaks of any more."""
        kept: set[bytes | None] = set()
        for slot in self._slots.values():
            kept.update((slot.digest, slot.decided, slot.certificate.digest if slot.certificate else None))
        self._bodies = {digest: body for digest, body in self._bodies.items() if digest in kept}
