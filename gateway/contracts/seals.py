"""Makes the verdict on a seal, and its chain's next record, from the registry and the chain's last record.

Two verdicts (wire.md): refused is what its agent cannot have meant for this place of this chain of seals; everything
that an agent has correctly signed for its next height is taken, whatever its values, or its heights could never go on.
Values that cannot be believed are marked, and a rule or a correction decides later.

The chain's record keeps what the next seal is compared with. A register or a time that was not believable or not
read must not become the measure of the next one: `last_ms` stays at the last plausible time at which all registers
were known, and a register that could not be read keeps its last value. Else one seal with the clock in 1970 would
excuse any jump of the register after it.
"""

from typing import NamedTuple

from firmware.wire import cose, reading, seal, state
from firmware.wire.errors import check
from firmware.wire.state import AgentRecord, ChainRecord, PointRecord
from gateway.contracts import context as marks
from gateway.contracts import devices, memo, metering
from gateway.contracts.context import MARKED, BlockContext, CheckSignature, State

Registers = tuple[int | None, int | None]  # import, export
_WATT_MS_PER_WH = 3_600_000


class Taken(NamedTuple):
    """A seal that took effect: its code (0 or 256 + marks), its fields, and its chain's record after it."""

    code: int
    seal: seal.Seal
    record: ChainRecord


def apply_seal(store: State, context: BlockContext, item: bytes, signed: cose.Signed, payload_hash: bytes,
               check_signature: CheckSignature) -> Taken:
    """Writes the chain's next record; Refused when the seal is not the next of a living agent's own point."""
    check(cose.is_low_s(signed.signature), "high_s", "the low half", signed.signature)
    found = seal.decode(signed.payload)
    check(found.kid == signed.kid, "wrong_key", found.kid, signed.kid)
    agent, point = _check_registered(store, context, found)
    check(check_signature(item, "seal", agent.public_key), "bad_signature", found.kid, signed.signature)
    key = state.chain_key(found.kid, found.point)
    data = store.get(key)
    last = memo.decode_chain(data) if data is not None else None
    if found.meter_epoch != point.meter_epoch:
        _check_epoch(point, last, found)
    _check_next(last, found, payload_hash)
    before = _registers_before(point, last, found)
    bits = _marks(context, point, last, before, found) | devices.mark_of(store, agent.model, found.measurement)
    record = _next_record(last, before, found, payload_hash, bits, context.created_s)
    store.put(key, memo.encode_chain(record))
    metering.note(store, context, point, last, found, bits)
    return Taken(MARKED + bits if bits else 0, found, record)


def _check_registered(store: State, context: BlockContext, found: seal.Seal) -> tuple[AgentRecord, PointRecord]:
    data = store.get(state.agent_key(found.kid))
    check(data is not None, "not_enrolled", "an enrolled agent", found.kid)
    agent = memo.decode_agent(data)
    check(agent.revoked_height is None, "revoked", agent.revoked_height, context.height)
    check(found.point in agent.points, "not_its_point", agent.points, found.point)
    data = store.get(state.point_key(found.point))
    check(data is not None, "unknown_point", "a registered point", found.point)
    point = memo.decode_point(data)
    check(point.agent == found.kid, "not_its_point", point.agent, found.kid)
    check(point.channel == context.channel, "wrong_channel", point.channel, context.channel)
    return agent, point


def _check_epoch(point: PointRecord, last: ChainRecord | None, found: seal.Seal) -> None:
    """Seals of the meter before, made before it was replaced, may still come; after one of the new meter none may."""
    lowest = last.meter_epoch if last else point.meter_epoch
    check(lowest <= found.meter_epoch <= point.meter_epoch, "wrong_meter_epoch", point.meter_epoch, found.meter_epoch)


