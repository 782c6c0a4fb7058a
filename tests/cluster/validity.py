"""Makes verdicts on VIEW-CHANGEs and NEW-VIEWs, and recomputes O, straight from pbft.md 3.6: a second opinion."""

from collections.abc import Container, Sequence
from typing import NamedTuple

from tests.cluster.speech import NULL, Said, hear_signed, payload_of


class Rules(NamedTuple):
    size: int
    quorum: int
    window: int  # L
    base: int = 0  # of the epoch: executed by all, needs no proof


class Carried(NamedTuple):
    """What a valid NEW-VIEW demands: everything up to `low` is stable, `digests` for each n above."""

    view: int
    low: int
    digests: dict[int, bytes]


def view_change_of(message: bytes, rules: Rules, signed: Container[bytes]) -> Said | None:
    """The VIEW-CHANGE in a COSE message, if it is valid."""
    said = _genuine(message, signed)
    return said if said is not None and said.type == "view-change" and is_view_change(said, rules, signed) else None


def is_view_change(said: Said, rules: Rules, signed: Container[bytes]) -> bool:
    """C proves h; each certificate is right, of an earlier view and inside the window; each n once."""
    proof, prepared = said.body
    low = said.n
    if low != rules.base and not _is_proven(low, proof, rules, signed):
        return False
    seen = set()
    for pre_prepare, prepares in prepared:
        certificate = prepared_by(pre_prepare, prepares, rules, signed)
        if certificate is None or certificate.view >= said.view or certificate.n in seen:
            return False
        if not low < certificate.n <= low + rules.window:
            return False
        seen.add(certificate.n)
    return True


def prepared_by(pre_prepare: bytes, prepares: Sequence[bytes], rules: Rules, signed: Container[bytes]) -> Said | None:
    """The PRE-PREPARE of a certificate that it and q - 1 PREPAREs of distinct backups make."""
    first = _genuine(pre_prepare, signed)
    if first is None or first.type != "pre-prepare" or first.sender != first.view % rules.size:
        return None
    backups = set()
    for message in prepares:
        said = _genuine(message, signed)
        if said is None or said.type != "prepare" or said[2:5] != first[2:5] or said.sender == first.sender:
            return None
        backups.add(said.sender)
    return first if len(backups) >= rules.quorum - 1 else None


def carried_by(said: Said, rules: Rules, signed: Container[bytes]) -> Carried | None:
    """What a NEW-VIEW demands; None unless V is q valid VIEW-CHANGEs of distinct senders and O follows from V."""
    view_changes = [view_change_of(message, rules, signed) for message in said.body[0]]
    genuine = [change for change in view_changes if change is not None and change.view == said.view]
    if len(genuine) != len(view_changes) or len({change.sender for change in genuine}) != len(genuine):
        return None
    if len(genuine) < rules.quorum or said.sender != said.view % rules.size:
        return None
    demanded = recompute(said.view, genuine)
    elements = {}
    for message in said.body[1]:
        element = _genuine(message, signed)
        if element is None or element.type != "pre-prepare" or element.sender != said.sender:
            return None
        if element.view != said.view or element.n in elements:
            return None
        elements[element.n] = element.digest
    return demanded if elements == demanded.digests else None


def recompute(view: int, view_changes: Sequence[Said]) -> Carried:
    """O as it follows from V: for each n the digest prepared in the highest view, NULL where none was."""
    low = max(change.n for change in view_changes)
    best: dict[int, tuple[int, bytes]] = {}
    for change in view_changes:
        for pre_prepare, _ in change.body[1]:
            said = hear_signed("pbft", payload_of(pre_prepare))
            if said is not None and said.n > low:
                best[said.n] = max(best.get(said.n, (-1, b"")), (said.view, said.digest))
    top = max(best, default=low)
    return Carried(view, low, {n: best[n][1] if n in best else NULL for n in range(low + 1, top + 1)})


def is_choice(said: Said) -> bool:
    """Whether V shows certificates of different digests for one n, so that the highest view has to decide."""
    shown: dict[int, bytes] = {}
    for message in said.body[0]:
        change = hear_signed("pbft", payload_of(message))
        for pre_prepare, _ in change.body[1] if change is not None else ():
            first = hear_signed("pbft", payload_of(pre_prepare))
            if first is not None and shown.setdefault(first.n, first.digest) != first.digest:
                return True
    return False


def _is_proven(low: int, proof: Sequence[bytes], rules: Rules, signed: Container[bytes]) -> bool:
    senders, values = set(), set()
    for message in proof:
        said = _genuine(message, signed)
        if said is None or said.type != "checkpoint" or said.n != low:
            return False
        senders.add(said.sender)
        values.add(said.body)
    return len(values) == 1 and len(senders) >= rules.quorum


def _genuine(message: bytes, signed: Container[bytes]) -> Said | None:
    """What a message says, if its payload was ever signed by the member it names."""
    payload = payload_of(message)
    return hear_signed("pbft", payload) if payload in signed else None
