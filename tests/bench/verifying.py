"""Makes rows 1, 2 and 4: from envelopes in memory to verified seals, and on to durable ones in a real ledger."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from firmware.crypto.openssl import verify_digest
from firmware.wire import seal as seal_codec
from gateway.ingest import quick
from gateway.ingest.chains import Chains, Verdict
from gateway.ingest.checker import CHUNK, Cache, finish
from gateway.ingest.verify import VerifiedSeal, open_envelope
from gateway.ledger.ledger import Ledger
from tests.bench.material import Traffic, make_traffic
from tests.bench.measure import Floor, Outcome, Spent, folder, one_core, ratio_row, spent
from tests.ingest.parts import AREA

COMMIT = 100  # envelopes under one durable commit (performance.md, row 2)
ENVELOPES, FULL_ENVELOPES, FULL = 10_000, 500, 60  # FULL: readings under one seal, an hour of minutes


def verify(rounds: int, envelopes: int = ENVELOPES) -> list[Outcome]:
    """Row 1: decode, verify, decode the payload; the whole envelope counts, the bare message stands beside it."""
    traffic = make_traffic(envelopes)
    keys = {agent.kid: agent.public_key for agent in traffic.agents}
    messages = [seal_codec.decode_envelope(data)[0] for _, data in traffic.envelopes]

    def bare() -> int:
        for message in messages:
            found = quick.read_seal(message)
            assert found is not None
            kid, payload, _, signature = found
            assert verify_digest(keys[kid], quick.digest(payload, "seal", traffic.chain_id), signature)
        return len(messages)

    with _ledger(traffic) as ledger, one_core():
        registry = _registry(traffic, ledger)
        return [ratio_row("1", "COSE_Sign1 of a seal: decode, verify, decode the payload", Floor(0.80, 0.90), rounds,
                          lambda: spent(bare)),
                ratio_row("1 envelope", "the whole envelope of one reading: all ordered checks, reading, root",
                          Floor(0.70, 0.82), rounds,
                          lambda: spent(lambda: len(_verified(traffic, registry, traffic.envelopes))))]


def store(rounds: int, envelopes: int = ENVELOPES) -> list[Outcome]:
    """Row 2: verified, put in the order of their chain, and durable, one commit per COMMIT."""
    traffic = make_traffic(envelopes)
    with one_core():
        return [ratio_row("2", f"the same, in order and durable, {COMMIT} a commit", Floor(0.70, 0.82), rounds,
                          lambda: _stored(traffic))]


def store_full(rounds: int) -> list[Outcome]:
    """Row 4: FULL readings under one seal: leaf hashes, root, stored beside it."""
    traffic = make_traffic(FULL_ENVELOPES, FULL)
    with one_core():
        return [ratio_row("4", f"readings, {FULL} under one seal: checked, hashed, durable", Floor(8, 14), rounds,
                          lambda: _readings(_stored(traffic)), FULL)]


def _registry(traffic: Traffic, ledger: Ledger) -> Cache:
    """The registry as ingest's threads see it."""
    cache = Cache()
    cache.records = {agent.kid: ledger.agent(agent.kid) for agent in traffic.agents}
    return cache


def _verified(traffic: Traffic, registry: Cache, envelopes: Sequence[tuple[str, bytes]]) -> list[VerifiedSeal]:
    """By the checks of one of ingest's threads, in its chunks."""
    found: list[VerifiedSeal] = []
    for at in range(0, len(envelopes), CHUNK):
        found += finish([open_envelope(topic, data, registry, traffic.chain_id, AREA)
                         for topic, data in envelopes[at:at + CHUNK]], verify_digest)
    return found


def _stored(traffic: Traffic) -> Spent:
    """All envelopes through checks, chains and a new ledger's disk."""
    with _ledger(traffic) as ledger:
        registry = _registry(traffic, ledger)
        chains = Chains(ledger.chain, lambda kid, point, height: None)

        def work() -> int:
            for at in range(0, len(traffic.envelopes), COMMIT):
                batch = _verified(traffic, registry, traffic.envelopes[at:at + COMMIT])
                for found in batch:
                    assert chains.place(found).verdict is Verdict.NEXT
                assert ledger.put_envelopes(batch) == len(batch)
            return len(traffic.envelopes)

        return spent(work)


def _readings(done: Spent) -> Spent:
    return done._replace(units=done.units * FULL)


@contextmanager
def _ledger(traffic: Traffic) -> Iterator[Ledger]:
    with folder() as where:
        ledger = Ledger.open(where, traffic.genesis)
        try:
            yield ledger
        finally:
            ledger.close()
