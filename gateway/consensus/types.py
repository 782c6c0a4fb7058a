"""The values that go into and come out of a `Replica`: nothing here does anything.

Order of duties: a driver obeys the fields of one `Ready` from left to right, and the `Ready`s in the order in which it
got them. It may join the `persist` of several and synchronise once (group commit), as long as nothing of any of them is
sent, executed or shown before that. `messages.py` has the codecs (`encode_batch`, `decode_batch`, `digest_of`).
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol


class Now(NamedTuple):
    """One reading of the clock: labels may run faster than life (`speed`), waits never do."""

    label_ms: int  # Unix time, never goes back
    wait_ms: int  # monotonic, real


class Item(NamedTuple):
    """One thing to be ordered, already verified and durable at this replica."""

    key: bytes  # identity: the payload's hash, never a signature's bytes
    kind: str  # "seal" | "tx": which waiting limit holds
    data: bytes  # the leaf: COSE bytes as they stand in the block
    request: bytes  # what a SUBMIT carries to the others: the envelope, or the transaction itself
    client: bytes = b""  # who signed it: at most `client_items` of one client go into a batch; empty = not counted


class Batch(NamedTuple):
    """What one sequence number orders. Its digest D is SHA-256 of its deterministic CBOR."""

    channel: str
    view: int  # of the FIRST proposal: stays when a later view proposes the batch again
    time_s: int  # label of the first proposal, Unix seconds
    items: tuple[bytes, ...]  # leaves, in the order of execution; empty = heartbeat


class Head(NamedTuple):
    """The newest block of one channel."""

    channel: str
    height: int
    header_hash: bytes


class Executed(NamedTuple):
    """Where the ledger stands."""

    n: int  # last executed sequence number, 0 = genesis
    state_root: bytes
    heads: Sequence[Head]  # newest block of every channel, height 0 = genesis
    time_s: int = 0  # time of the newest block; 0 = not known (block time then rests on the clock bounds alone)
    deadline_s: int | None = None  # block time that the state after n wants to see passed; None = none
    is_ending: bool = False  # the state after n names another set: the epoch ends with the next checkpoint, or this one


class Settings(NamedTuple):
    """What is fixed for one epoch."""

    epoch: int
    members: Sequence  # firmware.wire.certificate.Member, sorted by kid; id = index
    index: int  # type: ignore[assignment]  # own id (hides tuple.index, which nobody needs here)
    chain_id: bytes
    parameters: Mapping[str, int]  # firmware.wire.genesis.PARAMETERS
    channel: str = "trade"
    depth: int = 8  # proposals that may be under way beyond the last executed one
    base: int = 0  # sequence number after which the epoch began, executed by all: needs no proof
    floors: Mapping[str, int] = {}  # height of each channel at `base`: the headers up to there were the set's before


class Send(NamedTuple):
    to: int | None  # None = all other members
    data: bytes


class Check(NamedTuple):
    """A first proposal to be judged (shape, limits, duplicates, known signatures, readings at hand): answer with
    `checked(digest, reason)`, at once or later. Readings not at hand: fetch first, answer then. Batches that a NEW-VIEW
    carries are never asked about (honest replicas have checked them, and refusing them would stall for ever)."""

    digest: bytes
    batch: Batch


class Decision(NamedTuple):
    """Final: execute in order of n, in one transaction, then call `executed`. `batch` None = NULL, executed as nothing
    (the ledger still notes n). A batch that is decided may hold seals whose readings are not here: fetch them later."""

    n: int
    batch: Batch | None


class Certified(NamedTuple):
    channel: str
    height: int
    header_hash: bytes
    certificate: bytes  # firmware.wire.certificate; may be announced again after a restart


class Behind(NamedTuple):
    """The others have a stable checkpoint that their logs no longer lead to: fetch the blocks up to `heads` (certified,
    or linked to them) from the holders, execute them, `forget` their items, call `installed`, then `vote_again` for
    those without a certificate. The newest `Behind` replaces the one before; an unanswered one is issued again from
    time to time."""

    n: int
    heads: Sequence[Head]
    state_root: bytes
    proof: bytes  # CBOR list of the q CHECKPOINT messages
    holders: Sequence[int]


class Ended(NamedTuple):
    """The epoch is over: its last checkpoint n is stable, and every block up to it certified here. Keep the proof for
    those who were away, and begin the next epoch with the set that the state names; nothing more is decided here."""

    n: int
    proof: Sequence[bytes]  # the q CHECKPOINTs


class Ready(NamedTuple):
    """Duties, to be obeyed from left to right. With `compact` there is no `persist`: the compact log has it all."""

    persist: Sequence[bytes] = ()  # append to the votes log, then fsync, before anything that follows
    compact: Sequence[bytes] | None = None  # replace the whole votes log by this, atomically and durably
    send: Sequence[Send] = ()
    check: Sequence[Check] = ()
    decided: Sequence[Decision] = ()
    certified: Sequence[Certified] = ()
    submitted: Sequence[bytes] = ()  # requests that came by SUBMIT: verify, make durable, then `submit`
    behind: Behind | None = None
    alarms: Sequence[str] = ()  # for people
    ended: Ended | None = None


class Keys(Protocol):
    """Signs and opens messages: `keys.CoseKeys`, in the simulator with signers that take less time."""

    def sign(self, kind: str, payload: bytes) -> bytes:
        """The signed message (COSE_Sign1) of `kind` ("pbft" or "header")."""
        ...

    def open(self, kind: str, message: bytes) -> tuple[int, bytes]:
        """(id of the member that signed, payload), signature checked; raises Refused."""
        ...
