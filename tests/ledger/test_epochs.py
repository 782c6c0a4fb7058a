"""Checks changes of the validator set in the ledger: by q wills, at a checkpoint, proven epoch by epoch."""

import pytest

from firmware.crypto.openssl import verify_digest
from firmware.wire import certificate, cose, epochs, header, headerfile, merkle, proof, validators
from firmware.wire.errors import Refused
from firmware.wire.reasons import NUMBERS
from gateway.ledger.ledger import Ledger
from gateway.ledger.proofs import prove_header
from tests.ledger.epochs import INTERVAL, Chain, certify, kid_of, members_of, request, wills
from tests.ledger.test_ledger import AGENTS
from tests.ledger.world import AREA, START_S, World, key, point_entry

FOUR = ["replica 0", "replica 1", "replica 2", "replica 3"]
ONE = FOUR[:1]


def make(replicas):
    return World(replicas, AGENTS, {"checkpoint_interval": INTERVAL, "log_window": 2 * INTERVAL})


def chain_of(folder, replicas):
    world = make(replicas)
    return Chain(Ledger.open(folder / "ledger", world.genesis), world, FOUR[:replicas])


def grown(folder):
    """One replica, grown to four, one of them then replaced; six epochs."""
    chain = chain_of(folder, 1)
    for count in (2, 3, 4):
        chain.change(FOUR[:count])
        chain.reach_boundary()
        chain.run()
    chain.change([*FOUR[1:], "replica 4"])
    chain.reach_boundary()
    for _ in range(INTERVAL):
        chain.run()
    return chain


def handovers(ledger):
    ledger.keep_handovers()
    return [epochs.decode(epoch.handover) for epoch in ledger.epochs[1:]]


def test_a_set_grows_and_changes_by_checkpoints_and_every_block_is_certified_by_its_own_set(tmp_path):
    chain = grown(tmp_path)
    ledger = chain.ledger
    assert [len(epoch.rows) for epoch in ledger.epochs] == [1, 2, 3, 4, 4]
    assert [epoch.base % INTERVAL for epoch in ledger.epochs] == [0] * 5
    assert [found.kid for found in ledger.members] == sorted(kid_of(name) for name in [*FOUR[1:], "replica 4"])
    for height in range(1, ledger.height() + 1):
        whole = ledger.whole("trade", height)
        meta, epoch = header.decode_meta(whole.meta), ledger.epoch_at("trade", height)
        assert meta.epoch == epoch and meta.set_hash == certificate.set_hash(ledger.members_of(epoch))
        is_last = epoch < ledger.epoch and ledger.epoch_at("trade", height + 1) > epoch
        assert not is_last or meta.next_set == ledger.epochs[epoch + 1].rows
        assert meta.next_set is None or meta.next_set_hash != meta.set_hash
        certificate.check_certificate(certificate.decode(ledger.certificate("trade", height)), whole.header,
                                      ledger.members_of(epoch), epoch, "trade", ledger.chain_id, verify_digest)
    ledger.check()
    sets = epochs.walk(ledger.genesis_members, handovers(ledger), ["trade"], ledger.chain_id, verify_digest)
    assert sets == [ledger.members_of(epoch) for epoch in range(5)]
    ledger.close()
    again = Ledger.open(tmp_path / "ledger", chain.world.genesis)
    assert again.epochs == ledger.epochs and again.members == ledger.members
    again.check()


def test_it_is_in_force_with_q_equal_wills_and_waits_for_the_checkpoint(tmp_path):
    chain = chain_of(tmp_path, 4)
    wanted = [*FOUR[:3], "replica 4"]
    assert chain.run(wills(chain.world, FOUR, wanted, 2)).results == [0, 0]
    assert not chain.ledger.is_ending(0)
    other = wills(chain.world, FOUR, [*FOUR[:3], "replica 5"], 1)
    assert chain.run(other).results == [0]  # the first has changed its mind: one will is left
    third = wills(chain.world, FOUR, wanted, 3)[2:]
    assert chain.run(third).results == [0]
    assert not chain.ledger.is_ending(0)
    fourth = wills(chain.world, FOUR, wanted, 4)[3:]
    chain.coming = wanted
    assert chain.run(fourth).results == [0]  # n = 4: the boundary itself
    assert chain.ledger.is_ending(0) and chain.ledger.epoch == 1
    assert chain.run().results == []
    assert not chain.ledger.is_ending(0) and chain.ledger.members == members_of(wanted)


