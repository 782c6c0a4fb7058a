"""Makes sure, from what this replica has signed, that it never signs the opposite: the last line before the key.

Its memory is rebuilt from the votes log. Where the state machine is right it never refuses; where it is wrong it turns
a fork into a stop. Kept: per n the newest PRE-PREPARE, PREPARE and COMMIT, the newest VIEW-CHANGE and NEW-VIEW,
CHECKPOINTs and header votes of what is not yet stable, and the marks below which everything is refused. Old votes may
be said again to those who missed them, but as the old bytes: they are not signed again.
"""

import hashlib

from firmware.wire.certificate import vote_payload
from gateway.consensus import messages
from gateway.consensus.messages import Checkpoint, Message, NewView, ViewChange, Vote
from gateway.consensus.types import Head


class WouldContradict(ValueError):
    """A signature was asked for that an earlier one forbids: an error of this program or of its disk."""


class Guard:
    """Refuses what contradicts an earlier promise; `low` is the stable checkpoint, `stopped` the view left for."""

    def __init__(self) -> None:
        self.low = 0
        self.low_view = -1  # no vote for n <= low was ever given in a view above this one
        self.stopped = 0  # view of the newest VIEW-CHANGE: no vote below it any more
        self._votes: dict[tuple[int, int], tuple[int, bytes]] = {}  # (type, n): (view, digest)
        self._checkpoints: dict[int, tuple] = {}
        self._views: dict[int, tuple[int, bytes]] = {}  # type: (view, SHA-256 of the payload)
        self._headers: dict[tuple[str, int], bytes] = {}
        self._header_floor: dict[str, int] = {}

    def admit(self, message: Message, payload: bytes) -> None:
        """Notes that `message` is signed; raises WouldContradict where it must not be."""
        if isinstance(message, Vote):
            self._admit_vote(message)
        elif isinstance(message, Checkpoint):
            said = (message.state_root, message.heads)
            if self._checkpoints.setdefault(message.n, said) != said:
                raise WouldContradict("a second CHECKPOINT at %d" % message.n)
        elif isinstance(message, ViewChange | NewView):
            self._admit_view(message, payload)

    def observe(self, message: Message, payload: bytes) -> None:
        """Notes an own message out of the votes log, in whatever order the log has them: the newest promise counts."""
        try:
            self.admit(message, payload)
        except WouldContradict:
            if isinstance(message, Vote) and message.view == self._votes.get((message.type, message.n), (-1,))[0]:
                raise  # two promises for one view and n: this disk is not the one of an honest replica

    def admit_header(self, head: Head) -> None:
        """Notes the one header vote of a height, for ever."""
        known = self._headers.get((head.channel, head.height))
        if known is None and head.height <= self._header_floor.get(head.channel, -1):
            raise WouldContradict("a header vote at %s %d, which is long past" % (head.channel, head.height))
        if known is not None and known != head.header_hash:
            raise WouldContradict("a second header vote at %s %d" % (head.channel, head.height))
        self._headers[head.channel, head.height] = head.header_hash

    def become_stable(self, low: int, view: int) -> None:
        """Everything up to n = `low` is past: no vote there any more, up to the present view. (A primary may have to
        order it again in a later one, for a VIEW-CHANGE that was sent before the checkpoint became stable.)"""
        self.low = low
        self.low_view = max(view, self.low_view)
        self._votes = {key: value for key, value in self._votes.items() if key[1] > low}
        self._checkpoints = {n: said for n, said in self._checkpoints.items() if n >= low}

    def forget_headers(self, channel: str, height: int) -> None:
        """Header votes up to `height` are certified: none is signed there again, not even the same."""
        self._header_floor[channel] = max(height, self._header_floor.get(channel, -1))
        self._headers = {key: value for key, value in self._headers.items() if key[0] != channel or key[1] > height}

    def _admit_vote(self, vote: Vote) -> None:
        if (vote.n <= self.low and vote.view <= self.low_view) or vote.view < self.stopped:
            raise WouldContradict("a vote for view %d, n %d after view %d, n %d" % (
                vote.view, vote.n, self.stopped, self.low))
        view, digest = self._votes.get((vote.type, vote.n), (-1, b""))
        if vote.view < view or (vote.view == view and vote.digest != digest):
            raise WouldContradict("a second vote of type %d for view %d, n %d" % (vote.type, vote.view, vote.n))
        self._votes[vote.type, vote.n] = (vote.view, vote.digest)

    def _admit_view(self, message: ViewChange | NewView, payload: bytes) -> None:
        kind = messages.VIEW_CHANGE if isinstance(message, ViewChange) else messages.NEW_VIEW
        view, said = self._views.get(kind, (-1, b""))
        digest = hashlib.sha256(payload).digest()
        if message.view < view or (message.view == view and said != digest):
            raise WouldContradict("a second message of type %d for view %d" % (kind, message.view))
        self._views[kind] = (message.view, digest)
        if kind == messages.VIEW_CHANGE:
            self.stopped = max(self.stopped, message.view)


def header_payload(epoch: int, head: Head) -> bytes:
    """What a HEADER-VOTE signs."""
    return bytes(vote_payload(epoch, head.channel, head.height, head.header_hash))
