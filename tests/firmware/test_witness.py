"""What an agent signs as a witness: the first checked header of each interval, saved first, never two for a height."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware import agent as agent_module
from firmware.crypto.openssl import verify_digest
from firmware.headers import FOLLOW_MS
from firmware.lightnode import LightNode
from firmware.trust import decode_trust
from firmware.wire import cose, header, witness
from firmware.wire.errors import Refused
from tests.firmware.nor import PowerCut
from tests.firmware.world import DAY_MS, Rig

INTERVAL_S = 900
DAY_S = DAY_MS // 1000


class Stand:
    """An agent that hears header messages; what it signs, and the trust file as it is at that moment."""

    def __init__(self, **settings: Any) -> None:
        self.rig = Rig(points=1, **settings)
        self.rig.on_duty = self.note
        self.sent: list[bytes] = []
        self.cut: type | None = None  # the power fails right before this duty

    def note(self, duty: Any) -> None:
        if self.cut is not None and isinstance(duty, self.cut):
            raise PowerCut
        if isinstance(duty, agent_module.Witness):
            made = self.rig.agent.witness()
            assert made is not None
            topic, message, height = made
            assert topic == f"gridseal/1/home/{self.rig.kid.hex()}/witness"
            signed, found = witness.read(message)
            cose.check(signed, "witness", self.rig.chain.chain_id, self.rig.signer.public_key(), verify_digest)
            assert self.rig.trust is not None, "nothing is signed before it is saved"
            saved = decode_trust(self.rig.trust).witnessed
            assert saved is not None and saved[0] == found.header and height == found.height
            self.sent.append(message)

    @property
    def headers(self) -> list[bytes]:
        return [witness.read(message)[1].header for message in self.sent]

    def block(self, time_s: int) -> bytes:
        """The chain's next header."""
        self.rig.chain.tip = self.rig.chain.header([b"leaf %d" % time_s], time_s)
        return self.rig.chain.tip

    def hear(self, top: bytes, certificate: bytes | None = None, now_s: int | None = None) -> None:
        """The header topic brings a header; the agent's clock shows its time."""
        data = witness.encode_header_message(top, certificate or self.rig.chain.certify(top), 0, 0, 0)
        at_s = header.decode(top).time_s if now_s is None else now_s
        self.rig.obey(self.rig.agent.on_header(data, at_s, self.rig.wait_ms))


@pytest.fixture
def stand() -> Stand:
    made = Stand()
    made.rig.connect()
    return made


def test_one_header_of_each_interval(stand: Stand) -> None:
    made = [stand.block(DAY_S + 100 * step) for step in range(30)]
    for top in made:
        stand.hear(top)
        stand.rig.wait_ms += 100
    assert stand.headers == [made[0], made[9], made[18], made[27]]
    assert stand.rig.agent.counts["witnessed"] == 4 and stand.rig.agent.status(0)["witnessed_height"] == 28


def test_it_follows_only_now_and_then_within_an_interval(stand: Stand) -> None:
    """Certificates cost a board seconds: between two signatures one in FOLLOW_MS is checked."""
    for step in range(50):
        stand.hear(stand.block(DAY_S + step))
        stand.rig.wait_ms += FOLLOW_MS // 5
    assert [height for height in range(1, 51) if stand.rig.light.pair_at(height)] == [1, 31, 36, 41, 46]
    saved = LightNode(stand.rig.chain.genesis, verify_digest, stand.rig.light.save())
    assert [height for height in range(1, 51) if saved.pair_at(height)] == [1, 41, 46] and len(stand.sent) == 1


@pytest.mark.parametrize("cut", [agent_module.SaveTrust, agent_module.Witness])
def test_power_cut_before_and_after_the_intent_is_saved(stand: Stand, cut: type) -> None:
    """Cut before: nothing was signed, so another header may be. Cut after: the very same payload is signed and sent."""
    first = stand.block(DAY_S)
    stand.cut = cut
    with pytest.raises(PowerCut):
        stand.hear(first)
    assert not stand.sent
    stand.cut = None
    stand.rig.boot()
    second = stand.block(DAY_S + 5)
    stand.rig.connect()
    stand.hear(second)
    assert stand.headers == [second if cut is agent_module.SaveTrust else first]


