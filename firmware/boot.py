"""Makes a board's start out of its boot record: counts it, picks a slot, goes back where a new version does not stand.

On a board this is `starter.mpy` beside `main.py` on the file system (docs/update.md): no update touches it, and until
it has mounted a slot there is nothing of ours to import. A Linux machine keeps the same record by the same rules.

Theory. The record says which slot runs, whether that version was confirmed, and how many starts there were since the
last one that was good. It is replaced whole, before anything else happens: a start that hangs or loses its power is
counted all the same. A version on trial gets TRIALS starts; with the next one the other slot is back for good. A
confirmed version that does not come to stand in CRASHES starts is started in safe mode: network, update and serial
line without metering, for a while; then it is tried again. Where safe mode does not stand either, the other slot's
safe mode takes turns with it, if there is one.
"""

import os
import sys

VERSION = 1
NAME = "boot.cbor"
CRASH_NAME = "crash.txt"
SLOT, IS_CONFIRMED, TRIES, COUNTERS, HIGHEST, FAILED, EXPECTED = 1, 2, 3, 4, 6, 7, 8  # COUNTERS: of slot a, then b
FIELDS = 9
BUS, BROKER = 1, 2  # of EXPECTED: what worked before the switch must work after it
TRIALS = 3
CRASHES = 5
SAFE_STARTS = 3  # of one slot's safe mode before the other slot's takes its turn
MOST_TRIES = 200
LABEL, SLOT_BYTES = "romfs", 0x20000
POINTS = ("/slot_a", "/slot_b")  # where a slot is mounted: which one runs, its files' names tell
SECTOR_BYTES = 4096
MAGIC = b"\xd2\xcd\x31"  # firmware/romfs.py
WATCHDOG_MS = 60000
SERVICE_MS = 3600000  # for whoever stops the agent on the serial line (Ctrl-C)
PAUSE_MS = 2000  # between a crash and the restart: a board that cannot run shall not wear out its flash
RUN, SAFE = "run", "safe"


def load(path):
    """Returns the record as a list, or None where there is none that can be read."""
    try:
        with open(path, "rb") as file:
            return decode(file.read())
    except OSError:
        return None


def save(path, record):
    """Replaces the record whole: after a power cut it is the old one or the new one."""
    with open(path + ".new", "wb") as file:
        file.write(encode(record))
        file.flush()
        sync = getattr(os, "fsync", None)  # on a board flush is the sync
        if sync is not None:
            sync(file.fileno())
    os.rename(path + ".new", path)


def fresh(holds_a, holds_b):
    """Returns the record of a board that has none: the first slot that holds something, as flashed."""
    return [VERSION, 0 if holds_a or not holds_b else 1, True, 0, 0, 0, 0, 0, BUS | BROKER]


def count_start(record):
    """Counts a start in the record and returns (slot, RUN or SAFE): what is to be started this time."""
    record[TRIES] = min(record[TRIES] + 1, MOST_TRIES)
    if not record[IS_CONFIRMED] and record[TRIES] > TRIALS:
        go_back(record)
        record[TRIES] = 1
    if record[TRIES] <= CRASHES:
        return record[SLOT], RUN
    is_others_turn = (record[TRIES] - CRASHES - 1) // SAFE_STARTS & 1
    if is_others_turn and record[COUNTERS + (record[SLOT] ^ 1)]:
        return record[SLOT] ^ 1, SAFE
    return record[SLOT], SAFE


def switch(record, slot, counter, expected):
    """The slot holds a verified version: it runs from the next start on, on trial."""
    record[SLOT] = slot
    record[COUNTERS + slot] = counter
    record[IS_CONFIRMED] = False
    record[TRIES] = 0
    record[EXPECTED] = expected


def confirm(record):
    """What runs is good: a version on trial stays, and starts count from 0 again. True when that changed anything."""
    is_news = not record[IS_CONFIRMED] or record[TRIES] > 0
    record[HIGHEST] = max(record[HIGHEST], record[COUNTERS + record[SLOT]])
    record[IS_CONFIRMED] = True
    record[TRIES] = 0
    return is_news


def go_back(record):
    """The version on trial is not good: the other slot is back, for good, and this version is not taken again."""
    record[FAILED] = record[COUNTERS + record[SLOT]]
    record[SLOT] ^= 1
    record[IS_CONFIRMED] = True
    record[TRIES] = 0


