"""Makes one member of the cluster run: feeds its Replica, obeys each Ready, crashes between any two steps.

Theory: a machine is `up` or not. What survives is `votes` (what was synced), `ledger` (whole transactions), `envelopes`
(items it has made durable) and `certificates`. Everything else dies with `crash` and a new Replica is made from it at
`start`. Each small duty ends in `step`, where a burning fuse may end the life of the process: between a record and its
sync, a sync and a send, two sends, before or after an execution. Syncs are grouped as a driver groups them: while one
runs, later Readys queue up and share the next.
"""

from collections import Counter, deque
from collections.abc import Callable
from typing import Any

from gateway.consensus import durable
from gateway.consensus.observer import Observer
from gateway.consensus.replica import Replica
from gateway.consensus.types import Executed, Head, Now, Ready
from gateway.transfer import Transfer, answer, leaf_of
from tests.cluster.disk import VotesFile
from tests.cluster.ledger import CHANNEL, Ledger
from tests.cluster.speech import hear
from tests.cluster.workload import is_good, item_of_request

FETCH_AGAIN_MS = 150  # until another holder is asked for blocks
POLL_MS = 2000  # between two questions for proofs, where sets change
TRANSFER_AFTER = 3  # blocks that are lacking, where states are fetched
BUCKETS_BYTES = 300  # of one answer: a few buckets
STALE = 0.1  # chance that ingest, working on older knowledge, hands in what is executed already
NESTED = 0.15  # chance that a crash comes again while the process recovers
KINDS = {
    durable.ACCEPTED: "accepted", durable.PREPARED: "prepared", durable.HEADER_VOTE: "header vote",
    durable.CHECKPOINT: "checkpoint", durable.STOPPED: "stopped", durable.ACTIVE: "active",
}
# Where a process may be made to die: each line of pbft.md 3.11 with its record half written (append), written and not
# yet used (sync), used once (send); and what is not a record.
SEAMS = (
    *(f"{moment} {kind}" for kind in KINDS.values() for moment in ("append", "sync")),
    *(f"send {name}" for name in ("pre-prepare", "prepare", "commit", "header", "checkpoint", "view-change", "new-view",
                                  "submit")),
    "before compact", "compact", "before execution", "after execution", "before certificate", "certificate",
    "envelope", "before install", "installed", "start", "resubmit", "before transfer", "bucket", "transferred",
    "before epoch", "epoch", "votes of the epoch",
)


class Crash(Exception):
    """The process ends here."""


class Again(Exception):
    """The process begins again from what is durable, by its own will."""


