"""Ingest with a real ledger and a real broker; only the agreement is played: the test says when a block is made."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from firmware.wire import cbor, cose, seal, transaction, witness
from firmware.wire.errors import Refused
from firmware.wire.reasons import REASONS
from gateway.ingest import ingest as ingest_module
from gateway.ingest import router, verify
from tests.ingest.broker import Mosquitto
from tests.ingest.parts import START_MS, Agent, raise_s
from tests.ingest.replica import Device, Replica, check_ack, join, until

Play = Callable[[Callable[[Replica], Awaitable[None]]], None]


@pytest.fixture
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    made = Mosquitto(tmp_path_factory.mktemp("broker")).start()
    yield made
    made.stop()


@pytest.fixture
def agents() -> list[Agent]:
    made = [Agent(1, (7, 8)), Agent(2, (20,))]
    join(made)
    return made


@pytest.fixture
def play(tmp_path: Path, broker: Mosquitto, agents: list[Agent]) -> Play:
    """Runs a coroutine with a replica; called again, the replica has been restarted."""
    def run(what: Callable[[Replica], Awaitable[None]]) -> None:
        async def main() -> None:
            async with Replica(tmp_path / "data", broker, agents) as replica:
                await what(replica)
        asyncio.run(main())
    return run


def test_from_the_broker_to_the_ack(play: Play, agents: list[Agent]) -> None:
    first, second = agents

    async def what(replica: Replica) -> None:
        async with Device(first, replica) as device, Device(second, replica) as other:
            for _ in range(3):
                device.send(first.next(7, count=2))
                device.send(first.next(8))
                other.send(second.next(20))
            await until(lambda: len(replica.offers) == 9)
            await until(lambda: replica.brokers.status()[0]["undone"] == 0)
            offered = list(replica.offers)
            assert len(await replica.block()) == 9
            await until(lambda: (device.acked(7), device.acked(8), other.acked(20)) == (3, 3, 3))
            for found in device.acks() + other.acks():
                check_ack(found, replica)
            assert not any(replica.ingest.has_readings(key) for key in offered), "beside the chain now"
            status = replica.ingest.status()
            assert (status["seals"], status["readings"], status["pending"]) == (9, 12, 0)
            await until(lambda: any("/live/8" in message.topic for message in device.inbox))
            headers = [message for message in device.inbox if message.topic.endswith("/chain/trade/header")]
            assert witness.decode_header_message(headers[-1].payload).header == replica.reader.header("trade", 1)
    play(what)


def test_durable_before_puback_and_taken_up_after_a_restart(play: Play, agents: list[Agent]) -> None:
    agent = agents[0]
    envelopes = [agent.next() for _ in range(5)]

    async def before(replica: Replica) -> None:
        async with Device(agent, replica) as device:
            for at in (0, 1, 4):
                device.send(envelopes[at])
            await until(lambda: device.acks() != [])
            assert device.acks()[0].wanted == [(7, 3, 4)] and device.acked() == 0
            await until(lambda: len(replica.offers) == 2)

    async def after(replica: Replica) -> None:
        assert [offer.request for offer in replica.offers.values()] == envelopes[:2]
        assert replica.ingest.has_readings(verify.check_fetched(envelopes[4]).payload_hash)
        async with Device(agent, replica) as device:
            device.send(envelopes[2])
            device.send(envelopes[3])
            await until(lambda: len(replica.offers) == 5)
            assert [offer.request for offer in replica.offers.values()] == envelopes
            await replica.block()
            await until(lambda: device.acked() == 5)
    play(before)
    play(after)


def test_no_puback_and_no_offer_while_the_disk_is_busy(play: Play, agents: list[Agent]) -> None:
    agent = agents[0]

    async def what(replica: Replica) -> None:
        async with Device(agent, replica) as device:
            is_free = threading.Event()
            replica.pool.submit(is_free.wait, 20)
            try:
                device.send(agent.next())
                await until(lambda: replica.ingest.chains.counts() == (1, 0))
                await asyncio.sleep(0.2)
                assert replica.brokers.status()[0]["undone"] == 1 and replica.offers == {}
                assert not replica.ingest.has_readings(next(iter(replica.ingest.chains.pending_hashes)))
            finally:
                is_free.set()
            await until(lambda: replica.brokers.status()[0]["undone"] == 0 and len(replica.offers) == 1)
            assert replica.ingest.has_readings(next(iter(replica.offers)))
    play(what)


def test_replay_is_acked_again_and_nothing_is_doubled(play: Play, agents: list[Agent]) -> None:
    agent = agents[0]
    envelopes = [agent.next() for _ in range(3)]

    async def what(replica: Replica) -> None:
        async with Device(agent, replica) as device:
            for data in envelopes * 2:
                device.send(data)
            await until(lambda: replica.ingest.replays == len(replica.offers) == 3)
            await replica.block()
            await until(lambda: device.acked() == 3)
            device.inbox.clear()
            device.send(envelopes[0])
            await until(lambda: device.acked() == 3)
            assert replica.offers == {} and replica.refused() == {}

    async def restarted(replica: Replica) -> None:
        replica.ingest.certified("trade", 1)
        async with Device(agent, replica) as device:
            for data in envelopes:
                device.send(data)
            await until(lambda: device.acked() == 3)
            assert replica.offers == {}
    play(what)
    play(restarted)


def test_forks_are_kept_as_evidence(play: Play, agents: list[Agent]) -> None:
    agent, other = agents
    envelopes = [agent.next() for _ in range(3)]
    message, readings = seal.decode_envelope(envelopes[1])
    twin = agent.envelope(seal.decode(cose.parse(message).payload)._replace(boot=99), readings)

    async def what(replica: Replica) -> None:
        async with Device(agent, replica) as device, Device(other, replica) as neighbour:
            for data in [*envelopes[:2], twin, twin, envelopes[2]]:
                device.send(data)
            neighbour.send(other.next(20))
            await until(lambda: len(replica.offers) == 4)
            assert replica.refused(agent) == {"fork": 2} == replica.refused()
            assert replica.ingest.flagged.kids() == [agent.kid.hex()]
            found = replica.ingest.flagged.evidence[0]
            assert (found.height, found.leaf) == (2, seal.decode_envelope(twin)[0])
            assert found.standing == seal.payload_hash(cose.parse(message).payload)
            await replica.block()
            await until(lambda: device.acked() == 3)
            assert [(7, 2, "fork")] in [advice.refused for advice in device.acks()]
            device.send(twin)
            await until(lambda: replica.refused(agent) == {"fork": 3})

    async def restarted(replica: Replica) -> None:
        assert replica.ingest.status()["flagged"] == [agent.kid.hex()]
    play(what)
    play(restarted)


def test_bad_input_is_counted_by_agent_and_stops_nobody(play: Play, agents: list[Agent]) -> None:
    agent, other = agents
    stranger = Agent(55)

    async def what(replica: Replica) -> None:
        stranger.chain = replica.chain_id
        good = agent.next()
        message, readings = seal.decode_envelope(good)
        made = seal.decode(cose.parse(message).payload)
        bad = {
            "malformed": b"\xff junk", "too_deep": b"\x82\x41\0" + b"\x81" * 20 + b"\x80",
            "oversize": bytes(seal.ENVELOPE_BYTES + 1),
            "wrong_root": agent.envelope(made._replace(root=bytes(32)), readings),
            "bad_signature": cbor.encode([message[:-1] + bytes([message[-1] ^ 1]), readings]),
            "not_its_point": agent.envelope(made._replace(point=20), readings),
            "wrong_meter_epoch": agent.envelope(made._replace(meter_epoch=5), readings),
            "wrong_previous": agent.envelope(made._replace(previous=bytes([1]) * 32), readings),
            "wrong_version": agent.envelope(made._replace(version=7), readings)}
        async with Device(agent, replica) as device, Device(other, replica) as neighbour, \
                Device(stranger, replica) as guest:
            for at, data in enumerate(bad.values()):
                device.send(data)
                neighbour.send(other.next(20))
                await until(lambda at=at: len(replica.offers) == at + 1)  # type: ignore[misc]
            device.send(good, topic=other.topic())
            device.send(good, "nonsense", agent.topic().replace("envelope", "nonsense"))
            device.send(good, topic=agent.topic("tx"))
            guest.send(stranger.next())
            guest.send(b"", "birth")
            await until(lambda: sum(replica.refused().values()) == len(bad) + 5)
            assert replica.refused(agent) == {**{reason: 1 for reason in bad}, "unknown_topic": 1, "malformed": 2}
            assert replica.refused(other) == {"wrong_topic": 1}
            assert replica.ingest.status()["refused_by_agent"]["unknown"] == {"not_enrolled": 2}
            device.send(good)
            await until(lambda: len(replica.offers) == len(bad) + 1)
            await replica.block()
            await until(lambda: device.acked() == 1 and neighbour.acked(20) == len(bad))
    play(what)


def test_strange_values_are_marked_and_the_agent_goes_on(play: Play, agents: list[Agent]) -> None:
    agent = agents[0]

    async def what(replica: Replica) -> None:
        async with Device(agent, replica) as device:
            replica.clock.label_ms = START_MS + 5 * 60_000
            for changes in ({}, {"flags": 0}, {"import_wh": 5}, {"import_wh": 10**12}, {"lost": 3}):
                device.send(agent.next(**changes))
            await until(lambda: len(replica.offers) == 5)
            codes = await replica.block()
            assert all(code == 0 or code >= 256 for code in codes) and codes[4] & 64
            assert {"clock_not_synchronised", "register_fell", "register_jumped", "heights_lost"} <= set(
                replica.ingest.status()["marked"])
            await until(lambda: device.acked() == 8)
            assert replica.refused() == {}
    play(what)


def test_what_a_block_refuses_is_not_ordered_again(play: Play, agents: list[Agent]) -> None:
    agent = agents[0]
    ours, theirs = [agent.next() for _ in range(2)], Agent(1, (7, 8))

    async def what(replica: Replica) -> None:
        theirs.chain = replica.chain_id
        rival = theirs.next(boot=5)
        async with Device(agent, replica) as device:
            for data in ours:
                device.send(data)
            await until(lambda: len(replica.offers) == 2)
            replica.offers.clear()
            leaves = [verify.check_fetched(data).leaf for data in (rival, *ours)]
            codes = await replica.block(*leaves)
            assert [REASONS[code] if code < 256 else "taken" for code in codes][1:] == ["fork", "wrong_previous"]
            assert set(replica.forgotten) >= {verify.item_key(leaf) for leaf in leaves[1:]}
            await until(lambda: device.acked() == 1)
            for data in ours:
                device.send(data)
            await until(lambda: sum(replica.refused(agent).values()) == 4)
            assert replica.offers == {}
            device.send(theirs.next())
            await until(lambda: len(replica.offers) == 1)
    play(what)


def test_a_refusal_by_a_block_holds_until_the_registry_changes(play: Play, agents: list[Agent]) -> None:
    """As after a meter was replaced: what one block has refused may be right after another."""
    agent = agents[0]
    data = agent.next()

    async def what(replica: Replica) -> None:
        async with Device(agent, replica) as device:
            device.send(data)
            await until(lambda: len(replica.offers) == 1)
            leaf = replica.offers.popitem()[1].data
            replica.ingest.executed("trade", 1, [leaf], [REASONS.index("wrong_meter_epoch")])
            assert replica.forgotten == [verify.item_key(leaf)]
            device.send(data)
            await until(lambda: replica.refused(agent) == {"wrong_meter_epoch": 2})
            replica.ingest.executed("trade", 2, [replica.operator.transaction()], [0])
            device.send(data)
            await until(lambda: len(replica.offers) == 1)
    play(what)


def test_transactions_get_receipts_also_the_second_time(play: Play, agents: list[Agent]) -> None:
    agent = agents[0]

    async def what(replica: Replica) -> None:
        operator = replica.operator
        envelope = agent.next()
        async with Device(operator, replica) as desk, Device(agent, replica) as device:
            device.send(envelope)
            data = operator.transaction(transaction.REVOKE, body=[agent.kid, "lost"])
            for sent in (data, raise_s(data), data):
                desk.send(sent, "tx")
            await until(lambda: len(replica.offers) == 2 and replica.ingest.replays == 2)
            codes = await replica.block()
            assert 0 in codes
            await until(lambda: len(desk.receipts()) == 1)
            desk.send(data, "tx")
            await until(lambda: len(desk.receipts()) == 2)
            for receipt in desk.receipts():
                assert [item.payload_hash for item in receipt.items] == [verify.item_key(data)]
                assert receipt.results == codes
            device.send(agent.next())
            await until(lambda: replica.refused(agent).get("revoked") == 1)
            with pytest.raises(Refused, match="bad_signature"):
                await replica.ingest.submit_transaction(data[:-1] + bytes([data[-1] ^ 1]))
            second = operator.transaction(transaction.REVOKE, 2, body=[bytes(8), ""])
            key = await replica.ingest.submit_transaction(second)
            assert list(replica.offers) == [key]
    play(what)


def test_batches_and_fetched_readings(play: Play, agents: list[Agent]) -> None:
    agent, other = agents

    async def what(replica: Replica) -> None:
        mine, fetched = agent.next(), other.next(20)
        found = [verify.check_fetched(data) for data in (mine, fetched)]
        leaves = [item.leaf for item in found]
        replica.ingest.submitted([mine, b"junk", replica.operator.transaction()])
        await until(lambda: len(replica.offers) == 2)
        assert replica.ingest.status()["refused_by_agent"] == {"peers": {"malformed": 1}}
        assert await replica.ingest.check_batch(leaves) == (None, [found[1].payload_hash])
        bad = leaves[0][:-1] + bytes([leaves[0][-1] ^ 1])
        assert await replica.ingest.check_batch([bad]) == ("bad_signature", [])
        assert await replica.ingest.check_batch([b"junk"]) == ("malformed", [])
        assert await replica.ingest.keep_fetched([mine, b"junk"], [found[1].payload_hash]) == set()
        assert await replica.ingest.keep_fetched([fetched], [found[1].payload_hash]) == {found[1].payload_hash}
        assert await replica.ingest.check_batch(leaves) == (None, [])
        checker = replica.ingest.checker
        assert checker.check_signature(leaves[0], "seal", agent.public_key)
        assert not checker.check_signature(leaves[0], "tx", agent.public_key)
        assert not checker.check_signature(bad, "seal", agent.public_key)
        assert not checker.check_signature(leaves[0], "seal", other.public_key)
        assert not checker.check_signature(b"junk", "seal", agent.public_key)
        await replica.block(leaves[1])
        assert replica.ledger.readings_of(found[1].payload_hash) == found[1].readings
    play(what)


def test_a_device_gone_mad_slows_nobody(play: Play, agents: list[Agent], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(router, "AGENT_BURST", 20)
    monkeypatch.setattr(router, "AGENT_PER_S", 1)
    agent, other = agents

    async def what(replica: Replica) -> None:
        async with Device(agent, replica) as device, Device(other, replica) as neighbour:
            for _ in range(200):
                device.send(b"junk")
            neighbour.send(other.next(20))
            await until(lambda: sum(replica.refused(agent).values()) == 200 and len(replica.offers) == 1)
            assert replica.refused(agent)["busy"] >= 170 and replica.refused(other) == {}
            monkeypatch.setattr(router, "AGENT_PER_S", 1000)
            device.send(agent.next())
            await until(lambda: len(replica.offers) == 2)
    play(what)


def test_a_full_ledger_says_busy_and_takes_it_later(
        play: Play, agents: list[Agent], monkeypatch: pytest.MonkeyPatch) -> None:
    agent = agents[0]
    envelopes = [agent.next() for _ in range(4)]

    async def what(replica: Replica) -> None:
        from gateway.ledger import envelopes as store
        async with Device(agent, replica) as device:
            monkeypatch.setattr(store, "PENDING", 2)
            for data in envelopes[:2]:
                device.send(data)
            await until(lambda: len(replica.offers) == 2)
            device.send(envelopes[2])
            await until(lambda: replica.refused(agent) == {"busy": 1})
            await until(lambda: replica.brokers.status()[0]["undone"] == 0)
            assert len(replica.offers) == 2
            await replica.block()
            device.send(envelopes[2])
            await until(lambda: len(replica.offers) == 1)
    play(what)


def test_transactions_under_way_are_bounded(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest_module, "TRANSACTIONS", 2)

    async def what(replica: Replica) -> None:
        async with Device(replica.operator, replica) as desk:
            for sequence in range(1, 4):
                desk.send(replica.operator.transaction(sequence=sequence), "tx")
            await until(lambda: replica.refused(replica.operator) == {"busy": 1})
            assert len(replica.offers) == 2
    play(what)