def test_the_same_again_until_the_broker_has_it(stand: Stand) -> None:
    first = stand.block(DAY_S)
    stand.hear(first)
    stand.rig.obey(stand.rig.agent.on_disconnected())
    stand.rig.connect()
    assert stand.headers == [first, first] and len(set(stand.sent)) == 1, "no PUBACK: sent again, byte for byte"
    stand.rig.obey(stand.rig.agent.on_witness_published(0))  # of an older one
    stand.rig.connect()
    stand.rig.obey(stand.rig.agent.on_witness_published(1))
    stand.rig.connect()
    assert len(stand.sent) == 3
    stand.rig.connect(broker=1)
    assert len(stand.sent) == 4, "other gateways may be behind another broker"
    stand.rig.boot()
    stand.rig.connect()
    assert stand.headers == [first] * 5, "after a restart it is not known whether it was sent"


def test_signed_while_offline_goes_out_later() -> None:
    stand = Stand()
    first = stand.block(DAY_S)
    stand.hear(first)
    assert not stand.sent and stand.rig.trust is not None
    stand.rig.connect()
    assert stand.headers == [first]


def test_a_header_that_an_ack_has_brought_is_signed_when_the_topic_shows_it(stand: Stand) -> None:
    first = stand.block(DAY_S)
    proof = stand.rig.chain.certify(first)
    stand.rig.light.accept(first, proof, DAY_S)
    stand.hear(first, certificate=b"rubbish: nobody looks at it again")
    assert stand.headers == [first]
    assert decode_trust(stand.rig.light.save()).witnessed == (first, proof)


def test_forged_headers_are_neither_followed_nor_signed(stand: Stand) -> None:
    top = stand.block(DAY_S)
    for signers in ([0, 1], [0]):
        stand.hear(top, stand.rig.chain.certify(top, signers))
    stand.hear(top, stand.rig.chain.certify(top, chain_id=bytes(32)))
    stand.hear(top, stand.rig.chain.certify(top, epoch=1))
    stand.hear(top, now_s=DAY_S - 60)  # from the future
    stand.rig.obey(stand.rig.agent.on_header(b"rubbish", DAY_S, 0))
    assert not stand.sent and stand.rig.light.height == 0 and stand.rig.agent.counts["bad_headers"] == 6
    stand.hear(top)
    assert stand.headers == [top]


def test_a_contradiction_ends_it_for_good(stand: Stand) -> None:
    first = stand.block(DAY_S)
    stand.hear(first)
    other = stand.rig.chain.header([b"another truth"], DAY_S, previous=header.decode(first).previous, height=1)
    stand.hear(other)  # at once, though the last header was checked in this very moment
    assert stand.headers == [first] and any("TWO VALID" in text for text in stand.rig.alarms)
    trust = decode_trust(stand.rig.trust or b"")
    assert trust.contradiction and {pair[0] for pair in trust.contradiction} == {first, other}
    stand.hear(stand.block(DAY_S + INTERVAL_S))
    stand.rig.boot()
    stand.rig.connect()
    stand.rig.wait_ms += FOLLOW_MS
    assert stand.rig.agent.witness() is None and stand.headers == [first]


def test_what_it_signed_it_remembers_until_it_signs_again(stand: Stand) -> None:
    """Another header of that height, hundreds of blocks and a restart later: both are kept."""
    first = stand.block(DAY_S)
    stand.hear(first)
    for step in range(1, 300):
        stand.block(DAY_S + step)
    for _ in range(9):
        stand.rig.wait_ms += FOLLOW_MS
        stand.hear(stand.block(DAY_S + 400))
    stand.rig.boot()
    other = stand.rig.chain.header([b"another truth"], DAY_S, previous=header.decode(first).previous, height=1)
    stand.hear(other)
    assert stand.rig.light.contradiction and {pair[0] for pair in stand.rig.light.contradiction} == {first, other}


