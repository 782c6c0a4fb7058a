"""Makes what all boards without threads have in common: small files, the log, meters polled in turn, the brokers' link.

Everything happens in one thread, inside `wait`: one poll of a meter, within its budget, then the broker is heard. What
came is returned as events, those that board/linux.py names. A board of its own (board/sim.py, board/esp32.py) adds the
journal's device, its lines and its measurement.
"""

import gc
import json
import os
import sys
import time

try:
    from micropython import const
except ImportError:
    def const(value):
        return value

from firmware import bus
from firmware.board.micro_link import Link

_RECEIVE_BYTES = const(16 * 1024)  # of the largest ack or header that is taken; what a gateway sends is far below


class MicroBoard:
    """data: folder of the trust and status files; genesis: a path; tls: paths of CA, certificate and key (PEM).

    say: gets each line of the log. A subclass has `device`, `measurement`, and `open_port(line, clock)`, which returns
    a port for `bus.poll` (board/micro_port.py) or raises config's BadConfig.
    """

    def __init__(self, clock, signer, verify_digest, data, genesis, tls, say=print):
        self.signer = signer
        self.verify_digest = verify_digest
        self._clock = clock
        self._data = data
        self._genesis = genesis
        self._tls = tls
        self._say = say
        self._events: list = []
        self._ports: dict = {}
        self._reads: list = []
        self._transaction = 0
        self._link = None

    def genesis(self):
        return read_file(self._genesis)

    def load(self, name):
        path = self._data + "/" + name
        return read_file(path) if exists(path) else None

    def save(self, name, data):
        """Replaces a small file whole: after a power cut it is the old one or the new one."""
        replace_file(self._data + "/" + name, data)

    def save_status(self, name, status):
        self.save(name, json.dumps(status).encode())

    def keep_frames(self, point, start_ms, exchanges):
        """A board's flash has no room for the frames; their hash is in every reading."""

    def start_bus(self, number, line, clock):
        gaps: dict = {}
        for row in line.meters:
            gaps[row.unit] = row.gap_ms // clock.speed
        self._ports[number] = (self.open_port(line, clock), line.answer_ms, gaps)

    def open_port(self, line, clock):
        raise OSError("a board has lines of its own")

    def read(self, duty):
        """Queues a poll; its outcome is an event ("words", duty, start_ms, quality, exchanges)."""
        self._reads.append(duty)

    def start_link(self, urls, client_id, subscriptions, will_topic, will):
        self._link = Link(urls, self._tls, client_id, subscriptions, (will_topic, will), self._events, self.log,
                          self._clock.monotonic_ms, _RECEIVE_BYTES)

    def publish(self, topic, payload, token):
        if self._link is not None:
            self._link.publish(topic, payload, token)

    def change_broker(self):
        if self._link is not None:
            self._link.change()

    def wait(self, wait_ms):
        """Returns the events that came, at the latest after `wait_ms`, or after one poll of a meter."""
        if self._reads:
            self._poll(self._reads.pop(0))
        if self._events:
            wait_ms = 0
        if self._link is not None:
            self._link.step(wait_ms)
        elif wait_ms > 0:
            time.sleep_ms(wait_ms)  # type: ignore[attr-defined]  # a board's
        events = self._events[:]
        self._events.clear()
        return events

    def forget(self, *names):
        """Drops modules of `firmware` that have done their work: RAM is worth more than the time to load them again."""
        drop(*names)

    def log(self, text):
        self._say(stamp(self._clock.now_ms()) + " " + text)

    def close(self):
        """Ends lines and link; events they still gave can be had by `wait(0)`. The journal stays open."""
        self._reads = []
        for number in self._ports:
            self._ports[number][0].close()
        if self._link is not None:
            self._link.stop()
            self._link = None

    def _poll(self, duty):
        port, answer_ms, gaps = self._ports[duty.bus]
        gap_ms = gaps.get(duty.unit, 0)
        port.gap_ms = max(gap_ms, gaps.get(None, 0))  # what the last one wants after, this one before it
        gaps[None] = gap_ms
        try:
            port.clear()  # the gap before the first request belongs to no reading's time
        except OSError:
            pass  # the poll finds the line closed, and its reading says so
        port.gap_ms = gap_ms
        start_ms, quality = self._clock.now_ms(), self._clock.quality()
        exchanges = bus.poll(port, duty.unit, duty.requests, duty.attempts, answer_ms, self._transaction,
                             duty.budget_ms)
        self._transaction = self._transaction + len(exchanges) & 0xFFFF
        self._events.append(("words", duty, start_ms, quality, exchanges))


def exists(path):
    try:
        os.stat(path)
        return True
    except OSError:
        return False


def read_file(path):
    with open(path, "rb") as file:
        return file.read()


def replace_file(path, data):
    with open(path + ".new", "wb") as file:
        file.write(data)
        file.flush()
    os.rename(path + ".new", path)


def drop(*names):
    """Forgets modules of ours that have done their work, and gives their RAM back."""
    is_gone = False
    for name in names:
        module = sys.modules.pop("firmware." + name, None)
        parent, _, last = ("firmware." + name).rpartition(".")
        if module is not None:
            is_gone = True
            if getattr(sys.modules.get(parent), last, None) is module:
                delattr(sys.modules[parent], last)
    if is_gone:
        gc.collect()


def stamp(label_ms):
    """Date and time of Unix ms."""
    return "%04d-%02d-%02d %02d:%02d:%02d" % tuple(time.gmtime(label_ms // 1000 - epoch_s())[:6])


def epoch_s():
    """Unix seconds at which this interpreter's time.time() is 0: the one place that knows ESP32's epoch is 2000."""
    return 946684800 if time.gmtime(0)[0] == 2000 else 0
