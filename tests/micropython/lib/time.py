"""Makes this interpreter's waits sleep instead of spinning; the rest of the module `time` is its own."""

from _bridge import sleep_ms, ticks_ms, ticks_us  # noqa: F401
from utime import *  # noqa: F403  the interpreter's own
