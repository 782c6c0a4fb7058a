"""Makes plain dicts of slots, settlements and accounts from the state's records: what pages, API and commands show.

`get` gives the value of a key of one state that stands still. Money in mc, prices in mc per kWh, energy in Wh, credit
in thousandths of a point, times in Unix seconds, all exact; keys and hashes in hex. What nobody knows is None.

A settlement is shown from the numbered entries themselves, not computed again: that its sum is 0 is found, not made.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from firmware.wire import cbor
from firmware.wire.reasons import REASONS
from firmware.wire.state import agent_key, decode_agent, decode_point, point_key
from firmware.wire.trading import FLOWS, SCALES
from gateway.market import records, rules
from gateway.market.amounts import amount_mc
from gateway.market.records import AccountRecord, ClearingRecord, EntryRecord, OrderRecord, SlotRecord, TradeRecord

Get = Callable[[bytes], bytes | None]

LOOKED = 4096  # entries looked at for one settlement: an account has a few of each slot, so years of them are too many
TRADED = 48  # slots looked back through for the newest trade: two days of hours
STATUS = {records.PROVISIONAL: "provisional", records.FINAL: "final"}
_SETTLING = (records.TRADE, records.SUPPLY, records.BALANCE, records.CORRECTION)


def market(get: Get, height: int, length_s: int, slot_s: int | None = None) -> dict[str, Any] | None:
    """What stands open for the next slot and what the last clearing made; or both of one slot, None where it has
    neither. traded_s: the newest slot with trades. height: of the newest block; length_s: of a slot."""
    calendar = _calendar(get)
    versions = {name: _in_force(get, name, height + 1) for name in rules.NAMES}
    present: rules.Market | None = _read("market", versions["market"])
    tariff: rules.Tariff | None = _read("tariff", versions["tariff"])
    opened = cleared = traded_s = None
    if calendar is not None and present is not None:
        asked_s = calendar.clear_s if slot_s is None else slot_s
        if asked_s >= calendar.clear_s and not asked_s % length_s:
            opened = _open(get, present, tariff, asked_s)
        cleared = _cleared(get, tariff, calendar.clear_s - length_s if slot_s is None else slot_s)
        traded_s = _traded_s(get, calendar.clear_s - length_s, length_s)
    if slot_s is not None and opened is None and cleared is None:
        return None
    return {"is_running": calendar is not None, "slot_length_s": length_s,
            "mechanism": present.mechanism if present else None,
            "rules": {name: version.version if version else None for name, version in versions.items()},
            "next_s": dict(zip(("clear", "provisional", "final"), calendar)) if calendar else None,
            "traded_s": traded_s, "open": opened, "cleared": cleared}


def settlement(get: Get, height: int, length_s: int, stored: Iterable[bytes], slot_s: int | None = None
               ) -> dict[str, Any] | None:
    """What became of a slot, of the last final one unless one is named; None where there is nothing yet.

    stored: the records of all accounts. bought and shortfall are None where a point had no purchase that could be
    settled, sold and surplus likewise. Corrections are counted in; is_whole is False where not all entries since the
    slot could be looked at."""
    calendar = _calendar(get)
    if calendar is None:
        return None
    slot_s = calendar.final_s - length_s if slot_s is None else slot_s
    data, cleared = get(records.slot_key(slot_s)), get(records.clearing_key(slot_s))
    if data is None or cleared is None:
        return None
    slot, clearing = records.decode_slot(data), records.decode_clearing(cleared)
    found = _lines(get, slot, stored) if slot.status == records.FINAL else None
    lines = found.lines if found else {}
    trades = [_settled(trade, lines) for trade in clearing.trades]
    points = [_point(get, energy, lines, trades) for energy in slot.energies]
    grid = next((line for (_, trade, point), line in lines.items() if trade is None and point is None), None)
    tariff = _read("tariff", _version(get, "tariff", clearing.tariff_version))
    return {
        "slot_s": slot_s, "offset_s": _offset_s(tariff or _present_tariff(get, height), slot_s),
        "slot_length_s": length_s, "status": STATUS[slot.status], "height": slot.height, "time_s": slot.time_s,
        "tariff": _tariff(tariff, slot_s), "points": points, "trades": trades,
        "grid": {"account": grid.kid.hex(), "amount_mc": grid.amount_mc} if grid else None,
        **{name: _total(points, name) for name in ("bought_wh", "sold_wh", "shortfall_wh", "surplus_wh")},
        "turnover_mc": sum(amount_mc(row["matched_wh"] or 0, row["price"]) for row in trades),
        "sum_mc": sum(line.amount_mc for line in lines.values()) if found else None,
        "corrections": found.corrections if found else [], "is_whole": found is None or found.is_whole}


def accounts(get: Get, height: int, stored: Iterable[bytes]) -> dict[str, Any]:
    """All accounts by their address, {address, balance, credit} first (004 eq. 7), buying and selling apart (000); and
    what was minted, which is the sum of their balances."""
    merits: rules.Credit | None = _read("credit", _in_force(get, "credit", height + 1))
    prior = merits.prior if merits else None
    minted, grid = get(records.MINTED_KEY), get(records.GRID_KEY)
    rows = [_account(get, records.decode_account(data), prior) for data in stored]
    return {"grid": cbor.decode(grid)[0].hex() if grid else None,
            "minted_mc": cbor.decode(minted) if minted else 0, "sum_mc": sum(row["balance_mc"] for row in rows),
            "accounts": rows}


# A slot before and at its gate.

def _open(get: Get, present: rules.Market, tariff: rules.Tariff | None, slot_s: int) -> dict[str, Any]:
    """Orders and bids of a slot that is not cleared. Under `blind` nobody's price is shown before the gate."""
    is_blind = present.mechanism == "blind"
    orders = [order for shard in range(records.SHARDS)
              for order in _rows(get(records.orders_key(slot_s, shard)), records.decode_orders)]
    bids = [bid for shard in range(records.SHARDS)
            for bid in _rows(get(records.bids_key(slot_s, shard)), records.decode_bids)]
    return {"slot_s": slot_s, "offset_s": _offset_s(tariff, slot_s), "tariff": _tariff(tariff, slot_s),
            "opens_s": slot_s - present.open_s, "gate_s": slot_s - present.gate_s,
            "commit_open_s": slot_s - present.commit_open_s if is_blind else None,
            "commit_close_s": slot_s - present.commit_close_s if is_blind else None,
            "orders": len(orders), "commits": len(bids), "reveals": sum(bid.nonce is not None for bid in bids),
            "books": [] if is_blind else _open_books(orders)}


