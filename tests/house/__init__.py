"""The rules of the house, held by machine: rooms and directions, purity, sizes, MicroPython's traps."""
