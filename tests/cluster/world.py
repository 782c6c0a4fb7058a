"""Makes one run from a seed: events in virtual time, faults between them, a healing, and a verdict."""

import hashlib
import heapq
import traceback
from collections import Counter, deque
from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple

from gateway.consensus.keys import CoseKeys
from gateway.consensus.types import Settings
from tests.cluster import faults, liveness, workload
from tests.cluster.byzantine import Liar
from tests.cluster.judge import Judge, Violation
from tests.cluster.keys import Keyring, WatchedKeys
from tests.cluster.ledger import Block
from tests.cluster.machine import Machine
from tests.cluster.network import Network
from tests.cluster.profile import Profile, profile_of
from tests.cluster.speech import hear

CREATED_S = 1_790_000_000
TRACE_EVENTS = 40  # the last events that a violation shows
CHANGING = 0.25  # of the runs
CHANGE_CHANCE = 0.02  # in them, of a wish for another set in place of the next event
HELD_EVENTS = 200  # of a process that stands still: then its peers' queues are full
CHAIN_ID = hashlib.sha256(b"gridseal cluster simulator").digest()


class Outcome(NamedTuple):
    """What a run leaves behind."""

    seed: int
    events: int
    trace_hash: str
    violation: str | None
    invariant: int | None
    seen: Counter[str]


