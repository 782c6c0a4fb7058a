"""The fleet: its own encoder against the agent's, its plans, and its traffic against a real gateway and Mosquitto."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy import cli
from deploy.enroll import area_brokers, area_name
from firmware.crypto.openssl import OpenSSLSigner, verify_digest
from firmware.wire import cbor, cose, identity, merkle, seal, topics, transaction
from firmware.wire import reading as reading_codec
from firmware.wire.errors import Refused
from gateway.ledger.reader import Reader
from sim_hardware.errors import SimError
from sim_hardware.fleet import folder, wire
from sim_hardware.fleet.fleet import MISDEEDS, Envelope, Fleet, Plan
from tests import needs
from tests.deploy.test_lost_journal import running, wait_for

START_MS = 1_780_000_000_000
CHAIN = hashlib.sha256(b"test chain").digest()
ITEMS = st.recursive(st.one_of(st.none(), st.booleans(), st.integers(-2**63, 2**63 - 1), st.text(max_size=20),
                               st.binary(max_size=300)),
                     lambda inner: st.one_of(st.lists(inner, max_size=30),
                                             st.dictionaries(st.integers(-24, 23), inner, max_size=8)), max_leaves=12)


@given(ITEMS)
def test_two_encoders_agree(item: wire.Item) -> None:
    assert wire.cbor(item) == cbor.encode(item)


@given(st.lists(st.binary(max_size=8), min_size=1, max_size=40))
def test_two_trees_agree(leaves: list[bytes]) -> None:
    assert wire.merkle_root(leaves) == merkle.root(leaves)


@given(st.binary(min_size=32, max_size=32), st.binary(max_size=60))
def test_keys_and_signatures_hold(secret: bytes, payload: bytes) -> None:
    key = wire.Key(secret)
    public = identity.decode_cose_key(key.cose_key)
    assert key.kid == identity.kid_of(public)
    message = key.sign1(payload, "seal", CHAIN)
    signed = cose.parse(message)
    cose.check(signed, "seal", CHAIN, public, verify_digest)
    assert (signed.kid, signed.payload) == (key.kid, payload) and cose.is_low_s(signed.signature)
    high = cose.parse(key.sign1(payload, "seal", CHAIN, True))
    cose.check(high, "seal", CHAIN, public, verify_digest)
    assert not cose.is_low_s(high.signature)
    kid, asked = transaction.decode_enrolment(wire.enrolment(key, bytes(32), "home", CHAIN), CHAIN, verify_digest)
    assert (kid, asked.role, asked.area, asked.key_protection) == (key.kid, "agent", "home", "software")


class Gate:
    """What a gateway checks of an envelope, by the agent's own decoders; heights and links of each point."""

    def __init__(self, fleet: Fleet) -> None:
        self.keys = {agent.key.kid: identity.decode_cose_key(agent.key.cose_key) for agent in fleet.agents}
        self.owners = {number: agent.key.kid for number, (agent, _) in fleet.points.items()}
        self.tips: dict[int, tuple[int, bytes]] = {}
        self.first: list[int] = []

    def take(self, made: Envelope) -> seal.Seal:
        _, kid, kind = topics.parse(made.topic)
        assert kind == "envelope"
        message, readings = seal.decode_envelope(made.data)
        signed = cose.parse(message)
        if signed.kid != kid:
            raise Refused("wrong_key", kid, signed.kid)
        cose.check(signed, "seal", CHAIN, self.keys[kid], verify_digest)
        found = seal.decode(signed.payload)
        if self.owners.get(found.point) != kid:
            raise Refused("not_its_point", kid, found.point)
        for reading in seal.check_readings(found, readings):
            assert reading_codec.encode(reading) in readings
        height, previous = self.tips.get(found.point, (0, seal.FIRST_PREVIOUS))
        if found.height != height + 1 or found.previous != previous:
            raise Refused("fork", height + 1, found.height)
        self.tips[found.point] = (found.height, seal.payload_hash(signed.payload))
        return found


def play(plan: Plan, seconds: int, step_s: int = 5) -> tuple[Fleet, Gate, list[seal.Seal], Counter[str]]:
    """What a gate takes and refuses of a fleet's traffic; refusals by misdeed."""
    fleet = Fleet(plan, START_MS)
    gate = Gate(fleet)
    taken, refused = [], Counter[str]()
    for label_s in range(0, seconds, step_s):
        for made in fleet.due(START_MS + label_s * 1000):
            try:
                found = gate.take(made)
                assert not made.misdeed, f"{made.misdeed} was taken"
                taken.append(found)
            except Refused as error:
                assert made.misdeed, f"an honest seal was refused: {error}"
                refused[f"{made.misdeed} {error.reason}"] += 1
    return fleet, gate, taken, refused


def test_honest_traffic_holds() -> None:
    fleet, gate, taken, refused = play(Plan("home", CHAIN, agents=3, points=4, readings=3, interval_s=60), 600)
    assert not refused and len(gate.tips) == 12
    assert all(9 <= height <= 10 for height, _ in gate.tips.values())
    for point in gate.tips:
        mine = [one for one in taken if one.point == point]
        values = [one.import_wh for one in mine]
        assert values == sorted(values) and all(one.count == 3 for one in mine)
        assert mine[-1].import_wh == fleet.register_wh(fleet.points[point][1], mine[-1].last_ms)


