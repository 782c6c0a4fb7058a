"""Makes the world of one block for the rules: what they may read besides the item itself. No clock, no chance."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from firmware.wire.certificate import Member

MARKED = 256  # a result code from here on is 256 + mark bits; below, 0 is accepted and the rest are reasons

# Bits of a mark (wire.md, Two verdicts): the seal is ordered, committed and acked, and kept out of settlement.
CLOCK_NOT_SYNCHRONISED = 1
CLOCK_IMPLAUSIBLE = 2
REGISTER_FELL = 4
REGISTER_JUMPED = 8
LATE = 16
FIRMWARE_NOT_CERTIFIED = 32  # contracts/devices.py: once a version of the agent's model is in force
HEIGHTS_LOST = 64
# What of these moves no energy between slots (metering.py); late or after a loss, a reading is as good as any.
EXCLUDED = CLOCK_NOT_SYNCHRONISED | CLOCK_IMPLAUSIBLE | REGISTER_FELL | REGISTER_JUMPED | FIRMWARE_NOT_CERTIFIED
MARKS = {
    CLOCK_NOT_SYNCHRONISED: "clock_not_synchronised", CLOCK_IMPLAUSIBLE: "clock_implausible",
    REGISTER_FELL: "register_fell", REGISTER_JUMPED: "register_jumped", LATE: "late",
    FIRMWARE_NOT_CERTIFIED: "firmware_not_certified", HEIGHTS_LOST: "heights_lost",
}

CheckSignature = Callable[[bytes, str, bytes], bool]  # (message, kind, public key of 65 bytes); a driver may cache it
VerifyDigest = Callable[[bytes, bytes, bytes], bool]  # (public key of 65 bytes, digest of 32, signature of 64)


class State(Protocol):
    """The replicated state as the rules see it: a map of byte strings (keys and records: firmware/wire/state.py)."""

    def get(self, key: bytes) -> bytes | None: ...

    def put(self, key: bytes, value: bytes) -> None: ...

    def delete(self, key: bytes) -> None: ...


class BlockContext(NamedTuple):
    """The block that an item is executed in, and the chain's fixed facts."""

    channel: str
    height: int
    time_s: int  # the block's time, Unix seconds
    parameters: Mapping[str, int]  # chain parameters by name (firmware/wire/genesis.py)
    chain_id: bytes
    created_s: int  # the genesis' time
    channels: tuple[str, ...]
    member_kids: tuple[bytes, ...]  # keys of replicas: one key has one seat, so none of them can be an agent
    verify_digest: VerifyDigest  # for the requests that transactions carry
    member_keys: Mapping[bytes, bytes] = {}  # public key by kid: replicas send transactions without being enrolled
    previous_hash: bytes = bytes(32)  # of the header before this block, which nobody chose alone
    members: Sequence[Member] = ()  # of the block's epoch
    epoch: int = 0
    epoch_base: int = 0  # sequence number after which the epoch began


def marks_of(code: int) -> tuple[str, ...]:
    """The names of a result code's marks; empty for accepted without marks and for refusals."""
    return tuple(name for bit, name in MARKS.items() if code >= MARKED and code & bit)


def is_accepted(code: int) -> bool:
    """Tells whether a result code says that the item took effect, marked or not."""
    return code == 0 or code >= MARKED
