"""Makes a checked account of money from a bill file and the trusted genesis: every line recomputed, or refused.

From the copper to the cent: a seal, signed by the meter's agent and taken by the ledger, gives a register; registers
give totals at the borders of slots (vee.py); totals give energies, trades and energies give amounts (settle.py), and
those must be the numbered entries that the account's balance moved by. The account's counter proves that no entry is
left out, and the clearings of the period that no trade is.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from firmware.wire import cbor
from firmware.wire.errors import check
from gateway.market import bill as bill_codec
from gateway.market import records, rules, settle, vee
from gateway.market.bill import Bill, Border, Chain, Facts, VerifyDigest
from gateway.market.records import AccountRecord, ClearingRecord, EntryRecord, MeterRecord, SlotRecord

_FROM_SEALS = (records.MEASURED, records.INTERPOLATED)
_REASONS = {records.INTERPOLATED: "interpolated, because no reading was at a border",
            records.SUBSTITUTED: "substituted by a correction",
            records.MISSING: "missing: nothing was settled"}
_SETTLED = (records.TRADE, records.SUPPLY, records.CORRECTION, records.BALANCE)


class Report(NamedTuple):
    """What a bill proves. Amounts in mc, signed as the account sees them; doubts are sentences for its reader."""

    account: bytes
    first_s: int
    end_s: int
    entries: list[EntryRecord]
    before: AccountRecord
    after: AccountRecord
    total_mc: int
    points: list[int]
    qualities: dict[tuple[int, int], int]  # (slot, point) -> quality of its energy
    doubts: list[str]
    height: int
    signers: int
    members: int
    witnesses: int  # light nodes that have signed the header of that height ...
    light_nodes: int  # ... of so many
    speed: int


_Place = tuple[int, int | None, int | None]  # kind of entry, point, trade


class _Slots(NamedTuple):
    """What the file proves of every slot of the period."""

    clearings: dict[int, ClearingRecord]
    energies: dict[int, SlotRecord]
    tariffs: dict[int, settle.Tariff]


class Total(NamedTuple):
    """A point's totals at a border, from its seals."""

    import_wh: int | None
    export_wh: int | None


# By (point, border): one Total, or one for each span of a meter whose registers have begun again.
Totals = Mapping[tuple[int, int], list[Total]]


def check_bill(data: bytes, genesis_bytes: bytes, verify_digest: VerifyDigest) -> Report:
    """Returns what a bill file proves under a genesis; Refused with the reason for the first thing that is wrong."""
    chain = Chain.trust(genesis_bytes, verify_digest)
    found = bill_codec.decode(data)
    check(found.chain_id == chain.chain_id, "wrong_chain", chain.chain_id, found.chain_id)
    before, after = (bill_codec.check_state(chain, part) for part in (found.before, found.after))
    bill_codec.check_calendar(found, before, after)
    slot_s = chain.genesis.parameters["slot_s"]
    check(found.first_s % slot_s == 0 and found.end_s > found.first_s, "outside_window", found.first_s, found.end_s)
    accounts = [_account(facts, found.account) for facts in (before, after)]
    entries = _entries(after, found.account, *accounts)
    own = cbor.decode(after.get(records.owner_key(found.account)) or b"\x80")
    own_hashes, doubts = bill_codec.check_chains(found.chains, own)
    totals = _totals(chain, found, after, bill_codec.check_blocks(chain, found.blocks, after), own, own_hashes)
    slots = _slots(found, after, slot_s)
    qualities: dict[tuple[int, int], int] = {}
    by_slot = defaultdict(list)
    for entry in entries:
        if entry.kind in _SETTLED and entry.slot_s is not None:
            by_slot[entry.slot_s].append(entry)
    grid = cbor.decode(after.need(records.GRID_KEY))[0]
    for at in range(found.first_s, found.end_s, slot_s):
        parties = _parties(slots.clearings[at], found.account, own)
        doubts += _check_energies(slots.energies[at], parties, totals, at, slot_s, own, qualities)
        if found.account != grid:
            _check_slot(slots, at, found.account, own, parties, by_slot.pop(at, []))
    if found.account == grid:
        doubts.append("the grid takes the difference of all others: its lines are proven, but not computed again")
    doubts += _strays(by_slot, found.account == grid)
    total_mc = sum(entry.amount_mc for entry in entries)
    balance_mc = accounts[1].balance_mc - accounts[0].balance_mc
    check(total_mc == balance_mc, "wrong_amount", balance_mc, total_mc)
    return Report(found.account, found.first_s, found.end_s, entries, accounts[0], accounts[1], total_mc, list(own),
                  qualities, doubts, after.header.height, after.signers, len(chain.genesis.members),
                  *bill_codec.check_witnesses(chain, found, after), chain.genesis.speed)