def test_heights_and_intervals_only_rise() -> None:
    rig = Rig(points=1)
    light = rig.light

    def note(height: int, time_s: int) -> bool:
        top = rig.chain.header([b"x"], time_s, height=height)
        if light.may_witness(top):
            light.note_witness(top, b"c")
            return True
        with pytest.raises(ValueError):
            light.note_witness(top, b"c")
        return False

    assert [note(*pair) for pair in ((0, DAY_S), (5, DAY_S), (6, DAY_S + 899), (5, DAY_S + 900), (4, DAY_S + 5000),
                                     (6, DAY_S + 900), (7, DAY_S - 1), (7, DAY_S + 1799), (7, DAY_S + 9000))] == [
        False, True, False, False, False, True, False, False, True]


def test_lost_trust_keeps_silent_about_what_is_past(stand: Stand) -> None:
    """It may have signed another header of that time; nothing of before its start is signed any more."""
    rig = stand.rig
    light = LightNode(rig.chain.genesis, verify_digest, None)
    light.keep_silent(DAY_S + 1000)
    assert not light.may_witness(rig.chain.header([b"x"], DAY_S + 999))
    again = LightNode(rig.chain.genesis, verify_digest, light.save())
    assert not again.may_witness(rig.chain.header([b"x"], DAY_S + 999))
    assert again.may_witness(rig.chain.header([b"x"], DAY_S + 1000))


def test_no_interval_is_no_witness() -> None:
    rig = Rig(points=1)
    rig.light.parameters["witness_interval_s"] = 0
    assert not rig.light.may_witness(rig.chain.header([b"x"], DAY_S))


def test_trust_files_are_read_strictly(stand: Stand) -> None:
    first = stand.block(DAY_S)
    stand.hear(first)
    data = stand.rig.light.save()
    assert LightNode(stand.rig.chain.genesis, verify_digest, data).save() == data
    for at in range(0, len(data), 3):
        changed = bytearray(data)
        changed[at] ^= 0x40
        try:
            assert LightNode(stand.rig.chain.genesis, verify_digest, bytes(changed)).save() == bytes(changed)
        except Refused:
            continue
    assert data[1] == 3
    with pytest.raises(Refused, match="wrong_version"):
        decode_trust(data[:1] + b"\x01" + data[2:])


class Truths:
    """Three headers for each of twelve heights, with times that leap over intervals; two of the three are lies that the
    replicas have certified as well."""

    def __init__(self, rig: Rig) -> None:
        self.made: list[bytes] = []
        for height in range(1, 13):
            for lie in range(3):
                root = hashlib.sha256(b"%d %d" % (height, lie)).digest()
                self.made.append(header.encode(header.Header(
                    1, hashlib.sha256(b"%d" % height).digest(), root, DAY_S + 400 * height, 0, height)))
        self.certificates = [rig.chain.certify(top) for top in self.made]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 35), st.sampled_from(("hear", "hear", "hear", "forged", "cut at the save",
                                                               "cut at the signature", "restart", "gone", "back"))),
                max_size=40))
def test_whatever_it_is_shown_and_whenever_it_dies(story: list[tuple[int, str]]) -> None:
    """One header for a height and one for an interval, for ever; each was saved before it was signed."""
    stand = Stand()
    truths = Truths(stand.rig)
    is_there = True
    stand.rig.connect()
    for number, what in story:
        stand.rig.wait_ms += 3000
        if what in ("restart", "gone"):
            stand.rig.obey(stand.rig.agent.on_disconnected())
            is_there = False
        if what in ("restart", "back"):
            if what == "restart":
                stand.rig.boot()
            stand.rig.connect()
            is_there = True
        if what in ("restart", "gone", "back"):
            continue
        top, proof = truths.made[number], truths.certificates[number]
        stand.cut = {"cut at the save": agent_module.SaveTrust, "cut at the signature": agent_module.Witness}.get(what)
        try:
            stand.hear(top, stand.rig.chain.certify(top, [0]) if what == "forged" else proof)
        except PowerCut:
            stand.cut = None
            stand.rig.boot()
            stand.rig.connect()
            is_there = True
        stand.cut = None
    if not is_there:
        stand.rig.connect()
    signed = {witness.height_of(top): top for top in stand.headers}
    assert all(signed[witness.height_of(top)] == top for top in stand.headers), "two truths of one height"
    intervals = {header.decode(top).time_s // INTERVAL_S: top for top in stand.headers}
    assert len(intervals) == len(signed), "two headers of one interval"
    heights = [witness.height_of(top) for top in stand.headers]
    assert heights == sorted(heights)
