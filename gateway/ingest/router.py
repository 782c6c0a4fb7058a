"""Makes jobs for the checker from a broker's messages by their topic; tells the desk what replicas have published."""

from collections.abc import Callable

from firmware.wire import ack, header, topics
from firmware.wire.errors import Refused
from firmware.wire.state import AgentRecord
from gateway.ingest import verify
from gateway.ingest.answers import read_header, read_live
from gateway.ingest.checker import Domain, Job
from gateway.ingest.counters import UNKNOWN, Refusals
from gateway.ingest.desk import Desk
from gateway.ingest.mqtt import Message

CHECKED = ("envelope", "tx")  # kinds that carry something to be ordered
CHECKED_ENDS = ("/envelope", "/tx")


class Router:
    """agent_of(kid): the registry's record."""

    def __init__(self, domain: Domain, desk: Desk, refusals: Refusals,
                 agent_of: Callable[[bytes], AgentRecord | None]):
        self._area, self._channel, self._desk, self._refusals = domain.area, domain.channels[0], desk, refusals
        self._agent_of = agent_of

    def route(self, message: Message, now_ms: int) -> Job | None:
        """What is to be checked; None for what the desk only looks at, and for what nobody knows, which is counted."""
        topic = message.topic
        try:
            if not topic.endswith(CHECKED_ENDS) and self._observe(topic, message.payload, now_ms):
                return None
            area, kid, kind = verify.parse_topic(topic)
            if area != self._area:
                raise Refused("wrong_area", self._area, area)
            if kind in CHECKED:
                return Job(message.payload, topic, kind == "envelope", self._name(kid))
            if kind in topics.AGENT_WRITES:
                verify.check_agent(self._agent_of(kid), kid, area)
                if kind == "birth":
                    self._desk.reborn(kid)
        except Refused as refused:
            self._refusals.count(self._writer(topic), refused.reason)
        return None

    def _observe(self, topic: str, payload: bytes, now_ms: int) -> bool:
        """False when the topic is none of the replicas'."""
        parts = topic.split("/")
        if len(parts) == 6 and parts[3] == "chain" and parts[5] == "header":
            if parts[4] == self._channel:
                self._desk.seen_header(header.decode(read_header(payload)[0]).height, now_ms)
        elif len(parts) == 5 and parts[3] == "live" and parts[4].isdecimal():
            self._desk.seen_live(int(parts[4][:10]), read_live(payload), now_ms)
        elif len(parts) == 5 and parts[4] == "ack":
            self._desk.seen_ack(verify.parse_topic(topic)[1], ack.decode(payload), now_ms)
        elif len(parts) == 5 and parts[4] == "reply":
            found = ack.decode_receipt(payload)
            self._desk.seen_receipt(verify.parse_topic(topic)[1], header.decode(found.header).height, found)
        else:
            return False
        return True

    def _name(self, kid: bytes) -> str:
        return UNKNOWN if self._agent_of(kid) is None else kid.hex()

    def _writer(self, topic: str) -> str:
        """Whom to charge for a message whose topic is no good: the enrolled kid in it, if agents may write there."""
        parts = topic.split("/")
        if len(parts) < 5 or len(parts[3]) != 16 or parts[4] in topics.AGENT_READS:
            return UNKNOWN
        try:
            return self._name(bytes.fromhex(parts[3]))
        except ValueError:
            return UNKNOWN
