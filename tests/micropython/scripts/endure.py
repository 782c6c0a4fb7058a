"""Runs the agent of /agent, as a board does, for so many rounds of readings: ROUNDS SECONDS.

Says LIVE now and then: rounds acked, bytes in use after a collection, seals that wait for an ack; at moments when no
meter is asked. In the end REPORT and the agent's status.
"""

import gc

gc.threshold(4096)

import json
import sys

from shared_clock import SharedClock

from firmware.board import micro, sim

FAR_MS = 1 << 60
LOOKS = 200  # at the live set, over the whole run


def run(count, seconds):
    """As sim.run: the configuration is read and dropped before the agent is loaded."""
    clock = SharedClock()
    settings = sim.load_config("/agent")
    micro.drop("config", "own")
    from firmware import main

    runner = main.Runner(settings, sim.SimBoard(settings, "/agent", clock), clock)
    del settings, main
    gc.collect()
    print("LIVE", 0, gc.mem_alloc(), 0)
    agent = runner.agent
    end_ms = clock.monotonic_ms() + seconds * 1000
    at = 1
    acked = 0
    while acked < count and clock.monotonic_ms() < end_ms:
        runner.step()
        acked = min([agent.book.chains[point].acked for point in agent.book.chains])
        if acked >= at and not [point for point in agent.schedules if agent.schedules[point].is_busy]:
            at = acked + max(1, count // LOOKS)
            gc.collect()
            print("LIVE", acked, gc.mem_alloc(), len(agent.outbox.items))
    runner.close()
    print("REPORT", json.dumps(agent.status(clock.monotonic_ms())))
    clock.progress(FAR_MS)


run(int(sys.argv[1]), int(sys.argv[2]))
