"""Makes a file system that MicroPython can mount out of a ROMFS image in a flash partition, where VfsRom is missing.

Interpreters built with MICROPY_VFS_ROM map the image and run code in its place; others (micropython.org's builds for
ESP32 among them) mount this, and code is copied to RAM: enough for boards with PSRAM, and what the tests boot from. It
reads what firmware/romfs.py makes and what `mpremote romfs` does: folders, files, pointers, contents in their place.
"""

import io

FOLDER_BIT, FILE_BIT = 0x4000, 0x8000
HEAD_BYTES = 8  # kind and length of a record: never longer in images below 2 MiB
_KIND, _VERBATIM, _POINTER, _FOLDER, _FILE = 0x14A6B1, 2, 3, 4, 5


class RomVfs:
    """The image that begins `start` bytes into an esp32.Partition; OSError 19 (ENODEV) where there is none."""

    def __init__(self, partition, start):
        self._partition = partition
        self._start = start
        self._begin = 0
        kind, self._begin, self._end = self._record(0, HEAD_BYTES)
        if kind != _KIND:
            raise OSError(19)

    def mount(self, is_readonly, makes_new):
        if makes_new:
            raise OSError(1)

    def umount(self):
        pass

    def chdir(self, path):
        self._find(path)

    def getcwd(self):
        return "/"

    def stat(self, path):
        kind, _, size = self._find(path)
        return (FOLDER_BIT if kind == _FOLDER else FILE_BIT, 0, 0, 0, 0, 0, size if kind == _FILE else 0, 0, 0, 0)

    def open(self, path, mode):
        kind, at, size = self._find(path)
        if "w" in mode or "a" in mode or "+" in mode:
            raise OSError(30)
        if kind != _FILE:
            raise OSError(21)
        data = self._read(at, size)
        return io.BytesIO(data) if "b" in mode else io.StringIO(data.decode())

    def ilistdir(self, path):
        kind, at, end = self._find(path)
        if kind != _FOLDER:
            raise OSError(20)
        found = []
        while at < end:
            kind, body, after = self._record(at, end)
            if kind in (_FOLDER, _FILE):
                name, body = self._name(body)
                size = self._content(body, after)[1] if kind == _FILE else 0
                found.append((name, FOLDER_BIT if kind == _FOLDER else FILE_BIT, 0, size))
            at = after
        return iter(found)

    def _find(self, path):
        """Returns (_FILE, where, size) or (_FOLDER, begin, end); OSError 2 (ENOENT)."""
        at, end = self._begin, self._end
        parts = [part for part in path.split("/") if part]
        for index in range(len(parts)):
            found = None
            while at < end and found is None:
                kind, body, after = self._record(at, end)
                if kind in (_FOLDER, _FILE):
                    name, body = self._name(body)
                    if name == parts[index]:
                        found = (kind, body, after)
                at = after
            if found is None or (found[0] == _FILE and index + 1 < len(parts)):
                raise OSError(2)
            kind, at, end = found
            if kind == _FILE:
                return (_FILE,) + self._content(at, end)
        return _FOLDER, at, end

    def _content(self, at, end):
        """(where, size) of a file's bytes."""
        while at < end:
            kind, body, after = self._record(at, end)
            if kind == _VERBATIM:
                return body, after - body
            if kind == _POINTER:
                data = self._read(body, after - body)
                size, next_at = _number(data, 0)
                return self._begin + _number(data, next_at)[0], size
            at = after
        raise OSError(5)

    def _name(self, at):
        data = self._read(at, 4)
        length, next_at = _number(data, 0)
        return self._read(at + next_at, length).decode(), at + next_at + length

    def _record(self, at, end):
        """(kind, where its payload begins, where it ends); OSError 5 (EIO) where it leaves what it is in."""
        data = self._read(at, HEAD_BYTES)
        kind, next_at = _number(data, 0)
        length, next_at = _number(data, next_at)
        if not kind or (at and at + next_at + length > end):
            raise OSError(5)
        return kind, at + next_at, at + next_at + length

    def _read(self, at, count):
        data = bytearray(count)
        at += self._start
        self._partition.readblocks(at // 4096, data, at % 4096)
        return bytes(data)


def _number(data, at):
    value = 0
    for index in range(at, len(data)):
        value = value << 7 | data[index] & 127
        if data[index] < 128:
            return value, index + 1
    raise OSError(5)
