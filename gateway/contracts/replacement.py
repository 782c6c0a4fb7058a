"""Makes a point's next meter epoch from both meters' registers (transaction type 4).

Nothing is lost and nothing counted twice: the new epoch's totals begin where the old meter's final register ends.
"""

from firmware.wire import state, transaction
from firmware.wire.errors import check
from firmware.wire.state import PointRecord
from firmware.wire.transaction import ReplaceMeter, Transaction
from gateway.contracts import consents, metering, registry
from gateway.contracts.context import BlockContext, State
from gateway.market import records
from gateway.market.records import Epoch, MeterRecord


def replace_meter(store: State, context: BlockContext, found: Transaction) -> None:
    """Type 4: the point's agent and an operator each send the same body; in force at the second. Refused
    `contradiction` when the old meter's final register is below what it has sealed, `duplicate` for a second time by
    the same side, `not_its_point` for another point's agent."""
    body = transaction.decode_replace_meter_body(found.body)
    point = registry.point_of(store, body.point)
    check(point is not None, "unknown_point", "a registered point", body.point)
    assert point is not None
    is_operator = _role(store, found.sender) == "operator"
    check(is_operator or point.agent == found.sender, "not_its_point", point.agent, found.sender)
    first = consents.first_of(store, found)
    if first is not None and not _is_side(store, point, first):
        first = None  # replaced or revoked since
    is_second = first is not None and (first == point.agent) is is_operator
    check(is_second or first is None, "duplicate", "the other side", found.sender)
    meter = _next_meter(store, context, point, body)
    if not is_second:
        consents.note(store, found)
        return
    consents.drop(store, found)
    store.put(records.meter_key(point.point), records.encode(meter))
    store.put(state.point_key(point.point), state.encode_record(point._replace(
        maker=body.maker, model=body.model, serial=body.serial, start_import_wh=body.start_import_wh,
        start_export_wh=body.start_export_wh, meter_epoch=point.meter_epoch + 1)))


def _next_meter(store: State, context: BlockContext, point: PointRecord, body: ReplaceMeter) -> MeterRecord:
    meter = metering.carried(store, context, point)
    finals = metering.totals_of(meter, point.meter_epoch, body.old_import_wh, body.old_export_wh)
    check(finals is not None, "contradiction", "the old meter's final registers", body.old_import_wh)
    assert finals is not None
    for last, final in ((meter.last_import_wh, finals[0]), (meter.last_export_wh, finals[1])):
        check(last is None or (final is not None and final >= last), "contradiction", last, final)
    base_import_wh, base_export_wh = metering.bases(meter, *finals)
    return metering.add_epoch(meter, Epoch(point.meter_epoch + 1, body.start_import_wh, body.start_export_wh,
                                           base_import_wh, base_export_wh, point.ratio_num, point.ratio_den))


def _is_side(store: State, point: PointRecord, kid: bytes) -> bool:
    """Does a consent of this kid still count: the agent may have been replaced since, an operator revoked?"""
    return kid == point.agent or _role(store, kid) == "operator"


def _role(store: State, kid: bytes) -> str | None:
    agent = registry.agent_of(store, kid)
    return None if agent is None or agent.revoked_height is not None else agent.role
