"""Makes this interpreter's waits sleep instead of spinning; the rest of the module `time` is its own."""

import _bridge
from utime import *  # noqa: F403  the interpreter's own

sleep_ms, ticks_ms, ticks_us = _bridge.sleep_ms, _bridge.ticks_ms, _bridge.ticks_us
