"""Makes faults happen to a world, one at a time, chosen and aimed by its chance; and its chain parameters."""

from random import Random
from typing import Any

from firmware.wire import genesis
from tests.cluster.machine import SEAMS
from tests.cluster.profile import Profile

FUSE_STEPS = 14  # a crash comes within this many duties: a Ready has rarely more
RARE_SEAMS = [seam for seam in SEAMS if seam.split()[-1] in (
    "checkpoint", "active", "new-view", "compact", "install", "installed")]
TURN_SEAMS = ("before transfer", "bucket", "transferred", "before epoch", "epoch", "votes of the epoch")
WRITE_SEAMS = ("append accepted", "append prepared", "append header vote")  # between a record and its sync
PAUSES_MS = (1_000, 5_000, 60_000, 600_000)


def parameters(chance: Random, profile: Profile) -> dict[str, int]:
    """Small marks and batches, so that 300 events see checkpoints, full windows and batch limits."""
    interval = profile.checkpoint_interval
    return genesis.parameters({
        "checkpoint_interval": interval,
        "log_window": 2 * interval,
        "view_change_max_ms": chance.choice((8_000, 60_000)),
        "batch_items": chance.choice((1, 3, 500)),
        "client_items": chance.choice((2, 128)),
        "wait_seal_ms": chance.choice((100, 1_000, 5_000)) * profile.speed,
        "heartbeat_s": 900 if profile.speed > 1 else chance.choice((20, 900)),
        "time_ahead_s": 2 * profile.speed,
        "time_behind_s": 10 * profile.speed,
    })


def inject(world: Any, kind: str) -> None:
    """Lets one fault happen."""
    note = _FAULTS[kind](world)
    world.note_fault(f"{kind}: {note}")


def _crash(world: Any) -> str:
    """Lights a fuse at one machine: it dies between two of its next duties, or the next time that it does one thing."""
    machine = world.chance.choice(world.machines)
    if machine.fuse_at is None and world.chance.random() < 0.7:
        way = world.chance.random()
        seams = RARE_SEAMS if way < 0.2 else TURN_SEAMS if way < 0.4 else WRITE_SEAMS if way < 0.8 else SEAMS
        machine.fuse_at = world.chance.choice(seams)
        return f"{machine.index} at {machine.fuse_at}"
    machine.fuse = world.chance.randrange(FUSE_STEPS)
    return f"{machine.index} within {machine.fuse} steps"


def _crash_all(world: Any) -> str:
    for machine in world.machines:
        machine.crash("all")
    return "everybody"


def _split(world: Any) -> str:
    kind = world.network.split(world.profile.size)
    if world.chance.random() < 0.8:
        world.mend_at_ms = world.now_ms + world.chance.choice((100, 3_000, 10_000, 60_000))
    return f"{kind} {sorted(world.network.cut)}"


def _blackout(world: Any) -> str:
    """Takes one member off, long enough to fall behind the others' logs; its catching up may be cut short as well."""
    machine = world.chance.choice(world.machines)
    world.network.isolate(machine.index, world.profile.size)
    world.mend_at_ms = world.now_ms + world.chance.choice((300, 1_000, 3_000, 10_000))
    machine.fuse_at = world.chance.choice(("before install", "installed", None))
    return f"{machine.index} until {world.mend_at_ms} ms, then {machine.fuse_at}"


def _rivals(world: Any) -> str:
    """Two certificates for one n: a batch prepares at one member only, which is away while the next view orders another
    batch there, and that too prepares at one member only. Whoever leads next has to choose (pbft.md 0.2)."""
    network, size = world.network, world.profile.size
    first, second = world.chance.sample(range(size), 2) if size > 1 else (0, 0)

    def part() -> None:
        network.keep_from_all_but(size, None)
        network.isolate(first, size)

    def prepare_second() -> None:
        network.keep_from_all_but(size, second)

    def rejoin() -> None:
        network.cut.clear()

    network.heal()
    network.keep_from_all_but(size, first)
    world.new_item(for_all=True)
    start_ms = world.now_ms
    steps = ((300, part), (2_400, prepare_second), (3_300, rejoin), (9_000, network.heal))  # T is 2 s
    world.script = [(start_ms + after_ms, step) for after_ms, step in steps]
    return f"{first}, then {second}"


def _mute(world: Any) -> str:
    note = world.network.mute(world.profile.size)
    world.mend_at_ms = world.now_ms + world.chance.choice((500, 3_000, 10_000))
    return str(note)


def _heal(world: Any) -> str:
    world.network.heal()
    return "all links"


def _pause(world: Any) -> str:
    machine = world.chance.choice(world.machines)
    pause_ms = world.chance.choice(PAUSES_MS)
    machine.paused_until = world.now_ms + pause_ms
    world.plan(machine.paused_until, "resume", machine, machine.paused_until)
    return f"{machine.index} for {pause_ms} ms"


def _flap(world: Any) -> str:
    if world.profile.size == 1:
        return "no link"
    sender, receiver = world.chance.sample(range(world.profile.size), 2)
    cut = world.network.cut
    if (sender, receiver) in cut:
        cut.discard((sender, receiver))
        return f"{sender} to {receiver} up"
    cut.add((sender, receiver))
    return f"{sender} to {receiver} down"


def _jump(world: Any) -> str:
    """A clock jumps. A far jump counts as one of the f: more of them would rightly stop block time for everybody."""
    machine = world.chance.choice(world.machines)
    faulty = (world.profile.size - 1) // 3
    if len(world.profile.liars) < faulty and machine.index < faulty - len(world.profile.liars):
        machine.skew_ms = world.chance.choice((-3_600_000, -11_000, 11_000, 3_600_000))
    else:
        machine.skew_ms = world.chance.choice((-1_500, 1_500))
    return f"clock of {machine.index} to {machine.skew_ms} ms"


def _swizzle(world: Any) -> str:
    """Takes some members off one by one and puts others back, so that no group stays together."""
    members = list(range(world.profile.size))
    gone = world.chance.sample(members, world.chance.randint(1, len(members) - 1)) if len(members) > 1 else []
    back = world.chance.sample(members, world.chance.randint(0, len(members)))
    for member in gone:
        world.network.isolate(member, len(members))
    world.network.cut = {pair for pair in world.network.cut if pair[0] not in back and pair[1] not in back}
    return f"off {gone}, back {back}"


_FAULTS = {
    "crash": _crash,
    "crash all": _crash_all,
    "split": _split,
    "blackout": _blackout,
    "heal": _heal,
    "mute": _mute,
    "rivals": _rivals,
    "pause": _pause,
    "flap": _flap,
    "jump": _jump,
    "swizzle": _swizzle,
}