def _open_books(orders: Sequence[OrderRecord]) -> list[dict[str, Any]]:
    books: dict[tuple[int, int, int], tuple[list[OrderRecord], list[OrderRecord]]] = {}
    for order in orders:
        books.setdefault((order.scale, order.flow, order.form), ([], []))[order.side].append(order)
    return [{**_book_name(*name), "buys": len(buys), "sells": len(sells),
             "buy_wh": sum(order.wh for order in buys), "sell_wh": sum(order.wh for order in sells),
             "best_buy": max((order.price for order in buys), default=None),
             "best_sell": min((order.price for order in sells), default=None)}
            for name, (buys, sells) in sorted(books.items())]


def _cleared(get: Get, present: rules.Tariff | None, slot_s: int) -> dict[str, Any] | None:
    data = get(records.clearing_key(slot_s)) if slot_s >= 0 else None
    if data is None:
        return None
    found = records.decode_clearing(data)
    used: rules.Market | None = _read("market", _version(get, "market", found.market_version))
    tariff: rules.Tariff | None = _read("tariff", _version(get, "tariff", found.tariff_version))
    return {"slot_s": slot_s, "offset_s": _offset_s(tariff or present, slot_s), "tariff": _tariff(tariff, slot_s),
            "height": found.height, "time_s": found.time_s, "beacon": found.beacon.hex(),
            "mechanism": used.mechanism if used else None, "rules": _versions(found),
            "orders": sum(book.orders for book in found.books), "wh": sum(trade.wh for trade in found.trades),
            "lowest": min((trade.price for trade in found.trades), default=None),
            "highest": max((trade.price for trade in found.trades), default=None),
            "books": [{**_book_name(book.scale, book.flow, book.form), "reference_price": book.reference_price,
                       "price": book.price, "wh": book.wh, "orders": book.orders,
                       "refused": [{"order": order.hex(), "reason": REASONS[number]} for order, number in book.refused]}
                      for book in found.books],
            "trades": [_trade(trade) for trade in found.trades]}