def test_a_boundary_of_nulls_ends_the_epoch_too(tmp_path):
    chain = chain_of(tmp_path, 1)
    chain.change(FOUR[:2])
    for _ in range(INTERVAL - 1):
        chain.run(is_null=True)
    assert chain.ledger.epoch == 1 and chain.ledger.is_ending(0)
    chain.run(is_null=True)
    chain.run()
    assert chain.ledger.height() == 2 and not chain.ledger.is_ending(0)
    chain.ledger.check()


def codes_of(chain, *items):
    return chain.run(items).results


def test_what_is_no_change_is_refused(tmp_path):
    """security.md T38: who may, how many at a time, whose key, which key never."""
    chain = chain_of(tmp_path, 4)
    world = chain.world

    def sent(wanted, requests, sender="replica 0"):
        return world.tx(validators.CHANGE, validators.encode_body(members_of(wanted), requests), sender)

    five = [*FOUR, "replica 4"]
    asked = request(world, "replica 4")
    other_chain = bytes(validators.encode_request(key("replica 4").public, bytes(32), bytes(32),
                                                  key("replica 4").signer.sign_digest))
    stolen = bytearray(asked)
    stolen[-1] ^= 1
    cases = {
        "not_permitted": sent(five, [asked], "operator"),
        "wrong_count": sent(five, []),
        "wrong_key": sent(five, [request(world, "replica 5")]),
        "bad_signature": sent(five, [other_chain]),
        "wrong_set": sent([*five, "replica 5"], [asked, request(world, "replica 5")]),
        "already_enrolled": sent([*FOUR, "meter"], [request(world, "meter")]),
    }
    for reason, item in cases.items():
        assert codes_of(chain, item) == [NUMBERS[reason]], reason
    assert codes_of(chain, sent(five, [bytes(stolen)])) == [NUMBERS["bad_signature"]]
    assert codes_of(chain, sent(FOUR, [])) == [NUMBERS["wrong_set"]]
    row = [[b"\x01" * 8, b"\x04" + b"\x01" * 64, bytes(32)]] * 2
    assert codes_of(chain, world.tx(validators.CHANGE, [row, []], "replica 0")) == [NUMBERS["wrong_set"]]
    chain.change(FOUR[1:])
    assert codes_of(chain, sent(five, [asked], "replica 1")) == [NUMBERS["busy"]]
    chain.reach_boundary()
    back = sent(FOUR, [request(world, "replica 0")], "replica 1")
    assert codes_of(chain, back) == [NUMBERS["revoked"]]  # a key that has left does not come back
    assert codes_of(chain, sent([*FOUR[1:], "replica 4"], [asked], "replica 0")) == [NUMBERS["not_enrolled"]]
    assert codes_of(chain, world.enrol("replica 1", [point_entry(9)])) == [NUMBERS["already_enrolled"]]
    chain.ledger.check()


def test_another_ledger_follows_by_blocks_epoch_by_epoch(tmp_path):
    chain = grown(tmp_path)
    ahead, late = chain.ledger, Ledger.open(tmp_path / "late", chain.world.genesis)
    ends = [epoch.base for epoch in ahead.epochs[1:]] + [ahead.stand().n]
    at = 0
    for number, n in enumerate(ends):
        heights = [dict(epoch.heights)["trade"] for epoch in ahead.epochs[1:]] + [ahead.height()]
        top = heights[number]
        pairs = ahead.blocks("trade", at + 1, top - at, 1 << 20)
        root = header.decode_meta(ahead.whole("trade", top).meta).state_root
        late.install(n, pairs, [("trade", top, header.hash_of(ahead.header("trade", top)))], root)
        at = top
        assert late.epoch == min(number + 1, 4)
    assert late.epochs[:4] == ahead.epochs[:4] and late.stand().heads == ahead.stand().heads
    late.check()