def _registers_before(point: PointRecord, last: ChainRecord | None, found: seal.Seal) -> Registers:
    """What a seal's registers are compared with: those before it, or the start of a meter that has none before."""
    if last and last.meter_epoch == found.meter_epoch:
        return last.import_wh, last.export_wh
    if point.meter_epoch == found.meter_epoch:
        return point.start_import_wh, point.start_export_wh
    return None, None


def _check_next(last: ChainRecord | None, found: seal.Seal, payload_hash: bytes) -> None:
    """Refused unless `found` comes directly after `last`, declared losses counted in."""
    height = last.height if last else 0
    if last and found.height == height:
        check(payload_hash != last.payload_hash, "duplicate", height, found.height)
        check(False, "fork", last.payload_hash, payload_hash)
    check(found.height > height, "wrong_height", height + 1, found.height)
    check(found.height - found.lost == height + 1, "gap", height + 1, found.height - found.lost)
    is_linked = last is not None and found.lost == 0
    previous = last.payload_hash if last and is_linked else seal.FIRST_PREVIOUS
    check(found.previous == previous, "wrong_previous", previous, found.previous)


def _marks(context: BlockContext, point: PointRecord, last: ChainRecord | None, before: Registers,
           found: seal.Seal) -> int:
    """The mark bits of a seal. Every bound is a chain parameter."""
    rules = context.parameters
    bits = 0
    if found.flags & seal.CLOCK_BITS != reading.CLOCK_SYNCHRONISED:
        bits |= marks.CLOCK_NOT_SYNCHRONISED
    block_ms = context.time_s * 1000
    # A meter may be ahead of the block by as much as a proposer may, and by the slack that a slot's boundary has.
    latest_ms = block_ms + (rules["time_ahead_s"] + rules["boundary_s"]) * 1000
    earliest_ms = max(context.created_s * 1000, last.last_ms if last else 0)
    if not earliest_ms <= found.last_ms <= latest_ms:
        bits |= marks.CLOCK_IMPLAUSIBLE
    for old, new in zip(before, (found.import_wh, found.export_wh), strict=True):
        if last and old is not None and new is None:
            bits |= last.marked & marks.EXCLUDED  # not read: it stands on the reading before, and that on its marks
        if old is None or new is None:
            continue
        if new < old:
            bits |= marks.REGISTER_FELL
        elif last and _is_jump(rules["point_max_w"], point, new - old, found.last_ms - last.last_ms):
            bits |= marks.REGISTER_JUMPED
    if block_ms - found.last_ms > rules["late_s"] * 1000 or found.flags & seal.LATE:
        bits |= marks.LATE
    if found.lost or found.flags & seal.HEIGHTS_LOST:  # the flag alone: readings were lost before they were sealed
        bits |= marks.HEIGHTS_LOST
    return bits


def _is_jump(max_w: int, point: PointRecord, rise_wh: int, elapsed_ms: int) -> bool:
    """Tells whether more than the point's largest power (times its CT ratio) would be needed for this rise."""
    if elapsed_ms < 0:
        return False  # no power follows from a clock that went back: that is marked already
    return rise_wh * _WATT_MS_PER_WH * point.ratio_den > max_w * point.ratio_num * elapsed_ms


def _next_record(last: ChainRecord | None, before: Registers, found: seal.Seal, payload_hash: bytes,
                 bits: int, created_s: int) -> ChainRecord:
    old_import, old_export = before
    is_unread = (found.import_wh is None and old_import is not None) or (
        found.export_wh is None and old_export is not None)
    last_ms = found.last_ms
    if last and (bits & marks.CLOCK_IMPLAUSIBLE or is_unread):
        last_ms = last.last_ms
    elif bits & marks.CLOCK_IMPLAUSIBLE or is_unread:
        last_ms = created_s * 1000  # not believed, or nothing read at it: all that is sure is after the genesis
    return ChainRecord(
        found.height, payload_hash, found.meter_epoch, last_ms,
        old_import if found.import_wh is None else found.import_wh,
        old_export if found.export_wh is None else found.export_wh,
        found.boot, (last.lost if last else 0) + found.lost, bits)
