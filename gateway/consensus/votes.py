"""Makes certificates of blocks from the members' header votes: q signatures over one header hash (pbft.md 3.12).

A height is open from the moment at which it was executed here until its certificate is made; votes that come earlier
wait, within the window. The own votes stay at hand for those who lack them, down to the last stable checkpoint's head.
"""

from collections.abc import Iterable, Sequence

from firmware.wire import certificate
from firmware.wire.certificate import Certificate
from gateway.consensus.messages import WANTED
from gateway.consensus.types import Certified, Head


class Tally:
    """The votes for one height."""

    __slots__ = ("own_hash", "own_vote", "votes", "is_certified")

    def __init__(self) -> None:
        self.own_hash: bytes | None = None  # of the block that was executed here
        self.own_vote: bytes | None = None
        self.votes: dict[int, tuple[bytes, bytes]] = {}  # sender: (header hash, signature)
        self.is_certified = False


class HeaderVotes:
    """All open heights of all channels; `window` bounds how far ahead votes are kept, and how many stay open."""

    def __init__(self, epoch: int, quorum: int, window: int, channels: Iterable[str]):
        self._epoch = epoch
        self._quorum = quorum
        self._window = window
        self._tallies: dict[str, dict[int, Tally]] = {channel: {} for channel in channels}
        self.floors: dict[str, int] = {channel: 0 for channel in self._tallies}  # up to here nothing is asked any more
        self._settled: dict[str, int] = {}  # height of the newest stable checkpoint's head
        self._heads: dict[str, int] = {channel: 0 for channel in self._tallies}
        self._open: dict[tuple[str, int], None] = {}  # executed here, not certified

    def wants(self, head: Head, sender: int) -> bool:
        """Tells whether a vote is worth its signature's check."""
        tallies = self._tallies.get(head.channel)
        if tallies is None or not self.floors[head.channel] < head.height <= self._heads[head.channel] + self._window:
            return False
        tally = tallies.get(head.height)
        if tally is None:
            return True
        if tally.is_certified or sender in tally.votes:
            return False
        # Before it is executed here: with the own vote those are enough, one of them is honest, so it will be the same.
        others = len(tally.votes)
        return others < self._quorum - 1 or tally.own_hash is not None or any(
            said != head.header_hash for said, _ in tally.votes.values())

    def is_contrary(self, head: Head) -> bool:
        """Tells whether a vote names another block than the one executed here."""
        tally = self._tallies[head.channel].get(head.height)
        return tally is not None and tally.own_hash is not None and tally.own_hash != head.header_hash

    def add(self, head: Head, sender: int, signature: bytes) -> Certified | None:
        """Notes a checked vote; the certificate, when it was the last one needed."""
        tally = self._tallies[head.channel].setdefault(head.height, Tally())
        tally.votes.setdefault(sender, (head.header_hash, signature))
        return self._certify(head.channel, head.height, tally)

    def execute(self, head: Head) -> Certified | None:
        """Notes a block that was executed here; only such a one is certified."""
        tally = self._tallies[head.channel].setdefault(head.height, Tally())
        tally.own_hash = head.header_hash
        self._heads[head.channel] = max(self._heads[head.channel], head.height)
        if not tally.is_certified:
            self._open[head.channel, head.height] = None
        self._raise_floor(head.channel, self._heads[head.channel] - 4 * self._window)
        return self._certify(head.channel, head.height, tally)

    def keep(self, head: Head, vote: bytes) -> None:
        """Keeps the own vote at hand."""
        self._tallies[head.channel].setdefault(head.height, Tally()).own_vote = vote

    def has_voted(self, head: Head) -> bool:
        """Tells whether this height has had the own vote, or must not have one any more."""
        tally = self._tallies[head.channel].get(head.height)
        return head.height <= self.floors[head.channel] or (tally is not None and tally.own_vote is not None)

    def own_votes(self) -> list[bytes]:
        """All own votes at hand, for the votes log."""
        return [tally.own_vote for channel in sorted(self._tallies)
                for _, tally in sorted(self._tallies[channel].items()) if tally.own_vote is not None]

    def own_vote(self, channel: str, height: int) -> bytes | None:
        tally = self._tallies.get(channel, {}).get(height)
        return tally.own_vote if tally else None

    def wanted(self, turn: int) -> tuple[tuple[str, int], ...]:
        """Heights that were executed here and lack a certificate; others of them at each turn, where they are many."""
        heights = sorted(self._open)
        at = turn * WANTED % len(heights) if len(heights) > WANTED else 0
        return tuple((heights + heights)[at:at + min(WANTED, len(heights))])

    def settle(self, channel: str, height: int) -> None:
        """A certificate for a block executed here is at hand, whoever made it."""
        tally = self._tallies.get(channel, {}).get(height)
        if tally is not None and not tally.is_certified:
            tally.is_certified = True
            tally.votes = {}
        self._open.pop((channel, height), None)

    def lacks(self, head: Head) -> bool:
        """Tells whether a block executed here has no certificate yet."""
        return (head.channel, head.height) in self._open

    @property
    def is_open(self) -> bool:
        """Tells whether a block executed here lacks its certificate."""
        return bool(self._open)

    def become_stable(self, heads: Sequence[Head]) -> None:
        """Forgets the certified heights below the heads of the stable checkpoint before this one: later certificates
        may be on their way to the ledger only, and where nobody else has them (n = 1) a crash would lose them."""
        for head in heads:
            tallies = self._tallies.get(head.channel)
            if tallies is None:
                continue
            settled = self._settled.get(head.channel, 0)
            self._settled[head.channel] = head.height
            floor = settled - 1
            for height in sorted(tallies):
                if height < settled and tallies[height].own_hash is not None and not tallies[height].is_certified:
                    floor = height - 1
                    break
            self._raise_floor(head.channel, floor)

    def install(self, head: Head) -> None:
        """Jumps to a block that was fetched. Those below that came without a certificate need a vote of ours (the
        others may be one short of q for ever): the driver names them to `vote_again`."""
        self._heads[head.channel] = max(self._heads[head.channel], head.height)
        self._raise_floor(head.channel, head.height - 4 * self._window)

    def raise_floor(self, channel: str, height: int) -> None:
        """As the votes log remembers it."""
        if channel in self._tallies:
            self._raise_floor(channel, height)

    def _raise_floor(self, channel: str, height: int) -> None:
        if height > self.floors[channel]:
            self.floors[channel] = height
            self._heads[channel] = max(self._heads[channel], height)
            self._tallies[channel] = {at: tally for at, tally in self._tallies[channel].items() if at > height}
            self._open = {place: None for place in self._open if place[0] != channel or place[1] > height}

    def _certify(self, channel: str, height: int, tally: Tally) -> Certified | None:
        if tally.is_certified or tally.own_hash is None or len(tally.votes) < self._quorum:
            return None
        signed = sorted((sender, signature) for sender, (said, signature) in tally.votes.items()
                        if said == tally.own_hash)
        if len(signed) < self._quorum:
            return None
        tally.is_certified = True
        self._open.pop((channel, height), None)
        tally.votes = {}
        signed = signed[: self._quorum]
        data = certificate.encode(Certificate(
            self._epoch, channel, height, tally.own_hash, tuple(sender for sender, _ in signed),
            tuple(signature for _, signature in signed)))
        return Certified(channel, height, tally.own_hash, bytes(data))
