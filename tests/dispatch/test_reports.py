"""No vote for a report that does not follow from its evidence; evidence comes from whoever has it, by hash."""

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from firmware.wire import device as codec
from firmware.wire import seal, transaction
from firmware.wire.device import Report
from gateway.dispatch.judge import Judgement
from gateway.exchange import Exchange
from gateway.ingest.verify import VerifiedTransaction
from gateway.ledger.files import Files
from gateway.ledger.sqlite import SqliteStore
from gateway.reports import HELD, Reports
from gateway.shelf import Shelf
from tests.dispatch.plant import KIND, Plant, new_device
from tests.ledger.world import START_S

WAIT_S = 0.4


class Replica:
    """The parts of one replica that look at reports, on a wire of function calls."""

    def __init__(self, index: int, plant: Plant, folder: Path, wire: "list[Replica]"):
        self.index, self.refused, self.again = index, [], []  # type: ignore[var-annotated]
        self._tasks: set[asyncio.Task[None]] = set()
        folder.mkdir()
        self.files = Files(SqliteStore(folder / "ledger.db"), lambda: ())
        self.exchange = Exchange(lambda to, kind, body: asyncio.get_running_loop().call_soon(
            wire[to].exchange.framed, index, kind, body), None, 1 << 23, lambda peer, datas: None)  # type: ignore[arg-type]
        self.shelf = Shelf(self.files, self.exchange, in_ledger,
                           lambda: [one.index for one in wire if one.index != index], self.spawn)
        self.reports = Reports(self.shelf, plant.table.get, in_ledger, self.files.get,
                               [key.kid for key in plant.world.member_keys], WAIT_S)
        self.reports.spawn = self.spawn
        self.reports.bring_again = self.again.append
        self.reports.refuse = lambda sender, reason: self.refused.append(reason)

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def rest(self) -> None:
        while self._tasks:
            await asyncio.gather(*self._tasks)


async def in_ledger(function: Any, *arguments: Any) -> Any:
    return function(*arguments)


class Scene:
    """A plant with everything certified, a device, two replicas: the first has pulled, the second is to vote."""

    def __init__(self, folder: Path):
        self.plant = Plant()
        self.plant.certify_all()
        self.device, self.control = new_device()
        self.wire: list[Replica] = []
        self.wire += [Replica(index, self.plant, folder / str(index), self.wire) for index in range(2)]
        self.puller, self.voter = self.wire

    def pull(self, has_files: bool = True) -> tuple[Judgement, bytes]:
        found, evidence = self.plant.judge(self.device)
        self.puller.files.put([evidence, *(self.plant.stored.values() if has_files else ())])
        return found, evidence

    def leaf(self, found: Judgement, pulled: bytes, **changes: Any) -> bytes:
        report = Report("bay-1", found.digests, found.outcome, found.kind, START_S, codec.hash_of(pulled),
                        found.item, found.offset, found.identity, self.plant.certified.edition, 900)
        return self.plant.world.tx(codec.REPORT, codec.report_body(report._replace(**changes)), "replica 0")

    async def vote(self, found: Judgement, evidence: bytes, **changes: Any) -> str | None:
        return await self.voter.reports.check([self.leaf(found, evidence, **changes)], 0)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_an_honest_report(scene: Scene) -> None:
    async def play() -> None:
        scene.control.do("tamper settings 70")
        found, evidence = scene.pull()
        leaf = scene.leaf(found, evidence)
        assert await scene.voter.reports.check([leaf], 0) is None
        assert codec.hash_of(evidence) in scene.voter.files, "whoever voted holds the evidence"
        assert found.digests is not None and scene.plant.certified.known("bay-1").digests[2] in scene.voter.files  # type: ignore[union-attr]
        assert len(scene.voter.files) == 2, "and the one certified file that explains it"
        assert await scene.vote(found, evidence, kind=None, offset=None) is None, "less explained is no lie"
    asyncio.run(play())


