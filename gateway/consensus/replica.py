"""Makes one order of batches out of what n replicas propose and vote, f of them lying: PBFT as a machine of values.

Theory. Replicas vote in numbered views; the primary of view v is member v mod n. It proposes a batch for the next
sequence number n (PRE-PREPARE); backups that find it good say so (PREPARE). With the proposal and q - 1 PREPAREs a
batch is *prepared*: no other can be prepared at n in this view, for two quorums share an honest member, which votes
once. Prepared replicas say COMMIT; q COMMITs *decide*: any q replicas that later stop in this view include an honest
one with the prepared certificate, and the new view must order the same batch at n again. That is safety, and no clock
is in it. Time only decides when a view is given up.

    ACTIVE(v) --timer, false primary, f+1 others--> VIEW_CHANGE(v') --q VIEW-CHANGEs, NEW-VIEW--> ACTIVE(v')
    VIEW_CHANGE(v') --q are there, T_vc over--> VIEW_CHANGE(v'+1), T_vc doubled

Every call returns a `Ready`: duties to be obeyed from left to right, what must be on disk first. Nothing here reads a
clock, draws a number, opens a file or keeps a thread; the same calls with the same values return the same bytes.
"""

from collections.abc import Callable, Sequence

from firmware.wire.errors import Refused
from gateway.consensus import messages
from gateway.consensus.messages import (
    Checkpoint,
    Data,
    Fetch,
    NewView,
    Status,
    Submit,
    ViewChange,
    Vote,
    digest_of,
    open_frame,
)
from gateway.consensus.restore import Restoring
from gateway.consensus.types import Executed, Head, Item, Keys, Now, Ready, Settings


