"""SimError, made from a reason of a closed list and a sentence for the person who must mend the input."""

REASONS = {
    "config": "a configuration file or a command-line option cannot be used",
    "day": "a day of load, sun or wind cannot be read",
    "truth": "a truth file cannot be read or was written by other meters",
    "listen": "a port or pseudo-terminal cannot be opened",
    "device": "a simulated control device cannot be made or altered so",
    "board": "a simulated board cannot be made, or lacks what its prompt needs",
    "fault": "a fault is not known or does not fit the bus",
}


class SimError(Exception):
    """Bad input from outside: `reason` is a key of REASONS, `detail` says what was expected and what was found."""

    def __init__(self, reason: str, detail: str) -> None:
        if reason not in REASONS:
            raise ValueError(f"unknown reason {reason!r}")
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
