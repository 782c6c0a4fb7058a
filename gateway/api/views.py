"""Makes plain dicts, safe to show, from blocks, readings and the counters of a replica.

What comes from outside is shown as numbers, hex or text of bounded length; nothing here reads a clock, a file or a
socket. Field names are the API's: changing one changes what `gateway status --json` and other people's tools see.
"""

import datetime
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from firmware.wire import cbor, certificate, cose, header, merkle, proof, reading, seal, transaction
from firmware.wire import device as codec
from firmware.wire.errors import Refused
from firmware.wire.reasons import REASONS

# contracts: bits of a result code from 256 on
MARKS = ((1, "clock_not_synchronised"), (2, "clock_implausible"), (4, "register_fell"), (8, "register_jumped"),
         (16, "late"), (32, "firmware_not_certified"), (64, "heights_lost"))
AGENTS_SHOWN = 200  # with refusals, most first; the counters themselves are bounded where they are kept
POWER_SUM, POWER_IMPORT, POWER_EXPORT = "16.7.0", "1.7.0", "2.7.0"  # OBIS: net, import, export
POWER_PHASES = ("36.7.0", "56.7.0", "76.7.0")  # net, of one phase: all that a single-phase meter has
ENERGY_IMPORT, ENERGY_EXPORT = "1.8.0", "2.8.0"
MINUS = "\u2212"
OVERDUE = "overdue"  # the kind of an alarm about a device that nobody reports on
FRESH_MS = 1_800_000  # older readings add nothing to "power now"; a seal may cover 15 minutes, and one may be late


class Point(NamedTuple):
    """The newest accepted reading of a point."""

    point: int
    kid: bytes
    height: int  # of its seal
    time_ms: int
    power_w: int | None
    import_wh: int | None
    export_wh: int | None
    quality: int


@dataclass(frozen=True)
class Standing:
    """Where one replica stands; what `status` is made from."""

    index: int
    pid: int
    folder: str
    area: str
    chain_id: bytes
    speed: int
    started_ms: int
    now_ms: int
    kids: Sequence[bytes]  # of all replicas, by index
    connected: Sequence[int]
    view: int
    active: bool
    primary: int
    n: int
    low: int
    height: int
    header_hash: bytes
    state_root: bytes
    certified_height: int
    readings: int
    seals: int
    transactions: int
    marked: Mapping[str, int]
    refused: Mapping[str, int]
    refused_by_agent: Mapping[str, Mapping[str, int]]
    refused_in_blocks: int  # items that stand in blocks with a refusal as their result
    peers_refused: Mapping[str, int]
    consensus_refused: Mapping[str, int]
    pending: int
    newest_ms: int  # time of the newest committed reading, 0 = none
    brokers: Sequence[Mapping[str, Any]]
    points: Iterable[Point]
    bytes_written: int
    votes_bytes: int
    halted: bool  # own state differs from a proven one: no vote any more
    alarms: Sequence[str]


def point_of(taken: reading.Reading, height: int) -> Point:
    """What a page shows of a reading."""
    return Point(taken.point, taken.kid, height, taken.time_ms, power_of(taken), reading.value_of(taken, ENERGY_IMPORT),
                 reading.value_of(taken, ENERGY_EXPORT), taken.quality)


def power_of(taken: reading.Reading) -> int | None:
    """Net power in W, import counting up: the meter's own sum, else import less export, else the sum of its phases;
    None where one of them is missing."""
    for names in ((POWER_SUM,), (POWER_IMPORT, POWER_EXPORT), POWER_PHASES):
        here = [name for name in names if reading.has_entry(taken, name)]
        if here:
            values = [reading.value_of(taken, name) for name in here]
            return None if None in values else sum(-one if name == POWER_EXPORT else one
                                                   for name, one in zip(here, values))
    return None


def number_text(value: int | None) -> str:
    """For people: groups of three digits, a real minus sign, a dash for what is not known."""
    return "–" if value is None else f"{value:,}".replace(",", "\u202f").replace("-", MINUS)


