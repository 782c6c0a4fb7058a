"""Checks fetching between replicas, real exchanges and ledgers joined by a fake wire: liars are named, not believed."""

import asyncio
import json
import logging
from functools import partial

import pytest

from firmware.wire import cbor
from firmware.wire.errors import Refused
from gateway import exchange as exchange_module
from gateway import missing as missing_module
from gateway.consensus.types import Behind, Head
from gateway.exchange import QUESTIONS_WAITING, Exchange
from gateway.ledger import block
from gateway.ledger.ledger import Ledger
from gateway.missing import Missing
from gateway.transport import BLOCKS, WANT_BLOCKS, WANT_ENVELOPES
from tests.ledger.test_ledger import AGENTS, run
from tests.ledger.world import World

FRAME_BYTES = 1 << 20
HEIGHT = 9


class Store:
    """What a replica gives to its peers: the ledger's own, or something else."""

    def __init__(self, ledger, tamper=lambda pairs: pairs):
        self.ledger, self.tamper, self.asked = ledger, tamper, 0

    async def blocks(self, channel, first, count, max_bytes):
        self.asked += 1
        return self.tamper(self.ledger.blocks(channel, first, count, max_bytes))

    async def envelopes_in(self, channel, height):
        self.asked += 1
        return self.tamper([one for one in self.ledger.envelopes_in(channel, height) if one])

    async def pending_envelopes(self, hashes):
        return []


class NoProposals:
    """No batch waits for readings here."""

    async def keep_fetched(self, envelopes, wanted):
        return set()


class Area:
    """Replica 0 is behind; 1 lies, 2 is honest. All that one sends arrives at the other in the next turn."""

    def __init__(self, folder, tamper):
        self.world = World(agents=AGENTS)
        self.ahead = Ledger.open(folder / "ahead", self.world.genesis)
        for minute in range(1, HEIGHT + 1):
            run(self.ahead, self.world, minute)
        self.behind = Ledger.open(folder / "behind", self.world.genesis)
        self.stores = [Store(self.behind), Store(self.ahead, tamper), Store(self.ahead)]
        self.exchanges = [Exchange(partial(self._send, index), store, FRAME_BYTES, self._envelopes)
                          for index, store in enumerate(self.stores)]
        self.missing = Missing(self.exchanges[0], self.behind, NoProposals(), self._in_ledger, lambda: [1, 2],
                               folder / "readings.json")
        n, root, heads = self.ahead.position()
        self.target = Behind(n, [Head(*head) for head in heads], root, b"", (1, 2))

    def _send(self, own, to, kind, body):
        asyncio.get_running_loop().call_soon(self.exchanges[to].framed, own, kind, cbor.decode(cbor.encode(body)))

    def _envelopes(self, peer, envelopes):
        asyncio.get_running_loop().create_task(self.missing.take(envelopes))

    async def _in_ledger(self, function, *arguments):
        return function(*arguments)

    async def catch_up(self):
        pairs = await self.missing.fetch_blocks(self.target, [Head(*head) for head in self.behind.stand().heads])
        if pairs is not None:
            self.behind.install(self.target.n, pairs, [tuple(head) for head in self.target.heads],
                                self.target.state_root)
        return pairs

    def close(self):
        self.ahead.close()
        self.behind.close()


@pytest.fixture
def join(tmp_path):
    """Runs a coroutine function with an area whose replica 1 tampers with what it gives."""
    def go(tamper, body):
        async def inside():
            area = Area(tmp_path, tamper)
            try:
                await body(area)
            finally:
                area.close()
        asyncio.run(asyncio.wait_for(inside(), 60))
    return go


def without_last_leaf(pairs):
    """The third block without its last item, under a header made for it: nobody has signed that."""
    found = block.decode(pairs[2][0])
    leaves = found.items[:-1]
    header = found.header[:36] + block.merkle.root([found.meta, *leaves]) + found.header[68:]
    return [*pairs[:2], (block.encode(header, found.meta, leaves), pairs[2][1]), *pairs[3:]]


LIES = {
    "nothing": lambda pairs: [],
    "a hole": lambda pairs: pairs[:2] + pairs[3:],
    "the second first": lambda pairs: pairs[1::-1] + pairs[2:],
    "another certificate": lambda pairs: [(data, pairs[0][1]) for data, _ in pairs],
    "a bit flipped": lambda pairs: [(data[:-1] + bytes((data[-1] ^ 1,)), voted) for data, voted in pairs],
    "a leaf less": without_last_leaf,
    "rubbish": lambda pairs: [(b"rubbish", b"more of it")] * 3,
    "more than was asked for": lambda pairs: pairs + pairs,
}


@pytest.mark.parametrize("lie", LIES)
def test_liar_is_named_and_the_honest_one_asked(join, caplog, lie):
    """security.md T33."""
    async def body(area):
        assert len(await area.catch_up()) == HEIGHT
        assert area.behind.position() == area.ahead.position()
        assert area.behind.uncertified() == []
        named = [record.getMessage() for record in caplog.records if "sent a false block" in record.getMessage()]
        assert bool(named) == (lie not in ("nothing", "more than was asked for"))
        assert all(text.startswith("replica 1 ") for text in named)
    caplog.set_level(logging.ERROR)
    join(LIES[lie], body)


