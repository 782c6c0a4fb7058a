"""Makes a MicroPython with sockets into an agent's board: the simulated one.

It is board/micro.py with files in the place of flash. The real interpreter under Node runs it in the tests, with
tests/micropython/bridge.mjs in the place of a board's network.
"""

import json
import os
import socket

try:
    from micropython import const
except ImportError:
    def const(value):
        return value

import firmware
from firmware import modbus
from firmware.board.micro import MicroBoard, drop, exists, read_file, stamp
from firmware.board.micro_link import parse_url
from firmware.board.micro_port import Port, open_port
from firmware.crypto import p256
from firmware.crypto.signer import SoftwareSigner
from firmware.journal import BLOCK_COUNT, BLOCK_SIZE, ERASE
from firmware.wire import cbor

CONFIG_NAME = "meter.json"
_SECTOR_BYTES = const(4096)
BLANK = b"\xff" * 256
_CHUNK_BYTES = const(512)  # of a file that is hashed
_DAY_MS = const(86400000)
_FOLDER_BIT = const(0x4000)  # of ilistdir's kind


class FileDevice:
    """A file that behaves like NOR flash under MicroPython's block protocol; `flush` is the sync on a board."""

    def __init__(self, path, size):
        if exists(path):
            self._count = os.stat(path)[6] // _SECTOR_BYTES  # a ring never changes its size: its newest end is anywhere
        else:
            self._count = size // _SECTOR_BYTES
            with open(path, "wb") as file:
                for _ in range(size // len(BLANK)):
                    file.write(BLANK)
        self._file = open(path, "r+b")  # noqa: SIM115  closed in close

    def readblocks(self, block, buffer, offset=0):
        self._file.seek(block * _SECTOR_BYTES + offset)
        self._file.readinto(buffer)

    def writeblocks(self, block, data, offset=0):
        self._file.seek(block * _SECTOR_BYTES + offset)
        self._file.write(data)

    def ioctl(self, operation, argument):
        if operation == BLOCK_COUNT:
            return self._count
        if operation == BLOCK_SIZE:
            return _SECTOR_BYTES
        if operation == ERASE:
            for offset in range(0, _SECTOR_BYTES, len(BLANK)):
                self.writeblocks(argument, BLANK, offset)
        self._file.flush()
        return 0

    def close(self):
        self._file.close()


class TerminalPort(Port):
    """RTU over a terminal of the machine that simulates the board."""

    def __init__(self, gap_ms, framing, baud, path):
        super().__init__(gap_ms, framing, baud)
        self._path = path

    def _connect(self):
        return socket.terminal(self._path)  # type: ignore[attr-defined]  # the bridge's


class SimBoard(MicroBoard):
    """The board of one agent's folder. `settings` from load_config; `say` gets each line of the log."""

    def __init__(self, settings, folder, clock, say=print):
        super().__init__(clock, SoftwareSigner(read_file(folder + "/" + settings.signing_key), os.urandom),
                         p256.verify_digest, folder + "/" + settings.data, folder + "/" + settings.genesis,
                         [folder + "/" + name for name in (settings.ca, settings.tls_cert, settings.tls_key)], say)
        if not exists(self._data):
            os.mkdir(self._data)
        self._journal_bytes = settings.journal_kib * 1024
        self._keep_frames_days = settings.keep_frames_days
        self._device = None
        self._pruned_day = 0

    def device(self):
        """The journal's file."""
        self._device = FileDevice(self._data + "/journal.bin", self._journal_bytes)
        return self._device

    def measurement(self):
        """Of the running program's files (board/measure.py)."""
        from firmware.board import measure

        found = measure.measure(firmware.__file__.rpartition("/")[0])
        drop("board.measure")
        return found

    def keep_frames(self, point, start_ms, exchanges):
        """Keeps what went over the line, so that a dispute can replay it through the register map."""
        if not self._keep_frames_days:
            return
        folder = self._data + "/frames"
        if not exists(folder):
            os.mkdir(folder)
        with open("%s/%s.cbor" % (folder, stamp(start_ms)[:10]), "ab") as file:
            file.write(cbor.encode([point, start_ms, [[one.frame, one.answer] for one in exchanges]]))
        if start_ms // _DAY_MS != self._pruned_day:
            self._pruned_day = start_ms // _DAY_MS
            oldest = stamp(max(0, start_ms - self._keep_frames_days * _DAY_MS))[:10]
            for name in os.listdir(folder):
                if name[:10] < oldest:
                    os.remove(folder + "/" + name)

    def open_port(self, line, clock):
        """A network's line, or a terminal that stands for a serial one."""
        if modbus.is_network(line.port):
            return open_port(line, clock.speed)
        return TerminalPort(line.gap_ms // clock.speed, modbus.RTU, line.baud, line.port)

    def put_away(self):
        """Gives the journal's file back; the board is of no more use."""
        if self._device is not None:
            self._device.close()


def load_config(folder):
    """Returns the Config of the folder's meter.json; BadConfig names the key."""
    from firmware import config as config_module

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
    drop("config", "own")
    from firmware import main

    board = SimBoard(settings, folder, clock, say)
    try:
        main.run(settings, board, clock, stop)
    finally:
        board.put_away()
