"""Makes what a person sees out of a board's state: patterns of one LED, 16 steps of 125 ms, over and over.

The table is docs/board.md's. A hardware timer shows the pattern, so a light that stands still is a board that does.
"""

STEP_MS = 125
# name: 16 bits, the first step is the highest
PATTERNS = {
    "start": 0xFFFF,  # on: the agent starts
    "good": 0x8000,  # one short flash in two seconds
    "wifi": 0xA000,  # two: no Wi-Fi
    "broker": 0xA800,  # three: Wi-Fi, but no broker takes the connection
    "meter": 0xAA00,  # four: a broker, but no meter answers
    "clock": 0xF000,  # one long flash: the time is not known
    "trial": 0xFF00,  # slow: a new version in its self-test
    "update": 0xAAAA,  # quick, without a pause: a new version is being written
    "safe": 0xF0F0,  # half a second on, half a second off: safe mode
}
# What is shown where several are so: the first of these that holds.
ORDER = ("update", "trial", "wifi", "broker", "meter", "clock")


class Light:
    """A LED at a pin (-1: there is none)."""

    def __init__(self, pin):
        self._bits = PATTERNS["start"]
        self._step = 0
        self._pin = None
        if pin >= 0:
            from machine import Pin, Timer
            self._pin = Pin(pin, Pin.OUT, value=1)
            self._timer = Timer(0)
            self._timer.init(period=STEP_MS, mode=Timer.PERIODIC, callback=self._tick)

    def show(self, name):
        self._bits = PATTERNS[name]

    def _tick(self, timer):
        if self._pin is not None:
            self._pin.value(self._bits >> (15 - self._step) & 1)
        self._step = (self._step + 1) & 15


def name_of(found):
    """The pattern's name; found: a set of names of ORDER that hold."""
    for name in ORDER:
        if name in found:
            return name
    return "good"
