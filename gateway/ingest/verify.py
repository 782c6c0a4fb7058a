"""Makes verified seals and transactions from what came off the air, by ordered checks, cheapest first; pure.

`open_envelope` does all that costs little (size, topic, registry, shape, counts), `finish_envelope` the signature and
the readings. Every envelope of an area comes by here, so these two are written for speed. Whoever holds a
`VerifiedSeal` or `VerifiedTransaction` may assume: signature, sender, point, shape and readings hold, s is low. Whether
it is next in its chain is not judged here (`chains.py`), and values are never a reason to refuse (wire.md, Two
verdicts). Nothing but `Refused` is raised.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache
from hashlib import sha256
from typing import NamedTuple, Protocol

from firmware.wire import cose, topics, trading
from firmware.wire import seal as seal_codec
from firmware.wire import transaction as transaction_codec
from firmware.wire.errors import Refused, check
from firmware.wire.seal import Seal
from firmware.wire.state import AgentRecord
from firmware.wire.transaction import Transaction
from gateway.ingest import quick

COSE_BYTES = 128  # tag, headers, kid and signature around a payload take 89
# A seal's payload is at most 17 longest fields: 9 x 9 + 5 x 34 + 10 bytes; with COSE's share below this.
SEAL_BYTES = 512

# A leaf is asked about some eight times from its proposal to its block. Two full batches; 16 MiB if all leaves are as
# long as a transaction may be.
SEEN_LEAVES = 1024

_LEAF_BYTES = transaction_codec.TRANSACTION_BYTES + COSE_BYTES
KID_AT = 9  # tag 18, array of 4, protected bytes, map of one: the kid follows

_MARKET_ALONE = (trading.DEPOSIT, trading.TOP_UP, trading.WITHDRAW, trading.ORDER, trading.CANCEL, trading.COMMIT,
                 trading.REVEAL)
_new = tuple.__new__  # a named tuple without the call between
VerifyDigest = Callable[[bytes, bytes, bytes], bool]


class Registry(Protocol):
    """The committed state, as far as it is asked here."""

    def agent(self, kid: bytes) -> AgentRecord | None: ...


class Claim(NamedTuple):
    """A signature still to be verified."""

    public_key: bytes
    digest: bytes
    signature: bytes


class OpenedSeal(NamedTuple):
    """An envelope in order but for its signature and its readings' content."""

    fields: tuple[bytes, bytes, bytes, Seal, list[bytes], bytes]  # of the VerifiedSeal that it may become
    public_key: bytes
    digest: bytes
    signature: bytes
    is_whole: bool  # the readings' content and the root over it are in order; else the plain decoder says what is not

    @property
    def payload_hash(self) -> bytes:
        return self.fields[2]

    @property
    def seal(self) -> Seal:
        return self.fields[3]


class VerifiedSeal(NamedTuple):
    """leaf: the COSE bytes with the low s, as they stand in a block; readings: their bytes; envelope: the one encoding
    of leaf and readings where it is at hand, b"" where it is to be made."""

    leaf: bytes
    payload: bytes
    payload_hash: bytes
    seal: Seal
    readings: list[bytes]
    envelope: bytes = b""


class OpenedTransaction(NamedTuple):
    leaf: bytes
    payload: bytes
    payload_hash: bytes
    transaction: Transaction
    claim: Claim


class VerifiedTransaction(NamedTuple):
    leaf: bytes
    payload: bytes
    payload_hash: bytes
    transaction: Transaction


class Inspection(NamedTuple):
    """What a batch still needs before it may be prepared: claims to verify, payload hashes of readings to fetch."""

    claims: list[Claim]
    missing: list[bytes]
    claimed: list[tuple[bytes, bytes]] = []  # (payload hash, leaf) of each claim


def check_envelope(topic: str | None, data: bytes, registry: Registry, chain_id: bytes, area: str,
                   verify_digest: VerifyDigest) -> VerifiedSeal:
    """The VerifiedSeal of an MQTT message (topic None: it came from a peer, which adds no claim of its own)."""
    return finish_envelope(open_envelope(topic, data, registry, chain_id, area), verify_digest)


