"""Prints the names of the modules that an agent at work holds all the time."""

import gc

gc.threshold(4096)

import sys

from firmware import main
from firmware.board import micro, sim  # noqa: F401

micro.drop(*main.ONCE)
print(" ".join([name for name in sys.modules if name.startswith("firmware")]))
