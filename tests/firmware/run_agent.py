"""Runs the agent of a folder as a process of its own, for tests that kill it: FOLDER CLOCK_FOLDER NAME."""

import signal
import sys
from pathlib import Path

from deploy.clock import open_clock
from firmware.board import linux


def main() -> None:
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: stopped.append(number))
    folder, clock_folder, name = sys.argv[1:4]
    linux.run(Path(folder), open_clock(clock_folder, name), lambda: bool(stopped),
              lambda line: print(line, flush=True))


if __name__ == "__main__":
    main()