def open_envelope(topic: str | None, data: bytes, registry: Registry, chain_id: bytes, area: str) -> OpenedSeal:
    """Everything that costs little. In this order: `oversize`, `unknown_topic`, `wrong_area`, `not_enrolled`,
    `revoked`, `malformed`, `too_deep`, `wrong_topic`, `wrong_version`, `wrong_times`, `wrong_count`, `wrong_key`,
    `not_its_point`."""
    if len(data) > seal_codec.ENVELOPE_BYTES:  # ifs, not check(): here each microsecond is one in fifty
        raise Refused("oversize", seal_codec.ENVELOPE_BYTES, len(data))
    kid, agent = None, None
    if topic is not None:
        kid = check_topic(topic, "envelope", area)
        agent = check_agent(registry.agent(kid), kid, area)
    single = quick.read_single(data)
    if single is not None:
        message, found, payload, seal, signature, readings = single
    else:
        message, readings = quick.split_envelope(data) or seal_codec.decode_envelope(data)
        if len(message) > SEAL_BYTES:
            raise Refused("oversize", SEAL_BYTES, len(message))
        found, payload, seal, signature = quick.read_seal(message) or _read_seal(message)
    if kid is not None and found != kid:
        raise Refused("wrong_topic", kid, found)
    if seal.kid != found:
        raise Refused("wrong_key", found, seal.kid)
    if agent is None:
        agent = check_agent(registry.agent(found), found, area)
    if seal.point not in agent.points:
        raise Refused("not_its_point", agent.points, seal.point)
    if len(readings) != seal.count:
        raise Refused("wrong_count", seal.count, len(readings))
    leaf, envelope = message, data
    if not quick.has_low_s(signature):
        leaf, envelope = cose.assemble(found, payload, signature), b""
    is_whole = (single is not None or quick.are_readings_of(seal, readings)) and quick.root(readings) == seal.root
    return _new(OpenedSeal, ((leaf, payload, sha256(payload).digest(), seal, readings, envelope), agent.public_key,
                             quick.digest(payload, "seal", chain_id), signature, is_whole))


def finish_envelope(opened: OpenedSeal, verify_digest: VerifyDigest) -> VerifiedSeal:
    """The rest: `bad_signature`, `wrong_root`, `malformed`, `wrong_reading`, `wrong_times`."""
    fields, public_key, digest, signature, is_whole = opened
    if not verify_digest(public_key, digest, signature):
        raise Refused("bad_signature", public_key, signature)
    if not is_whole:
        seal_codec.check_readings(fields[3], fields[4])
    return _new(VerifiedSeal, fields)


def check_fetched(data: bytes) -> VerifiedSeal:
    """The VerifiedSeal of an envelope that a backup fetched for a batch. The batch's own check has verified the
    signature where the key is known; here only the readings must be those of the seal, because whether its agent is
    enrolled or revoked is for execution to judge (transactions.md)."""
    message, readings = quick.split_envelope(data) or seal_codec.decode_envelope(data)
    check(len(message) <= SEAL_BYTES, "oversize", SEAL_BYTES, len(message))
    kid, payload, seal, signature = quick.read_seal(message) or _read_seal(message)
    check(seal.kid == kid, "wrong_key", kid, seal.kid)
    check(len(readings) == seal.count, "wrong_count", seal.count, len(readings))
    if not (quick.are_readings_of(seal, readings) and quick.root(readings) == seal.root):
        seal_codec.check_readings(seal, readings)
    leaf = cose.assemble(kid, payload, signature)
    return VerifiedSeal(leaf, payload, sha256(payload).digest(), seal, readings, data if leaf == message else b"")


def check_transaction(topic: str | None, data: bytes, registry: Registry, chain_id: bytes, area: str,
                      verify_digest: VerifyDigest, now_s: int,
                      channels: Collection[str] = ("trade",)) -> VerifiedTransaction:
    """The VerifiedTransaction of an MQTT message, or of an API's or a peer's bytes (topic None)."""
    opened = open_transaction(topic, data, registry, chain_id, area, now_s, channels)
    return finish_transaction(opened, verify_digest)