class Replica(Restoring):
    """One member of one epoch.

    `identify(leaf)` gives an item's key. `executed` is where the ledger stands, `records` what the votes log holds;
    ValueError for a log that is not this replica's or settings that no cluster can have.
    """

    def __init__(self, settings: Settings, keys: Keys, identify: Callable[[bytes], bytes], executed: Executed,
                 records: Sequence[bytes] = (), *, now: Now):
        super().__init__(settings, keys, identify, executed, now)
        self._restore(records)

    def start(self, now: Now) -> Ready:
        """The first call: says again what a restart must, asks the others where they are, goes on."""
        self._now = now
        self._status_ms = now.wait_ms
        self._vote_for_heads([self._heads[channel] for channel in sorted(self._heads)])
        self._say_checkpoint()
        if self._stable is not None and self.last_executed < self.low:
            self._behind = self._stable
            self._ask_for_blocks()
        own = self._view_changes.get(self.index)
        if not self.active and own is not None:
            self._send(own[1])
        for n, digest in sorted(self._unaccepted.items()):
            if self._log.has(digest):
                del self._unaccepted[n]
                self._accept(self._log.slot(n))
            else:
                self._want(digest)
        for slot in self._log:
            self._advance(slot)
        self._deliver()
        if self.size > 1:
            self._say_status()
        return self._finish()

    def receive(self, data: bytes, now: Now) -> Ready:
        """Any bytes from any peer; what is wrong with them is counted in `refused`."""
        return self.receive_all((data,), now)

    def receive_all(self, datas: Sequence[bytes], now: Now) -> Ready:
        """The same for messages that came together: what time demands is looked at once, behind the last."""
        self._now = now
        for data in datas:
            self._take_frame(data)
        return self._finish()

    def submit(self, item: Item, now: Now) -> Ready:
        """An item to be ordered, verified and durable here; one that is known already is ignored."""
        return self.submit_all((item,), now)

    def submit_all(self, items: Sequence[Item], now: Now) -> Ready:
        """Items that came together: a primary with nothing in flight proposes them in one batch."""
        self._now = now
        for _ in range(self._pool.add_all(items, now, self._was_relayed if self._relayed else None, self._flying)):
            self._count(Refused("busy"))
        return self._finish()

    def _was_relayed(self, item: Item) -> bool:
        return self._relayed.pop(digest_of(item.request), 0) is None

    def forget(self, key: bytes) -> None:
        """An item that turned out to be refused, or is committed."""
        self._pool.drop(key)

    def checked(self, digest: bytes, reason: str | None, now: Now) -> Ready:
        """The answer to a `Check`: None = good, else a reason of the closed list."""
        self._now = now
        for slot in self._unjudged():
            if slot.digest == digest and not slot.is_accepted and not slot.is_refused:
                slot.is_checked = True
                if reason is not None:
                    self._refuse(slot, Refused(reason))
        self._accept_next()
        return self._finish()

    def executed(self, n: int, heads: Sequence[Head], state_root: bytes, now: Now,
                 deadline_s: int | None = None, is_ending: bool = False) -> Ready:
        """The decision at n is executed and durable: the block it made ([] for NULL), the state after it, and the block
        time which that state wants to see passed: an empty block is proposed for it, and owed by the primary.
        is_ending: that state names another set of validators."""
        self._now = now
        self._on_executed(n, heads, state_root, deadline_s, is_ending)
        return self._finish()

    def installed(self, executed: Executed, now: Now) -> Ready:
        """The blocks that a `Behind` asked for are executed."""
        self._now = now
        self._on_installed(executed)
        return self._finish()

    def vote_again(self, heads: Sequence[Head], now: Now) -> Ready:
        """After a restart: blocks of the ledger that have no certificate. For those whose vote got lost between the
        ledger's commit and the votes log's, it is given now."""
        self._now = now
        self._vote_for_heads(heads)
        return self._finish()

    def note_certificate(self, channel: str, height: int, now: Now) -> Ready:
        """A certificate of a block executed here came another way than by votes."""
        self._now = now
        self._header_votes.settle(channel, height)
        return self._finish()

    def stop_voting(self, why: str, now: Now) -> Ready:
        """What q members have proven does not come out of the own ledger."""
        self._now = now
        self._halt(why)
        return self._finish()

    @property
    def open_heights(self) -> tuple[tuple[str, int], ...]:
        """Blocks executed here that lack a certificate, as far as is known here."""
        return self._header_votes.wanted(self._round)

    def items(self) -> list[Item]:
        """What waits to be ordered, for the next epoch."""
        return self._pool.items()

    def tick(self, now: Now) -> Ready:
        """Time went on."""
        self._now = now
        return self._finish()

    def wake(self) -> tuple[int | None, int | None]:
        """(label, wait) in ms at which a `tick` is useful next, if nothing else happens."""
        labels, waits = self._wake_times()
        return min(labels, default=None), min(waits, default=None)

    def _finish(self) -> Ready:
        self._turn()
        return self._take_ready()

    def _take_frame(self, data: bytes) -> None:
        try:
            if len(data) > self._parameters["frame_bytes"]:
                raise Refused("oversize", self._parameters["frame_bytes"], len(data))
            if data[:1] == b"h":
                self._on_header_vote(data[1:])
                return
            signed, batch = open_frame(data)
            self._dispatch(self._mail.peek(signed), signed, batch)
        except Refused as refused:
            self._count(refused)

    def _dispatch(self, message: messages.Message, signed: bytes, batch: bytes | None) -> None:
        """By type; each handler looks whether the message is of use before it has its signature checked."""
        if isinstance(message, Vote):
            if message.type == messages.PRE_PREPARE:
                self._on_pre_prepare(message, signed, batch)
            else:
                self._on_vote(message, signed)
        elif isinstance(message, Checkpoint):
            self._on_checkpoint(message, signed)
        elif isinstance(message, ViewChange):
            self._on_view_change(message, signed)
        elif isinstance(message, NewView):
            self._on_new_view(message, signed)
        elif isinstance(message, Fetch):
            self._on_fetch(message, signed)
        elif isinstance(message, Data):
            self._on_data(message, signed)
        elif isinstance(message, Status):
            self._on_status(message, signed)
        elif isinstance(message, Submit):
            self._on_submit(message, signed)

    def _replay_future(self) -> None:
        """Messages that came before their view was active here."""
        held = [(sender, view, data) for sender in sorted(self._future) for view, data in self._future[sender]
                if view >= self.view]
        self._future = {}
        for sender, view, data in held:
            if view == self.view and self.active:
                self._take_frame(data)
            else:
                self._future.setdefault(sender, []).append((view, data))
