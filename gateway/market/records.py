"""Makes the bytes of the market's part of the replicated state: keys and records; and reads them strictly.

Money in mc (10^-5 of the currency unit), signed only where a field says so; prices in mc per kWh; energy in Wh; times
in Unix seconds (UTC), a slot is named by its start. Records are CBOR arrays in the order of their fields; keys begin
with the record's name, so that one bucket of the state and its path prove an entry (firmware/wire/state.py).

What is numbered without a gap proves completeness: an account's `entries` counts every change of its balance, so the
difference of two of its records is the sum of the entries between them, and none can be left out (market.md, Bill).
"""

import struct
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

from firmware.wire import cbor
from firmware.wire.shape import check_fields, check_list

CALENDAR_KEY = b"calendar"
GRID_KEY = b"role/grid"  # unrevoked kids of role grid in the order of their enrolment (CBOR list); the first is the
# area's grid account. The last one stays when it is revoked: a slot's sums still need an account.
LEAVING_KEY = b"leaving"  # [[kid, slot], ...]: whose deposit comes back when all slots before `slot` are final
FORMER_KEY = b"former"  # [[kid, point, slot], ...]: who had a point before, whose slots before `slot` are not final yet
MINTED_KEY = b"minted"  # genesis balances and top-ups less withdrawals, mc (CBOR integer): the sum of all balances
POINTS_KEY = b"points"  # every point of the area, rising (CBOR list)
ACCOUNT = b"account/"  # and the kid
CLEARING = b"clearing/"  # and the slot: their keys rise with time
SHARDS = 64  # of a slot's orders: a record stays small when a thousand orders come for one slot


class AccountRecord(NamedTuple):
    """An account: {address, balance, credit} first (004 eq. 7), buying and selling apart (000).

    Credit is a running mean of scores in thousandths of a point: sum // count. deposit and held are parts of the
    balance that cannot be spent; held covers open orders and bids, and purchases that are not settled yet. spent and
    earned count what trades, supply, balancing and their corrections have moved, each amount on its side.
    """

    address: bytes
    balance_mc: int
    buyer_sum: int
    buyer_count: int
    seller_sum: int
    seller_count: int
    deposit_mc: int
    held_mc: int
    entries: int
    spent_mc: int
    earned_mc: int


_ACCOUNT_KINDS = ("b8", "i", "u", "u", "u", "u", "u", "u", "u", "u", "u")


class EntryRecord(NamedTuple):
    """One change of a balance. amount_mc is signed, seen from the account."""

    number: int
    kind: int
    amount_mc: int
    time_s: int
    height: int
    slot_s: int | None
    point: int | None
    trade: int | None
    used_wh: int | None
    generated_wh: int | None
    matched_wh: int | None
    price: int | None
    reference: str


_ENTRY_KINDS = ("u", "u", "i", "u", "u", "u?", "u?", "u?", "u?", "u?", "u?", "u?", "t")
# DEBT: it went with a point to its new owner (market.md: a point that left in debt comes back in debt)
TOP_UP, WITHDRAW, FORFEIT, TRADE, SUPPLY, BALANCE, CORRECTION, DEBT = range(8)
ENTRY_NAMES = ("top-up", "withdraw", "forfeit", "trade", "supply", "balance", "correction", "debt")


class OpenOrder(NamedTuple):
    """An order or bid that is not cleared yet, in its owner's list (open/<kid>); a bid has scale, flow and form 0."""

    slot_s: int
    scale: int
    flow: int
    form: int
    side: int
    point: int
    id: bytes


_OPEN_KINDS = ("u", "u", "u", "u", "u", "u", "b32")


class OrderRecord(NamedTuple):
    """An order of a slot; id: SHA-256 of its payload."""

    id: bytes
    owner: bytes
    point: int
    scale: int
    side: int
    flow: int
    form: int
    price: int
    wh: int
    height: int
    held_mc: int


_ORDER_KINDS = ("b32", "b8", "u", "u", "u", "u", "u", "u", "u", "u", "u")


class BidRecord(NamedTuple):
    """A sealed bid: price, wh and nonce are null until it is revealed."""

    id: bytes
    owner: bytes
    point: int
    commitment: bytes
    deposit_mc: int
    height: int
    price: int | None
    wh: int | None
    nonce: bytes | None
    held_mc: int


_BID_KINDS = ("b32", "b8", "u", "b32", "u", "u", "u?", "u?", "b?", "u")


