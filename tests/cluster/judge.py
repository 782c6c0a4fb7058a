"""Makes a verdict after every event from everything that was signed, sent, kept, executed and certified so far.

The judge sees the whole cluster and trusts nothing of the code under test: it parses messages itself, counts quorums by
its own formula, and hashes batches by its own means. Invariants have the numbers of pbft.md 4; each is a function in
`invariants.py`, called here at the one kind of event that can break it, so that the cost of an event does not grow.
"""

import reprlib
from collections import defaultdict
from typing import Any

from tests.cluster import invariants, promises, validity
from tests.cluster.ledger import Block
from tests.cluster.speech import NULL, Said, hear, hear_signed

_SHORT = reprlib.Repr()
_SHORT.maxother = _SHORT.maxstring = 100


class Violation(Exception):
    """An invariant does not hold: its number, the values that disagree, the last events."""

    def __init__(self, world: Any, number: int, text: str) -> None:
        lines = [f"seed {world.seed}, event {world.events}: invariant {number} broken: {text}", f"  {world.profile}"]
        lines += ["  " + tell(entry) for entry in world.last]
        super().__init__("\n".join(lines))
        self.number = number


def tell(entry: tuple[Any, ...]) -> str:
    """One event in one line."""
    number, now_ms, kind, index, detail = entry
    if kind == "message":
        sender, data = detail
        return f"{number:6} {now_ms:9} ms  {sender} -> {index}  {hear(data) or f'noise of {len(data)} bytes'}"
    if kind == "fault":
        return f"{number:6} {now_ms:9} ms  fault {detail}"
    return f"{number:6} {now_ms:9} ms  {kind} at {index} {_SHORT.repr(detail) if kind == 'checked' else ''}"