LIES: dict[str, tuple[str, dict[str, Any], str]] = {
    "digests that are not the evidence's": ("tamper settings 70", {"digests": "certified", "outcome": "MATCH",
                                            "item": None, "kind": None, "offset": None}, "wrong_digest"),
    "no data, where there is some": ("repair", {"digests": None, "identity": None, "outcome": "NO_DATA"},
                                     "wrong_outcome"),
    "an outcome that does not follow": ("tamper settings 70", {"outcome": "NOT_CURRENT"}, "wrong_outcome"),
    "another item": ("tamper settings 70", {"item": "software"}, "wrong_outcome"),
    "another offset": ("tamper settings 70", {"offset": 71}, "wrong_outcome"),
    "another kind": ("tamper settings 70", {"kind": "twin"}, "wrong_outcome"),
    "another's identity": ("repair", {"identity": ["ssc-100", "bay-2"]}, "wrong_digest"),
    "another device": ("repair", {"device": "bay-2"}, "wrong_digest"),
    "the good twin alone": ("twin tamper settings 70", {"digests": "certified", "outcome": "MATCH", "item": None,
                                                        "kind": None, "offset": None}, "wrong_outcome"),
    "a visitor's file passed over": ("extra", {"outcome": "MATCH", "item": None, "kind": None}, "wrong_outcome"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lying_replica_gets_no_vote(scene: Scene, lie: str) -> None:
    line, changes, reason = LIES[lie]
    changes = dict(changes)
    if changes.get("digests") == "certified":
        changes["digests"] = list(scene.plant.certified.known("bay-1").digests)  # type: ignore[union-attr]

    async def play() -> None:
        scene.control.do(line)
        found, evidence = scene.pull()
        assert await scene.vote(found, evidence, **changes) == reason
        edition = scene.plant.certified.edition - 1
        facts = await scene.vote(found, evidence, **changes, edition=edition)
        if reason == "wrong_digest" or changes.get("outcome") in ("MATCH", "NO_DATA"):
            assert facts == reason, "what contradicts the evidence is refused at any edition"
        assert await scene.vote(found, evidence) is None
    asyncio.run(play())


def test_evidence_that_nobody_has_or_can_read(scene: Scene) -> None:
    async def play() -> None:
        found, evidence = scene.plant.judge(scene.device)
        assert await scene.vote(found, evidence) == "evidence_missing"
        scene.puller.files.put([b"nonsense"])
        assert await scene.vote(found, b"nonsense") == "malformed"
        scene.control.do("tamper settings 70")
        found, evidence = scene.pull(has_files=False)
        explained = scene.plant.judge(scene.device)[0]
        assert await scene.vote(explained, evidence) == "evidence_missing", "the certified file that would explain it"
        assert await scene.vote(explained._replace(kind=None, offset=None), evidence) is None
    asyncio.run(play())


def test_a_batch_is_not_refused_for_state(scene: Scene) -> None:
    """Another edition, or a body that is no report's: execution has the word."""
    async def play() -> None:
        found, evidence = scene.pull()
        scene.plant.certify(KIND._replace(version="9.0"))
        assert await scene.vote(found, evidence, edition=scene.plant.certified.edition - 1) is None
        for kind, sender in ((codec.REPORT, "replica 0"), (codec.CERTIFY, "laboratory")):
            assert await scene.voter.reports.check([scene.plant.world.tx(kind, ["nothing"], sender)], 0) is None
    asyncio.run(play())


def test_what_is_brought_forward_is_looked_at_first(scene: Scene) -> None:
    def verified(leaf: bytes) -> VerifiedTransaction:
        payload = transaction.cose.parse(leaf).payload
        return VerifiedTransaction(leaf, payload, seal.payload_hash(payload), transaction.decode(payload))

    async def play() -> None:
        found, evidence = scene.pull()
        voter, good = scene.voter, scene.leaf(found, evidence)
        assert voter.reports.hold(verified(good)) and voter.reports.hold(verified(good)), "held, once"
        await voter.rest()
        assert voter.again == [good] and not voter.reports.hold(verified(good))
        for changes, reason in (({"outcome": "NO_DATA"}, "wrong_outcome"), ({"kind": "strange"}, "malformed"),
                                ({"edition": 0}, "wrong_state"), ({"evidence": bytes(32)}, "evidence_missing")):
            assert voter.reports.hold(verified(scene.leaf(found, evidence, **changes)))
            await voter.rest()
            assert voter.refused.pop() == reason
        assert voter.again == [good]
        for number in range(HELD + 3):
            assert voter.reports.hold(verified(scene.leaf(found, evidence, time_s=number, evidence=bytes(32))))
        assert voter.refused == ["busy"] * 3
        await voter.rest()
        assert not voter.reports.hold(verified(scene.plant.world.tx(codec.CERTIFY, [], "laboratory")))
    asyncio.run(play())


def test_only_what_was_asked_for_is_kept(scene: Scene) -> None:
    async def play() -> None:
        scene.voter.exchange.framed(0, 7, [b"unasked"])
        await scene.voter.rest()
        assert len(scene.voter.files) == 0
        scene.voter.exchange.framed(0, 6, ["no hash"])
        assert scene.voter.exchange.refused["malformed"] == 1
    asyncio.run(play())


def test_a_folder_of_certified_files(scene: Scene, tmp_path: Path) -> None:
    """What a laboratory handed over is taken when the state names it, and only then."""
    async def play() -> None:
        place = tmp_path / "certified"
        assert await scene.voter.shelf.take_folder(place, [bytes(32)]) == 0
        place.mkdir()
        for number, data in enumerate((b"named", b"not named")):
            (place / f"{number}.cbor").write_bytes(data)
        named = [codec.hash_of(b"named")]
        assert await scene.voter.shelf.take_folder(place, named) == 1
        assert await scene.voter.shelf.take_folder(place, named) == 0
        assert await scene.voter.shelf.get(named[0]) == b"named" and len(scene.voter.files) == 1
    asyncio.run(play())
