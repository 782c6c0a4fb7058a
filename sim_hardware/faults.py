"""Fault, made from a line such as "late 800" or "wrong_crc every 3"; what it does to an answer on its way to the wire.

A fault belongs to one unit of one bus and holds until it is changed. `every N`: every Nth answer only. Some happen
inside the meter (`units.py`: stuck, counters); the others are here: `spoil` takes the bytes of an answer, as pymodbus
made them, and gives back what goes out and when.
"""

from typing import NamedTuple

from sim_hardware.chance import pick, seed_of
from sim_hardware.errors import SimError
from sim_hardware.frames import Answer, Request, answer_frame, exception_frame, pdu_of

MAX_LATE_MS = 60_000        # a minute: longer is silence
ANY, RTU, NETWORK, TCP = "any", "rtu", "network", "tcp"     # where one makes sense: RTU frames, a socket, Modbus TCP


class Kind(NamedTuple):
    """`value`: what stands behind the word ("" = nothing) within `low`..`high`; `where`: on which lines."""

    help: str
    value: str = ""
    low: int = 0
    high: int = 0
    where: str = ANY


KINDS = {
    "none": Kind("answers as it should"),
    "no_answer": Kind("stays silent"),
    "late": Kind("answers MS real milliseconds late, even into the next request", "MS", 1, MAX_LATE_MS),
    "slow_drip": Kind("sends a byte every MS real milliseconds", "MS", 1, 10_000),
    "wrong_crc": Kind("sends right data under a wrong checksum", where=RTU),
    "wrong_unit": Kind("answers under the next unit's number, checksum right"),
    "wrong_function": Kind("answers with function 3 for 4 and 4 for 3, checksum right"),
    "wrong_transaction": Kind("answers under another transaction number", where=TCP),
    "short": Kind("loses the last N bytes of each answer", "N", 1, 250),
    "fewer": Kind("gives one register less than asked for, whole otherwise"),
    "long": Kind("gives N registers more than asked for, whole otherwise", "N", 1, 20),
    "stray_before": Kind("N bytes of noise come directly before the answer", "N", 1, 200),
    "stray_after": Kind("N bytes of noise come directly after the answer", "N", 1, 200),
    "echo": Kind("the request comes back before the answer, as from a two-wire adapter"),
    "exception": Kind("answers every request with that exception code", "CODE", 1, 255),
    "all_ones": Kind("every register is FFFF"),
    "nan": Kind("every two registers are 7FC0 0000, a float that is no number"),
    "stuck": Kind("shows for ever what it showed when this began"),
    "counter_jump": Kind("its energy counters go up by KWH at once, at the next step", "KWH", 1, 10**9),
    "counter_reset": Kind("its energy counters begin at 0 again, at the next step"),
    "rollover": Kind("its energy counters stand directly before their end, at the next step"),
    "baud_mismatch": Kind("is heard at the line's speed while it talks at BAUD", "BAUD", 300, 10**6, RTU),
    "collision": Kind("another device talks at the same time", where=RTU),
    "reset": Kind("the connection is reset in place of an answer", where=NETWORK),
}
IN_THE_COUNTERS = ("counter_jump", "counter_reset", "rollover")
NAN = b"\x7f\xc0\x00\x00"


class Fault(NamedTuple):
    """`value` = the number behind the word, else 0; `every` = 1: each answer."""

    kind: str = "none"
    value: int = 0
    every: int = 1

    def __str__(self) -> str:
        value = f" {self.value}" if KINDS[self.kind].value else ""
        return self.kind + value + (f" every {self.every}" if self.every > 1 else "")


def kinds_text() -> str:
    """All faults in one line, for a help text."""
    return ", ".join(f"{kind} {row.value}".rstrip() for kind, row in KINDS.items()) + "; 'every N' behind it"


