"""Makes certified versions and the record of each control device from transactions 20, 21 and 22 (dispatch.md).

A version is what a laboratory certified; it is in force from the block in which the last of laboratory, manufacturer
and regulator has stood up for it, three kids. What is in force for a model are the newest software and strategy; a
version that names a device brings that device's settings, and never an older software back (one without a device does).

A report is a replica's word on what it pulled. Whether the bytes give these digests was checked by whoever voted for
the batch; here the outcome is derived from the digests once more, against what is in force in this very block.
"""

from functools import lru_cache
from typing import Any

from firmware.wire import device as codec
from firmware.wire.errors import check
from firmware.wire.transaction import Transaction
from gateway.contracts import registry
from gateway.contracts.context import FIRMWARE_NOT_CERTIFIED, BlockContext, State
from gateway.dispatch import records
from gateway.dispatch.certified import Certified, outcome_of
from gateway.dispatch.records import DeviceRecord, ModelRecord, Registry, SettingsRecord, VersionRecord


def certify(store: State, context: BlockContext, found: Transaction) -> None:
    """Type 20, of a laboratory: a version that others may endorse."""
    body = codec.decode_certify(found.body)
    key = records.version_key(certify_hash := codec.certify_hash(found.body))
    check(store.get(key) is None, "duplicate", "each body once", certify_hash)
    known = Certified(store.get).registry
    check(body.model in known.models or len(known.models) < records.MODELS, "busy", records.MODELS, body.model)
    check(body.device is None or body.device in known.devices or len(known.devices) < records.DEVICES, "busy",
          records.DEVICES, body.device)
    pending = [*known.pending, certify_hash]
    if len(pending) > records.PENDING:  # nobody endorsed the oldest for so long: it can be certified again
        store.delete(records.version_key(pending.pop(0)))
    store.put(key, records.encode(VersionRecord(
        body.model, body.version, body.device, body.software, body.strategy, body.settings, found.sender,
        context.height, None, None, None)))
    _put_registry(store, known._replace(edition=known.edition + 1, pending=pending))


def endorse(store: State, context: BlockContext, found: Transaction) -> None:
    """Type 21, of a manufacturer or regulator: with both of them a version is in force from here on."""
    certify_hash, role = codec.decode_endorse(found.body)
    sender = registry.agent_of(store, found.sender)
    check(sender is not None and sender.role == role, "not_permitted", role, None if sender is None else sender.role)
    data = store.get(records.version_key(certify_hash))
    check(data is not None, "not_certified", "a version that a laboratory certified", certify_hash)
    assert data is not None
    version = records.decode_version(data)
    check(getattr(version, role) is None, "duplicate", "each role once", role)
    check(found.sender not in (version.laboratory, version.manufacturer, version.regulator), "not_permitted",
          "three kids", found.sender)
    version = version._replace(**{role: found.sender})
    if version.manufacturer is not None and version.regulator is not None:
        version = version._replace(in_force_height=context.height)
        _put_in_force(store, context, version, certify_hash)
    store.put(records.version_key(certify_hash), records.encode(version))


def report(store: State, context: BlockContext, found: Transaction) -> None:
    """Type 22, of a replica: what it found; the record of the device says since when, and whether an alarm stands."""
    body = codec.decode_report(found.body)
    certified = Certified(store.get)
    check(body.edition == certified.edition, "wrong_state", certified.edition, body.edition)
    last = certified.report_of(body.device)
    latest_s = context.time_s + context.parameters["time_ahead_s"]
    check((last.time_s if last else 0) < body.time_s <= latest_s, "wrong_time", latest_s, body.time_s)
    due = outcome_of(certified.known(body.device), body.device, body.digests, body.identity, body.item == "files")
    check((body.outcome, body.item) == due, "wrong_outcome", list(due), [body.outcome, body.item])
    is_explained = body.outcome != codec.MATCH and (body.kind is not None or body.offset is None)
    check(is_explained or body.kind is body.offset is None, "wrong_outcome", "no kind", body.kind)
    if body.device not in certified.registry.devices:
        check(len(certified.registry.devices) < records.DEVICES, "busy", records.DEVICES, body.device)
        _put_registry(store, _with_device(certified.registry, body.device))
    store.put(records.device_key(body.device), records.encode(_next_record(context, last, body, found.sender)))


