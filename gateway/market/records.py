"""Makes the bytes of the market's part of the replicated state: keys and records; and reads them strictly.

Money in mc (10^-5 of the currency unit), signed only where a field says so; prices in mc per kWh; energy in Wh; times
in Unix seconds (UTC), a slot is named by its start. Records are CBOR arrays in the order of their fields; keys begin
with the record's name, so that one bucket of the state and its path prove an entry (firmware/wire/state.py).

What is numbered without a gap proves completeness: an account's `entries` counts every change of its balance, so the
difference of two of its records is the sum of the entries between them, and none can be left out (market.md, Bill).
"""

import struct
from collections import namedtuple

from firmware.wire import cbor
from firmware.wire.shape import check_fields, check_list

CALENDAR_KEY = b"calendar"
GRID_KEY = b"role/grid"  # kid of the area's grid account
POINTS_KEY = b"points"  # every point of the area, rising (CBOR list)
SHARDS = 64  # of a slot's orders: a record stays small when a thousand orders come for one slot

# {address, balance, credit} first (004 eq. 7). Credit is a running mean of scores in thousandths of a point: sum //
# count. deposit and held are parts of the balance that cannot be spent; held covers open orders and purchases that are
# not settled yet.
AccountRecord = namedtuple("AccountRecord", (
    "address", "balance_mc", "buyer_sum", "buyer_count", "seller_sum", "seller_count", "deposit_mc", "held_mc",
    "entries", "spent_mc", "earned_mc"))
_ACCOUNT_KINDS = ("b8", "i", "u", "u", "u", "u", "u", "u", "u", "u", "u")

# One change of a balance. amount_mc is signed, seen from the account.
EntryRecord = namedtuple("EntryRecord", (
    "number", "kind", "amount_mc", "time_s", "height", "slot_s", "point", "trade", "used_wh", "generated_wh",
    "matched_wh", "price", "reference"))
_ENTRY_KINDS = ("u", "u", "i", "u", "u", "u?", "u?", "u?", "u?", "u?", "u?", "u?", "t")
TOP_UP, WITHDRAW, FORFEIT, TRADE, SUPPLY, BALANCE, CORRECTION = range(7)
ENTRY_NAMES = ("top-up", "withdraw", "forfeit", "trade", "supply", "balance", "correction")

OpenOrder = namedtuple("OpenOrder", ("slot_s", "scale", "flow", "form", "side", "point", "id"))  # in open/<kid>
_OPEN_KINDS = ("u", "u", "u", "u", "u", "u", "b32")

OrderRecord = namedtuple("OrderRecord", (
    "id", "owner", "point", "scale", "side", "flow", "form", "price", "wh", "height", "held_mc"))
_ORDER_KINDS = ("b32", "b8", "u", "u", "u", "u", "u", "u", "u", "u", "u")

# A sealed bid: price, wh and nonce are null until it is revealed.
BidRecord = namedtuple("BidRecord", (
    "id", "owner", "point", "commitment", "deposit_mc", "height", "price", "wh", "nonce", "held_mc"))
_BID_KINDS = ("b32", "b8", "u", "b32", "u", "u", "u?", "u?", "b?", "u")

# The next slot of each kind of duty; every slot before it is done.
CalendarRecord = namedtuple("CalendarRecord", ("clear_s", "provisional_s", "final_s"))

# What a slot's clearing made, and the rule versions that hold for this slot for ever.
ClearingRecord = namedtuple("ClearingRecord", (
    "slot_s", "height", "time_s", "beacon", "market_version", "tariff_version", "vee_version", "credit_version",
    "books", "trades"))
_CLEARING_KINDS = ("u", "u", "u", "b32", "u", "u", "u", "u", "l", "l")
BookResult = namedtuple("BookResult", ("scale", "flow", "form", "reference_price", "price", "wh", "orders", "refused"))
_BOOK_KINDS = ("u", "u", "u", "u?", "u?", "u", "u", "l")  # refused: [[order id, reason number], ...]
TradeRecord = namedtuple("TradeRecord", (
    "number", "scale", "flow", "form", "buyer", "buyer_point", "seller", "seller_point", "price", "wh",
    "buy_id", "sell_id"))  # number: place in the slot's list, from 0; (slot, number) is the trade's name
_TRADE_KINDS = ("u", "u", "u", "u", "b8", "u", "b8", "u", "u", "u", "b32", "b32")

# A point's registers made comparable over meter epochs; last_*: the newest reading that may move energy.
MeterRecord = namedtuple("MeterRecord", ("epochs", "last_ms", "last_import_wh", "last_export_wh", "seal_kid",
                                         "seal_height"))
_METER_KINDS = ("l", "u", "u?", "u?", "b8", "u")
Epoch = namedtuple("Epoch", ("number", "start_import_wh", "start_export_wh", "base_import_wh", "base_export_wh",
                             "ratio_num", "ratio_den"))  # total = base + (register - start) * num // den
_EPOCH_KINDS = ("u", "u?", "u?", "u", "u", "u", "u")

