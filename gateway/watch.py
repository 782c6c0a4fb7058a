"""Makes device reports: pulls each configured device from time to time, judges it, signs what was found, sends it.

Times are labels (dispatch.md: `check_interval`), with jitter so that the devices of an area are not all asked at once:
a check begins when seven to eight tenths of the interval are over, so that pull and ordering fit into it. A pull is
work of the loop's own tasks; devices on one line take turns. What comes of a report is decided on chain; one that was
refused there because the certified versions had changed meanwhile is made again at once.
"""

import asyncio
import importlib
import logging
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any, Protocol

from firmware.wire import cose
from firmware.wire import device as codec
from firmware.wire.device import Report
from firmware.wire.errors import Refused
from firmware.wire.seal import payload_hash
from gateway.config import DeviceConfig
from gateway.dispatch.certified import Certified, Get
from gateway.dispatch.judge import Stored, judge, wanted
from gateway.member import Member
from gateway.reports import EXPLAIN_S, Reports
from gateway.shelf import Shelf

logger = logging.getLogger("gridseal.devices")

SPACING = (0.7, 0.8)  # of an interval, from the beginning of a check to the next one's
FIRST_S = 5  # label time after the start until the first check, at most
LOOK_S = 1.0  # between two looks at a clock that may be held
UNORDERED_MS = 15_000  # real time; with several view changes an area decides within it, or not at all
SHORTEST_S, BUDGET_S = 5.0, 300.0  # real time that one pull may take


class Clock(Protocol):
    """As `deploy.clock.Clock`."""

    speed: int

    def now_ms(self) -> int: ...

    def monotonic_ms(self) -> int: ...


class Watch:
    """One replica's devices. submit(transaction) is ingest's; get and stored are asked in the ledger's thread."""

    def __init__(self, devices: tuple[DeviceConfig, ...], clock: Clock, chance: Random, member: Member,
                 shelf: Shelf, reports: Reports, get: Get, stored: Stored, in_ledger: Callable[..., Awaitable[Any]],
                 submit: Callable[[bytes], Awaitable[bytes]]):
        self._devices, self._clock, self._chance, self._member = devices, clock, chance, member
        self._shelf, self._reports, self._get, self._stored = shelf, reports, get, stored
        self._in_ledger, self._submit = in_ledger, submit
        self._lines = {device.port: asyncio.Lock() for device in devices}
        self._again = {device.name: asyncio.Event() for device in devices}
        self._unordered_ms: dict[str, int] = {}  # real time of the oldest report that is in no block yet
        # None has come into a block for so long: the area decides nothing just now, and people must hear all the same.
        self.on_unordered: Callable[[Report], None] = lambda report: None

    def ordered(self, name: str) -> None:
        """A report of ours is in a block."""
        self._unordered_ms.pop(name, None)

    def check_soon(self, name: str) -> None:
        """A device's next check is due now."""
        if name in self._again:
            self._again[name].set()

    async def run(self, device: DeviceConfig) -> None:
        """For ever: checks one device."""
        # pymodbus takes 39 MB and half a second to import: only where there is a device, and not in the loop's thread
        await asyncio.to_thread(importlib.import_module, "gateway.dispatch.pull")
        interval_ms = device.check_interval_s * 1000
        due_ms = self._clock.now_ms() + int(self._chance.uniform(0, min(interval_ms, FIRST_S * 1000)))
        while True:
            await self._wait(device.name, due_ms)
            started_ms = self._clock.now_ms()
            try:
                await self.check(device)
            except Refused as refused:  # busy: too much is under way; the next check comes
                logger.warning("device %s: report not sent: %s", device.name, refused)
            # from its beginning: a pull's own time must not stretch the interval
            due_ms = started_ms + int(interval_ms * self._chance.uniform(*SPACING))

    async def check(self, device: DeviceConfig) -> None:
        """Pulls, judges, reports once."""
        from gateway.dispatch.pull import Target, pull

        interval_s = device.check_interval_s / self._clock.speed
        async with self._lines[device.port]:
            evidence = await pull(Target(device.name, device.model, device.port, device.unit, device.twin, device.baud),
                                  max(SHORTEST_S, min(BUDGET_S, interval_s)))
        time_s = self._clock.now_ms() // 1000
        data = codec.encode_evidence(evidence)
        name = (await self._shelf.keep([data]))[0]
        needs = await self._in_ledger(lambda: [one for one in wanted(evidence, Certified(self._get))
                                               if not self._shelf.has(one)])
        if needs:
            await self._shelf.fetch(needs, None, EXPLAIN_S)
        found, edition = await self._in_ledger(self._judge, evidence)
        report = codec.Report(device.name, found.digests, found.outcome, found.kind, time_s, name, found.item,
                              found.offset, found.identity, edition, device.check_interval_s)
        signed = self._member.sign(codec.REPORT, codec.report_body(report), time_s)
        self._reports.trust(payload_hash(cose.parse(signed).payload))
        await self._submit(signed)
        now_ms = self._clock.monotonic_ms()
        if now_ms - self._unordered_ms.setdefault(device.name, now_ms) > UNORDERED_MS:
            self.on_unordered(report)

    def _judge(self, evidence: codec.Evidence) -> tuple[Any, int]:
        """In the ledger's thread, where the state stands still."""
        certified = Certified(self._get)
        return judge(evidence, certified, self._stored), certified.edition

    async def _wait(self, name: str, due_ms: int) -> None:
        """Until a label time, or until the device is to be checked soon."""
        again = self._again[name]
        while (left_ms := due_ms - self._clock.now_ms()) > 0 and not again.is_set():
            try:
                async with asyncio.timeout(min(LOOK_S, max(0.002, left_ms / 1000 / self._clock.speed))):
                    await again.wait()
            except TimeoutError:
                continue
        again.clear()

