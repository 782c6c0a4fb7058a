"""The meter agent: Modbus words in, signed seals out; one code base for MicroPython and CPython."""