def _account(facts: Facts, kid: bytes) -> AccountRecord:
    data = facts.get(records.account_key(kid))
    if data is None:
        return AccountRecord(kid, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    found = records.decode_account(data)
    check(found.address == kid, "wrong_key", kid, found.address)
    return found


def _entries(after: Facts, kid: bytes, first: AccountRecord, last: AccountRecord) -> list[EntryRecord]:
    """Every entry between two records of an account, by number: the counter leaves room for no other."""
    check(first.entries <= last.entries, "wrong_count", first.entries, last.entries)
    found = []
    for number in range(first.entries + 1, last.entries + 1):
        entry = records.decode_entry(after.need(records.entry_key(kid, number)))
        check(entry.number == number, "wrong_count", number, entry.number)
        found.append(entry)
    return found


def _slots(found: Bill, after: Facts, slot_s: int) -> _Slots:
    versions = {name: records.decode_rules(after.need(records.rules_key(name))) for name in rules.NAMES}
    tariffs = {row.version: _tariff(row) for row in versions["tariff"]}
    slots = _Slots({}, {}, {})
    for at in range(found.first_s, found.end_s, slot_s):
        clearing = records.decode_clearing(after.need(records.clearing_key(at)))
        check(clearing.slot_s == at, "outside_window", at, clearing.slot_s)
        check(clearing.tariff_version in tariffs, "not_included", clearing.tariff_version, None)
        tariff = tariffs[clearing.tariff_version]
        energy = records.decode_slot(after.need(records.slot_key(at)))
        check(energy.slot_s == at and energy.status == records.FINAL, "outside_window", at, energy.slot_s)
        slots.clearings[at], slots.energies[at] = clearing, energy
        slots.tariffs[at] = settle.Tariff(rules.retail_price(tariff, at), tariff.buyback, tariff.wheeling,
                                          tariff.subsidy)
    return slots


def _tariff(row: records.RuleVersion) -> rules.Tariff:
    digest = rules.digest(row.parameters)
    check(digest == row.hash, "wrong_digest", row.hash, digest)
    return rules.read("tariff", row.parameters)


def _parties(clearing: ClearingRecord, account: bytes, own: Sequence[int]) -> set[int]:
    """The account's points and those that it traded with: whose energies its amounts depend on."""
    parties = set(own)
    for trade in clearing.trades:
        if account in (trade.buyer, trade.seller):
            parties |= {trade.buyer_point, trade.seller_point}
    return parties


def _totals(chain: Chain, found: Bill, after: Facts, seals: list[list[Border]], own: Sequence[int],
            own_hashes: set[bytes]) -> Totals:
    """The totals at every border that the file's seals decide."""
    boundary_ms = chain.genesis.parameters["boundary_s"] * 1000
    meters: dict[int, MeterRecord] = {}
    totals = {}
    for point, at_s, chosen in bill_codec.borders_of(found, seals):
        if point not in meters:
            meters[point] = records.decode_meter(after.need(records.meter_key(point)))
        for one in chosen:
            check(point not in own or one.payload_hash in own_hashes, "gap", "a seal of the account's own chain",
                  one.seal.height)
        totals[point, at_s] = _at_border(meters[point], chosen, at_s * 1000, boundary_ms)
    return totals


def _at_border(meter: MeterRecord, chosen: Sequence[Border], at_ms: int, boundary_ms: int) -> list[Total]:
    """The totals at a border from its one seal within the tolerance, or on the line between two."""
    if len(chosen) == 1:
        distance_ms = abs(chosen[0].seal.last_ms - at_ms)
        check(distance_ms <= boundary_ms, "wrong_times", boundary_ms, distance_ms)
        return _totals_of(meter, chosen[0])
    first_ms, last_ms = chosen[0].seal.last_ms, chosen[1].seal.last_ms
    is_apart = first_ms < at_ms - boundary_ms and at_ms + boundary_ms < last_ms
    check(is_apart, "wrong_times", first_ms, last_ms)
    return [Total(*(None if old is None or new is None
                    else vee.between(vee.Point(first_ms, old), vee.Point(last_ms, new), at_ms)
                    for old, new in zip(one, two, strict=True)))
            for one in _totals_of(meter, chosen[0]) for two in _totals_of(meter, chosen[1])]


def _totals_of(meter: MeterRecord, one: Border) -> list[Total]:
    """Registers of a seal as totals, by every span of its meter (more than one where registers have begun again).

    Refused `wrong_meter_epoch` for a meter that the point never had."""
    epochs = [epoch for epoch in meter.epochs if epoch.number == one.seal.meter_epoch]
    check(bool(epochs), "wrong_meter_epoch", meter.epochs[-1].number, one.seal.meter_epoch)
    found = []
    for epoch in epochs:
        values = []
        for register, start, base in ((one.seal.import_wh, epoch.start_import_wh, epoch.base_import_wh),
                                      (one.seal.export_wh, epoch.start_export_wh, epoch.base_export_wh)):
            span = vee.Span(start or 0, base, epoch.ratio_num, epoch.ratio_den)
            values.append(None if register is None else vee.total_wh(span, register))
        found.append(Total(*values))
    return found


def _check_energies(slot: SlotRecord, parties: set[int], totals: Totals, at: int, slot_s: int,
                    own: Sequence[int], qualities: dict[tuple[int, int], int]) -> list[str]:
    """Holds the slot's energies of all parties against their seals; returns what its reader should know."""
    doubts = []
    by_point = {energy.point: energy for energy in slot.energies}
    for point in sorted(parties):
        energy = by_point.get(point, records.Energy(point, None, None, records.MISSING))
        if point in own:
            qualities[at, point] = energy.quality
        if energy.quality in _FROM_SEALS:
            check((point, at) in totals and (point, at + slot_s) in totals, "wrong_proof", point, at)
            shown = (energy.import_wh, energy.export_wh)
            made = [_difference(start, end) for start in totals[point, at] for end in totals[point, at + slot_s]]
            check(shown in made, "wrong_amount", shown, made[0])
        if energy.quality != records.MEASURED:
            whose = f"point {point}" + ("" if point in own else " (the other party)")
            doubts.append(f"{whose}, slot {at}: {_REASONS[energy.quality]}")
    return doubts


def _difference(start: Total, end: Total) -> tuple[int | None, int | None]:
    return (None if start.import_wh is None or end.import_wh is None else end.import_wh - start.import_wh,
            None if start.export_wh is None or end.export_wh is None else end.export_wh - start.export_wh)


def _check_slot(slots: _Slots, at: int, account: bytes, own: Sequence[int], parties: set[int],
                entries: Sequence[EntryRecord]) -> None:
    """Recomputes the account's amounts of a slot; Refused `wrong_amount` where an entry says something else."""
    expected = _expected(slots, at, account, own, parties)
    found: dict[_Place, int] = {}
    corrected_mc = 0
    is_corrected = False
    for entry in entries:
        if entry.kind == records.CORRECTION:
            corrected_mc, is_corrected = corrected_mc + entry.amount_mc, True
            continue
        place = (entry.kind, entry.point, entry.trade)
        check(place not in found, "duplicate", place, entry.number)
        found[place] = entry.amount_mc
    if is_corrected:  # the entries are those of the energies before it; what remains is the sum
        sums = sum(expected.values()), sum(found.values()) + corrected_mc
        check(sums[0] == sums[1], "wrong_amount", *sums)
    else:
        check(found == expected, "wrong_amount", sorted(expected.items(), key=repr), sorted(found.items(), key=repr))


def _expected(slots: _Slots, at: int, account: bytes, own: Sequence[int], parties: set[int]) -> dict[_Place, int]:
    """The account's amounts of a slot, from its trades, the parties' energies and the tariff."""
    trades = {trade.number: trade for trade in slots.clearings[at].trades}
    contracts = [settle.Contract(trade.number, trade.buyer_point, trade.seller_point, trade.price, trade.wh, trade.flow)
                 for trade in trades.values()]
    energies = {energy.point: settle.Energy(energy.import_wh or 0, energy.export_wh or 0)
                for energy in slots.energies[at].energies
                if energy.point in parties and (energy.import_wh, energy.export_wh) != (None, None)}
    made = settle.settle(contracts, {**dict.fromkeys(own), **energies}, slots.tariffs[at])
    expected: dict[_Place, int] = {}
    for one in made.trades:
        if trades[one.number].buyer == account:
            expected[records.TRADE, one.buyer_point, one.number] = -one.buyer_pays
        if trades[one.number].seller == account:
            expected[records.TRADE, one.seller_point, one.number] = one.seller_gets
    traders = {point for one in contracts for point in (one.buyer_point, one.seller_point)}
    for supply in made.supplies:
        if supply.point in own and (supply.point not in traders or supply.pays or supply.gets):
            expected[records.SUPPLY, supply.point, None] = supply.gets - supply.pays
    return expected


def _strays(by_slot: Mapping[int, Sequence[EntryRecord]], is_grid: bool) -> list[str]:
    """Entries of slots outside of the period: only corrections may be there."""
    doubts = []
    for at in sorted(by_slot):
        for entry in by_slot[at]:
            check(is_grid or entry.kind == records.CORRECTION, "outside_window", records.ENTRY_NAMES[entry.kind], at)
            if entry.kind == records.CORRECTION:
                doubts.append(f"entry {entry.number}: a correction of slot {at}, which lies outside of this period")
    return doubts