def test_silent_holder_costs_its_time_only(join, monkeypatch):
    monkeypatch.setattr(exchange_module, "ANSWER_S", 0.05)

    async def body(area):
        area.exchanges[1].framed = lambda *frame: None
        assert len(await area.catch_up()) == HEIGHT
    join(lambda pairs: pairs, body)


def test_nobody_has_them_and_it_gives_up(join):
    async def body(area):
        area.stores[2].tamper = lambda pairs: []
        assert await area.catch_up() is None
        assert area.behind.position()[0] == 0
        assert area.stores[1].asked + area.stores[2].asked == 2 * missing_module.ROUNDS
    join(lambda pairs: [], body)


def test_proven_head_that_the_blocks_do_not_lead_to_is_refused(join):
    async def body(area):
        head = area.target.heads[0]
        area.target = area.target._replace(heads=[head._replace(header_hash=bytes(32))])
        with pytest.raises(Refused, match="wrong_header"):
            await area.catch_up()
        assert area.behind.position()[0] == 0
    join(lambda pairs: pairs, body)


def test_readings_of_fetched_blocks_come_from_whoever_has_them(join, tmp_path, monkeypatch):
    """The liar gives readings of other seals, then nothing; a restart in between forgets nothing."""
    monkeypatch.setattr(missing_module, "BLOCK_ASK_S", 0.05)

    async def body(area):
        await area.catch_up()
        for height in range(1, HEIGHT + 1):
            area.missing.lacks("trade", height)
        assert json.loads((tmp_path / "readings.json").read_text()) == {"trade": 1}
        again = Missing(area.exchanges[0], area.behind, NoProposals(), area._in_ledger, lambda: [1, 2],
                        tmp_path / "readings.json")
        area.missing = again
        await again.remember({"trade": HEIGHT})
        assert again.blocks_lacking == sum(1 for height in range(1, HEIGHT + 1)
                                           if any(area.ahead.envelopes_in("trade", height)))
        work = asyncio.create_task(again.keep_readings())
        while again.blocks_lacking:
            await asyncio.sleep(0.01)
        work.cancel()
        for height in range(1, HEIGHT + 1):
            assert area.behind.envelopes_in("trade", height) == area.ahead.envelopes_in("trade", height)
        assert area.behind.newest_readings() == area.ahead.newest_readings()
        assert not (tmp_path / "readings.json").exists()
        assert area.stores[1].asked > 0
    join(lambda found: [b"\x82\x40\x80" for _ in found], body)


def test_lost_certificates_are_asked_for_and_checked(join, monkeypatch):
    monkeypatch.setattr(missing_module, "IDLE_S", 0.02)

    async def body(area):
        pairs = [(data, b"") for data, _ in area.ahead.blocks("trade", 1, 100, FRAME_BYTES)]
        area.behind.install(area.target.n, pairs, [tuple(head) for head in area.target.heads], area.target.state_root)
        assert len(area.behind.uncertified()) == HEIGHT
        found = []

        def keep(certified):
            found.append(certified.height)
            area.behind.put_certificate(*certified[:2], certified.certificate)
        work = asyncio.create_task(area.missing.keep_certificates("trade", keep))
        while len(area.behind.uncertified()) > 2:  # the two newest are on their way by themselves
            await asyncio.sleep(0.01)
        work.cancel()
        assert sorted(set(found)) == list(range(1, HEIGHT - 1))
        assert area.behind.certificate("trade", 3) == area.ahead.certificate("trade", 3)
    join(LIES["another certificate"], body)


def test_questions_of_a_peer_are_bounded_and_malformed_ones_counted(join):
    async def body(area):
        asked = area.exchanges[2]
        for _ in range(QUESTIONS_WAITING + 5):
            asked.framed(0, WANT_BLOCKS, ["trade", 1, 1])
        assert asked.refused == {"busy": 5}
        for kind, question in ((WANT_BLOCKS, ["trade", -1, 1]), (WANT_BLOCKS, b"x"), (WANT_ENVELOPES, [b"short"]),
                               (BLOCKS, ["trade", 1, [[b"block"]]]), (99, []), (WANT_BLOCKS, None)):
            asked.framed(0, kind, question)
        assert asked.refused == {"busy": 5, "malformed": 6}
        asked.framed(0, BLOCKS, ["trade", 1, []])  # an answer that nobody asked for
        while area.stores[2].asked < QUESTIONS_WAITING:
            await asyncio.sleep(0)
        await asked.close()
    join(lambda pairs: pairs, body)


def test_a_certified_block_on_another_head_accuses_our_own(join):
    """Ours executed what nobody decided: no holder is a liar for it, and nothing is fetched on top of it."""
    async def body(area):
        head = area.behind.stand()
        area.behind.execute(1, ("trade", 0, head.time_s, []))
        with pytest.raises(Refused) as found:
            await area.catch_up()
        assert found.value.reason == "contradiction"
        assert area.behind.position()[0] == 1
    join(lambda pairs: [], body)


def test_an_uncertified_block_on_another_head_accuses_nobody(join):
    async def body(area):
        area.behind.execute(1, ("trade", 0, area.behind.stand().time_s, []))
        area.stores[2].tamper = lambda pairs: [(data, b"") for data, _ in pairs]
        assert await area.catch_up() is None
    join(lambda pairs: [], body)
