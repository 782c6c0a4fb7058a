"""The boards an agent runs on: clock, serial line, socket, storage and keys behind the same names on each."""
