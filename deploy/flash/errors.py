"""Makes the one exception of flashing: a board, a file or a tool that cannot be used, and what to do about it."""


class FlashError(Exception):
    """`str()` is the line for the person at the board."""
