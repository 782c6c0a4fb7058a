"""Adds to this interpreter's module os what an ESP32's has: random bytes, Linux's error numbers, its own files only."""

import builtins

import _board
import uos
from uctypes import addressof
from uos import *  # noqa: F403  the interpreter's own

# This build's numbers (WASI): those of an ESP32
NUMBERS = {44: 2, 20: 17, 31: 21, 54: 20, 55: 39, 8: 9, 51: 28, 2: 13, 43: 19}
HIDDEN = ("dev", "proc", "tmp", "home", ".sim")
is_damaged = False  # the file system: set by start.py


def urandom(count):
    data = bytearray(count)
    _board.random(addressof(data), count)
    return bytes(data)


def _as_on_a_board(function):
    def wrapped(*words, **named):
        if is_damaged:
            raise OSError(19)  # ENODEV
        try:
            return function(*words, **named)
        except OSError as error:
            raise OSError(NUMBERS.get(error.errno, error.errno))  # noqa: B904  there is no cause on a board
    return wrapped


def stat(path):
    return _stat(path or getcwd())  # noqa: F405


def ilistdir(folder=""):
    at_root = (folder or getcwd()) == "/"  # noqa: F405
    for entry in list(_entries(folder)):  # all of them first: a mounted folder answers one question at a time
        if not at_root or entry[0] not in HIDDEN:
            yield entry if len(entry) > 3 else entry + (_size(folder, entry[0]),)


def _size(folder, name):
    try:
        return stat(folder + "/" + name if folder else name)[6]
    except OSError:  # a link that leads out of a mounted folder
        return 0


def listdir(folder=""):
    return [entry[0] for entry in ilistdir(folder)]


_entries = _as_on_a_board(uos.ilistdir)
_stat, remove, rename, mkdir, rmdir, chdir, statvfs = [
    _as_on_a_board(getattr(uos, name)) for name in ("stat", "remove", "rename", "mkdir", "rmdir", "chdir", "statvfs")]
unlink = remove
builtins.open = _as_on_a_board(builtins.open)
