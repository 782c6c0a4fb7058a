"""Makes a chain whose sets of validators change, on a real ledger: wills, boundaries, certificates of each set."""

from collections.abc import Sequence

from firmware.wire import certificate, cose, header, identity, validators
from gateway.ledger.ledger import Ledger, Outcome
from tests.ledger.world import START_S, World, key

INTERVAL = 4


def member(name: str) -> certificate.Member:
    return certificate.Member(key(name).kid, key(name).public, bytes(32))


def members_of(names: Sequence[str]) -> list[certificate.Member]:
    """The set of these keys, as it is sorted."""
    return sorted(map(member, names), key=lambda found: found.kid)


def request(world: World, name: str) -> bytes:
    return bytes(validators.encode_request(key(name).public, bytes(32), world.chain_id, key(name).signer.sign_digest))


def certify(world: World, names: Sequence[str], epoch: int, header_bytes: bytes,
            signers: Sequence[int] | None = None, channel: str = "trade") -> bytes:
    """A certificate by a quorum of a set, or by the members named."""
    ordered = sorted(names, key=lambda name: key(name).kid)
    chosen = range(certificate.quorum(len(ordered))) if signers is None else signers
    height, header_hash = header.decode(header_bytes).height, header.hash_of(header_bytes)
    digest = cose.digest(certificate.vote_payload(epoch, channel, height, header_hash), "header", world.chain_id)
    signatures = tuple(key(ordered[index]).signer.sign_digest(digest) for index in chosen)
    return bytes(certificate.encode(certificate.Certificate(
        epoch, channel, height, header_hash, tuple(chosen), signatures)))


def wills(world: World, names: Sequence[str], wanted: Sequence[str], senders: int | None = None) -> list[bytes]:
    """The transactions of a quorum of `names` (or of so many) for the set `wanted`."""
    fresh = sorted(set(wanted) - set(names), key=lambda name: key(name).kid)
    body = validators.encode_body(members_of(wanted), [request(world, name) for name in fresh])
    count = certificate.quorum(len(names)) if senders is None else senders
    return [world.tx(validators.CHANGE, body, name) for name in sorted(names)[:count]]


class Chain:
    """One ledger and the names of its present set; every block is certified by it."""

    def __init__(self, ledger: Ledger, world: World, names: Sequence[str]):
        self.ledger, self.world, self.names = ledger, world, list(names)
        self.coming: list[str] | None = None

    def run(self, items: Sequence[bytes] = (), is_null: bool = False) -> Outcome:
        """The next sequence number, executed and certified."""
        n = self.ledger.stand().n + 1
        batch = None if is_null else ("trade", 0, START_S + 60 * n, list(items))
        epoch = self.ledger.epoch
        outcome = self.ledger.execute(n, batch)
        if outcome.header is not None and outcome.height is not None:
            self.ledger.put_certificate("trade", outcome.height, certify(
                self.world, self.names, epoch, outcome.header))
        if self.ledger.epoch > epoch:
            assert self.coming is not None
            self.names, self.coming = self.coming, None
        return outcome

    def change(self, wanted: Sequence[str]) -> Outcome:
        """A block with the wills of a quorum."""
        outcome = self.run(wills(self.world, self.names, wanted))
        assert outcome.results == [0] * certificate.quorum(len(self.names)), outcome.results
        self.coming = list(wanted)
        return outcome

    def reach_boundary(self) -> None:
        while self.coming is not None:
            self.run()


def kid_of(name: str) -> bytes:
    return bytes(identity.kid_of(key(name).public))
