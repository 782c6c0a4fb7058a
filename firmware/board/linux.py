"""Makes a Linux machine (a Raspberry Pi) into an agent's board: files, serial ports, sockets, keys, broker, log.

The names that every board offers to main.py: signer, verify_digest, genesis, device, measurement, load, save,
save_status, keep_frames, start_bus, read, start_link, publish, change_broker, wait, log, close.
"""

import hashlib
import json
import os
import queue
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import firmware
from firmware import bus, config, main, meters, modbus, own
from firmware.board import linux_bus, linux_link
from firmware.crypto.openssl import OpenSSLSigner, verify_digest
from firmware.decode import entries_of
from firmware.journal import BLOCK_COUNT, BLOCK_SIZE, ERASE, SYNC
from firmware.planning import bus as planned
from firmware.planning import journal as planned_days
from firmware.tables import Field, Meter
from firmware.wire import cbor, genesis, identity
from firmware.wire.reading import Entry

SECTOR_BYTES = 4096  # a NOR flash's, so that journals of Pi and board have one geometry
CONFIG_NAME = "meter.toml"
DAY_MS = 86_400_000


class FileDevice:
    """A file that behaves like NOR flash under MicroPython's block protocol."""

    def __init__(self, path: Path, size: int) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        held = os.fstat(self._descriptor).st_size // SECTOR_BYTES
        self._count = max(held, size // SECTOR_BYTES)  # a ring is never made smaller: its newest end is anywhere
        if held and held < self._count:
            self._count = held  # nor larger, while it holds records in ring order
        os.ftruncate(self._descriptor, self._count * SECTOR_BYTES)
        if not held:
            os.fsync(self._descriptor)
            sync_folder(path.parent)

    def readblocks(self, block: int, buffer: bytearray, offset: int = 0) -> None:
        data = os.pread(self._descriptor, len(buffer), block * SECTOR_BYTES + offset)
        buffer[:len(data)] = data

    def writeblocks(self, block: int, data: bytes | bytearray, offset: int = 0) -> None:
        os.pwrite(self._descriptor, data, block * SECTOR_BYTES + offset)

    def ioctl(self, operation: int, argument: int) -> int:
        if operation == SYNC:
            os.fdatasync(self._descriptor)
        elif operation == BLOCK_COUNT:
            return self._count
        elif operation == BLOCK_SIZE:
            return SECTOR_BYTES
        elif operation == ERASE:
            os.pwrite(self._descriptor, b"\xff" * SECTOR_BYTES, argument * SECTOR_BYTES)
        return 0

    def close(self) -> None:
        os.close(self._descriptor)


class LinuxBoard:
    """The board of one agent's folder. `settings` from load_config; `say` gets each line of the log."""

    def __init__(self, settings: config.Config, folder: Path, clock: linux_bus.Clock,
                 say: Callable[[str], None] = print) -> None:
        self._settings = settings
        self._folder = folder
        self._clock = clock
        self._say = say
        self._data = folder / settings.data
        self._data.mkdir(parents=True, exist_ok=True)
        self._lock = _lock_folder(self._data)
        self._inbox: queue.SimpleQueue[tuple[Any, ...]] = queue.SimpleQueue()
        self._workers: dict[int, linux_bus.Worker] = {}
        self._link: linux_link.Link | None = None
        self._device: FileDevice | None = None
        self._pruned_day = 0
        self.signer = OpenSSLSigner.load(folder / settings.signing_key)
        self.verify_digest = verify_digest

    def genesis(self) -> bytes:
        return (self._folder / self._settings.genesis).read_bytes()

    def device(self) -> FileDevice:
        """The journal's file."""
        self._device = FileDevice(self._data / "journal.bin", self._settings.journal_kib * 1024)
        return self._device

    def measurement(self) -> bytes:
        """SHA-256 of CBOR [[path, size, SHA-256], ...] over the files of the running program, sorted by path."""
        return measure()

    def load(self, name: str) -> bytes | None:
        path = self._data / name
        return path.read_bytes() if path.exists() else None

    def save(self, name: str, data: bytes) -> None:
        """Replaces a small file whole: after a power cut it is the old one or the new one."""
        fresh = self._data / (name + ".new")
        with open(fresh, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, self._data / name)
        sync_folder(self._data)

    def save_status(self, name: str, status: dict[str, Any]) -> None:
        """For people and tests; not worth a sync."""
        fresh = self._data / (name + ".new")
        fresh.write_text(json.dumps(status, indent=1) + "\n")
        os.replace(fresh, self._data / name)

    def keep_frames(self, point: int, start_ms: int, exchanges: list[bus.Exchange]) -> None:
        """Keeps what went over the line, so that a dispute can replay it through the register map."""
        if not self._settings.keep_frames_days:
            return
        folder = self._data / "frames"
        folder.mkdir(exist_ok=True)
        frames = [[exchange.frame, exchange.answer] for exchange in exchanges]
        with open(folder / f"{_day(start_ms)}.cbor", "ab") as file:
            file.write(cbor.encode([point, start_ms, frames]))
        if start_ms // DAY_MS != self._pruned_day:
            self._pruned_day = start_ms // DAY_MS
            oldest = _day(start_ms - self._settings.keep_frames_days * DAY_MS)
            for path in folder.glob("*.cbor"):
                if path.stem < oldest:
                    path.unlink()

    def start_bus(self, number: int, line: config.Bus, clock: linux_bus.Clock) -> None:
        self._workers[number] = linux_bus.Worker(line, clock, self._inbox)

    def read(self, duty: Any) -> None:
        """Starts a poll; its outcome is an event ("words", duty, start_ms, quality, exchanges)."""
        self._workers[duty.bus].read(duty)

    def start_link(self, urls: list[str], client_id: str, subscriptions: list[str], will_topic: str,
                   will: bytes) -> None:
        files = linux_link.Identity(self._folder / self._settings.ca, self._folder / self._settings.tls_cert,
                                    self._folder / self._settings.tls_key)
        self._link = linux_link.Link(urls, files, client_id, subscriptions, (will_topic, will), self._inbox, self.log)

    def publish(self, topic: str, payload: bytes, token: Any) -> None:
        if self._link is not None:
            self._link.publish(topic, payload, token)

    def change_broker(self) -> None:
        if self._link is not None:
            self._link.change()

    def wait(self, wait_ms: int) -> list[tuple[Any, ...]]:
        """Returns the events that came, at the latest after `wait_ms`."""
        events = []
        try:
            events.append(self._inbox.get(timeout=wait_ms / 1000) if wait_ms else self._inbox.get_nowait())
            while True:
                events.append(self._inbox.get_nowait())
        except queue.Empty:
            return events

    def wake(self) -> None:
        """Ends a `wait` from another thread or a signal handler."""
        self._inbox.put(("woken",))

    def forget(self, *names: str) -> None:
        """A board drops modules that have done their work; there is room for them here."""

    def log(self, text: str) -> None:
        self._say(time.strftime("%Y-%m-%d %H:%M:%S ", time.gmtime(self._clock.now_ms() // 1000)) + text)

    def close(self) -> None:
        """Ends workers and link; events they still gave can be had by `wait(0)`. The journal stays open."""
        for number in sorted(self._workers):
            self._workers[number].stop()
        if self._link is not None:
            self._link.stop()

    def release(self) -> None:
        """Gives journal and folder back; the board is of no more use."""
        if self._device is not None:
            self._device.close()
        os.close(self._lock)


def measure() -> bytes:
    """The measurement of the program that is installed here (`Board.measurement`)."""
    root = Path(firmware.__file__).parent
    rows = []
    for path in sorted(root.rglob("*.py")):
        data = path.read_bytes()
        rows.append([path.relative_to(root.parent).as_posix(), len(data), hashlib.sha256(data).digest()])
    rows.sort()
    return hashlib.sha256(cbor.encode(rows)).digest()


def load_config(path: Path) -> tuple[config.Config, Path]:
    """Returns (Config, the agent's folder) of a meter.toml or of the folder it is in; BadConfig names file and line."""
    if path.is_dir():
        path = path / CONFIG_NAME
    try:
        text = path.read_text()
        values = tomllib.loads(text)
        settings = config.load(values, own_tables(path.parent, values))
    except OSError as error:
        raise config.BadConfig(str(path), error.strerror or "cannot be read") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise config.BadConfig(str(path), str(error)) from error
    except config.BadConfig as error:
        if error.key.startswith(str(path.parent) + os.sep):
            raise  # of a table's own file, which says its place already
        raise config.BadConfig(f"{path}:{_line_of(text, error.key)}: {error.key}", error.problem) from error
    for url in settings.brokers:
        problem = linux_link.check_url(url)
        if problem:
            raise config.BadConfig(f"{path}:{_line_of(text, 'brokers')}: brokers", f"{url}: {problem}")
    return settings, path.parent


def own_tables(folder: Path, values: dict[str, Any]) -> dict[str, Meter]:
    """Returns {type: Meter} of the files that a configuration's types name: TYPE.toml in the same folder."""
    tables = values.get("bus", [])
    rows = [row for one in tables if isinstance(one, dict) and isinstance(one.get("meter", []), list)
            for row in one.get("meter", [])] if isinstance(tables, list) else []
    names = {row["type"] for row in rows if isinstance(row, dict) and isinstance(row.get("type"), str)}
    return {name: load_table(folder / f"{name}.toml") for name in sorted(names)
            if name not in meters.TYPES and own.is_type_name(name) and (folder / f"{name}.toml").exists()}


def load_table(path: Path) -> Meter:
    """Returns the Meter of a person's own file; its type is the file's name. BadConfig names file, line and key."""
    try:
        text = path.read_text()
        return own.make(path.stem, tomllib.loads(text, parse_float=str))
    except OSError as error:
        raise config.BadConfig(str(path), error.strerror or "cannot be read") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise config.BadConfig(str(path), str(error)) from error
    except config.BadConfig as error:
        raise config.BadConfig(f"{path}:{_line_of(text, error.key)}: {error.key}", error.problem) from error


def run(path: Path, clock: linux_bus.Clock, stop: Callable[[], bool], say: Callable[[str], None] = print) -> None:
    """Runs the agent of a folder (or meter.toml) until `stop()`; BadConfig, OSError or Refused when it cannot start."""
    settings, folder = load_config(path)
    if clock.speed == 1:  # a demo's label time is held for whoever is slow
        planned.check(settings)
    board = LinuxBoard(settings, folder, clock, say)
    try:
        main.run(settings, board, clock, stop)
    finally:
        board.release()


def check(path: Path) -> list[str]:
    """Returns lines that say what an agent would do; starts nothing. BadConfig, OSError or Refused as `run`."""
    settings, folder = load_config(path)
    signer = OpenSSLSigner.load(folder / settings.signing_key)
    lines = [f"agent {identity.kid_of(signer.public_key()).hex()} in area {settings.area}",
             f"reads every {settings.interval_s} s, seals every {settings.seal_every_s} s, other quantities every "
             f"{settings.details_every_s} s"]
    if any(url.startswith("mqtts://") for url in settings.brokers):
        linux_link.tls_context(linux_link.Identity(folder / settings.ca, folder / settings.tls_cert,
                                                   folder / settings.tls_key))
    lines += [f"broker {url}" for url in settings.brokers]
    for line, prediction in zip(settings.buses, planned.predict(settings)):
        serial = "" if modbus.is_network(line.port) else f" at {line.baud} baud, 8{line.parity}1"
        lines.append(f"bus {line.port}{serial}, {line.gap_ms} ms between requests")
        for row in line.meters:
            table = config.table(row.type, settings.own)
            plan = modbus.plan(meters.fields_of(table, meters.BILLING), table.max_registers, table.max_hole)
            requests = ", ".join(f"function {function} registers {first}..{first + count - 1}"
                                 for function, first, count in plan)
            lines.append(f"  point {row.point}: unit {row.unit}, {table.maker} {table.model}: {requests}")
        lines.append("  " + planned.describe(prediction, settings))
    chain = folder / settings.genesis
    parameters = genesis.decode(chain.read_bytes()).parameters if chain.exists() else genesis.parameters()
    lines.append(planned_days.describe(settings, settings.journal_kib * 1024, parameters["slot_s"]))
    return lines


class Row:
    """One value read now: registers beside what they mean."""

    def __init__(self, field: Field, words: list[int | str], entry: Entry) -> None:
        self.label, self.name, self.function, self.address = field.label, field.name, field.function, field.address
        self.unit = field.unit if field.unit is not None else unit_of(field.label)
        self.words = [f"{word:04x}" if isinstance(word, int) else "----" for word in words]
        self.value, self.missing = entry.value, entry.missing


def unit_of(label: str) -> str:
    """Returns how a person reads a value that SenML has no unit for: thousandths, or a plain number."""
    return "mHz" if label == "frequency" else "mdeg" if "angle" in label else "mCel" if "temperature" in label else ""


def meter_read(port: str, type_name: str, unit: int, baud: int = 0, parity: str = "",
               answer_ms: int = 1000) -> list[Row]:
    """Reads every value of one meter once, without keys or gateway. ValueError: unknown type; OSError: no such line.

    type_name: a shipped type, or the path of a person's own file.
    """
    table = load_table(Path(type_name)) if type_name.endswith(".toml") else meters.load(type_name)
    gap_ms = 0 if port.startswith("tcp://") else table.gap_ms
    line = linux_bus.open_port(config.Bus(port, baud or table.baud, parity or table.parity, gap_ms, answer_ms, ()))
    line.open()
    try:
        requests = modbus.plan(table.fields, table.max_registers, table.max_hole)
        registers = bus.registers_of(bus.poll(line, unit, requests, 2, answer_ms), requests)
    finally:
        line.close()
    rows = []
    for field, entry in zip(table.fields, entries_of(table.fields, registers)[0]):
        words = [registers[(field.function, at)] for at in range(field.address, field.address + field.count)]
        rows.append(Row(field, words, entry))
    return rows


def sync_folder(folder: Path) -> None:
    """A new file's name is durable only with its folder."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _lock_folder(folder: Path) -> int:
    """Two agents on one journal would use a height twice: the second does not start."""
    import fcntl
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise OSError(error.errno, "another agent runs in this folder", str(folder)) from error
    return descriptor


def _day(label_ms: int) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(max(0, label_ms) // 1000))


def _line_of(text: str, key: str) -> int:
    """The line where a dotted key of a TOML file stands, as well as one can tell; 1 when it is missing."""
    parts = key.replace("]", "").split(".")
    wanted = parts[-1].split("[")[0]
    tables = [part.split("[") for part in parts if "[" in part]
    lines = text.splitlines()
    start = 0
    path = ""
    for name, number in tables:
        path = f"{path}.{name}" if path else name
        heads = [index for index, line in enumerate(lines) if line.strip() == f"[[{path}]]" and index >= start]
        if int(number) < len(heads):
            start = heads[int(number)]
    for index in range(start, len(lines)):
        if lines[index].split("=")[0].strip() == wanted:
            return index + 1
    return start + 1
