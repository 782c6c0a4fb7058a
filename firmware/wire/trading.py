"""Makes the bodies of the market's transactions (types 3 and 6 to 13) from named fields; reads them strictly.

Money in mc, prices in mc per kWh, energy in Wh, a slot by its start in Unix seconds. Only shapes are checked here; what
a rule set allows is decided at execution.
"""

import hashlib
from collections import namedtuple

from firmware.wire import cbor
from firmware.wire.errors import check
from firmware.wire.shape import check_fields, is_kind

LEAVE = 3
DEPOSIT, TOP_UP, WITHDRAW, RULE_SET, ORDER, CANCEL, COMMIT, REVEAL = range(6, 14)
AMOUNT_MC = 10**15  # of one deposit, top-up or withdrawal: ten thousand million of the currency unit
SLOT_S = 1 << 40  # a slot begins before: whatever is computed with it stays far inside 64 bits
HEIGHT = 1 << 32  # a height has four bytes in a header
SCALES = ("day-ahead", "intraday", "real time")
SIDES = ("buy", "sell")
FLOWS = ("GU", "GC", "CU", "CG")  # of 000: G microgrid, U user, C the grid
FORMS = 256  # energy forms of an area
NONCE_BYTES = 16

Money = namedtuple("Money", ("account", "amount_mc", "reference"))
RuleSet = namedtuple("RuleSet", ("name", "version", "valid_from", "hash", "parameters"))
Order = namedtuple("Order", ("slot_s", "scale", "side", "flow", "form", "price", "wh", "point"))
Reveal = namedtuple("Reveal", ("slot_s", "price", "wh", "nonce"))


def leave_body(who):
    """Returns the body of type 3: who leaves the market, a kid (8 bytes: its account with all points) or a point."""
    return [who]


def decode_leave_body(body):
    """Returns the kid (bytes) or the point (integer) of type 3; Refused `malformed`."""
    check_fields(body, ("*",))
    is_point = is_kind(body[0], "u") and body[0] < 0x100000000
    check(is_point or is_kind(body[0], "b8"), "malformed", "a kid or a point", body[0])
    return body[0]


def deposit_body(account, amount_mc):
    """Returns the body of type 6: so much of an account's balance becomes its deposit."""
    return [bytes(account), amount_mc]


def money_body(account, amount_mc, reference):
    """Returns the body of types 7 and 8: top-up and withdrawal; the reference (text) makes it unique."""
    return [bytes(account), amount_mc, reference]


def decode_deposit_body(body):
    """Returns the Money of type 6, its reference empty; Refused `malformed`."""
    check_fields(body, ("b8", "u"))
    check(0 < body[1] <= AMOUNT_MC, "malformed", AMOUNT_MC, body[1])
    return Money(body[0], body[1], "")


def decode_money_body(body):
    """Returns the Money of types 7 and 8; Refused `malformed`."""
    check_fields(body, ("b8", "u", "t"))
    check(0 < body[1] <= AMOUNT_MC, "malformed", AMOUNT_MC, body[1])
    return Money(*body)


def rule_set_body(name, version, valid_from, parameters):
    """Returns the body of type 9; parameters: a list, as the rule set's makers give it."""
    parameters = list(parameters)
    return [name, version, valid_from, hashlib.sha256(cbor.encode(parameters)).digest(), parameters]


def decode_rule_set_body(body):
    """Returns the RuleSet; Refused `malformed`, `wrong_digest`. What the parameters mean is not looked at."""
    check_fields(body, ("t", "u", "u", "b32", "l"))
    check(body[2] < HEIGHT, "malformed", HEIGHT, body[2])
    found = hashlib.sha256(cbor.encode(body[4])).digest()
    check(found == body[3], "wrong_digest", body[3], found)
    return RuleSet(*body)


def order_body(order):
    """Returns the body of type 10 from an Order."""
    return list(order)


def decode_order_body(body):
    """Returns the Order; Refused `malformed`."""
    check_fields(body, ("u", "u", "u", "u", "u", "u", "u", "u"))
    order = Order(*body)
    check(order.slot_s < SLOT_S, "malformed", SLOT_S, order.slot_s)
    check(order.scale < len(SCALES), "malformed", "a scale", order.scale)
    check(order.side < len(SIDES), "malformed", "a side", order.side)
    check(order.flow < len(FLOWS), "malformed", "a flow", order.flow)
    check(order.form < FORMS, "malformed", FORMS, order.form)
    check(order.point < 0x100000000, "malformed", "32 bits", order.point)
    return order


def cancel_body(order_id):
    """Returns the body of type 11: the hash of the order's payload."""
    return [bytes(order_id)]


def decode_cancel_body(body):
    """Returns the order's id; Refused `malformed`."""
    check_fields(body, ("b32",))
    return body[0]


def commit_body(slot_s, commitment):
    """Returns the body of type 12; how the hash is made: gateway/market/commitment.py."""
    return [slot_s, bytes(commitment)]


def decode_commit_body(body):
    """Returns (slot, hash); Refused `malformed`."""
    check_fields(body, ("u", "b32"))
    check(body[0] < SLOT_S, "malformed", SLOT_S, body[0])
    return body[0], body[1]


def reveal_body(slot_s, price, wh, nonce):
    """Returns the body of type 13."""
    return [slot_s, price, wh, bytes(nonce)]


def decode_reveal_body(body):
    """Returns the Reveal; Refused `malformed`."""
    check_fields(body, ("u", "u", "u", "b16"))
    check(body[0] < SLOT_S, "malformed", SLOT_S, body[0])
    return Reveal(*body)
