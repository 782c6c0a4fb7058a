"""Checks what the verifying threads do not verify a second time, and that nothing else passes with it."""

import asyncio
import threading
from collections.abc import Callable, Coroutine

import pytest

from firmware.crypto.openssl import verify_digest
from firmware.wire import genesis, trading, transaction
from firmware.wire.errors import Refused
from gateway.ingest import verify
from gateway.ingest.checker import Checker, Domain, Job
from gateway.ingest.verify import VerifiedTransaction
from tests.ingest.parts import AREA, CHAIN, Agent, Registry

WAIT_S = 10

class Counted:
    """The real verification, counted; it may be held."""

    def __init__(self) -> None:
        self.count = 0
        self.begun, self.gate = threading.Event(), threading.Event()
        self.gate.set()

    def __call__(self, *claim: bytes) -> bool:
        self.count += 1
        self.begun.set()
        assert self.gate.wait(WAIT_S)
        return verify_digest(*claim)


def play(agent: Agent, body: Callable[[Checker, Counted], Coroutine[None, None, None]]) -> None:
    async def inside() -> None:
        counted = Counted()
        checker = Checker(Domain(AREA, CHAIN, genesis.parameters()), Registry(agent).agent, set(), counted)
        try:
            await body(checker, counted)
        finally:
            counted.gate.set()
            checker.stop()
    asyncio.run(asyncio.wait_for(inside(), 2 * WAIT_S))


def test_a_transaction_that_comes_again_costs_no_signature():
    agent = Agent()
    data = agent.transaction()
    job = Job(data, None, False, "peers")

    async def body(checker: Checker, counted: Counted) -> None:
        first, = await checker.check([job], 0)
        assert isinstance(first, VerifiedTransaction) and counted.count == 1
        assert await checker.check([job], 0) == [first] and counted.count == 1
        assert checker.check_signature(first.leaf, "tx", agent.public_key) and counted.count == 1
        other = Agent(2).public_key
        assert not checker.check_signature(first.leaf, "tx", other) and counted.count == 2
        forged = data[:-64] + agent.transaction(sequence=2)[-64:]  # the same payload under another signature
        refused, = await checker.check([job._replace(data=forged)], 0)
        assert isinstance(refused, Refused) and refused.reason == "bad_signature" and counted.count == 3
        assert await checker.check_batch([forged], lambda payload_hash: True) == ("bad_signature", [])
        assert await checker.check_batch([first.leaf], lambda payload_hash: True) == (None, []) and counted.count == 4
    play(agent, body)


def test_what_a_batch_brought_first_costs_no_signature_when_it_comes():
    agent = Agent()
    datas = [agent.transaction(sequence=number + 1) for number in range(70)]  # more than a chunk
    forged = datas[1][:-64] + datas[2][-64:]

    async def body(checker: Checker, counted: Counted) -> None:
        found = await checker.check([Job(data, None, False, "peers") for data in datas[:1]], 0)
        leaves = [result.leaf for result in found if isinstance(result, VerifiedTransaction)]
        assert await checker.check_batch([forged], lambda payload_hash: True) == ("bad_signature", [])
        assert await checker.check_batch(leaves + datas[1:], lambda payload_hash: True) == (None, [])
        assert counted.count == 71
        results = await checker.check([Job(data, None, False, "peers") for data in datas], 0)
        assert counted.count == 71 and all(isinstance(result, VerifiedTransaction) for result in results)
    play(agent, body)


def test_a_batch_waits_for_what_is_being_verified():
    agent = Agent()
    data = agent.transaction()

    async def body(checker: Checker, counted: Counted) -> None:
        checker.agent(agent.kid)  # known, or the first look at it would come back without a verification
        counted.gate.clear()
        own = asyncio.create_task(checker.check([Job(data, None, False, "broker")], 0))
        assert await asyncio.to_thread(counted.begun.wait, WAIT_S)
        batch = asyncio.create_task(checker.check_batch([data], lambda payload_hash: True))
        await asyncio.sleep(0)
        counted.gate.set()
        assert await batch == (None, []) and len(await own) == 1
        assert counted.count == 1
    play(agent, body)


@pytest.mark.parametrize(("kind", "may"), [
    (transaction.ENROL, True), (transaction.REVOKE, True), (transaction.REPLACE_METER, True), (trading.LEAVE, True),
    (transaction.CORRECTION, True), (26, True), (trading.ORDER, False), (trading.REVEAL, False),
    (trading.DEPOSIT, False)])
def test_after_what_the_registry_is_looked_up_again(kind, may):
    assert verify.may_change_registry(Agent().transaction(kind=kind)) is may
