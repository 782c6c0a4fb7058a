"""Makes a record of a cluster's life from outside: its highest certified block, the pauses between two, every fork."""

import threading
import time

from tests.chaos.area import ChaosArea
from tests.node.cluster import Meter, committed

LOOK_S = 0.25


class Watch:
    """Looks at the replicas all the time; `paused` is the longest time without a new block while that counted."""

    def __init__(self, area: ChaosArea) -> None:
        self._area = area
        self._stop = threading.Event()
        self.hashes: dict[int, str] = {}
        self.forks: list[str] = []
        self.height = 0
        self.moved_at = time.monotonic()
        self.paused_s = 0.0
        self.pauses: list[float] = []
        self.counts = False  # whether a pause counts as one
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def begin(self) -> None:
        """From now on a pause counts."""
        self.moved_at, self.counts = time.monotonic(), True

    def end(self) -> None:
        self.counts = False

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._stop.wait(LOOK_S):
            found = self._area.stands()
            for index, (_, height, digest) in found.items():
                if self.hashes.setdefault(height, digest) != digest:
                    self.forks.append(f"height {height}: {digest} at {index}, elsewhere {self.hashes[height]}")
            highest = max((stand.certified for stand in found.values()), default=0)
            now = time.monotonic()
            if self.counts:
                self.paused_s = max(self.paused_s, now - self.moved_at)
            if highest > self.height:
                if self.counts:
                    self.pauses.append(now - self.moved_at)
                self.height, self.moved_at = highest, now


class Load:
    """Meters that publish seals at a steady pace, and remember what was acknowledged to them."""

    def __init__(self, area: ChaosArea, meters: int, points: int, pause_s: float) -> None:
        self._area, self._pause_s = area, pause_s
        self.meters: list[Meter] = [area.enrol(*range(at * points + 1, (at + 1) * points + 1)) for at in range(meters)]
        self._stop = threading.Event()
        self.published = 0
        self.acked: dict[tuple[int, int], int] = {}  # (meter, point): highest height acknowledged
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._publish, self._hear)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _publish(self) -> None:
        while not self._stop.wait(self._pause_s):
            for meter in self.meters:
                meter.publish()
                self.published += len(meter.points)

    def _hear(self) -> None:
        while not self._stop.wait(0.05):
            self.take_acks()

    def take_acks(self) -> None:
        for number, meter in enumerate(self.meters):
            while not meter.acks.empty():
                for one in meter.acks.get().proofs:
                    place = number, one.point
                    self.acked[place] = max(self.acked.get(place, 0), one.height)

    def lost(self) -> list[str]:
        """What was acknowledged or published and is not in the ledger of every replica; call when all is quiet."""
        found = []
        for index in range(self._area.n):
            reader = self._area.ledger(index)
            for number, meter in enumerate(self.meters):
                for point in meter.points:
                    there, made = committed(reader, meter, point), meter.readings[point]
                    acked = self.acked.get((number, point), 0)
                    if there[:acked] != made[:acked]:
                        found.append(f"replica {index}, point {point}: acknowledged to {acked}, there {len(there)}")
                    elif there != made:
                        found.append(f"replica {index}, point {point}: {len(there)} of {len(made)} (not acknowledged)")
            reader.close()
        return found
