"""Makes the demo's world from a few numbers: which points there are, on which buses, what drives them, who reads them.

The first four points are the distribution-network paper's Table 4: three enterprises' actual demand (LA1-LA3) and the
microgrid's residual wind; each belongs to a participant of its own, who trades. All others run on generated load, sun
and wind, and are labelled so; they belong to one participant, whom the grid supplies.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from firmware.wire import genesis

DAY_START_S = 1_781_913_600  # 2026-06-20T00:00:00Z, the day that is played
BUS_METERS = 3  # few enough that a poll round of a slow line ends well before the next
METERS = 48
STEP_S = 60  # a simulated meter's registers change once a minute: a reading of a minute has one truth
INTERVAL_S = 60
SEAL_EVERY_S = 300
WAIT_SEAL_MS = 60_000  # label time in which a block gathers seals: at speed 600 a tenth of a second
AFTER_MS = 12 * 3_600_000  # the clock may run on while the day's last seals are ordered
# Of the current transformers at Table 4's points: up to 171 kW, and the meters end at 69 kW. The table's energies are
# whole 10 Wh, so that a fifth of each is whole Wh, and what is settled is the table's figure to the Wh.
RATIO = 5

TRADERS = ("LA1", "LA2", "LA3", "MG")  # points 1 to 4, and who owns them
OTHERS = "village"  # owns all other points
_MORE = (("sdm120", "generated:household"), ("sdm120", "generated:prosumer"), ("pzem004t", "generated:household"),
         ("sdm120", "generated:sun"), ("sdm630", "generated:household"), ("sdm120", "generated:wind"),
         ("pzem004t", "generated:household"), ("sdm630", "generated:prosumer"))


class Point(NamedTuple):
    """A metering point with its simulated meter."""

    number: int
    unit: int
    type: str
    day: str
    ratio: int  # of its current transformer: the meter sees the day's power divided by it


class Bus(NamedTuple):
    """Up to three points of one owner on one line, read by one agent."""

    name: str
    owner: str
    is_rtu: bool
    baud: int
    points: tuple[Point, ...]


def make_buses(meters: int) -> list[Bus]:
    """Returns the buses of so many points: TCP and RTU in turn. ValueError beyond 1 to 48."""
    if not 1 <= meters <= METERS:
        raise ValueError(f"--meters: 1 to {METERS}, not {meters}")
    groups = [(name, [Point(number, 1, "sdm630", f"table4:{name}", RATIO)])
              for number, name in enumerate(TRADERS[:meters], 1)]
    others = [Point(number, (number - len(TRADERS) - 1) % BUS_METERS + 1,
                    *_MORE[(number - len(TRADERS) - 1) % len(_MORE)], 1)
              for number in range(len(TRADERS) + 1, meters + 1)]
    groups += [(OTHERS, others[start:start + BUS_METERS]) for start in range(0, len(others), BUS_METERS)]
    return [Bus(f"agent-{index + 1}", owner, index % 2 == 1, 9600, tuple(points))
            for index, (owner, points) in enumerate(groups)]


def origin(meters: int) -> str:
    """Says what drives the points."""
    paper = min(meters, len(TRADERS))
    return (f"{', '.join(TRADERS[:paper])} by the paper's table"
            + (f", the other {meters - paper} generated load, sun and wind" if meters > paper else ""))


def chain_parameters(speed: int) -> dict[str, int]:
    """Returns the chain parameters of a demo chain: bounds that compare labels grow with the speed (ledger.md)."""
    usual = genesis.parameters()
    changes = {"time_ahead_s": usual["time_ahead_s"] * speed, "time_behind_s": usual["time_behind_s"] * speed,
               "boundary_s": min(300, usual["boundary_s"] * speed), "late_s": max(usual["late_s"], 12 * speed)}
    if speed > 1:
        changes["wait_seal_ms"] = WAIT_SEAL_MS
    return changes


def simulator_file(folder: Path, buses: list[Bus], seed: int, truth: Path) -> str:
    """Returns the TOML of one simulator process that serves `buses`."""
    lines = [f"seed = {seed}", f"step_s = {STEP_S}", f'truth = "{truth}"']
    for bus in buses:
        lines += ["", "[[bus]]"]
        if bus.is_rtu:
            lines += [f'pty = "{folder / (bus.name + ".tty")}"', f"baud = {bus.baud}"]
        else:
            lines += ['tcp = "127.0.0.1:0"']
        for point in bus.points:
            lines += ["[[bus.meter]]", f"point = {point.number}", f"unit = {point.unit}", f'type = "{point.type}"',
                      f'day = "{point.day}"', f"scale = {1 / point.ratio}"]
    return "\n".join(lines) + "\n"


def meter_file(area: str, brokers: list[str], bus: Bus, port: str) -> str:
    """Returns the meter.toml of the agent that reads `bus` at `port`."""
    quoted = ", ".join(f'"{url}"' for url in brokers)
    lines = [f'area = "{area}"', 'genesis = "genesis.cbor"', 'data = "data"', f"brokers = [{quoted}]",
             f"interval_s = {INTERVAL_S}", f"seal_every_s = {SEAL_EVERY_S}", 'signing_key = "signing.key"',
             'tls_cert = "tls.crt"', 'tls_key = "tls.key"', 'ca = "ca.crt"', "", "[[bus]]", f'port = "{port}"']
    if bus.is_rtu:
        lines.append(f"baud = {bus.baud}")
    for point in bus.points:
        lines += ["[[bus.meter]]", f"point = {point.number}", f"unit = {point.unit}", f'type = "{point.type}"']
    return "\n".join(lines) + "\n"