def open_transaction(topic: str | None, data: bytes, registry: Registry, chain_id: bytes, area: str, now_s: int,
                     channels: Collection[str] = ("trade",)) -> OpenedTransaction:
    """In this order: `oversize`, `unknown_topic`, `wrong_area`, `not_enrolled`, `revoked`, `malformed`, `too_deep`,
    `wrong_topic`, `wrong_version`, `wrong_key`, `unknown_type`, `wrong_channel`, `expired`."""
    if len(data) > _LEAF_BYTES:  # ifs, as for seals
        raise Refused("oversize", _LEAF_BYTES, len(data))
    kid, agent = None, None
    if topic is not None:
        kid = check_topic(topic, "tx", area)
        agent = check_agent(registry.agent(kid), kid, area)
    sender, payload, signature = cose.parse(data)
    if kid is not None and sender != kid:
        raise Refused("wrong_topic", kid, sender)
    found = decode_transaction(payload)
    if sender != found.sender:
        raise Refused("wrong_key", found.sender, sender)
    if agent is None:
        agent = check_agent(registry.agent(sender), sender, area)
    if not 0 < found.type < len(transaction_codec.TYPES):
        raise Refused("unknown_type", len(transaction_codec.TYPES), found.type)
    if found.channel not in channels:
        raise Refused("wrong_channel", list(channels), found.channel)
    if found.valid_until_s < now_s:
        raise Refused("expired", now_s, found.valid_until_s)
    claim = _new(Claim, (agent.public_key, quick.digest(payload, "tx", chain_id), signature))
    leaf = data if quick.has_low_s(signature) else cose.assemble(sender, payload, signature)
    return _new(OpenedTransaction, (leaf, payload, sha256(payload).digest(), found, claim))


def finish_transaction(opened: OpenedTransaction, verify_digest: VerifyDigest) -> VerifiedTransaction:
    """`bad_signature`."""
    check_claim(opened.claim, verify_digest)
    return VerifiedTransaction(opened.leaf, opened.payload, opened.payload_hash, opened.transaction)


@lru_cache(8192)  # as `parse_topic`
def check_topic(topic: str, kind: str, area: str) -> bytes:
    """The kid of an agent's topic of that kind in our area."""
    found_area, kid, found_kind = parse_topic(topic)
    if found_area != area:
        raise Refused("wrong_area", area, found_area)
    if found_kind != kind:
        raise Refused("unknown_topic", kind, found_kind)
    return kid


def check_agent(agent: AgentRecord | None, kid: bytes, area: str) -> AgentRecord:
    """The record of whoever may speak here at all; the rest is `not_enrolled`, `revoked` or `wrong_area`."""
    if agent is None:
        raise Refused("not_enrolled", None, kid)
    if agent.revoked_height is not None:
        raise Refused("revoked", kid, agent.revoked_height)
    if agent.area != area:
        raise Refused("wrong_area", area, agent.area)
    return agent


def check_claim(claim: Claim, verify_digest: VerifyDigest) -> None:
    if not verify_digest(claim.public_key, claim.digest, claim.signature):
        raise Refused("bad_signature", claim.public_key, claim.signature)


@lru_cache(SEEN_LEAVES)
def item_key(leaf: bytes) -> bytes:
    """A leaf's identity: the hash of its payload, whatever the signature's bytes; of bytes that are no message, their
    own hash (a batch that holds them is refused by `inspect_batch`, but it must be nameable before)."""
    try:
        return sha256(cose.parse(leaf).payload).digest()
    except Refused:
        return sha256(leaf).digest()


def inspect_batch(leaves: Sequence[bytes], registry: Registry, chain_id: bytes, parameters: Mapping[str, int],
                  is_verified: Callable[[bytes, bytes], bool], has_readings: Callable[[bytes], bool]) -> Inspection:
    """What a backup looks at before it prepares a batch; nothing here depends on state but whose keys are known
    (transactions.md, When what is judged).

    is_verified(payload hash, leaf): this replica has verified exactly these bytes. has_readings(payload hash).
    `oversize` (an item that alone is beyond `batch_bytes` goes alone), `malformed`, `too_deep`, `wrong_version`,
    `wrong_key`, `high_s`, `duplicate` (a payload twice; two payloads for one height, or for one sequence of a sender,
    are for execution to judge), `busy` (more than one sender's share).
    """
    check(len(leaves) <= parameters["batch_items"], "oversize", parameters["batch_items"], len(leaves))
    size = sum(map(len, leaves))
    check(size <= parameters["batch_bytes"] or len(leaves) == 1, "oversize", parameters["batch_bytes"], size)
    claims: list[Claim] = []
    claimed: list[tuple[bytes, bytes]] = []
    missing: list[bytes] = []
    seen: set[bytes] = set()
    shares: dict[bytes, int] = {}
    for leaf in leaves:
        kind, kid, payload, signature = read_leaf(leaf)
        check(quick.has_low_s(signature), "high_s", "the low half", signature)
        payload_hash = sha256(payload).digest()
        check(payload_hash not in seen, "duplicate", "each once", payload_hash)
        seen.add(payload_hash)
        shares[kid] = shares.get(kid, 0) + 1
        check(shares[kid] <= parameters["client_items"], "busy", parameters["client_items"], kid)
        if not is_verified(payload_hash, leaf):
            agent = registry.agent(kid)
            if agent is not None:
                claims.append(Claim(agent.public_key, quick.digest(payload, kind, chain_id), signature))
                claimed.append((payload_hash, leaf))
        if kind == "seal" and not has_readings(payload_hash):
            missing.append(payload_hash)
    return Inspection(claims, missing, claimed)


