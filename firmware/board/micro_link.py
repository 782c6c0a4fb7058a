"""Makes the link of a board without threads to one of its MQTT brokers: a socket that is looked at in turn.

The protocol is `firmware/mqtt.py`; here are connection, TLS and waiting, by the modules that MicroPython's boards have.
Events are those of board/linux_link.py.
"""

import os
import select
import socket
import ssl
import time

try:
    from micropython import const
except ImportError:
    def const(value):
        return value

from firmware import mqtt
from firmware.wire.errors import Refused

CONNECT_S = 5
_SEND_MS = const(5000)  # a broker that takes no bytes for so long is gone
_READ_BYTES = const(512)
LOOPBACK = ("127.0.0.1", "localhost")


def parse_url(url, allows_plain=False):
    """Returns (is TLS, host, port) of mqtts://HOST:PORT; ValueError says what is wrong.

    mqtt:// is for this machine only, or, where the settings say so (plain_mqtt), for a private network.
    """
    scheme, _, address = url.partition("://")
    host, _, port = address.rpartition(":")
    if scheme not in ("mqtts", "mqtt") or not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError("expected mqtts://HOST:PORT")
    if scheme == "mqtt" and host not in LOOPBACK and not (allows_plain and is_private(host)):
        raise ValueError("mqtt:// is without encryption and only for this machine: use mqtts://")
    return scheme == "mqtts", host, int(port)


def is_private(host):
    """Tells whether a host is an address of a private network (RFC 1918), or a name in one (.local, .lan)."""
    if host.endswith(".local") or host.endswith(".lan"):
        return True
    parts = host.split(".")
    if len(parts) != 4 or [part for part in parts if not part.isdigit()]:
        return False
    return parts[0] == "10" or parts[:2] == ["192", "168"] or (parts[0] == "172" and 16 <= int(parts[1]) < 32)


class Link:
    """Keeps one connection alive, as far as `step` is called. files: paths of CA, certificate and key (PEM).

    monotonic_ms: a function; inbox: a list that gets the events; receive_limit: bytes of the largest message kept.
    """

    allows_plain = False

    def __init__(self, urls, files, client_id, subscriptions, will, inbox, log, monotonic_ms, receive_limit):
        self._urls = urls
        self._files = files
        self._inbox = inbox
        self._log = log
        self._now_ms = monotonic_ms
        self._client = mqtt.Client(client_id, subscriptions, will, receive_limit)
        self._retry = mqtt.Retry(len(urls))
        self._poller = select.poll()
        self._buffer = bytearray(_READ_BYTES)
        self._stream = None
        self._socket = None  # what the stream stands on: select looks at this one
        self._is_told = False  # `connected` was, so `disconnected` will be
        self._last_problem = ""
        for url in urls:
            if url.startswith("mqtt://"):
                log("broker %s: WITHOUT ENCRYPTION" % url)

    def publish(self, topic, payload, token):
        """Hands a message to the broker with QoS 1; `token` comes back in `published`. Lost when the link is down."""
        if self._client.is_up():
            self._client.publish(topic, payload, token, self._now_ms())
            self._guard(self._flush)

    def change(self):
        """Leaves this broker for the next."""
        if self._stream is not None:
            self._leave("left for the next")

    def stop(self):
        if self._stream is not None:
            self._guard(self._say_goodbye)
        if self._stream is not None:
            self._drop()

    def step(self, wait_ms):
        """Connects, sends and takes what is due; after `wait_ms` at the latest, but for a connection's making."""
        now_ms = self._now_ms()
        if self._stream is None:
            if now_ms < self._retry.at_ms:
                time.sleep_ms(min(wait_ms, self._retry.at_ms - now_ms))  # type: ignore[attr-defined]  # a board's
                return
            self._connect()
            return
        due_ms = self._client.next_ms()
        if due_ms is not None:
            wait_ms = max(0, min(wait_ms, due_ms - now_ms))
        if self._poller.poll(wait_ms):
            self._guard(self._take)
        if self._stream is not None:
            self._tell(self._client.tick(self._now_ms()))
        if self._stream is not None:
            self._guard(self._flush)

    def _connect(self):
        url = self._urls[self._retry.index]
        try:
            is_secure, host, port = parse_url(url, self.allows_plain)
            self._socket = socket.socket()
            self._socket.settimeout(CONNECT_S)
            self._socket.connect(socket.getaddrinfo(host, port)[0][-1])
            self._stream = _secured(self._socket, host, self._files) if is_secure else self._socket
            self._socket.setblocking(False)
            self._poller.register(self._socket, select.POLLIN)
            self._client.open(self._now_ms())
            self._flush()
        except (OSError, ValueError) as error:
            self._end("cannot be reached (%s)" % error)

    def _take(self):
        """Everything that is there: a poll looks at the socket, and TLS may hold more than the socket does."""
        while self._stream is not None:
            got = self._stream.readinto(self._buffer)
            if got is None:
                return
            if not got:
                raise OSError("closed by the broker")
            self._tell(self._client.receive(memoryview(self._buffer)[:got], self._now_ms()))
            if got < len(self._buffer):
                return

    def _flush(self):
        if self._stream is None or self._socket is None:
            return
        for piece in self._client.take():
            view = memoryview(piece)
            while len(view):
                sent = self._stream.write(view)
                if sent is None:
                    room = select.poll()
                    room.register(self._socket, select.POLLOUT)
                    if not room.poll(_SEND_MS):
                        raise OSError("takes no more bytes")
                else:
                    view = view[sent:]

    def _say_goodbye(self):
        self._client.goodbye(self._now_ms())
        self._flush()

    def _guard(self, use):
        try:
            use()
        except OSError as error:
            self._end("connection ended (%s)" % error)
        except Refused as refused:
            self._end("breaks the protocol (%s)" % refused)

    def _tell(self, events):
        for event in events:
            if event[0] == "up":
                self._retry.stood()
                self._is_told = True
                self._last_problem = ""
                self._log("broker %s: connected" % self._urls[self._retry.index])
                self._inbox.append(("connected", self._retry.index))
            elif event[0] == "down":
                self._end(event[1])
            elif event[0] == "skipped":
                self._log("a message of %d bytes on %s is too large for this board" % (event[2], event[1]))
            elif event[0] != "published" or event[1] is not None:
                self._inbox.append(event)

    def _end(self, problem):
        text = "broker %s: %s" % (self._urls[self._retry.index], problem)
        if text != self._last_problem:  # not the same line at every try
            self._last_problem = text
            self._log(text)
        self._drop()

    def _leave(self, why):
        self._guard(self._say_goodbye)
        if self._stream is not None:
            self._end(why)

    def _drop(self):
        """Closes what there is, and goes on with the next broker after a pause."""
        if self._socket is not None:
            if self._stream is not None:
                self._poller.unregister(self._socket)
                self._stream.close()
            self._socket.close()
        self._stream = self._socket = None
        self._client.close()
        self._retry.ended(self._now_ms(), os.urandom(1)[0])
        if self._is_told:
            self._is_told = False
            self._inbox.append(("disconnected",))


def _secured(stream, host, files):
    """TLS with the area's CA and no other, the host's name checked, our certificate shown; files are read each time,
    for they take more RAM than a reconnection's time is worth."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=_read(files[0]))
    context.load_cert_chain(_read(files[1]), _read(files[2]))
    return context.wrap_socket(stream, server_hostname=host)


def _read(path):
    with open(path, "rb") as file:
        return file.read()
