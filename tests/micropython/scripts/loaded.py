"""Prints the names of the modules that a running agent has loaded."""

import gc

gc.threshold(4096)

import sys

from firmware import main  # noqa: F401
from firmware.board import sim  # noqa: F401

print(" ".join([name for name in sys.modules]))
