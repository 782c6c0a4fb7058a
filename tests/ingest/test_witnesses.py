"""What light nodes sign under headers: each wrong one refused for its own reason, right ones kept and counted."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from firmware.crypto.openssl import verify_digest
from firmware.wire import genesis, header, witness
from firmware.wire.errors import Refused
from gateway.ingest.answers import Count
from gateway.ingest.checker import Domain
from gateway.ingest.witnesses import EVIDENCE, EVIDENCE_OF_ONE, Witnesses, decode_evidence, encode_evidence
from gateway.ledger import witnesses as table
from gateway.ledger.ledger import Ledger
from tests.ingest.broker import Mosquitto
from tests.ingest.parts import AREA, CHAIN, START_MS, Agent, raise_s
from tests.ingest.replica import MEMBER, OPERATOR, Device, Replica, join, make_genesis, until

START_S = START_MS // 1000
INTERVAL_S = 900


def top(height: int, time_s: int = START_S, root: bytes = bytes(32)) -> bytes:
    return header.encode(header.Header(1, bytes(32), root, time_s, 0, height))


def sign(agent: Agent, data: bytes, channel: str = "trade", chain: bytes | None = None,
         signer: Agent | None = None) -> bytes:
    return witness.sign(agent.kid, channel, data, chain or agent.chain, (signer or agent).signer.sign_digest)


class Room:
    """`Witnesses` with a registry and blocks by hand."""

    def __init__(self, *agents: Agent, **changes: Any) -> None:
        self.records = {agent.kid: agent.record(**changes) for agent in agents}
        self.headers: dict[int, bytes] = {}
        self.stored: set[tuple[int, bytes]] = set()
        self.alarms: list[str] = []
        self.evidence = b""
        self.looked = 0
        self.witnesses = Witnesses(
            Domain(AREA, CHAIN, genesis.parameters()), self.records.get, self.headers.get,
            lambda height, kid: (height, kid) in self.stored, lambda: len(self.records), self.verify, self.keep)

    def verify(self, public_key: bytes, digest: bytes, signature: bytes) -> bool:
        self.looked += 1
        return verify_digest(public_key, digest, signature)

    def keep(self, message: bytes, text: str) -> None:
        self.evidence += encode_evidence(message)
        self.alarms.append(text)

    def block(self, height: int, time_s: int = START_S) -> bytes:
        self.headers[height] = top(height, time_s)
        return self.headers[height]

    def reason(self, agent: Agent, data: bytes) -> str:
        try:
            self.witnesses.take(agent.kid, data)
        except Refused as refused:
            return refused.reason
        return "taken"

    def store(self) -> None:
        found = self.witnesses.fetch()
        self.stored.update((one.height, one.kid) for one in found)
        self.witnesses.stored(found)


A, B, C = Agent(1), Agent(2), Agent(3)


def test_taken_counted_and_passed_over_when_it_comes_again() -> None:
    room = Room(A, B, C)
    first = room.block(5)
    assert room.witnesses.count() == Count(0, 0, 3)
    assert [room.reason(agent, sign(agent, first)) for agent in (A, B)] == ["taken"] * 2
    assert room.witnesses.count() == Count(0, 0, 3), "what is not durable does not count"
    room.store()
    assert room.witnesses.count() == Count(5, 2, 3)
    looked = room.looked
    assert room.reason(A, sign(A, first)) == "taken" and not room.witnesses.has_news()
    assert (room.looked, room.witnesses.repeated) == (looked, 1), "no signature is verified twice"
    room.records[B.kid] = B.record(revoked_height=6)
    assert room.witnesses.count().k == 1
    room.block(6)
    room.witnesses.take(C.kid, sign(C, room.headers[6]))
    room.store()
    assert room.witnesses.count() == Count(6, 1, 3), "of two headers with as many, the newer one"


def test_who_came_late_in_an_interval_does_not_hide_the_others() -> None:
    room = Room(A, B, C)
    begin_s = START_S - START_S % INTERVAL_S
    for height, time_s in ((5, begin_s + 1), (6, begin_s + 800), (7, begin_s + 901)):
        room.block(height, time_s)
    for agent, height in ((A, 5), (B, 5), (C, 6)):
        room.witnesses.take(agent.kid, sign(agent, room.headers[height]))
    room.store()
    assert room.witnesses.count() == Count(5, 2, 3)
    room.witnesses.take(C.kid, sign(C, room.headers[7]))
    room.store()
    assert room.witnesses.count() == Count(7, 1, 3), "an interval that is over is not shown any more"


def test_a_header_of_before_its_enrolment_is_no_fault_and_no_witness() -> None:
    room = Room(A, enrolled_height=6)
    first = room.block(5)
    assert room.reason(A, sign(A, first)) == "taken" and not room.witnesses.has_news()
    assert (room.witnesses.early, room.looked) == (1, 0)
    assert room.reason(A, sign(A, top(5, root=b"\1" * 32))) == "wrong_header", "another truth is evidence all the same"
    room.block(6)
    assert room.reason(A, sign(A, room.headers[6])) == "taken" and room.witnesses.has_news()


def test_a_high_s_is_kept_with_the_low_one() -> None:
    room = Room(A)
    message = sign(A, room.block(5))
    assert room.reason(A, raise_s(message)) == "taken"
    assert [one.message for one in room.witnesses.fetch()] == [message]


@pytest.mark.parametrize(("reason", "make", "changes"), [
    ("not_enrolled", lambda one: sign(C, one), {}),
    ("revoked", lambda one: sign(A, one), {"revoked_height": 4}),
    ("wrong_area", lambda one: sign(A, one), {"area": "south"}),
    ("not_permitted", lambda one: sign(A, one), {"role": "auditor"}),
    ("oversize", lambda one: sign(A, one) + bytes(100), {}),
    ("malformed", lambda one: sign(A, one)[:-1], {}),
    ("malformed", lambda one: A.sign(b"\x80", "witness"), {}),
    ("wrong_height", lambda one: A.sign(witness.encode(A.kid, "trade", one).replace(b"etrade\5", b"etrade\4"),
                                        "witness"), {}),
    ("wrong_key", lambda one: A.sign(witness.encode(B.kid, "trade", one), "witness"), {}),
    ("wrong_topic", lambda one: sign(B, one), {}),
    ("wrong_channel", lambda one: sign(A, one, channel="credit"), {}),
    ("bad_signature", lambda one: sign(A, one, signer=B), {}),  # another key
    ("bad_signature", lambda one: sign(A, one, chain=bytes(32)), {}),  # another chain: it is in what is signed
    ("bad_signature", lambda one: A.sign(witness.encode(A.kid, "trade", one), "seal"), {}),  # another kind
    ("wrong_header", lambda one: sign(A, top(5, root=b"\1" * 32)), {}),
])
def test_each_wrong_one_is_refused_for_its_own_reason(reason: str, make: Callable[[bytes], bytes],
                                                      changes: dict) -> None:
    room = Room(A, B, **changes)
    message = make(room.block(5))
    assert room.reason(C if message[9:17] == C.kid else A, message) == reason
    assert not room.witnesses.has_news()
    assert bool(room.alarms) == (reason == "wrong_header")


def test_another_header_is_evidence_kept_and_said_aloud() -> None:
    room = Room(A, B)
    room.block(5)
    for number in range(20):
        assert room.reason(A, sign(A, top(5, root=bytes((number,)) * 32 if number else b"\7" * 32))) == "wrong_header"
    assert len(room.alarms) == EVIDENCE_OF_ONE and A.kid.hex() in room.alarms[0]
    assert room.reason(B, sign(B, top(5, root=b"\7" * 32))) == "wrong_header" and len(room.alarms) == 9
    kept = decode_evidence(room.evidence)
    assert kept == room.witnesses.evidence and len(kept) == 9
    again = Room(A, B)
    again.block(5)
    again.witnesses.begin(0, [], room.evidence[:-3])  # the power was cut in the last record
    assert again.witnesses.evidence == kept[:-1]
    assert again.reason(A, kept[0]) == "wrong_header" and not again.alarms, "known already"
    assert len(decode_evidence(encode_evidence(kept[0]) * 1000)) == EVIDENCE


def test_a_block_that_is_not_here_yet_is_waited_for() -> None:
    room = Room(A, B, C)
    assert room.reason(A, sign(A, top(7))) == room.reason(B, sign(B, top(7, root=b"\1" * 32))) == "taken"
    assert room.reason(C, sign(C, top(7), signer=A)) == "bad_signature", "nobody fills the waiting room with rubbish"
    assert room.witnesses.executed(6, room.block(6)) == [] and not room.witnesses.has_news()
    refused = room.witnesses.executed(7, room.block(7))
    assert [(kid, refusal.reason) for kid, refusal in refused] == [(B.kid, "wrong_header")]
    assert [one.kid for one in room.witnesses.fetch()] == [A.kid] and len(room.alarms) == 1
    assert room.witnesses.executed(8, room.block(8)) == []


def test_the_first_block_of_each_interval_is_the_candidate() -> None:
    room = Room(A)
    begin_s = START_S - START_S % INTERVAL_S
    times = [begin_s + 10, begin_s + 20, begin_s + 899, begin_s + 900, begin_s + 900, begin_s + 5000, begin_s + 5001]
    verdicts = [room.witnesses.is_candidate(height, room.block(height, time_s))
                for height, time_s in enumerate(times, 1)]
    assert verdicts == [True, False, False, True, False, True, False]
    again = Room(A)  # restarted: the last block of before says where it stands
    again.headers.update(room.headers)
    assert not again.witnesses.is_candidate(8, again.block(8, begin_s + 5002))
    assert again.witnesses.is_candidate(9, again.block(9, begin_s + 5400))


# With a real ledger and a real broker.

Play = Callable[[Callable[[Replica], Awaitable[None]]], None]


@pytest.fixture
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    made = Mosquitto(tmp_path_factory.mktemp("broker")).start()
    yield made
    made.stop()


@pytest.fixture
def agents() -> list[Agent]:
    made = [Agent(1, (7,)), Agent(2, (20,)), Agent(3, (30,))]
    join(made)
    return made


@pytest.fixture
def play(tmp_path: Path, broker: Mosquitto, agents: list[Agent]) -> Play:
    def run(what: Callable[[Replica], Awaitable[None]]) -> None:
        async def main() -> None:
            async with Replica(tmp_path / "data", broker, agents) as replica:
                await what(replica)
        asyncio.run(main())
    return run


def shown(device: Device) -> list[witness.HeaderMessage]:
    return [witness.decode_header_message(message.payload) for message in device.inbox
            if message.topic.endswith("/chain/trade/header")]


def test_from_the_header_topic_to_k_of_n(play: Play, agents: list[Agent]) -> None:
    first, second, third = agents

    async def what(replica: Replica) -> None:
        async with Device(first, replica) as device:
            for step in range(4):  # all within a second: the candidates go out all the same
                await replica.block(time_s=START_S - START_S % INTERVAL_S + 450 * step)
            ours = {height: replica.reader.header("trade", height) for height in range(1, 5)}
            await until(lambda: {1, 3} <= {witness.height_of(found.header) for found in shown(device)})
            assert all(found.header == ours[witness.height_of(found.header)] for found in shown(device))
            for agent in (first, second):
                device.send(sign(agent, ours[3] or b""), topic=agent.topic("witness"))
            device.send(sign(first, ours[3] or b""), "witness")
            device.send(sign(third, top(3, root=b"\1" * 32)), topic=third.topic("witness"))
            await until(lambda: shown(device)[-1][2:] == (3, 2, 3))
            await until(lambda: replica.refused(third) == {"wrong_header": 1})
            await until(lambda: replica.brokers.status()[0]["undone"] == 0)
            assert replica.ingest.status()["witnesses"] == {"height": 3, "k": 2, "n": 3}
            assert replica.ingest.witnesses.repeated == 1
            kids = sorted((first.kid, second.kid))
            assert [kid for kid, _ in replica.reader.witnesses_at("trade", 3)] == kids
    play(what)

    async def later(replica: Replica) -> None:
        """Restarted: what was stored counts, and the evidence is known."""
        assert replica.ingest.status()["witnesses"] == {"height": 3, "k": 2, "n": 3}
        assert len(replica.ingest.witnesses.evidence) == 1
        assert replica.reader.witness_counts(AREA) == [
            {"k": 2, "n": 3, "height": 3, "time_s": header.decode(replica.reader.header("trade", 3) or b"").time_s}]
        assert replica.reader.witness_counts(AREA, from_s=START_S + 10**6) == []
    play(later)


def test_kept_in_order_and_no_more_than_so_many(tmp_path: Path, agents: list[Agent],
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "SIGNATURES", 10)
    ledger = Ledger.open(tmp_path, make_genesis(agents, Agent(OPERATOR), Agent(MEMBER).signer))
    assert ledger.newest_witnessed() == (0, []) and ledger.light_nodes(AREA) == 3
    for height in range(1, 9):
        ledger.put_witnesses([("trade", height, agent.kid, b"%d" % height) for agent in agents[:2]])
        ledger.put_witnesses([("trade", height, agents[0].kid, b"again")])
    assert ledger.newest_witnessed() == (8, sorted(agent.kid for agent in agents[:2]))
    ledger.close()
    ledger = Ledger.open(tmp_path)
    assert [len(ledger.witnesses_at("trade", height)) for height in range(1, 9)] == [0, 0, 0, 2, 2, 2, 2, 2]
    assert ledger.witness("trade", 4, agents[0].kid) == b"4"
    ledger.put_witnesses([("trade", 9, agents[2].kid, b"9")])
    assert [len(ledger.witnesses_at("trade", height)) for height in (4, 9)] == [1, 1]
    ledger.close()
