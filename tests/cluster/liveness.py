"""Makes the world whole again after the faults, and demands that it then finishes its work within a bound.

Invariant 24: with q healthy connected replicas and bounded delay every item that an honest machine holds is executed by
every honest machine, heads are equal, the newest is certified everywhere, and no more views are needed. Where the state
has deadlines, block time passes the next one too, though nobody has an item.
"""

from typing import Any

from tests.cluster.judge import Violation
from tests.cluster.network import Weather

CALM = Weather(loss=0.0, duplication=0.0, delay_ms=20, tail=0.0, corruption=0.0)
CATCHING_UP = ("before install", "installed")  # mostly happens after the healing: one more crash there is allowed
BOUND_MS = 900_000  # view timers have doubled to their cap of 60 s at worst; some rounds of that, and the work itself
BOUND_EVENTS = 20_000  # and for each item as much as follows: a batch of one takes n^2 messages in four phases
EVENTS_AN_ITEM = 100  # times n^2
LOOK_EVENTS = 25  # between two looks at whether everything is done


def heal(world: Any) -> None:
    """Ends all faults: links, clocks, disks, processes; liars go on or fall silent as the profile says."""
    world.note_fault("healing: everything")
    world.healed = True
    world.script.clear()
    world.network.heal()
    world.network.weather = CALM
    for machine in world.machines:
        machine.fuse = None
        if machine.fuse_at not in CATCHING_UP:
            machine.fuse_at = None
        world.resume(machine)
        is_skewed = abs(machine.skew_ms) > world.profile.skew_ms
        machine.skew_ms = 0 if is_skewed else machine.skew_ms
        if is_skewed or machine.is_clock_ahead():
            machine.crash("clock set")
        if not machine.up:
            machine.start()
    if world.profile.do_liars_stop:
        for liar in world.liars:
            liar.stop()


def check(world: Any) -> None:
    """Runs on until all is done; a Violation when the bound of virtual time or of events is passed first."""
    until_ms = world.now_ms + BOUND_MS
    bound_events = BOUND_EVENTS + EVENTS_AN_ITEM * world.count ** 2 * len(world.items)
    until_events = world.events + bound_events
    deadline_s = max(machine.ledger.deadline_s or 0 for machine in world.honest)
    lacking = what_lacks(world) or what_is_late(world, deadline_s)
    stride = LOOK_EVENTS if world.profile.size > 1 else 1  # alone, a few heartbeats of 15 minutes are 25 events
    if world.slot_s:
        stride = 1  # every few seconds the heads differ for a moment
    while lacking:
        for _ in range(stride):
            if not world.next_event():
                raise Violation(world, 24, f"nothing is planned any more, but {lacking}")
        lacking = what_lacks(world) or what_is_late(world, deadline_s)
        if lacking and (world.now_ms > until_ms or world.events > until_events):
            raise Violation(world, 24, f"{lacking}, {BOUND_MS} ms or {bound_events} events after the healing")


def what_lacks(world: Any) -> str:
    """What is not yet as it must be in the end; empty when all is done."""
    wanted = set()
    newest = len(world.sets) - 1
    seated = [machine for machine in world.honest if machine.index in world.sets[newest]]
    for machine in seated:
        if machine.epoch != newest:
            return f"machine {machine.index} lives in epoch {machine.epoch} of {newest}"
        wanted.update(machine.envelopes)
    heads = {machine.ledger.newest.header_hash for machine in seated}
    for machine in seated:
        missing = [key for key in wanted if key not in machine.ledger.clients]
        if missing:
            return f"machine {machine.index} has not executed {len(missing)} of {len(wanted)} items"
    if len(heads) > 1:
        heights = [machine.ledger.newest.height for machine in seated]
        return f"heads differ, heights {heights}"
    checkpoint = max(machine.replica.low if machine.up else 0 for machine in seated)
    for machine in world.honest:
        if machine.index not in world.sets[newest] and machine.ledger.n < checkpoint:
            return f"observer {machine.index} stands at n {machine.ledger.n} of {checkpoint}"
    for machine in seated:
        height = machine.ledger.newest.height
        if height and height not in machine.ledger.certificates:
            return f"machine {machine.index} has no certificate for height {height}"
    return ""


def what_is_late(world: Any, deadline_s: int) -> str:
    """A deadline of the state that block time has not passed: time must not be stopped by a primary."""
    for machine in world.honest:
        if machine.seat is not None and machine.ledger.time_s < deadline_s:
            return f"machine {machine.index} stands at {machine.ledger.time_s}, before a deadline at {deadline_s}"
    return ""
