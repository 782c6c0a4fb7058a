"""Makes a few Replicas talk in one process, under a test's hand: messages wait until they are delivered or dropped."""

import hashlib
from collections import deque
from collections.abc import Callable

from firmware.wire import cbor, genesis
from gateway.consensus import messages
from gateway.consensus.keys import CoseKeys
from gateway.consensus.mail import Mail
from gateway.consensus.replica import Replica
from gateway.consensus.types import Batch, Executed, Head, Item, Now, Ready, Settings
from tests.cluster.keys import Keyring

CHAIN_ID = bytes(31) + b"\x01"
NAMES = {messages.PRE_PREPARE: "PRE-PREPARE", messages.PREPARE: "PREPARE", messages.COMMIT: "COMMIT",
         messages.CHECKPOINT: "CHECKPOINT", messages.VIEW_CHANGE: "VIEW-CHANGE", messages.NEW_VIEW: "NEW-VIEW",
         messages.FETCH: "FETCH", messages.DATA: "DATA", messages.STATUS: "STATUS", messages.SUBMIT: "SUBMIT"}
START = Now(1_700_000_000_000, 5_000)


def identify(leaf: bytes) -> bytes:
    return hashlib.sha256(leaf).digest()


def item(text: str, kind: str = "tx", client: bytes = b"") -> Item:
    leaf = text.encode()
    return Item(identify(leaf), kind, leaf, b"request " + leaf, client)


class Crash(Exception):
    """The process ends here."""


class Watched:
    """A member's keys, and all that they ever signed: no two promises may contradict each other, over all lives."""

    def __init__(self, keys: CoseKeys):
        self._keys = keys
        self.promises: dict[tuple, bytes] = {}

    def sign(self, kind: str, payload: bytes) -> bytes:
        fields = cbor.decode(payload)
        if kind == "header":
            self._promise(("header", *fields[1:3]), fields[3])
        elif fields[0] in (messages.PRE_PREPARE, messages.PREPARE, messages.COMMIT):
            self._promise(tuple(fields[:1] + fields[2:4]), fields[4])
        elif fields[0] in (messages.VIEW_CHANGE, messages.NEW_VIEW, messages.CHECKPOINT):
            self._promise((fields[0], fields[2]), payload)
        return self._keys.sign(kind, payload)

    def open(self, kind: str, message: bytes) -> tuple[int, bytes]:
        return self._keys.open(kind, message)

    def _promise(self, place: tuple, said: bytes) -> None:
        assert self.promises.setdefault(place, said) == said, place


