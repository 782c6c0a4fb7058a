"""Makes jobs for the checker from a broker's messages by their topic; tells the desk what replicas have published."""

from collections.abc import Callable

from firmware.wire import ack, header, topics, witness
from firmware.wire.errors import Refused
from firmware.wire.state import AgentRecord
from gateway.ingest import verify
from gateway.ingest.answers import read_live
from gateway.ingest.checker import Domain, Job
from gateway.ingest.counters import UNKNOWN, Refusals
from gateway.ingest.desk import Desk
from gateway.ingest.mqtt import Message

CHECKED = ("envelope", "tx")  # kinds that carry something to be ordered
CHECKED_ENDS = ("/envelope", "/tx")
# What one agent may send, so that a device gone mad cannot keep the verifying threads from the others (security.md
# T23). A bus of 247 meters at one reading a second, four times over; a backlog at first at once, then at this pace.
AGENT_PER_S, AGENT_BURST = 1000, 4000


_new = tuple.__new__  # a named tuple without the call between


class Allowance:
    """A bucket of messages for each enrolled agent, filled with time (a wait)."""

    def __init__(self) -> None:
        self._left: dict[str, tuple[float, int]] = {}

    def take(self, who: str, now_ms: int) -> bool:
        """True when this agent may send one more now."""
        left, since_ms = self._left.get(who, (AGENT_BURST, now_ms))
        if now_ms != since_ms:  # a batch comes at one time
            left = min(AGENT_BURST, left + (now_ms - since_ms) * AGENT_PER_S / 1000)
        is_allowed = left >= 1
        self._left[who] = (left - is_allowed, now_ms)
        return is_allowed


class Router:
    """agent_of(kid): the registry's record; take_witness(kid, message) checks what light nodes sign."""

    def __init__(self, domain: Domain, desk: Desk, refusals: Refusals,
                 agent_of: Callable[[bytes], AgentRecord | None], take_witness: Callable[[bytes, bytes], None]):
        self._area, self._channel, self._desk, self._refusals = domain.area, domain.channels[0], desk, refusals
        self._agent_of, self._take_witness, self._allowance = agent_of, take_witness, Allowance()
        self.seen_alarm: Callable[[str, bytes], None] = lambda name, payload: None

    def route(self, message: Message, now_ms: int) -> Job | None:
        """What is to be checked; None for what the desk only looks at, and for what nobody knows, which is counted."""
        topic = message.topic
        try:
            if not topic.endswith(CHECKED_ENDS) and self._observe(topic, message.payload, now_ms):
                return None
            area, kid, kind = verify.parse_topic(topic)
            if area != self._area:
                raise Refused("wrong_area", self._area, area)
            if kind in CHECKED or kind == "witness":
                who = self._name(kid)
                if not self._allowance.take(who, now_ms):
                    raise Refused("busy", AGENT_PER_S, None)
                if kind in CHECKED:
                    return _new(Job, (message.payload, topic, kind == "envelope", who))
                self._take_witness(kid, message.payload)
            elif kind in topics.AGENT_WRITES:
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
                shown = witness.decode_header_message(payload)
                self._desk.seen_header(header.decode(shown.header).height, now_ms)
        elif len(parts) == 5 and parts[3] == "alarm":
            self.seen_alarm(parts[4], payload)
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
