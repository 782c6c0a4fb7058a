"""Makes a bill file's bytes, and takes it apart down to proven facts: state, blocks, seals (billing.py: its lines).

A bill is one CBOR array with nothing in it that is not checked (docs/BILL.md is its page):

    [1, "gridseal-bill", chain id, account kid, first slot, end of the last slot,
     before, after, blocks, borders, chains, witnesses]

before, after   [header, certificate, meta, meta path, the leaf hashes of all 4,096 buckets as one byte string,
                 [[bucket, [[key, value], ...]], ...]]: records of the replicated state under a certified header
blocks          [[header, certificate, meta, meta path, result codes, [[seal COSE, leaf index, path], ...]], ...]
borders         [[point, slot start, [[block, seal], ...]], ...]: which seals decide a border; places count from 0
chains          [[kid, point, [seal payload, ...]], ...]: the account's own seals, none left out between the first and
                the last: each names the hash of the one before
witnesses       [witness COSE, ...] over the header of `after`
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from firmware.wire import cbor, certificate, cose, genesis, header, merkle, seal, state, witness
from firmware.wire.errors import check
from firmware.wire.shape import check_fields, check_list
from gateway.market import records

VERSION = 1
NAME = "gridseal-bill"
BILL_BYTES = 64 * 1024 * 1024  # a month of one-minute seals of eight points
LEAVES_BYTES = 32 * state.BUCKETS
MARKED = 256  # result codes from here on are 256 + mark bits
# Clock not synchronised or implausible, register jumped, firmware not certified. A register that fell may have begun
# again: whether its seal counts, the spans of its meter say (billing.py).
MARKS_THAT_MOVE_NOTHING = 1 | 2 | 8 | 32
FELL = 4
_CLOCK = 3

VerifyDigest = Callable[[bytes, bytes, bytes], bool]


class Bill(NamedTuple):
    """The file's fields, in their order."""

    version: int
    name: str
    chain_id: bytes
    account: bytes
    first_s: int
    end_s: int
    before: list
    after: list
    blocks: list
    borders: list
    chains: list
    witnesses: list


class Facts(NamedTuple):
    """What stands proven under one certified header: its time, and the state's records that the file shows."""

    header: header.Header
    header_bytes: bytes
    state: dict[bytes, bytes]
    shown: frozenset[int]  # buckets that the file shows whole: a key of theirs that is not in `state` does not exist
    signers: int

    def need(self, key: bytes) -> bytes:
        """The record of a key; Refused `wrong_proof` when the file does not show it."""
        value = self.get(key)
        check(value is not None, "wrong_proof", key, None)
        assert value is not None
        return value

    def get(self, key: bytes) -> bytes | None:
        """The record of a key or None where the state has none; Refused `wrong_proof` when the file does not tell."""
        bucket = state.bucket_of(key)
        check(bucket in self.shown, "wrong_proof", key, bucket)
        return self.state.get(key)


class Border(NamedTuple):
    """A seal that may decide a border: its fields, and its payload's hash."""

    seal: seal.Seal
    payload_hash: bytes


def encode(bill: Bill) -> bytes:
    """The file's bytes; ValueError for a bill that is larger than one may be."""
    data = cbor.encode(list(bill))
    if len(data) > BILL_BYTES:
        raise ValueError(f"a bill of {len(data)} bytes; take a shorter period")
    return data


def decode(data: bytes) -> Bill:
    """The Bill of a file; Refused `oversize`, `malformed`, `wrong_version`."""
    check(len(data) <= BILL_BYTES, "oversize", BILL_BYTES, len(data))
    fields = cbor.decode(data)
    check_fields(fields, ("u", "t", "b32", "b8", "u", "u", "l", "l", "l", "l", "l", "l"))
    check(fields[0] == VERSION and fields[1] == NAME, "wrong_version", NAME, fields[1])
    for part in fields[6:8]:
        check_fields(part, ("b80", "b", "b", "l", "b", "l"))
        for row in part[5]:
            check_fields(row, ("u", "l"))
            for pair in row[1]:
                check_fields(pair, ("b", "b"))
    for part in fields[8]:
        check_fields(part, ("b80", "b", "b", "l", "l", "l"))
        check_list(part[3], "b32")
        check_list(part[4], "u")
        for row in part[5]:
            check_fields(row, ("b", "u", "l"))
            check_list(row[2], "b32")
    for row in fields[9]:
        check_fields(row, ("u", "u", "l"))
        for place in row[2]:
            check_fields(place, ("u", "u"))
    for row in fields[10]:
        check_fields(row, ("b8", "u", "l"))
        check_list(row[2], "b")
    check_list(fields[11], "b")
    return Bill(*fields)


