"""Makes a MicroPython with sockets into an agent's board: the simulated one, whose meters speak Modbus TCP.

It offers the names of board/linux.py and does everything in one thread: meters are polled in turn inside `wait`, each
within its budget, and between two polls the broker is heard. The real interpreter under Node runs it in the tests,
with tests/micropython/bridge.mjs in the place of a board's network.
"""

import hashlib
import json
import os
import select
import socket
import time

import firmware
from firmware import bus, main, modbus
from firmware import config as config_module
from firmware.board.micro_link import Link, parse_url
from firmware.crypto import p256
from firmware.crypto.signer import SoftwareSigner
from firmware.journal import BLOCK_COUNT, BLOCK_SIZE, ERASE
from firmware.wire import cbor

CONFIG_NAME = "meter.json"
SECTOR_BYTES = 4096
BLANK = b"\xff" * 256
CHUNK_BYTES = 512  # of a file that is hashed
RECEIVE_BYTES = 16 * 1024  # of the largest ack or header that is taken; what a gateway sends is far below
CONNECT_S = 2
REOPEN_MS, REOPEN_MAX_MS = 500, 30000  # between two tries to open a line that is gone; doubling
DAY_MS = 86400000
FOLDER_BIT = 0x4000  # of ilistdir's kind


class FileDevice:
    """A file that behaves like NOR flash under MicroPython's block protocol; `flush` is the sync on a board."""

    def __init__(self, path, size):
        if _exists(path):
            self._count = os.stat(path)[6] // SECTOR_BYTES  # a ring never changes its size: its newest end is anywhere
        else:
            self._count = size // SECTOR_BYTES
            with open(path, "wb") as file:
                for _ in range(size // len(BLANK)):
                    file.write(BLANK)
        self._file = open(path, "r+b")  # noqa: SIM115  closed in close

    def readblocks(self, block, buffer, offset=0):
        self._file.seek(block * SECTOR_BYTES + offset)
        self._file.readinto(buffer)

    def writeblocks(self, block, data, offset=0):
        self._file.seek(block * SECTOR_BYTES + offset)
        self._file.write(data)

    def ioctl(self, operation, argument):
        if operation == BLOCK_COUNT:
            return self._count
        if operation == BLOCK_SIZE:
            return SECTOR_BYTES
        if operation == ERASE:
            for offset in range(0, SECTOR_BYTES, len(BLANK)):
                self.writeblocks(argument, BLANK, offset)
        self._file.flush()
        return 0

    def close(self):
        self._file.close()


class TcpPort:
    """Modbus TCP for `bus.poll`; one connection that is kept, opened again after pauses that double."""

    framing = modbus.TCP

    def __init__(self, url, gap_ms):
        host, _, number = url[len("tcp://"):].rpartition(":")
        self._address = (host, int(number))
        self._gap_ms = gap_ms
        self._socket = None
        self._poller = select.poll()
        self._quiet_from_ms = self._reopen_at_ms = _ticks_ms()
        self._reopen_ms = REOPEN_MS

    def clear(self):
        """Keeps the silence that is due before a request, and drops what came unasked; OSError while it is closed."""
        self._open()
        _sleep_ms(self._gap_ms - _since_ms(self._quiet_from_ms))
        while self._poller.poll(0):
            if not self._receive(256):
                self._open()

    def write(self, data):
        if self._socket is None:
            raise OSError("closed")
        try:
            self._socket.settimeout(CONNECT_S)
            self._socket.sendall(data)
        except OSError:
            self.close()
            raise

    def read(self, count, wait_ms):
        start_ms = _ticks_ms()
        received = b""
        while len(received) < count and self._socket is not None:
            left_ms = wait_ms - _since_ms(start_ms)
            if left_ms <= 0 or not self._poller.poll(left_ms):
                break
            received += self._receive(count - len(received))
        self._quiet_from_ms = _ticks_ms()
        if self._socket is None:
            raise OSError("closed by the other side")
        return received

    def close(self):
        if self._socket is not None:
            self._poller.unregister(self._socket)
            self._socket.close()
            self._socket = None

    def _open(self):
        if self._socket is not None:
            return
        if _since_ms(self._reopen_at_ms) < 0:
            raise OSError("closed; tried again shortly")
        link = socket.socket()
        link.settimeout(CONNECT_S)
        try:
            link.connect(socket.getaddrinfo(self._address[0], self._address[1])[0][-1])
        except OSError:
            link.close()
            self._reopen_at_ms = time.ticks_add(_ticks_ms(), self._reopen_ms)  # type: ignore[attr-defined]
            self._reopen_ms = min(2 * self._reopen_ms, REOPEN_MAX_MS)
            raise
        self._reopen_ms = REOPEN_MS
        self._socket = link
        self._poller.register(link, select.POLLIN)

    def _receive(self, count):
        """Returns what is there; b"" after the end, with the line closed."""
        if self._socket is None:
            return b""
        try:
            data = self._socket.recv(count)
        except OSError:
            data = b""
        if not data:
            self.close()
        return data


class SimBoard:
    """The board of one agent's folder. `settings` from load_config; `say` gets each line of the log."""

    def __init__(self, settings, folder, clock, say=print):
        self._settings = settings
        self._folder = folder
        self._clock = clock
        self._say = say
        self._data = folder + "/" + settings.data
        if not _exists(self._data):
            os.mkdir(self._data)
        self._events: list = []
        self._ports: dict = {}
        self._reads: list = []
        self._transaction = 0
        self._link = None
        self._device = None
        self._pruned_day = 0
        self.signer = SoftwareSigner(_read(folder + "/" + settings.signing_key), os.urandom)
        self.verify_digest = p256.verify_digest

    def genesis(self):
        return _read(self._folder + "/" + self._settings.genesis)

    def device(self):
        """The journal's file."""
        self._device = FileDevice(self._data + "/journal.bin", self._settings.journal_kib * 1024)
        return self._device

    def measurement(self):
        """SHA-256 of CBOR [[path, size, SHA-256], ...] over the files of the running program, sorted by path."""
        root = firmware.__file__.rpartition("/")[0]
        paths = _paths_below(root)
        paths.sort()
        hasher = hashlib.sha256(cbor.head(4, len(paths)))  # row by row: all of them take 3 KiB in one piece
        for path in paths:
            size, digest = _hash_of(path)
            hasher.update(cbor.encode([path[root.rfind("/") + 1:], size, digest]))
        return hasher.digest()

    def load(self, name):
        path = self._data + "/" + name
        return _read(path) if _exists(path) else None

    def save(self, name, data):
        """Replaces a small file whole: after a power cut it is the old one or the new one."""
        fresh = self._data + "/" + name + ".new"
        with open(fresh, "wb") as file:
            file.write(data)
            file.flush()
        os.rename(fresh, self._data + "/" + name)

    def save_status(self, name, status):
        self.save(name, json.dumps(status).encode())

    def keep_frames(self, point, start_ms, exchanges):
        """Keeps what went over the line, so that a dispute can replay it through the register map."""
        if not self._settings.keep_frames_days:
            return
        folder = self._data + "/frames"
        if not _exists(folder):
            os.mkdir(folder)
        with open("%s/%s.cbor" % (folder, _stamp(start_ms)[:10]), "ab") as file:
            file.write(cbor.encode([point, start_ms, [[one.frame, one.answer] for one in exchanges]]))
        if start_ms // DAY_MS != self._pruned_day:
            self._pruned_day = start_ms // DAY_MS
            oldest = _stamp(max(0, start_ms - self._settings.keep_frames_days * DAY_MS))[:10]
            for name in os.listdir(folder):
                if name[:10] < oldest:
                    os.remove(folder + "/" + name)

    def start_bus(self, number, line, clock):
        if not line.port.startswith("tcp://"):
            raise config_module.BadConfig("bus[%d].port" % number, "this board's meters speak tcp:// only")
        self._ports[number] = (TcpPort(line.port, line.gap_ms // clock.speed), line.answer_ms)

    def read(self, duty):
        """Queues a poll; its outcome is an event ("words", duty, start_ms, quality, exchanges)."""
        self._reads.append(duty)

    def start_link(self, urls, client_id, subscriptions, will_topic, will):
        files = [self._folder + "/" + name
                 for name in (self._settings.ca, self._settings.tls_cert, self._settings.tls_key)]
        self._link = Link(urls, files, client_id, subscriptions, (will_topic, will), self._events, self.log,
                          self._clock.monotonic_ms, RECEIVE_BYTES)

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
        if self._link is None:
            _sleep_ms(0 if self._events else wait_ms)
        else:
            self._link.step(0 if self._events else wait_ms)
        events = self._events[:]
        self._events.clear()
        return events

    def log(self, text):
        self._say(_stamp(self._clock.now_ms()) + " " + text)

    def close(self):
        """Ends lines and link; events they still gave can be had by `wait(0)`. The journal stays open."""
        self._reads = []
        for number in self._ports:
            self._ports[number][0].close()
        if self._link is not None:
            self._link.stop()
            self._link = None

    def put_away(self):
        """Gives the journal's file back; the board is of no more use."""
        if self._device is not None:
            self._device.close()

    def _poll(self, duty):
        port, answer_ms = self._ports[duty.bus]
        try:
            port.clear()  # the gap before the first request belongs to no reading's time
        except OSError:
            pass  # the poll finds the line closed, and its reading says so
        start_ms, quality = self._clock.now_ms(), self._clock.quality()
        exchanges = bus.poll(port, duty.unit, duty.requests, duty.attempts, answer_ms, self._transaction)
        self._transaction = self._transaction + len(exchanges) & 0xFFFF
        self._events.append(("words", duty, start_ms, quality, exchanges))


def load_config(folder):
    """Returns the Config of the folder's meter.json; BadConfig names the key."""
    path = folder + "/" + CONFIG_NAME
    try:
        with open(path) as file:
            settings = config_module.load(json.load(file))
    except OSError:
        raise config_module.BadConfig(path, "cannot be read")
    except ValueError:
        raise config_module.BadConfig(path, "is not JSON")
    for url in settings.brokers:
        try:
            parse_url(url)
        except ValueError as error:
            raise config_module.BadConfig("brokers", "%s: %s" % (url, error))
    return settings


def run(folder, clock, stop, say=print):
    """Runs the agent of a folder until `stop()`; BadConfig, OSError or Refused when it cannot start."""
    settings = load_config(folder)
    board = SimBoard(settings, folder, clock, say)
    try:
        main.run(settings, board, clock, stop)
    finally:
        board.put_away()


def _paths_below(folder):
    """Every file below a folder."""
    found = []
    for entry in os.ilistdir(folder):  # type: ignore[attr-defined]  # a board's
        path = folder + "/" + entry[0]
        if entry[1] & FOLDER_BIT:
            found.extend(_paths_below(path))
        else:
            found.append(path)
    return found


def _hash_of(path):
    """(size, SHA-256) of a file."""
    hasher, size, chunk = hashlib.sha256(), 0, bytearray(CHUNK_BYTES)
    with open(path, "rb") as file:
        got = file.readinto(chunk)
        while got:
            hasher.update(memoryview(chunk)[:got])
            size += got
            got = file.readinto(chunk)
    return size, hasher.digest()


def _exists(path):
    try:
        os.stat(path)
        return True
    except OSError:
        return False


def _read(path):
    with open(path, "rb") as file:
        return file.read()


def _stamp(label_ms):
    """Date and time of Unix ms; a board's own epoch may be 2000."""
    epoch_s = 946684800 if time.gmtime(0)[0] == 2000 else 0
    return "%04d-%02d-%02d %02d:%02d:%02d" % tuple(time.gmtime(label_ms // 1000 - epoch_s)[:6])


def _ticks_ms():
    return time.ticks_ms()  # type: ignore[attr-defined]  # a board's


def _since_ms(ticks_ms):
    return time.ticks_diff(time.ticks_ms(), ticks_ms)  # type: ignore[attr-defined]  # a board's


def _sleep_ms(wait_ms):
    if wait_ms > 0:
        time.sleep_ms(wait_ms)  # type: ignore[attr-defined]  # a board's
