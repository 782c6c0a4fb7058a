"""Checks fetching a state between replicas, real exchanges and ledgers joined by a fake wire, and between processes."""

import asyncio
from functools import partial

import pytest

from firmware.wire import cbor
from gateway import exchange as exchange_module
from gateway.consensus.types import Behind, Head
from gateway.exchange import Exchange
from gateway.ledger.ledger import Ledger
from gateway.statefetch import Side, StateFetch
from gateway.transfer import answer
from tests.ledger.test_ledger import AGENTS, run
from tests.ledger.world import World
from tests.node.cluster import Cluster, until
from tests.node.test_missing import FRAME_BYTES, Store

INTERVAL = 4


def have_seals(cluster, indexes, count):
    return all(cluster.status(index)["seals"] >= count for index in indexes)


class Area:
    """Replica 0 is empty; 1 lies, 2 and 3 are honest."""

    def __init__(self, folder, lie):
        self.world = World(agents=AGENTS, parameters={"checkpoint_interval": INTERVAL, "log_window": 2 * INTERVAL})
        self.ahead = Ledger.open(folder / "ahead", self.world.genesis)
        for minute in range(1, 2 * INTERVAL + 1):
            run(self.ahead, self.world, minute)
        self.empty = Ledger.open(folder / "empty", self.world.genesis)
        self.lie, self.asked = lie, {1: 0, 2: 0, 3: 0}
        self.exchanges = [Exchange(partial(self._send, index), Store(self.ahead), FRAME_BYTES, lambda peer, found: None)
                          for index in range(4)]
        for one in self.exchanges[1:]:
            one.state_here = self.ahead.snapshots.get
        self.alarms = []
        self.side = Side(folder / "transfer.part")
        n, root, heads = self.ahead.position()
        self.target = Behind(n, [Head(*head) for head in heads], root, b"", (1, 2, 3))

    def _send(self, own, to, kind, body):
        if own == 1:
            body = self.lie(kind, body)
        self.asked[own] = self.asked.get(own, 0) + (kind == exchange_module.BUCKETS)
        if body is not None:
            asyncio.get_running_loop().call_soon(self.exchanges[to].framed, own, kind, cbor.decode(cbor.encode(body)))

    async def fetch(self, peers=(1, 2, 3)):
        fetching = StateFetch(self.exchanges[0], self.target, self.side, self.alarms.append)
        pairs = await fetching.fetch(peers)
        if pairs is not None:
            self.empty.install_state(self.target.n, fetching.headers, [tuple(head) for head in self.target.heads],
                                     self.target.state_root, pairs)
        return pairs

    def close(self):
        self.ahead.close()
        self.empty.close()


def about(kind, change):
    """A lie about one kind of answer."""
    return lambda sent, body: change(body) if sent == kind else body


def bit(body):
    index, data = body[1][0]
    return [body[0], [[index, data[:-1] + bytes((data[-1] ^ 1,))], *body[1][1:]]]


LIES = {
    "a bit flipped": (about(exchange_module.BUCKETS, bit), True),
    "another bucket": (about(exchange_module.BUCKETS, lambda body: [body[0], [[body[1][0][0], body[1][-1][1]]]]), True),
    "one not asked for": (about(exchange_module.BUCKETS, lambda body: [body[0], [[5000, b"\x80"]]]), True),
    "other leaves": (about(exchange_module.STATE, lambda body: [body[0], bytes(len(body[1])), body[2]]), True),
    "another head": (about(exchange_module.STATE, lambda body: [body[0], body[1], [["trade", bytes(3) + b"\1" + bytes(
        76)]]]), True),
    "nothing": (about(exchange_module.BUCKETS, lambda body: [body[0], []]), False),
    "silence": (about(exchange_module.BUCKETS, lambda body: None), False),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_liar_costs_nothing_but_its_name(tmp_path, lie, monkeypatch):
    """security.md T33: one lying peer of three; the others' answers make the whole state."""
    monkeypatch.setattr(exchange_module, "ANSWER_S", 0.2)
    monkeypatch.setattr("gateway.transfer.BUCKETS_ASKED", 2)

    async def body():
        area = Area(tmp_path, LIES[lie][0])
        assert await area.fetch() is not None
        assert area.empty.stand()[:4] == (2 * INTERVAL, 2 * INTERVAL, *area.ahead.stand()[2:4])
        assert [text for text in area.alarms if "replica 1 " in text] == area.alarms
        assert bool(area.alarms) == LIES[lie][1]
        assert area.asked[2] and area.asked[3]
        area.empty.check()
        area.close()
    asyncio.run(asyncio.wait_for(body(), 30))


def test_what_came_before_a_crash_is_not_fetched_again(tmp_path):
    async def body():
        area = Area(tmp_path, lambda kind, body: body)
        frozen = area.ahead.snapshots[2 * INTERVAL].state
        full = [index for index in range(4096) if frozen.buckets[index]]
        area.side.append([data for _, data in answer(frozen, full[:-2], FRAME_BYTES)])
        with open(tmp_path / "transfer.part", "ab") as file:
            file.write(b"\x00\x00\x01\x00torn")
        sent = []

        def listen(kind, body):
            sent.append(body)
            return body
        area.lie = listen
        assert await area.fetch([1]) is not None
        assert [index for body in sent if len(body) == 2 for index, _ in body[1]] == full[-2:]
        area.close()
    asyncio.run(asyncio.wait_for(body(), 30))


def test_nobody_has_it_any_more(tmp_path):
    async def body():
        area = Area(tmp_path, lambda kind, body: body)
        for one in area.exchanges:
            one.state_here = lambda n: None
        assert await area.fetch() is None and area.alarms == []
        assert area.empty.stand().n == 0
        area.close()
    asyncio.run(asyncio.wait_for(body(), 30))


def test_a_replica_far_behind_takes_over_the_state_while_meters_stream(tmp_path):
    """With real processes: more than the log window missed, blocks are not fetched, and its vote counts again."""
    cluster = Cluster(tmp_path / "area", 4)
    try:
        cluster.start()
        meter = cluster.enrol(1, 2)
        meter.publish(3)
        cluster.wait_seals(6)
        late = (cluster.status(0)["primary"] + 1) % 4
        assert cluster.end(late) == 0
        path = cluster.home(late) / "gateway.toml"
        path.write_text(path.read_text() + "transfer_after = 8\n")
        for batch in range(14):
            meter.publish(1)
            cluster.wait_seals(6 + 2 * (batch + 1))
        others = [index for index in range(4) if index != late]
        cluster.start_replica(late)
        cluster.wait_ready(late)
        for batch in range(6):  # it streams on
            meter.publish(1)
            goal = 36 + 2 * batch
            until("the others", partial(have_seals, cluster, others, goal))
        until("taken over", lambda: "took over the state of n" in cluster.log(late))
        until("level", lambda: cluster.status(late)["header_hash"] == cluster.status(others[0])["header_hash"], 60)
        assert all("begins again" not in cluster.log(index) for index in others)
        down = next(index for index in others if index != cluster.status(others[0])["primary"])
        cluster.kill(down)  # three are left, all three have to vote
        meter.publish(2)
        until("its vote counts", lambda: all(cluster.status(index)["seals"] >= 50 for index in others if index != down))
        until("level", lambda: cluster.status(late)["state_root"] == cluster.status(
            next(index for index in others if index != down))["state_root"])
        cluster.end(late)
        ledger = Ledger.open(cluster.home(late) / "data")
        assert ledger.base.n > 0
        ledger.check()
        ledger.close()
    finally:
        cluster.stop()
