"""Makes MQTT 3.1.1 packets and events from publishes, received bytes and time: a board's client, without I/O.

Theory. One `Client` is one session with a broker, over as many connections as it takes. `open` begins a connection:
CONNECT goes out, after CONNACK the SUBSCRIBE, after SUBACK the event "up". What is to be sent is taken with `take`;
what came is given to `receive` in pieces of any size, and `tick` is called when `next_ms` is over. Everything is QoS 1
or 0, both ways; a publish may be one of several in flight, and each has a token that comes back when its PUBACK does.
What was in flight when a connection ends is forgotten here: the outbox sends it again out of the journal, where the
bytes are, so that a board holds no envelope twice. A broker that breaks a rule of the standard is Refused `malformed`,
and the connection is of no more use; a message too large for this board is answered and skipped, byte by byte, for
otherwise the broker would send it again for ever. Numbers in brackets name sections of OASIS mqtt-v3.1.1-os.
"""

try:
    from micropython import const
except ImportError:
    def const(value):
        return value

from firmware.wire import cbor
from firmware.wire.errors import check

_CONNECT = const(1)
_CONNACK = const(2)
_PUBLISH = const(3)
_PUBACK = const(4)
_SUBSCRIBE = const(8)
_SUBACK = const(9)
_PINGREQ = const(12)
_PINGRESP = const(13)
_DISCONNECT = const(14)

KEEPALIVE_MS = 30000
ANSWER_MS = 10000  # for the broker's word on connection, subscriptions and ping
PACKET_BYTES = 64 * 1024  # the broker's limit (deploy/mosquitto.py); an envelope has 60 KiB at most
TOPIC_BYTES = 256
WINDOW = 1024  # the most that may be in flight: the widest window of the outbox (config), and birth and witness
RETRY_MS = 500
_RETRY_MAX_MS = const(30000)

REFUSALS = ("", "protocol version", "client id", "server unavailable", "user or password", "not authorised")  # 3.2.2.3
# Bytes behind the head of what else a broker may send; SUBACK has one more for each subscription. The rest of the types
# is the client's, or QoS 2's, which is never asked for.
_SIZES = {_CONNACK: 2, _PUBACK: 2, _SUBACK: 2, _PINGRESP: 0}
_CLOSED = const(0)
_CONNECTING = const(1)
_SUBSCRIBING = const(2)
_UP = const(3)
_SUBSCRIBE_ID = const(1)  # publishes count from 2
_FIRST_ID = const(2)
_LAST_ID = const(0xFFFF)


