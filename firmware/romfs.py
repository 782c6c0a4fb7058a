"""Makes the index of a ROMFS image from names and sizes, so that a slot is written as one stream of file contents.

ROMFS (MicroPython 1.25 and newer, extmod/vfs_rom.c) is a tree of records: kind, length, payload. Here the index comes
first, filled up to whole sectors: folders and files, each file a pointer to its bytes. The contents follow, one file
after the other as the rows stand, inside one padding record that readers skip. Lengths are written with three bytes
each (a leading 0x80 means nothing), so that an index' length depends on names only. Host and board lay out a slot with
this file alone: equal rows, equal bytes.
"""

SECTOR_BYTES = 4096
MAGIC = b"\xd2\xcd\x31"  # kind 0x14a6b1, a file system
MAX_BYTES = 1 << 21  # what three bytes of seven bits can say

_PADDING, _POINTER, _FOLDER, _FILE = 1, 3, 4, 5


def index(rows):
    """Returns the index of [(name, size), ...]: whole sectors, right behind which the contents follow, in this order.

    Names of one folder stand together. ValueError: a name twice or empty, or more than an image can hold.
    """
    names = sorted([row[0] for row in rows])
    for at in range(len(names)):
        if not names[at] or names[at].startswith("/") or names[at:at + 1] == names[at + 1:at + 2]:
            raise ValueError("name " + repr(names[at]))
    size = sum([row[1] for row in rows])
    empty = len(_records(rows, 0))  # as long as it will be
    start = len(MAGIC) + 3  # pointers count from behind the file system's own head
    data_at = -(-(start + empty + 4) // SECTOR_BYTES) * SECTOR_BYTES
    end = data_at + size + (size & 1)
    if end >= MAX_BYTES:
        raise ValueError("an image of %d bytes" % end)
    out = bytearray(MAGIC + _number(end - start) + _records(rows, data_at - start))
    out += bytes((_PADDING,)) + _number(end - len(out) - 4)
    out += bytes(data_at - len(out))
    return bytes(out)


def size_of(rows):
    """Returns the bytes of the whole image."""
    size = sum([row[1] for row in rows])
    return len(index(rows)) + size + (size & 1)


def _records(rows, data_at):
    """The records of all rows, the first one's content at `data_at`."""
    placed = []
    for name, size in rows:
        placed.append((name, size, data_at))
        data_at += size
    placed.sort()
    return _folder(placed, 0, len(placed), 0)


def _folder(placed, first, last, skip):
    """Records of placed[first:last], whose names have `skip` letters of folders in common."""
    out = b""
    at = first
    while at < last:
        name, size, offset = placed[at]
        slash = name.find("/", skip)
        if slash < 0:
            short = name[skip:].encode()
            body = bytes((_POINTER, 6)) + _number(size) + _number(offset)
            out += bytes((_FILE,)) + _number(1 + len(short) + len(body)) + bytes((len(short),)) + short + body
            at += 1
            continue
        end = at
        while end < last and placed[end][0].startswith(name[:slash + 1]):
            end += 1
        short = name[skip:slash].encode()
        body = _folder(placed, at, end, slash + 1)
        out += bytes((_FOLDER,)) + _number(1 + len(short) + len(body)) + bytes((len(short),)) + short + body
        at = end
    return out


def _number(value):
    return bytes((128 | value >> 14, 128 | value >> 7 & 127, value & 127))
