"""Makes the accounts of the area: balances, what of them is held, and one numbered entry for every change of a balance.

Theory. Money comes into the state by genesis balances and top-ups only, and leaves it by withdrawals; `MINTED_KEY`
counts it. Everything else moves it between accounts: the sum of all balances is what was minted, after every block.

    available = balance - deposit - held

may fall below zero (a settlement does not ask), and then nothing can be ordered: a debt is paid first. An account
exists from its first entry on; one that does not exist reads as empty. Its address is its owner's first kid and stays
when the operator replaces the owner's key (transactions.md 5): money, points and debts stay where they are.
"""

from firmware.wire import cbor
from firmware.wire.errors import check
from gateway.contracts.context import BlockContext, State
from gateway.market import credit as scores
from gateway.market import records
from gateway.market.records import AccountRecord, EntryRecord

# Nothing is added to a balance beyond this: sums of what an area trades in centuries, and far inside 64 bits.
BALANCE_MC = 10**18
_OUTSIDE = (records.TOP_UP, records.WITHDRAW)
_TURNOVER = (records.TRADE, records.SUPPLY, records.BALANCE, records.CORRECTION)


def load(store: State, kid: bytes) -> AccountRecord:
    """The account of a kid; an empty one where there is none."""
    return find(store, kid) or AccountRecord(bytes(kid), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)


def find(store: State, kid: bytes) -> AccountRecord | None:
    """The account of a kid, or None."""
    data = store.get(records.account_key(kid))
    return None if data is None else records.decode_account(data)


def of(store: State, kid: bytes) -> bytes:
    """The address of the account that a key signs for: its own kid, or the first key's that it came in the place of."""
    return store.get(records.signs_key(kid)) or bytes(kid)


def available_mc(account: AccountRecord) -> int:
    """What can be ordered or withdrawn; negative in debt."""
    return account.balance_mc - account.deposit_mc - account.held_mc


def credit(account: AccountRecord, is_buyer: bool, prior: int) -> int:
    """The running mean of its scores, thousandths of a point; `prior` (rules.Credit) before the first."""
    return scores.mean(_scores(account, is_buyer), prior)


def grid(store: State) -> bytes | None:
    """The kid of the area's grid account, or None before one is enrolled."""
    data = store.get(records.GRID_KEY)
    return None if data is None else cbor.decode(data)[0]


def minted_mc(store: State) -> int:
    """What came in and did not go out again: the sum of all balances."""
    data = store.get(records.MINTED_KEY)
    return 0 if data is None else cbor.decode(data)


def post(store: State, context: BlockContext, kid: bytes, kind: int, amount_mc: int, *, slot_s: int | None = None,
         point: int | None = None, trade: int | None = None, used_wh: int | None = None,
         generated_wh: int | None = None, matched_wh: int | None = None, price: int | None = None,
         reference: str = "") -> EntryRecord:
    """Changes a balance by `amount_mc` (signed, seen from the account) and adds the numbered entry that says why.

    Never refuses: whoever calls has checked what there is to check."""
    account = load(store, kid)
    entry = EntryRecord(account.entries + 1, kind, amount_mc, context.time_s, context.height, slot_s, point, trade,
                        used_wh, generated_wh, matched_wh, price, reference)
    account = account._replace(balance_mc=account.balance_mc + amount_mc, entries=entry.number)
    if kind in _TURNOVER and amount_mc < 0:
        account = account._replace(spent_mc=account.spent_mc - amount_mc)
    elif kind in _TURNOVER:
        account = account._replace(earned_mc=account.earned_mc + amount_mc)
    if kind in _OUTSIDE:
        store.put(records.MINTED_KEY, cbor.encode(minted_mc(store) + amount_mc))
    put(store, account)
    store.put(records.entry_key(kid, entry.number), records.encode(entry))
    return entry


def put(store: State, account: AccountRecord) -> None:
    """Writes an account's record; balances change by `post` alone."""
    store.put(records.account_key(account.address), records.encode(account))


def check_available(store: State, kid: bytes, amount_mc: int) -> None:
    """Refused `insufficient_funds` unless so much is available; with 0, unless there is no debt."""
    found = available_mc(load(store, kid))
    check(found >= amount_mc, "insufficient_funds", amount_mc, found)


def hold(store: State, kid: bytes, amount_mc: int) -> None:
    """Sets a part of the balance aside; ask `check_available` first."""
    if amount_mc:
        account = load(store, kid)
        put(store, account._replace(held_mc=account.held_mc + amount_mc))


def release(store: State, kid: bytes, amount_mc: int) -> None:
    """Gives back what `hold` has set aside."""
    if amount_mc:
        account = load(store, kid)
        assert account.held_mc >= amount_mc, (kid, account.held_mc, amount_mc)
        put(store, account._replace(held_mc=account.held_mc - amount_mc))


def score(store: State, kid: bytes, is_buyer: bool, points: int) -> None:
    """Adds a score (thousandths of a point) to the buying or the selling side of an account's credit."""
    account = load(store, kid)
    total, count = scores.add(_scores(account, is_buyer), points)
    account = (account._replace(buyer_sum=total, buyer_count=count) if is_buyer
               else account._replace(seller_sum=total, seller_count=count))
    put(store, account)


def _scores(account: AccountRecord, is_buyer: bool) -> scores.Credit:
    return scores.Credit(*((account.buyer_sum, account.buyer_count) if is_buyer
                           else (account.seller_sum, account.seller_count)))
