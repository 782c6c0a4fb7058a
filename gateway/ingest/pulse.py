"""Makes turns: one every so often, and one at once when somebody has something that another waits for."""

import asyncio
import contextlib

TURN_S = 0.1


class Pulse:
    """All methods in the loop's thread."""

    def __init__(self) -> None:
        self._soon = asyncio.Event()

    def soon(self) -> None:
        """The next turn comes now."""
        self._soon.set()

    async def turn(self) -> None:
        """Returns when the next turn has come."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TURN_S):
                await self._soon.wait()
        self._soon.clear()