def test_a_state_is_taken_over_in_a_later_epoch_by_handovers_alone(tmp_path):
    chain = grown(tmp_path)
    ahead, late = chain.ledger, Ledger.open(tmp_path / "late", chain.world.genesis)
    shot = ahead.snapshots[max(ahead.snapshots)]
    heads = [tuple(head) for head in ahead.stand().heads]
    pairs = [pair for bucket in shot.state.buckets for pair in bucket.items()]
    with pytest.raises(Refused, match="wrong_epoch"):
        late.install_state(shot.n, shot.headers, heads, shot.state.root, pairs)
    ahead.keep_handovers()
    data = [epoch.handover for epoch in ahead.epochs[1:]]
    with pytest.raises(Refused):
        late.learn_epochs([data[0], data[2]])
    late.learn_epochs(data)
    late.install_state(shot.n, shot.headers, heads, shot.state.root, pairs)
    assert late.members == ahead.members and late.epochs[-1].base == ahead.epochs[-1].base
    n, time_s = ahead.stand().n + 1, header.decode(shot.headers[0][1]).time_s + 60
    assert late.execute(n, ("trade", 0, time_s, [])).header == ahead.execute(n, ("trade", 0, time_s, [])).header
    late.check()


def forgeries(chain):
    """(reason, epoch that is left, handover) of what must move nobody: a light node, a joining replica, a verifier."""
    ledger, world = chain.ledger, chain.world
    good = handovers(ledger)
    three = good[3]  # from the set of four to another set of four
    fields = header.decode_meta(three.meta)

    def remade(**changes):
        """The same block with another leaf 0, certified by whoever is named."""
        signers = changes.pop("signers", None)
        names, epoch = changes.pop("names", FOUR), changes.pop("certified_epoch", 3)
        meta = header.encode_meta(fields._replace(**changes))
        leaves = [meta, *ledger.whole("trade", fields.height).leaves]
        top = header.encode(header.decode(three.header)._replace(root=merkle.root(leaves)))
        return epochs.Handover(top, certify(world, names, epoch, top, signers), meta, merkle.path(
            [merkle.leaf_hash(leaf) for leaf in leaves], 0))

    def set_of(names):
        found = certificate.member_lists(members_of(names))
        return {"next_set": found, "next_set_hash": certificate.set_hash(members_of(names))}

    taken = certificate.decode(three.certificate)
    another = set_of([*FOUR[:3], "stranger 1"])
    strange = set_of(["stranger 1", "stranger 2", "stranger 3", "stranger 4"])
    yield "too_few_signers", 3, remade(**another, signers=[0, 1])
    yield "bad_signature", 3, remade(**another, names=["stranger 1", *FOUR[:3]])
    yield "wrong_set", 3, remade(**strange)
    yield "wrong_set", 3, remade(**set_of([*FOUR[:2], "stranger 1", "stranger 2"]))
    yield "wrong_set", 3, remade(**set_of([*FOUR, "stranger 1", "stranger 2"]))
    yield "wrong_set", 3, remade(**set_of(FOUR[:2]))
    yield "wrong_set", 3, remade(**set_of(FOUR))
    yield "wrong_set", 3, remade(next_set=None)
    yield "wrong_set", 3, remade(next_set=list(reversed(fields.next_set)))
    yield "wrong_set", 3, remade(next_set=[*fields.next_set[:3], fields.next_set[2]])
    yield "wrong_set", 3, remade(next_set=[])
    yield "wrong_set", 3, remade(next_set_hash=bytes(32))
    yield "wrong_set", 3, remade(set_hash=bytes(32))
    yield "wrong_epoch", 3, remade(epoch=2)
    yield "wrong_epoch", 3, remade(epoch=4, certified_epoch=4)
    yield "wrong_epoch", 3, remade(certified_epoch=2)
    yield "wrong_epoch", 3, good[2]  # one that was taken before
    yield "wrong_epoch", 2, three  # one too many
    yield "wrong_chain", 3, remade(chain_id=bytes(32))
    yield "wrong_channel", 3, remade(channel="credit")
    yield "wrong_height", 3, remade(height=fields.height + 1)
    yield "not_included", 3, three._replace(meta=header.encode_meta(fields._replace(**another)))
    yield "not_included", 3, three._replace(meta_path=[*three.meta_path[:-1], bytes(32)])
    other = good[2].header[:76] + three.header[76:]
    yield "wrong_header", 3, three._replace(certificate=certify(world, FOUR, 3, other))
    yield "duplicate_signer", 3, three._replace(certificate=certificate.encode(taken._replace(
        signers=(0, 1), signatures=taken.signatures)))
    yield "unknown_signer", 3, three._replace(certificate=certificate.encode(taken._replace(signers=(0, 1, 7))))
    yield "bad_signature", 3, three._replace(certificate=certificate.encode(taken._replace(
        signatures=(*taken.signatures[:2], bytes(64)))))
    vote = certificate.vote_payload(3, "trade", fields.height, header.hash_of(three.header))
    other_kind = [key(name).signer.sign_digest(cose.digest(vote, "pbft", world.chain_id)) for name in FOUR[:3]]
    yield "bad_signature", 3, three._replace(certificate=certificate.encode(taken._replace(
        signatures=tuple(other_kind))))