class CalendarRecord(NamedTuple):
    """The next slot of each kind of duty; every slot before it is done."""

    clear_s: int
    provisional_s: int
    final_s: int


class ClearingRecord(NamedTuple):
    """What a slot's clearing made, and the rule versions that hold for this slot for ever."""

    slot_s: int
    height: int
    time_s: int
    beacon: bytes
    market_version: int
    tariff_version: int
    vee_version: int
    credit_version: int
    books: "list[BookResult]"
    trades: "list[TradeRecord]"


_CLEARING_KINDS = ("u", "u", "u", "b32", "u", "u", "u", "u", "l", "l")


class BookResult(NamedTuple):
    """What became of one book. refused: [[order id, reason number], ...]."""

    scale: int
    flow: int
    form: int
    reference_price: int | None
    price: int | None
    wh: int
    orders: int
    refused: list[list]


_BOOK_KINDS = ("u", "u", "u", "u?", "u?", "u", "u", "l")


class TradeRecord(NamedTuple):
    """number: place in the slot's list, from 0; (slot, number) is the trade's name."""

    number: int
    scale: int
    flow: int
    form: int
    buyer: bytes
    buyer_point: int
    seller: bytes
    seller_point: int
    price: int
    wh: int
    buy_id: bytes
    sell_id: bytes


_TRADE_KINDS = ("u", "u", "u", "u", "b8", "u", "b8", "u", "u", "u", "b32", "b32")


class MeterRecord(NamedTuple):
    """A point's registers made comparable over meter epochs; last_*: the newest reading that may move energy (totals),
    where it is not the chain's."""

    epochs: "list[Epoch]"
    last_ms: int
    last_import_wh: int | None
    last_export_wh: int | None
    seal_kid: bytes
    seal_height: int


_METER_KINDS = ("l", "u", "u?", "u?", "b8", "u")


class Epoch(NamedTuple):
    """total = base + (register - start) * ratio_num // ratio_den."""

    number: int
    start_import_wh: int | None
    start_export_wh: int | None
    base_import_wh: int
    base_export_wh: int
    ratio_num: int
    ratio_den: int


_EPOCH_KINDS = ("u", "u?", "u?", "u", "u", "u", "u")


class BorderRecord(NamedTuple):
    """Totals (over epochs, ratio applied) at the start of a slot, and the seals that they come from.

    seals: [[kid, seal height, last_ms], ...]: one, or two interpolated between.
    """

    import_wh: int | None
    export_wh: int | None
    quality: int
    seals: list[list]


_BORDER_KINDS = ("u?", "u?", "u", "l")
MEASURED, INTERPOLATED, SUBSTITUTED, MISSING = range(4)
QUALITY_NAMES = ("measured", "interpolated", "substituted", "missing")


class SlotRecord(NamedTuple):
    """Every point's energy in a slot. status: PROVISIONAL or FINAL."""

    slot_s: int
    status: int
    height: int
    time_s: int
    energies: "list[Energy]"


_SLOT_KINDS = ("u", "u", "u", "u", "l")


class Energy(NamedTuple):
    """One point's energy in a slot."""

    point: int
    import_wh: int | None
    export_wh: int | None
    quality: int


_ENERGY_KINDS = ("u", "u?", "u?", "u")
PROVISIONAL, FINAL = 1, 2


class RuleVersion(NamedTuple):
    """A rule set's version; in force at a height is the last with valid_from <= height."""

    version: int
    valid_from: int
    hash: bytes
    parameters: list


_RULE_KINDS = ("u", "u", "b32", "l")
Record = TypeVar("Record", bound=tuple)


def account_key(kid: bytes) -> bytes:
    return ACCOUNT + bytes(kid)


def left_key(point: int) -> bytes:
    """Of a point that has left the market: the first slot in which nothing of it can be traded (CBOR integer)."""
    return b"left/" + struct.pack(">I", point)


def signs_key(kid: bytes) -> bytes:
    """The account that a kid signs for since it replaced another key (8 bytes); no entry where it is its own."""
    return b"signs/" + bytes(kid)


def entry_key(kid: bytes, number: int) -> bytes:
    return b"entry/" + bytes(kid) + struct.pack(">I", number)


def open_key(kid: bytes) -> bytes:
    """The orders and bids of an owner that are not cleared yet (list of OpenOrder)."""
    return b"open/" + bytes(kid)


