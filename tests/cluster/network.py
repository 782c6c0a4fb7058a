"""Makes a message's arrival times at a peer, or none, from the faults that lie on the links."""

from random import Random
from typing import NamedTuple


class Weather(NamedTuple):
    """What the links of a seed do: chances 0..1, delays in ms."""

    loss: float
    duplication: float
    delay_ms: int  # uniform between 1 and this
    tail: float  # chance of a delay a hundred times as long: reordering across views
    corruption: float


class Network:
    """Links between members; a link may be cut one way."""

    def __init__(self, chance: Random, weather: Weather) -> None:
        self._chance = chance
        self.weather = weather
        self.cut: set[tuple[int, int]] = set()
        self.muted: set[tuple[str, int]] = set()  # (type of message, receiver) that gets none of it
        self.lost = 0

    def arrivals(self, sender: int, receiver: int, name: str) -> list[int]:
        """Delays in ms after which copies of one message of type `name` arrive."""
        chance, weather = self._chance, self.weather
        is_lost = (sender, receiver) in self.cut or (name, receiver) in self.muted
        if is_lost or chance.random() < weather.loss:
            self.lost += 1
            return []
        delays = [self._delay()]
        while len(delays) < 3 and chance.random() < weather.duplication:
            delays.append(self._delay())
        return delays

    def _delay(self) -> int:
        delay = self._chance.randint(1, self.weather.delay_ms)
        return delay * 100 if self._chance.random() < self.weather.tail else delay

    def corrupt(self, data: bytes) -> bytes:
        """The message as it arrives: now and then with a flipped bit or cut short."""
        if self._chance.random() >= self.weather.corruption or not data:
            return data
        if self._chance.random() < 0.3:
            return data[:self._chance.randrange(len(data))]
        at = self._chance.randrange(len(data))
        return data[:at] + bytes([data[at] ^ 1 << self._chance.randrange(8)]) + data[at + 1:]

    def split(self, size: int) -> str:
        """Cuts the members in two groups, one member off, or one link one way; returns which."""
        kind = self._chance.choice(("halves", "halves", "alone", "one way", "bridge"))
        members = list(range(size))
        self._chance.shuffle(members)
        if kind == "one way":
            self.cut.add((members[0], members[-1]))
            return kind
        at = 1 if kind == "alone" else self._chance.randint(1, max(1, size - 1))
        left, right = members[:at], members[at:]
        if kind == "bridge" and len(right) > 1:
            right = right[1:]  # that member still speaks with both sides
        self.cut.update((a, b) for a in left for b in right)
        self.cut.update((b, a) for a in left for b in right)
        return kind

    def mute(self, size: int) -> str:
        """Some members get no messages of one type: votes that are given and yet do not count."""
        name = self._chance.choice(("prepare", "commit", "commit", "pre-prepare", "new-view", "view-change", "data"))
        receivers = self._chance.sample(range(size), self._chance.randint(1, size))
        self.muted = {(name, receiver) for receiver in receivers}
        if self._chance.random() < 0.5:
            self.muted.update(("data", receiver) for receiver in range(size))  # nor are decisions told afterwards
        return f"no {name} for {sorted(receivers)}"

    def keep_from_all_but(self, size: int, lucky: int | None) -> None:
        """Only one member gets enough PREPAREs to be prepared, and nobody's COMMIT arrives."""
        self.muted = {(name, member) for name in ("prepare", "commit", "data") for member in range(size)}
        if lucky is not None:
            self.muted.discard(("prepare", lucky))

    def isolate(self, member: int, size: int) -> None:
        for other in range(size):
            if other != member:
                self.cut.update(((member, other), (other, member)))

    def heal(self) -> None:
        self.cut.clear()
        self.muted.clear()