def _traded_s(get: Get, slot_s: int, length_s: int) -> int | None:
    """The newest slot with trades, if it is one of the last TRADED."""
    for at in range(TRADED):
        data = get(records.clearing_key(slot_s - at * length_s)) if slot_s >= at * length_s else None
        if data is None:
            return None
        if records.decode_clearing(data).trades:
            return slot_s - at * length_s
    return None


def _trade(trade: TradeRecord) -> dict[str, Any]:
    return {"number": trade.number, **_book_name(trade.scale, trade.flow, trade.form),
            "buyer": trade.buyer.hex(), "buyer_point": trade.buyer_point, "seller": trade.seller.hex(),
            "seller_point": trade.seller_point, "price": trade.price, "wh": trade.wh}


def _versions(found: ClearingRecord) -> dict[str, int]:
    return dict(zip(rules.NAMES, (found.market_version, found.tariff_version, found.vee_version,
                                  found.credit_version)))


def _book_name(scale: int, flow: int, form: int) -> dict[str, Any]:
    return {"scale": SCALES[scale], "flow": FLOWS[flow], "form": form}


# A slot after it.

class _Line:
    """An amount of a slot with all that corrected it; the energies are those of the newest entry."""

    def __init__(self, kid: bytes):
        self.kid, self.amount_mc = kid, 0
        self.entry: EntryRecord | None = None

    def add(self, entry: EntryRecord) -> None:
        self.amount_mc += entry.amount_mc
        self.entry = entry


class _Found(NamedTuple):
    lines: dict[tuple[bytes, int | None, int | None], _Line]  # by account, trade, point
    corrections: list[dict[str, Any]]
    is_whole: bool


def _lines(get: Get, slot: SlotRecord, stored: Iterable[bytes]) -> _Found:
    """The entries of a settled slot: those of the block that made it final, and corrections since."""
    found = _Found({}, [], True)
    left = LOOKED
    for data in stored:
        account = records.decode_account(data)
        for entry in _entries_from(get, account, slot.height):
            if not left:
                return found._replace(is_whole=False)
            left -= 1
            if entry.slot_s != slot.slot_s or entry.kind not in _SETTLING:
                continue
            name = (account.address, entry.trade, entry.point)
            found.lines.setdefault(name, _Line(account.address)).add(entry)
            if entry.kind == records.CORRECTION:
                found.corrections.append({
                    "account": account.address.hex(), "point": entry.point, "trade": entry.trade,
                    "amount_mc": entry.amount_mc, "reason": entry.reference, "height": entry.height,
                    "time_s": entry.time_s})
    return found


def _entries_from(get: Get, account: AccountRecord, height: int) -> Iterator[EntryRecord]:
    """An account's entries from a block on. Heights rise with the numbers, so that the first is found by halving."""
    low, high = 1, account.entries + 1
    while low < high:
        middle = (low + high) // 2
        if _entry(get, account.address, middle).height >= height:
            high = middle
        else:
            low = middle + 1
    for number in range(low, account.entries + 1):
        yield _entry(get, account.address, number)


def _entry(get: Get, kid: bytes, number: int) -> EntryRecord:
    data = get(records.entry_key(kid, number))
    assert data is not None, "entries are numbered without a gap"
    return records.decode_entry(data)


def _settled(trade: TradeRecord, lines: dict[tuple[bytes, int | None, int | None], _Line]) -> dict[str, Any]:
    """A trade and what was used, generated, matched, paid and got for it; None before it is settled."""
    buyer = lines.get((trade.buyer, trade.number, trade.buyer_point))
    seller = lines.get((trade.seller, trade.number, trade.seller_point))
    entry = buyer.entry if buyer else None
    is_known = entry is not None and entry.used_wh is not None and entry.generated_wh is not None
    return {**_trade(trade), "used_wh": entry.used_wh if entry else None,
            "generated_wh": entry.generated_wh if entry else None,
            "matched_wh": entry.matched_wh if entry and is_known else None, "is_missing": bool(entry) and not is_known,
            "buyer_mc": buyer.amount_mc if buyer else None, "seller_mc": seller.amount_mc if seller else None}


