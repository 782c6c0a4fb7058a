"""Makes what a fleet of meter agents would send in any moment of label time, from a plan and a seed; no I/O.

Each agent serves so many points; each point's meter has a power of its own and a register that integrates it, so that
values rise as real ones do. A point sends one seal an interval, over so many readings. Some agents are away for a
while and then send all of it with its own times; some have clocks that are wrong; some are hostile: beside what is due
they send one of MISDEEDS each time, none of which may change what the ledger holds.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from sim_hardware.chance import pick, seed_of
from sim_hardware.errors import SimError
from sim_hardware.fleet import wire

MISDEEDS = ("bad_signature", "fork", "replay", "garbage", "oversize", "wrong_root", "wrong_point", "wrong_chain",
            "unknown_key", "high_s")
OVERSIZE_BYTES = 61 * 1024  # above an envelope's 60 KiB, below the broker's 64
MOST_AGENTS, MOST_POINTS = 2000, 256  # of one fleet; of one agent, by the chain's own limit
WINDOWS = 10  # a place for an outage comes every ten of its lengths


@dataclass(frozen=True)
class Plan:
    """A fleet. Shares are in 1000 agents; times in seconds but for the jitter."""

    area: str
    chain_id: bytes
    agents: int = 10
    points: int = 10
    first_point: int = 1
    seed: int = 1
    interval_s: int = 60
    readings: int = 1
    jitter_ms: int = 2000
    rate: int = 0  # seals a second, evenly spread, in place of an interval
    outage_permille: int = 0
    outage_s: int = 600
    clock_permille: int = 0
    clock_error_s: int = 120
    hostile_permille: int = 0

    def check(self) -> None:
        """SimError `config` names what cannot be."""
        for name, value, low, high in (
                ("agents", self.agents, 1, MOST_AGENTS), ("points", self.points, 1, MOST_POINTS),
                ("readings", self.readings, 1, 60), ("interval", self.interval_s, 1, 86_400),
                ("jitter", self.jitter_ms, 0, self.interval_s * 500), ("rate", self.rate, 0, 100_000),
                ("outage share", self.outage_permille, 0, 1000), ("outage", self.outage_s, 1, 86_400),
                ("clock share", self.clock_permille, 0, 1000), ("clock error", self.clock_error_s, 0, 10**6),
                ("hostile share", self.hostile_permille, 0, 1000)):
            if not low <= value <= high:
                raise SimError("config", f"{name}: expected {low}..{high}, found {value}")

    @property
    def period_ms(self) -> int:
        """Between two seals of one point."""
        if self.rate:
            return max(self.readings, self.agents * self.points * 1000 // self.rate)
        return self.interval_s * 1000

    def key(self, number: int) -> wire.Key:
        """The signing key of an agent: a test key, since the seed says it all."""
        return wire.Key(hashlib.sha256(f"gridseal test fleet {self.seed} {number}".encode()).digest())


@dataclass
class Point:
    """One meter and its chain of seals."""

    number: int
    power_w: int
    base_wh: int
    height: int = 0
    previous: bytes = bytes(32)
    due_ms: int = 0
    last_ms: int = 0


@dataclass(frozen=True)
class Envelope:
    """What goes to the broker; misdeed: "" for what is honest and must end on the ledger."""

    topic: str
    data: bytes
    agent: int
    point: int
    height: int
    misdeed: str = ""


@dataclass
class Agent:
    """One key and the meters behind it."""

    number: int
    key: wire.Key
    points: list[Point]
    is_hostile: bool
    clock_error_ms: int
    waiting: list[Envelope] = field(default_factory=list)  # made during an outage
    last: Envelope | None = None
    turns: int = 0


class Fleet:
    """All agents of a plan. `due(label_ms)` is to be called often; each call gives what is to be sent by then."""

    def __init__(self, plan: Plan, start_ms: int) -> None:
        plan.check()
        self.plan = plan
        self.start_ms = start_ms
        self._seed = seed_of("fleet", plan.seed)
        self.agents = [self._agent(number) for number in range(plan.agents)]
        self.points = {point.number: (agent, point) for agent in self.agents for point in agent.points}

    def next_ms(self) -> int:
        """The label of what is due next."""
        return min(point.due_ms for agent in self.agents for point in agent.points)

    def due(self, label_ms: int) -> Iterator[Envelope]:
        """What the fleet sends up to that label, in the order of each agent's own."""
        for agent in self.agents:
            is_away = self.is_away(agent, label_ms)
            if not is_away and agent.waiting:
                yield from agent.waiting
                agent.waiting = []
            for point in agent.points:
                while point.due_ms <= label_ms:
                    made = self._seal(agent, point)
                    if is_away:
                        agent.waiting.append(made)
                        continue
                    yield made
                    if agent.is_hostile:
                        yield self._misdeed(agent, point, made)
                    agent.last = made

    def is_away(self, agent: Agent, label_ms: int) -> bool:
        """Is that agent's line down?"""
        length_ms = self.plan.outage_s * 1000
        window, offset = divmod(label_ms - self.start_ms, WINDOWS * length_ms)
        seed = self._seed ^ agent.number
        begins = pick(seed, 2 * window, 0, WINDOWS - 2) * length_ms
        return pick(seed, 2 * window + 1, 0, 999) < self.plan.outage_permille and begins <= offset < begins + length_ms

    def register_wh(self, point: Point, label_ms: int) -> int:
        """What that meter shows."""
        return point.base_wh + point.power_w * max(0, label_ms - self.start_ms) // 3_600_000

    def _agent(self, number: int) -> Agent:
        plan, seed = self.plan, seed_of("agent", self.plan.seed, number)
        error_ms = plan.clock_error_s * 1000 if pick(seed, 1, 0, 999) < plan.clock_permille else 0
        points = []
        for index in range(plan.points):
            place = number * plan.points + index
            one = Point(plan.first_point + place, pick(seed, 10 + index, 50, 3000), pick(seed, 1000 + index, 0, 10**7))
            shift = place * plan.period_ms // (plan.agents * plan.points) if plan.rate else 0
            floor = self.start_ms if plan.rate else self.start_ms - self.start_ms % plan.period_ms + plan.period_ms
            one.due_ms = floor + shift + (0 if plan.rate else pick(seed, -index, 0, plan.jitter_ms))
            points.append(one)
        return Agent(number, plan.key(number), points, pick(seed, 3, 0, 999) < plan.hostile_permille,
                     error_ms if pick(seed, 2, 0, 1) else -error_ms)

    def _seal(self, agent: Agent, point: Point) -> Envelope:
        """The point's next seal; its readings lie evenly between the last one and now."""
        made = self._make(agent, point, point.due_ms, point.height + 1, point.previous)
        plan = self.plan
        point.height += 1
        point.previous = hashlib.sha256(self._payload).digest()
        jitter = 0
        if not plan.rate and plan.jitter_ms:
            jitter = pick(seed_of("jitter", plan.seed, point.number), point.height, 0, plan.jitter_ms)
            grid = point.due_ms - point.due_ms % plan.period_ms
            point.due_ms = grid + plan.period_ms + jitter
        else:
            point.due_ms += plan.period_ms
        return made

    def _make(self, agent: Agent, point: Point, due_ms: int, height: int, previous: bytes,
              chain_id: bytes | None = None, key: wire.Key | None = None, is_high: bool = False) -> Envelope:
        plan, signer = self.plan, key or agent.key
        quality = wire.UNSYNCHRONISED if agent.clock_error_ms else wire.SYNCHRONISED
        readings, times = [], []
        import_wh = 0
        for index in range(plan.readings):
            true_ms = due_ms - (plan.readings - 1 - index) * plan.period_ms // plan.readings
            time_ms = max(true_ms + agent.clock_error_ms, point.last_ms + 1 if height > point.height else 0)
            import_wh = self.register_wh(point, true_ms)
            raw = hashlib.sha256(b"%d %d" % (point.number, true_ms)).digest()
            readings.append(wire.reading(signer.kid, point.number, time_ms, (
                ("36.7.0", "W", point.power_w), ("1.8.0", "Wh", import_wh), ("2.8.0", "Wh", 0)), quality, raw))
            times.append(time_ms)
            if height > point.height:
                point.last_ms = time_ms
        self._payload = wire.seal(signer.kid, point.number, height, 0, previous, readings, (times[0], times[-1]),
                                  (import_wh, 0), quality, hashlib.sha256(b"a fleet's program").digest())
        message = signer.sign1(self._payload, "seal", chain_id or plan.chain_id, is_high)
        self._readings, self._message = readings, message
        return Envelope(wire.topic(plan.area, agent.key.kid, "envelope"), wire.envelope(message, readings),
                        agent.number, point.number, height)

    def _misdeed(self, agent: Agent, point: Point, honest: Envelope) -> Envelope:
        """One thing that a hostile agent does beside what it should; the next of MISDEEDS each time."""
        kind = MISDEEDS[agent.turns % len(MISDEEDS)]
        agent.turns += 1
        data = honest.data
        message, readings = self._message, self._readings
        if kind == "bad_signature":
            data = wire.envelope(message[:-1] + bytes((message[-1] ^ 1,)), readings)
        elif kind == "fork":
            data = self._again(agent, point, honest, point.due_ms + 1)
        elif kind == "replay" and agent.last is not None:
            data = agent.last.data
        elif kind == "garbage":
            data = b"".join(hashlib.sha256(data + bytes((n,))).digest() for n in range(8))
        elif kind == "oversize":
            data = wire.envelope(message, [readings[0]] * (OVERSIZE_BYTES // len(readings[0]) + 1))
        elif kind == "wrong_root":
            data = wire.envelope(message, [readings[0][:-1] + bytes((readings[0][-1] ^ 1,))] + readings[1:])
        elif kind == "wrong_point":
            other = Point(self.plan.first_point + len(self.points) + 1, 1, 1)
            data = self._make(agent, other, point.due_ms, 1, bytes(32)).data
        elif kind == "wrong_chain":
            data = self._again(agent, point, honest, point.due_ms, bytes(32))
        elif kind == "unknown_key":
            stranger = self.plan.key(MOST_AGENTS + agent.number)
            data = self._again(agent, point, honest, point.due_ms, None, stranger)
        elif kind == "high_s":  # the same seal with the other half of the signature: verifiers take both
            signed = agent.key.sign1(self._payload, "seal", self.plan.chain_id, True)
            data = wire.envelope(signed, readings)
        return Envelope(honest.topic, data, agent.number, point.number, honest.height, kind)

    def _again(self, agent: Agent, point: Point, honest: Envelope, due_ms: int, chain_id: bytes | None = None,
               key: wire.Key | None = None) -> bytes:
        """Another seal for the height that was just used."""
        return self._make(agent, point, due_ms, honest.height, bytes(32), chain_id, key).data
