"""`gridseal sim meter` without the rest of the house, made from the system's clock; run as a module by the tests.

--from-ms N starts label time there; --speed N lets it run faster.
"""

import argparse
import sys
import time

from sim_hardware.command import add_arguments, run


class RunningClock:
    """Label time from a given moment at a given speed."""

    def __init__(self, from_ms: int | None, speed: int) -> None:
        self.speed = speed
        self._began_ms = time.monotonic_ns() // 1_000_000
        self._from_ms = time.time_ns() // 1_000_000 if from_ms is None else from_ms

    def now_ms(self) -> int:
        return self._from_ms + (self.monotonic_ms() - self._began_ms) * self.speed

    def monotonic_ms(self) -> int:
        return time.monotonic_ns() // 1_000_000


def main() -> int:
    parser = argparse.ArgumentParser(prog="gridseal sim meter")
    parser.add_argument("--from-ms", type=int)
    parser.add_argument("--speed", type=int, default=1)
    add_arguments(parser)
    args = parser.parse_args()
    return run(args, RunningClock(args.from_ms, args.speed))


if __name__ == "__main__":
    sys.exit(main())