def encode(record):
    """CBOR of the record: an array of numbers below 2^32 and one bool."""
    out = bytearray((0x80 | len(record),))
    for value in record:
        if value is True or value is False:
            out.append(0xF5 if value else 0xF4)
        elif value < 24:
            out.append(value)
        elif value < 256:
            out += bytes((24, value))
        elif value < 65536:
            out += bytes((25, value >> 8, value & 255))
        else:
            out += bytes((26,)) + value.to_bytes(4, "big")
    return bytes(out)


def decode(data):
    """The record of these bytes, or None."""
    if not data or data[0] != 0x80 | FIELDS:
        return None
    record: list = []
    at = 1
    while at < len(data) and len(record) < FIELDS:
        first = data[at]
        size = {24: 1, 25: 2, 26: 4}.get(first, 0)
        if first in (0xF4, 0xF5):
            record.append(first == 0xF5)
        elif first < 24 or size:
            record.append(int.from_bytes(data[at + 1:at + 1 + size], "big") if size else first)
        else:
            return None
        at += 1 + size
    is_whole = at == len(data) and len(record) == FIELDS and record[0] == VERSION and record[SLOT] in (0, 1)
    return record if is_whole and record[IS_CONFIRMED] in (True, False) else None


def holds(partition, slot):
    """Tells whether a slot begins as an image does."""
    data = bytearray(len(MAGIC))
    partition.readblocks(slot * SLOT_BYTES // SECTOR_BYTES, data, 0)
    return bytes(data) == MAGIC


def mount(partition, slot, vfs):
    """Mounts a slot at its point and puts that first on sys.path; OSError where it holds no image."""
    for point in ("/rom",) + POINTS:  # the interpreter mounts the partition's beginning, slot a, by itself
        try:
            vfs.umount(point)
        except OSError:
            pass
    start = slot * SLOT_BYTES
    mapped = _mapped(vfs)
    if mapped is not None:
        image = vfs.VfsRom(mapped[start:start + SLOT_BYTES])
    else:
        import romvfs
        image = romvfs.RomVfs(partition, start)
    vfs.mount(image, POINTS[slot])
    sys.path[:] = [POINTS[slot]] + [path for path in sys.path if not path.startswith("/rom") and path not in POINTS]


def _mapped(vfs):
    """The whole partition as memory, where the interpreter maps it (built with ROMFS); else None."""
    if not hasattr(vfs, "rom_ioctl") or vfs.rom_ioctl(1) < 1:
        return None
    try:
        mapped = memoryview(vfs.rom_ioctl(2, 0))
    except TypeError:
        return None
    return mapped if len(mapped) == 2 * SLOT_BYTES else None


def start(folder=""):
    """Starts the agent of a board; does not come back but for a person on the serial line. folder: "" or a test's."""
    import gc

    import machine
    from esp32 import Partition
    # Modules come and leave garbage: collected early, what stays is kept together.
    gc.threshold(4096)  # type: ignore[attr-defined]  # a board's
    machine.WDT(timeout=WATCHDOG_MS)
    try:
        found = Partition.find(Partition.TYPE_DATA, label=LABEL)
        if not found or not (holds(found[0], 0) or holds(found[0], 1)):
            print("no agent in flash: gridseal flash writes one")
            machine.WDT(timeout=SERVICE_MS)
            return
        _hand_over(folder, found[0])
    except KeyboardInterrupt:
        machine.WDT(timeout=SERVICE_MS)
        print("the agent is stopped; it starts again in an hour, or by machine.reset()")
        return
    except Exception as error:
        _note_crash(folder, error)
    machine.reset()


def _hand_over(folder, partition):
    import vfs
    path = folder + "/" + NAME
    record = load(path) or fresh(holds(partition, 0), holds(partition, 1))
    slot, mode = count_start(record)
    save(path, record)
    mount(partition, slot, vfs)
    if mode == RUN:
        from firmware.board import esp32
        esp32.run(folder)
    else:
        from firmware.board import esp32_safe
        esp32_safe.run(folder)


def _note_crash(folder, error):
    """The newest crash, for whoever asks (safe mode, serial line)."""
    import time
    try:
        show = sys.print_exception  # type: ignore[attr-defined]  # a board's
        show(error)
        with open(folder + "/" + CRASH_NAME, "w") as file:
            show(error, file)
    except OSError:
        pass
    time.sleep_ms(PAUSE_MS)  # type: ignore[attr-defined]  # a board's
