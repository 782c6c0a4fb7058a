"""Makes changes of an account that its owner and the area's grid want both: deposit, top-up, withdraw (types 6 to 8).

The ledger's money is bookkeeping: what a top-up's or withdrawal's reference names happens outside, at the grid's bank.
The grid's own account has one owner who is also the grid, so there one signature is both.
"""

from firmware.wire import trading
from firmware.wire.errors import check
from firmware.wire.trading import Money
from firmware.wire.transaction import Transaction
from gateway.contracts import accounts, consents
from gateway.contracts.context import BlockContext, State
from gateway.market.records import TOP_UP, WITHDRAW


def deposit(store: State, context: BlockContext, found: Transaction) -> None:
    """Type 6: so much of the balance becomes the account's deposit."""
    body = trading.decode_deposit_body(found.body)
    if _is_agreed(store, found, body):
        accounts.check_available(store, body.account, body.amount_mc)
        consents.drop(store, found)
        account = accounts.load(store, body.account)
        accounts.put(store, account._replace(deposit_mc=account.deposit_mc + body.amount_mc))


def top_up(store: State, context: BlockContext, found: Transaction) -> None:
    """Type 7: money comes in. Refused `oversize` where a balance would pass what one may hold."""
    body = trading.decode_money_body(found.body)
    if _is_agreed(store, found, body):
        balance_mc = accounts.load(store, body.account).balance_mc + body.amount_mc
        check(balance_mc <= accounts.BALANCE_MC, "oversize", accounts.BALANCE_MC, balance_mc)
        consents.drop(store, found)
        accounts.post(store, context, body.account, TOP_UP, body.amount_mc, reference=body.reference)


def withdraw(store: State, context: BlockContext, found: Transaction) -> None:
    """Type 8: money goes out, never more than is available."""
    body = trading.decode_money_body(found.body)
    if _is_agreed(store, found, body):
        accounts.check_available(store, body.account, body.amount_mc)
        consents.drop(store, found)
        accounts.post(store, context, body.account, WITHDRAW, -body.amount_mc, reference=body.reference)


def _is_agreed(store: State, found: Transaction, body: Money) -> bool:
    """Tells whether this is the second will; the first one is noted. Refused `not_permitted` for a third party,
    `duplicate` for the same one again."""
    sides, side = [body.account, accounts.grid(store)], accounts.of(store, found.sender)
    check(side in sides, "not_permitted", sides, side)
    first = consents.first_of(store, found)
    check(first != side, "duplicate", "the other side", side)
    if {first, side} >= set(sides):
        return True
    consents.note(store, found, side)
    return False
