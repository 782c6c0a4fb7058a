"""Makes sure that of two copies of one replica at most one is heard: nothing leaves before q members admit its start.

Theory (pbft.md 3.11, end). A copy of a replica, an image of its card or a backup of its folder, has its key and fewer
of its promises, or the same ones and a life of its own. It cannot know; its peers can. Every process says to all, once
a second, how often its folder was started, a number drawn at this start, and how far its ledger is. Peers keep the
newest of it for each member. They answer

    never   fewer starts than known, as many by another process, or a ledger behind what that member had reached
    later   another process of that member was heard within ALIVE_S: one of the two must end first
    yes     otherwise

Two copies would each need q members, and two quorums share an honest one beside the copied member itself, which answers
yes to one of them only. One that more than f members have told never is marked as a copy in its own folder and does not
start again: it comes back with a new key (`gridseal gateway join --instead`). What a lone replica's copies do (n = 1),
nobody can see.
"""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from gateway.boots import RolledBack

ALIVE_S = 3.5  # three words of a process that speaks once a second
YES, LATER, NEVER = range(3)
MARK = "copy.json"  # in the data folder
STARTS = "starts.json"  # what the others said, so that a restart of ours forgets nobody


class Starts:
    """One process: what it has heard of others, and what they say to it."""

    def __init__(self, data: Path, kids: Sequence[bytes], own: int | None, faults: int, quorum: int, boots: int,
                 nonce: bytes):
        """own: the own index, None for an observer, which promises nothing."""
        self._data, self._kids, self._faults, self._quorum = data, [kid.hex() for kid in kids], faults, quorum
        self._own, self.boots, self.nonce = own, boots, nonce
        self._known: dict[str, list] = _read(data / STARTS)  # kid: [starts, number, n]
        self._heard_s: dict[str, float] = {}  # kid: when its known process spoke last
        self._said: dict[int, tuple[int, str]] = {}  # member: (verdict, why)
        self.is_admitted = own is None or quorum == 1

    def hear(self, peer: int, boots: int, nonce: bytes, n: int, now_s: float) -> tuple[int, str]:
        """(verdict, why) on a peer's process."""
        if not peer < len(self._kids):
            return YES, ""
        kid = self._kids[peer]
        known = self._known.get(kid)
        if known is None or known[1] != nonce.hex():
            if known is not None:
                if boots <= known[0]:
                    return NEVER, f"start {boots}, another process of this key said start {known[0]}"
                if n < known[2]:
                    return NEVER, f"a ledger at n {n}, this key had reached {known[2]}"
                if now_s - self._heard_s.get(kid, -ALIVE_S) < ALIVE_S:
                    return LATER, "another process of this key is here"
            self._known[kid] = [boots, nonce.hex(), n]
            _write(self._data / STARTS, self._known)
        self._known[kid][2] = max(n, self._known[kid][2])
        self._heard_s[kid] = now_s
        return YES, ""

    def answered(self, peer: int, nonce: bytes, verdict: int, why: str) -> bool:
        """A member's verdict on this process; True when it is admitted by it. RolledBack when it is a copy."""
        if nonce != self.nonce or not peer < len(self._kids) or peer == self._own:
            return False
        self._said[peer] = (verdict, why[:200])
        said = [one for one, _ in self._said.values()]
        if said.count(NEVER) > self._faults:
            reasons = sorted(text for one, text in self._said.values() if one == NEVER)
            _write(self._data / MARK, {"why": reasons})
            raise RolledBack(self._data, "the newest process with its key", "; ".join(reasons))
        was_admitted, self.is_admitted = self.is_admitted, self.is_admitted or said.count(YES) + 1 >= self._quorum
        return self.is_admitted and not was_admitted

    @property
    def waits_for(self) -> str:
        """For people: why nothing is said yet; empty once admitted."""
        if self.is_admitted:
            return ""
        later = sorted(text for one, text in self._said.values() if one == LATER)
        said = sum(one == YES for one, _ in self._said.values()) + 1
        return later[0] if later else f"{said} of {self._quorum} members have admitted this start"


def check_mark(data: Path, write: Callable[[str], None]) -> None:
    """RolledBack where this folder was found to be a copy."""
    if (data / MARK).exists():
        why = _read(data / MARK).get("why", [])
        write(f"{data} is a copy: {why}")
        raise RolledBack(data, "the newest process with its key", "; ".join(map(str, why)))


def _read(path: Path) -> dict:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write(path: Path, values: dict) -> None:
    spare = path.with_suffix(".new")
    with open(spare, "w") as file:
        json.dump(values, file)
        file.flush()
        os.fsync(file.fileno())
    spare.replace(path)
