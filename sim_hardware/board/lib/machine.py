"""Makes the module machine of a board without pins: resets, its number, a watchdog that is only remembered."""

watchdog_ms = 0


class WDT:
    def __init__(self, id=0, timeout=5000):
        global watchdog_ms
        watchdog_ms = timeout

    def feed(self):
        pass


def reset():
    raise SystemExit  # the prompt starts anew, files stay


soft_reset = reset


def unique_id():
    return b"\x7c\x9e\xbd\x0a\x1b\x2c"