def check_batch(leaves: Sequence[bytes], registry: Registry, chain_id: bytes, parameters: Mapping[str, int],
                is_verified: Callable[[bytes, bytes], bool], has_readings: Callable[[bytes], bool],
                verify_digest: VerifyDigest) -> list[bytes]:
    """`inspect_batch` and the signatures in one: payload hashes of the seals whose readings must be fetched."""
    inspection = inspect_batch(leaves, registry, chain_id, parameters, is_verified, has_readings)
    for claim in inspection.claims:
        check_claim(claim, verify_digest)
    return inspection.missing


@lru_cache(8192)  # three topics of each agent that one area may have; an unknown topic is not kept
def parse_topic(topic: str) -> tuple[str, bytes, str]:
    """(area, kid, kind)."""
    return topics.parse(topic)


def _read_seal(message: bytes) -> tuple[bytes, bytes, Seal, bytes]:
    """The same as `quick.read_seal` by the plain decoders, which have the last word."""
    signed = cose.parse(message)
    return signed.kid, signed.payload, seal_codec.decode(signed.payload), signed.signature


@lru_cache(SEEN_LEAVES)  # once when it comes, once when it is proposed
def decode_transaction(payload: bytes) -> Transaction:
    return transaction_codec.decode(payload)


def kid_of(leaf: bytes) -> bytes:
    """The kid in a message's header, unchecked; eight zero bytes for what is too short to have one."""
    return leaf[KID_AT:KID_AT + 8].ljust(8, b"\0")


def seal_of(leaf: bytes) -> Seal | None:
    """The Seal of a block's leaf, None when it is a transaction; Refused when it is neither."""
    found = quick.read_seal(leaf)
    if found is not None:
        return found[2]
    kind, _, payload, _ = read_leaf(leaf)
    return seal_codec.decode(payload) if kind == "seal" else None


def may_change_registry(leaf: bytes) -> bool:
    """Whether a transaction of this type may change who is enrolled, or a point: false for money and market alone."""
    return decode_transaction(read_leaf(leaf)[2]).type not in _MARKET_ALONE


def digest(payload: bytes, kind: str, chain_id: bytes) -> bytes:
    """The 32 bytes that are signed (`cose.digest`)."""
    return quick.digest(payload, kind, chain_id)


@lru_cache(SEEN_LEAVES)
def read_leaf(leaf: bytes) -> tuple[str, bytes, bytes, bytes]:
    """(kind "seal" or "tx", kid, payload, signature) of a block's leaf; Refused for anything else."""
    found = quick.read_seal(leaf)
    if found is not None:
        kid, payload, seal, signature = found
    else:
        check(len(leaf) <= _LEAF_BYTES, "oversize", _LEAF_BYTES, len(leaf))
        kid, payload, signature = cose.parse(leaf)
        # Seven fields are a transaction, seventeen a seal: the array's head tells one from the other.
        if payload[:1] == b"\x87":
            transaction = decode_transaction(payload)
            check(transaction.sender == kid, "wrong_key", transaction.sender, kid)
            return "tx", kid, payload, signature
        seal = seal_codec.decode(payload)
    check(seal.kid == kid, "wrong_key", kid, seal.kid)
    return "seal", kid, payload, signature
