"""Makes batches of the items that wait, in the order of their arrival, and says when a batch closes and who is overdue.

Each item waits in one of two places: waiting, or flying (in a batch that was accepted and is not yet executed). Beside
that it may be overdue: its own waiting limit and a quarter of T are over and it is not decided; the limit of a seal is
a label (30 s), that of a transaction a wait (5 ms). Items that came from another replica by SUBMIT have had theirs and
are overdue at once.

The quarter of T is for the primary's sake. All replicas hear the brokers: nearly always it has the item as well and its
batch is on the way, and then every SUBMIT is waste (transactions under load: 2.6 times the traffic). SUBMIT is for an
item that the primary did not hear of, and T, which is for a primary that does not serve, begins with it.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from heapq import merge
from itertools import count, islice

from gateway.consensus.types import Item, Now

# What a gateway may hold back while no primary takes anything: 20 points at a seal a minute fill it in 55 hours.
# An item has about 0.4 KiB without its readings, an envelope of a minute some 1.5 KiB: 100 MiB at most.
POOL_ITEMS = 65536
KINDS = ("seal", "tx")


class Entry:
    __slots__ = ("item", "order", "arrived", "n", "is_relayed", "is_done")

    def __init__(self, item: Item, order: int, arrived: Now, is_relayed: bool):
        self.item = item
        self.order = order
        self.arrived = arrived
        self.n = 0  # the sequence number it flies in, 0 = it waits
        self.is_relayed = is_relayed
        self.is_done = False


class Pool:
    """The items of one replica that are not yet executed."""

    def __init__(self, parameters: Mapping[str, int]):
        self._parameters = parameters
        self._orders = count(1)
        self._entries: dict[bytes, Entry] = {}
        self._waiting: dict[str, dict[bytes, Entry]] = {kind: {} for kind in KINDS}  # by order
        self._waiting_bytes = 0
        self._quiet: dict[str, deque[Entry]] = {kind: deque() for kind in KINDS}  # limit not over; may hold done ones
        self._late: deque[tuple[int, Entry]] = deque()  # (wait label of falling overdue, seal whose limit is over)
        self._grace_ms = parameters["timeout_ms"] // 4
        self.overdue: dict[bytes, Entry] = {}  # not decided, by the moment at which they fell due
        self._untold: dict[bytes, Entry] = {}  # those of them that the other replicas have not been told of
        self._relayed: dict[bytes, Entry] = {}  # those of them that wait: they close a batch at once

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: bytes) -> bool:
        return key in self._entries

    @property
    def is_full(self) -> bool:
        return len(self._entries) >= POOL_ITEMS

    def add(self, item: Item, now: Now, is_relayed: bool, n: int) -> None:
        """Takes an item; n = the sequence number in which it flies already, or 0. ValueError for an unknown kind."""
        kind, key = item.kind, item.key
        if kind not in self._waiting:
            raise ValueError("an item of kind " + kind)
        entry = self._entries[key] = Entry(item, next(self._orders), now, is_relayed)
        if is_relayed:
            self._wait(entry)
            self.overdue[key] = entry
        else:  # by far the most: without a call
            self._waiting[kind][key] = entry
            self._waiting_bytes += len(item.data)
            self._quiet[kind].append(entry)
        if n:
            self.fly([key], n)

    def items(self) -> list[Item]:
        """All that is not executed, in the order of its arrival."""
        return [entry.item for entry in self._entries.values()]

    def add_all(self, items: Iterable[Item], now: Now, relayed: Callable[[Item], bool] | None,
                flying: Mapping[bytes, int]) -> int:
        """Takes items that came together but for those that are known; how many found no room. relayed tells whether
        one came by SUBMIT."""
        entries, left_out = self._entries, 0
        for item in items:
            key = item.key
            if key in entries:
                continue
            if len(entries) >= POOL_ITEMS:
                left_out += 1
            else:
                self.add(item, now, relayed is not None and relayed(item), flying.get(key, 0))
        return left_out

    def drop(self, key: bytes) -> None:
        """Forgets an item: executed, refused or no longer wanted."""
        entry = self._entries.pop(key, None)
        if entry is not None:
            if not entry.n:
                self._leave(entry)
            entry.is_done = True
            if self.overdue:
                self.overdue.pop(key, None)
                self._untold.pop(key, None)

    def fly(self, keys: Iterable[bytes], n: int) -> None:
        """Notes that the batch at n holds these items."""
        if not self._entries:
            return
        for key in keys:
            entry = self._entries.get(key)
            if entry is not None and entry.n != n:
                self._leave(entry)
                entry.n = n

    def free(self, keys: Iterable[bytes], n: int) -> None:
        """Lets those of the items that fly in n wait again. One that was passed over when its limit ended, because n
        was decided, is looked at once more."""
        for key in keys:
            entry = self._entries.get(key)
            if entry is not None and entry.n == n:
                entry.n = 0
                self._wait(entry)
                if key not in self.overdue:
                    self._quiet[entry.item.kind].appendleft(entry)
        self._sort()

    def settle(self, keys: Iterable[bytes]) -> None:
        """Notes that these items are decided: nobody needs to be suspected for them any more."""
        if not self.overdue:
            return  # what is untold is overdue
        for key in keys:
            self.overdue.pop(key, None)
            self._untold.pop(key, None)

    def take_untold(self) -> list[bytes]:
        """Requests of the overdue items that wait and that the others have not been told of; told from now on."""
        told = [entry for entry in self._untold.values() if not entry.n]
        for entry in told:
            del self._untold[entry.item.key]
        return [entry.item.request for entry in told]

    def foremost_overdue(self, number: int) -> list[bytes]:
        """Requests of those that have been overdue longest, and wait."""
        return [entry.item.request for entry in islice(
            (entry for entry in self.overdue.values() if not entry.n), number)]

    def release(self, above: int) -> None:
        """Lets all items that fly in n > `above` wait again, each at its old place: after a view change."""
        for entry in self._entries.values():
            if entry.n > above:
                entry.n = 0
                self._wait(entry)
        self._sort()

    def advance(self, now: Now, decided: int) -> None:
        """Moves those whose time is over to the overdue ones; what flies in n <= `decided` needs no care."""
        seals, transactions, late = self._quiet["seal"], self._quiet["tx"], self._late
        while seals and (seals[0].is_done or self._is_over(seals[0], now)):
            entry = seals.popleft()
            if not entry.is_done and not 0 < entry.n <= decided:
                late.append((now.wait_ms + self._grace_ms, entry))
        while late and (late[0][1].is_done or now.wait_ms >= late[0][0]):
            self._become_overdue(late.popleft()[1], decided)
        while transactions and (transactions[0].is_done or now.wait_ms >= self._overdue_ms(transactions[0])):
            self._become_overdue(transactions.popleft(), decided)

    def is_due(self, now: Now, is_idle: bool) -> bool:
        """Tells whether a batch closes now; `is_idle`: nothing is in flight, transactions need not wait."""
        waiting = self._waiting
        number = len(waiting["seal"]) + len(waiting["tx"])
        if not number:
            return False
        if self._relayed or (is_idle and waiting["tx"]):
            return True
        if number >= self._parameters["batch_items"] or self._waiting_bytes >= self._parameters["batch_bytes"]:
            return True
        return any(waiting[kind] and self._is_over(next(iter(waiting[kind].values())), now) for kind in KINDS)

    def due_at(self) -> tuple[int | None, int | None]:
        """(label, wait) at which the oldest waiting item of each kind closes a batch by its limit."""
        label = wait = None
        for entry in self._waiting["seal"].values():
            label = entry.arrived.label_ms + self._parameters["wait_seal_ms"]
            break
        for entry in self._waiting["tx"].values():
            wait = entry.arrived.wait_ms + self._parameters["wait_transaction_ms"]
            break
        return label, wait

    def overdue_at(self) -> tuple[int | None, int | None]:
        """(label, wait) at which the next seal's limit ends, and at which the next item falls overdue."""
        for quiet in self._quiet.values():
            while quiet and quiet[0].is_done:
                quiet.popleft()
        while self._late and self._late[0][1].is_done:
            self._late.popleft()
        seals, transactions = self._quiet["seal"], self._quiet["tx"]
        waits = [due_ms for due_ms, _ in islice(self._late, 1)]
        if transactions:
            waits.append(self._overdue_ms(transactions[0]))
        return (seals[0].arrived.label_ms + self._parameters["wait_seal_ms"] if seals else None,
                min(waits, default=None))

    def take(self, n: int) -> list[Item]:
        """The items of the next batch, noted as flying in n: oldest first, within the chain's limits. An item that
        alone is beyond `batch_bytes` goes alone."""
        limits = self._parameters
        taken: list[Item] = []
        entries: list[Entry] = []
        size = 0
        shares: dict[bytes, int] = {}
        waiting = [self._waiting[kind].values() for kind in KINDS if self._waiting[kind]]
        most_items, most_bytes, most_shares = limits["batch_items"], limits["batch_bytes"], limits["client_items"]
        for entry in waiting[0] if len(waiting) == 1 else merge(*waiting, key=_order):
            item = entry.item
            if item.client:
                share = shares.get(item.client, 0) + 1
                if share > most_shares:
                    continue  # and with it all that follows of this client: its seals stay in order
                shares[item.client] = share
            size += len(item.data)
            if taken and (len(taken) >= most_items or size > most_bytes):
                break
            taken.append(item)
            entries.append(entry)
        for entry in entries:
            entry.n = n
            if entry.is_relayed:
                self._leave(entry)
            else:
                item = entry.item
                del self._waiting[item.kind][item.key]
                self._waiting_bytes -= len(item.data)
        return taken

    def _sort(self) -> None:
        for kind in KINDS:
            ordered = sorted(self._waiting[kind].values(), key=_order)
            self._waiting[kind] = {entry.item.key: entry for entry in ordered}

    def _is_over(self, entry: Entry, now: Now) -> bool:
        if entry.is_relayed:
            return True
        if entry.item.kind == "seal":
            return now.label_ms >= entry.arrived.label_ms + self._parameters["wait_seal_ms"]
        return now.wait_ms >= entry.arrived.wait_ms + self._parameters["wait_transaction_ms"]

    def _overdue_ms(self, transaction: Entry) -> int:
        return transaction.arrived.wait_ms + self._parameters["wait_transaction_ms"] + self._grace_ms

    def _become_overdue(self, entry: Entry, decided: int) -> None:
        if not entry.is_done and not 0 < entry.n <= decided:
            self.overdue[entry.item.key] = entry
            self._untold[entry.item.key] = entry

    def _wait(self, entry: Entry) -> None:
        item = entry.item
        self._waiting[item.kind][item.key] = entry
        self._waiting_bytes += len(item.data)
        if entry.is_relayed:
            self._relayed[item.key] = entry

    def _leave(self, entry: Entry) -> None:
        item = entry.item
        if self._waiting[item.kind].pop(item.key, None) is not None:
            self._waiting_bytes -= len(item.data)
            if entry.is_relayed:
                self._relayed.pop(item.key, None)


def _order(entry: Entry) -> int:
    return entry.order
