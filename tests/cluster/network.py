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
        self.lost = 0

    def arrivals(self, sender: int, receiver: int) -> list[int]:
        """Delays in ms after which copies of one message arrive."""
        chance, weather = self._chance, self.weather
        if (sender, receiver) in self.cut or chance.random() < weather.loss:
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

    def heal(self) -> None:
        self.cut.clear()
