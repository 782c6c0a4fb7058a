"""Makes a plant's samples, and the truth about them, for any second from a seed and the quality asked for.

Theory. Time is cut into blocks: an AGC command (active power) every 300 s, an AVC command (bus voltage) every 600 s, a
place for a frequency event every 1,200 s, service and excuses by quarters of an hour. What the plant does in a block is
drawn by the quality of that kind: so many commands in 1000 are followed, the others are not, each in a way of its own.
All of it is recorded (`truth`), so that whoever computes the rates from the samples alone can compare.
A block starts where the one before it ended; a day starts at half power, so a sample costs the blocks since midnight
once and nothing afterwards. Integers only: mHz, W, mV, seconds of label time.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

from sim_hardware.chance import drift, pick, seed_of
from sim_hardware.errors import SimError

DAY_S, QUARTER_S = 86_400, 900
AGC_S, AVC_S, EVENT_S = 300, 600, 1200
AGC_RAMP_S, AVC_RAMP_S = 120, 60  # a good plant has done what it was told after this time
EVENT_LENGTH_S, RESPONSE_S = 60, 15  # of a frequency event; until a good plant gives all it should
NOMINAL_MHZ, NOMINAL_MV = 50_000, 110_000_000
DEADBAND_MHZ, DROOP_MHZ = 33, 2500  # primary response: all of the capacity for 5 % of 50 Hz
QUIET_MHZ = 15  # how far the frequency wanders without an event: never out of the dead band
NOISE_PERMILLE = 2
AGC_KINDS = ("slow", "stuck", "wrong_way")
AVC_KINDS = ("short", "stuck")
EVENT_KINDS = ("none", "weak")
IN_AGC, IN_AVC, EXCUSED, CONNECTED = 1, 2, 4, 8  # status bits
NAMES = ("agc_quality", "avc_quality", "frequency_quality", "agc_service", "avc_service", "excused")


class Sample(NamedTuple):
    """One second at the plant's terminals."""

    time_s: int
    frequency_mhz: int
    power_w: int
    agc_command_w: int
    voltage_mv: int
    avc_command_mv: int
    reactive_var: int
    status: int


class Block(NamedTuple):
    """What was told in one block, and what the plant made of it (kind: good, out, or one of the lists above)."""

    start_s: int
    command: int
    kind: str
    begins: int
    ends: int
    is_excused: bool


@dataclass
class Plan:
    """A plant; qualities, service and excuses in 1000. changes: (from which second, name, value) while it runs."""

    seed: int = 1
    capacity_kw: int = 50_000
    agc_quality: int = 950
    avc_quality: int = 950
    frequency_quality: int = 900
    agc_service: int = 980
    avc_service: int = 980
    excused: int = 20
    changes: list[tuple[int, str, int]] = field(default_factory=list)

    def check(self) -> None:
        """SimError `config` names what cannot be."""
        if not 10 <= self.capacity_kw <= 2_000_000:
            raise SimError("config", f"capacity: expected 10..2000000 kW, found {self.capacity_kw}")
        for name in NAMES:
            check_share(name, getattr(self, name))

    def at(self, name: str, time_s: int) -> int:
        """A quality as it was asked for at that second."""
        value: int = getattr(self, name)
        for from_s, changed, new in self.changes:
            if changed == name and from_s <= time_s:
                value = new
        return value


