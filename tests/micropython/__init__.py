"""The real MicroPython as a test runner: interpreters from npm, run by Node."""
