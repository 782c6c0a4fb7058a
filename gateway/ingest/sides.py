"""Says what ingest gives to consensus, and what it needs of the rooms around it: registry, ledger, brokers, clock."""

from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

from firmware.wire.state import AgentRecord, ChainRecord, PointRecord
from gateway.ingest.answers import Books
from gateway.ingest.mqtt import Token
from gateway.ingest.verify import VerifiedSeal


class Offer(NamedTuple):
    """Something to be ordered; the fields of consensus.types.Item."""

    key: bytes
    kind: str
    data: bytes
    request: bytes
    client: bytes


class Registry(Protocol):
    """The committed state and seals, readable in the loop's thread (a `gateway.ledger.reader.Reader`)."""

    def agent(self, kid: bytes) -> AgentRecord | None: ...

    def point(self, number: int) -> PointRecord | None: ...

    def reading(self) -> AbstractContextManager[None]: ...

    def chain(self, kid: bytes, point: int) -> ChainRecord | None: ...

    def seal_place(self, kid: bytes, point: int, height: int) -> tuple[int, int] | None: ...

    def seal_at(self, channel: str, height: int, index: int) -> Any: ...

    def transaction_place(self, payload_hash: bytes) -> tuple[str, int, int] | None: ...

    def header(self, channel: str, height: int) -> bytes | None: ...

    def light_nodes(self, area: str) -> int: ...

    def witness(self, channel: str, height: int, kid: bytes) -> bytes | None: ...

    def newest_witnessed(self, channel: str) -> tuple[int, list[bytes]]: ...


class Store(Books, Protocol):
    """The ledger itself, used by `in_ledger` only."""

    def put_envelopes(self, items: Iterable[VerifiedSeal]) -> int: ...

    def pending_envelopes(self) -> Iterable[Any]: ...

    def put_witnesses(self, signatures: Iterable[tuple[str, int, bytes, bytes]]) -> None: ...


class Post(Protocol):
    """The brokers (`mqtt.Brokers`)."""

    @property
    def is_heard(self) -> bool: ...

    def done(self, tokens: Iterable[Token]) -> None: ...

    def publish(self, topic: str, payload: bytes, *, retain: bool = False, newest_only: bool = True) -> None: ...

    def status(self) -> list[dict[str, Any]]: ...


class Clock(Protocol):
    """As `deploy.clock.Clock`."""

    speed: int

    def now_ms(self) -> int: ...

    def monotonic_ms(self) -> int: ...
