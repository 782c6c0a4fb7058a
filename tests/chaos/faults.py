"""Makes one kind of trouble each: `begin` with its victims, `end` when its time is over, everything as it was."""

import random
import signal
from collections.abc import Callable
from typing import NamedTuple

from tests.chaos.area import ChaosArea
from tests.chaos.liar import LIES

HOUR_MS = 3_600_000
JUMPS_MS = (1000, 30_000, HOUR_MS, 24 * HOUR_MS, -1000, -30_000, -HOUR_MS)


class Fault(NamedTuple):
    """What happens to a replica, and what ends it; both are told the area and the replica."""

    begin: Callable[[ChaosArea, int, random.Random], str]  # what exactly it was
    end: Callable[[ChaosArea, int], None]


def _kill(area: ChaosArea, index: int, chance: random.Random) -> str:
    area.kill(index)
    return ""


def _start(area: ChaosArea, index: int) -> None:
    if area.processes[index].poll() is None:
        area.kill(index)
    area.start_replica(index)


def _pause(area: ChaosArea, index: int, chance: random.Random) -> str:
    area.processes[index].send_signal(signal.SIGSTOP)
    return ""


def _go_on(area: ChaosArea, index: int) -> None:
    area.processes[index].send_signal(signal.SIGCONT)


def _part(area: ChaosArea, index: int, chance: random.Random) -> str:
    """Alone; or one way only, with one of the others; or off every wire."""
    way = chance.choice(("alone", "unplugged", "deaf to one", "dumb to one"))
    other = chance.choice([one for one in range(area.n) if one != index])
    if way == "alone":
        area.wires.part({index})
    elif way == "unplugged":
        area.wires.unplug(index)
    else:
        area.wires.cut(*((other, index) if way == "deaf to one" else (index, other)))
    return way if "one" not in way else f"{way}: {other}"


def _heal(area: ChaosArea, index: int) -> None:
    area.wires.heal()


def _fill(area: ChaosArea, index: int, chance: random.Random) -> str:
    area.fill_disk(index)
    return ""


def _empty(area: ChaosArea, index: int) -> None:
    """Whoever ended for want of room is started again, as a supervisor would."""
    area.empty_disk(index)
    if area.processes[index].poll() is not None:
        area.start_replica(index)


def _jump(area: ChaosArea, index: int, chance: random.Random) -> str:
    ms = chance.choice(JUMPS_MS)
    area.clocks[index].jump(ms)
    _JUMPED[index] = ms
    return f"{ms / 1000:+g} s"


def _set_right(area: ChaosArea, index: int) -> None:
    """The clock is set again. Labels never go back in a running process: one that was far ahead is started anew."""
    ms = _JUMPED.pop(index)
    area.clocks[index].jump(-ms)
    if ms > 0:
        _start(area, index)


def _lie(area: ChaosArea, index: int, chance: random.Random) -> str:
    lies = ",".join(sorted(chance.sample(LIES[:-1], chance.randint(1, 3))))
    area.kill(index)
    area.start_replica(index, lies=lies)
    return lies


_JUMPED: dict[int, int] = {}
FAULTS = {"kill": Fault(_kill, _start), "pause": Fault(_pause, _go_on), "partition": Fault(_part, _heal),
          "disk": Fault(_fill, _empty), "clock": Fault(_jump, _set_right), "liar": Fault(_lie, _start)}
