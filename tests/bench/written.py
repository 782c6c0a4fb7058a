"""Makes the bytes that a replica writes in a day, by the kernel's count: four whole replicas, twenty points, real MQTT.

Labels run at SPEED: a minute of the meters takes a second. Each reading has a seal of its own; the points' envelopes
come in BURSTS through the minute, because agents are not in step, and each burst is made durable at once. Everything
that a replica process writes is counted, also its end, when SQLite folds its log into its file.
"""

import asyncio
from typing import Any

from deploy.clock import ClockKeeper
from firmware.wire import genesis
from tests import needs
from tests.bench.area import Area, Meter, make_area, replica_home, running_broker
from tests.bench.deciding import Process, replicas
from tests.bench.measure import Outcome, folder
from tests.ingest.parts import START_MS, Agent

AIM_MB = 200  # wire.md, Size of things
POINTS, BURSTS = 20, 4
SPEED = 60
MINUTE_MS = 60_000
WARM_MINUTES = 3
MINUTES_A_ROUND = 14  # 70 at the usual five rounds: two checkpoints of the votes and of SQLite's log
SETTLE_S = 5.0


def write(rounds: int) -> list[Outcome]:
    """The row `written`."""
    if needs.find_program("mosquitto") is None:
        return [Outcome("written", False, ["not measured: Mosquitto is not installed (./gridseal test --install)"], {})]
    minutes = rounds * MINUTES_A_ROUND
    each = POINTS // BURSTS
    agents = [Agent(number + 1, tuple(range(number * each + 1, (number + 1) * each + 1))) for number in range(BURSTS)]
    with folder() as where:
        area = make_area(where / "area", 4, agents, START_MS // 1000 - 3600, dict(genesis.DEMO_LABELS), SPEED)
        keeper = ClockKeeper(where / "clock", START_MS + MINUTE_MS - 1000, SPEED, [])
        with running_broker(area), replicas(area, "tests.bench.replica", str(where / "clock")) as processes:
            for one in processes:
                one.ask("listen")
            meters = [Meter(area, agent) for agent in agents]
            try:
                asyncio.run(_play(keeper, agents, meters, 0, WARM_MINUTES))
                before = _settled(processes, WARM_MINUTES * POINTS)
                asyncio.run(_play(keeper, agents, meters, WARM_MINUTES, minutes))
                after = _settled(processes, (WARM_MINUTES + minutes) * POINTS)
            finally:
                for meter in meters:
                    meter.stop()
            ends = [one.end() for one in processes]
        stored = max(_stored_bytes(area, index) for index in range(4))
    return [_outcome(before, after, ends, minutes, stored)]


async def _play(keeper: ClockKeeper, agents: list[Agent], meters: list[Meter], first: int, minutes: int) -> None:
    """Lets the meters measure and publish for so many minutes of the clock."""
    stop = asyncio.Event()
    keeper.step()  # it stood: what has passed since does not count
    keeper.run_until(START_MS + (first + minutes + 1) * MINUTE_MS + MINUTE_MS // 2)
    running = asyncio.create_task(keeper.run(stop))
    for minute in range(first, first + minutes):
        for number, (agent, meter) in enumerate(zip(agents, meters, strict=True)):
            due_ms = START_MS + (minute + 1) * MINUTE_MS + number * MINUTE_MS // BURSTS
            while keeper.step() < due_ms:
                await asyncio.sleep(0.005)
            for point in agent.points:
                meter.publish(agent.topic(), agent.next(point))
    await asyncio.sleep(SETTLE_S)
    for meter in meters:
        meter.settle()
    stop.set()
    await running


def _settled(processes: list[Process], seals: int) -> list[dict[str, Any]]:
    """What each replica has written so far; all of them hold all seals."""
    found = [one.ask("io") for one in processes]
    assert all(one["seals"] == seals for one in found), [{**one, "wanted": seals} for one in found]
    return found


def _stored_bytes(area: Area, index: int) -> int:
    return sum(path.stat().st_size for path in (replica_home(area, index) / "data").iterdir())


def _outcome(before: list[dict[str, Any]], after: list[dict[str, Any]], ends: list[dict[str, Any]], minutes: int,
             stored: int) -> Outcome:
    def per_day(count: float) -> float:
        return count * 1440 / minutes / 1e6

    most = max(range(len(ends)), key=lambda index: ends[index]["io"]["all"] - before[index]["io"]["all"])
    parts = {name: per_day(count - before[most]["io"].get(name, 0)) for name, count in after[most]["io"].items()}
    parts["end"] = per_day(ends[most]["io"]["all"] - after[most]["io"]["all"])
    total = per_day(ends[most]["io"]["all"] - before[most]["io"]["all"])
    blocks = (after[most]["height"] - before[most]["height"]) / minutes
    shown = ", ".join(f"{name} {count:.0f}" for name, count in parts.items() if name != "all" and count >= 0.5)
    lines = [f"{total:.0f} MB a day and replica   aim {AIM_MB}   {POINTS} points at one reading a minute, n = 4, "
             f"{minutes} minutes played, {blocks:.1f} blocks a minute",
             f"       by thread, MB a day: {shown}; the folder grows by {per_day(stored):.0f} MB a day"]
    return Outcome("written", total <= AIM_MB, lines, {
        "mb_per_day": total, "aim_mb": AIM_MB, "parts_mb_per_day": parts, "blocks_per_minute": blocks,
        "minutes": minutes, "stored_mb_per_day": per_day(stored)})
