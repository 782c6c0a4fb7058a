"""Makes device consistency work in a replica: joins shelf, reports, watch and alarms with ledger, ingest and peers."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from random import Random
from typing import Any

from firmware.wire import device as codec
from firmware.wire import transaction as transaction_codec
from firmware.wire.device import Report
from firmware.wire.errors import Refused
from firmware.wire.reasons import REASONS
from gateway.alarms import CLEARED, RAISED, Alarms
from gateway.api import views
from gateway.config import DeviceConfig
from gateway.dispatch import records
from gateway.dispatch.certified import Certified, Get, named_by
from gateway.exchange import Exchange
from gateway.ingest import verify
from gateway.ingest.ingest import Ingest
from gateway.ledger.files import Files
from gateway.ledger.ledger import Ledger, Outcome
from gateway.ledger.reader import Reader
from gateway.member import Member
from gateway.reports import Reports
from gateway.shelf import FOLDER, Shelf
from gateway.silence import Silence
from gateway.watch import Clock, Watch

logger = logging.getLogger("gridseal.devices")

LOOK_S = 5.0  # between two looks for devices that nobody reports on
FETCH_S = 10.0  # for evidence that nobody waits for
FETCHING = 16

_OURS = (codec.CERTIFY, codec.ENDORSE, codec.REPORT)
_STATE_MOVED = REASONS.index("wrong_state")


class Devices:
    """All methods in the loop's thread. `reader` is the loop's own connection to the ledger."""

    def __init__(self, configured: tuple[DeviceConfig, ...], folder: Path, ledger: Ledger, reader: Reader,
                 member: Member, clock: Clock, alarms: Alarms, ingest: Ingest, exchange: Exchange, *,
                 in_ledger: Callable[..., Awaitable[Any]], connected: Callable[[], Sequence[int]],
                 spawn: Callable[[Coroutine[Any, Any, None], str], None]):
        self._configured, self._folder, self._reader, self._member = configured, folder / FOLDER, reader, member
        self._alarms, self._spawn = alarms, spawn
        self._fetching: set[bytes] = set()
        self._silence = Silence(clock)
        files = Files(ledger.store, lambda: named_by(Certified(ledger.state_value)))
        self.shelf = Shelf(files, exchange, in_ledger, connected, spawn)
        self.reports = Reports(self.shelf, ledger.state_value, in_ledger, files.get,
                               [one.kid for one in ledger.members], ledger.parameters["timeout_ms"] / 1000)
        self.reports.spawn = spawn
        self.reports.bring_again = lambda leaf: ingest.submitted([leaf])
        self.reports.refuse = lambda sender, reason: ingest.refusals.count(sender.hex(), reason)
        self._watch = Watch(configured, clock, Random(), member, self.shelf, self.reports, ledger.state_value,
                            files.get, in_ledger, ingest.submit_transaction)
        self._watch.on_unordered = self._tell_unordered
        ingest.hold = self.reports.hold
        ingest.on_alarm(alarms.seen)

    def start(self) -> None:
        """Begins to check; alarms that stand are told again."""
        self._spawn(self._alarms.run(), "alarms")
        self._spawn(self._look_for_silence(), "silence")
        self._spawn(self._take_folder(), "certified files")
        certified = Certified(self._reader.state_value)
        for name in certified.registry.devices:
            self._tell(name, certified, is_ours=False)
        for device in self._configured:
            self._spawn(self._watch.run(device), f"device {device.name}")

    def executed(self, outcome: Outcome) -> None:
        """A block was executed here."""
        found = [(tx, code) for leaf, code in zip(outcome.items, outcome.results) if (tx := _transaction(leaf))]
        if not found:
            return
        certified = Certified(self._reader.state_value)
        for order, code in found:
            is_own = order.sender == self._member.kid
            if is_own and order.type == codec.REPORT:
                self._watch.ordered(order.body[0])
            if order.type != codec.REPORT:
                self._spawn(self._take_folder(), "certified files")
            elif code == 0:
                self._tell(order.body[0], certified, is_own, self._silence.heard(order.body[0]))
                self._keep_evidence(order)
            elif is_own:
                logger.warning("report on %s refused: %s", order.body[0], REASONS[code])
                if code == _STATE_MOVED:
                    self._watch.check_soon(order.body[0])

    def views(self, get: Get) -> list[dict[str, Any]]:
        """Every device that was certified, reported or is configured here; what the page shows. get: of a state, in
        whichever thread."""
        certified = Certified(get)
        pulled = {device.name: device for device in self._configured}
        rows = []
        for name in sorted({*certified.registry.devices, *pulled}):
            rows.append(views.device(name, certified.settings(name), certified.known(name), certified.report_of(name),
                                     certified.model, pulled.get(name)))
        return rows

    def _tell(self, name: str, certified: Certified, is_ours: bool, was_overdue: bool = False) -> None:
        record = certified.report_of(name)
        if record is not None and (was_overdue or record.alarm_height is not None or len(record.changes) > 1):
            self._alarms.tell(name, facts_of(name, record), is_ours)

    def _tell_unordered(self, report: Report) -> None:
        """An alarm on this replica's own word; the chain's takes its place when blocks are made again."""
        if report.outcome != codec.MATCH:
            self._alarms.tell(report.device, {
                "device": report.device, "state": RAISED, "outcome": report.outcome, "item": report.item,
                "kind": report.kind, "offset": report.offset, "since": views.time_text(report.time_s * 1000),
                "height": None})

    async def _look_for_silence(self) -> None:
        while True:
            certified = Certified(self._reader.state_value)
            for name in certified.registry.devices:
                record = certified.report_of(name)
                if record is not None and self._silence.is_news(name, record):
                    self._alarms.tell(name, overdue_facts(name, record), is_ours=False)
            await asyncio.sleep(LOOK_S)

    def _keep_evidence(self, order: "transaction_codec.Transaction") -> None:
        """Who was not among those that voted, or has caught up, gets the evidence now, if somebody gives it."""
        name = order.body[5]
        if not self.shelf.has(name) and len(self._fetching) < FETCHING:
            self._fetching.add(name)
            self._spawn(self._fetch_evidence(name), "evidence")

    async def _fetch_evidence(self, name: bytes) -> None:
        if not await self.shelf.fetch([name], None, FETCH_S):
            logger.warning("evidence %s of a device report is not here, and nobody gives it", name.hex())
        self._fetching.discard(name)

    async def _take_folder(self) -> None:
        await self.shelf.take_folder(self._folder, named_by(Certified(self._reader.state_value)))


def facts_of(name: str, record: records.DeviceRecord) -> dict[str, Any]:
    """What an alarm of a device says; height: of the block that holds the report."""
    return {"device": name, "state": CLEARED if record.alarm_height is None else RAISED, "outcome": record.outcome,
            "item": record.item, "kind": record.kind, "offset": record.offset,
            "since": views.time_text(record.since_s * 1000), "height": record.since_height}


def overdue_facts(name: str, record: records.DeviceRecord) -> dict[str, Any]:
    """What an alarm says of a device that nobody reports on any more; since: its last report."""
    return {"device": name, "state": RAISED, "outcome": codec.NO_DATA, "item": None, "kind": views.OVERDUE,
            "offset": None, "since": views.time_text(record.time_s * 1000), "height": record.height}


def _transaction(leaf: bytes) -> "transaction_codec.Transaction | None":
    """A leaf's transaction if it is about devices."""
    try:
        payload = verify.read_leaf(leaf)[2]
        if payload[:1] != b"\x87" or payload[2] not in _OURS:
            return None
        found = transaction_codec.decode(payload)
        if found.type == codec.REPORT:
            codec.decode_report(found.body)
    except Refused:
        return None
    return found