def test_forged_handovers_move_nobody(tmp_path):
    """security.md T32, at the change of a set."""
    chain = grown(tmp_path)
    kinds = list(forgeries(chain))
    assert len(kinds) >= 20
    for reason, epoch, found in kinds:
        with pytest.raises(Refused) as refused:
            epochs.check_handover(found, chain.ledger.members_of(epoch), epoch, ["trade"], chain.ledger.chain_id,
                                  verify_digest)
        assert refused.value.reason == reason, (reason, str(refused.value))


def test_proofs_of_every_epoch_verify_by_the_genesis_alone(tmp_path):
    """What was proven before a change is the same afterwards; of a later epoch the file brings the handovers along."""
    chain = chain_of(tmp_path, 1)
    ledger, world = chain.ledger, chain.world

    def read(minute):
        found = world.seal("meter", 1, (START_S + 60 * minute) * 1000, 1000 + minute)
        ledger.put_envelopes([found])
        assert chain.run([found.leaf]).results == [0]
        return (START_S + 60 * minute) * 1000
    times = [read(1)]
    before = ledger.prove_reading(1, times[0])
    for count in (2, 3, 4):
        chain.change(FOUR[:count])
        chain.reach_boundary()
        times.append(read(ledger.stand().n + 1))
    assert ledger.prove_reading(1, times[0]) == before
    reports = [proof.check_proof(ledger.prove_reading(1, time_ms), world.genesis, verify_digest) for time_ms in times]
    assert [(report.members, report.meta.epoch) for report in reports] == [(1, 0), (2, 1), (3, 2), (4, 3)]
    whole = ledger.prove_reading(1, times[-1])
    assert proof.check_proof(proof.without_reading(whole), world.genesis, verify_digest).reading is None
    height = ledger.height()
    file = prove_header(ledger, "trade", height, AREA)
    assert len(headerfile.check_file(file, world.genesis, verify_digest).members) == 4
    found, passed = proof.split(whole)
    lies = {"wrong_epoch": [(), passed[:2], [passed[0], passed[0], passed[2]], [*passed, passed[2]]],
            "malformed": [[b"\x80", *passed[1:]], [passed[0], passed[1], passed[2][:-1]]]}
    for reason, lists in lies.items():
        for handed in lists:
            with pytest.raises(Refused, match=reason):
                proof.check_proof(proof.encode(found, handed), world.genesis, verify_digest)
    with pytest.raises(Refused, match="wrong_epoch"):
        proof.check_proof(proof.encode(proof.split(before)[0], passed), world.genesis, verify_digest)
    for at in range(0, len(whole), 37):  # every byte counts
        with pytest.raises(Refused):
            proof.check_proof(whole[:at] + bytes((whole[at] ^ 1,)) + whole[at + 1:], world.genesis, verify_digest)