class Chain(NamedTuple):
    """The chain that a bill must belong to, from the trusted genesis."""

    genesis: genesis.Genesis
    chain_id: bytes
    set_hash: bytes
    verify_digest: VerifyDigest

    @classmethod
    def trust(cls, genesis_bytes: bytes, verify_digest: VerifyDigest) -> "Chain":
        facts = genesis.decode(genesis_bytes)
        return cls(facts, genesis.chain_id(genesis_bytes), certificate.set_hash(facts.members), verify_digest)

    def check_block(self, header_bytes: bytes, voted_bytes: bytes, meta_bytes: bytes,
                    meta_path: Sequence[bytes]) -> tuple[header.Header, header.Meta, int]:
        """(header, meta, number of signers) of a block's certified head; Refused with the reason otherwise."""
        top, meta = header.decode(header_bytes), header.decode_meta(meta_bytes)
        check(meta.chain_id == self.chain_id, "wrong_chain", self.chain_id, meta.chain_id)
        check(meta.height == top.height, "wrong_height", top.height, meta.height)
        check(meta.channel in self.genesis.channels, "wrong_channel", self.genesis.channels, meta.channel)
        check(meta.epoch == 0, "wrong_epoch", 0, meta.epoch)
        check(meta.set_hash == self.set_hash, "wrong_set", self.set_hash, meta.set_hash)
        merkle.check_path(merkle.leaf_hash(meta_bytes), 0, meta.count + 1, meta_path, top.root)
        voted = certificate.decode(voted_bytes)
        certificate.check_certificate(voted, header_bytes, self.genesis.members, 0, meta.channel, self.chain_id,
                                      self.verify_digest)
        return top, meta, len(voted.signers)


def check_state(chain: Chain, part: list) -> Facts:
    """The Facts of `before` or `after`; Refused `wrong_state` when records and state root do not agree."""
    header_bytes, voted, meta_bytes, meta_path, hashes, buckets = part
    check_list(meta_path, "b32")
    top, meta, signers = chain.check_block(header_bytes, voted, meta_bytes, meta_path)
    check(len(hashes) == LEAVES_BYTES, "wrong_state", LEAVES_BYTES, len(hashes))
    leaves = [hashes[at:at + 32] for at in range(0, LEAVES_BYTES, 32)]
    root = merkle.root_of_hashes(leaves)
    check(root == meta.state_root, "wrong_state", meta.state_root, root)
    pairs: dict[bytes, bytes] = {}
    last = -1
    for bucket, rows in buckets:
        check(last < bucket < state.BUCKETS, "wrong_state", "buckets that rise", bucket)
        last = bucket
        found = merkle.leaf_hash(hashlib.sha256(cbor.encode(rows)).digest())
        check(found == leaves[bucket], "wrong_state", leaves[bucket], found)
        pairs.update((key, value) for key, value in rows)
    return Facts(top, header_bytes, pairs, frozenset(row[0] for row in buckets), signers)


def check_blocks(chain: Chain, blocks: list, after: Facts) -> list[list[Border]]:
    """The seals of every block of the file, checked down to their agents' signatures.

    A seal counts when its block took it without a mark that keeps it out of settlement, and its clock was synchronised:
    Refused `not_accepted` otherwise. Agents' keys come from the state of `after`."""
    agents: dict[bytes, state.AgentRecord] = {}
    found = []
    for header_bytes, voted, meta_bytes, meta_path, results, seals in blocks:
        top, meta, _ = chain.check_block(header_bytes, voted, meta_bytes, meta_path)
        check(len(results) == meta.count, "wrong_count", meta.count, len(results))
        digest = header.results_hash(results)
        check(digest == meta.results_hash, "wrong_digest", meta.results_hash, digest)
        found.append([_check_seal(chain, after, agents, top, meta, results, row) for row in seals])
    return found


