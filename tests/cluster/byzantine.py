"""Makes a member lie with its own real key, from a healthy Replica's words and whatever it overhears of the others'.

A liar is one machine, or two twins with the same key and disks of their own (each speaks to a part of the cluster). Its
`mouth` sees each message before it leaves and may change, split, hold back or add; `overhear` sees all traffic.
"""

from collections import defaultdict, deque
from typing import Any

from firmware.wire import cbor
from gateway.consensus import messages
from tests.cluster import validity, workload
from tests.cluster.machine import Machine
from tests.cluster.speech import NULL, VOTES, Said, hear, hear_signed, payload_of

HEARD_SLOTS = 400  # slots whose votes a liar keeps in mind
EAGER = 0.25  # chance of a lie where there is an occasion
REPLAY = 0.05
TYPES = {"pre-prepare": messages.PRE_PREPARE, "prepare": messages.PREPARE, "commit": messages.COMMIT}

Parcel = tuple[int, bytes]


class Liar:
    """Member `index`; `lies` are names of `profile.LIES`."""

    def __init__(self, world: Any, machine: Machine) -> None:
        self.world = world
        self.index = machine.index
        self.lies = world.profile.lies
        self.machines = [machine]
        if "twin" in self.lies:
            self.machines.append(Machine(world, machine.index, False))
        for number, twin in enumerate(self.machines):
            twin.mouth = lambda to, data, number=number: self._speak(number, to, data)
        self._heard: dict[tuple[Any, ...], dict[int, bytes]] = {}  # (type, v, n, digest) -> sender -> message
        self._slots: deque[tuple[Any, ...]] = deque()
        self._changes: defaultdict[int, dict[int, bytes]] = defaultdict(dict)  # view -> sender -> VIEW-CHANGE
        self._audience = [set(world.others(self.index)) for _ in self.machines]
        self._is_stopped = False
        self._view = 0

    @property
    def epoch(self) -> int:
        """The epoch that it lives in, and in which it may have a seat."""
        return self.machines[0].epoch

    @property
    def seat(self) -> int | None:
        """Its id among the members; None when it has none."""
        return self.machines[0].seat

    @property
    def judge(self) -> Any:
        """Of its epoch: knows sizes and quorums."""
        return self.world.judges[self.epoch]

    def stop(self) -> None:
        """Falls silent for good."""
        self._is_stopped = True

    # --- mouth ---

    def _speak(self, number: int, to: int | None, data: bytes) -> list[Parcel]:
        """What is really sent in place of `data`."""
        if self._is_stopped:
            return []
        chance = self.world.chance
        receivers = [to] if to is not None else self.world.others(self.index)
        if len(self.machines) > 1:
            self._part(number)
            receivers = [receiver for receiver in receivers if receiver in self._audience[number]]
        if "silence" in self.lies:
            receivers = [receiver for receiver in receivers if chance.random() > 0.3]
        out = [(receiver, data) for receiver in receivers]
        said = hear(data)
        if said is not None and said.sender in (self.seat, -1) and said.epoch == self.epoch:
            out = self._twist(said, data, out)
        return out + (self._noise() if self.seat is not None else [])

    def _part(self, number: int) -> None:
        """Now and then deals the others anew between the twins; somebody may hear both."""
        chance = self.world.chance
        if number == 0 and chance.random() < 0.03:
            others = self.world.others(self.index)
            self._audience = [set(chance.sample(others, chance.randint(1, len(others)))) for _ in self.machines]
            self.world.seen["twins parted"] += 1

    def _twist(self, said: Said, data: bytes, out: list[Parcel]) -> list[Parcel]:
        """One message, perhaps another for some of its receivers."""
        other: bytes | None = None
        chance = self.world.chance
        if said.type == "pre-prepare" and "split" in self.lies and data[:1] == b"b":
            other = self._other_proposal(said, data)
        elif said.type == "view-change" and "hide" in self.lies:
            other = self._other_view_change(said)
        elif said.type == "new-view" and "new_view" in self.lies:
            other = self._other_new_view(said)
        elif said.type in ("checkpoint", "header") and "checkpoint" in self.lies and chance.random() < EAGER:
            other = self._other_claim(said)
        if other is None:
            return out
        deceived = {receiver for receiver, _ in out if chance.random() < 0.5}
        return [(receiver, other if receiver in deceived else message) for receiver, message in out]

    def _sign(self, fields: list[Any], kind: str = "pbft") -> bytes:
        message: bytes = self.world.keys_of(self.index, self.epoch).sign(kind, cbor.encode(fields))
        return message

    def _vote(self, name: str, view: int, n: int, digest: bytes) -> bytes:
        return self._sign([TYPES[name], self.epoch, view, n, digest, self.seat])

    def _other_proposal(self, said: Said, data: bytes) -> bytes:
        """The same slot, another batch: fewer items, another order, a second earlier, one that nobody has checked."""
        chance = self.world.chance
        channel, view, time_s, items = cbor.decode(cbor.decode(data[1:])[1])
        way = chance.choice(("shuffle", "drop", "time", "bad", "repeat", "add"))
        if way == "shuffle" and len(items) > 1:
            chance.shuffle(items)
        elif way == "drop" and items:
            items = items[:-1]
        elif way == "bad":
            items = [*items, workload.make_bad_item(chance)]
        elif way == "repeat" and self.world.items:
            items = [*items, self.world.items[chance.choice(list(self.world.items))].data]
        else:
            time_s -= 1
        batch = cbor.encode([channel, view, time_s, items])
        digest = messages.digest_of(batch)
        self.world.seen["equivocations"] += 1
        return messages.frame(self._vote("pre-prepare", said.view, said.n, digest), batch)

    def _other_view_change(self, said: Said) -> bytes:
        """Without what was prepared, or with certificates that one signer fills alone."""
        proof, prepared = said.body
        chance = self.world.chance
        rows: list[Any] = [[first, list(prepares)] for first, prepares in prepared]
        if chance.random() < 0.5:
            rows = rows[:chance.randint(0, len(rows))]
        else:
            rows = self._forged_certificates(said) or rows
        self.world.seen["false VIEW-CHANGEs"] += 1
        low, shown = said.n, list(proof)
        if chance.random() < 0.3:
            low, shown = self._forged_checkpoint(said)
        return b"p" + self._sign([messages.VIEW_CHANGE, self.epoch, said.view, low, shown, rows, self.seat])

    def _forged_checkpoint(self, said: Said) -> tuple[int, list[bytes]]:
        """A checkpoint that nobody has reached, proven by one signer q times."""
        interval = self.world.parameters["checkpoint_interval"]
        low = said.n + interval * self.world.chance.randint(1, 2)
        heads = [["trade", low, self.world.chance.randbytes(32)]]
        message = self._sign([messages.CHECKPOINT, self.epoch, low, self.world.chance.randbytes(32), heads, self.seat])
        return low, [message] * self.judge.quorum

    def _forged_certificates(self, said: Said) -> list[Any]:
        """Certificates from too few PREPAREs: one told twice, or the primary's own among them."""
        best: dict[int, Any] = {}
        for (name, view, n, digest), senders in self._heard.items():
            if name != "prepare" or view >= said.view or n <= said.n:
                continue
            firsts = self._heard.get(("pre-prepare", view, n, digest), {})
            primary = view % len(self.judge.members)
            if primary not in firsts and primary == self.seat:
                firsts = {primary: self._vote("pre-prepare", view, n, digest)}
            if primary in firsts:
                prepares = [message for _, message in sorted(senders.items())]
                wanted = self.judge.quorum - 1
                best[n] = [firsts[primary], (prepares * wanted)[:wanted]]
        return [best[n] for n in sorted(best)]

    def _other_new_view(self, said: Said) -> bytes:
        """Another O under the same V, or another V."""
        chance = self.world.chance
        view_changes, elements = said.body
        listed = list(elements)
        self.world.seen["conflicting NEW-VIEWs"] += 1
        if listed and chance.random() < 0.6:
            at = chance.randrange(len(listed))
            if chance.random() < 0.5:
                del listed[at]
            else:
                n = hear_signed("pbft", payload_of(listed[at])).n  # type: ignore[union-attr]
                listed[at] = self._vote("pre-prepare", said.view, n, NULL)
            return b"p" + self._sign([messages.NEW_VIEW, self.epoch, said.view, list(view_changes), listed, self.seat])
        return self._own_new_view(said.view) or b"p" + self._sign(
            [messages.NEW_VIEW, self.epoch, said.view, list(view_changes)[1:], listed, self.seat])

    def _own_new_view(self, view: int) -> bytes | None:
        """A NEW-VIEW from any VIEW-CHANGEs at hand, filled up with repeats, and the O that follows from them."""
        heard = sorted(self._changes[view].items())
        if not heard:
            return None
        chance = self.world.chance
        chosen = [message for _, message in chance.sample(heard, min(len(heard), self.judge.quorum))]
        chosen = (chosen * self.judge.quorum)[:self.judge.quorum]
        told = [hear_signed("pbft", payload_of(message)) for message in chosen]
        demanded = validity.recompute(view, [change for change in told if change is not None])
        elements = [self._vote("pre-prepare", view, n, digest) for n, digest in demanded.digests.items()]
        self.world.seen["conflicting NEW-VIEWs"] += 1
        return b"p" + self._sign([messages.NEW_VIEW, self.epoch, view, chosen, elements, self.seat])

    def _other_claim(self, said: Said) -> bytes:
        """Another state at a checkpoint, another header at a height."""
        wrong = self.world.chance.randbytes(32)
        if said.type == "header":
            return b"h" + self._sign([self.epoch, "trade", said.n, wrong], "header")
        heads = [list(head) for head in said.body[1]]
        return b"p" + self._sign([messages.CHECKPOINT, self.epoch, said.n, wrong, heads, self.seat])

    def _noise(self) -> list[Parcel]:
        chance, others = self.world.chance, self.world.others(self.index)
        out: list[Parcel] = []
        if "replay" in self.lies and chance.random() < REPLAY and self.world.history:
            out.append((chance.choice(others), chance.choice(self.world.history)))
        if "garbage" in self.lies and chance.random() < REPLAY:
            out.append((chance.choice(others), self._nonsense()))
        if "flood" in self.lies and chance.random() < REPLAY:
            view = self._view + chance.choice((1, 1, 2, 3, 1000, 1_000_000))
            change = b"p" + self._sign([messages.VIEW_CHANGE, self.epoch, view, 0, [], [], self.seat])
            out += [(other, change) for other in others]
        return out

    def _nonsense(self) -> bytes:
        chance = self.world.chance
        way = chance.randrange(4)
        if way == 0:
            return chance.choice((b"p", b"b", b"h", b"")) + chance.randbytes(chance.randint(0, 200))
        if way == 1:
            fields: list[Any] = [chance.choice((0, 1, -1, 2 ** 63, b"", None, "x", [], 5)) for _ in range(6)]
            return b"p" + self._sign([chance.randrange(12), self.epoch, *fields, self.seat])
        far = chance.choice((0, 1, 3, 1000, 2 ** 40, 2 ** 64 - 1))
        if way == 2:
            return b"p" + self._vote(chance.choice(VOTES), self._view + chance.randint(0, 2), far, chance.randbytes(32))
        claim = [self.epoch + chance.randrange(2), chance.choice(("trade", "x")), far, chance.randbytes(32)]
        return b"h" + self._sign(claim, "header")

    # --- ears ---

    def overhear(self, data: bytes) -> None:
        """Keeps what others said; votes for all of it, or makes a view of it, where that is its way."""
        said = hear(data)
        if said is None or self._is_stopped or data[:1] == b"h" or self.seat is None or said.epoch != self.epoch:
            return
        message = data[1:] if data[:1] == b"p" else cbor.decode(data[1:])[0]
        chance = self.world.chance
        if said.type == "view-change":
            self._changes[said.view].setdefault(said.sender, message)
            is_mine = said.view % len(self.judge.members) == self.seat
            if is_mine and "new_view" in self.lies and chance.random() < EAGER:
                self._tell(self._own_new_view(said.view))
        if said.type not in VOTES:
            return
        slot = (said.type, said.view, said.n, said.digest)
        if slot not in self._heard:
            self._heard[slot] = {}
            self._slots.append(slot)
            if len(self._slots) > HEARD_SLOTS:
                self._heard.pop(self._slots.popleft())
            if "eager" in self.lies:
                self._tell(b"p" + self._vote("prepare", said.view, said.n, said.digest))
                self._tell(b"p" + self._vote("commit", said.view, said.n, said.digest))
        self._heard[slot].setdefault(said.sender, message)
        self._view = max(self._view, min(said.view, self._view + 1))

    def _tell(self, data: bytes | None) -> None:
        if data is not None and any(machine.up for machine in self.machines):
            for other in self.world.others(self.index):
                self.world.transmit(self.index, other, data)
