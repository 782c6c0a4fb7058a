"""Makes MQTT packets out of a stream of bytes, and what is needed of a PUBLISH to tell it from another (3.1.1 and 5).

Written from the OASIS specifications (3.1.1: 2.2 and 3.3; 5: 2.1 and 3.3) and shared with nobody.
"""

from typing import NamedTuple

CONNECT, PUBLISH, PUBACK = 1, 3, 4
MOST_BYTES = 1 << 28  # of one packet, by the length field's own limit


class Publish(NamedTuple):
    """Where the parts of a PUBLISH stand in its packet."""

    topic: str
    qos: int
    id_at: int  # of the two bytes of the packet's number; 0 with QoS 0
    after_id: int  # where properties (MQTT 5) or the payload begin
    payload_at: int


class Splitter:
    """Cuts a stream into whole packets."""

    def __init__(self) -> None:
        self._held = bytearray()

    def take(self, data: bytes) -> list[bytes]:
        """The packets that are complete now; ValueError where the stream is no MQTT."""
        self._held += data
        found: list[bytes] = []
        while True:
            length = _whole_length(self._held)
            if length is None or length > len(self._held):
                return found
            found.append(bytes(self._held[:length]))
            del self._held[:length]


def kind_of(packet: bytes) -> int:
    return packet[0] >> 4


def version_of(packet: bytes) -> int:
    """The protocol level of a CONNECT: 4 for 3.1.1, 5 for 5."""
    at = _head_length(packet)
    return packet[at + 2 + int.from_bytes(packet[at:at + 2], "big")]


def publish_of(packet: bytes, version: int) -> Publish:
    """The parts of a PUBLISH; ValueError where they do not fit."""
    qos = packet[0] >> 1 & 3
    at = _head_length(packet)
    id_at = at + 2 + int.from_bytes(packet[at:at + 2], "big")
    topic = packet[at + 2:id_at].decode("utf-8", "replace")
    after_id = id_at + 2 if qos else id_at
    payload_at = after_id
    if version >= 5 and after_id < len(packet):
        size, payload_at = _number(packet, after_id)
        payload_at += size
    if payload_at > len(packet):
        raise ValueError("a PUBLISH that ends early")
    return Publish(topic, qos, id_at if qos else 0, after_id, payload_at)


def without_qos(packet: bytes, found: Publish) -> bytes:
    """The same message as QoS 0: nobody has to acknowledge it, nobody can tell which it was."""
    start = _head_length(packet)
    body = (packet[start:found.id_at] + packet[found.after_id:]) if found.qos else packet[start:]
    return bytes((PUBLISH << 4,)) + _encode_number(len(body)) + body


def again(packet: bytes) -> bytes:
    """A second copy of a PUBLISH: marked so (DUP) where its QoS has that."""
    return bytes((packet[0] | (8 if packet[0] & 6 else 0),)) + packet[1:]


def puback(packet: bytes, found: Publish) -> bytes:
    """What a broker says that has taken a PUBLISH of QoS 1."""
    return bytes((PUBACK << 4, 2)) + packet[found.id_at:found.id_at + 2]


def topic_matches(topic: str, pattern: str) -> bool:
    """As a subscription's filter: + is one level, # the rest."""
    levels, wanted = topic.split("/"), pattern.split("/")
    for index, word in enumerate(wanted):
        if word == "#":
            return True
        if index >= len(levels) or word not in ("+", levels[index]):
            return False
    return len(levels) == len(wanted)


def _whole_length(held: bytearray) -> int | None:
    """Bytes of the first packet, or None where not even that is known yet."""
    size = 0
    for index in range(1, 5):
        if index >= len(held):
            return None
        size |= (held[index] & 127) << 7 * (index - 1)
        if held[index] < 128:
            return size + index + 1
    raise ValueError("no MQTT: a length of more than four bytes")


def _head_length(packet: bytes) -> int:
    return _number(packet, 1)[1]


def _number(packet: bytes, at: int) -> tuple[int, int]:
    """(A number of variable length, where it ends)."""
    value = shift = 0
    while at < len(packet) and shift < 28:
        value |= (packet[at] & 127) << shift
        at += 1
        if packet[at - 1] < 128:
            return value, at
        shift += 7
    raise ValueError("a number that does not end")


def _encode_number(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)