def quorum(size: int) -> int:
    """ceil((n + f + 1) / 2), written down a second time on purpose."""
    faulty = (size - 1) // 3
    return -(-(size + faulty + 1) // 2)


class Record:
    """What the judge remembers of one honest machine."""

    def __init__(self) -> None:
        self.n = 0  # last executed
        self.view = 0  # of this life
        self.said: dict[tuple[Any, ...], Any] = {}  # slot -> the vote that was sent
        self.said_view = 0  # the highest view of anything sent
        self.left_view = 0  # the highest view for which a VIEW-CHANGE was sent
        self.before_leaving: set[tuple[Any, ...]] = set()  # votes sent or durable before that
        self.durable: set[tuple[Any, ...]] = set()  # promises in the synced votes file
        self.low = 0
        self.active_view = 0


class Judge:
    """Evidence of one epoch of a run; what must be unique over all of them is shared with the judge `before`.

    Dictionaries are keyed by what must be unique. A member's id is its seat: its place in the epoch's set."""

    def __init__(self, world: Any, epoch: int = 0, before: "Judge | None" = None) -> None:
        self.world, self.epoch = world, epoch
        self.members: tuple[int, ...] = world.sets[epoch]  # machines by seat
        self.base = world.bases[epoch]
        size = len(self.members)
        self.quorum = quorum(size)
        self.rules = validity.Rules(size, self.quorum, world.parameters["log_window"], self.base)
        self.records = [Record() for _ in range(world.count)]  # by machine
        self.batches: dict[int, bytes | None] = before.batches if before else {}  # n -> batch hash, None = NULL
        self.headers: dict[int, bytes] = before.headers if before else {}  # height -> header hash
        self.roots: dict[int, bytes] = before.roots if before else {}  # height -> state root
        self.states: dict[int, Any] = before.states if before else {}  # n -> what an honest CHECKPOINT says there
        self.answers: dict[bytes, tuple[int, int]] = before.answers if before else {}  # item -> where it changed state
        self.certificates: dict[int, bytes] = before.certificates if before else {}  # height -> header hash
        self.reached: list[int] = before.reached if before else [0] * world.count  # machine -> executed n
        self.signed: set[bytes] = set()  # every payload that any member ever signed
        self.prepares: defaultdict[tuple[int, int, bytes], set[int]] = defaultdict(set)  # (v, n, digest) -> signers
        self.commits: defaultdict[tuple[int, bytes], dict[int, set[int]]] = defaultdict(dict)  # (n, d) -> v -> signers
        self.checkpoints: defaultdict[int, dict[Any, set[int]]] = defaultdict(dict)  # n -> value -> signers
        self.header_votes: defaultdict[int, dict[bytes, set[int]]] = defaultdict(dict)  # height -> hash -> signers
        self.proposals: defaultdict[tuple[int, int], set[bytes]] = defaultdict(set)  # (v, n) -> digests by primary(v)
        self.prepared: dict[tuple[int, int], bytes] = {}  # (v, n) -> digest, by honest COMMITs
        self.committed: dict[int, tuple[int, bytes]] = {}  # n -> (lowest view, digest)
        self.new_views: list[validity.Carried] = []  # the valid ones, whoever has seen them

    def fail(self, number: int, text: str) -> None:
        raise Violation(self.world, number, text)

    # --- what machines report ---

    def on_signed(self, index: int, kind: str, payload: bytes) -> None:
        """Files a signature, an honest or a lying one."""
        if payload in self.signed:
            return
        self.signed.add(payload)
        said = hear_signed(kind, payload)
        if said is None or said.sender not in (index, -1) or said.epoch != self.epoch:
            return
        if said.type == "pre-prepare" and index == said.view % self.rules.size:
            self.proposals[said.view, said.n].add(said.digest)
        elif said.type == "new-view":
            self._file_new_view(said)
        elif not self.world.machines[self.members[index]].is_honest:
            self._file_vote(index, said)

    def _file_vote(self, index: int, said: Said) -> None:
        """Counts a vote: a liar's when it is signed, an honest one when its disk holds it or it was sent."""
        if said.type == "header":
            self.header_votes[said.n].setdefault(said.digest, set()).add(index)
            invariants.check_one_header(self, said.n)
        elif said.type == "prepare":
            self.prepares[said.view, said.n, said.digest].add(index)
        elif said.type == "commit":
            self.commits[said.n, said.digest].setdefault(said.view, set()).add(index)
        elif said.type == "checkpoint":
            self.checkpoints[said.n].setdefault(said.body, set()).add(index)

    def _file_new_view(self, said: Said) -> None:
        carried = validity.carried_by(said, self.rules, self.signed)
        if carried is not None:
            self.new_views.append(carried)
            self.world.seen["NEW-VIEWs"] += 1
            self.world.seen["NEW-VIEWs that choose"] += validity.is_choice(said)
            for n in self.committed:
                invariants.check_carried(self, carried, n)

    def on_sent(self, machine: Any, data: bytes) -> None:
        """An honest machine lets a message go: each of its own is judged when it is said for the first time."""
        said = hear(data)
        if said is None or said.sender not in (machine.seat, -1) or said.epoch != self.epoch:
            return
        record = self.records[machine.index]
        fresh = [slot for slot, _ in said.votes() if slot not in record.said]
        invariants.check_one_vote(self, machine, said)
        if fresh:
            invariants.check_durable(self, machine, said)
            self._file_vote(machine.seat, said)
            if said.type == "commit":
                invariants.check_prepared(self, machine, said)
            elif said.type == "prepare":
                invariants.check_order_followed(self, machine, said)
            elif said.type == "new-view":
                invariants.check_own_new_view(self, machine, said)
            elif said.type == "view-change":
                self.world.seen["VIEW-CHANGEs"] += 1

    def on_started(self, machine: Any) -> None:
        """A new life: it must know what the last one promised."""
        record = self.records[machine.index]
        record.n = self.reached[machine.index]
        if machine.is_honest and machine.seat is not None:
            record.low = self.base
            record.active_view = -1
            record.durable = set()
            self.on_synced(machine, machine.votes.synced)  # with what a crash has left of the unsynced
            left = [promise[1] for promise in record.durable if promise[0] in ("view-change", "new-view")]
            record.view = max([record.said_view, *left])
            invariants.check_still_durable(self, machine)
            invariants.check_not_fallen(self, machine)
            invariants.check_view(self, machine)
        elif machine.is_honest:
            invariants.check_not_fallen(self, machine)

    def on_synced(self, machine: Any, records: list[bytes]) -> None:
        if machine.is_honest:
            self.records[machine.index].durable.update(promises.read(records))
            for said in promises.votes_in(records):
                if said.sender in (machine.seat, -1):
                    self._file_vote(machine.seat, said)

    def on_compacted(self, machine: Any) -> None:
        """The votes file was replaced: what still binds must still be in it."""
        self.world.seen["compactions"] += 1
        if machine.is_honest:
            record = self.records[machine.index]
            record.durable = set()
            self.on_synced(machine, machine.votes.synced)
            invariants.check_still_durable(self, machine)

    def on_executed(self, machine: Any, n: int, block: Block | None) -> None:
        self.world.seen["NULLs" if block is None else "blocks"] += 1
        if not machine.is_honest:
            return
        invariants.check_prefix(self, machine, n)
        self.reached[machine.index] = n
        invariants.check_agreement(self, machine, n, block)
        self.states.setdefault(n, invariants.state_of(machine))
        digest = NULL if block is None else promises.digest_of_block(block)
        invariants.check_committed(self, machine, n, digest)
        if block is not None:
            self._judge_block(machine, block)

    def on_installed(self, machine: Any, height: int) -> None:
        """Blocks above `height` came from a peer: they are judged like executed ones."""
        if not machine.is_honest:
            return
        self.records[machine.index].n = self.reached[machine.index] = machine.ledger.n
        for block in machine.ledger.blocks[height + 1:]:
            if block is not None:
                self._judge_block(machine, block)

    def _judge_block(self, machine: Any, block: Block) -> None:
        invariants.check_header(self, machine, block)
        invariants.check_root(self, machine, block)
        invariants.check_exactly_once(self, machine, block)

    def on_certified(self, machine: Any, certified: Any) -> None:
        self.world.seen["certificates"] += 1
        if machine.is_honest:
            invariants.check_certificate(self, machine, certified)

    def after_event(self, machine: Any) -> None:
        """What may have changed inside of the Replica that was just called."""
        if machine.is_honest and machine.up and machine.seat is not None:
            invariants.check_view(self, machine)
            invariants.check_bounds(self, machine)
            invariants.check_memory(self, machine)
            low = machine.replica.low
            if low != self.records[machine.index].low:
                self.records[machine.index].low = low
                self.world.seen["checkpoints"] += 1
                invariants.check_stable(self, machine, low)
