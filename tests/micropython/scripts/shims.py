"""Prints how many bytes of heap the modules take that a board has in its interpreter and the bridge has in Python."""

import gc

gc.threshold(4096)
gc.collect()
before = gc.mem_alloc()

import select  # noqa: F401
import socket  # noqa: F401
import ssl  # noqa: F401

import shared_clock  # noqa: F401

gc.collect()
print(gc.mem_alloc() - before)