class Machine:
    """Member `index`; a liar may have several machines, `mouth` then says who hears this one."""

    def __init__(self, world: Any, index: int, is_honest: bool) -> None:
        self.world = world
        self.index = index
        self.is_honest = is_honest
        self.votes = VotesFile()
        self.ledger = Ledger(world.identify, world.created_s, world.slot_s, world.sets[0],
                             world.parameters["checkpoint_interval"])
        self.epoch = 0
        self.side: dict[bytes, bytes] = {}  # buckets on disk, by their leaf hash
        self.envelopes: dict[bytes, Any] = {}
        self.replica: Any = None
        self.life = 0
        self.fuse: int | None = None  # steps until the process dies
        self.fuse_at: str | None = None  # or the seam at which it does
        self.is_recovering = False
        self.paused_until = 0
        self.held: list[tuple[str, Any]] = []  # events of a pause
        self.boot_at = 0
        self.skew_ms = 0
        self.mouth: Callable[[int | None, bytes], list[tuple[int, bytes]]] | None = None
        self.refused: Counter[str] = Counter()
        self.alarms: list[str] = []
        self._forget()

    def _forget(self) -> None:
        """What a process holds in memory."""
        self.replica = None
        self.label_ms = 0
        self.queue: deque[Ready] = deque()
        self.decisions: deque[Any] = deque()
        self.executing = False
        self.syncing = 0
        self.writing: tuple[list[bytes] | None, list[bytes]] = (None, [])
        self.inbox: list[bytes] = []
        self.timer_at: int | None = None
        self.behind: Any = None
        self.fetches = 0
        self.transfer: Transfer | None = None
        self.transfer_n = 0

    @property
    def up(self) -> bool:
        return self.replica is not None

    @property
    def seat(self) -> int | None:
        """Its id in the set of its epoch; None for an observer."""
        members = self.world.sets[self.epoch]
        return members.index(self.index) if self.index in members else None

    @property
    def judge(self) -> Any:
        return self.world.judges[self.epoch]

    # --- the life of the process ---

    def start(self) -> None:
        """Boots from what is durable; a crash may hit the recovery itself."""
        world = self.world
        self.life += 1
        self.boot_at = world.now_ms - world.chance.randint(0, 5000)  # the monotonic clock of another boot
        if world.chance.random() < NESTED and not world.healed:
            self.fuse = world.chance.randrange(6)
        self.guarded(self._start)

    def _start(self) -> None:
        self.is_recovering = True
        self._enter_epoch()
        settings, keys = self.world.settings(self), self.world.keys_of(self.index, self.epoch)
        if self.seat is None:
            self.replica = Observer(settings, keys, self.position())
        else:
            self.replica = Replica(settings, keys, self.world.identify, self.position(), list(self.votes.synced),
                                   now=self.now())
            self.world.seen["spares seated"] += self.index >= self.world.profile.size
        self.judge.on_started(self)
        self.step("start")
        self.obey(self.replica.start(self.now()))
        self.obey(self.replica.vote_again(self.uncertified(), self.now()))
        self.step("resubmit")
        waiting = [item for key, item in self.envelopes.items() if key not in self.ledger.clients]
        self.obey(self.replica.submit_all(waiting, self.now()))
        for height in range(1, self.ledger.newest.height + 1):
            if height in self.ledger.certificates:
                self.obey(self.replica.note_certificate(CHANNEL, height, self.now()))
        if self.world.does_change:
            self.world.plan(self.world.now_ms + self.world.chance.randint(1, POLL_MS), "poll", self, self.life)
        self.is_recovering = False

    def _enter_epoch(self) -> None:
        """As gateway/node.py: the votes file says which epoch it is of; one that is proven to be over is left."""
        self.world.note_epochs(self)
        self.epoch = durable.epoch_of(self.votes.synced)
        while self.epoch + 1 in self.ledger.proofs:
            self.epoch += 1
            self.votes.replace([durable.epoch(self.epoch)])
            self.step("votes of the epoch")
        self.world.note_epochs(self)

    def crash(self, why: str) -> None:
        if not self.up:
            return
        for reason, count in self.replica.refused.items():
            self.refused[reason] += count
        if self.votes.crash(self.world.chance):
            self.world.seen["torn writes"] += 1
        self.world.seen["crashes"] += 1
        self.world.seen["crash at " + why] += 1
        self.world.seen["crashes while recovering"] += self.is_recovering
        self.fuse = self.fuse_at = None
        self.is_recovering = False
        self.paused_until, self.held = 0, []
        self._forget()
        self.world.plan_restart(self)

    def step(self, name: str) -> None:
        """The seam between two duties, where a burning fuse ends the process."""
        if self.fuse is not None:
            self.fuse -= 1
            if self.fuse < 0:
                raise Crash(name)
        if self.fuse_at == name:
            raise Crash(name)

    def guarded(self, action: Callable[..., None], *arguments: Any) -> None:
        """Runs one event's work; afterwards the timer stands where the Replica wants it."""
        try:
            action(*arguments)
        except Crash as crash:
            self.crash(str(crash))
        except Again:
            self.world.seen["begun again"] += 1
            self.votes.crash(self.world.chance)
            self.is_recovering = False
            self._forget()
            self.world.plan(self.world.now_ms + 1, "start", self, None)
        if self.up:
            self._arm()

    # --- clocks ---

    def now(self) -> Now:
        world = self.world
        self.label_ms = max(self.label_ms, self._true_label_ms())  # no process ever sees its clock go back
        return Now(self.label_ms, world.now_ms - self.boot_at)

    def _true_label_ms(self) -> int:
        world = self.world
        label: int = world.created_s * 1000 + (world.now_ms + self.skew_ms) * world.profile.speed
        return label

    def is_clock_ahead(self) -> bool:
        """Whether this process still holds its clock at a label to which it once jumped."""
        return self.label_ms > self._true_label_ms()

    def _arm(self) -> None:
        label, wait = self.replica.wake()
        now = self.now()
        waits = [] if wait is None else [wait - now.wait_ms]
        if label is not None:
            waits.append(-(-(label - now.label_ms) // self.world.profile.speed))
        if not waits:
            self.timer_at = None
            return
        at = self.world.now_ms + max(1, min(waits))
        if at != self.timer_at:
            self.timer_at = at
            self.world.plan(at, "tick", self, at)

    def position(self) -> Executed:
        newest = self.ledger.newest
        head = Head(CHANNEL, newest.height, newest.header_hash)
        return Executed(self.ledger.n, newest.state_root, (head,), self.ledger.time_s, self.ledger.deadline_s,
                        self.ledger.is_ending(self.epoch))

    def uncertified(self) -> list[Head]:
        """The blocks here that lack a certificate."""
        lacking = [block for block in self.ledger.blocks[1:] if block and block.height not in self.ledger.certificates
                   and self.ledger.epoch_at(block.height) == self.epoch]
        return [Head(CHANNEL, block.height, block.header_hash) for block in lacking]

    # --- events ---

    def on_message(self, data: bytes) -> None:
        gather_ms = self.world.profile.gather_ms
        if not gather_ms:
            self.obey(self.replica.receive(data, self.now()))
            return
        self.inbox.append(data)
        if len(self.inbox) == 1:
            self.world.plan(self.world.now_ms + self.world.chance.randint(0, gather_ms), "turn", self, self.life)

    def on_turn(self) -> None:
        """All that came since the last turn of the loop."""
        inbox, self.inbox = self.inbox, []
        self.obey(self.replica.receive_all(inbox, self.now()))

    def on_tick(self) -> None:
        self.timer_at = None
        self.obey(self.replica.tick(self.now()))

    def on_item(self, item: Any) -> None:
        """An item from a broker or a peer: durable first, then proposed."""
        is_known = item.key in self.envelopes or item.key in self.ledger.clients
        if is_known and self.world.chance.random() > STALE:
            return
        self.envelopes[item.key] = item
        self.step("envelope")
        self.obey(self.replica.submit(item, self.now()))

    def on_checked(self, digest: bytes, batch: Any) -> None:
        keys = [self.world.identify(item) for item in batch.items]
        reason = None if all(map(is_good, batch.items)) else "bad_signature"
        if len(set(keys)) < len(keys):
            reason = "duplicate"
        self.obey(self.replica.checked(digest, reason, self.now()))

    def on_synced(self) -> None:
        count, self.syncing = self.syncing, 0
        self._carry_out(count)
        self._work()

    def on_execute(self) -> None:
        self.executing = False
        while self.decisions and self.decisions[0].n <= self.ledger.n:
            self.decisions.popleft()  # an installed head went past it
        if self.decisions:
            decision = self.decisions.popleft()
            self.step("before execution")
            block = self.ledger.execute(decision.n, decision.batch)
            self.judge.on_executed(self, decision.n, block)
            self.world.seen["deadline blocks"] += bool(self.world.slot_s and block and not block.items)
            self.step("after execution")
            heads = [] if block is None else [Head(CHANNEL, block.height, block.header_hash)]
            self.obey(self.replica.executed(decision.n, heads, self.ledger.newest.state_root, self.now(),
                                            self.ledger.deadline_s, self.ledger.is_ending(self.epoch)))
            for item in block.items if block else ():
                self.replica.forget(self.world.identify(item))
        self._plan_execution()

    def on_fetch(self) -> None:
        """Asks one holder for the blocks up to the head that peers have proven."""
        behind = self.behind
        if behind is None or self.ledger.n >= behind.n:
            self.behind = None
            return
        seats = self.world.sets[self.epoch]
        holders = [seats[holder] for holder in behind.holders if seats[holder] != self.index]
        holders = holders or self.world.others(self.index)
        if self.epoch + 1 < len(self.world.sets):
            holders = self.world.others(self.index)  # who held it may be gone
        holder = holders[self.fetches % len(holders)]
        self.fetches += 1
        is_kept = any(behind.n in machine.ledger.snapshots for machine in self.world.machines)  # else blocks, if many
        if (self.world.does_transfer and is_kept
                and behind.heads[0].height - self.ledger.newest.height > TRANSFER_AFTER):
            self._fetch_state(behind, holder)
            return
        head = next(head for head in behind.heads if head.channel == CHANNEL)
        blocks = self.world.blocks_from(holder, self.index, self.ledger.newest.height + 1, head.height)
        before = self.ledger.newest.height
        self.step("before install")
        if blocks is None or not self.ledger.install(
                behind.n, blocks, head.height, head.header_hash, behind.state_root):
            self.world.plan(self.world.now_ms + FETCH_AGAIN_MS, "fetch", self, self.life)
            return
        self.behind = None
        self.world.seen["catch-ups"] += 1
        self.judge.on_installed(self, before)
        self._come_to(before)

    def _come_to(self, before: int) -> None:
        """Blocks above height `before` were fetched."""
        for block in self.ledger.blocks[before + 1:]:
            for item in block.items:
                self.replica.forget(self.world.identify(item))
        self.step("installed")
        self.obey(self.replica.installed(self.position(), self.now()))
        self.obey(self.replica.vote_again(self.uncertified(), self.now()))

    def _fetch_state(self, behind: Any, holder: int) -> None:
        """The next piece of the state at a proven checkpoint, from one machine: leaf hashes first, then buckets."""
        world, again_ms = self.world, FETCH_AGAIN_MS
        if self.transfer is None or self.transfer_n != behind.n:
            self.transfer, self.transfer_n = Transfer(behind.state_root, world.others(self.index), self.side), behind.n
        machine = world.answer_of(holder, self.index)
        found = machine.ledger.snapshots.get(behind.n) if machine is not None else None
        if found is not None and machine is not None:
            frozen, newest = found
            is_lying = not machine.is_honest and world.chance.random() < 0.5
            again_ms = world.chance.randint(1, 20)
            if not self.transfer.has_leaves:
                self.transfer.take_leaves(holder, bytes(len(frozen.leaves)) if is_lying else frozen.leaves)
            rows = answer(frozen, self.transfer.ask(holder), BUCKETS_BYTES)
            if is_lying and rows:
                rows = [[rows[0][0], rows[0][1][:-1] + bytes((rows[0][1][-1] ^ 1,))], *rows[1:]]
                world.seen["poisoned buckets"] += 1
            for data in self.transfer.take_buckets(holder, rows):
                self.side[leaf_of(data)] = data
                self.step("bucket")
            if self.transfer.is_complete:
                self._take_state(behind, newest.header)
        world.plan(world.now_ms + again_ms, "fetch", self, self.life)  # until a newer one is proven

    def _take_state(self, behind: Any, header: bytes) -> None:
        assert self.transfer is not None
        self.step("before transfer")
        head, before = behind.heads[0], self.ledger.newest.height
        if not self.ledger.install_state(behind.n, header, head[1:], behind.state_root, self.transfer.pairs()):
            raise AssertionError(f"a whole state of {behind.n} was not taken")
        self.side = {}
        self.world.seen["transfers"] += 1
        self.world.seen["liars banned"] += len(self.transfer.banned)
        self.judge.on_installed(self, before)
        self.step("transferred")
        raise Again

    def on_poll(self) -> None:
        """Asks somebody for the proof of a newer checkpoint of this epoch, and for certificates that got lost."""
        world = self.world
        world.plan(world.now_ms + POLL_MS, "poll", self, self.life)
        others = world.others(self.index)
        if not others or (machine := world.answer_of(world.chance.choice(others), self.index)) is None:
            return
        for message in machine.proof_for(self.epoch, self.replica.last_executed):
            self.obey(self.replica.receive(b"p" + message, self.now()))
        heights = {height for _, height in self.replica.open_heights}
        for height in sorted(heights | {self.ledger.newest.height} - {0, *self.ledger.certificates}):
            block, ours = machine.ledger.blocks[height:height + 1], self.ledger.blocks[height]
            certificate = machine.ledger.certificates.get(height)
            if certificate is not None and machine.is_honest and block and block[0] and (
                    block[0].header_hash == ours.header_hash):
                self.ledger.certificates.setdefault(height, certificate)
                self.obey(self.replica.note_certificate(CHANNEL, height, self.now()))

    def proof_for(self, epoch: int, n: int) -> tuple[bytes, ...]:
        """What proves a checkpoint of an epoch above n, or its end."""
        if epoch < self.epoch:
            return self.ledger.proofs.get(epoch + 1, ())
        if self.queue or self.syncing:
            return ()  # not all that is promised is written
        proof: tuple[bytes, ...] = self.replica.stable_proof
        return proof if epoch == self.epoch and self.replica.low >= n else ()

    # --- a Ready, left to right ---

    def obey(self, ready: Ready) -> None:
        self.queue.append(ready)
        self._work()

    def _work(self) -> None:
        """Writes for all that waits, then follows; while a slow disk works, more may wait."""
        while self.queue and not self.syncing:
            count, compact, records = self._next_write()
            self.writing = compact, records
            if compact is None:
                for record in records:
                    self.votes.append([record])
                    self.step("append " + KINDS[record[1]])
            if (records or compact is not None) and self.world.profile.slow_disk_ms:
                self.syncing = count
                delay = self.world.chance.randint(1, self.world.profile.slow_disk_ms)
                self.world.plan(self.world.now_ms + delay, "synced", self, self.life)
                return
            self._carry_out(count)

    def _next_write(self) -> tuple[int, list[bytes] | None, list[bytes]]:
        """(number of Readys, new log or None, records) of one write: as gateway/driver.py joins them."""
        compact: list[bytes] | None = None
        records: list[bytes] = []
        count = 0
        for ready in self.queue:
            if ready.compact is not None:
                if records or compact is not None:
                    break
                compact = list(ready.compact)
            records.extend(ready.persist)
            count += 1
        return count, compact, records

    def _carry_out(self, count: int) -> None:
        compact, records = self.writing
        if compact is not None:
            self.step("before compact")
            self.votes.replace([*compact, *records])
            self.judge.on_compacted(self)
            self.step("compact")
        elif records:
            fresh = self.votes.sync()
            self.judge.on_synced(self, fresh)
            for kind in sorted({record[1] for record in fresh}):
                self.step("sync " + KINDS[kind])
        for _ in range(count):
            self._follow(self.queue.popleft())

    def _follow(self, ready: Ready) -> None:
        world = self.world
        for send in ready.send:
            self._send(send.to, send.data)
            said = hear(send.data)
            self.step(f"send {said.type if said else 'noise'}")
        for check in ready.check:
            delay = world.chance.randint(0, world.profile.check_ms)
            world.plan(world.now_ms + delay, "checked", self, (self.life, check.digest, check.batch))
        if ready.decided:
            self.decisions.extend(ready.decided)
            self._plan_execution()
        for certified in ready.certified:
            self.step("before certificate")
            self.judge.on_certified(self, certified)
            self.ledger.certificates.setdefault(certified.height, certified.certificate)
            self.step("certificate")
        for request in ready.submitted:
            item = item_of_request(request)
            if item is not None:
                world.plan(world.now_ms, "item", self, (self.life, item))
        if ready.behind is not None:
            is_asking, self.behind = self.behind is not None, ready.behind  # the newest counts
            if not is_asking:
                world.plan(world.now_ms + 1, "fetch", self, self.life)
        self.alarms.extend(ready.alarms)
        if ready.ended is not None:
            self.step("before epoch")
            self.ledger.proofs[self.epoch + 1] = tuple(ready.ended.proof)
            self.step("epoch")
            raise Again

    def _plan_execution(self) -> None:
        if self.decisions and not self.executing:
            self.executing = True
            delay = self.world.chance.randint(0, self.world.profile.execute_ms)
            self.world.plan(self.world.now_ms + delay, "execute", self, self.life)

    def _send(self, to: int | None, data: bytes) -> None:
        if to is not None:
            to = self.world.sets[self.epoch][to]
        if self.mouth is not None:
            said = self.mouth(to, data)
        else:
            said = [(other, data) for other in ([to] if to is not None else self.world.others(self.index))]
        if self.is_honest:
            self.judge.on_sent(self, data)
        for receiver, message in said:
            self.world.transmit(self.index, receiver, message)
