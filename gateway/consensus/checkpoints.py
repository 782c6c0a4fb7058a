"""Makes stable checkpoints from the members' CHECKPOINT messages: q that name the same n, state root and heads.

A member's newest few are kept, whatever n they claim: a liar fills only its own place.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from firmware.wire.errors import check
from gateway.consensus.mail import Mail
from gateway.consensus.messages import Checkpoint
from gateway.consensus.types import Head

KEPT = 4  # of one member: L = 2 K lets two be under way, one is stable, one more for those who lag


class Stable(NamedTuple):
    """A proven checkpoint; n = 0 is the genesis and needs no proof."""

    n: int
    state_root: bytes
    heads: tuple[Head, ...]
    proof: tuple[bytes, ...]
    holders: tuple[int, ...]


class Checkpoints:
    """The CHECKPOINTs of n > the stable one."""

    def __init__(self, quorum: int):
        self._quorum = quorum
        self._held: dict[int, dict[int, tuple[Checkpoint, bytes]]] = {}  # sender: {n: (message, signed)}

    def add(self, message: Checkpoint, signed: bytes) -> Stable | None:
        """Notes one; the checkpoint that became provable by it.

        Of two that a member signed for one n the newer counts: a liar's first word here must not stand in the way of a
        proof that others made with its second one."""
        held = self._held.setdefault(message.sender, {})
        known = held.get(message.n)
        if known is not None and known[0] == message:
            return None
        held[message.n] = (message, signed)
        if len(held) > KEPT:
            del held[min(held)]
        equal = []
        for sender in sorted(self._held):
            pair = self._held[sender].get(message.n)
            if pair and (pair[0].state_root, pair[0].heads) == (message.state_root, message.heads):
                equal.append(pair)
        if len(equal) < self._quorum:
            return None
        return stable_of(equal[: self._quorum])

    def of(self, sender: int) -> Iterable[bytes]:
        """The signed CHECKPOINTs of a member, by rising n."""
        held = self._held.get(sender, {})
        return [held[n][1] for n in sorted(held)]

    def content(self, sender: int, n: int) -> Checkpoint | None:
        pair = self._held.get(sender, {}).get(n)
        return pair[0] if pair else None

    def become_stable(self, low: int) -> None:
        self._held = {
            sender: {n: pair for n, pair in held.items() if n > low} for sender, held in self._held.items()}


def stable_of(pairs: Sequence[tuple[Checkpoint, bytes]]) -> Stable:
    """The checkpoint that equal messages prove."""
    first = pairs[0][0]
    return Stable(first.n, first.state_root, first.heads, tuple(signed for _, signed in pairs),
                  tuple(message.sender for message, _ in pairs))


def check_proof(proof: Sequence[bytes], low: int, quorum: int, mail: Mail, base: int = 0) -> Stable | None:
    """The checkpoint that a proof shows for n = `low`, None for the epoch's base; raises Refused."""
    if low == base:
        check(not proof, "wrong_proof", "no proof of the base", len(proof))
        return None
    check(low > base, "outside_window", base, low)
    check(len(proof) == quorum, "too_few_signers", quorum, len(proof))
    pairs: list[tuple[Checkpoint, bytes]] = []
    for signed in proof:
        message = mail.open(signed)
        check(isinstance(message, Checkpoint) and message.n == low, "wrong_proof", low, message)
        assert isinstance(message, Checkpoint)
        if pairs:
            first, last = pairs[0][0], pairs[-1][0]
            check(message.sender > last.sender, "duplicate_signer", last.sender, message.sender)
            check((message.state_root, message.heads) == (first.state_root, first.heads), "wrong_state",
                  first.state_root, message.state_root)
        pairs.append((message, signed))
    return stable_of(pairs)