def test_every_misdeed_is_one() -> None:
    _, _, taken, refused = play(Plan("home", CHAIN, agents=2, points=3, hostile_permille=1000), 1200)
    assert {text.split()[0] for text in refused} == set(MISDEEDS)
    assert refused["bad_signature bad_signature"] and refused["wrong_root wrong_root"]
    assert refused["oversize oversize"] and refused["wrong_chain bad_signature"] and refused["garbage malformed"]
    assert refused["wrong_point not_its_point"] and refused["unknown_key wrong_key"] and refused["fork fork"]
    assert len(taken) >= 110, "what is honest arrives beside it"


def test_outages_come_late_and_in_order() -> None:
    plan = Plan("home", CHAIN, agents=4, points=2, outage_permille=1000, outage_s=300)
    _, gate, taken, refused = play(plan, 3900)
    assert not refused and all(height >= 59 for height, _ in gate.tips.values())
    order = [one.last_ms for one in taken]
    assert order != sorted(order), "nothing ever came late"


def test_wrong_clocks_say_so() -> None:
    _, _, taken, _ = play(Plan("home", CHAIN, agents=6, points=1, clock_permille=1000, clock_error_s=900), 300)
    offsets = {(one.last_ms - START_MS) // 1000 > 600 for one in taken}
    assert all(one.flags & seal.CLOCK_BITS == 0 for one in taken) and offsets == {True, False}


def test_a_rate_is_even() -> None:
    fleet = Fleet(Plan("home", CHAIN, agents=5, points=40, rate=100), START_MS)
    counts = [len(list(fleet.due(START_MS + second * 1000 - 1))) for second in range(1, 11)]
    assert counts == [100] * 10


def test_the_same_seed_is_the_same_fleet() -> None:
    plan = Plan("home", CHAIN, agents=2, points=2)
    first, second = ([(made.topic, cose.parse(seal.decode_envelope(made.data)[0]).payload) for made in Fleet(
        plan, START_MS).due(START_MS + 300_000)] for _ in range(2))
    assert first == second and len(first) > 10


@pytest.mark.parametrize("changes", [{"agents": 0}, {"points": 257}, {"readings": 0}, {"jitter_ms": 40_000},
                                     {"hostile_permille": 1001}, {"rate": -1}])
def test_a_plan_that_cannot_be(changes: dict[str, int]) -> None:
    with pytest.raises(SimError, match="expected"):
        Plan("home", CHAIN, **changes).check()


@pytest.fixture(params=[True, False], ids=["plain", "certificates"])
def area(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A running area; with certificates each agent has a connection and rights of its own."""
    needs.program("mosquitto")
    place, log = tmp_path / "area", tmp_path / "area.log"
    words = ["--plain-broker"] if request.param else []
    assert cli.main(["gateway", "init", str(place), "--free-ports", "--set", "wait_seal_ms=1000", "--ack-interval",
                     "1", *words]) == 0
    with running(log, "gateway", "run", str(place)):
        wait_for(lambda: "the area runs" in log.read_text(), "the area", log)
        yield place


def test_against_a_real_gateway(area: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By the three commands: all that is honest is on the ledger and acked, nothing that is not; then a second run."""
    home, words = tmp_path / "fleet", ["sim", "fleet"]
    assert cli.main([*words, "make", str(home), "--genesis", str(area / "genesis.cbor"), "--area", area_name(area),
                     "--broker", area_brokers(area)[0], "--agents", "3", "--points", "20", "--seed", "9"]) == 0
    assert cli.main([*words, "make", str(home), "--genesis", str(area / "genesis.cbor"), "--area", "home", "--broker",
                     "mqtt://localhost"]) == 2
    if "mqtts" in area_brokers(area)[0]:
        assert cli.main([*words, "run", str(home), "--seconds", "1"]) == 2, "nobody is enrolled yet"
        assert not (home / folder.RUNS).exists()
    assert cli.main([*words, "enroll", str(home), "--area-folder", str(area)]) == 0
    capsys.readouterr()
    reports = []
    for _ in range(2):
        assert cli.main([*words, "run", str(home), "--rate", "30", "--hostile", "400", "--seconds", "4", "--json"]) == 0
        reports.append(json.loads(capsys.readouterr().out.splitlines()[-1]))
    assert all(report["acked"] >= 60 and not report["unacked"] and report["ack_ms"] for report in reports)
    assert sum(sum(report["misdeeds"].values()) for report in reports) > 20
    with contextlib.closing(Reader.open(area / "replica-0" / "data")) as reader:
        heights = [[found.seal.height for found in reader.seals(agent.key.kid, point.number)]
                   for agent, point in Fleet(folder.load(home).plan, START_MS).points.values()]
    assert all(found[::-1] == list(range(1, len(found) + 1)) for found in heights)
    assert sum(len(found) for found in heights) == sum(report["acked"] for report in reports)
    (home / folder.RUNS).touch()
    assert cli.main([*words, "run", str(home), "--seconds", "1"]) == 2
    assert "was killed" in capsys.readouterr().err


def test_the_agents_signer_and_the_fleets_are_of_one_mind() -> None:
    """A key of the fleet is a key like any other."""
    secret = hashlib.sha256(b"a test key").digest()
    assert OpenSSLSigner.from_scalar(secret).public_key() == identity.decode_cose_key(wire.Key(
        (int.from_bytes(secret, "big") - 1).to_bytes(32, "big")).cose_key)
