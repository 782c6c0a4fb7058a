"""Makes an area to settle in: real keys, seals and transactions, executed by the real ledger, without a network.

    area = Area(folder)                             points 1 and 2 of ann and ben, an agent each; a grid account; rules
    area.trade(slot_s, 1, 2, 55_000, 200)           ann's point buys of ben's: one book of their own, so at that price
    area.run_day({1: [(120, 0)], 2: [(0, 200)]})    seals at every border, a block at each, until all slots are final
    area.account("ann").balance_mc
"""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from firmware.wire import cbor, cose, genesis, header, state, trading, transaction
from firmware.wire.transaction import Enrolment, PointEntry
from gateway.ledger.ledger import Ledger, Outcome
from gateway.market import records, rules
from gateway.market.records import AccountRecord, BorderRecord, ClearingRecord, EntryRecord, MeterRecord, SlotRecord
from tests.contracts.table import verdict
from tests.ledger.world import AREA, START_S, World, key

BALANCE_MC = 10**9  # of every owner at the genesis: 10,000 of the currency unit
VEE = {"provisional_s": 300, "final_s": 600}
MARKET = {"gate_s": 300, "price_max": 10**6}


class Area(World):
    """An area and its one replica. owners: name by point; agents: name by point, each its own if not given; ratios,
    starts: of points that are not (1, 1) and 0; rule_sets: changes of each rule set; parameters: of the chain."""

    def __init__(self, folder: Path | None = None, points: Sequence[int] = (1, 2),
                 owners: Mapping[int, str] | None = None, rule_sets: Mapping[str, Mapping[str, Any]] | None = None,
                 slot_s: int = 3600, *, agents: Mapping[int, str] | None = None,
                 ratios: Mapping[int, tuple[int, int]] | None = None, starts: Mapping[int, int | None] | None = None,
                 created_s: int = START_S, parameters: Mapping[str, int] | None = None, model: str = "sdm120",
                 replicas: int = 1):
        super().__init__(replicas, ())
        self.points, self.slot_s, self.created_s = list(points), slot_s, created_s
        names = ("ann", "ben", "cem", "dan", "eve", "fay")
        self.owners = dict(owners or {point: names[at % len(names)] for at, point in enumerate(self.points)})
        self.people = {*self.owners.values()}
        self.agents = dict(agents or {point: f"agent {point}" for point in self.points})
        self.epochs = dict.fromkeys(self.points, 1)
        self.items: list[bytes] = []
        self.forms = 0
        enrolments = [self._person("operator"), self._person("grid"), self._person("dispatcher")]
        enrolments += [self._person(name, "participant") for name in sorted({*self.owners.values()} - {"grid"})]
        for name in sorted({*self.agents.values()}):
            mine = [PointEntry(point, AREA, "trade", *(ratios or {}).get(point, (1, 1)), bytes(32), "eastron", model,
                               f"s{point}", (starts or {}).get(point, 0), None)
                    for point in self.points if self.agents[point] == name]
            enrolments.append(transaction.enrol_body(self._request(name, "agent"),
                                                     key(self.owners[mine[0].point]).kid, mine, ""))
        balances = sorted([key(name).kid, BALANCE_MC] for name in {*self.owners.values(), "grid"})
        self.genesis = genesis.encode(genesis.Genesis(
            ("trade",), created_s, 1, genesis.parameters({"slot_s": slot_s, **(parameters or {})}), self.members,
            enrolments, balances))
        self.chain_id = genesis.chain_id(self.genesis)
        self._temporary = tempfile.TemporaryDirectory() if folder is None else None
        self.folder = Path(self._temporary.name) if self._temporary else Path(folder or "")
        self.ledger = Ledger.open(self.folder, self.genesis)
        self.now_s = created_s
        for name in rules.NAMES:
            changes = {"vee": VEE, "market": MARKET}.get(name, {}) | dict((rule_sets or {}).get(name, {}))
            self.add(trading.RULE_SET, trading.rule_set_body(name, 1, 2, rules.make(name, changes)))
        assert self.block(created_s + 1) == ["accepted"] * 4
        self.block(created_s + 2)
        self.first_s = self.calendar().clear_s
        self.totals = {point: [(starts or {}).get(point) or 0, 0] for point in self.points}

    # What goes into blocks.

    def add(self, kind: int, body: list, sender: str = "operator") -> bytes:
        """Queues a transaction for the next block."""
        item = self.tx(kind, body, sender, valid_until_s=self.created_s + 10**9)
        self.items.append(item)
        return item

    def put_seal(self, point: int, time_s: float, import_wh: int | None, export_wh: int | None = 0, **changes: Any
                 ) -> None:
        """Queues the next seal of a point with these registers, its last reading at time_s."""
        changes.setdefault("meter_epoch", self.epochs[point])
        found = self.seal(self.agents[point], point, int(time_s * 1000), import_wh, export_wh, **changes)
        self.items.append(found.leaf)

    def trade(self, slot_s: int, buyer_point: int, seller_point: int, price: int, wh: int, form: int | None = None,
              flow: int = 0) -> None:
        """Queues a buy and a sell order of one price in an energy form of their own: they make one trade."""
        self.forms = self.forms + 1 if form is None else form
        for side, point in ((0, buyer_point), (1, seller_point)):
            self.order(slot_s, side, point, price, wh, self.forms, flow)

    def order(self, slot_s: int, side: int, point: int, price: int, wh: int, form: int = 0, flow: int = 0) -> None:
        order = trading.Order(slot_s, 0, side, flow, form, price, wh, point)
        self.add(trading.ORDER, trading.order_body(order), self.owners[point])

    def correct(self, point: int, slot_s: int, import_wh: int | None, export_wh: int | None,
                quality: int = records.SUBSTITUTED, sender: str = "operator", reason: str = "read by hand") -> None:
        self.add(transaction.CORRECTION, [point, slot_s, import_wh, export_wh, quality, reason, bytes(32)], sender)

    def replace_meter(self, point: int, old: tuple[int | None, int | None], start: tuple[int | None, int | None],
                      senders: Sequence[str] | None = None) -> None:
        """Queues both wills; seals that are made from here on are of the new meter."""
        for sender in senders or (self.agents[point], "operator"):
            self.add(transaction.REPLACE_METER, [point, *old, "eastron", "sdm120", "new", *start], sender)
        self.epochs[point] += 1

    def replace_agent(self, point: int, name: str) -> None:
        """Queues a new key for the point's agent; seals that are made from here on are of the new one."""
        old = self.agents[point]
        self.add(transaction.REPLACE_AGENT, [key(old).kid, self._request(name, "agent", self.chain_id)])
        self.agents = {at: name if agent == old else agent for at, agent in self.agents.items()}

    def enrol_point(self, point: int, agent: str, owner: str, **changes: Any) -> None:
        """Queues a new agent for a point, perhaps of another owner or with another meter (changes: of the PointEntry);
        a living agent of it has to be revoked before."""
        old = self.point(point)
        entry = PointEntry(*old[:len(PointEntry._fields)])._replace(**changes)
        self.add(transaction.ENROL, transaction.enrol_body(self._request(agent, "agent", self.chain_id),
                                                           key(owner).kid, [entry], ""))
        self.agents[point], self.owners[point] = agent, owner

    # Blocks.

    def block(self, time_s: int | None = None) -> list[str]:
        """Executes what is queued; returns the verdicts in order."""
        return [verdict(code) for code in self.execute(time_s).results]

    def execute(self, time_s: int | None = None) -> Outcome:
        self.now_s = max(self.now_s, self.now_s if time_s is None else time_s)
        items, self.items = self.items, []
        return self.ledger.execute(self.ledger.stand().n + 1, ("trade", 0, self.now_s, items))

    def certify(self) -> None:
        """Puts a quorum's certificate to every block that has none, as proofs and bills need it."""
        for height in range(1, self.ledger.stand().heads[0][1] + 1):
            found = self.ledger.header("trade", height)
            assert found is not None and header.decode(found).height == height
            self.ledger.put_certificate("trade", height, self.certificate(found))

    def border_seals(self, time_s: int) -> None:
        """Queues a seal of every point at a slot's border, with the registers of `totals`."""
        for point in self.points:
            self.put_seal(point, time_s, *self.totals[point])

    def run_day(self, energies: Mapping[int, Sequence[tuple[int, int]]], first_s: int | None = None,
                is_final: bool = True) -> list[int]:
        """Seals and blocks of as many slots as `energies` (register Wh per slot: import, export) has; returns them.

        The block of a border comes 20 s after it. At the end all is final, unless told otherwise."""
        first_s = self.first_s if first_s is None else first_s
        count = max(len(rows) for rows in energies.values())
        if self.now_s < first_s + 20:
            self.border_seals(first_s)
            self.block(first_s + 20)
        slots = [first_s + at * self.slot_s for at in range(count)]
        for at, slot_s in enumerate(slots):
            for point, rows in energies.items():
                self.totals[point][0] += rows[at][0]
                self.totals[point][1] += rows[at][1]
            self.border_seals(slot_s + self.slot_s)
            self.block(slot_s + self.slot_s + 20)
        if is_final:
            self.finish(slots[-1])
        return slots

    def finish(self, slot_s: int) -> None:
        """Empty blocks until a slot is final."""
        while self.calendar().final_s <= slot_s:
            deadline_s = self.ledger.deadline_s()
            assert deadline_s is not None
            self.block(max(deadline_s, self.now_s))

    def reopen(self) -> None:
        """The replica starts again from its disk."""
        self.ledger.close()
        self.ledger = Ledger.open(self.folder)

    # What the state says.

    def value(self, state_key: bytes) -> bytes:
        data = self.ledger.state_value(state_key)
        assert data is not None, state_key
        return data

    def account(self, name: str) -> AccountRecord:
        return records.decode_account(self.value(records.account_key(key(name).kid)))

    def entries(self, name: str) -> list[EntryRecord]:
        return [records.decode_entry(self.value(records.entry_key(key(name).kid, number)))
                for number in range(1, self.account(name).entries + 1)]

    def slot(self, slot_s: int) -> SlotRecord:
        return records.decode_slot(self.value(records.slot_key(slot_s)))

    def energy(self, point: int, slot_s: int) -> tuple[int | None, int | None, str]:
        row = next(row for row in self.slot(slot_s).energies if row.point == point)
        return row.import_wh, row.export_wh, records.QUALITY_NAMES[row.quality]

    def clearing(self, slot_s: int) -> ClearingRecord:
        return records.decode_clearing(self.value(records.clearing_key(slot_s)))

    def calendar(self) -> records.CalendarRecord:
        return records.decode_calendar(self.value(records.CALENDAR_KEY))

    def meter(self, point: int) -> MeterRecord:
        return records.decode_meter(self.value(records.meter_key(point)))

    def border(self, point: int, slot_s: int) -> BorderRecord | None:
        data = self.ledger.state_value(records.border_key(point, slot_s))
        return None if data is None else records.decode_border(data)

    def point(self, point: int) -> state.PointRecord:
        return state.decode_point(self.value(state.point_key(point)))

    def check_money(self) -> None:
        """What was minted is all balances; every account's entries make its balance; nothing else is held than what
        open orders and unsettled purchases need; every slot's entries sum to 0."""
        names = sorted({*self.people, "grid"})
        accounts = [self.account(name) for name in names]
        assert sum(account.balance_mc for account in accounts) == cbor.decode(self.value(records.MINTED_KEY))
        sums: dict[int, int] = {}
        for name, account in zip(names, accounts, strict=True):
            rows = self.entries(name)
            assert [row.number for row in rows] == list(range(1, len(rows) + 1))
            assert sum(row.amount_mc for row in rows) == account.balance_mc
            for row in rows:
                if row.slot_s is not None:
                    sums[row.slot_s] = sums.get(row.slot_s, 0) + row.amount_mc
        assert not any(sums.values()), sums

    def _person(self, name: str, role: str | None = None) -> list:
        return transaction.enrol_body(self._request(name, role or name), key(name).kid, [], "")

    def _request(self, name: str, role: str, chain_id: bytes = cose.NO_CHAIN) -> bytes:
        return transaction.encode_enrolment(Enrolment(key(name).public, bytes(32), role, AREA, "pi", "software"),
                                            key(name).kid, chain_id, key(name).signer.sign_digest)