def _check_seal(chain: Chain, after: Facts, agents: dict[bytes, state.AgentRecord], top: header.Header,
                meta: header.Meta, results: list[int], row: list) -> Border:
    message, index, path = row
    check(0 < index <= meta.count, "not_included", meta.count, index)
    merkle.check_path(merkle.leaf_hash(message), index, meta.count + 1, path, top.root)
    result = results[index - 1]
    is_good = result == 0 or result >= MARKED and not (result - MARKED) & MARKS_THAT_MOVE_NOTHING
    check(is_good, "not_accepted", 0, result)
    signed = cose.parse(message)
    check(cose.is_low_s(signed.signature), "high_s", "the low half", signed.signature)
    fields = seal.decode(signed.payload)
    check(fields.kid == signed.kid, "wrong_key", fields.kid, signed.kid)
    check(fields.flags & _CLOCK == 2, "not_accepted", "a synchronised clock", fields.flags & _CLOCK)
    if fields.kid not in agents:
        agents[fields.kid] = state.decode_agent(after.need(state.agent_key(fields.kid)))
    agent = agents[fields.kid]
    check(fields.point in agent.points, "not_its_point", agent.points, fields.point)
    cose.check(signed, "seal", chain.chain_id, agent.public_key, chain.verify_digest)
    return Border(fields, seal.payload_hash(signed.payload))


def check_chains(chains: list, own_points: Sequence[int]) -> tuple[set[bytes], list[str]]:
    """(hashes of the account's own seals, doubts): each payload names the hash of the one before it.

    Refused `gap` or `wrong_previous` where one was taken out; heights that the agent declared lost are a doubt."""
    hashes: set[bytes] = set()
    doubts = []
    for kid, point, payloads in chains:
        check(point in own_points, "not_its_point", list(own_points), point)
        last: seal.Seal | None = None
        last_hash = b""
        for payload in payloads:
            found = seal.decode(payload)
            check(found.kid == kid and found.point == point, "wrong_key", kid, found.kid)
            if last is not None:
                check(found.height - found.lost == last.height + 1, "gap", last.height + 1, found.height)
                expected = seal.FIRST_PREVIOUS if found.lost else last_hash
                check(found.previous == expected, "wrong_previous", expected, found.previous)
                if found.lost:
                    doubts.append(f"point {point}: the meter lost {found.lost} seals before height {found.height}")
            last, last_hash = found, seal.payload_hash(payload)
            hashes.add(last_hash)
    return hashes, doubts


def borders_of(bill: Bill, seals: list[list[Border]]) -> Iterator[tuple[int, int, list[Border]]]:
    """(point, slot start, its one or two seals) of the file; Refused `malformed` for places that are none."""
    last = (-1, -1)
    for point, slot_s, places in bill.borders:
        check((point, slot_s) > last, "malformed", "borders that rise", slot_s)
        last = (point, slot_s)
        check(0 < len(places) <= 2, "malformed", "one seal or two", len(places))
        found = []
        for block, place in places:
            check(block < len(seals) and place < len(seals[block]), "malformed", len(seals), block)
            border = seals[block][place]
            check(border.seal.point == point, "not_its_point", point, border.seal.point)
            found.append(border)
        yield point, slot_s, found


def check_witnesses(chain: Chain, found: Bill, after: Facts) -> tuple[int, int]:
    """(k, n): how many of the area's light nodes have signed the header of `after`, and how many there are.

    Refused for a signature that is none, by somebody who is no light node, or twice by one."""
    owner = after.get(state.agent_key(found.account))
    count = None if owner is None else after.get(state.light_key(state.decode_agent(owner).area))
    last = b""
    for message in found.witnesses:
        signed, said = witness.read(message)
        check(said.header == after.header_bytes, "wrong_header", after.header_bytes, said.header)
        check(last < said.kid, "duplicate_signer", last, said.kid)
        last = said.kid
        agent = state.decode_agent(after.need(state.agent_key(said.kid)))
        check(agent.role == "agent" and agent.revoked_height is None, "unknown_signer", "a light node", said.kid)
        check(cose.is_low_s(signed.signature), "high_s", "the low half", signed.signature)
        cose.check(signed, "witness", chain.chain_id, agent.public_key, chain.verify_digest)
    return len(found.witnesses), 0 if count is None else state.decode_count(count)


def check_calendar(bill: Bill, before: Facts, after: Facts) -> None:
    """Refused `outside_window` unless exactly the period's slots were settled between `before` and `after`."""
    for facts, expected in ((before, bill.first_s), (after, bill.end_s)):
        found = records.decode_calendar(facts.need(records.CALENDAR_KEY)).final_s
        check(found == expected, "outside_window", expected, found)
    check(before.header.height < after.header.height, "wrong_height", after.header.height, before.header.height)
