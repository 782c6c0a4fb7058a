"""Makes the judgement on a device from the bytes that were pulled and what is certified: outcome, item, kind, offset.

The outcome follows from digests alone (`certified.outcome_of`, which the contract asks too). Kind and offset explain
it: the same bytes are looked for under other names (another role, device, model, version), and compared with the
certified bytes where those are at hand. Pure: every replica that holds the evidence comes to the same judgement.
"""

from collections.abc import Callable
from typing import NamedTuple

from firmware.wire import device as codec
from firmware.wire.device import Evidence, Side
from gateway.dispatch.certified import Certified, Known, outcome_of

Stored = Callable[[bytes], bytes | None]  # the preimage that is kept under a digest
_ROLES = (codec.SOFTWARE, codec.STRATEGY, codec.SETTINGS)
_WORST = (codec.NO_DATA, codec.UNKNOWN_DEVICE, codec.MISMATCH, codec.NOT_CURRENT, codec.MATCH)


class Judgement(NamedTuple):
    """digests and identity are those of the side that the outcome is about; null when there were no bytes."""

    outcome: str
    item: str | None
    kind: str | None
    offset: int | None
    digests: list[bytes | None] | None
    identity: list[str] | None


def judge(evidence: Evidence, certified: Certified, stored: Stored) -> Judgement:
    """The judgement on what was pulled from a device, and from its twin where it has one."""
    if any(side is None for side in evidence.sides):
        kind = "twin" if any(side is not None for side in evidence.sides) else None
        return Judgement(codec.NO_DATA, None, kind, None, None, None)
    known = certified.known(evidence.device)
    found = [_judge_side(evidence, side, known, certified, stored) for side in evidence.sides]
    worst = min(found, key=lambda one: _WORST.index(one.outcome))  # the first of equals
    if any(is_different(evidence, side) for side in evidence.sides[1:]) and worst.outcome != codec.MATCH:
        return worst._replace(kind="twin")
    return worst


def is_different(evidence: Evidence, side: Side) -> bool:
    """Tells whether a side holds other files, or names itself otherwise, than the first."""
    first = evidence.sides[0]
    return codec.digests_of(evidence, side) != codec.digests_of(evidence, first) or (
        codec.identity_of(side) != codec.identity_of(first) or codec.has_extra(side) != codec.has_extra(first))


def wanted(evidence: Evidence, certified: Certified) -> list[bytes]:
    """Digests whose preimages the explanation needs: those in force, of items that are not as they should be."""
    known = certified.known(evidence.device)
    if known is None:
        return []
    digests = [codec.digests_of(evidence, side) for side in evidence.sides if side is not None]
    return [due for at, due in enumerate(known.digests) if any(one[at] not in (None, due) for one in digests)]


def _judge_side(evidence: Evidence, side: Side, known: Known | None, certified: Certified,
                stored: Stored) -> Judgement:
    digests, identity = codec.digests_of(evidence, side), codec.identity_of(side)
    outcome, item = outcome_of(known, evidence.device, digests, identity, codec.has_extra(side))
    kind, offset = None, None
    if known is None or item is None:
        kind, offset = None, None
    elif item == "files":
        kind = "extra"
    elif item == "serial":
        kind, offset = _explain_serial(evidence.device, codec.file_of(side, codec.SERIAL), identity[1], certified)
    elif item == "model":
        kind = "other model" if certified.model(identity[0]) is not None else "value"
    else:
        kind, offset = _explain(evidence, side, codec.ITEMS.index(item), outcome, known, certified, stored)
    return Judgement(outcome, item, kind, offset, digests, identity)


def _explain_serial(device: str, data: bytes | None, said: str, certified: Certified) -> tuple[str, int | None]:
    if data is None:
        return "missing", None
    kind, offset = difference(device.encode(), data)
    return ("other device" if certified.settings(said) is not None else kind), offset


def _explain(evidence: Evidence, side: Side, role: int, outcome: str, known: Known, certified: Certified,
             stored: Stored) -> tuple[str | None, int | None]:
    """(kind, first differing offset) of a file that is not the one in force."""
    data = codec.file_of(side, role)
    if data is None:
        return "missing", None
    due = stored(known.digests[role - 1])
    kind, offset = difference(codec.certified_bytes(due), data) if due is not None else (None, None)
    return _other_name(evidence, role, data, outcome, known, certified) or kind, offset


def _other_name(evidence: Evidence, role: int, data: bytes, outcome: str, known: Known,
                certified: Certified) -> str | None:
    """Under which other name these bytes are certified, if under any."""
    model, device = evidence.model, evidence.device
    if outcome == codec.NOT_CURRENT or codec.digest_of(role, model, device, data) in certified.pending(model, device):
        return "other version"
    for other in _ROLES:
        digest = codec.digest_of(other, model, device, data)
        if other != role and (digest == known.digests[other - 1] or digest in known.old[other - 1]):
            return "swapped"
    if role == codec.SETTINGS:
        for name, its_model, digests in certified.other_devices(device):
            if codec.digest_of(role, its_model, name, data) in digests:
                return "other device"
        return None
    for name, software, strategy in certified.other_models(model):
        if codec.digest_of(role, name, None, data) in (software if role == codec.SOFTWARE else strategy):
            return "other model"
    return None


def difference(due: bytes, found: bytes) -> tuple[str, int]:
    """("truncated" or "value", first differing offset) of bytes that are not those that are due; the offset is the
    shorter one's length where it is the longer one's beginning."""
    if due.startswith(found):
        return "truncated", len(found)
    if found.startswith(due):
        return "value", len(due)
    low, high = 0, min(len(due), len(found))  # the first `low` bytes are equal, the first `high` are not
    while high - low > 1:
        middle = (low + high) // 2
        if due[low:middle] == found[low:middle]:
            low = middle
        else:
            high = middle
    return "value", low