# Totals (over epochs, ratio applied) at the start of a slot, and the seals that they come from.
BorderRecord = namedtuple("BorderRecord", ("import_wh", "export_wh", "quality", "seals"))
_BORDER_KINDS = ("u?", "u?", "u", "l")  # seals: [[kid, seal height, last_ms], ...]: one, or two interpolated between
MEASURED, INTERPOLATED, SUBSTITUTED, MISSING = range(4)
QUALITY_NAMES = ("measured", "interpolated", "substituted", "missing")

# Every point's energy in a slot. status: PROVISIONAL or FINAL.
SlotRecord = namedtuple("SlotRecord", ("slot_s", "status", "height", "time_s", "energies"))
_SLOT_KINDS = ("u", "u", "u", "u", "l")
Energy = namedtuple("Energy", ("point", "import_wh", "export_wh", "quality"))
_ENERGY_KINDS = ("u", "u?", "u?", "u")
PROVISIONAL, FINAL = 1, 2

# A rule set's versions, rising; in force at a height is the last with valid_from <= height.
RuleVersion = namedtuple("RuleVersion", ("version", "valid_from", "hash", "parameters"))
_RULE_KINDS = ("u", "u", "b32", "l")


def account_key(kid):
    return b"account/" + bytes(kid)


def entry_key(kid, number):
    return b"entry/" + bytes(kid) + struct.pack(">I", number)


def open_key(kid):
    """The orders and bids of an owner that are not cleared yet (list of OpenOrder)."""
    return b"open/" + bytes(kid)


def owner_key(kid):
    """The points of an owner (CBOR list, rising)."""
    return b"owner/" + bytes(kid)


def orders_key(slot_s, shard):
    """One shard (first byte of the order's id modulo SHARDS) of a slot's orders (list of OrderRecord)."""
    return b"orders/" + struct.pack(">QB", slot_s, shard)


def bids_key(slot_s, shard):
    """One shard (first byte of the owner's kid modulo SHARDS) of a slot's sealed bids (list of BidRecord)."""
    return b"bids/" + struct.pack(">QB", slot_s, shard)


def clearing_key(slot_s):
    return b"clearing/" + struct.pack(">Q", slot_s)


def meter_key(point):
    return b"meter/" + struct.pack(">I", point)


def border_key(point, slot_s):
    return b"border/" + struct.pack(">IQ", point, slot_s)


def slot_key(slot_s):
    return b"slot/" + struct.pack(">Q", slot_s)


def rules_key(name):
    return b"rules/" + name.encode()


def consent_key(digest):
    """Who of two signers has already sent this body (SHA-256 of CBOR [type, body])."""
    return b"consent/" + bytes(digest)


def encode(record):
    """Returns the CBOR of a record; lists inside may hold records."""
    return cbor.encode([_plain(field) for field in record])


def encode_list(records):
    """Returns the CBOR of a list of records."""
    return cbor.encode([[_plain(field) for field in record] for record in records])


def _plain(field):
    if isinstance(field, (list, tuple)):
        return [_plain(item) for item in field]
    return field


def decode_account(data):
    return AccountRecord(*_fields(data, _ACCOUNT_KINDS))


def decode_entry(data):
    return EntryRecord(*_fields(data, _ENTRY_KINDS))


def decode_open(data):
    return _rows(cbor.decode(data), OpenOrder, _OPEN_KINDS)


def decode_orders(data):
    return _rows(cbor.decode(data), OrderRecord, _ORDER_KINDS)


def decode_bids(data):
    return _rows(cbor.decode(data), BidRecord, _BID_KINDS)


def decode_calendar(data):
    return CalendarRecord(*_fields(data, ("u", "u", "u")))


def decode_clearing(data):
    fields = _fields(data, _CLEARING_KINDS)
    fields[8] = _rows(fields[8], BookResult, _BOOK_KINDS)
    fields[9] = _rows(fields[9], TradeRecord, _TRADE_KINDS)
    return ClearingRecord(*fields)


def decode_meter(data):
    fields = _fields(data, _METER_KINDS)
    fields[0] = _rows(fields[0], Epoch, _EPOCH_KINDS)
    return MeterRecord(*fields)


def decode_border(data):
    fields = _fields(data, _BORDER_KINDS)
    for row in fields[3]:
        check_fields(row, ("b8", "u", "u"))
    return BorderRecord(*fields)


def decode_slot(data):
    fields = _fields(data, _SLOT_KINDS)
    fields[4] = _rows(fields[4], Energy, _ENERGY_KINDS)
    return SlotRecord(*fields)


def decode_rules(data):
    return _rows(cbor.decode(data), RuleVersion, _RULE_KINDS)


def _fields(data, kinds):
    fields = cbor.decode(data)
    check_fields(fields, kinds)
    return fields


def _rows(rows, record, kinds):
    check_list(rows, "l")
    for row in rows:
        check_fields(row, kinds)
    return [record(*row) for row in rows]
