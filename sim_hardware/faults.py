"""Fault, made from a line such as "late 800"; what it does to one answer on its way from the server to the wire.

A fault belongs to one unit of one bus and holds until it is changed. Later faults (half frames, stray bytes, echo)
fit in `spoil`: it sees the bytes of an answer and gives back bytes.
"""

from typing import NamedTuple

from sim_hardware.errors import SimError

KINDS = {
    "none": "answers as it should",
    "no_answer": "stays silent",
    "late": "late MS: answers after MS real milliseconds more",
    "wrong_crc": "answers with a wrong checksum (RTU only: on TCP there is none)",
    "exception": "exception CODE: answers every request with that exception code, 1..255",
}
MAX_LATE_MS = 60_000        # a minute: longer is silence


class Fault(NamedTuple):
    """`value` = milliseconds of `late`, code of `exception`, else 0."""

    kind: str = "none"
    value: int = 0

    def __str__(self) -> str:
        return f"{self.kind} {self.value}" if self.kind in ("late", "exception") else self.kind


def parse_fault(text: str, *, rtu: bool) -> Fault:
    """A fault from its words; SimError("fault") names what was expected."""
    words = text.split()
    kind = words[0] if words else ""
    limits = {"late": (1, MAX_LATE_MS), "exception": (1, 255)}
    if kind not in KINDS or len(words) != (2 if kind in limits else 1):
        raise SimError("fault", f"expected one of {', '.join(KINDS)} (late MS, exception CODE), found {text!r}")
    if kind == "wrong_crc" and not rtu:
        raise SimError("fault", "wrong_crc needs a serial bus: a Modbus TCP frame has no checksum")
    if kind not in limits:
        return Fault(kind)
    low, high = limits[kind]
    if not words[1].isdecimal() or not low <= int(words[1]) <= high:
        raise SimError("fault", f"expected {kind} {low}..{high}, found {text!r}")
    return Fault(kind, int(words[1]))


def spoil(fault: Fault, answer: bytes) -> bytes:
    """The bytes of one answer as the fault lets them out; b"" = silence."""
    if fault.kind == "no_answer":
        return b""
    if fault.kind == "wrong_crc":
        return answer[:-2] + bytes((answer[-2] ^ 0xFF, answer[-1] ^ 0x55))
    return answer