class Client:
    """One agent's session. will: (topic, payload); receive_limit: bytes of the largest packet that is kept whole.

    Events, as tuples: ("up",) connection and subscriptions stand; ("published", token); ("message", topic, payload);
    ("skipped", topic, bytes) a message over the limit; ("down", why) the broker refuses us or is silent: close.
    """

    def __init__(self, client_id, subscriptions, will, receive_limit=PACKET_BYTES, keepalive_ms=KEEPALIVE_MS):
        self._client_id = client_id
        self._subscriptions = subscriptions
        self._will = will
        self._limit = receive_limit
        self._keepalive_ms = keepalive_ms
        self._id = _LAST_ID
        self.close()

    def close(self):
        """The connection is gone: nothing more will come of what was under way."""
        self._state = _CLOSED
        self._out: list = []
        self._tokens: dict = {}
        self._received = b""
        self._skip_bytes = 0
        self._sent_ms = self._heard_ms = 0
        self._answer_by_ms = None

    def open(self, now_ms):
        """A connection to a broker stands; now_ms: any clock that only rises."""
        self.close()
        self._state = _CONNECTING
        self._heard_ms = now_ms
        topic, payload = self._will
        # 3.1.2: protocol level 4, will with QoS 1, and the session is kept: acks wait for us at the broker
        head = _text("MQTT") + bytes((4, 0x0C)) + (self._keepalive_ms // 1000).to_bytes(2, "big")
        self._send(_CONNECT << 4, head + _text(self._client_id) + _text(topic) + _bytes16(payload), now_ms)
        self._answer_by_ms = now_ms + ANSWER_MS

    def is_up(self):
        return self._state == _UP

    def in_flight(self):
        return len(self._tokens)

    def publish(self, topic, payload, token, now_ms):
        """Sends a message with QoS 1; ValueError when it is not up, too large, or too much is in flight."""
        name = _text(topic)
        size = len(name) + 2 + len(payload)
        if self._state != _UP or size > PACKET_BYTES - 5 or len(self._tokens) >= WINDOW:
            raise ValueError("no publish of %d bytes with %d in flight" % (size, len(self._tokens)))
        while True:
            self._id = self._id + 1 if self._id < _LAST_ID else _FIRST_ID
            if self._id not in self._tokens:
                break
        self._tokens[self._id] = token
        self._out.append(bytes((_PUBLISH << 4 | 2,)) + _length(size) + name + self._id.to_bytes(2, "big"))
        if payload:
            self._out.append(payload)
        self._sent_ms = now_ms

    def take(self):
        """Returns the pieces of bytes to send now, in order; they are the caller's."""
        out, self._out = self._out, []
        return out

    def receive(self, data, now_ms):
        """Takes bytes from the broker; returns events. Refused `malformed`, `oversize`: close the connection."""
        if self._skip_bytes:
            skipped = min(self._skip_bytes, len(data))
            self._skip_bytes -= skipped
            data = data[skipped:]
        events: list = []
        self._heard_ms = now_ms
        data = self._received + bytes(data) if self._received else bytes(data)
        at = 0
        while at < len(data) and self._state != _CLOSED:
            body_at, size = _head(data, at)
            if body_at is None:
                break
            self._check_head(data[at], size)
            if body_at + size - at > self._limit:
                taken = self._skip(data, at, body_at, size, events, now_ms)
                if not taken:
                    break
                at = taken
            elif len(data) < body_at + size:
                break
            else:
                self._packet(data[at], data[body_at:body_at + size], events, now_ms)
                at = body_at + size
        self._received = data[at:] if self._state != _CLOSED else b""
        return events

    def tick(self, now_ms):
        """Keeps the connection alive; returns events, `down` when the broker has been silent for too long."""
        if self._state == _CLOSED:
            return []
        if self._answer_by_ms is not None:
            if now_ms >= self._answer_by_ms:
                return self._end("the broker is silent")
        elif now_ms >= self._ping_ms():
            self._send(_PINGREQ << 4, b"", now_ms)
            self._answer_by_ms = now_ms + ANSWER_MS
        return []

    def next_ms(self):
        """Returns when `tick` is due, or None."""
        if self._state == _CLOSED:
            return None
        if self._answer_by_ms is not None:
            return self._answer_by_ms
        return self._ping_ms()

    def goodbye(self, now_ms):
        """Ends the session's connection on purpose: the will is not published (3.14)."""
        if self._state in (_SUBSCRIBING, _UP):
            self._send(_DISCONNECT << 4, b"", now_ms)
            self._state = _CLOSED

    def _ping_ms(self):
        """A ping is due when nothing was sent, or nothing heard, for half of the time the broker allows."""
        return min(self._sent_ms, self._heard_ms) + self._keepalive_ms // 2

    def _check_head(self, first, size):
        """What a broker may send now, and how long it is: nobody waits for the rest of something else (2.2)."""
        kind = first >> 4
        check((self._state == _CONNECTING) == (kind == _CONNACK), "malformed", "CONNACK, once and first", first)
        if kind != _PUBLISH:
            check(first & 15 == 0 and kind in _SIZES, "malformed", "a packet of a broker's", first)
            wanted = _SIZES[kind] + (len(self._subscriptions) if kind == _SUBACK else 0)
            check(size == wanted, "malformed", wanted, size)

    def _packet(self, first, body, events, now_ms):
        kind, flags = first >> 4, first & 15
        if kind == _PUBLISH:
            topic, number, payload_at = _publish_head(flags, body)
            if number is not None:
                self._send(_PUBACK << 4, number, now_ms)
            events.append(("message", topic, body[payload_at:]))
            return
        if kind == _CONNACK:
            self._on_connack(body, events, now_ms)
        elif kind == _PUBACK:
            number = int.from_bytes(body, "big")
            check(number in self._tokens, "malformed", "a packet in flight", number)
            events.append(("published", self._tokens.pop(number)))
        elif kind == _SUBACK:
            self._on_suback(body, events)
        else:
            check(self._state == _UP and self._answer_by_ms is not None, "malformed", "a ping", first)
            self._answer_by_ms = None

    def _on_connack(self, body, events, now_ms):
        check(body[0] <= 1 and body[1] < len(REFUSALS), "malformed", len(REFUSALS), bytes(body))
        if body[1]:
            events.extend(self._end("refused: " + REFUSALS[body[1]]))
            return
        self._state = _SUBSCRIBING
        wanted = _SUBSCRIBE_ID.to_bytes(2, "big")
        for topic in self._subscriptions:
            wanted += _text(topic) + b"\x01"
        self._send(_SUBSCRIBE << 4 | 2, wanted, now_ms)
        self._answer_by_ms = now_ms + ANSWER_MS

    def _on_suback(self, body, events):
        check(self._state == _SUBSCRIBING, "malformed", "one SUBACK", bytes(body))
        check(int.from_bytes(body[:2], "big") == _SUBSCRIBE_ID, "malformed", _SUBSCRIBE_ID, bytes(body[:2]))
        for code in body[2:]:
            if code == 0x80:
                events.extend(self._end("a subscription was refused"))
                return
            check(code <= 1, "malformed", 1, code)
        self._state = _UP
        self._answer_by_ms = None
        events.append(("up",))

    def _skip(self, data, at, body_at, size, events, now_ms):
        """Answers a message over the limit as soon as its head is there; returns where to go on, 0 to wait."""
        check(data[at] >> 4 == _PUBLISH, "oversize", self._limit, size)
        if len(data) - body_at < min(size, 4 + TOPIC_BYTES):
            return 0
        topic, number, _ = _publish_head(data[at] & 15, data[body_at:body_at + min(size, 4 + TOPIC_BYTES)])
        if number is not None:
            self._send(_PUBACK << 4, number, now_ms)
        events.append(("skipped", topic, size))
        self._skip_bytes = max(0, body_at + size - len(data))
        return min(len(data), body_at + size)

    def _send(self, first, body, now_ms):
        self._out.append(bytes((first,)) + _length(len(body)) + body)
        self._sent_ms = now_ms

    def _end(self, why):
        self._state = _CLOSED
        self._answer_by_ms = None
        return [("down", why)]


class Retry:
    """Which broker is tried next, and when: one after the other, pauses doubling while none stands.

    chance: 0 to 255, so that not all agents come at once; a pause is between a half and the whole of its length.
    """

    def __init__(self, count):
        self.index = 0
        self.at_ms = 0
        self._count = count
        self._pause_ms = RETRY_MS

    def stood(self):
        """The connection works: the next pause is a short one again."""
        self._pause_ms = RETRY_MS

    def ended(self, now_ms, chance):
        """A connection ended, or never stood: on to the next broker."""
        self.index = (self.index + 1) % self._count
        self.at_ms = now_ms + (self._pause_ms >> 1) + (self._pause_ms >> 1) * chance // 255
        self._pause_ms = min(2 * self._pause_ms, _RETRY_MAX_MS)


def _head(data, at):
    """Returns (where the body begins, its length), or (None, 0) while the length is not whole (2.2.3)."""
    size = shift = 0
    for index in range(at + 1, min(at + 5, len(data))):
        size |= (data[index] & 127) << shift
        if data[index] < 128:
            return index + 1, size
        shift += 7
    check(shift < 28, "malformed", "a length of four bytes", bytes(data[at:at + 5]))
    return None, 0


def _publish_head(flags, body):
    """Returns (topic, packet id as two bytes or None, where the payload begins) of a PUBLISH (3.3)."""
    quality = flags >> 1 & 3
    check(quality < 2 and (quality or flags < 8), "malformed", "QoS 0 or 1", flags)
    check(len(body) >= 2, "malformed", "a topic", len(body))
    end = 2 + (body[0] << 8 | body[1])
    check(2 < end <= 2 + TOPIC_BYTES and len(body) >= end + 2 * quality, "malformed", "a topic", len(body))
    name = bytes(body[2:end])
    check(cbor.is_utf8(name), "malformed", "UTF-8", name)
    for byte in name:
        check(byte not in b"\x00+#", "malformed", "a topic's name", name)
    number = None
    if quality:
        number = bytes(body[end:end + 2])
        check(number != b"\x00\x00", "malformed", "a packet id", number)
        end += 2
    return name.decode(), number, end


def _length(size):
    out = bytearray()
    while True:
        out.append(size & 127 | (128 if size > 127 else 0))
        size >>= 7
        if not size:
            return bytes(out)


def _text(text):
    return _bytes16(text.encode())


def _bytes16(data):
    if len(data) > 0xFFFF:
        raise ValueError("%d bytes under a length of 16 bits" % len(data))
    return len(data).to_bytes(2, "big") + data
