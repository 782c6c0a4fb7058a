"""Makes MicroPython's module `ntptime` for tests: what time servers say.

    lies: {host: seconds added to the truth, or None for a host that does not answer}
    truth: a function that gives Unix seconds
"""

import time as _time_module

import utime

host = "pool.ntp.org"
timeout = 1
lies: dict = {}
asked: list = []


def truth():
    return int(utime.time())


def time():
    """Seconds since this interpreter's epoch, as the host says."""
    asked.append(host)
    lie = lies.get(host, 0)
    if lie is None:
        raise OSError(110)
    return truth() + lie - (946684800 if _time_module.gmtime(0)[0] == 2000 else 0)
