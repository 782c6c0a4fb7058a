"""Makes counts of refusals by agent and reason, and keeps the evidence against agents; bounded, pure."""

from collections import Counter
from typing import NamedTuple

from firmware.wire import cbor
from firmware.wire.errors import Refused
from firmware.wire.shape import check_fields

# Agents counted one by one: more than one area can have on a broker (2,000 connections). Beyond: all in OTHERS.
COUNTED_AGENTS = 4096
UNKNOWN, PEERS, OTHERS = "unknown", "peers", "others"  # whoever is not enrolled; replicas that handed something on
# An agent that forks once is flagged; eight pairs show how, more show nothing new. 256 x 0.4 KiB.
EVIDENCE, EVIDENCE_OF_ONE = 256, 8


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
