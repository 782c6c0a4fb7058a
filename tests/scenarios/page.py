"""Serves the page over a real ledger with a market, without replicas, meters or brokers: `with Page(folder) as page`.

Two slots are final, one is provisional, one is cleared, orders wait for the next; a device was altered and mended, and
another one stands altered. What a replica says of itself (peers, brokers, witnesses) is made up here.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from firmware.wire import device as codec
from firmware.wire import transaction
from gateway.api import views
from gateway.api.app import make_app
from gateway.api.server import HttpServer
from gateway.dispatch.certified import Certified
from gateway.stores import Stores
from sim_hardware.security_device import Kind, factory_files
from tests.contracts.settling import Area
from tests.ledger.world import key

KINDS = (Kind(7, "ssc-100", "2.0", "bay-1", 3001), Kind(7, "ssc-100", "2.0", "bay-2", 3001))
ENERGIES = {1: [(4_200, 0), (5_125, 0)], 2: [(0, 9_000), (130, 4_999)], 3: [(3_000, 0), (2_750, 0)],
            4: [(812, 0), (640, 0)]}
MARKUP = "<img src=x onerror=alert(1)>\"'&amp;"


class Shown:
    """As gateway.node.Node: a `Source` over a ledger."""

    def __init__(self, area: Area):
        self.area, self.stores = area, Stores(area.ledger, area.folder)
        self._clock = area.now_s * 1000, 0.0, 0  # label, when it was set, how much faster it runs
        self.changes: dict[str, Any] = {}

    def set_clock(self, time_s: int, rate: int = 0) -> None:
        """Labels run from here on; 0: they stand."""
        self._clock = time_s * 1000, time.monotonic(), rate

    @property
    def now_ms(self) -> int:
        label_ms, since_s, rate = self._clock
        return label_ms + int((time.monotonic() - since_s) * 1000) * rate

    def status(self) -> dict[str, Any]:
        stand = self.area.ledger.stand()
        blocks, seals, readings, transactions, refused = stand.counts
        _, height, header_hash = stand.heads[0]
        standing = views.Standing(
            index=0, pid=1, folder="", area="north", chain_id=self.area.chain_id, speed=self.area.ledger.speed,
            started_ms=0, now_ms=self.now_ms, kids=[member.kid for member in self.area.members], connected=[], view=0,
            active=True, primary=0, n=stand.n, low=0, height=height, header_hash=header_hash,
            state_root=stand.state_root, certified_height=height, readings=readings, seals=seals,
            transactions=transactions, marked={}, refused={"malformed": 1}, refused_by_agent={},
            refused_in_blocks=refused, peers_refused={}, consensus_refused={}, pending=0, newest_ms=self.now_ms,
            brokers=[], points=[views.Point(point, key(agent).kid, 3, self.now_ms, 4_100 - 900 * point, 12_325, 0, 0)
                                for point, agent in self.area.agents.items()],
            bytes_written=0, votes_bytes=0, halted=False, alarms=[])
        return {**views.status(standing), "witnesses": {"k": 3, "n": 4, "height": height - 1}, "alarms_raised": [],
                **self.changes}

    def is_ready(self) -> bool:
        return True

    async def devices_shown(self) -> list[dict[str, Any]]:
        return await self.stores.of_state(_devices)

    async def block(self, channel: str, height: int) -> dict[str, Any] | None:
        return await self.stores.block(channel, height)

    async def transaction(self, payload_hash: bytes) -> dict[str, Any] | None:
        return await self.stores.transaction(payload_hash)

    async def market(self, slot_s: int | None) -> dict[str, Any] | None:
        return await self.stores.market(slot_s)

    async def settlement(self, slot_s: int | None) -> dict[str, Any] | None:
        return await self.stores.settlement(slot_s)

    async def accounts(self) -> dict[str, Any]:
        return await self.stores.accounts()


class Page:
    """The server in a thread with a loop of its own; `area` is changed by the test's thread alone."""

    def __init__(self, area: Area):
        self.area, self.shown = area, Shown(area)

    def __enter__(self) -> Page:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(20)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        asyncio.run_coroutine_threadsafe(self._server.close(), self._loop).result(20)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(20)
        self.shown.stores.close()

    @property
    def url(self) -> str:
        return f"http://{self._server.address}/"

    async def _start(self) -> HttpServer:
        server = HttpServer(make_app(self.shown), "127.0.0.1", 0)
        server.start()
        return server