class World:
    """Everything of one run. `chance` is its only source of chance, `now_ms` its only time."""

    def __init__(self, seed: int, size: int = 4, is_real: bool = False) -> None:
        self.seed = seed
        self.chance = Random(seed)
        self.profile: Profile = profile_of(self.chance, size)
        # In a part of the runs the state has deadlines. By a chance of its own: seeds keep their character.
        self.slot_s = Random(f"slots {seed}").choice((0, 0, 0, 5, 20)) * self.profile.speed
        self.created_s = CREATED_S
        self.now_ms = 10_000
        self.seen: Counter[str] = Counter()
        self.events = 0
        self.last: deque[tuple[Any, ...]] = deque(maxlen=TRACE_EVENTS)
        self.identify = workload.identify
        self.chain_id = CHAIN_ID
        self._trace = hashlib.sha256()
        self._heap: list[tuple[int, int, str, Any, Any]] = []
        self._planned = 0
        # In a part of the runs the set of validators changes. By a chance of its own, too.
        dice = Random(f"sets {seed}")
        spares = dice.choice((0, 1, 2)) if dice.random() < CHANGING else None
        self.does_change = spares is not None
        self.does_transfer = self.does_change and dice.random() < 0.5  # else blocks are fetched, however many
        self.count = size + (spares or 0)
        self.keyring = Keyring(seed, self.count, is_real)
        self.sets: list[tuple[int, ...]] = [tuple(range(size))]  # machines of each epoch, by seat
        self.bases = [0]
        self._keys: dict[tuple[int, int], WatchedKeys] = {}
        self._verdicts: dict[int, dict[Any, Any]] = {}
        self._changes_wished = 0
        self.parameters = faults.parameters(self.chance, self.profile)
        self.judges = [Judge(self)]
        self.network = Network(self.chance, self.profile.weather)
        self.history: deque[bytes] = deque(maxlen=500)  # what liars may replay
        self.items: dict[bytes, Any] = {}
        self.healed = False
        self.script: list[tuple[int, Callable[[], None]]] = []  # (when, what) of a fault in several steps
        self.mend_at_ms = 0  # when a split ends by itself; 0: it does not
        self.machines = [Machine(self, index, index not in self.profile.liars) for index in range(self.count)]
        self.honest = [machine for machine in self.machines if machine.is_honest]
        self.liars: list[Liar] = []
        self.liars += [Liar(self, self.machines[index]) for index in self.profile.liars]
        self.at_index: list[list[Machine]] = [[machine] for machine in self.machines]
        for liar in self.liars:
            self.at_index[liar.index] = liar.machines

    # --- what machines ask for ---

    @property
    def judge(self) -> Judge:
        """Of the first epoch."""
        return self.judges[0]

    def members_of(self, epoch: int) -> list[Any]:
        """An epoch's set as its messages know it."""
        return [self.keyring.members[number] for number in self.sets[epoch]]

    def note_epochs(self, machine: Machine) -> None:
        """A ledger has come to an epoch: the first one there says who is in it, honest ones must agree."""
        for number, epoch in enumerate(machine.ledger.epochs):
            if number == len(self.sets):
                self.sets.append(epoch.members)
                self.bases.append(epoch.base)
                self.judges.append(Judge(self, number, self.judges[-1]))
                self.seen["epochs"] += 1
            if machine.is_honest and (self.sets[number], self.bases[number]) != (epoch.members, epoch.base):
                self.judge.fail(1, f"machine {machine.index} has {epoch} as epoch {number}, another "
                                   f"{self.sets[number]} from {self.bases[number]}")

    def settings(self, machine: Machine) -> Settings:
        epoch = machine.epoch
        return Settings(epoch=epoch, members=tuple(self.members_of(epoch)), index=machine.seat or 0,
                        chain_id=CHAIN_ID, parameters=dict(self.parameters), channel="trade", depth=self.profile.depth,
                        base=self.bases[epoch], floors={"trade": machine.ledger.epochs[epoch].height})

    def keys_of(self, index: int, epoch: int = 0) -> WatchedKeys:
        """A machine's keys in an epoch; those of one without a seat only open."""
        if (index, epoch) not in self._keys:
            seats = self.sets[epoch]
            signer = self.keyring.signers[index] if index in seats else None
            keys = CoseKeys(signer, self.members_of(epoch), CHAIN_ID, self.keyring.verify_digest)
            self._keys[index, epoch] = WatchedKeys(keys, seats.index(index) if index in seats else -1,
                                                   self._verdicts.setdefault(epoch, {}), self.judges[epoch].on_signed)
        return self._keys[index, epoch]

    def others(self, index: int) -> list[int]:
        return [other for other in range(self.count) if other != index]

    def plan(self, at_ms: int, kind: str, machine: Any, detail: Any) -> None:
        self._planned += 1
        heapq.heappush(self._heap, (at_ms, self._planned, kind, machine, detail))

    def plan_restart(self, machine: Machine) -> None:
        delay = self.chance.choice((1, 50, 1000, 20_000)) if not self.healed else 1
        self.plan(self.now_ms + delay, "start", machine, None)

    def transmit(self, sender: int, receiver: int, data: bytes) -> None:
        self.history.append(data)
        for liar in self.liars:
            if liar.index != sender:
                liar.overhear(data)
        said = hear(data)
        for delay in self.network.arrivals(sender, receiver, said.type if said else ""):
            arriving = self.network.corrupt(data)
            for machine in self.at_index[receiver]:
                self.plan(self.now_ms + delay, "message", machine, (sender, arriving))

    def blocks_from(self, holder: int, asker: int, first: int, last: int) -> list[tuple[Block, bytes]] | None:
        """What a peer answers to a request for blocks: None when it cannot be reached or does not have them."""
        machine = self.machines[holder]
        cut = self.network.cut
        if not machine.up or (holder, asker) in cut or (asker, holder) in cut:
            return None
        blocks = machine.ledger.blocks[first:last + 1]
        certificates = machine.ledger.certificates
        if len(blocks) < last - first + 1 or None in blocks:
            return None
        answer = [(block, certificates.get(block.height, b"")) for block in blocks]
        if not machine.is_honest and self.chance.random() < 0.5:
            self.seen["poisoned blocks"] += 1
            block, certificate = answer[0]
            way = self.chance.randrange(3)
            poisoned = block._replace(items=(*block.items, b"more")) if way else block
            answer[0] = (poisoned, certificate if way > 1 else b"")
        return answer

    def answer_of(self, holder: int, asker: int) -> Machine | None:
        """A machine that can be asked and answers; None when the link or the process is down."""
        machine, cut = self.machines[holder], self.network.cut
        is_there = machine.up and (holder, asker) not in cut and (asker, holder) not in cut
        return machine if is_there else None

    def wish_change(self) -> None:
        """Operators agree on another set: one seat more, one less, or one that goes to somebody else. Never so that
        those who may be faulty are more than the set bears."""
        seats = self.sets[-1]
        faulty = (self.profile.size - 1) // 3
        suspects = {*self.profile.liars, *range(faulty - len(self.profile.liars))}
        outside = [number for number in range(self.count) if number not in seats]
        wishes = [tuple(other for other in seats if other != number) for number in seats if len(seats) > 1]
        wishes += [tuple(sorted((*seats, number))) for number in outside]
        wishes += [tuple(sorted((*(other for other in seats if other != number), new)))
                   for number in seats for new in outside]
        good = [wish for wish in wishes if len(suspects & set(wish)) <= (len(wish) - 1) // 3]
        if good:
            self._changes_wished += 1
            item = workload.make_change(1_000_000 + self._changes_wished, self.chance.choice(good))
            self.items[item.key] = item
            self._hand_in(item, list(seats))

    # --- the loop ---

    def run(self, events: int) -> Outcome:
        violation, invariant = None, None
        try:
            self._begin()
            self._go(events, self._roll)
            liveness.heal(self)
            liveness.check(self)
        except Violation as broken:
            violation, invariant = str(broken), broken.number
        except Exception as error:  # invariant 27: no input ends in an unhandled exception
            violation, invariant = self._tell_error(error), 27
        for machine in self.machines:
            self.seen.update({"refused " + reason: count for reason, count in machine.refused.items()})
        return Outcome(self.seed, self.events, self._trace.hexdigest(), violation, invariant, self.seen)

    def _tell_error(self, error: Exception) -> str:
        trace = "".join(traceback.format_exception(error)[-4:])
        return str(Violation(self, 27, f"unhandled {type(error).__name__}: {error}")) + "\n" + trace

    def _begin(self) -> None:
        for machines in self.at_index:
            for machine in machines:
                machine.skew_ms = self.chance.randint(-self.profile.skew_ms, self.profile.skew_ms)
                machine.start()
        if self.profile.opening:
            faults.inject(self, self.profile.opening)

    def _go(self, events: int, before_each: Callable[[], bool]) -> None:
        """Runs events until their number is reached or nothing is planned."""
        until = self.events + events
        while self.events < until:
            if before_each():
                self.events += 1
            elif not self.next_event():
                return

    def _roll(self) -> bool:
        """By chance: a fault, a new item or an old one again, in place of the next event."""
        profile, dice = self.profile, self.chance.random()
        while self.script and self.now_ms >= self.script[0][0]:
            self.script.pop(0)[1]()
        if self.mend_at_ms and self.now_ms >= self.mend_at_ms:
            self.mend_at_ms = 0
            self.network.heal()
            self.note_fault("mended: all links")
        if dice < profile.submit_chance:
            self.new_item()
            return True
        dice -= profile.submit_chance
        if dice < profile.retry_chance and self.items:
            item = self.items[self.chance.choice(list(self.items))]
            self._hand_in(item, [self.chance.randrange(profile.size)])
            return True
        dice -= profile.retry_chance
        if dice < profile.fault_chance:
            faults.inject(self, self.chance.choice(profile.faults))
            return True
        dice -= profile.fault_chance
        if self.does_change and dice < CHANGE_CHANCE:
            self.wish_change()
            return True
        return False

    def new_item(self, for_all: bool = False) -> None:
        """A client makes an item and sends it as the profile says, or to everybody."""
        item = workload.make_item(self.chance, len(self.items), self.profile.transaction_share)
        self.items[item.key] = item
        everybody = list(range(self.profile.size))
        if self.profile.spread == "all" or for_all:
            receivers = everybody
        elif self.profile.spread == "one":
            receivers = [self.chance.choice(everybody)]
        elif self.profile.spread == "backup":
            receivers = [self.chance.choice(everybody)]
            view = max((machine.replica.view for machine in self.honest if machine.up), default=0)
            receivers = [(view + 1 + receivers[0] % max(1, len(everybody) - 1)) % len(everybody)]
        else:
            receivers = self.chance.sample(everybody, self.chance.randint(1, len(everybody)))
        self._hand_in(item, receivers)

    def _hand_in(self, item: Any, receivers: list[int]) -> None:
        for receiver in receivers:
            for machine in self.at_index[receiver]:
                self.plan(self.now_ms + self.chance.randint(0, 20), "item", machine, (None, item))

    def next_event(self) -> bool:
        """Carries out the earliest planned event that still means something; False when none is left."""
        while self._heap:
            at_ms, _, kind, machine, detail = heapq.heappop(self._heap)
            if not self._is_due(kind, machine, detail):
                continue
            if machine.paused_until > max(at_ms, self.now_ms) and kind != "start":
                self._hold(kind, machine, detail)
                continue
            if kind == "resume":
                self.resume(machine)
                continue
            self.now_ms = max(self.now_ms, at_ms)
            self.events += 1
            self._note(kind, machine, detail)
            self._carry_out(kind, machine, detail)
            self.judges[machine.epoch].after_event(machine)
            return True
        return False

    def _hold(self, kind: str, machine: Machine, detail: Any) -> None:
        """A process that stands still notices nothing; what the network holds for it is bounded."""
        if kind != "message" or len(machine.held) < HELD_EVENTS:
            machine.held.append((kind, detail))

    def resume(self, machine: Machine) -> None:
        """A process goes on: all that it slept through comes at once."""
        machine.paused_until = 0
        held, machine.held = machine.held, []
        for kind, detail in held:
            if kind == "tick":
                machine.timer_at = detail = max(self.now_ms, detail)
            self.plan(self.now_ms, kind, machine, detail)

    @staticmethod
    def _is_due(kind: str, machine: Machine, detail: Any) -> bool:
        if kind == "start":
            return not machine.up
        if kind == "resume":
            return bool(machine.paused_until == detail)
        if not machine.up:
            return False
        if kind == "tick":
            return bool(machine.timer_at == detail)
        if kind in ("synced", "execute", "fetch", "turn", "poll"):
            return bool(machine.life == detail)
        return kind == "message" or detail[0] is None or detail[0] == machine.life

    def _note(self, kind: str, machine: Machine, detail: Any) -> None:
        entry = (self.events, self.now_ms, kind, machine.index, detail)
        self.last.append(entry)
        text = f"{self.now_ms} {kind} {machine.index} "
        data = detail[1] if kind == "message" else detail[1].key if kind == "item" else b""
        self._trace.update(text.encode() + data)

    def note_fault(self, text: str) -> None:
        self.last.append((self.events, self.now_ms, "fault", None, text))
        self._trace.update(f"{self.now_ms} {text}".encode())
        self.seen["fault " + text.split(":")[0]] += 1

    @staticmethod
    def _carry_out(kind: str, machine: Machine, detail: Any) -> None:
        if kind == "start":
            machine.start()
        elif kind == "message":
            machine.guarded(machine.on_message, detail[1])
        elif kind == "tick":
            machine.guarded(machine.on_tick)
        elif kind == "item":
            machine.guarded(machine.on_item, detail[1])
        elif kind == "checked":
            machine.guarded(machine.on_checked, detail[1], detail[2])
        elif kind == "turn":
            machine.guarded(machine.on_turn)
        elif kind == "synced":
            machine.guarded(machine.on_synced)
        elif kind == "execute":
            machine.guarded(machine.on_execute)
        elif kind == "fetch":
            machine.guarded(machine.on_fetch)
        elif kind == "poll":
            machine.guarded(machine.on_poll)
        else:
            raise ValueError(kind)
