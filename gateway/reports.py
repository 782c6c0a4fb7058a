"""Makes verdicts on device reports from their evidence: digests and judgement are made again here, or there is no vote.

A report says nothing that whoever votes for it has not seen: the evidence is fetched by its hash, the three digests are
computed from it, and so is the judgement. What depends on state is demanded of a report that this replica is to put
forward itself (`hold`: it must be judged by the edition that we have), but not of another's batch: there a report of
another edition has its facts checked only, since a batch is never refused for state, and execution refuses it.
"""

import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

from firmware.wire import device as codec
from firmware.wire import transaction as transaction_codec
from firmware.wire.device import Evidence, Report
from firmware.wire.errors import Refused, check
from firmware.wire.seal import payload_hash
from gateway.dispatch.certified import Certified, Get
from gateway.dispatch.judge import Stored, is_different, judge, wanted
from gateway.ingest import verify
from gateway.ingest.verify import VerifiedTransaction
from gateway.shelf import Shelf

logger = logging.getLogger("gridseal.devices")

BEGINNING = bytes((0x87, transaction_codec.VERSION, codec.REPORT))  # of a report's payload: an array of 7, 1, 22
GOOD = 1024  # reports found good, until they are in a block
HELD = 64  # reports that are being looked at: one a device and interval is usual
EXPLAIN_S = 1.0  # for certified files that only the explanation needs


class Reports:
    """All methods in the loop's thread. bring_again(leaf): to ingest, after `hold`; refuse(sender, reason): counted."""

    def __init__(self, shelf: Shelf, get: Get, in_ledger: Callable[..., Awaitable[Any]], stored: Stored,
                 members: Sequence[bytes], wait_s: float):
        """get and stored are asked in the ledger's thread; members: kids of replicas by index."""
        self._shelf, self._get, self._in_ledger, self._stored = shelf, get, in_ledger, stored
        self._members, self._wait_s = list(members), wait_s
        self._good: OrderedDict[bytes, None] = OrderedDict()
        self._held: set[bytes] = set()
        self.spawn: Callable[[Coroutine[Any, Any, None], str], None]
        self.bring_again: Callable[[bytes], None]
        self.refuse: Callable[[bytes, str], None]

    def trust(self, key: bytes) -> None:
        """This report is our own, or was found good."""
        self._good[key] = None
        if len(self._good) > GOOD:
            self._good.popitem(last=False)

    def hold(self, found: VerifiedTransaction) -> bool:
        """Tells whether a transaction is a report that has to be looked at first; it is brought again if it is good."""
        if found.transaction.type != codec.REPORT or found.payload_hash in self._good:
            return False
        if found.payload_hash not in self._held:
            if len(self._held) >= HELD:
                self.refuse(found.transaction.sender, "busy")
            else:
                self._held.add(found.payload_hash)
                self.spawn(self._look(found), "report")
        return True

    def concerns(self, leaves: Sequence[bytes]) -> bool:
        """Whether one of them is a report that has not been found good here."""
        payloads = (verify.read_leaf(leaf)[2] for leaf in leaves)
        return any(payload[:3] == BEGINNING and payload_hash(payload) not in self._good for payload in payloads)

    async def check(self, leaves: Sequence[bytes], first: int | None) -> str | None:
        """The reason why a proposed batch is bad, or None; its evidence is asked for at replica `first`."""
        try:
            for leaf in leaves:
                payload = verify.read_leaf(leaf)[2]  # remembered: the batch's own check has read it
                report = _report_of(payload) if payload[:3] == BEGINNING else None
                if report is not None and payload_hash(payload) not in self._good:
                    await self._check(report, first, is_own=False)
                    self.trust(payload_hash(payload))
        except Refused as refused:
            return refused.reason
        return None

    async def _look(self, found: VerifiedTransaction) -> None:
        sender = found.transaction.sender
        try:
            first = self._members.index(sender) if sender in self._members else None
            await self._check(codec.decode_report(found.transaction.body), first, is_own=True)
        except Refused as refused:
            logger.warning("a device report of %s is not voted for: %s", sender.hex(), refused)
            self.refuse(sender, refused.reason)
            return
        finally:
            self._held.discard(found.payload_hash)
        self.trust(found.payload_hash)
        self.bring_again(found.leaf)

    async def _check(self, report: Report, first: int | None, is_own: bool) -> None:
        if not await self._shelf.fetch([report.evidence], first, self._wait_s):
            raise Refused("evidence_missing", report.evidence, None)
        needs = await self._in_ledger(self._needs, report)
        if needs and (report.kind is not None or report.offset is not None):
            await self._shelf.fetch(needs, first, EXPLAIN_S)
        await self._in_ledger(self._check_here, report, is_own)

    def _needs(self, report: Report) -> list[bytes]:
        """In the ledger's thread: certified files that explain the report and are not here."""
        return [name for name in wanted(self._evidence_of(report), Certified(self._get)) if not self._shelf.has(name)]

    def _check_here(self, report: Report, is_own: bool) -> None:
        """In the ledger's thread, where the state stands still."""
        evidence = self._evidence_of(report)
        check_facts(report, evidence)
        certified = Certified(self._get)
        if report.edition == certified.edition:
            check_judgement(report, evidence, certified, self._stored)
        elif is_own:
            raise Refused("wrong_state", certified.edition, report.edition)

    def _evidence_of(self, report: Report) -> Evidence:
        data = self._stored(report.evidence)
        check(data is not None, "evidence_missing", report.evidence, None)
        return codec.decode_evidence(data)


def _report_of(payload: bytes) -> Report | None:
    """None where the body is no report's: that is for execution to refuse."""
    try:
        return codec.decode_report(transaction_codec.decode(payload).body)
    except Refused:
        return None


def check_facts(report: Report, evidence: Evidence) -> None:
    """Raises Refused unless the digests are those of the evidence, and nothing in it contradicts a MATCH; no state."""
    check(report.device == evidence.device, "wrong_digest", evidence.device, report.device)
    sides = [side for side in evidence.sides if side is not None]
    if report.digests is None:
        check(len(sides) < len(evidence.sides), "wrong_outcome", "a side without an answer", report.outcome)
        return
    check(len(sides) == len(evidence.sides), "wrong_outcome", codec.NO_DATA, report.outcome)
    found = [(codec.digests_of(evidence, side), codec.identity_of(side)) for side in sides]
    check((report.digests, report.identity) in found, "wrong_digest", found[0], report.digests)
    is_spoiled = any(codec.has_extra(side) or is_different(evidence, side) for side in sides)
    check(report.outcome != codec.MATCH or not is_spoiled, "wrong_outcome", codec.MISMATCH, report.outcome)


def check_judgement(report: Report, evidence: Evidence, certified: Certified, stored: Stored) -> None:
    """Raises Refused unless the judgement is ours. A report that explains less (its maker has no certified files) is
    good; one that explains otherwise is not."""
    ours = judge(evidence, certified, stored)
    check((report.outcome, report.item) == (ours.outcome, ours.item), "wrong_outcome", [ours.outcome, ours.item],
          [report.outcome, report.item])
    check((report.digests, report.identity) == (ours.digests, ours.identity), "wrong_digest", ours.digests,
          report.digests)
    is_blind = any(stored(name) is None for name in wanted(evidence, certified))
    for said, found in ((report.kind, ours.kind), (report.offset, ours.offset)):
        check(said is None or said == found, "evidence_missing" if is_blind else "wrong_outcome", found, said)
