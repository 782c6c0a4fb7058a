"""Makes the demo's report: the ledger joined with what the simulated meters really showed, and what the replicas hold.

A reading is compared entry by entry with the row of the minute in which it was taken. The simulator's rows are decoded
by the simulator's own arithmetic, so that a mistake shared by both sides cannot hide.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from deploy.verify import mark_names
from firmware.crypto.openssl import verify_digest
from firmware.wire import certificate, proof
from firmware.wire import reading as reading_codec
from gateway.ledger.reader import Reader, SealAt
from sim_hardware.truth import read_truth

STEP_MS = 60_000
EXAMPLES = 5
WORTH_SAYING = 0.05  # of the day's duration, spent in waiting for the slowest
IMPORT = "1.8.0"  # the entry that a billing reading has and one of the other quantities has not

# OBIS value groups (IEC 62056-6-1): what the C group means for the sum of all phases; phase p adds 20 p. The names are
# the simulator's, typed in here so that neither side's table is trusted.
_POWER = {3: "reactive_power", 9: "apparent_power", 11: "current", 12: "voltage", 13: "power_factor",
          16: "active_power"}
_ENERGY = {1: "energy_active_import", 2: "energy_active_export", 3: "energy_reactive_import",
           4: "energy_reactive_export", 15: "energy_active_sum"}
_OTHERS = {"12.7.0": "voltage_avg_ln", "14.7.0": "frequency", "90.7.0": "current_total", "91.7.0": "current_n"}


def simulator_name(name: str) -> str:
    """Returns what the simulator calls an entry of a reading; KeyError for one that it does not know."""
    if name.startswith("x."):
        return name.removeprefix("x.")
    if name in _OTHERS:
        return _OTHERS[name]
    group, kind, _ = (int(part) for part in name.split("."))
    quantities = _POWER if kind == 7 else _ENERGY
    phase, quantity = divmod(group, 20)
    if quantity == 0:
        phase, quantity = phase - 1, 20
    return quantities[quantity] + (f"_l{phase}" if phase else "_total")


class Join(NamedTuple):
    """What came of comparing: rows the simulators wrote, readings in the ledger, and where they differ."""

    rows: int
    readings: int  # billing readings: one a minute and point
    details: int  # the other quantities, on their own slower period
    missing: int  # rows without a reading
    double: int
    altered: int  # readings with a value that the row does not have
    unknown: int  # readings of a minute that has no row
    compared: int  # values
    examples: list[str]  # of differences, for whoever has to find the cause

    @property
    def is_equal(self) -> bool:
        return not (self.missing or self.double or self.altered or self.unknown) and self.compared > 0


def committed_seals(reader: Reader) -> Iterator[SealAt]:
    """Every accepted seal of every chain, oldest last within a chain."""
    for point in reader.points():
        for kid, agent in reader.agents():
            if point.point in agent.points:
                yield from reader.seals(kid, point.point)


def join(reader: Reader, truths: list[Path], last_ms: int) -> Join:
    """Compares a replica's ledger with truth files, up to the label `last_ms`."""
    rows = {key: row for key, row in read_truth(*truths).items() if key[1] <= last_ms}
    seen: Counter[tuple[int, int]] = Counter()
    details: Counter[tuple[int, int]] = Counter()
    altered = unknown = compared = 0
    examples: list[str] = []
    for sealed in committed_seals(reader):
        for data in sealed.readings or ():
            reading = reading_codec.decode(data)
            if reading.time_ms >= last_ms + STEP_MS:
                continue
            key = reading.point, reading.time_ms // STEP_MS * STEP_MS
            row = rows.get(key)
            if row is None:
                unknown += 1
                continue
            (seen if reading_codec.has_entry(reading, IMPORT) else details)[key] += 1
            differing = compare(reading, row)
            compared += len(reading.entries)
            altered += bool(differing)
            if differing and len(examples) < EXAMPLES:
                examples.append(f"point {reading.point} at {reading.time_ms}: {'; '.join(differing)}")
    double = sum(count - 1 for counts in (seen, details) for count in counts.values())
    return Join(len(rows), seen.total(), details.total(), len(rows) - len(seen), double, altered, unknown, compared,
                examples)


def compare(reading: reading_codec.Reading, row: dict[str, int]) -> list[str]:
    """Returns what differs: entries with another value than the row, or missing although the meter had them."""
    differing = []
    for entry in reading.entries:
        expected = row.get(simulator_name(entry.name))
        if entry.value != expected:
            differing.append(f"{entry.name} {entry.value if entry.missing is None else entry.missing}, not {expected}")
    return differing