def parse_fault(text: str, *, rtu: bool, network: bool | None = None) -> Fault:
    """A fault from its words; SimError("fault") says what was expected. network: a socket (default: not rtu)."""
    words = text.split()
    kind = words[0] if words else ""
    every = 1
    if len(words) > 2 and words[-2] == "every" and words[-1].isdecimal() and int(words[-1]) > 1:
        every = int(words[-1])
        words = words[:-2]
    if kind not in KINDS or len(words) != (2 if KINDS[kind].value else 1):
        raise SimError("fault", f"expected one of {kinds_text()}, found {text!r}")
    row = KINDS[kind]
    network = not rtu if network is None else network
    if row.where == RTU and not rtu:
        raise SimError("fault", f"{kind} needs RTU frames: Modbus TCP has no checksum and no line")
    if (row.where == NETWORK and not network) or (row.where == TCP and rtu):
        raise SimError("fault", f"{kind} needs {'a connection' if row.where == NETWORK else 'Modbus TCP'}")
    value = 0
    if row.value:
        if not words[1].isdecimal() or not row.low <= int(words[1]) <= row.high:
            raise SimError("fault", f"expected {kind} {row.low}..{row.high}, found {text!r}")
        value = int(words[1])
    return Fault(kind, value, every)


def spoil(fault: Fault, request: Request, answer: bytes, turn: int, *, rtu: bool, baud: int = 9600) -> Answer:
    """What leaves in place of a good answer. turn: number of the answer, seeds the noise; baud: of the line."""
    kind, value = fault.kind, fault.value
    if kind == "none" or turn % fault.every:
        return Answer(answer)
    if kind == "no_answer":
        return Answer(b"")
    if kind == "late":
        return Answer(answer, value)
    if kind == "slow_drip":
        return Answer(answer, 0, value)
    if kind == "reset":
        return Answer(b"", is_reset=True)
    if kind == "exception":
        return Answer(exception_frame(request, value, rtu=rtu))
    noise = _noise(turn, max(value, len(answer)))
    if kind == "wrong_crc":
        return Answer(answer[:-2] + bytes((answer[-2] ^ 0xFF, answer[-1] ^ 0x55)))
    if kind == "wrong_transaction":
        return Answer(bytes((answer[0] ^ 0x40,)) + answer[1:])
    if kind == "short":
        return Answer(answer[:max(1, len(answer) - value)])
    if kind == "stray_before":
        return Answer(noise[:value] + answer)
    if kind == "stray_after":
        return Answer(answer + noise[:value])
    if kind == "echo":
        return Answer(request.frame + answer)
    if kind == "collision":
        return Answer(answer[:2] + bytes(byte ^ (other or 1) for byte, other in zip(answer[2:], noise)))
    if kind == "baud_mismatch":
        return Answer(heard_at(answer, value, baud))
    unit = request.unit % 247 + 1 if kind == "wrong_unit" else request.unit
    return Answer(answer_frame(request, unit, _spoilt_pdu(kind, value, pdu_of(answer, rtu=rtu), noise), rtu=rtu))


def heard_at(data: bytes, sent_baud: int, heard_baud: int) -> bytes:
    """The bytes that a receiver makes of characters (8N1) that were sent at another speed: it waits for a start bit,
    then looks at the middle of where it takes the bits to be."""
    line = [bit for byte in data for bit in (0, *(byte >> place & 1 for place in range(8)), 1)]
    heard, at, end = bytearray(), 0, len(line) * heard_baud      # in bits of the sender, times heard_baud
    while at < end:
        if line[at // heard_baud]:
            at = (at // heard_baud + 1) * heard_baud
            continue
        byte = 0
        for place in range(8):
            moment = (2 * at + (2 * place + 3) * sent_baud) // 2
            byte |= (line[moment // heard_baud] if moment < end else 1) << place
        heard.append(byte)
        at = (2 * at + 19 * sent_baud) // 2
    return bytes(heard)


def _spoilt_pdu(kind: str, value: int, pdu: bytes, noise: bytes) -> bytes:
    """A PDU with other contents; what is no answer to a read of registers stays as it is."""
    if pdu[0] & 0x80 or pdu[0] not in (3, 4):
        return pdu
    words = pdu[2:]
    if kind == "wrong_function":
        return bytes((7 - pdu[0],)) + pdu[1:]
    if kind == "fewer":
        words = words[:-2]
    elif kind == "long":
        words = (words + noise + noise)[:min(len(words) + 2 * value, 250)]
    elif kind == "all_ones":
        words = b"\xff" * len(words)
    elif kind == "nan":
        words = (NAN * len(words))[:len(words)]
    return bytes((pdu[0], len(words))) + words


def _noise(turn: int, count: int) -> bytes:
    seed = seed_of("noise", turn)
    return bytes(pick(seed, at, 0, 255) for at in range(count))