class Ledger:
    """What a driver's ledger keeps: the batches, one header hash per block, one state root."""

    def __init__(self) -> None:
        self.n = 0
        self.root = bytes(32)
        self.heads = [Head("trade", 0, bytes(32))]
        self.batches: list[Batch | None] = [None]  # by n
        self.time_s = 0
        self.slot_s = 0  # above 0: the state's deadline is the first slot's start behind the newest block

    @property
    def deadline_s(self) -> int | None:
        newest_s = self.time_s or START.label_ms // 1000
        return (newest_s // self.slot_s + 1) * self.slot_s if self.slot_s else None

    def execute(self, n: int, batch: Batch | None) -> list[Head]:
        assert n == self.n + 1
        self.n = n
        self.batches.append(batch)
        if batch is None:
            return []
        self.time_s = batch.time_s
        self.root = hashlib.sha256(self.root + repr(batch).encode()).digest()
        self.heads.append(Head("trade", len(self.heads), hashlib.sha256(self.root).digest()))
        return [self.heads[-1]]

    def position(self) -> Executed:
        return Executed(self.n, self.root, [self.heads[-1]], self.time_s, self.deadline_s)

    def leaves(self) -> list[bytes]:
        return [leaf for batch in self.batches if batch for leaf in batch.items]


class Node:
    """One replica with its disk and its ledger, and the driver that obeys it."""

    def __init__(self, net: "Net", index: int):
        self.net, self.index = net, index
        self.keys = Watched(net.keys(index))
        self.ledger = Ledger()
        self.votes: list[bytes] = []
        self.old_votes: list[list[bytes]] = []  # the votes logs before this one, each as it was when it was replaced
        self.certified: dict[int, bytes] = {}
        self.alarms: list[str] = []
        self.behinds: list = []
        self.persisted_bytes = 0
        self.check: Callable[[Batch], str | None] = lambda batch: None
        self.do_execute = True
        self.known: dict[bytes, Item] = {}  # durable at this node's ingest
        self.remembers = False
        self.decisions: deque = deque()
        self.is_up = False
        self.fuse: int | None = None  # seams until a crash
        self.death: tuple[str, bool] | None = None  # (message that is never sent, is it promised on disk)
        self.crashes = 0
        self.boot()

    def boot(self) -> None:
        net = self.net
        settings = Settings(0, net.ring.members, self.index, CHAIN_ID, net.parameters, depth=net.depth)
        self.decisions.clear()
        self.replica = Replica(settings, self.keys, identify, self.ledger.position(), list(self.votes),
                               now=net.now)
        self.is_up = True
        self.obey(self.replica.start(net.now))

    def restart(self) -> None:
        """A crash: what was synced and executed stays; a driver hands in again what it holds and the ledger lacks."""
        self.boot()
        for thing in self.known.values() if self.remembers else ():
            self.submit(thing)

    def seam(self) -> None:
        """The process may end between any two duties."""
        if self.fuse is not None:
            self.fuse -= 1
            if self.fuse < 0:
                self.fuse = None
                raise Crash

    def die_before(self, ready: Ready, is_promised: bool) -> None:
        """The process may be meant to end around a certain message: before its promise is on disk, or behind that."""
        if self.death is not None and self.death[1] == is_promised and any(
                self.net.name_of(send.data) == self.death[0] for send in ready.send):
            self.death = "", is_promised
            raise Crash

    def feed(self, call: Callable[[], Ready]) -> None:
        """One event: the Replica is called and obeyed; a crash on the way starts it again from what is durable."""
        promises = dict(self.keys.promises)
        try:
            self.obey(call())
        except Crash:
            if self.death == ("", False):  # signed, and lost before anybody could see it
                self.keys.promises = promises
            self.death = None
            self.crashes += 1
            self.restart()

    def obey(self, ready: Ready) -> None:
        self.die_before(ready, False)
        for record in ready.persist:
            self.seam()
            self.votes.append(record)
        self.persisted_bytes += sum(map(len, ready.persist))
        if ready.compact is not None:
            assert not ready.persist, "a crash between the two would leave promises beyond the old window"
            self.seam()
            self.old_votes.append(self.votes)
            self.votes = list(ready.compact)
        self.die_before(ready, True)
        for send in ready.send:
            self.seam()
            for to in range(self.net.size) if send.to is None else [send.to]:
                if to != self.index:
                    self.net.post(self.index, to, send.data)
        for asked in ready.check:
            self.obey(self.replica.checked(asked.digest, self.check(asked.batch), self.net.now))
        self.decisions.extend(ready.decided)
        self.work()
        for certified in ready.certified:
            self.certified[certified.height] = certified.certificate
        for request in ready.submitted:
            self.submit(item(request.removeprefix(b"request ").decode(), self.net.kind))
        if ready.behind is not None:
            self.behinds.append(ready.behind)
        self.alarms.extend(ready.alarms)

    def work(self) -> None:
        while self.do_execute and self.decisions:
            n, batch = self.decisions.popleft()
            if n <= self.ledger.n:
                continue
            self.seam()
            heads = self.ledger.execute(n, batch)
            self.seam()
            self.obey(self.replica.executed(n, heads, self.ledger.root, self.net.now, self.ledger.deadline_s))

    def submit(self, thing: Item) -> None:
        self.known[thing.key] = thing
        if thing.data not in self.ledger.leaves():
            self.feed(lambda: self.replica.submit(thing, self.net.now))

    def install(self) -> None:
        """Answers the newest `Behind` from the ledger of a holder."""
        behind = self.behinds[-1]
        source = self.net.nodes[behind.holders[0]].ledger
        for n in range(self.ledger.n + 1, behind.n + 1):
            self.ledger.execute(n, source.batches[n])
        assert self.ledger.root == behind.state_root
        self.obey(self.replica.installed(self.ledger.position(), self.net.now))


class Net:
    """n nodes and the messages between them: (from, to, name, frame), in order of sending."""

    def __init__(self, size: int, depth: int = 8, seed: int = 1, **parameters: int):
        self.size, self.depth, self.now, self.kind = size, depth, START, "tx"
        self.parameters = genesis.parameters(parameters)
        self.ring = Keyring(seed, size, False)
        self.queue: deque[tuple[int, int, str, bytes]] = deque()
        self.cut: Callable[[int, int, str], bool] = lambda sender, to, name: False  # True = lost
        self.heard: list[tuple[int, int, str]] = []
        self.falsify: dict[int, Callable[[messages.Message], messages.Message]] = {}  # member: what it says instead
        self.opener = Mail(Settings(0, self.ring.members, 0, CHAIN_ID, self.parameters), self.keys(0), None)  # type: ignore[arg-type]
        self.nodes: list[Node] = []
        for index in range(size):
            self.nodes.append(Node(self, index))

    def keys(self, index: int) -> CoseKeys:
        return CoseKeys(self.ring.signers[index], self.ring.members, CHAIN_ID, self.ring.verify_digest)

    def forge(self, index: int, message: messages.Message, batch: bytes | None = None, epoch: int = 0) -> bytes:
        """A frame that member `index` signs, whatever its Replica would say to it."""
        return messages.frame(self.keys(index).sign("pbft", messages.encode(message, epoch)), batch)

    def signed(self, index: int, message: messages.Message, epoch: int = 0) -> bytes:
        return self.forge(index, message, None, epoch)[1:]

    def give(self, to: int, frame: bytes) -> None:
        """Hands a frame to one node now."""
        self.nodes[to].obey(self.nodes[to].replica.receive(frame, self.now))

    def name_of(self, frame: bytes) -> str:
        if frame[:1] == b"h":
            return "HEADER-VOTE"
        message = self.opener.peek(messages.open_frame(frame)[0])
        if isinstance(message, messages.Vote):
            return NAMES[message.type]
        kind = type(message).__name__
        return {"ViewChange": "VIEW-CHANGE", "NewView": "NEW-VIEW"}.get(kind, kind.upper())

    def post(self, sender: int, to: int, frame: bytes) -> None:
        name = self.name_of(frame)
        if sender in self.falsify and name == "NEW-VIEW":
            frame = self.forge(sender, self.falsify[sender](self.opener.peek(messages.open_frame(frame)[0])))
        self.queue.append((sender, to, name, frame))

    def run(self, until: Callable[[], bool] | None = None, bound: int = 100_000) -> None:
        """Delivers what is under way, in order; lost is what `cut` says, and what goes to nodes that are down."""
        for _ in range(bound):
            if not self.queue or (until and until()):
                return
            sender, to, name, frame = self.queue.popleft()
            node = self.nodes[to]
            if not node.is_up or not self.nodes[sender].is_up or self.cut(sender, to, name):
                continue
            self.heard.append((sender, to, name))
            node.feed(lambda: node.replica.receive(frame, self.now))  # noqa: B023 (called at once)
        raise AssertionError("no rest after %d messages" % bound)

    def pass_time(self, ms: int, speed: int = 1) -> None:
        """Lets time go by, in the steps that the replicas ask for, and delivers what they say."""
        end = self.now.wait_ms + ms
        self.run()
        while self.now.wait_ms < end:
            steps = [end - self.now.wait_ms]
            for node in self.nodes:
                if node.is_up:
                    label, wait = node.replica.wake()
                    if label is not None:
                        steps.append(-(-(label - self.now.label_ms) // speed))
                    if wait is not None:
                        steps.append(wait - self.now.wait_ms)
            step = max(1, min(steps))
            self.now = Now(self.now.label_ms + step * speed, self.now.wait_ms + step)
            for node in self.nodes:
                if node.is_up:
                    node.feed(lambda: node.replica.tick(self.now))  # noqa: B023 (called at once)
            self.run()

    def stop(self, *indexes: int) -> None:
        for index in indexes:
            self.nodes[index].is_up = False

    def views(self) -> list[int]:
        return [node.replica.view for node in self.nodes if node.is_up]

    def leaves(self) -> list[bytes]:
        """What all running nodes have executed; they must agree."""
        ledgers = [node.ledger for node in self.nodes if node.is_up]
        shortest = min(ledgers, key=lambda ledger: ledger.n)
        for ledger in ledgers:
            assert ledger.batches[: shortest.n + 1] == shortest.batches
        return shortest.leaves()
