"""Makes everything that a seed decides about a run before its first event: sizes, faults, liars, pace."""

from random import Random
from typing import NamedTuple

from tests.cluster.network import Weather

LIES = (
    "twin",  # two Replicas with one key, each speaking to a part of the cluster: equivocation in every message type
    "split",  # as primary: other batches for other backups, each signed and voted for
    "eager",  # PREPARE and COMMIT for every digest seen, in every view, whatever was promised
    "hide",  # VIEW-CHANGEs without the certificates that were prepared
    "new_view",  # NEW-VIEWs with another O
    "silence",  # nothing to some of the members
    "replay",  # any past message of anybody, again
    "garbage",  # bytes, and well-signed nonsense
    "checkpoint",  # wrong checkpoints and header votes
    "flood",  # VIEW-CHANGEs for v+1 .. v+10^6
)


class Profile(NamedTuple):
    """A run's fixed part. Chances are per event."""

    size: int
    speed: int
    checkpoint_interval: int
    depth: int
    weather: Weather
    fault_chance: float  # of a fault instead of the next event
    faults: tuple[str, ...]  # drawn with equal chance
    slow_disk_ms: int  # 0: a sync takes no time
    execute_ms: int
    check_ms: int
    gather_ms: int  # messages of so long are one call; 0: each is one
    submit_chance: float
    retry_chance: float  # of a client sending an old item again, perhaps to another replica
    spread: str  # who gets an item first: "all", "one", "backup", "some"
    transaction_share: float
    skew_ms: int  # clocks differ by up to this
    liars: tuple[int, ...]
    lies: tuple[str, ...]
    do_liars_stop: bool  # at the healing
    opening: str  # the fault that a run begins with: "" for none


def profile_of(chance: Random, size: int) -> Profile:
    """Draws a profile: each seed has a character of its own, so that rare states are reached by some."""
    faulty = (size - 1) // 3
    is_lying = faulty > 0 and chance.random() < 0.55
    liars = tuple(sorted(chance.sample(range(size), chance.randint(1, faulty)))) if is_lying else ()
    lies = tuple(sorted(chance.sample(LIES, chance.randint(1, 4)))) if is_lying else ()
    weather = Weather(
        loss=chance.choice((0.0, 0.0, 0.02, 0.1, 0.25)),
        duplication=chance.choice((0.0, 0.02, 0.2)),
        delay_ms=chance.choice((2, 20, 20, 200)),
        tail=chance.choice((0.0, 0.0, 0.02, 0.1)),
        corruption=chance.choice((0.0, 0.0, 0.0, 0.02)),
    )
    menu = ("crash", "crash", "crash all", "split", "blackout", "mute", "rivals", "heal", "pause", "flap", "jump",
            "swizzle")
    profile = Profile(
        size=size,
        speed=chance.choice((1, 1, 600)),
        checkpoint_interval=chance.choice((1, 2, 2, 3, 4, 8)),
        depth=chance.choice((1, 2, 8)),
        weather=weather,
        fault_chance=chance.choice((0.0, 0.02, 0.02, 0.05, 0.1)),
        faults=tuple(chance.sample(menu, chance.randint(2, len(menu)))),
        slow_disk_ms=chance.choice((0, 0, 15, 150)),
        execute_ms=chance.choice((0, 0, 5, 300)),
        check_ms=chance.choice((0, 0, 10, 500)),
        gather_ms=chance.choice((0, 0, 1, 20)),
        submit_chance=chance.choice((0.02, 0.06, 0.15)),
        retry_chance=chance.choice((0.0, 0.01, 0.05)),
        spread=chance.choice(("all", "all", "one", "backup", "some")),
        transaction_share=chance.choice((0.0, 0.5, 1.0, 1.0)),
        skew_ms=chance.choice((0, 500, 1500)),
        liars=liars,
        lies=lies,
        do_liars_stop=chance.random() < 0.5,
        opening=chance.choice(("blackout", "rivals", "", "", "", "")),
    )
    if profile.opening == "rivals":
        profile = profile._replace(  # a plan of several seconds, which other faults would only spoil
            fault_chance=chance.choice((0.0, 0.01)), faults=("crash", "pause"), transaction_share=1.0, skew_ms=0,
            check_ms=10, execute_ms=5, slow_disk_ms=chance.choice((0, 15)), submit_chance=0.02,
            weather=weather._replace(loss=0.0, tail=0.0, delay_ms=20))
    if profile.opening == "blackout":  # the others have to get ahead of it by more than their logs
        profile = profile._replace(
            checkpoint_interval=chance.choice((1, 1, 2)), submit_chance=0.15, transaction_share=1.0, fault_chance=0.02)
    return profile
