"""Makes row 14: from an order's leaving to its certified receipt, ten participants over a broker, four replicas.

Everything is as in the field: processes, Mosquitto with TLS, each participant's own connection, receipts checked. Two
loads: orders that come spread in time, each participant one in PERIOD_S, and all ten at once, as before a gate.
"""

import contextlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from deploy.clock import SystemClock
from deploy.line import Line
from deploy.operator import Person
from firmware.wire import trading
from tests.bench.measure import Outcome, folder, quantile
from tests.trading.area import Area, running

PARTICIPANTS, REPLICAS = 10, 4
ORDERS, PERIOD_S = 20, 1.0  # of each participant in a round
BURSTS = 10
FLOOR_MS, AIM_MS = 50.0, 20.0  # of p95; the paper says 200
WARM = 2  # orders of each before it counts


def order(rounds: int) -> list[Outcome]:
    """Row 14."""
    with folder() as where, running(where / "trading", REPLICAS) as area:
        people = _make_people(area)
        slot_s = int(area.show()["slot_s"]) + 3600
        with contextlib.ExitStack() as held:
            desks = [_Desk(person, number + 1, slot_s, held.enter_context(person.line(person.area, person.brokers)))
                     for number, person in enumerate(people)]
            with ThreadPoolExecutor(PARTICIPANTS) as pool:
                for _ in range(WARM):
                    list(pool.map(_Desk.send, desks))
                spread = [ms for _ in range(rounds) for part in pool.map(_Desk.send_spread, desks) for ms in part]
                burst = [ms for _ in range(BURSTS) for ms in _at_once(pool, desks)]
    return [_outcome(spread, burst)]


class _Desk:
    """One participant; every order is for a book of its own, so that none is refused."""

    def __init__(self, person: Person, point: int, slot_s: int, line: Line):
        self._person, self._point, self._slot_s, self._line = person, point, slot_s, line
        self._made = 0
        self._clock = SystemClock()

    def send(self) -> float:
        """One order; ms from before it is signed until its receipt is checked."""
        self._made += 1
        hour, form = divmod(self._made, trading.FORMS)
        began = time.perf_counter()
        made = trading.Order(self._slot_s + hour * 3600, 0, 1, 0, form, 38000, 1000, self._point)
        outcome = self._line.submit(self._person.sign(trading.ORDER, trading.order_body(made), self._clock))
        assert outcome.code == 0, outcome.reason
        return (time.perf_counter() - began) * 1000

    def send_spread(self) -> list[float]:
        """Orders at their times, whatever the last one took."""
        found, began = [], time.monotonic() + PERIOD_S * self._point / PARTICIPANTS
        for number in range(ORDERS):
            time.sleep(max(0.0, began + number * PERIOD_S - time.monotonic()))
            found.append(self.send())
        return found


def _at_once(pool: ThreadPoolExecutor, desks: list[_Desk]) -> list[float]:
    barrier = threading.Barrier(PARTICIPANTS)

    def send(desk: _Desk) -> float:
        barrier.wait()
        return desk.send()

    return list(pool.map(send, desks))


def _make_people(area: Area) -> list[Person]:
    area.enroll("grid", "grid")
    for number in range(PARTICIPANTS):
        area.enroll(f"owner-{number}")
        area.enroll(f"agent-{number}", point=number + 1, owner=f"owner-{number}")
    area.publish({"market": {"open_orders": 4096}})
    return [Person.open(Path(area.home(f"owner-{number}"))) for number in range(PARTICIPANTS)]


def _outcome(spread: list[float], burst: list[float]) -> Outcome:
    p50, p95 = quantile(spread, 0.5), quantile(spread, 0.95)
    numbers = {"p50_ms": p50, "p95_ms": p95, "max_ms": max(spread), "orders": len(spread), "floor_ms": FLOOR_MS,
               "aim_ms": AIM_MS, "burst_p50_ms": quantile(burst, 0.5), "burst_p95_ms": quantile(burst, 0.95)}
    lines = [f"order to certified receipt, {PARTICIPANTS} participants, n = {REPLICAS}: p50 {p50:.1f}, p95 {p95:.1f}, "
             f"max {max(spread):.1f} ms of {len(spread)}   floor {FLOOR_MS:g}, aim {AIM_MS:g}",
             f"all {PARTICIPANTS} at once: p50 {numbers['burst_p50_ms']:.1f}, p95 {numbers['burst_p95_ms']:.1f} ms"]
    return Outcome("14", p95 <= FLOOR_MS, lines, numbers)
