"""Makes an area with a market to test with: a real Ledger over SQLite, participants with a point each, money, rules.

Names: `operator`, `grid`, participants `p0`, `p1`, ... of which `p<i>` owns point i + 1, served by the agent `m<i>`.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from firmware.wire import cose, genesis, trading, transaction
from gateway.contracts import accounts
from gateway.ledger.ledger import Ledger, Outcome
from gateway.ledger.tree import Draft
from gateway.market import commitment, records, rules
from gateway.market.records import AccountRecord, CalendarRecord, ClearingRecord, EntryRecord
from tests.contracts.table import verdict
from tests.ledger.world import START_S, World, key, point_entry

SLOT_S = 3600
FIRST_S = START_S + SLOT_S  # the first slot that can be traded when rules are set in the first blocks
MONEY_MC = 10_000_000


class MarketWorld(World):
    """A genesis with a grid, participants with points, and their first money."""

    def __init__(self, owners: int, money_mc: int = MONEY_MC, parameters: dict[str, int] | None = None):
        super().__init__(replicas=1, agents=(), parameters=parameters)
        facts = genesis.decode(self.genesis)
        enrolments = list(facts.enrolments) + [self._body("grid", "grid", [], "grid")]
        for at in range(owners):
            enrolments.append(self._body(f"p{at}", "participant", [], f"p{at}"))
            enrolments.append(self._body(f"m{at}", "agent", [point_entry(at + 1)], f"p{at}"))
        balances = sorted([key(f"p{at}").kid, money_mc] for at in range(owners)) if money_mc else []
        self.genesis = genesis.encode(facts._replace(enrolments=enrolments, balances=balances))
        self.chain_id = genesis.chain_id(self.genesis)

    def _body(self, name: str, role: str, points: list, owner: str) -> list:
        return transaction.enrol_body(self.request(name, role, chain_id=cose.NO_CHAIN), key(owner).kid, points, "")

    def order(self, sender: str, side: int, price: int, wh: int, slot_s: int = FIRST_S, point: int | None = None,
              scale: int = 0, flow: int = 0, form: int = 0, **tx: Any) -> bytes:
        point = int(sender[1:]) + 1 if point is None else point
        body = trading.order_body(trading.Order(slot_s, scale, side, flow, form, price, wh, point))
        return self.tx(trading.ORDER, body, sender, **tx)

    def commit(self, sender: str, price: int, wh: int, slot_s: int = FIRST_S, nonce: bytes = b"") -> bytes:
        digest = commitment.commitment(self.chain_id, key(sender).kid, slot_s, price, wh, nonce or nonce_of(sender))
        return self.tx(trading.COMMIT, trading.commit_body(slot_s, digest), sender)

    def reveal(self, sender: str, price: int, wh: int, slot_s: int = FIRST_S, nonce: bytes = b"") -> bytes:
        return self.tx(trading.REVEAL, trading.reveal_body(slot_s, price, wh, nonce or nonce_of(sender)), sender)

    def top_up(self, account: str, amount_mc: int, reference: str = "r", sender: str = "grid") -> bytes:
        return self.tx(trading.TOP_UP, trading.money_body(key(account).kid, amount_mc, reference), sender)

    def withdraw(self, account: str, amount_mc: int, reference: str = "r", sender: str = "grid") -> bytes:
        return self.tx(trading.WITHDRAW, trading.money_body(key(account).kid, amount_mc, reference), sender)

    def deposit(self, account: str, amount_mc: int, sender: str = "grid") -> bytes:
        return self.tx(trading.DEPOSIT, trading.deposit_body(key(account).kid, amount_mc), sender)

    def rule_set(self, name: str, version: int, valid_from: int, changes: dict | None = None,
                 sender: str = "operator") -> bytes:
        return self.tx(trading.RULE_SET, trading.rule_set_body(name, version, valid_from, rules.make(name, changes)),
                       sender)


class Area:
    """One ledger of such a world, block after block; verdicts as text."""

    def __init__(self, world: MarketWorld, folder: Path):
        self.world, self.folder = world, folder
        self.ledger = Ledger.open(folder, world.genesis)
        self.outcome: Outcome | None = None

    def block(self, time_s: int, *items: bytes) -> list[str]:
        """Executes one block of that time."""
        stand = self.ledger.stand()
        self.outcome = self.ledger.execute(stand.n + 1, ("trade", 0, time_s, items))
        self.check_money()
        return [verdict(code) for code in self.outcome.results]

    def begin(self, time_s: int = START_S + 60, changes: dict[str, dict] | None = None) -> None:
        """All four rule sets, in force from the next block on, and that block: the calendar runs."""
        height = self.ledger.height() + 2
        assert self.block(time_s, *(self.world.rule_set(name, 1, height, (changes or {}).get(name))
                                    for name in rules.NAMES)) == ["accepted"] * 4
        assert self.block(time_s) == []

    def restart(self) -> None:
        self.ledger.close()
        self.ledger = Ledger.open(self.folder)

    def account(self, name: str) -> AccountRecord:
        return accounts.load(self.state, key(name).kid)

    def available(self, name: str) -> int:
        return accounts.available_mc(self.account(name))

    def entries(self, name: str) -> list[EntryRecord]:
        kid = key(name).kid
        found = [self.ledger.state_value(records.entry_key(kid, number))
                 for number in range(1, self.account(name).entries + 1)]
        assert None not in found and self.ledger.state_value(records.entry_key(kid, len(found) + 1)) is None
        return [records.decode_entry(data) for data in found if data]

    def clearing(self, slot_s: int = FIRST_S) -> ClearingRecord:
        data = self.ledger.state_value(records.clearing_key(slot_s))
        assert data is not None
        return records.decode_clearing(data)

    def calendar(self) -> CalendarRecord | None:
        data = self.ledger.state_value(records.CALENDAR_KEY)
        return None if data is None else records.decode_calendar(data)

    @property
    def state(self) -> Draft:
        return Draft(self.ledger._tree)

    def check_money(self) -> None:
        """Money is neither made nor lost; what is held or deposited is never negative; entries tell every change."""
        found = [records.decode_account(data) for _, data in self.ledger._tree.with_prefix(b"account/")]
        assert sum(account.balance_mc for account in found) == accounts.minted_mc(self.state)
        assert all(account.held_mc >= 0 and account.deposit_mc >= 0 for account in found)

    def check_entries(self) -> None:
        """Every balance is the sum of its numbered entries."""
        for _, data in self.ledger._tree.with_prefix(b"account/"):
            account = records.decode_account(data)
            rows = [self.ledger.state_value(records.entry_key(account.address, number))
                    for number in range(1, account.entries + 1)]
            assert sum(records.decode_entry(row).amount_mc for row in rows if row) == account.balance_mc


@contextmanager
def area_of(folder: Path, owners: int = 3, money_mc: int = MONEY_MC, parameters: dict[str, int] | None = None,
            **changes: dict) -> Iterator[Area]:
    """An area whose calendar runs from START_S + 60 on; changes: of the rule sets, by name."""
    area = Area(MarketWorld(owners, money_mc, parameters), folder)
    try:
        area.begin(changes=changes)
        yield area
    finally:
        area.ledger.close()


def nonce_of(name: str) -> bytes:
    return key(name).kid * 2


def order_id(item: bytes) -> bytes:
    """The id of a signed order, from its bytes alone."""
    return hashlib.sha256(cose.parse(item).payload).digest()


def refused(area: Area, time_s: int, items: Sequence[tuple[bytes, str]]) -> None:
    """Each of these is refused for its reason, one block each, and nothing but sequences changes."""
    for item, reason in items:
        before = {k: v for k, v in area.ledger._tree.items() if not k.startswith(b"sequence/")}
        assert area.block(time_s, item) == [reason], reason
        after = {k: v for k, v in area.ledger._tree.items() if not k.startswith(b"sequence/")}
        assert after == before, reason
