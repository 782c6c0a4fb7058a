"""Starts the simulated board as an ESP32's own _boot does, up to and without main.py: boot.py is run.

main.py is left out as if Ctrl-C had come in that moment: this board is for flashing. It has no VfsRom, as the builds
that micropython.org offers for the ESP32.
"""

import os
import sys


def run():
    try:
        os.stat(".damaged")
        os.is_damaged = True
        print("The filesystem appears to be corrupted.")
        return
    except OSError:
        pass
    try:
        with open("boot.py") as file:
            source = file.read()
    except OSError:
        return
    try:
        exec(compile(source, "boot.py", "exec"), {"__name__": "__main__"})
    except Exception as error:
        sys.print_exception(error)


run()