def owner_key(kid: bytes) -> bytes:
    """The points of an owner (CBOR list, rising)."""
    return b"owner/" + bytes(kid)


def orders_key(slot_s: int, shard: int) -> bytes:
    """One shard (first byte of the order's id modulo SHARDS) of a slot's orders (list of OrderRecord)."""
    return b"orders/" + struct.pack(">QB", slot_s, shard)


def bids_key(slot_s: int, shard: int) -> bytes:
    """One shard (first byte of the owner's kid modulo SHARDS) of a slot's sealed bids (list of BidRecord)."""
    return b"bids/" + struct.pack(">QB", slot_s, shard)


def clearing_key(slot_s: int) -> bytes:
    return CLEARING + struct.pack(">Q", slot_s)


def meter_key(point: int) -> bytes:
    return b"meter/" + struct.pack(">I", point)


def border_key(point: int, slot_s: int) -> bytes:
    return b"border/" + struct.pack(">IQ", point, slot_s)


def slot_key(slot_s: int) -> bytes:
    return b"slot/" + struct.pack(">Q", slot_s)


def rules_key(name: str) -> bytes:
    return b"rules/" + name.encode()


def consent_key(digest: bytes) -> bytes:
    """Who of two signers has already sent this body (SHA-256 of CBOR [type, body])."""
    return b"consent/" + bytes(digest)


def consents_key(kid: bytes) -> bytes:
    """The consent keys that a sender's bodies wait under (CBOR list, oldest first)."""
    return b"consents/" + bytes(kid)


def encode(record: tuple) -> bytes:
    """Returns the CBOR of a record; lists inside may hold records."""
    return cbor.encode([_plain(field) for field in record])


def encode_list(records: Iterable[tuple]) -> bytes:
    """Returns the CBOR of a list of records."""
    return cbor.encode([[_plain(field) for field in record] for record in records])


def _plain(field: Any) -> Any:
    if isinstance(field, (list, tuple)):
        return [_plain(item) for item in field]
    return field


def decode_account(data: bytes) -> AccountRecord:
    return AccountRecord(*_fields(data, _ACCOUNT_KINDS))


def decode_entry(data: bytes) -> EntryRecord:
    return EntryRecord(*_fields(data, _ENTRY_KINDS))


def decode_open(data: bytes) -> list[OpenOrder]:
    return _rows(cbor.decode(data), OpenOrder, _OPEN_KINDS)


def decode_orders(data: bytes) -> list[OrderRecord]:
    return _rows(cbor.decode(data), OrderRecord, _ORDER_KINDS)


def decode_bids(data: bytes) -> list[BidRecord]:
    return _rows(cbor.decode(data), BidRecord, _BID_KINDS)


def decode_calendar(data: bytes) -> CalendarRecord:
    return CalendarRecord(*_fields(data, ("u", "u", "u")))


def decode_clearing(data: bytes) -> ClearingRecord:
    fields = _fields(data, _CLEARING_KINDS)
    fields[8] = _rows(fields[8], BookResult, _BOOK_KINDS)
    fields[9] = _rows(fields[9], TradeRecord, _TRADE_KINDS)
    return ClearingRecord(*fields)


def decode_meter(data: bytes) -> MeterRecord:
    fields = _fields(data, _METER_KINDS)
    fields[0] = _rows(fields[0], Epoch, _EPOCH_KINDS)
    return MeterRecord(*fields)


def decode_border(data: bytes) -> BorderRecord:
    fields = _fields(data, _BORDER_KINDS)
    for row in fields[3]:
        check_fields(row, ("b8", "u", "u"))
    return BorderRecord(*fields)


def decode_slot(data: bytes) -> SlotRecord:
    fields = _fields(data, _SLOT_KINDS)
    fields[4] = _rows(fields[4], Energy, _ENERGY_KINDS)
    return SlotRecord(*fields)


def decode_rules(data: bytes) -> list[RuleVersion]:
    return _rows(cbor.decode(data), RuleVersion, _RULE_KINDS)


def _fields(data: bytes, kinds: Sequence[str]) -> list[Any]:
    fields = cbor.decode(data)
    check_fields(fields, kinds)
    return fields


def _rows(rows: Any, record: type[Record], kinds: Sequence[str]) -> list[Record]:
    check_list(rows, "l")
    for row in rows:
        check_fields(row, kinds)
    return [record(*row) for row in rows]
