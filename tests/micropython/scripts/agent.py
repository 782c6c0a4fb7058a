"""Runs the agent of /agent in MicroPython until so many readings are acked, or the time is over: READINGS SECONDS."""

import json
import sys
import time

from shared_clock import SharedClock

from firmware import main
from firmware.board import sim


def run(readings, seconds):
    clock = SharedClock()
    settings = sim.load_config("/agent")
    board = sim.SimBoard(settings, "/agent", clock)
    runner = main.Runner(settings, board, clock)
    journal, agent = runner.journal, runner.agent
    end_ms = clock.monotonic_ms() + seconds * 1000

    def is_over():
        points = agent.book.chains
        acked = min([points[point].acked for point in points])
        return acked >= readings or clock.monotonic_ms() > end_ms

    start_ms = time.ticks_ms()
    runner.run(is_over)
    found = agent.status(clock.monotonic_ms())
    found.update({"trimmed": journal.trimmed, "first_seq": journal.first_seq, "next_seq": journal.next_seq,
                  "ran_ms": time.ticks_diff(time.ticks_ms(), start_ms)})
    print("REPORT " + json.dumps(found))
    board.put_away()


run(int(sys.argv[1]), int(sys.argv[2]))
