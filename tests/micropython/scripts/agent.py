"""Runs the agent of /agent in MicroPython until so many seals are acked: SEALS SECONDS [cut | stay].

`cut`: the power fails when the first witness signature is about to be sent (exit code 42). `stay`: the clock waits for
this agent's next start; without it the day goes on when it has ended. Each witness message is held against the trust
file on "flash": it must stand there before it is on the air.
"""

import gc

# Before anything is imported: modules come and leave garbage, and where it is collected early, what stays is kept
# together and the room that is left stays in one piece.
gc.threshold(4096)

import json
import sys
import time

from shared_clock import SharedClock

from firmware import main, trust
from firmware.board import sim
from firmware.wire import witness

FAR_MS = 1 << 60


class Board(sim.SimBoard):
    """The board, watched: what witness messages leave it, and whether they were saved first."""

    is_cut = False

    def publish(self, topic, payload, token):
        if topic.endswith("/witness"):
            saved = trust.decode_trust(self.load(main.TRUST)).witnessed
            found = witness.read(payload)[1]
            if saved is None or saved[0] != found.header:
                raise ValueError("height %d is signed and not saved" % found.height)
            print("WITNESS", payload.hex())
            if self.is_cut:
                raise SystemExit(42)
        super().publish(topic, payload, token)


def run(seals, seconds, how):
    clock = SharedClock()
    settings = sim.load_config("/agent")
    board = Board(settings, "/agent", clock)
    board.is_cut = how == "cut"
    runner = main.Runner(settings, board, clock)
    gc.collect()
    in_use = [gc.mem_alloc()]
    gc.threshold(gc.mem_free() // 2)  # from here on little stays, and collecting takes time
    chains = runner.agent.book.chains
    end_ms = clock.monotonic_ms() + seconds * 1000

    def is_over():
        acked = min([chains[point].acked for point in chains])
        if len(in_use) * seals // 4 < acked:
            gc.collect()
            in_use.append(gc.mem_alloc())
        return acked >= seals or clock.monotonic_ms() > end_ms

    start_ms = time.ticks_ms()
    runner.run(is_over)
    found = runner.agent.status(clock.monotonic_ms())
    found.update({"in_use": in_use, "trimmed": runner.journal.trimmed,
                  "ran_ms": time.ticks_diff(time.ticks_ms(), start_ms)})
    print("REPORT", json.dumps(found))
    board.put_away()
    if how != "stay":
        clock.progress(FAR_MS)


run(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else "")
