"""Makes the garbage collector look less often in a replica's process.

Nearly everything here is freed by counting references; what is left for the collector are the cycles of asyncio and of
exceptions, a few a second. By default it looks after 700 new objects, which is after some seventy messages, and through
all modules again when enough has survived: 1 to 2 % of what a message costs (tests.bench 3, with and without).
"""

import gc

LOOK_OBJECTS = 10_000  # a thousand messages, or a second of consensus at work; cycles of that time are some hundred KiB


def calm() -> None:
    """To be called once, when everything is imported: that stays, and is not looked at again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(LOOK_OBJECTS, *gc.get_threshold()[1:])