def check_replicas(folders: list[Path]) -> dict[str, Any]:
    """Returns {"headers_equal", "height", "certificates", "uncertified"}, having checked every certificate."""
    with contextlib.ExitStack() as stack:
        readers = [stack.enter_context(contextlib.closing(Reader.open(home / "data"))) for home in folders]
        height = min(reader.height() for reader in readers)
        equal = all(len({reader.header("trade", at) for reader in readers}) == 1 for at in range(height + 1))
        checked, bare = 0, 0
        for reader in readers:
            for at in range(1, height + 1):
                data, header = reader.certificate("trade", at), reader.header("trade", at)
                if data is None or header is None:
                    bare += 1
                    continue
                certificate.check_certificate(certificate.decode(data), header, reader.members, reader.epoch, "trade",
                                              reader.chain_id, verify_digest)
                checked += 1
    return {"headers_equal": equal, "height": height, "certificates": checked, "uncertified": bare}


def marks(reader: Reader) -> dict[str, int]:
    """Returns how many seals carry each mark."""
    found: Counter[str] = Counter()
    for sealed in committed_seals(reader):
        if sealed.code >= proof.MARKED:
            found.update(mark_names(sealed.code - proof.MARKED))
    return dict(found)


def held_text(report: dict[str, Any]) -> str:
    """What to say of a clock that somebody had to wait for; the day would have taken hours / speed."""
    wished_s, held_s = report["hours"] * 3600 / report["speed"], report["held_ms"] / 1000
    if held_s < wished_s * WORTH_SAYING:
        return ""
    return (f"; too fast for this machine, so that the clock waited {held_s:.1f} s: "
            f"it held {report['speed'] * wished_s / (wished_s + held_s):.0f}")


def _player_rows(report: dict[str, Any]) -> list[tuple[str, str]]:
    """The lines of market, witnesses and control device."""
    seen = report["witnesses"]
    rows = [("witnesses", f"{seen['k']} of {seen['n']} light nodes co-signed block {seen['height']}")]
    if "slots" in report:
        sums, slots, bids = report["settlement"], report["slots"], report["bids"]
        rows += [
            ("market", f"{report['clearings']} clearings, {report['trades']} trades, "
             f"turnover {sums['turnover_mc'] / 100_000:,.2f}"),
            ("settled", f"{slots['settled']} slots, sum {sums['sum_mc']}; {sums['sold_wh'] / 1000:,.1f} kWh sold = "
             f"{sums['bought_wh'] / 1000:,.1f} bought, short {sums['shortfall_wh'] / 1000:,.1f}, "
             f"over {sums['surplus_wh'] / 1000:,.1f}"),
            ("settled against the meters", f"{report['energies']['compared']} energies, worst difference "
             f"{report['energies']['worst_wh']} Wh, {report['energies']['missing']} missing"),
            ("bids against the paper", f"{bids['equal']} of {bids['cells']} as printed"),
            *([("fills against the paper", f"{report['fills']['equal']} of {report['fills']['cells']}")]
              if "fills" in report else []),
            *([("a bill", f"{report['bill']['verdict']}, {report['bill']['lines']} lines, "
                f"{report['bill']['total_mc'] / 100_000:,.2f}")] if report["bill"] else [])]
    if "device" in report:
        alarms = [f"{one['outcome']} of the {one['item']}: {one['kind']} at byte {one['offset']}, "
                  f"{'cleared' if one['cleared'] else 'NOT cleared'}" for one in report["alarms"]]
        rows.append(("control device", f"{report['device']['reports']} checks, " + ("; ".join(alarms) or "no alarm")))
    return rows


def table(report: dict[str, Any]) -> str:
    """Returns the report as lines for a person."""
    readings, truth, replicas = report["readings"], report["truth"], report["replicas"]
    refused = sum(readings["refused"].values())
    verdict = "equal" if truth["equal"] else "DIFFERENT"
    rows = [
        ("readings made", f"{readings['made']:,}"),
        ("readings sealed", f"{readings['sealed']:,}"),
        ("readings committed", f"{readings['committed']:,}, and {truth['details']:,} of other quantities"),
        ("refused / marked", f"{refused} / {sum(readings['marked'].values())}"),
        ("blocks", f"{report['blocks']:,}, {replicas['certificates']:,} certificates checked"),
        ("replicas", f"{replicas['count']}, headers {'equal' if replicas['headers_equal'] else 'DIFFERENT'}"),
        ("ledger against the meters", f"{verdict}: {truth['compared']:,} values, {truth['missing']} missing, "
         f"{truth['double']} double, {truth['altered']} altered"),
        ("proofs verified offline", f"{report['proofs']['good']} of {report['proofs']['tried']}"),
        *_player_rows(report),
        ("time", f"{report['seconds']:.0f} s for {report['hours']} h at speed {report['speed']}{held_text(report)}"),
    ]
    rows += [("difference", text) for text in truth["examples"]]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"  {name:<{width}}  {value}" for name, value in rows)
