"""Makes the lines of code that flashing runs at a board's prompt, and reads what they print.

They only call what lies on the board already: the starter on its file system and modules in its slot. What comes back
is one line that begins with MARK, with JSON behind it; nothing secret is ever printed.
"""

import json
from typing import Any

from deploy.flash.errors import FlashError

MARK = "gridseal:"
_SPKI_HEAD = "3059301306072a8648ce3d020106082a8648ce3d030107034200"  # SubjectPublicKeyInfo of P-256, before the point
_PROBE = """
import os, sys, gc, json, hashlib, binascii, vfs
def digest(name):
    hasher, chunk = hashlib.sha256(), bytearray(512)
    with open(name, "rb") as file:
        got = file.readinto(chunk)
        while got:
            hasher.update(memoryview(chunk)[:got])
            got = file.readinto(chunk)
    return binascii.hexlify(hasher.digest()).decode()
gc.collect()
found = {"version": ".".join([str(part) for part in sys.implementation[1][:3]]), "files": None, "free": gc.mem_free(),
         "maps_code": hasattr(vfs, "VfsRom") and hasattr(vfs, "rom_ioctl")}
try:
    names = os.listdir("/")
    found["has_key"] = "key.bin" in names
    found["files"] = {name: digest(name) for name in NAMES if name in names}
except OSError:
    pass
print(MARK, json.dumps(found))
"""
_MOUNT = """
import starter, vfs, json, hashlib, os
from esp32 import Partition
starter.mount(Partition.find(Partition.TYPE_DATA, label=starter.LABEL)[0], 0, vfs)
from firmware.board import tls_key
"""
_ENROL = _MOUNT + """
from network import WLAN
from firmware.board import esp32_enrol
record, updated = starter.load(starter.NAME), None
if record:
    if record[starter.SLOT] == 1:
        updated = record[starter.COUNTERS + 1]
    record[starter.SLOT], record[starter.IS_CONFIRMED], record[starter.TRIES] = 0, True, 0
    record[starter.COUNTERS] = COUNTER
    starter.save(starter.NAME, record)
point = tls_key.public("", WLAN(WLAN.IF_STA))
spki = hashlib.sha256(bytes.fromhex(SPKI_HEAD) + point).digest()
message = esp32_enrol.request("", spki, AREA, MODEL)
print(MARK, json.dumps([point.hex(), message.hex(), updated]))
"""
_SIGN = _MOUNT + """
print(MARK, json.dumps(tls_key.sign("", bytes.fromhex(DIGEST)).hex()))
"""


def probe(names: list[str]) -> str:
    """Code that tells version, whether a key is there, and SHA-256 of those of the named files that are there."""
    return _with(_PROBE, NAMES=names)


def enrol(area: str, model: str, counter: int) -> str:
    """Code that puts slot a into the boot record, makes both keys where there are none, and asks to be enrolled; it
    gives TLS key, request, and the version's number where the board ran one that had come by an update, else null."""
    return _with(_ENROL, AREA=area, MODEL=model, SPKI_HEAD=_SPKI_HEAD, COUNTER=counter)


def sign(digest: bytes) -> str:
    """Code that signs a digest with the TLS key."""
    return _with(_SIGN, DIGEST=digest.hex())


def read(output: str) -> Any:
    """The value of the marked line; FlashError where there is none."""
    for line in output.splitlines():
        if line.startswith(MARK):
            return json.loads(line.removeprefix(MARK))
    raise FlashError(f"the board did not answer: {output.strip()[-300:] or 'nothing was printed'}")


def _with(code: str, **values: Any) -> str:
    """The code behind lines that give its names their values."""
    return "".join(f"{name} = {value!r}\n" for name, value in {"MARK": MARK, **values}.items()) + code