def _point(get: Get, energy: records.Energy, lines: dict[tuple[bytes, int | None, int | None], _Line],
           trades: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A point's energy and what it came to."""
    mine = [line for (_, _, point), line in lines.items() if point == energy.point]
    bought = [row for row in trades if row["buyer_point"] == energy.point and row["matched_wh"] is not None]
    sold = [row for row in trades if row["seller_point"] == energy.point and row["matched_wh"] is not None]
    return {"point": energy.point, "account": mine[-1].kid.hex() if mine else _owner(get, energy.point),
            "import_wh": energy.import_wh, "export_wh": energy.export_wh,
            "quality": records.QUALITY_NAMES[energy.quality],
            "bought_wh": _total(bought, "matched_wh"), "shortfall_wh": _rest(bought, "used_wh"),
            "sold_wh": _total(sold, "matched_wh"), "surplus_wh": _rest(sold, "generated_wh"),
            "amount_mc": sum(line.amount_mc for line in mine) if mine else None}


def _owner(get: Get, point: int) -> str | None:
    data = get(point_key(point))
    return decode_point(data).owner.hex() if data is not None else None


def _total(rows: Sequence[dict[str, Any]], name: str) -> int | None:
    known = [row[name] for row in rows if row[name] is not None]
    return sum(known) if known else None


def _rest(rows: Sequence[dict[str, Any]], name: str) -> int | None:
    return sum(row[name] - row["matched_wh"] for row in rows) if rows else None


# Accounts and rules.

def _account(get: Get, account: AccountRecord, prior: int | None) -> dict[str, Any]:
    agent, points = get(agent_key(account.address)), get(records.owner_key(account.address))
    return {"address": account.address.hex(), "balance_mc": account.balance_mc,
            "credit": {"buying": _mean(account.buyer_sum, account.buyer_count, prior),
                       "selling": _mean(account.seller_sum, account.seller_count, prior)},
            "scores": {"buying": account.buyer_count, "selling": account.seller_count},
            "role": decode_agent(agent).role if agent else None, "points": cbor.decode(points) if points else [],
            "available_mc": account.balance_mc - account.deposit_mc - account.held_mc,
            "deposit_mc": account.deposit_mc, "deposit_free_s": _free_s(get, account.address),
            "held_mc": account.held_mc, "spent_mc": account.spent_mc, "earned_mc": account.earned_mc,
            "entries": account.entries}


def _free_s(get: Get, address: bytes) -> int | None:
    """Of an account that has left the market, before its deposit came back: all slots before must be final."""
    data = get(records.LEAVING_KEY)
    return None if data is None else dict(cbor.decode(data)).get(address)


def _mean(total: int, count: int, prior: int | None) -> int | None:
    return total // count if count else prior


def _calendar(get: Get) -> records.CalendarRecord | None:
    data = get(records.CALENDAR_KEY)
    return None if data is None else records.decode_calendar(data)


def _in_force(get: Get, name: str, height: int) -> records.RuleVersion | None:
    kept = _rows(get(records.rules_key(name)), records.decode_rules)
    return next((version for version in reversed(kept) if version.valid_from <= height), None)


def _version(get: Get, name: str, number: int) -> records.RuleVersion | None:
    """A version by its number; of an old slot it may be gone (64 versions are kept)."""
    kept = _rows(get(records.rules_key(name)), records.decode_rules)
    return next((version for version in kept if version.version == number), None)


def _read(name: str, version: records.RuleVersion | None) -> Any:
    return rules.read(name, version.parameters) if version is not None else None


def _present_tariff(get: Get, height: int) -> rules.Tariff | None:
    found: rules.Tariff | None = _read("tariff", _in_force(get, "tariff", height + 1))
    return found


def _tariff(tariff: rules.Tariff | None, slot_s: int) -> dict[str, int] | None:
    if tariff is None:
        return None
    return {"retail": rules.retail_price(tariff, slot_s), "buyback": tariff.buyback, "wheeling": tariff.wheeling}


def _offset_s(tariff: rules.Tariff | None, time_s: int) -> int:
    return rules.offset_s(tariff, time_s) if tariff is not None else 0


def _rows(data: bytes | None, decode: Callable[[bytes], list[Any]]) -> list[Any]:
    return [] if data is None else decode(data)
