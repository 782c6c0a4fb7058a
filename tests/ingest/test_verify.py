"""Every reason of the ordered checks, provoked through the real code; whatever is thrown in, only Refused comes out."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware.crypto.openssl import verify_digest
from firmware.wire import cbor, cose, genesis, merkle, seal, transaction
from firmware.wire.errors import Refused
from gateway.ingest import verify
from gateway.ingest.verify import VerifiedSeal
from gateway.ledger import records
from tests.ingest.parts import AREA, CHAIN, START_MS, Agent, Registry, raise_s

NOW_S = START_MS // 1000
LIMITS = genesis.parameters()


def take(agent: Agent, data: bytes, topic: str | None = "own", registry: Registry | None = None) -> VerifiedSeal:
    name = agent.topic() if topic == "own" else topic
    return verify.check_envelope(name, data, registry or Registry(agent), CHAIN, AREA, verify_digest)


def refused(action: Callable[[], Any]) -> str:
    with pytest.raises(Refused) as caught:
        action()
    return caught.value.reason


def test_a_good_envelope() -> None:
    agent = Agent()
    data = agent.next(count=3)
    found = take(agent, data)
    message, readings = seal.decode_envelope(data)
    signed = cose.parse(message)
    payload = signed.payload
    assert found == VerifiedSeal(message, payload, seal.payload_hash(payload), seal.decode(payload), readings, data)
    assert take(agent, data, None) == found
    assert verify.item_key(found.leaf) == found.payload_hash
    assert verify.check_fetched(data) == found


def test_a_high_s_is_made_low_before_anything_is_hashed() -> None:
    agent = Agent()
    message, readings = seal.decode_envelope(agent.next())
    high = raise_s(message)
    assert not cose.is_low_s(high[-64:])
    found = take(agent, cbor.encode([high, readings]))
    assert found.leaf == message and found.envelope == b""
    assert verify.item_key(high) == verify.item_key(message)


def test_the_envelope_at_hand_is_the_one_encoding() -> None:
    agent = Agent()
    for count in (1, 2, 30):
        for boot in (1, 2**40):
            found = take(agent, agent.next(count=count, boot=boot))
            assert found.envelope == seal.encode_envelope(found.leaf, found.readings)
            assert found.envelope == records.encode_envelope(found.leaf, found.readings)


TOPICS = [
    ("unknown_topic", ""), ("unknown_topic", "a/b"), ("unknown_topic", "gridseal/1/home/0011223344556677/nonsense"),
    ("unknown_topic", "gridseal/1/home/{kid}/tx"), ("unknown_topic", "gridseal/1/home/{KID}/envelope"),
    ("unknown_topic", "gridseal/1/home/{kid}/envelope/x"), ("unknown_topic", "gridseal/2/home/{kid}/envelope"),
    ("unknown_topic", "gridseal/1/home/{kid}/envelope" + 99 * "x"), ("wrong_area", "gridseal/1/away/{kid}/envelope"),
    ("not_enrolled", "gridseal/1/home/0011223344556677/envelope"), ("wrong_topic", "gridseal/1/home/{other}/envelope")]


@pytest.mark.parametrize(("reason", "topic"), TOPICS)
def test_topics(reason: str, topic: str) -> None:
    agent, other = Agent(), Agent(2, points=(7,))
    name = topic.format(kid=agent.kid.hex(), KID=agent.kid.hex().upper(), other=other.kid.hex())
    assert refused(lambda: take(agent, agent.next(), name, Registry(agent, other))) == reason


def test_who_may_not() -> None:
    agent = Agent()
    data = agent.next()
    registry = Registry(agent)
    assert refused(lambda: take(agent, data, registry=Registry())) == "not_enrolled"
    assert refused(lambda: take(agent, data, None, Registry())) == "not_enrolled"
    registry.records[agent.kid] = agent.record(revoked_height=9)
    assert refused(lambda: take(agent, data, registry=registry)) == "revoked"
    assert refused(lambda: take(agent, data, None, registry)) == "revoked"
    registry.records[agent.kid] = agent.record(area="garden")
    assert refused(lambda: take(agent, data, registry=registry)) == "wrong_area"
    registry.records[agent.kid] = agent.record(points=[8])
    assert refused(lambda: take(agent, data, registry=registry)) == "not_its_point"


def test_shapes() -> None:
    agent = Agent()
    good = agent.next()
    message, readings = seal.decode_envelope(good)
    made = seal.decode(cose.parse(message).payload)
    deep: Any = []
    for _ in range(9):
        deep = [deep]
    deep_bytes = b"\x81" * 20 + b"\x80"
    for reason, data in {
            "oversize": bytes(seal.ENVELOPE_BYTES + 1),
            "malformed": good + b"\0",
            "too_deep": b"\x82\x41\0" + deep_bytes}.items():
        assert refused(lambda data=data: take(agent, data)) == reason  # type: ignore[misc]
    for bad in (b"", b"\xff", good[:-1], b"\x82", cbor.encode([message]), cbor.encode([message, [1]]),
                cbor.encode([message[1:], readings]), cbor.encode([b"", readings]), b"\xc0" + good,
                cbor.encode([message[:-1], readings])):
        assert refused(lambda bad=bad: take(agent, bad)) == "malformed"  # type: ignore[misc]
    assert refused(lambda: take(agent, cbor.encode([bytes(600), readings]))) == "oversize"
    for reason, changes in (("wrong_version", {"version": 2}), ("malformed", {"lost": 5}),
                            ("wrong_times", {"first_ms": made.last_ms + 1}), ("wrong_count", {"count": 0}),
                            ("wrong_count", {"count": 2}), ("not_its_point", {"point": 2**40}),
                            ("wrong_key", {"kid": bytes(8)})):
        assert refused(lambda changes=changes: take(  # type: ignore[misc]
            agent, agent.envelope(made._replace(**changes), readings))) == reason


def test_signatures() -> None:
    agent, other = Agent(), Agent(2)
    data = agent.next()
    message, readings = seal.decode_envelope(data)
    signed = cose.parse(message)
    forged = {
        "another key": other.signer.sign_digest(cose.digest(signed.payload, "seal", CHAIN)),
        "another chain": agent.signer.sign_digest(cose.digest(signed.payload, "seal", bytes(32))),
        "another kind": agent.signer.sign_digest(cose.digest(signed.payload, "tx", CHAIN)),
        "zeros": bytes(64), "order": cose.ORDER.to_bytes(32, "big") * 2}
    for name, signature in forged.items():
        bad = cbor.encode([cose.assemble(agent.kid, signed.payload, signature), readings])
        assert refused(lambda bad=bad: take(agent, bad)) == "bad_signature", name  # type: ignore[misc]


def test_readings() -> None:
    agent, other = Agent(points=(7, 8)), Agent(2)
    first, second = agent.reading(7, START_MS), agent.reading(7, START_MS + 60_000)
    made = agent.seal(7, 1, bytes(32), [first, second])
    cases: list[tuple[str, seal.Seal, list[bytes]]] = [
        ("wrong_root", made, [second, first]), ("wrong_root", made, [first, agent.reading(7, START_MS + 60_000, 999)]),
        ("wrong_times", agent.seal(7, 1, bytes(32), [second, first], first_ms=START_MS, last_ms=START_MS + 60_000),
         [second, first]),
        ("wrong_times", agent.seal(7, 1, bytes(32), [first, first]), [first, first]),
        ("wrong_times", made._replace(first_ms=START_MS - 1), [first, second]),
        ("wrong_times", made._replace(last_ms=START_MS + 60_001), [first, second])]
    for stranger in (other.reading(7, START_MS), agent.reading(8, START_MS)):
        cases.append(("wrong_reading", agent.seal(7, 1, bytes(32), [stranger]), [stranger]))
    for junk in (b"", b"junk", bytes(100), cbor.encode([1, 2, 3, 4])):
        cases.append(("malformed", agent.seal(7, 1, bytes(32), [first], root=merkle.root([junk])), [junk]))
    for reason, changed, readings in cases:
        data = agent.envelope(changed, readings)
        assert refused(lambda data=data: take(agent, data)) == reason  # type: ignore[misc]
        assert refused(lambda data=data: verify.check_fetched(data)) == reason  # type: ignore[misc]
    assert refused(lambda: verify.check_fetched(agent.envelope(made, [first]))) == "wrong_count"
    assert refused(lambda: verify.check_fetched(agent.envelope(made._replace(kid=other.kid), [first]))) == "wrong_key"
    assert refused(lambda: verify.check_fetched(cbor.encode([bytes(600), [first]]))) == "oversize"


def check_transaction(agent: Agent, data: bytes, registry: Registry | None = None, **changes: Any) -> Any:
    given_to = {"topic": agent.topic("tx"), "now_s": NOW_S, **changes}
    return verify.check_transaction(given_to["topic"], data, registry or Registry(agent), CHAIN, AREA, verify_digest,
                                    given_to["now_s"])


def test_transactions() -> None:
    agent, other = Agent(), Agent(2)
    data = agent.transaction()
    found = check_transaction(agent, data)
    assert found.leaf == data and found.payload == cose.parse(data).payload and found.transaction.sender == agent.kid
    assert check_transaction(agent, raise_s(data)).leaf == data
    assert check_transaction(agent, data, topic=None) == found
    long = agent.sign(transaction.encode(found.transaction._replace(body=[bytes(16_500)])), "tx")
    both = Registry(agent, other)
    cases: list[tuple[str, bytes, dict[str, Any]]] = [
        ("oversize", long, {}), ("oversize", bytes(20_000), {}), ("malformed", data[:-1], {}), ("malformed", b"", {}),
        ("malformed", agent.sign(cbor.encode([1, 2]), "tx"), {}), ("too_deep", agent.sign(b"\x81" * 20, "tx"), {}),
        ("unknown_topic", data, {"topic": agent.topic()}), ("not_enrolled", data, {"registry": Registry(other)}),
        ("not_enrolled", data, {"registry": Registry(), "topic": None}),
        ("wrong_area", data, {"topic": "gridseal/1/garden/" + agent.kid.hex() + "/tx"}),
        ("wrong_topic", data, {"topic": other.topic("tx"), "registry": both}),
        ("wrong_version", agent.transaction(version=2), {}), ("wrong_key", agent.transaction(sender=other.kid), {}),
        ("unknown_type", agent.transaction(0), {}), ("unknown_type", agent.transaction(99), {}),
        ("wrong_channel", agent.transaction(channel="credit"), {}), ("expired", data, {"now_s": 2_000_000_001}),
        ("bad_signature", data[:-1] + bytes([data[-1] ^ 1]), {}),
        ("bad_signature", agent.sign(found.payload, "seal"), {})]
    for reason, bad, changes in cases:
        assert refused(lambda bad=bad, changes=changes: check_transaction(  # type: ignore[misc]
            agent, bad, **changes)) == reason
    both.records[agent.kid] = agent.record(revoked_height=3)
    assert refused(lambda: check_transaction(agent, data, both)) == "revoked"


@settings(max_examples=300)
@given(st.data())
def test_nothing_but_refused_comes_out(data: st.DataObject) -> None:
    """An envelope with bytes changed, cut or doubled is refused; it is never accepted as something else."""
    agent = Agent()
    good = agent.next() if data.draw(st.booleans()) else agent.transaction()
    payloads = {take(Agent(), Agent().next()).payload, cose.parse(Agent().transaction()).payload}
    made = bytearray(good)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(made) - 1))
        made[at:at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3))
    for check in (take, check_transaction):
        try:
            assert check(agent, bytes(made)).payload in payloads
        except Refused:
            pass
    try:
        verify.check_fetched(bytes(made))
    except Refused:
        pass


def test_every_bit_of_an_envelope() -> None:
    agent = Agent()
    good = agent.next()
    leaf = take(agent, good).leaf
    accepted = 0
    for bit in range(0, 8 * len(good)):
        made = bytearray(good)
        made[bit >> 3] ^= 1 << (bit & 7)
        try:
            assert take(agent, bytes(made)).leaf == leaf
            accepted += 1
        except Refused:
            pass
    assert accepted == 0


# Batches

def batch(leaves: list[bytes], registry: Registry, verified: dict[bytes, bytes] | None = None,
          readings: set[bytes] | None = None, limits: dict[str, int] | None = None) -> list[bytes]:
    known = verified or {}
    return verify.check_batch(leaves, registry, CHAIN, {**LIMITS, **(limits or {})},
                              lambda payload_hash, leaf: known.get(payload_hash) == leaf,
                              lambda payload_hash: readings is None or payload_hash in readings, verify_digest)


def test_batches() -> None:
    agent, other = Agent(), Agent(2)
    leaves = [take(agent, agent.next()).leaf for _ in range(3)] + [other.transaction(), agent.transaction()]
    keys = [verify.item_key(leaf) for leaf in leaves]
    both = Registry(agent, other)
    assert batch(leaves, both) == []
    assert batch(leaves, both, readings={keys[1]}) == [keys[0], keys[2]], "a transaction has no readings"
    assert batch([], both) == []
    bad = leaves[0][:-1] + bytes([leaves[0][-1] ^ 1])
    assert refused(lambda: batch([bad], both)) == "bad_signature"
    assert batch([bad], Registry()) == [], "whose key nobody knows is for execution to judge"
    assert batch([bad], both, {keys[0]: bad}) == [], "what was verified is not verified again"
    assert refused(lambda: batch([bad], both, {keys[0]: leaves[0]})) == "bad_signature"
    assert refused(lambda: batch([raise_s(leaves[0])], both)) == "high_s"
    assert refused(lambda: batch([raise_s(leaves[4])], both)) == "high_s"
    assert refused(lambda: batch([leaves[0], leaves[1], leaves[0]], both)) == "duplicate"
    assert refused(lambda: batch([leaves[3], leaves[3]], both)) == "duplicate"
    assert refused(lambda: batch(leaves, both, limits={"batch_items": 4})) == "oversize"
    assert refused(lambda: batch(leaves, both, limits={"batch_bytes": 500})) == "oversize"
    assert batch(leaves[:1], both, limits={"batch_bytes": 10}) == [], "one that is too large alone goes alone"
    assert refused(lambda: batch(leaves, both, limits={"client_items": 3})) == "busy"
    assert refused(lambda: batch([b"junk"], both)) == "malformed"
    assert refused(lambda: batch([bytes(20_000)], both)) == "oversize"
    assert refused(lambda: batch([agent.sign(b"\x81" * 20)], both)) == "too_deep"
    payload = cose.parse(leaves[0]).payload
    assert refused(lambda: batch([cose.assemble(other.kid, payload, leaves[0][-64:])], both)) == "wrong_key"
    payload = cose.parse(leaves[4]).payload
    assert refused(lambda: batch([cose.assemble(other.kid, payload, leaves[4][-64:])], both)) == "wrong_key"
    made = seal.decode(cose.parse(leaves[0]).payload)
    assert refused(lambda: batch([agent.sign(seal.encode(made._replace(version=2)))], both)) == "wrong_version"
    twin = agent.sign(seal.encode(made._replace(boot=9)))
    assert batch([leaves[0], twin], both) == [], "a fork inside a batch is for execution to judge"


def test_leaves() -> None:
    agent = Agent()
    leaf = take(agent, agent.next()).leaf
    found = verify.seal_of(leaf)
    assert found is not None and found.height == 1
    assert verify.seal_of(agent.transaction()) is None
    assert refused(lambda: verify.seal_of(b"junk")) == "malformed"
    assert verify.kid_of(leaf) == agent.kid
    assert verify.kid_of(b"") == bytes(8)
    assert verify.item_key(b"junk") != verify.item_key(b"other junk")
