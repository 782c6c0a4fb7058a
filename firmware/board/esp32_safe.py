"""Makes a board reachable whose agent does not come to stand: network, update and serial line, and no metering.

After SAFE_MS the starter has two ordinary starts again: what kept the agent from running may be over. A version that
comes meanwhile is put into the other slot and started, as always.
"""

from firmware import boot
from firmware.board import esp32
from firmware.board.micro import exists, read_file
from firmware.wire import cbor, identity, topics

SAFE_MS = 600000
STARTS = 2  # ordinary ones after it
TEXT_BYTES = 200


def run(folder=""):
    """Stays for SAFE_MS, or until an update wants the chip to be restarted."""
    settings, board, wifi, keeper, light, wdt = esp32.begin(folder)
    crash = read_file(folder + "/" + boot.CRASH_NAME) if exists(folder + "/" + boot.CRASH_NAME) else b"no exception"
    crash = crash[-TEXT_BYTES:].decode()
    board.log("SAFE MODE: no metering for %d s. The last crash: %s" % (SAFE_MS // 1000, crash))
    kid = identity.kid_of(board.signer.public_key())
    board.start_link(settings.brokers, kid.hex(), [], topics.agent_topic(settings.area, kid, "death"),
                     cbor.encode([1, kid]))
    watch = esp32.Watch(board, None, wdt, wifi, keeper, None, light)
    path = folder + "/" + boot.NAME
    end_ms = board.clock.monotonic_ms() + SAFE_MS
    is_updated = False
    while not is_updated and (board.clock.monotonic_ms() < end_ms or board.updater is not None):
        is_updated = watch.is_over()
        for event in board.wait(200):
            if event[0] == "connected":
                board.say_update("safe", 0, crash)
    board.close()
    record = boot.load(path)
    if not is_updated and record is not None:
        record[boot.TRIES] = boot.CRASHES - STARTS
        boot.save(path, record)
