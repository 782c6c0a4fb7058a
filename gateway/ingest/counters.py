"""Makes counts of what was refused (by agent and reason) and taken, and keeps the evidence against agents; pure."""

from collections import Counter
from typing import NamedTuple

from firmware.wire import cbor
from firmware.wire.errors import Refused
from firmware.wire.seal import Seal
from firmware.wire.shape import check_fields

# Agents counted one by one: more than one area can have on a broker (2,000 connections). Beyond: all in OTHERS.
COUNTED_AGENTS = 4096
UNKNOWN, PEERS, OTHERS = "unknown", "peers", "others"  # whoever is not enrolled; replicas that handed something on
# An agent that forks once is flagged; eight pairs show how, more show nothing new. 256 x 0.4 KiB.
EVIDENCE, EVIDENCE_OF_ONE = 256, 8
ACCEPTED, MARKED = 0, 256  # result codes: taken; from here on taken with marks, bit by bit (transactions.md)
MARKS = ("clock_not_synchronised", "clock_implausible", "register_fell", "register_jumped", "late",
         "firmware_not_certified", "heights_lost")


class Evidence(NamedTuple):
    """A second payload, correctly signed, for a height that is known: `standing` is the first one's hash, `leaf` the
    second one's signed message."""

    kid: bytes
    point: int
    height: int
    standing: bytes
    leaf: bytes


class Refusals:
    """How often what was refused, by agent."""

    def __init__(self) -> None:
        self.by_reason: Counter[str] = Counter()
        self.by_agent: dict[str, Counter[str]] = {}

    def count(self, who: str, reason: str) -> None:
        """who: a kid in hex, or UNKNOWN, PEERS."""
        self.by_reason[reason] += 1
        if who not in self.by_agent and len(self.by_agent) >= COUNTED_AGENTS:
            who = OTHERS
        self.by_agent.setdefault(who, Counter())[reason] += 1


class Taken:
    """What blocks have taken since this process began."""

    def __init__(self) -> None:
        self.seals = self.readings = self.newest_ms = 0
        self.marked: Counter[str] = Counter()

    def count(self, seal: Seal, code: int) -> None:
        """A seal that a block took, with its result code."""
        self.seals += 1
        self.readings += seal.count
        self.newest_ms = max(self.newest_ms, seal.last_ms)
        for bit, name in enumerate(MARKS):
            if code >= MARKED and code >> bit & 1:
                self.marked[name] += 1


class Flagged:
    """Agents that have signed two truths, and what proves it."""

    def __init__(self) -> None:
        self.evidence: list[Evidence] = []

    def add(self, found: Evidence) -> bool:
        """Keeps it; False when it is known or there is enough of it."""
        mine = [item for item in self.evidence if item.kid == found.kid]
        if found in mine or len(mine) >= EVIDENCE_OF_ONE or len(self.evidence) >= EVIDENCE:
            return False
        self.evidence.append(found)
        return True

    def kids(self) -> list[str]:
        return sorted({item.kid.hex() for item in self.evidence})


def is_accepted(code: int) -> bool:
    """Does this result code say that a block took the item?"""
    return code == ACCEPTED or code >= MARKED


def encode_evidence(found: Evidence) -> bytes:
    """One record of the evidence file."""
    return cbor.encode(list(found))


def decode_evidence(data: bytes) -> list[Evidence]:
    """The records of an evidence file; what a power cut left half written at its end is not one."""
    found, at = [], 0
    while at < len(data):
        try:
            fields, at = cbor.decode_from(data, at)
            check_fields(fields, ("b8", "u", "u", "b32", "b"))
        except Refused:
            break
        found.append(Evidence(*fields))
    return found
