"""Makes row 8: what a decision of one item costs four replicas beside their signatures, all in one process, no disk.

The floor is what `openssl speed` would take for as many signatures and verifications as were really made, on the same
core in the same round. Header votes and certificates are part of it: without them a decision proves nothing.
"""

import hashlib
import statistics

from firmware.crypto.openssl import OpenSSLSigner, verify_digest
from firmware.wire import genesis, identity
from firmware.wire.certificate import Member
from gateway.consensus.keys import CoseKeys
from gateway.consensus.replica import Replica
from gateway.consensus.types import Executed, Head, Item, Now, Ready, Settings
from tests.bench.measure import Floor, Outcome, one_core, references, spent

REPLICAS = 4
DECISIONS, GAP_MS = 500, 10  # of a round; between two of them, on the replicas' clocks
OWED = Floor(0.60, 0.85)
CHAIN, CHANNEL = hashlib.sha256(b"the chain of row 8").digest(), "trade"
BEGIN_MS = 1_800_000_000_000


class Counted(OpenSSLSigner):
    """A signer that counts."""

    signed = 0

    def sign_digest(self, h32: bytes) -> bytes:
        Counted.signed += 1
        return super().sign_digest(h32)


class Area:
    """Replicas whose messages come at once; executing is one hash."""

    def __init__(self) -> None:
        signers = [Counted.from_scalar(number.to_bytes(32, "big")) for number in range(1, REPLICAS + 1)]
        members = sorted(Member(identity.kid_of(one.public_key()), one.public_key(), bytes(32)) for one in signers)
        by_key = {one.public_key(): one for one in signers}
        self.verified = self.decided = self.certified = 0
        self._now = Now(BEGIN_MS, 0)
        head = Head(CHANNEL, 0, bytes(32))
        self._heads = [head] * REPLICAS
        self._inboxes: list[list[bytes]] = [[] for _ in members]
        self._replicas = [
            Replica(Settings(0, members, index, CHAIN, genesis.parameters()),
                    CoseKeys(by_key[member.public_key], members, CHAIN, self._verify),
                    lambda leaf: hashlib.sha256(leaf).digest(), Executed(0, bytes(32), [head]), now=self._now)
            for index, member in enumerate(members)]
        for index, replica in enumerate(self._replicas):
            self._obey(index, replica.start(self._now))
        self._settle()

    def decide(self, data: bytes) -> None:
        """One item, from the primary's door to q certificates."""
        self._now = Now(self._now.label_ms + GAP_MS, self._now.wait_ms + GAP_MS)
        item = Item(hashlib.sha256(data).digest(), "tx", data, data)
        self._obey(0, self._replicas[0].submit_all((item,), self._now))
        self._settle()

    def _verify(self, key: bytes, digest: bytes, signature: bytes) -> bool:
        self.verified += 1
        return verify_digest(key, digest, signature)

    def _settle(self) -> None:
        while any(self._inboxes):
            for index, replica in enumerate(self._replicas):
                if datas := self._inboxes[index]:
                    self._inboxes[index] = []
                    self._obey(index, replica.receive_all(datas, self._now))

    def _obey(self, index: int, ready: Ready) -> None:
        replica = self._replicas[index]
        for to, data in ready.send:
            for other in range(REPLICAS) if to is None else (to,):
                if other != index:
                    self._inboxes[other].append(data)
        for check in ready.check:
            self._obey(index, replica.checked(check.digest, None, self._now))
        for n, batch in ready.decided:
            self.decided += 1
            old = self._heads[index]
            link = hashlib.sha256(old.header_hash + b"".join(batch.items if batch else ())).digest()
            self._heads[index] = Head(CHANNEL, old.height + 1, link)
            self._obey(index, replica.executed(n, (self._heads[index],), link, self._now))
        self.certified += len(ready.certified)


def order(rounds: int, decisions: int = DECISIONS) -> list[Outcome]:
    """Row 8."""
    ratios, each_us, own_us, counts = [], [], [], []
    with one_core():
        for _ in range(rounds):
            area = Area()
            signing, verifying = references()
            before = Counted.signed, area.verified

            def work(area: Area = area) -> int:
                for number in range(decisions):
                    area.decide(b"%08d" % number * 30)
                return decisions

            done = spent(work)
            assert area.decided == area.certified == REPLICAS * decisions
            signed, verified = Counted.signed - before[0], area.verified - before[1]
            floor_s = signed / signing + verified / verifying
            ratios.append(floor_s / done.cpu_s)
            each_us.append(done.cpu_s / decisions * 1e6)
            own_us.append((done.cpu_s - floor_s) / decisions / REPLICAS * 1e6)
            counts.append((signed / decisions, verified / decisions))
    ratio = statistics.median(ratios)
    numbers = {"ratio": ratio, "floor": OWED.floor, "aim": OWED.aim, "ratios": ratios,
               "decision_us": statistics.median(each_us), "signed": counts[0][0], "verified": counts[0][1]}
    lines = [f"{ratio:6.2f}    floor {OWED.floor:g}, aim {OWED.aim:g}, limit 1   signatures' share of a decision of "
             f"one item by {REPLICAS} replicas, header votes and certificates included",
             f"       {statistics.median(each_us):,.0f} us in all, for {counts[0][0]:.1f} signatures and "
             f"{counts[0][1]:.1f} verifications; {statistics.median(own_us):.0f} us beside them at each replica",
             f"       rounds: {' '.join(f'{one:.2f}' for one in ratios)}"]
    return [Outcome("8", ratio >= OWED.floor, lines, numbers)]
