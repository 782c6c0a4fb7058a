"""Makes a ROMFS image, the read-only file system that MicroPython maps from flash, out of a folder's files.

A record is kind, length, payload; kind and length are numbers of seven bits a byte, the highest first (MicroPython's
extmod/vfs_rom.c). Code and constants of an .mpy file in such an image are used where they lie and take no RAM.
"""

from pathlib import Path

HEADER = b"\xd2\xcd\x31"  # "RM1" with the highest bits set
VERBATIM, DIRECTORY, FILE = 2, 4, 5


def make_image(folder: Path) -> bytes:
    """The image with all that is in the folder, by rising names; as long as an even number."""
    content = _entries(folder)
    size = _number(len(content))
    if (len(HEADER) + len(size) + len(content)) % 2:
        size = b"\x80" + size  # a leading zero digit
    return HEADER + size + content


def _entries(folder: Path) -> bytes:
    found = b""
    for path in sorted(folder.iterdir()):
        name = path.name.encode("ascii")
        head = _number(len(name)) + name
        if path.is_dir():
            found += _record(DIRECTORY, head + _entries(path))
        else:
            found += _record(FILE, head + _record(VERBATIM, path.read_bytes()))
    return found


def _record(kind: int, payload: bytes) -> bytes:
    return _number(kind) + _number(len(payload)) + payload


def _number(value: int) -> bytes:
    digits = [value & 127]
    while value := value >> 7:
        digits.insert(0, value & 127 | 128)
    return bytes(digits)