def mark_of(store: State, model: str, measurement: bytes) -> int:
    """The mark of a seal whose agent runs firmware that is not certified; none while nothing is, for its model.

    An agent's firmware is certified as the software of its model, by its measurement. Older certified versions are
    good: an agent is updated later than a version comes into force."""
    data = store.get(records.model_key(model))
    return 0 if data is None or measurement in _measurements(data) else FIRMWARE_NOT_CERTIFIED


@lru_cache(records.MODELS)
def _measurements(data: bytes) -> frozenset[bytes]:
    """Of a model's record: all software digests that are or were in force. Asked for every seal."""
    found = records.decode_model(data)
    return frozenset((found.software, *(row[0] for row in found.old)))


def _next_record(context: BlockContext, last: DeviceRecord | None, body: codec.Report, sender: bytes) -> DeviceRecord:
    finding = (body.outcome, body.kind, body.item, body.offset)
    is_news = last is None or finding != (last.outcome, last.kind, last.item, last.offset)
    changes = list(last.changes) if last else []
    if is_news:
        changes = [*changes, [context.height, body.time_s, *finding, body.evidence]][-records.CHANGES:]
    alarm_height = None
    if body.outcome != codec.MATCH:
        alarm_height = last.alarm_height if last and last.alarm_height is not None else context.height
    since = (body.time_s, context.height) if last is None or is_news else (last.since_s, last.since_height)
    return DeviceRecord(*finding, since_s=since[0], since_height=since[1], reports=(last.reports if last else 0) + 1,
                        alarm_height=alarm_height, time_s=body.time_s, height=context.height, reporter=sender,
                        evidence=body.evidence, interval_s=body.interval_s, changes=changes)


def _put_in_force(store: State, context: BlockContext, version: VersionRecord, certify_hash: bytes) -> None:
    certified = Certified(store.get)
    known = certified.registry
    old = certified.model(version.model)
    pair = (version.software, version.strategy)
    former = [(row[0], row[1]) for row in old.old] if old else []
    is_back = pair in former and version.device is not None
    if old is None or (pair != (old.software, old.strategy) and not is_back):
        rows: list[list[Any]] = [[old.software, old.strategy, old.version], *old.old] if old else []
        rows = [row for row in rows if (row[0], row[1]) != pair][:records.OLD]
        store.put(records.model_key(version.model), records.encode(
            ModelRecord(*pair, version.version, context.height, rows)))
    if version.device is not None and version.settings is not None:
        _put_settings(store, context, version, certified.settings(version.device))
        known = _with_device(known, version.device)
    models = known.models if version.model in known.models else sorted([*known.models, version.model])
    pending = [one for one in known.pending if one != certify_hash]
    _put_registry(store, known._replace(edition=known.edition + 1, models=models, pending=pending))


def _put_settings(store: State, context: BlockContext, version: VersionRecord, last: SettingsRecord | None) -> None:
    assert version.device is not None and version.settings is not None
    older = [last.settings, *last.old] if last is not None and last.model == version.model else []
    older = [digest for digest in older if digest != version.settings][:records.OLD]
    store.put(records.settings_key(version.device), records.encode(
        SettingsRecord(version.model, version.settings, version.version, context.height, older)))


def _with_device(known: Registry, device: str) -> Registry:
    return known if device in known.devices else known._replace(devices=sorted([*known.devices, device]))


def _put_registry(store: State, known: Registry) -> None:
    store.put(records.REGISTRY_KEY, records.encode(known))
