"""Makes checkpoints and certificates out of what was executed: pbft.md 3.5 and 3.12.

What is proven by q CHECKPOINTs is past: h moves there, the log below is dropped. A replica that has executed that far
compares its own state; one that has not either gets there by the votes under way, or its driver fetches the blocks.
"""

from collections.abc import Sequence

from firmware.wire.cose import SIGNATURE_BYTES
from firmware.wire.errors import check
from gateway.consensus import durable
from gateway.consensus.checkpoints import Stable
from gateway.consensus.core import heads_of
from gateway.consensus.messages import Checkpoint
from gateway.consensus.ordering import Ordering
from gateway.consensus.types import Behind, Ended, Executed, Head

# How long a proven checkpoint may be ahead of what is decided here before blocks are fetched: votes under way on a LAN
# arrive within milliseconds, and T is 2 s.
GRACE_MS = 300


class Stability(Ordering):
    """Execution reported back, checkpoints, header votes."""

    def _on_executed(self, n: int, heads: Sequence[Head], state_root: bytes, deadline_s: int | None,
                     is_ending: bool) -> None:
        if n <= self.last_executed:
            return  # an installed head went past it
        if n != self.last_executed + 1 or n > self.last_decided:
            raise ValueError("executed %d after %d of %d decided" % (n, self.last_executed, self.last_decided))
        self.last_executed = n
        self._note_ending(n, is_ending)
        self._state_root = state_root
        self._deadline_s = deadline_s
        for key in self._land(n):
            self._pool.drop(key)
        for head in heads:
            self._heads[head.channel] = head
        self._vote_for_heads(heads)
        self._say_checkpoint()
        self._compare(n)
        if self._ahead is not None and self._ahead.n <= n:
            self._become_stable(self._ahead)
        self._deliver()

    def _compare(self, n: int) -> None:
        """The own state against a checkpoint that was proven before it was reached."""
        stable = self._stable
        if stable is not None and stable.n == n:
            if (self._state_root, heads_of(self._heads)) != (stable.state_root, stable.heads):
                self._halt("own state at n %d differs from the proven one" % n)

    def _on_installed(self, executed: Executed) -> None:
        if self._behind is not None and executed.n >= self._behind.n:
            self._behind = None
        if executed.n > self.last_executed:
            self.last_executed = executed.n
            self.last_decided = max(self.last_decided, executed.n)
            self._accepted_high = max(self._accepted_high, executed.n)
            self._state_root = executed.state_root
            self._deadline_s = executed.deadline_s
            self._note_ending(executed.n, executed.is_ending)
            self._decided_time_s = max(self._decided_time_s, executed.time_s)
            for n in [n for n in self._flights if n <= executed.n]:
                self._free(n)  # it may not be what was decided there: the driver forgets what the blocks hold
            for head in executed.heads:
                self._heads[head.channel] = head
                self._header_votes.install(head)
                self._guard.forget_headers(head.channel, self._header_votes.floors[head.channel])
            self._compare(executed.n)
            self._vote_for_heads(executed.heads)
            self._say_checkpoint()
            self._note_progress()
            if self._ahead is not None and self._ahead.n <= executed.n:
                self._become_stable(self._ahead)
        self._deliver()

    def _look_for_end(self) -> None:
        """The epoch is over once its last checkpoint is stable here and its last block certified, by which light nodes
        come to the next set. Whoever reached the end votes for that one; one below may lack voters for ever (some took
        over a state behind it), and is proven by its place in the chain."""
        if (self._final is None or self._has_ended or self.is_halted or self.low < self._final
                or self.last_executed < self._final
                or any(self._header_votes.lacks(head) for head in self._heads.values())):
            return
        self._has_ended = True
        self._ended = Ended(self._final, self.stable_proof)

    # --- header votes ---

    def _vote_for_heads(self, heads: Sequence[Head]) -> None:
        """One vote per height, for ever; the genesis needs none."""
        for head in heads:
            if head.height == 0 or self.is_halted:
                continue
            if not self._header_votes.has_voted(head):
                vote = self._mail.sign_header(head)
                self._persist(durable.header_vote(vote))
                self._send_header_vote(vote)
                self._keep_header_vote(head, vote)

    def _keep_header_vote(self, head: Head, vote: bytes) -> None:
        self._header_votes.keep(head, vote)
        signature = vote[-SIGNATURE_BYTES:]
        for certified in (self._header_votes.execute(head), self._header_votes.add(head, self.index, signature)):
            if certified is not None:
                self._certified.append(certified)
                self._note_progress()

    def _on_header_vote(self, signed: bytes) -> None:
        head, sender, signature = self._mail.peek_header(signed)
        check(head.channel in self._heads, "wrong_channel", self._settings.channel, head.channel)
        if not self._header_votes.wants(head, sender):
            self.dropped += 1
            return
        self._mail.check_header(signed)
        if self._header_votes.is_contrary(head):
            self._alarms.append("member %d signed another header at %s %d" % (sender, head.channel, head.height))
        certified = self._header_votes.add(head, sender, signature)
        if certified is not None:
            self._certified.append(certified)
            self._note_progress()

    # --- checkpoints ---

    def _say_checkpoint(self) -> None:
        n = self.last_executed
        if n == 0 or n % self.interval or n <= self.low or self.is_halted:
            return
        if self._checkpoints.content(self.index, n) is None:
            message = Checkpoint(n, self._state_root, heads_of(self._heads), self.index)
            signed = self._mail.sign(message)
            self._persist(durable.checkpoint(signed))
            self._send(signed)
            self._hold_checkpoint(message, signed)

    def _on_checkpoint(self, message: Checkpoint, signed: bytes) -> None:
        check(message.n % self.interval == 0, "outside_window", self.interval, message.n)
        if message.n <= self.low or message.sender == self.index:
            self.dropped += 1
            return
        self._mail.open(signed)
        self._hold_checkpoint(message, signed)

    def _hold_checkpoint(self, message: Checkpoint, signed: bytes) -> None:
        stable = self._checkpoints.add(message, signed)
        if stable is None or stable.n <= self.low:
            return
        if stable.n <= self.last_executed:
            self._become_stable(stable)
        elif self._ahead is None or stable.n > self._ahead.n:
            self._ahead = stable
            self._ahead_ms = self._now.wait_ms

    def _become_stable(self, stable: Stable) -> None:
        """Moves h up. The own state is compared where it is known; another one is a reason to stop, not to guess."""
        own = self._checkpoints.content(self.index, stable.n)
        if own is not None and (own.state_root, own.heads) != (stable.state_root, stable.heads):
            self._halt("own state at n %d differs from the proven one" % stable.n)
            return
        self._stable = stable
        self._log.become_stable(stable.n)
        self._checkpoints.become_stable(stable.n)
        self._guard.become_stable(stable.n, self.view if self.active else self.view - 1)
        if stable.n <= self.last_executed:
            self._header_votes.become_stable(stable.heads)
            for channel, floor in self._header_votes.floors.items():
                self._guard.forget_headers(channel, floor)
        self._accepted_high = max(self._accepted_high, stable.n)
        self._unaccepted = {n: digest for n, digest in self._unaccepted.items() if n > stable.n}
        if self._ahead is not None and self._ahead.n <= stable.n:
            self._ahead = None
        self._is_compacting = True
        self._note_progress()
        self._accept_next()

    def _jump(self, stable: Stable) -> None:
        """Makes a proven checkpoint stable before its state is here; the driver fetches it, unless its execution is
        under way already."""
        if stable.n > self.low:
            self._become_stable(stable)
        if self.last_decided < stable.n and not self.is_halted:
            self._behind = stable
            self._ask_for_blocks()

    def _ask_for_blocks(self) -> None:
        stable = self._behind
        assert stable is not None
        self._behind_ms = self._now.wait_ms
        holders = tuple(holder for holder in stable.holders if holder != self.index)
        self._behind_duty = Behind(stable.n, stable.heads, stable.state_root, durable.proof(stable.proof), holders)

    def _look_ahead(self) -> None:
        """Goes for blocks when the votes under way have not led to a proven checkpoint in time."""
        ahead = self._ahead
        assert ahead is not None
        if self.last_decided < ahead.n and self._now.wait_ms >= self._ahead_ms + GRACE_MS:
            self._ahead = None
            self._jump(ahead)