def time_text(time_ms: int) -> str:
    """RFC 3339 in UTC, whole seconds; empty for a time that no calendar has."""
    try:
        return datetime.datetime.fromtimestamp(time_ms // 1000, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OverflowError, OSError, ValueError):
        return ""


def money_text(amount_mc: int | None) -> str:
    """Money, or a price of a kWh, with the five decimals that it has."""
    return _decimal_text(amount_mc, 5)


def energy_text(energy_wh: int | None) -> str:
    """kWh, to the Wh."""
    return _decimal_text(energy_wh, 3)


def credit_text(thousandths: int | None) -> str:
    """Points of credit, 100 at most."""
    return _decimal_text(thousandths, 3)


def _decimal_text(value: int | None, decimals: int) -> str:
    if value is None:
        return "–"
    whole, part = divmod(abs(value), 10**decimals)
    return f"{MINUS if value < 0 else ''}{number_text(whole)}.{part:0{decimals}d}"


def local_text(time_s: int, offset_s: int = 0) -> str:
    """Date and time of day in local time, as the rule set's own table has it."""
    return time_text((time_s + offset_s) * 1000)[:16].replace("T", " ")


def slot_text(slot_s: int, length_s: int, offset_s: int) -> str:
    """A slot from its first to its last moment, in local time."""
    return f"{local_text(slot_s, offset_s)}–{local_text(slot_s + length_s, offset_s)[11:]}"


def zone_text(offset_s: int) -> str:
    """How local time differs from UTC."""
    hours, minutes = divmod(abs(offset_s) // 60, 60)
    return f"UTC{'+' if offset_s > 0 else MINUS}{hours:02d}:{minutes:02d}" if offset_s else "UTC"


def left_text(time_s: int, now_ms: int) -> str:
    """Hours, minutes and seconds until a time; zeros after it."""
    left_s = max(0, time_s - now_ms // 1000)
    return f"{left_s // 3600}:{left_s // 60 % 60:02d}:{left_s % 60:02d}"


TEXTS = {"number": number_text, "money": money_text, "energy": energy_text, "credit": credit_text,
         "local": local_text, "zone": zone_text, "left": left_text}  # what a page writes values with


def kind_text(replicas: int, speed: int) -> str:
    """What a reader must know before believing a number (ledger.md, One Pi; layout.md, One clock)."""
    faults = certificate.faults(replicas)
    if replicas == 1:
        text = "One signer: tamper-evident, not Byzantine."
    elif faults == 0:
        text = f"{replicas} replicas, none of which may fail or lie."
    else:
        text = f"{replicas} replicas, of which {faults} may fail or lie."
    return text if speed == 1 else f"{text} Demo chain: labels run {speed} times faster than life."


def status(standing: Standing) -> dict[str, Any]:
    """The dict of /api/status."""
    points = sorted(standing.points)
    # a reading of a time to come is no fresher than one of now
    fresh = [one.power_w for one in points
             if one.power_w is not None and standing.now_ms - one.time_ms <= FRESH_MS]
    lag_ms = max(0, standing.now_ms - standing.newest_ms) if standing.newest_ms else 0
    worst = sorted(standing.refused_by_agent.items(), key=lambda pair: (-sum(pair[1].values()), pair[0]))
    result = {name: value for name, value in vars(standing).items() if name not in ("kids", "connected")}
    result.update(
        chain_id=standing.chain_id.hex(), header_hash=standing.header_hash.hex(), state_root=standing.state_root.hex(),
        kind=kind_text(len(standing.kids), standing.speed), time=time_text(standing.now_ms),
        power_w=sum(fresh) if fresh else None, lag_ms=lag_ms, lag_s=lag_ms // 1000,
        refused=dict(sorted(standing.refused.items())), refused_total=sum(standing.refused.values()),
        refused_by_agent={kid: dict(counts) for kid, counts in worst[:AGENTS_SHOWN]},
        marked=dict(standing.marked), marked_total=sum(standing.marked.values()),
        peers_refused=dict(standing.peers_refused), consensus_refused=dict(standing.consensus_refused),
        brokers=[dict(one) for one in standing.brokers], alarms=list(standing.alarms),
        is_primary=standing.primary == standing.index and standing.active,
        points=[_point(one) for one in points], replicas=_replicas(standing))
    return result


def block(header_bytes: bytes, meta_bytes: bytes, items: Sequence[bytes], results: Sequence[int],
          certificate_bytes: bytes | None) -> dict[str, Any]:
    """The dict of /api/v1/blocks/{height}; header, meta and certificate also as the bytes that a verifier wants."""
    fields, meta = header.decode(header_bytes), header.decode_meta(meta_bytes)
    voted = certificate.decode(certificate_bytes) if certificate_bytes else None
    return {
        "channel": meta.channel, "height": fields.height, "hash": header.hash_of(header_bytes).hex(),
        "previous": fields.previous.hex(), "root": fields.root.hex(), "time": time_text(fields.time_s * 1000),
        "time_s": fields.time_s, "view": fields.view, "epoch": meta.epoch, "state_root": meta.state_root.hex(),
        "header": header_bytes.hex(), "meta": meta_bytes.hex(),
        "certificate": certificate_bytes.hex() if certificate_bytes else None,
        "signers": list(voted.signers) if voted else [],
        "items": [item(leaf, code) for leaf, code in zip(items, results)],
    }


def item(leaf: bytes, code: int | None) -> dict[str, Any]:
    """One leaf of a block and what execution said to it; a block may hold a leaf that nobody can read."""
    try:
        return _item(leaf, code)
    except Refused as refused:
        return {"kind": "unreadable", "reason": refused.reason, "bytes": len(leaf), **result(code)}


def _item(leaf: bytes, code: int | None) -> dict[str, Any]:
    signed = cose.parse(leaf)
    shown = {"kid": signed.kid.hex(), "payload_hash": seal.payload_hash(signed.payload).hex(), **result(code)}
    if transaction.is_transaction(cbor.decode(signed.payload)):
        order = transaction.decode(signed.payload)
        name = transaction.TYPES[order.type] if 0 < order.type < len(transaction.TYPES) else None
        return {"kind": "transaction", "type": order.type, "name": name, "sequence": order.sequence, **shown}
    sealed = seal.decode(signed.payload)
    return {"kind": "seal", "point": sealed.point, "height": sealed.height, "readings": sealed.count,
            "first_ms": sealed.first_ms, "last_ms": sealed.last_ms, "import_wh": sealed.import_wh,
            "export_wh": sealed.export_wh, **shown}


def device(name: str, settings: Any, known: Any, report: Any, model_of: Any, configured: Any) -> dict[str, Any]:
    """A row of /api/devices: what is in force for a control device, what was found last, and its history, newest last.

    settings, known, report: the state's records (gateway/dispatch), or None; configured: where this replica pulls."""
    row: dict[str, Any] = {"device": name, "model": None, "in_force": known is not None, "version": None,
                           "settings_version": None, "root": None, "outcome": None, "item": None, "kind": None,
                           "offset": None, "since": None, "alarm": False, "alarm_height": None, "reports": 0,
                           "checked": None, "promised_s": None, "height": None, "reporter": None, "evidence": None,
                           "changes": [],
                           "check_interval_s": configured.check_interval_s if configured else None}
    if settings is not None:
        model = model_of(settings.model)
        row.update(model=settings.model, settings_version=settings.version, version=model.version if model else None)
    if known is not None:
        row["root"] = codec.root_of(known.digests).hex()
    if report is not None:
        row.update(outcome=report.outcome, item=report.item, kind=report.kind, offset=report.offset,
                   since=time_text(report.since_s * 1000), alarm=report.alarm_height is not None,
                   alarm_height=report.alarm_height, reports=report.reports, checked=time_text(report.time_s * 1000),
                   promised_s=report.interval_s,
                   height=report.height, reporter=report.reporter.hex(), evidence=report.evidence.hex(),
                   changes=[device_change(change) for change in report.changes])
    return row


def device_change(change: Sequence[Any]) -> dict[str, Any]:
    """A change of what was found on a device."""
    height, time_s, outcome, kind, item_name, offset, evidence = change
    return {"height": height, "time": time_text(time_s * 1000), "outcome": outcome, "kind": kind, "item": item_name,
            "offset": offset, "evidence": evidence.hex()}


def device_alarms(devices: Iterable[Mapping[str, Any]], told: Iterable[Mapping[str, Any]] = ()
                  ) -> dict[str, list[dict[str, Any]]]:
    """Of the rows of /api/devices: alarms that stand, and what was found on a device and is no more, the newest first.

    since: when this was found; until: when something else was, or the alarm was cleared (`became` MATCH). told: the
    alarms that this replica has raised; that no report comes any more stands in no block, so it is known from there."""
    raised, past = [], []
    for one in devices:
        if one["alarm"]:
            raised.append({name: one[name] for name in (
                "device", "outcome", "item", "kind", "offset", "since", "checked", "alarm_height", "evidence")})
        for change, after in zip(one["changes"], one["changes"][1:]):
            if change["outcome"] != codec.MATCH:
                past.append({"device": one["device"], **{name: change[name] for name in (
                    "outcome", "item", "kind", "offset", "height", "evidence")}, "since": change["time"],
                    "until": after["time"], "became": after["outcome"], "until_height": after["height"]})
    raised += [{**{name: one[name] for name in ("device", "outcome", "item", "kind", "offset", "since")},
                "checked": one["since"], "alarm_height": one["height"], "evidence": None}
               for one in told if one.get("kind") == OVERDUE]
    past.sort(key=lambda row: (row["until"], row["device"]), reverse=True)
    return {"raised": raised, "past": past}


def result(code: int | None) -> dict[str, Any]:
    """A result code in words."""
    if code is None:
        return {}
    if code >= proof.MARKED:
        return {"result": "marked", "marks": marks_of(code)}
    return {"result": REASONS[code] if code < len(REASONS) else f"reason {code}", "marks": []}


def marks(counts: Sequence[int]) -> dict[str, int]:
    """Numbers of seals by mark, from the ledger's counts by bit."""
    return {name: counts[bit.bit_length() - 1] for bit, name in MARKS
            if bit.bit_length() <= len(counts) and counts[bit.bit_length() - 1]}


def marks_of(code: int) -> list[str]:
    """The names of the mark bits of a result code."""
    return [name for bit, name in MARKS if code >= proof.MARKED and code - proof.MARKED & bit]


def inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> dict[str, Any]:
    """A leaf's place in a block, checkable with any RFC 9162 code."""
    return {"leaf_hash": merkle.leaf_hash(leaf).hex(), "index": index, "size": size,
            "path": [one.hex() for one in path]}


def _point(one: Point) -> dict[str, Any]:
    return {**one._asdict(), "kid": one.kid.hex(), "time": time_text(one.time_ms)}


def _replicas(standing: Standing) -> list[dict[str, Any]]:
    rows = []
    for index, kid in enumerate(standing.kids):
        if index == standing.index:
            state = "this one" if standing.active else "this one, changing view"
        else:
            state = "connected" if index in standing.connected else "not connected"
        if index == standing.primary:
            state += ", primary"
        rows.append({"index": index, "kid": kid.hex(), "state": state})
    return rows
