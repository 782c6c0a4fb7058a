"""Checks what the verifying threads do not verify a second time, and that nothing else passes with it."""

import asyncio

from firmware.crypto.openssl import verify_digest
from firmware.wire import genesis
from firmware.wire.errors import Refused
from gateway.ingest.checker import Checker, Domain, Job
from gateway.ingest.verify import VerifiedTransaction
from tests.ingest.parts import AREA, CHAIN, Agent, Registry


def test_a_transaction_that_comes_again_costs_no_signature():
    agent, verified = Agent(), []

    def count(*claim: bytes) -> bool:
        verified.append(claim)
        return verify_digest(*claim)

    async def play() -> None:
        checker = Checker(Domain(AREA, CHAIN, genesis.parameters()), Registry(agent).agent, set(), count)
        data = agent.transaction()
        job = Job(data, None, False, "peers")
        try:
            first, = await checker.check([job], 0)
            assert isinstance(first, VerifiedTransaction) and len(verified) == 1
            await checker.check([job], 0)
            assert len(verified) == 2  # only what was taken is remembered
            checker.remember(first.payload_hash, first.leaf, agent.kid)
            assert await checker.check([job], 0) == [first] and len(verified) == 2
            forged = data[:-64] + agent.transaction(sequence=2)[-64:]  # the same payload under another signature
            refused, = await checker.check([job._replace(data=forged)], 0)
            assert isinstance(refused, Refused) and refused.reason == "bad_signature" and len(verified) == 3
        finally:
            checker.stop()

    asyncio.run(play())
