"""Adds to this interpreter's module `os` what a board's has: random bytes."""

from _bridge import random as _random
from uctypes import addressof
from uos import *  # noqa: F403  the interpreter's own


def urandom(count):
    data = bytearray(count)
    _random(addressof(data), count)
    return bytes(data)