def make_area(folder: Path, mechanism: str = "knn") -> Area:
    """The area that a page is shown of; its newest block is half an hour into the third slot."""
    folder.mkdir(exist_ok=True)
    area = Area(folder, points=(1, 2, 3, 4), owners={1: "ann", 2: "ben", 3: "cem", 4: "grid"},
                rule_sets={"market": {"mechanism": mechanism}, "tariff": {"zone": [[0, 3600]]}})
    first_s = area.first_s
    _plant(area)
    for at, asks in enumerate(((41_000, 8_000), (39_500, 5_000))):
        area.order(first_s + at * 3600, 1, 2, *asks)
        area.order(first_s + at * 3600, 0, 1, 55_000 - at, 4_000)
        area.order(first_s + at * 3600, 0, 3, 47_300, 3_000)
    assert area.block() == ["accepted"] * 6
    area.run_day(ENERGIES, is_final=False)
    for slot_s in (first_s + 3 * 3600, first_s + 4 * 3600):
        area.order(slot_s, 0, 1, 52_000, 2_000)
        area.order(slot_s, 0, 3, 46_000, 1_000)
        area.order(slot_s, 1, 2, 40_000, 1_500)
    assert area.block() == ["accepted"] * 6
    area.finish(first_s + 3600)
    area.block(first_s + 3 * 3600 - 200)
    return area


def report(area: Area, name: str, outcome: str, item: str | None = None, kind: str | None = None,
           offset: int | None = None) -> None:
    """A replica's report on a device: its settings are as certified, or not."""
    area.block(area.now_s + 20)
    certified = Certified(area.ledger.state_value)
    known = certified.known(name)
    assert known is not None
    digests: list[bytes] | None = list(known.digests) if outcome != codec.NO_DATA else None
    if outcome == codec.MISMATCH:
        assert digests is not None
        digests[codec.ITEMS.index(item or "") - 1] = bytes(32)
    body = codec.Report(name, digests, outcome, kind, area.now_s, bytes(32), item, offset,
                        [known.model, name] if digests else None, certified.edition, 60)
    area.add(codec.REPORT, codec.report_body(body), "replica 0")
    assert area.block() == ["accepted"]


def _plant(area: Area) -> None:
    """Two devices, certified: one is altered and mended, one stands altered."""
    people = ("laboratory", "manufacturer", "regulator")
    for name in people:
        request = area.request(name, name)
        area.add(transaction.ENROL, transaction.enrol_body(request, key("operator").kid, [], ""))
    assert area.block() == ["accepted"] * 3
    for kind in KINDS:
        body = _certify_body(kind)
        area.add(codec.CERTIFY, body, "laboratory")
        for role in people[1:]:
            area.add(codec.ENDORSE, [codec.certify_hash(body), role], role)
        assert area.block() == ["accepted"] * 3
    report(area, "bay-1", codec.MATCH)
    report(area, "bay-2", codec.MATCH)
    report(area, "bay-1", codec.MISMATCH, "strategy", "truncated", 1_000)
    report(area, "bay-1", codec.MATCH)
    report(area, "bay-2", codec.MISMATCH, "settings", "value", 77)


def _certify_body(kind: Kind) -> list[Any]:
    digests = [codec.digest_of(file.role, kind.model, kind.device, file.data) for file in factory_files(kind)[:3]]
    return [kind.model, kind.version, kind.device, *digests]


def _devices(get: Any) -> list[dict[str, Any]]:
    certified = Certified(get)
    return [views.device(name, certified.settings(name), certified.known(name), certified.report_of(name),
                         certified.model, None) for name in _names(certified)]


def _names(certified: Certified) -> Sequence[str]:
    return certified.registry.devices