class Plant:
    """Samples and truth of one plan."""

    def __init__(self, plan: Plan) -> None:
        plan.check()
        self.plan = plan
        self._capacity_w = plan.capacity_kw * 1000
        self._seed = seed_of("plant", plan.seed)
        self._days: dict[tuple[str, int], list[Block]] = {}

    def change(self, name: str, value: int, now_s: int) -> None:
        """A quality from the next blocks on; what has been is not changed by it."""
        if name not in NAMES:
            raise SimError("config", f"expected one of {', '.join(NAMES)}, found {name!r}")
        check_share(name, value)
        self.plan.changes.append((now_s + 1, name, value))
        for kind in ("agc", "avc"):
            kept = self._days.get((kind, now_s // DAY_S), [])
            self._days[kind, now_s // DAY_S] = [block for block in kept if block.start_s <= now_s]

    def sample(self, time_s: int) -> Sample:
        """The plant at that second."""
        agc, avc = self._block("agc", time_s), self._block("avc", time_s)
        frequency = self.frequency_mhz(time_s)
        power = _ramped(agc, time_s, AGC_RAMP_S, AGC_S) + self._response_w(time_s, frequency)
        voltage = _ramped(avc, time_s, AVC_RAMP_S, AVC_S)
        power += self._noise("power", time_s, self._capacity_w // 1000 * NOISE_PERMILLE)
        voltage += self._noise("voltage", time_s, NOMINAL_MV // 20_000)
        status = CONNECTED | (IN_AGC if self._is_in("agc_service", time_s) else 0)
        status |= (IN_AVC if self._is_in("avc_service", time_s) else 0)
        status |= (EXCUSED if self._is_in("excused", time_s) else 0)
        reactive = (voltage - NOMINAL_MV) * self._capacity_w // NOMINAL_MV * 5
        return Sample(time_s, frequency, max(0, power), agc.command, voltage, avc.command, reactive, status)

    def frequency_mhz(self, time_s: int) -> int:
        quiet = drift(self._seed ^ 1, time_s, 20, -QUIET_MHZ, QUIET_MHZ)
        start_s, size, _ = self.event(time_s)
        into_s = time_s - start_s
        if not 0 <= into_s < EVENT_LENGTH_S:
            return NOMINAL_MHZ + quiet
        back_s = max(0, into_s - EVENT_LENGTH_S // 2)  # the second half goes back to normal
        return NOMINAL_MHZ + quiet // 3 + size * (EVENT_LENGTH_S // 2 - back_s) // (EVENT_LENGTH_S // 2)

    def event(self, time_s: int) -> tuple[int, int, str]:
        """(start, mHz, what the plant does: good, none, weak) of the frequency event in that second's place."""
        number = time_s // EVENT_S
        seed = seed_of("event", self._seed, number)
        start_s = number * EVENT_S + pick(seed, 1, 0, EVENT_S - EVENT_LENGTH_S)
        size = pick(seed, 2, 70, 150) * (1 if pick(seed, 3, 0, 1) else -1)
        return start_s, size, self._kind("frequency_quality", seed, start_s, EVENT_KINDS)

    def truth(self, from_s: int, until_s: int) -> dict[str, object]:
        """What was done on purpose between two seconds, and the rates that follow (in 1000, None for 0 of 0)."""
        blocks = {kind: [self._block(kind, at) for at in range(from_s, until_s, length)]
                  for kind, length in (("agc", AGC_S), ("avc", AVC_S))}
        events = [self.event(at) for at in range(from_s, until_s, EVENT_S)]
        quarters = [at for at in range(from_s, until_s, QUARTER_S) if not self._is_in("excused", at)]
        counted = {kind: [block for block in found if block.kind != "out" and not block.is_excused]
                   for kind, found in blocks.items()}
        judged = [kind for start_s, _, kind in events if not self._is_in("excused", start_s)]
        return {
            "agc": [block._asdict() for block in blocks["agc"]], "avc": [block._asdict() for block in blocks["avc"]],
            "events": [{"start_s": start_s, "size_mhz": size, "kind": kind} for start_s, size, kind in events],
            "rates": {
                "agc_operation": _rate(sum(self._is_in("agc_service", at) for at in quarters), len(quarters)),
                "avc_operation": _rate(sum(self._is_in("avc_service", at) for at in quarters), len(quarters)),
                "agc_followed": _rate(sum(b.kind == "good" for b in counted["agc"]), len(counted["agc"])),
                "avc_qualified": _rate(sum(b.kind == "good" for b in counted["avc"]), len(counted["avc"])),
                "frequency_qualified": _rate(judged.count("good"), len(judged))}}

    def _block(self, kind: str, time_s: int) -> Block:
        length_s = AGC_S if kind == "agc" else AVC_S
        day, into_s = divmod(time_s, DAY_S)
        blocks = self._days.setdefault((kind, day), [])
        while len(blocks) <= into_s // length_s:
            blocks.append(self._next(kind, day * DAY_S + len(blocks) * length_s, blocks[-1] if blocks else None))
        return blocks[into_s // length_s]

    def _next(self, kind: str, start_s: int, before: Block | None) -> Block:
        seed = seed_of(kind, self._seed, start_s)
        if kind == "agc":
            begins = before.ends if before else self._capacity_w // 2
            command = self._capacity_w // 1000 * pick(seed, 1, 300, 950)
        else:
            begins = before.ends if before else NOMINAL_MV
            command = NOMINAL_MV // 1000 * (1000 + pick(seed, 1, -20, 20))
        kinds = AGC_KINDS if kind == "agc" else AVC_KINDS
        what = self._kind(kind + "_quality", seed, start_s, kinds) if self._is_in(kind + "_service", start_s) else "out"
        way = command - begins
        ends = begins + {"good": way, "slow": way * 2 // 5, "short": way // 2, "wrong_way": -way // 5}.get(what, 0)
        if kind == "agc":
            ends = min(max(ends, 0), self._capacity_w)
        return Block(start_s, command, what, begins, ends, self._is_in("excused", start_s))

    def _kind(self, quality: str, seed: int, time_s: int, kinds: tuple[str, ...]) -> str:
        if pick(seed, 5, 0, 999) < self.plan.at(quality, time_s):
            return "good"
        return kinds[pick(seed, 6, 0, len(kinds) - 1)]

    def _is_in(self, name: str, time_s: int) -> bool:
        """Is AGC or AVC in service, or the plant excused, in that quarter of an hour?"""
        quarter = time_s // QUARTER_S
        return pick(seed_of(name, self._seed), quarter, 0, 999) < self.plan.at(name, quarter * QUARTER_S)

    def _response_w(self, time_s: int, frequency_mhz: int) -> int:
        """What primary regulation adds to the power, against the frequency's error beyond the dead band."""
        start_s, _, kind = self.event(time_s)
        error = frequency_mhz - NOMINAL_MHZ
        beyond = max(0, abs(error) - DEADBAND_MHZ)
        if not beyond or kind == "none":
            return 0
        share = {"good": 1000, "weak": 300}[kind] * min(time_s - start_s + 1, RESPONSE_S) // RESPONSE_S
        return (-1 if error > 0 else 1) * self._capacity_w * beyond // DROOP_MHZ * share // 1000

    def _noise(self, what: str, time_s: int, limit: int) -> int:
        return pick(seed_of(what, self._seed), time_s, -limit, limit)


def check_share(name: str, value: int) -> None:
    """SimError `config` unless it is a share in 1000."""
    if not 0 <= value <= 1000:
        raise SimError("config", f"{name}: expected 0..1000 (in 1000), found {value}")


def _ramped(block: Block, time_s: int, ramp_s: int, length_s: int) -> int:
    """Where a block has got to: a good one after its ramp, the others only in the end."""
    over_s = ramp_s if block.kind == "good" else length_s - 1
    done_s = min(time_s - block.start_s, over_s)
    return block.begins + (block.ends - block.begins) * done_s // over_s


def _rate(good: int, count: int) -> int | None:
    return good * 1000 // count if count else None
